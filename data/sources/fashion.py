"""Fashion-MNIST (Xiao et al. 2017): 5,000 real images that come with the product, and votes of simulated annotators.

`data/make_fashion.py` made the file and says how; nothing is downloaded.
"""

from pathlib import Path

import numpy as np

from data.dataset import ImageDataset
from data.sources import Source

FILE = Path(__file__).parents[1] / "fashion" / "fashion.npz"
CLASS_NAMES = [
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
]  # fmt: skip


def load() -> ImageDataset:
    """Pool: 4,000 training images, ids "fashion-train-01234" (place in the original file); 1,000 test images."""
    with np.load(FILE, allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    return ImageDataset(
        name="fashion",
        ids=[f"fashion-train-{i:05d}" for i in parts["pool_index"]],
        images=parts["images"][..., None],
        labels=parts["labels"].astype(np.int64),
        label_counts=parts["label_counts"].astype(np.int64),
        class_names=CLASS_NAMES,
        test_images=parts["test_images"][..., None],
        test_labels=parts["test_labels"].astype(np.int64),
        annotators="simulated",
        annotators_source="Simulated: 51 classifiers of 17 kinds, each trained on other images, annotated every image.",
    )


SOURCE = Source(
    name="fashion",
    title="Fashion-MNIST: 4,000 images with the annotations of 51 simulated annotators, built in",
    reference="Xiao et al. 2017",
    load=lambda root: load(),
    n_images=4000,
    place=0,
)
