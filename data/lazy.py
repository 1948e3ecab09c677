"""Images and masks that are not in memory: what a data set and all who use it ask of them. `data.files.ondemand` has ours."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

Fit = Literal["resize", "crop", "pad"]
"""How an image of another shape becomes one of H × W: stretched; scaled to cover it, and cut where it stands out; or scaled to
lie within, on black."""
FITS: tuple[Fit, ...] = get_args(Fit)
LONG, LARGE = 2.0, 3.0  # times what is usual: beyond it an image is odd, by the ratio of its sides or by their length


def odd_shapes(shapes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which images are of an odd shape or size among others, bool [N].

    shapes: int [N, 2], height and width in pixels, 0 where unknown, which is not odd. An image is odd where the ratio of its
    longer side to its shorter one is more than `LONG` times the median ratio, or where the geometric mean of its sides is more
    than `LARGE` times the median, or less than the median over `LARGE`.
    """
    known = (shapes > 0).all(axis=1)
    odd = np.zeros(len(shapes), dtype=bool)
    if known.any():
        sides = shapes[known].astype(np.float64)
        long, size = sides.max(axis=1) / sides.min(axis=1), np.sqrt(sides.prod(axis=1))
        relative = size / np.median(size)
        odd[known] = (long > LONG * np.median(long)) | (relative > LARGE) | (relative < 1 / LARGE)
    return odd


class Lazy(ABC):
    """Rows that are decoded from files when they are read, indexed as an array of them would be; one that cannot be is named."""

    dtype: np.dtype[Any]
    ndim: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: Any) -> Any:
        """A slice: a view, which decodes nothing · an index: one row · indices or a mask: these rows, an array."""

    @abstractmethod
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows at once."""

    @abstractmethod
    def view(self, rows: NDArray[np.int64]) -> Self:
        """These rows, in this order; decodes nothing."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of all of them as one array."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of them as one array."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    @abstractmethod
    def version(self) -> str:
        """Hex digest of all that the values follow from, known without decoding them."""

    @abstractmethod
    def readable(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Whether these rows, by default all, can be read, bool [n]; decodes those that never were."""

    @property
    @abstractmethod
    def unreadable(self) -> dict[int, str]:
        """The rows that turned out not to be readable so far, and why."""


def taken(values: Any, rows: NDArray[Any]) -> Any:
    """These rows, int [n] or bool [N], of an array, or a view of them where they are read on demand."""
    return values.view(np.arange(len(values))[rows]) if isinstance(values, Lazy) else values[rows]


class LazyImages(Lazy):
    """Images uint8 [N, H, W, C]; one that cannot be read is an even grey."""

    dtype, ndim = np.dtype(np.uint8), 4

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""

    @property
    @abstractmethod
    def fit(self) -> Fit:
        """How images of another shape are brought to H × W."""

    @abstractmethod
    def whole(self, row: int, most: int) -> NDArray[np.uint8] | None:
        """An image in the shape of its file, uint8 [H, W, 3], no side above `most` pixels; None where it is unreadable."""

    @abstractmethod
    def file_shape(self, row: int) -> tuple[int, int] | None:
        """Height and width in pixels of the file of an image, as it is shown; None where it is unreadable."""

    @abstractmethod
    def original(self, row: int) -> Path | bytes | None:
        """The path or content of the file of an image; None where there is none, or it may not be read."""


class LazyMasks(Lazy):
    """Masks int64 [N, H, W]: a class in 0 … `n_classes` - 1 a pixel, -1 for unknown; one that cannot be read is all unknown."""

    dtype, ndim = np.dtype(np.int64), 3
    n_classes: int

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""

    @property
    @abstractmethod
    def blank(self) -> NDArray[np.bool_]:
        """Which of them have no known pixel, bool [N], as far as that is known without decoding them."""
