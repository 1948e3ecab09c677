"""Which score to rank by where several annotators gave the labels to check, and what to do with ties.

The protocol, written before anything was run:

Pool: CIFAR-10H, 5,000 images with all ambiguous ones among them; ground truth: the most frequent of an image's about 51
annotations. Tables of votes, for each seed drawn anew from these counts, as independent draws: three an image; three from
counts^(1/2) (T = 2, more noise); five; one to five, as many for each image at random; and one from counts^(1/2), the single noisy
label of Bernhardt et al. 2022, where nothing can tie.

Predicted probabilities: 3-fold out-of-fold, by the selectors `pretrained` (a linear head on ImageNet features) and, on the
second table and three seeds, because it is slow, `vanilla` (`small-cnn` of width 16, 10 epochs), each trained on the majority
labels of that table. Ties are left out of the training ("out"); for the linear head on the second table also: they enter with
their shares of the annotations ("ties"), all images enter with their shares ("shares"), or, as it was before, the first-listed
annotation stands ("first").

Rankings: Φ, cross-entropy, 1 − p[label], each by its score alone and with ties first; random, alone and with ties first; the
oracle. Measures, each ranking on the same votes:
  * wrong labels, where the first-listed annotation stands for a tie, as it was before: average precision, area under the
    ROC curve, precision among the first k (k: their number) and among the first 500; average precision among the images with
    a majority alone;
  * AUC of correctness: Algorithm 1 by the static ranking from these histograms, with a budget of three annotations for each
    label that is wrong or tied; mean share of right labels over the collected annotations, where a tie is not right (`auc`),
    or the first-listed annotation stands until a majority forms (`auc_first`).
What decides is `auc` on tables with several annotations an image, by `pretrained`, paired over the seeds; `vanilla` must not
contradict it. Intervals: 95 %, Student's t.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

import data
from benchmarks.pretrained import weights
from core import relabel, scores
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.models.forward import place, predict
from core.relabel import Floats, Ints, Labels
from core.selectors import Settings, Shape, linear, pretrained, vanilla
from data import votes
from data.errors import UserError

SEEDS, FEWER = range(5), range(3)
TABLES = {  # annotations an image, least and most, and the temperature of the counts that they are drawn from
    "three": (3, 3, 1.0),
    "three, T = 2": (3, 3, 2.0),
    "five": (5, 5, 1.0),
    "one to five": (1, 5, 1.0),
    "one, T = 2": (1, 1, 2.0),
}
NOISY = "three, T = 2"  # the one with the most ties
FOLDS, FIRST, EACH = 3, 500, 3  # EACH: annotations of the budget for each label that is wrong or tied
RECIPE = Settings(epochs=10, lr=0.1, batch_size=128, schedule="one-cycle")
OUT = Path("results/votes/votes.csv")


@dataclass(frozen=True)
class Table:
    """Annotations of a pool. first: the label of the first-listed annotation where no class leads, else the majority."""

    histogram: Ints  # [N, C]
    majority: Ints  # [N], −1 for a tie
    first: Ints  # [N]


def drawn(counts: Ints, least: int, most: int, temperature: float, seed: int) -> Table:
    """So many annotations of each image, from counts^(1/T)."""
    n, n_classes = len(counts), counts.shape[1]
    rng = np.random.default_rng([seed, 12])
    shares = votes.temper(counts, temperature).cumsum(axis=1)
    said = (rng.random((n, most))[:, :, None] > shares[:, None, :-1]).sum(axis=2)  # [N, most]
    number = rng.integers(least, most + 1, n)
    given = np.arange(most) < number[:, None]
    histogram = (np.eye(n_classes, dtype=np.int64)[said] * given[:, :, None]).sum(axis=1)
    tied = (histogram == histogram.max(axis=1, keepdims=True)).sum(axis=1) > 1
    best = histogram.argmax(axis=1)
    return Table(histogram, np.where(tied, -1, best), np.where(tied, said[:, 0], best))


def targets(table: Table, training: str) -> tuple[Ints, Floats]:
    """Rows to train on and their targets, shares of the classes [n, C]."""
    n_classes = table.histogram.shape[1]
    shares, tied = scores.distribution(table.histogram), table.majority < 0
    label = np.eye(n_classes)[table.first if training == "first" else table.majority]
    rows = np.flatnonzero(~tied) if training == "out" else np.arange(len(tied))
    if training == "shares":
        return rows, shares
    return rows, np.where(tied[:, None] & (training == "ties"), shares, label)[rows]


def folds(n: int, seed: int) -> Ints:
    """The fold of each image, [N]."""
    fold = np.empty(n, dtype=np.int64)
    fold[votes.random_order(n, seed)] = np.arange(n) % FOLDS
    return fold


def by_head(embeddings: torch.Tensor, table: Table, training: str, shape: Shape, seed: int) -> Floats:
    """Out-of-fold posterior [N, C] of a linear head."""
    rows, target = targets(table, training)
    fold, probs = folds(len(embeddings), seed), np.empty(table.histogram.shape)
    for k in range(FOLDS):
        model, seen = pretrained.build(shape), fold[rows] != k
        label = target[seen].astype(np.float32) if training in ("ties", "shares") else target[seen].argmax(axis=1)
        linear.fit(model, embeddings[rows[seen]], label, seed=seed)
        with torch.no_grad():
            probs[fold == k] = model.classify(embeddings[fold == k]).softmax(dim=1).numpy()
    return probs


def by_network(images: Images, table: Table, seed: int) -> Floats:
    """Out-of-fold posterior [N, C] of a small network trained on the labels of images without a tie."""
    rows, target = targets(table, "out")
    fold, probs = folds(len(images), seed), np.empty(table.histogram.shape)
    for k in range(FOLDS):
        model, seen = architectures.build("small-cnn", 3, target.shape[1], 16, seed), fold[rows] != k
        vanilla.fit(model, images, rows[seen], target[seen].argmax(axis=1), RECIPE, seed=seed)
        probs[fold == k] = predict(model, images, np.flatnonzero(fold == k))
    return probs


def rankings(table: Table, probs: Floats, counts: Ints, seed: int) -> Iterator[tuple[str, bool, Floats]]:
    """Name, whether ties come first, and priorities: [N], or [N, C] of the oracle."""
    found = {
        "cleaning": scores.cleaning_score(table.histogram, probs),
        "cross-entropy": scores.cross_entropy(table.histogram, probs),
        "self-confidence": scores.self_confidence(table.majority, probs, table.histogram),
        "random": relabel.random_order(len(probs), seed),
    }
    for name, values in found.items():
        yield name, False, values
        yield name, True, values
    yield "oracle", True, relabel.oracle_priority(counts)


def measures(table: Table, priority: Floats, ties_first: bool, counts: Ints, seed: int) -> dict[str, float]:
    """What a ranking is worth; of the oracle, whose ranking changes, the AUC alone."""
    truth, tied = counts.argmax(axis=1), table.majority < 0
    wrong, none = table.first != truth, np.zeros(len(truth), dtype=bool)
    found: dict[str, float] = {"ties": int(tied.sum()), "wrong": int(wrong.sum())}
    found["wrong_of_ties"] = float(wrong[tied].mean()) if tied.any() else np.nan
    if priority.ndim == 1:
        place = np.empty(len(priority))
        order = np.lexsort((-priority, ~tied if ties_first else none))
        place[order] = np.arange(len(order), 0, -1)
        found["precision_k"] = float(wrong[order[: wrong.sum()]].mean())
        found["precision_500"] = float(wrong[order[:FIRST]].mean())
        found["average_precision"] = float(average_precision_score(wrong, place))
        found["auroc"] = float(roc_auc_score(wrong, place))
        found["average_precision_majority"] = float(average_precision_score(wrong[~tied], priority[~tied]))
    budget = EACH * int((table.majority != truth).sum())
    for name, start in (("auc", table.majority), ("auc_first", table.first)):
        state = Labels(table.histogram, start, none, tied if ties_first else none)
        taken = relabel.collect(counts, state, priority, budget=budget, seed=1000 + seed)
        curve = relabel.correctness_curve(truth, start, taken)
        found |= {name: float(curve.mean()), name.replace("auc", "end"): float(curve[-1])}
    return found


def rows_of(
    counts: Ints, table: Table, probs: Floats, seed: int, /, **named: str
) -> Iterator[dict[str, str | int | float | bool]]:
    """One row of the result a ranking."""
    truth = counts.argmax(axis=1)
    right = {"model_accuracy": float((probs.argmax(axis=1) == truth).mean())}
    right["model_log_loss"] = float(-np.log(np.maximum(probs[np.arange(len(truth)), truth], scores.FLOOR)).mean())
    for score, ties_first, priority in rankings(table, probs, counts, seed):
        found = measures(table, priority, ties_first, counts, seed)
        yield {**named, "score": score, "ties_first": ties_first, "seed": seed, **right, **found}


def interval(values: pd.Series) -> str:
    """Mean ± half of a 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.sem() if len(values) > 1 else np.nan
    return f"{values.mean():.4f} ± {half:.4f}"


