"""What was computed once for equal content: scores, embeddings, trained models, and the tables that pages ask.

All of it lies below `.cache` and can be computed again. Scores and tables are kept within a bound: those that were used least
recently go first. Whoever has read an array holds it in memory, so that no worker is hurt by what another process removes.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.store import atomic
from data.errors import UserError
from data.lazy import Lazy

BOUND = "NEXTLABEL_CACHE_BYTES"
DEFAULT = "5GB"
MEMORY = 1_000_000_000  # bytes of arrays that a process keeps at hand
SPARED = 3600.0  # seconds after its last use in which nothing goes by itself
ABANDONED = 86_400.0  # seconds after which what a process left half-written goes
TOUCHED = 600.0  # seconds to which the time of the last use is kept
SHARE = 0.05  # of the bound, which a process writes between two looks at what lies there
KINDS = {
    "scores": "??/*.npy",
    "samples": "samples/*.parquet",
    "curves": "curves/??/*.npy",
    "trainings": "trainings/*.json",
}
PRUNED = ("scores", "samples", "curves")  # the others are a few bytes each, and save whole trainings


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its kind, of `KINDS`; its size in bytes; when it was last used, in seconds since 1970."""

    path: Path
    kind: str
    size: int
    used: float


def bytes_of(text: str, where: str) -> int:
    """A size such as "5GB", "500 MB" or "1000" in bytes. Raises `UserError`, which says where it was given."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if found is None:
        raise UserError(f"{where} is {text[:50]!r}, which is no size: give one such as 5GB or 500MB.")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit or " "))


def bound() -> int:
    """How many bytes the cache may take: $NEXTLABEL_CACHE_BYTES, else 5 GB. Raises `UserError` for what is no size."""
    return bytes_of(os.environ.get(BOUND) or DEFAULT, f"${BOUND}")


def entries(folder: Path) -> list[Entry]:
    """The files of the cache in `folder`."""
    found = []
    for kind, pattern in KINDS.items():
        for path in folder.glob(pattern):
            with suppress(OSError):  # another process has removed it just now
                stat = path.stat()
                found.append(Entry(path, kind, stat.st_size, stat.st_mtime))
    return found


def prune(folder: Path, keep: int, *, before: float) -> list[Entry]:
    """Remove scores and samples until all takes at most `keep` bytes, least recently used first; returns what went.

    before: what was used at this time or later stays, whatever it takes. What a process left half-written goes too.
    """
    found = entries(folder)
    total = sum(entry.size for entry in found)
    gone = []
    for entry in sorted((one for one in found if one.kind in PRUNED), key=lambda one: one.used):
        if total <= keep or entry.used >= before - TOUCHED:
            break
        with suppress(OSError):  # it cannot be removed, or is gone
            if entry.path.stat().st_mtime == entry.used:  # else somebody has used it since
                entry.path.unlink()
                total -= entry.size
                gone.append(entry)
    for left in [*folder.glob("*/.*.part"), *folder.glob("opening-*")]:
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return gone


def tidy(folder: Path) -> None:
    """Bring the cache within its bound; what was used within the hour stays. Raises as `bound`."""
    prune(folder, bound(), before=time.time() - SPARED)


def touch(path: Path) -> None:
    """Note that a file of the cache was used just now."""
    with suppress(OSError):  # it is read-only, or another user's
        if time.time() - path.stat().st_mtime > TOUCHED:
            os.utime(path)


class ScoreCache:
    """Arrays keyed by what they were computed from, so that none is ever stale: in memory, and as .npy below `folder`.

    Both are bounded: `MEMORY`, and `bound`, whose errors it raises. reading: for what is only looked at, which a disk that
    takes nothing more does not prevent; else it is a `UserError`.
    """

    def __init__(self, folder: Path, *, reading: bool = False) -> None:
        self.folder, self.reading = folder, reading
        self.memory: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self.share = SHARE * bound()
        self.written = self.share  # so that the first write looks at what lies there

    def get(
        self,
        key: dict[str, Any],
        compute: Callable[[], NDArray[Any]],
        enough: Callable[[NDArray[Any]], bool] = lambda stored: True,
    ) -> NDArray[Any]:
        """The array of this key; `compute` is called where neither memory nor disk has it.

        enough: whether the array that is there will do, such as a curve that is long enough; else it is computed, and replaced.
        """
        name = _name(key)
        if name not in self.memory or not enough(self.memory[name]):
            path = self.folder / name[:2] / f"{name}.npy"
            stored = _read_array(path)
            if stored is None or not enough(stored):
                stored = compute()
                with suppress(UserError) if self.reading else nullcontext():
                    with atomic.writing(self.folder):
                        self.folder.mkdir(exist_ok=True)
                    atomic.write_array(path, stored)
                    self.written += stored.nbytes
                    if self.written >= self.share:
                        self.written = 0.0
                        tidy(self.folder)
            else:
                touch(path)
            self.memory[name] = stored
            self._forget()
        self.memory.move_to_end(name)
        return self.memory[name]

    def _forget(self) -> None:
        """Let go of the arrays that were asked for least recently; the newest stays, whatever it takes."""
        size = sum(one.nbytes for one in self.memory.values())
        while size > MEMORY and len(self.memory) > 1:
            size -= self.memory.popitem(last=False)[1].nbytes


class Trainings:
    """Which file below `home` holds the weights of a training: an equal one is taken over from there. Holds no weights."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / ".cache" / "trainings"

    def find(self, key: dict[str, Any]) -> tuple[bytes, dict[str, Any]] | None:
        """(weights file, result) of an equal training, or None where there is none, or its file is gone or damaged."""
        try:
            entry = json.loads(self._path(key).read_text())
            content = (self.home / entry["file"]).read_bytes()
            whole = hashlib.blake2b(content, digest_size=20).hexdigest() == entry["digest"]
            return (content, dict(entry["result"])) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def add(self, key: dict[str, Any], file: Path, result: dict[str, Any]) -> None:
        """Remember that this file of weights, below the home, came of the training."""
        content = file.read_bytes()
        found = {
            "file": str(file.relative_to(self.home)),
            "digest": hashlib.blake2b(content, digest_size=20).hexdigest(),
        }
        with atomic.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_atomically(self._path(key), json.dumps({**found, "result": result}).encode())

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{_name(key)}.json"


def below(home: Path, name: str) -> Path:
    """The folder for what pages compute, made where it is missing: in the home, or among the system's temporary files where
    that cannot be written."""
    folder = home / ".cache" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return elsewhere(name)
    return folder


def elsewhere(name: str) -> Path:
    """The folder for the same among the system's temporary files: a home that takes nothing more can still be read."""
    folder = Path(tempfile.gettempdir()) / "nextlabel-cache" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _name(key: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=20).hexdigest()


def _read_array(path: Path) -> NDArray[Any] | None:
    """The array, or None where the file is missing or damaged (then it is computed again)."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def digest(array: NDArray[Any] | Lazy) -> str:
    """A short name for the contents of an array, or for what rows that are read on demand follow from."""
    if isinstance(array, Lazy):
        return array.version
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=20).hexdigest()
