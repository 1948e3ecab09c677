"""Masks that are arrays: a class a pixel in one byte, read as int64 [N, H, W] with -1 for unknown."""

import colorsys
import copy
import hashlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data.lazy import LazyMasks

VOID = 255
"""The byte of a pixel whose class is unknown; so masks have at most this many classes."""
BACKGROUND = "background"
"""What data sets call the class of everything else."""
CHUNK = 64  # masks gone over at a time, so that a memory map is never held whole


def widened(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Classes of one byte, `VOID` for unknown, as int64 with -1."""
    found = codes.astype(np.int64)
    found[codes == VOID] = -1
    return found


def narrowed(masks: Any) -> NDArray[np.uint8]:
    """Masks int [N, H, W], an array or `LazyMasks`, of at most 255 classes, as bytes with `VOID` for unknown."""
    found = np.empty(masks.shape, np.uint8)
    for start in range(0, len(found), CHUNK):
        rows = np.asarray(masks[start : start + CHUNK])
        found[start : start + CHUNK] = np.where(rows < 0, VOID, rows)
    return found


def colours(n: int) -> list[tuple[int, int, int]]:
    """A colour (r, g, b) for each of n classes: the first eight are told apart with every common form of colour blindness.

    Okabe & Ito (2008), black replaced by grey; further ones go round the hues by the golden angle, light and dark in turn.
    """
    found = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66)]
    found.append((153, 153, 153))
    for k in range(n - len(found)):
        light, vivid = ((0.95, 0.45), (0.55, 0.8), (0.75, 0.65))[k % 3]
        found.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(k * 0.381966 % 1, vivid, light)))  # type: ignore[arg-type]
    return found[:n]


def palette() -> list[int]:
    """The palette of an indexed PNG of masks: 256 colours, that of unknown pixels black."""
    return [value for colour in (*colours(VOID), (0, 0, 0)) for value in colour]


def numbered(mask: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The connected regions of one class in a mask int [H, W], -1 for unknown: (the region of each pixel, int64 [H, W], 0 where
    unknown, then from 1 by class; the class of each region, int64 [R]).

    Regions touch at sides or corners (8-connectivity), as thin poles do that run obliquely.
    """
    from scipy import ndimage  # a fifth of a second, which most loads do without

    numbers, classes = np.zeros(mask.shape, np.int64), list[int]()
    for label in np.unique(mask[mask >= 0]).tolist():
        own, found = ndimage.label(mask == label, structure=np.ones((3, 3)))
        numbers += np.where(own > 0, own + len(classes), 0)
        classes += [label] * found
    return numbers, np.array(classes, np.int64)


class ByteMasks(LazyMasks):
    """Masks in an array or memory map of bytes. codes: uint8 [N, H, W], `VOID` for unknown · n_classes: how many there are.

    Raises ValueError for a code that is neither a class nor `VOID`.
    """

    def __init__(self, codes: NDArray[np.uint8], n_classes: int) -> None:
        self.n_classes = n_classes
        self._codes, self._rows = codes, np.arange(len(codes))
        self._blank = np.empty(len(codes), np.bool_)
        for start in range(0, len(codes), CHUNK):
            part = codes[start : start + CHUNK]
            if ((part >= n_classes) & (part != VOID)).any():
                raise ValueError(f"a mask holds a class outside of the {n_classes} there are")
            self._blank[start : start + CHUNK] = (part == VOID).all(axis=(1, 2))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        rows = self._rows[key]
        return self._at(rows) if isinstance(key, slice) else widened(self._codes[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return widened(self._codes[self._rows]).astype(np.int64 if dtype is None else dtype, copy=False)

    def view(self, rows: NDArray[np.int64]) -> Self:
        return self._at(self._rows[rows])

    def _at(self, rows: NDArray[np.int64]) -> Self:
        made = copy.copy(self)
        made._rows = rows
        return made

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self._codes.shape[1:])

    @property
    def version(self) -> str:
        digest = hashlib.blake2b(repr((self.shape, self.n_classes)).encode(), digest_size=16)
        for start in range(0, len(self), CHUNK):
            digest.update(self._codes[self._rows[start : start + CHUNK]].tobytes())
        return digest.hexdigest()

    @property
    def blank(self) -> NDArray[np.bool_]:
        return self._blank[self._rows]

    def readable(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        return np.ones(len(self if rows is None else rows), np.bool_)

    @property
    def unreadable(self) -> dict[int, str]:
        return {}


class MadeMasks(LazyMasks):
    """Masks that are made one by one when they are read, always the same.

    make: the mask of a row, uint8 [H, W], `VOID` for unknown · shape: (N, H, W) · n_classes: how many there are · name: hex
    digest of all that they follow from · blank: bool [N], which have no known pixel, as far as that is known.
    """

    def __init__(
        self,
        make: Callable[[int], NDArray[np.uint8]],
        shape: tuple[int, int, int],
        n_classes: int,
        name: str,
        blank: NDArray[np.bool_] | None = None,
    ) -> None:
        self.n_classes = n_classes
        self._make, self._sides, self._name = make, shape[1:], name
        self._rows = np.arange(shape[0])
        self._blank = np.zeros(shape[0], np.bool_) if blank is None else blank

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        rows = self._rows[key]
        if isinstance(key, slice):
            return self._at(rows)
        return np.asarray(self._at(rows)) if rows.ndim else widened(self._make(int(rows)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = np.empty(self.shape, np.int64)
        for k, row in enumerate(self._rows.tolist()):
            found[k] = widened(self._make(row))
        return found if dtype is None else found.astype(dtype)

    def view(self, rows: NDArray[np.int64]) -> Self:
        return self._at(self._rows[rows])

    def _at(self, rows: NDArray[np.int64]) -> Self:
        made = copy.copy(self)
        made._rows = rows
        return made

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self._sides)

    @property
    def version(self) -> str:
        digest = hashlib.blake2b(repr((self.shape, self.n_classes, self._name)).encode(), digest_size=16)
        digest.update(self._rows.tobytes())
        return digest.hexdigest()

    @property
    def blank(self) -> NDArray[np.bool_]:
        return self._blank[self._rows]

    def readable(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        return np.ones(len(self if rows is None else rows), np.bool_)

    @property
    def unreadable(self) -> dict[int, str]:
        return {}