def summarise(table: pd.DataFrame) -> None:
    """Print means over seeds, and differences paired with the ranking as it was, Φ alone, and with Φ after the ties."""
    keys = ["predictions", "training", "table"]
    shown = [
        "auc",
        "auc_first",
        "average_precision",
        "average_precision_majority",
        "auroc",
        "precision_k",
        "precision_500",
    ]
    for key, part in table.groupby(keys, sort=False):
        facts = part[["ties", "wrong", "wrong_of_ties", "model_accuracy", "model_log_loss"]].mean()
        print(f"\n{' · '.join(key)}: {', '.join(f'{name} {value:.3f}' for name, value in facts.items())}")
        phi = part[part["score"] == "cleaning"].set_index("seed")
        alone, after = phi.loc[~phi["ties_first"], "auc"], phi.loc[phi["ties_first"], "auc"]
        for (score, first), one in part.groupby(["score", "ties_first"], sort=False):
            auc = one.set_index("seed")["auc"]
            gain = f"{interval(auc - alone)}, − Φ after ties {interval(auc - after)}"
            values = "  ".join(f"{name} {interval(one[name])}" for name in shown if one[name].notna().all())
            print(f"  {score}{', ties first' if first else ''}: auc − Φ alone {gain}  {values}")


def jobs() -> list[tuple[str, str, str, int]]:
    """What is trained: (predictions, training, table, seed)."""
    found = [("pretrained", "out", name, seed) for name in TABLES for seed in SEEDS]
    found += [("pretrained", training, NOISY, seed) for training in ("ties", "shares", "first") for seed in SEEDS]
    return found + [("vanilla", "out", NOISY, seed) for seed in FEWER]


