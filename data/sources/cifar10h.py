"""CIFAR-10H (Peterson et al. 2019): the votes of about 51 people on each of CIFAR-10's 10,000 test images.

As in Bernhardt et al. 2022, the pool is 5,000 of these images that keep all 454 ambiguous ones, and the test set is
CIFAR-10's 50,000 training images.
"""

from pathlib import Path

import numpy as np

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.download import fetch
from data.sources import Source, cifar10
from data.votes import ambiguous, random_order

FILE = "cifar10h-counts.npy"
URL = f"https://raw.githubusercontent.com/jcpeterson/cifar-10h/master/data/{FILE}"
SHA256 = "9b36b4550349af56c79083356312eb4af856cc5fd3caf1f669d40b9d0bbb69ff"


def missing(root: Path) -> str:
    """What the user must do before this set can be loaded from `root`; empty when nothing. Looks at names only."""
    counts = "" if (root / FILE).is_file() else f"put {FILE} (0.8 MB, from {URL}) into {root}"
    return "; ".join(filter(None, [counts, cifar10.missing(root)]))


def load(root: Path, size: int = 5000) -> ImageDataset:
    """Pool: `size` test images of CIFAR-10 with human votes, all the ambiguous ones among them, in CIFAR-10's order.

    size: from 454, the ambiguous samples, to 10,000, all. Raises UserError when a file is absent or damaged.
    """
    counts = read_counts(root)
    parts = cifar10.arrays(root)
    images, labels = parts["test-images"], parts["test-labels"]
    agreement = (counts.argmax(axis=1) == labels).mean()
    if agreement < 0.9:
        raise UserError(
            f"the annotations in {root / FILE} agree with only {agreement:.0%} of CIFAR-10's test labels, so they are in "
            f"another order; take the file from {URL}"
        )
    hard = ambiguous(counts)
    if not hard.sum() <= size <= len(counts):
        raise UserError(
            f"cifar10h cannot have {size} images; choose from {hard.sum()} (the ambiguous ones, which are always kept) "
            f"to {len(counts)}"
        )
    order = random_order(len(counts), seed=0)
    keep = np.sort(order[np.argsort(~hard[order], kind="stable")][:size])  # the ambiguous first, then at random
    return ImageDataset(
        name="cifar10h",
        ids=[f"cifar10-test-{i:05d}" for i in keep],
        images=images if size == len(counts) else images[keep],
        labels=labels[keep],
        label_counts=counts[keep],
        class_names=cifar10.CLASS_NAMES,
        test_images=parts["train-images"],
        test_labels=parts["train-labels"],
        annotators="human",
        annotators_source="CIFAR-10H: 47 to 63 people annotated each image (Peterson et al., ICCV 2019).",
        noise_temperatures={0.15: 2.0, 0.30: 10.0},
    )


def read_counts(root: Path) -> np.ndarray:
    """The votes in CIFAR-10's test order: int64 [10000,10]. Downloaded when absent.

    Raises UserError when the file is absent and cannot be fetched, or is not such an array.
    """
    file = root / FILE
    if not file.is_file():
        fetch(URL, file, "sha256", SHA256, missing(root))
    try:
        counts = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and load again, or take it from {URL}") from error
    if not isinstance(counts, np.ndarray) or counts.shape != (10000, 10) or counts.dtype != np.int64:
        found = f"{counts.dtype} {list(counts.shape)}" if isinstance(counts, np.ndarray) else "an archive"
        raise UserError(
            f"{file} should hold int64 [10000, 10], one row per test image, but holds {found}; take it from {URL}"
        )
    return counts


SOURCE = Source(
    name="cifar10h",
    title="CIFAR-10H: 5,000 CIFAR-10 test images with the annotations of people",
    reference="Peterson et al. 2019",
    load=load,
    missing=missing,
    options=("size",),
    n_images=5000,
    place=2,
)
