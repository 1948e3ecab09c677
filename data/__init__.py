"""Data sets under one roof: `load` gives images, labels and votes; `available` says which sets are at hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset import ImageDataset, stratified
from data.errors import UserError
from data.files import packed
from data.files.cache import home
from data.sources import CATALOGUE

__all__ = ["CATALOGUE", "Available", "ImageDataset", "UserError", "available", "load"]


@dataclass(frozen=True)
class Available:
    """One data set for a menu. reason: what the user must do first, empty when nothing; n_images: None when unknown."""

    name: str
    title: str
    available: bool
    reason: str
    n_images: int | None


def load(name: str, root: str | Path | None = None, *, limit: int | None = None, **options: Any) -> ImageDataset:
    """The data set `name`.

    root: where its files lie, by default $NEXTLABEL_DATA, else ~/.cache/nextlabel; for "folder" the folder itself. One that
    the bundle of a run brought (`data.files.packed`) is taken as it is, whatever the options.
    limit: so many images of the pool only, drawn by class (where labels are masks, by group) with a fixed seed, in the pool's
    order. options: what the source takes (`data.sources`), such as size of "cifar10h" (images in the pool) and of "noisycxr"
    (pixels a side). Raises UserError for a name, option or limit that does not exist, and when the files are absent or damaged.
    """
    source = CATALOGUE.named(name)
    unknown = sorted(set(options) - set(source.options))
    if unknown:
        allowed = ", ".join([*source.options, "limit"])
        raise UserError(f"the data set {name!r} has no option {unknown[0]!r}; its options are {allowed}")
    if source.needs_root and root is None:
        raise UserError(f"the data set {name!r} needs the path of your images; give it as root")
    if root is not None and packed.is_packed(Path(root)):
        return packed.load(Path(root))
    dataset = source.load(home() if root is None else Path(root).expanduser(), **options)
    if limit is None:
        return dataset
    if not 1 <= limit <= len(dataset):
        raise UserError(f"a limit of {limit} images does not fit {name!r}; choose from 1 to {len(dataset)}")
    return dataset.subset(stratified(dataset.strata, limit, seed=0))


def available(root: str | Path | None = None) -> list[Available]:
    """Every data set, and what is missing for it under `root`. Looks at file names only: no image is read."""
    place = home() if root is None else Path(root).expanduser()
    rows = []
    for name, source in CATALOGUE.items():
        reason = source.missing(place)
        rows.append(Available(name, source.title, not reason, reason, source.n_images))
    return rows
