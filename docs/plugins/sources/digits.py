"""Handwritten digits, 8 × 8 grey, as scikit-learn brings them: Alpaydin & Kaynak 1998."""

import numpy as np

from data import ImageDataset
from data.sources import Source

POOL = 1_500  # images; the other 297 are the test set


def load(root):
    """Pool: the first 1,500 images, ids "digit-0000" …; nothing is read from `root`."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = found.target.astype(np.int64)
    return ImageDataset(
        name="digits",
        ids=[f"digit-{i:04d}" for i in range(POOL)],
        images=images[:POOL],
        labels=labels[:POOL],
        label_counts=None,
        class_names=[f"digit {i}" for i in range(10)],
        test_images=images[POOL:],
        test_labels=labels[POOL:],
        annotators="none",
        annotators_source="One reference label an image.",
    )


SOURCE = Source(
    name="digits",
    title="Handwritten digits: 1,500 images, reference labels, comes with scikit-learn",
    reference="Alpaydin & Kaynak 1998",
    load=load,
    n_images=POOL,
)
