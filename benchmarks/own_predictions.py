"""A user's own ResNet-20 on CIFAR-10H: trained elsewhere, its predictions ranked by `rank` and by a run that imports them.

The network is trained on `TRAIN` of CIFAR-10's training images with their labels, so that its predictions of CIFAR-10H, which
are test images, are out of sample. Writes `OUT`: the area under the curve of every ranking, over five draws of annotations as in
`results/cifar10h-15`; that of a run's own draw has to be the one computed by hand.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import data
from core import relabel, scores
from data import votes
from data.dataset import ImageDataset
from data.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "own-predictions" / "auc.csv"
TRAIN, EPOCHS, BATCH, RATE = 20_000, 5, 128, 0.1
TEMPERATURE, SEED = 2.0, 0  # 15.4 % of wrong initial labels
DRAWS = range(5)


class Block(nn.Module):
    """Two 3 × 3 convolutions around a shortcut that needs no weights, He et al. 2016, option A."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        self.stride, self.more = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(self.second(self.first(x)) + shortcut)


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR-10, He et al. 2016, section 4.2: 0.27 million parameters."""
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(before, after, 2 if after > before else 1) for before, after in pairwise(widths)]
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Images uint8 [N, H, W, 3] as the network takes them."""
    mean, deviation = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    x = (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - mean) / deviation
    return x.permute(0, 3, 1, 2)


def train(images: NDArray[np.uint8], labels: NDArray[np.int64], epochs: int) -> nn.Module:
    """ResNet-20 by SGD with a one-cycle schedule, flips and padded crops."""
    torch.manual_seed(SEED)
    model = resnet20()
    optimiser = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    targets = torch.from_numpy(labels)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            x = F.pad(as_tensor(images[rows.numpy()]), (4, 4, 4, 4))
            top, left = torch.randint(0, 9, (2,)).tolist()
            x = x[:, :, top : top + 32, left : left + 32]
            flipped = torch.rand(len(x)) < 0.5
            x[flipped] = x[flipped].flip(3)
            optimiser.zero_grad()
            F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), targets[rows]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def predicted(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Predicted probabilities, float32 [N, 10]."""
    with torch.inference_mode():
        parts = [model(as_tensor(images[at : at + 500])).softmax(dim=1) for at in range(0, len(images), 500)]
    return torch.cat(parts).numpy()


def command(*words: str, home: Path, root: Path | None) -> dict[str, Any]:
    """The object that a command of NextLabel prints."""
    environment = {**os.environ, "NEXTLABEL_HOME": str(home)}
    environment |= {} if root is None else {"NEXTLABEL_DATA": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "core", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))


def compare(folder: Path, dataset: ImageDataset, probs: NDArray[Any], root: Path | None = None) -> pd.DataFrame:
    """The areas of every ranking by predictions of CIFAR-10H: policy, auc (five draws of annotations), auc_normalised.

    Files and runs lie in `folder`. Raises `AssertionError` where `rank` or a run differs from what is computed by hand.
    """
    counts = dataset.label_counts
    assert counts is not None
    initial = votes.initial_labels(counts, TEMPERATURE, SEED)
    labels = np.eye(len(dataset.class_names), dtype=np.int64)[initial]
    by_hand = {
        "cleaning": scores.cleaning_score(labels, probs),
        "cross-entropy": scores.cross_entropy(labels, probs),
        "self-confidence": scores.self_confidence(initial, probs),
    }
    np.save(folder / "probs.npy", probs)
    names = [dataset.class_names[label] for label in initial]
    pd.DataFrame({"sample_id": dataset.ids, "label": names}).to_csv(folder / "labels.csv", index=False)
    given = ["--predictions", str(folder / "probs.npy"), "--predicted", "out-of-sample"]
    out = folder / "ranking.parquet"
    of_labels = ["--labels", str(folder / "labels.csv"), "--classes", *dataset.class_names]
    began = time.perf_counter()
    found = command("rank", *given, *of_labels, "--out", str(out), "--json", home=folder, root=root)
    print(f"rank: {time.perf_counter() - began:.1f} s, {found['label_issues']:,} labels are likely wrong")
    ranking = pd.read_parquet(out).set_index("sample_id").loc[dataset.ids]
    for name, values in by_hand.items():
        np.testing.assert_array_equal(ranking[name], values)
    wrong = initial != counts.argmax(axis=1)
    budget = 3 * int(wrong.sum())
    what = ["--task", "label-cleaning", "--dataset", "cifar10h", "--temperature", str(TEMPERATURE)]
    what += ["--budget", str(budget), "--cycles", "2", "--seed", str(SEED), "--json"]
    run = command("run", *what, *given, home=folder, root=root)
    once = relabel.simulate(counts, initial, by_hand["cleaning"], budget=budget, seeds=SEED)
    assert run["auc"] == once.auc, (run["auc"], once.auc)
    print(f"run --predictions: AUC {run['auc']:.4f}, by core.scores and core.relabel.simulate {once.auc:.4f}")
    policies: dict[str, Any] = {"oracle": "oracle", **by_hand, "random": "random"}
    areas = {
        name: relabel.simulate(counts, initial, policy, budget=budget, seeds=list(DRAWS)).auc
        for name, policy in policies.items()
    }
    table = pd.DataFrame({"policy": list(areas), "auc": list(areas.values())})
    span = areas["oracle"] - areas["random"]
    return table.assign(auc_normalised=(table["auc"] - areas["random"]) / span)


def measure() -> None:
    """Train, predict, rank, and print the table beside the product's own selectors."""
    try:
        pool, training = data.load("cifar10h"), data.load("cifar10", limit=TRAIN)
    except UserError as error:
        print(f"skipped: {error}")
        return
    began = time.perf_counter()
    model = train(np.asarray(training.images), training.labels, EPOCHS)
    spent = time.perf_counter() - began
    probs = predicted(model, np.asarray(pool.images))
    right = (probs.argmax(axis=1) == pool.labels).mean()
    print(
        f"ResNet-20, {TRAIN:,} images, {EPOCHS} epochs: {spent:.0f} s; {right:.1%} of CIFAR-10H's {len(pool):,} right"
    )
    with tempfile.TemporaryDirectory() as folder:
        table = compare(Path(folder), pool, probs).assign(predictions="ResNet-20")
    ours = pd.read_csv(ROOT / "results" / "cifar10h-15" / "statistics.csv")[["policy", "auc", "auc_normalised"]]
    ours = ours[~ours["policy"].isin(["oracle", "random"])].assign(predictions="trained by NextLabel")
    table = pd.concat([table, ours], ignore_index=True).sort_values("auc", ascending=False).round(4)
    print(table.to_string(index=False))
    OUT.parent.mkdir(exist_ok=True)
    table.to_csv(OUT, index=False)
