"""Images and masks that stay in their files, and become pixels when they are read.

`OnDemand` looks like an array uint8 [N, H, W, C]: an index or a list of rows decodes, by threads; a slice is a view that
decodes nothing, as that of a memory map. What was decoded last is kept, in memory and up to `MEMORY` bytes; nothing is
written to disk. `OnDemandMasks` does the same of masks, int64 [N, H, W], and keeps them as bytes, up to `MASK_MEMORY`.
"""

import copy
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data.files import decode, imagefile, maskfile
from data.files.encoded import Encoded
from data.files.maskfile import Legend
from data.lazy import Fit, Lazy, LazyImages, LazyMasks
from data.masks import VOID, widened

MEMORY = 400 << 20  # bytes of decoded images that a pool keeps
MASK_MEMORY = MEMORY // 3  # and of masks: those of as many images in colour
BLOCK = 512  # images decoded between two looks at what was asked
FILL = 127  # every value of an image that cannot be read
Rows = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class _Store:
    """The rows of a pool, and what was decoded of them last.

    one: decodes a row, or says why it cannot · shape: of a row · fill: every value of one that cannot be decoded · memory: bytes
    of decoded rows that are kept.
    """

    def __init__(
        self, n: int, one: Callable[[int], Pixels | str], shape: tuple[int, ...], fill: int, memory: int
    ) -> None:
        self.one, self.shape, self.fill = one, shape, fill
        self.failed: dict[int, str] = {}
        self.examined = np.zeros(n, dtype=bool)
        places = max(0, min(n, memory // int(np.prod(shape))))
        self.kept = np.empty((places, *shape), np.uint8)  # the system gives the memory when it is written to
        self.place_of = np.full(n, -1, np.int32)
        self.held = np.full(places, -1, np.int64)
        self.used = 0
        self.random = np.random.default_rng(0)
        self.lock = threading.Lock()

    def read(self, rows: Rows) -> Pixels:
        """These rows, uint8 [n, …]."""
        wanted, where = np.unique(rows, return_inverse=True)
        pixels = np.empty((len(wanted), *self.shape), np.uint8)
        with self.lock:
            places = self.place_of[wanted]
            here = places >= 0
            pixels[here] = self.kept[places[here]]
        absent = np.flatnonzero(~here)
        for start in range(0, len(absent), BLOCK):
            block = absent[start : start + BLOCK]
            for k, found in zip(block, self._decoded(wanted[block]), strict=True):
                row = int(wanted[k])
                self.examined[row] = True
                if isinstance(found, str):
                    self.failed[row] = found
                    pixels[k] = self.fill
                else:
                    pixels[k] = found
            with self.lock:
                self._keep(wanted[block], pixels[block])
        return pixels if np.array_equal(wanted, rows) else pixels[where]

    def _decoded(self, rows: Rows) -> Iterator[Pixels | str]:
        if len(rows) == 1:  # as a page asks
            return iter([self.one(int(rows[0]))])
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            return iter(list(threads.map(self.one, rows.tolist())))

    def _keep(self, rows: Rows, pixels: Pixels) -> None:
        """Keep rows: in places that are free, then in those of others, drawn at random.

        Whoever goes over a pool again and again finds a share of it kept, whatever its size; of those that were read last
        there would be none.
        """
        for row, image in zip(rows.tolist(), pixels, strict=True):
            if len(self.held) == 0 or self.place_of[row] >= 0:  # another thread was quicker
                continue
            if self.used < len(self.held):
                place, self.used = self.used, self.used + 1
            else:
                place = int(self.random.integers(len(self.held)))
                self.place_of[self.held[place]] = -1
            self.kept[place], self.held[place], self.place_of[row] = image, row, place


class _Rows(Lazy):
    """Rows of a store, in an order."""

    _store: _Store
    _rows: Rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._at(self._rows[key])
        rows = self._rows[key]
        return self._read(np.atleast_1d(rows))[0] if np.ndim(rows) == 0 else self._read(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._read(self._rows).astype(self.dtype if dtype is None else dtype, copy=False)

    def view(self, rows: Rows) -> Self:
        return self._at(self._rows[rows])

    def _at(self, rows: Rows) -> Self:
        made = copy.copy(self)
        made._rows = rows
        return made

    def _read(self, rows: Rows) -> NDArray[Any]:
        return self._store.read(rows)

    def readable(self, rows: Rows | None = None) -> NDArray[np.bool_]:
        at = self._rows if rows is None else self._rows[rows]
        new = at[~self._store.examined[at]]
        for start in range(0, len(new), BLOCK):
            self._store.read(new[start : start + BLOCK])
        return ~np.isin(at, list(self._store.failed))

    @property
    def unreadable(self) -> dict[int, str]:
        failed = dict(self._store.failed)
        return {row: failed[at] for row, at in enumerate(self._rows.tolist()) if at in failed} if failed else {}


class OnDemand(_Rows, LazyImages):
    """Images of files.

    files: of the N images · shape: (H, W, C), C 1 for grey and 3 for colour · fit: how images of another shape are brought to
    H × W · depth: bits that 16-bit images use · stamps: of the files, where they are known · memory: bytes of decoded images
    that are kept.
    """

    def __init__(
        self,
        files: Encoded,
        shape: tuple[int, int, int],
        *,
        fit: Fit = "resize",
        depth: int = 16,
        stamps: Rows | None = None,
        memory: int = MEMORY,
    ) -> None:
        self._files, self._shape, self._fit, self._depth = files, shape, fit, depth
        self._stamps = files.stamps() if stamps is None else stamps
        self._store = _Store(len(files), partial(_image, files, shape, fit, depth), shape, FILL, memory)
        self._rows = np.arange(len(files))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *self._shape)

    @property
    def fit(self) -> Fit:
        return self._fit

    @property
    def version(self) -> str:
        digest = hashlib.blake2b(repr((self._shape, self._fit, self._depth)).encode(), digest_size=16)
        digest.update(self._stamps[self._rows].tobytes())
        return digest.hexdigest()

    def whole(self, row: int, most: int) -> Pixels | None:
        at = int(self._rows[row])
        try:
            found = decode.whole(self._files.file(at), self._depth, most)
        except (OSError, ValueError):
            return None
        return None if isinstance(found, str) else found

    def file_shape(self, row: int) -> tuple[int, int] | None:
        try:
            found = decode.head(self._files.file(int(self._rows[row])))
        except (OSError, ValueError):
            return None
        return None if isinstance(found, str) else found[:2]

    def original(self, row: int) -> imagefile.File | None:
        try:
            return self._files.file(int(self._rows[row]))
        except (OSError, ValueError):
            return None


def _image(files: Encoded, shape: tuple[int, int, int], fit: Fit, depth: int, row: int) -> Pixels | str:
    height, width, channels = shape
    try:
        file = files.file(row)
    except (OSError, ValueError) as error:
        return imagefile.reason(error)
    return decode.decode(file, height, width, channels == 1, depth, fit, quick=True)


class OnDemandMasks(_Rows, LazyMasks):
    """Masks of images, in files.

    files: of the masks · place: of the mask of each of N images among them, int [N], -1 for an image that has none · images:
    files of the N images, whose sizes theirs must be · legend: what their values mean · shape, fit: (H, W), and how they are
    brought to it, with their images · blank: bool [N], as of `LazyMasks` · memory: bytes of decoded masks that are kept.
    """

    def __init__(
        self,
        files: Encoded,
        place: NDArray[np.int64],
        images: Encoded,
        legend: Legend,
        shape: tuple[int, int],
        *,
        fit: Fit,
        blank: NDArray[np.bool_],
        memory: int = MASK_MEMORY,
    ) -> None:
        self._shape, self._fit, self._legend, self._blank = shape, fit, legend, blank
        self.n_classes = legend.n_classes
        self._stamps = np.full((len(place), 2), -1, np.int64)
        self._stamps[place >= 0] = files.stamps()[place[place >= 0]]
        one = partial(_mask, files, place, images, legend, shape, fit)
        self._store = _Store(len(place), one, shape, VOID, memory)
        self._rows = np.arange(len(place))

    def _read(self, rows: Rows) -> NDArray[np.int64]:
        return widened(self._store.read(rows))

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self._shape)

    @property
    def blank(self) -> NDArray[np.bool_]:
        return self._blank[self._rows]

    @property
    def version(self) -> str:
        digest = hashlib.blake2b(repr((self._shape, self._fit, self._legend)).encode(), digest_size=16)
        digest.update(self._stamps[self._rows].tobytes())
        return digest.hexdigest()


def _mask(
    files: Encoded,
    place: NDArray[np.int64],
    images: Encoded,
    legend: Legend,
    shape: tuple[int, int],
    fit: Fit,
    row: int,
) -> Pixels | str:
    if place[row] < 0:
        return np.full(shape, VOID, np.uint8)
    try:
        image, file = decode.head(images.file(row)), files.file(int(place[row]))
    except (OSError, ValueError) as error:
        return maskfile.reason(error)
    if isinstance(image, str):  # it is named for its image
        return image
    found = maskfile.read(file, legend, image[:2])
    return found if isinstance(found, str) else maskfile.sized(found, *shape, fit)
