"""Images that stay in their files, and become pixels when they are read.

`OnDemand` looks like an array uint8 [N, H, W, C]: an index or a list of rows decodes, by threads; a slice is a view that
decodes nothing, as that of a memory map. What was decoded last is kept, in memory and up to `MEMORY` bytes; nothing is
written to disk.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.files import decode, imagefile
from data.files.encoded import Encoded
from data.lazy import Fit, LazyImages

MEMORY = 400 << 20  # bytes of decoded images that a pool keeps
BLOCK = 512  # images decoded between two looks at what was asked
FILL = 127  # every value of an image that cannot be read
Rows = NDArray[np.int64]


class _Store:
    """The files of a pool, and what was decoded of them last."""

    def __init__(
        self,
        files: Encoded,
        stamps: NDArray[np.int64],
        shape: tuple[int, int, int],
        fit: Fit,
        depth: int,
        memory: int,
    ) -> None:
        n = len(files)
        self.files, self.stamps, self.shape, self.fit, self.depth = files, stamps, shape, fit, depth
        self.failed: dict[int, str] = {}
        self.examined = np.zeros(n, dtype=bool)
        places = max(0, min(n, memory // int(np.prod(shape))))
        self.kept = np.empty((places, *shape), np.uint8)  # the system gives the memory when it is written to
        self.place_of = np.full(n, -1, np.int32)
        self.held = np.full(places, -1, np.int64)
        self.used = 0
        self.random = np.random.default_rng(0)
        self.lock = threading.Lock()

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Pixels of these rows, uint8 [n, H, W, C]."""
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
                    pixels[k] = FILL
                else:
                    pixels[k] = found
            with self.lock:
                self._keep(wanted[block], pixels[block])
        return pixels if np.array_equal(wanted, rows) else pixels[where]

    def _decoded(self, rows: Rows) -> Iterator[NDArray[np.uint8] | str]:
        if len(rows) == 1:  # as a page asks
            return iter([self._one(int(rows[0]))])
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            return iter(list(threads.map(self._one, rows.tolist())))

    def _one(self, row: int) -> NDArray[np.uint8] | str:
        height, width, channels = self.shape
        try:
            file = self.files.file(row)
        except (OSError, ValueError) as error:
            return imagefile.reason(error)
        return decode.decode(file, height, width, channels == 1, self.depth, self.fit, quick=True)

    def _keep(self, rows: Rows, pixels: NDArray[np.uint8]) -> None:
        """Keep images: in places that are free, then in those of others, drawn at random.

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


class OnDemand(LazyImages):
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
        stamps: NDArray[np.int64] | None = None,
        memory: int = MEMORY,
    ) -> None:
        self._store = _Store(files, files.stamps() if stamps is None else stamps, shape, fit, depth, memory)
        self._rows: Rows = np.arange(len(files))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._at(self._rows[key])
        rows = self._rows[key]
        return self._store.read(np.atleast_1d(rows))[0] if np.ndim(rows) == 0 else self._store.read(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._store.read(self._rows).astype(np.uint8 if dtype is None else dtype, copy=False)

    def view(self, rows: Rows) -> "OnDemand":
        return self._at(self._rows[rows])

    def _at(self, rows: Rows) -> "OnDemand":
        made = object.__new__(OnDemand)
        made._store, made._rows = self._store, rows
        return made

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *self._store.shape)

    @property
    def fit(self) -> Fit:
        return self._store.fit

    @property
    def version(self) -> str:
        store = self._store
        digest = hashlib.blake2b(repr((store.shape, store.fit, store.depth)).encode(), digest_size=16)
        digest.update(store.stamps[self._rows].tobytes())
        return digest.hexdigest()

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

    def whole(self, row: int, most: int) -> NDArray[np.uint8] | None:
        at = int(self._rows[row])
        try:
            found = decode.whole(self._store.files.file(at), self._store.depth, most)
        except (OSError, ValueError):
            return None
        return None if isinstance(found, str) else found

    def file_shape(self, row: int) -> tuple[int, int] | None:
        try:
            found = decode.head(self._store.files.file(int(self._rows[row])))
        except (OSError, ValueError):
            return None
        return None if isinstance(found, str) else found[:2]

    def original(self, row: int) -> imagefile.File | None:
        try:
            return self._store.files.file(int(self._rows[row]))
        except (OSError, ValueError):
            return None
