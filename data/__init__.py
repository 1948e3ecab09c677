"""Data sets under one roof: `load` gives images, labels and votes; `available` says which sets are at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset import ImageDataset, stratified
from data.errors import UserError
from data.files import packed
from data.files.cache import home
from data.sources import cifar10, cifar10h, fashion, folder, noisycxr

__all__ = ["Available", "ImageDataset", "UserError", "available", "load"]


@dataclass(frozen=True)
class Source:
    """One row of the registry.

    missing: root -> what the user must do first, empty when nothing · options: what `load` takes besides root and
    limit · n_images: how many are in the pool, None when that takes a look at the files.
    """

    title: str
    load: Callable[..., ImageDataset]
    missing: Callable[[Path], str]
    options: tuple[str, ...]
    n_images: int | None


@dataclass(frozen=True)
class Available:
    """One data set for a menu. reason: what the user must do first, empty when nothing; n_images: None when unknown."""

    name: str
    title: str
    available: bool
    reason: str
    n_images: int | None


SOURCES = {
    "fashion": Source(
        "Fashion-MNIST: 4,000 images with the annotations of 51 simulated annotators, built in",
        lambda root: fashion.load(),
        lambda root: "",
        (),
        4000,
    ),
    "cifar10": Source("CIFAR-10: 50,000 images, reference labels", cifar10.load, cifar10.missing, (), 50000),
    "cifar10h": Source(
        "CIFAR-10H: 5,000 CIFAR-10 test images with the annotations of people",
        cifar10h.load,
        cifar10h.missing,
        ("size",),
        5000,
    ),
    "noisycxr": Source(
        "NoisyCXR: chest X-rays with labels mined from reports, and the radiologists' to check them by",
        noisycxr.load,
        noisycxr.missing,
        ("size",),
        None,
    ),
    "folder": Source(
        "Your own images: class folders, or a metadata.csv with labels and annotations",
        folder.load,
        lambda root: "",
        ("size", "class_names", "votes", "labels", "test_share", "by_suffix"),
        None,
    ),
}


def load(name: str, root: str | Path | None = None, *, limit: int | None = None, **options: Any) -> ImageDataset:
    """The data set `name`.

    root: where its files lie, by default $NEXTLABEL_DATA, else ~/.cache/nextlabel; for "folder" the folder itself. One that
    the bundle of a run brought (`data.files.packed`) is taken as it is, whatever the options.
    limit: so many images of the pool only, drawn by class with a fixed seed, in the pool's order. Further options: size
    of "cifar10h" (images in the pool), size of "noisycxr" (pixels a side), size, class_names, votes, labels, test_share and
    by_suffix of "folder". Raises UserError for a name, option or limit that does not exist, and when the files are absent or
    damaged.
    """
    if name not in SOURCES:
        raise UserError(f"there is no data set {name!r}; choose from {', '.join(SOURCES)}")
    source = SOURCES[name]
    unknown = sorted(set(options) - set(source.options))
    if unknown:
        allowed = ", ".join([*source.options, "limit"])
        raise UserError(f"the data set {name!r} has no option {unknown[0]!r}; its options are {allowed}")
    if name == "folder" and root is None:
        raise UserError("the data set 'folder' needs the path of your images; give it as root")
    if root is not None and packed.is_packed(Path(root)):
        return packed.load(Path(root))
    dataset = source.load(home() if root is None else Path(root).expanduser(), **options)
    if limit is None:
        return dataset
    if not 1 <= limit <= len(dataset):
        raise UserError(f"a limit of {limit} images does not fit {name!r}; choose from 1 to {len(dataset)}")
    return dataset.subset(stratified(dataset.labels, limit, seed=0))


def available(root: str | Path | None = None) -> list[Available]:
    """Every data set, and what is missing for it under `root`. Looks at file names only: no image is read."""
    place = home() if root is None else Path(root).expanduser()
    rows = []
    for name, source in SOURCES.items():
        reason = source.missing(place)
        rows.append(Available(name, source.title, not reason, reason, source.n_images))
    return rows
