"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32 x 32 RGB, ten classes.

torchvision's own class reads the official batches. They are pickles, and torchvision compares every md5 with the
official one before it opens any: nothing from a user's file is unpickled unless it is the published file, byte for
byte. The first load keeps the decoded arrays under ROOT/decoded; later ones map them and import no torch.
"""

import hashlib
from pathlib import Path

import numpy as np

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.cache import cached
from data.files.download import fetch
from data.sources import Source

CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]


def missing(root: Path) -> str:
    """What the user must do before this set can be loaded from `root`; empty when nothing. Looks at names only."""
    if (root / ARCHIVE).is_file() or all((root / FOLDER / batch).is_file() for batch in BATCHES):
        return ""
    return f"put {ARCHIVE} (170 MB, from {URL}) or the folder {FOLDER} into {root}"


def load(root: Path) -> ImageDataset:
    """Pool: the training images, ids "cifar10-train-00000" …; test set: the test images; no votes.

    Raises UserError when the files are absent and cannot be downloaded, or when one of them is damaged.
    """
    parts = arrays(root)
    return ImageDataset(
        name="cifar10",
        ids=[f"cifar10-train-{i:05d}" for i in range(len(parts["train-labels"]))],
        images=parts["train-images"],
        labels=parts["train-labels"],
        label_counts=None,
        class_names=CLASS_NAMES,
        test_images=parts["test-images"],
        test_labels=parts["test-labels"],
        annotators="none",
        annotators_source="CIFAR-10 has one reference label per image and no separate annotations.",
    )


def arrays(root: Path) -> dict[str, np.ndarray]:
    """train-images uint8 [50000,32,32,3], train-labels int64 [50000], test-images [10000,…], test-labels [10000]."""
    folder = root / FOLDER
    if not all((folder / batch).is_file() for batch in BATCHES):
        _unpack(root)
    stats = [(folder / batch).stat() for batch in BATCHES]
    version = hashlib.blake2b(repr([(s.st_size, s.st_mtime_ns) for s in stats]).encode(), digest_size=8).hexdigest()
    parts = ("train-images", "train-labels", "test-images", "test-labels")
    return cached(root / "decoded", "cifar10", version, parts, lambda: _decode(root))


def _unpack(root: Path) -> None:
    """Bring ROOT/cifar-10-batches-py about from the archive, which is downloaded unless it lies there."""
    archive = root / ARCHIVE
    if not archive.is_file():
        fetch(URL, archive, "md5", ARCHIVE_MD5, missing(root))
    if _md5(archive) != ARCHIVE_MD5:
        raise UserError(f"{archive} is damaged (its md5 is not the official one); delete it and load again")
    from data.torchvision_import import torchvision

    try:
        torchvision.datasets.CIFAR10(root, download=True)  # finds the archive whole, so it unpacks and fetches nothing
    except OSError as error:
        raise UserError(
            f"{archive} could not be unpacked into {root} ({error}); make room or unpack it there"
        ) from error


def _decode(root: Path) -> dict[str, np.ndarray]:
    from data.torchvision_import import torchvision

    decoded = {}
    for split in ("train", "test"):
        try:
            part = torchvision.datasets.CIFAR10(root, train=split == "train", download=False)
        except RuntimeError as error:  # what torchvision raises for a wrong md5; it does not say which file
            damaged = _damaged(root)
            if damaged is None:
                raise
            raise UserError(
                f"{damaged} is damaged (its md5 is not the official one); "
                f"delete the folder {root / FOLDER} and unpack {ARCHIVE} again"
            ) from error
        decoded[f"{split}-images"] = np.ascontiguousarray(part.data)
        decoded[f"{split}-labels"] = np.asarray(part.targets, np.int64)
    return decoded


def _damaged(root: Path) -> Path | None:
    """The first batch whose md5 is not torchvision's."""
    from data.torchvision_import import torchvision

    official = torchvision.datasets.CIFAR10
    meta = [official.meta["filename"], official.meta["md5"]]
    for batch, md5 in [*official.train_list, *official.test_list, meta]:
        file = root / FOLDER / str(batch)
        if _md5(file) != md5:
            return file
    return None


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


SOURCE = Source(
    name="cifar10",
    title="CIFAR-10: 50,000 images, reference labels",
    reference="Krizhevsky 2009",
    load=load,
    missing=missing,
    n_images=50_000,
    place=1,
)
