"""Where the encoded images of a pool lie, a million of them in a few bytes each: one a file, or ranges of large files."""

import os
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from data.files.imagefile import File


class Encoded(Protocol):
    """Encoded images in an order; threads may ask for several at the same time."""

    def __len__(self) -> int: ...

    def file(self, row: int) -> File:
        """One of them. Raises OSError where it has gone, and ValueError, with what is wrong, for one that cannot be taken."""

    def name(self, row: int) -> str:
        """What tells it from the others."""

    def stamps(self) -> NDArray[np.int64]:
        """Bytes and time of the last change, in nanoseconds, of each, [N, 2]."""

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Those of these rows, in this order."""


class Links:
    """Which files lead out of some resolved folders, of a million in them: what is above a file is looked up once."""

    def __init__(self, *inside: Path) -> None:
        self.inside = {str(folder) for folder in inside}
        self._prefixes = tuple(folder.rstrip(os.sep) + os.sep for folder in self.inside)
        self._real: dict[str, str] = {}

    def leads_out(self, folder: str, name: str) -> bool:
        """Whether a file of this name in a folder lies, through however many links, at a place outside."""
        path = target = os.path.join(folder, name)
        with suppress(OSError):  # it is no link
            target = os.path.join(folder, os.readlink(path))
        above, last = os.path.split(target)
        if (target is not path and os.path.islink(target)) or last in ("", ".", ".."):
            return not self._within(os.path.realpath(path))  # does not raise for a ring of links, as Path.resolve does
        if above not in self._real:
            self._real[above] = os.path.realpath(above)
        return not self._within(os.path.join(self._real[above], last))

    def _within(self, path: str) -> bool:
        return path.startswith(self._prefixes) or path in self.inside


@dataclass(frozen=True, eq=False)
class Paths:
    """Files below a resolved folder, by their names relative to it; none is followed out of `inside`, where links lead.

    inside: the resolved folders that files may lie in, after all links.
    """

    root: Path
    names: Sequence[str]
    inside: Sequence[Path]

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> Path:
        path = Path(os.path.realpath(self.root / self.names[row]))  # a link may have been changed since it was listed
        if not any(path.is_relative_to(folder) for folder in self.inside):
            raise ValueError("it is a link that leads out of the folder")
        return path

    def name(self, row: int) -> str:
        return self.names[row]

    def stamps(self) -> NDArray[np.int64]:
        sizes, times, root = array("q"), array("q"), str(self.root)
        for name in self.names:  # a million of them: `Path`, and rows of an array, take three times as long
            try:
                stat = os.stat(os.path.join(root, name))
            except OSError:  # said when it is read
                sizes.append(0)
                times.append(0)
            else:
                sizes.append(stat.st_size)
                times.append(stat.st_mtime_ns)
        return np.stack([np.frombuffer(sizes, np.int64), np.frombuffer(times, np.int64)], axis=1)

    def take(self, rows: NDArray[np.int64]) -> "Paths":
        return Paths(self.root, [self.names[row] for row in rows], self.inside)


@dataclass(frozen=True, eq=False)
class Ranges:
    """Parts of large files: bytes `start[i]` to `start[i] + length[i]` of `files[which[i]]`.

    names: of the images · changed: time of the last change of each large file, in nanoseconds, [number of files].
    """

    files: Sequence[Path]
    which: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    names: Sequence[str]
    changed: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> bytes:
        start, length = int(self.start[row]), int(self.length[row])
        with self.files[self.which[row]].open("rb", buffering=0) as opened:
            opened.seek(start)
            content = bytearray()
            while len(content) < length and (block := opened.read(length - len(content))):
                content += block
        if len(content) < length:
            raise ValueError("its file ends before it")
        return bytes(content)

    def name(self, row: int) -> str:
        return self.names[row]

    def stamps(self) -> NDArray[np.int64]:
        return np.stack([self.length, self.changed[self.which] ^ self.start], axis=1)

    def take(self, rows: NDArray[np.int64]) -> "Ranges":
        names = [self.names[row] for row in rows]
        return Ranges(self.files, self.which[rows], self.start[rows], self.length[rows], names, self.changed)