def measure() -> None:
    """Run the protocol, write every seed's figures to `OUT`, and print their means."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        dataset = data.load("cifar10h")
        shape = Shape("resnet18", 16, 3, len(dataset.class_names), seed=0, weights=weights())
        encoder = place(pretrained.build(shape), torch.device("cpu")).eval()
    except UserError as error:
        print(f"skipped: {error}")
        return
    assert dataset.label_counts is not None
    counts, cpu = dataset.label_counts, torch.device("cpu")
    seen = Images(dataset.images, *pretrained.statistics(dataset.images), cpu)
    with torch.no_grad():
        embeddings = torch.cat([encoder.embed(x) for _, x in seen.batches(np.arange(len(seen)), 256)])
    images = Images(dataset.images, *channel_statistics(dataset.images), cpu)
    rows: list[dict[str, str | int | float | bool]] = []
    OUT.parent.mkdir(exist_ok=True)
    for predictions, training, name, seed in jobs():
        table = drawn(counts, *TABLES[name], seed)
        if predictions == "pretrained":
            probs = by_head(embeddings, table, training, shape, seed)
        else:
            probs = by_network(images, table, seed)
        rows += rows_of(counts, table, probs, seed, predictions=predictions, training=training, table=name)
        pd.DataFrame(rows).to_csv(OUT, index=False, float_format="%.5f")
    summarise(pd.DataFrame(rows))
