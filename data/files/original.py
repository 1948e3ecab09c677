"""The file behind an image of the pool: what the model sees stretched to one size, as it was taken."""

import os
from pathlib import Path

import numpy as np

from data.files import decode


def shape(name: str, root: str | Path | None, sample_id: str) -> tuple[int, int] | None:
    """Height and width in pixels of the file of an image, as it is shown; None where the data set has no such file.

    name, root: as `data.load` takes them; only "folder" keeps a file an image. Reads the file's header.
    """
    found = _path(name, root, sample_id)
    if found is None:
        return None
    head = decode.head(found)
    return None if isinstance(head, str) else head[:2]


def picture(name: str, root: str | Path | None, sample_id: str, most: int) -> np.ndarray | None:
    """The file of an image as uint8 [H,W,3], not stretched, its longer side at most `most` pixels; None where there is none.

    name, root: as `data.load` takes them.
    """
    found, size = _path(name, root, sample_id), shape(name, root, sample_id)
    if found is None or size is None:
        return None
    factor = min(1.0, most / max(size))
    height, width = (max(1, round(factor * side)) for side in size)
    pixels = decode.decode(found, height, width, False, decode.depth(Path(root or "").expanduser().resolve()))
    return None if isinstance(pixels, str) else pixels


def _path(name: str, root: str | Path | None, sample_id: str) -> Path | None:
    """Where the file lies; None where it has gone, or left the folder through a link."""
    if name != "folder" or root is None:
        return None
    top = Path(root).expanduser().resolve()
    try:
        path = Path(os.path.realpath(top / sample_id))
        return path if path.is_relative_to(top) and path.is_file() else None
    except (OSError, ValueError):  # a name that the system does not take
        return None
