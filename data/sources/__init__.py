"""Data sets: one a file, which exports its `SOURCE`, what it is called, what it needs, and how it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.catalogue import Catalogue, Description
from data.dataset import Answer, ImageDataset


@dataclass(frozen=True, kw_only=True)
class Source(Description):
    """A data set. Its `options` are the keywords that `load` takes."""

    load: Callable[..., ImageDataset]
    """load(root, **options): the data set whose files lie under `root`, a `Path`."""
    missing: Callable[[Path], str] = lambda root: ""
    """root → what the user must do first, empty when nothing. Looks at file names only."""
    answer: Answer = "class"
    """What a label of an image is."""
    n_images: int | None = None
    """How many images are in the pool, None where that takes a look at the files."""
    find: Callable[..., Any] | None = None
    """find(root, **options, progress): what lies there, a `data.sources.own.Found`, for a look before a run is started."""
    fits: Callable[[Path], bool] | None = None
    """fits(root): whether a folder looks like this layout of images of one's own. Looks at names, and for words in JSON files."""
    needs_root: bool = False
    """Whether `root` must be given: there is no usual place for the user's own images."""


CATALOGUE = Catalogue(Source, "data set", "SOURCE", "data.sources", "sources", helpers=("make_fashion", "own", "pairs"))
