"""What was computed once for equal content: scores, embeddings, trained models."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.store import atomic
from data.errors import UserError


class ScoreCache:
    """Arrays keyed by what they were computed from, so that none is ever stale: in memory, and as .npy below `folder`.

    reading: for what is only looked at, which a disk that takes nothing more does not prevent; else it is a `UserError`.
    """

    def __init__(self, folder: Path, *, reading: bool = False) -> None:
        self.folder, self.reading = folder, reading
        self.memory: dict[str, NDArray[Any]] = {}

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
            self.memory[name] = stored
        return self.memory[name]


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
    folder = Path(tempfile.gettempdir()) / f"nextlabel-{name}"
    folder.mkdir(exist_ok=True)
    return folder


def _name(key: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=20).hexdigest()


def _read_array(path: Path) -> NDArray[Any] | None:
    """The array, or None where the file is missing or damaged (then it is computed again)."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def digest(array: NDArray[Any]) -> str:
    """A short name for the contents of an array."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=20).hexdigest()
