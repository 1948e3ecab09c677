"""What a run keeps on disk: the append-only label log, finished phases, scores, weights, and the shared score cache.

SQLite in WAL mode holds what must be atomic; larger arrays are files that are complete before a row names them, so
that a process killed at any moment leaves either all of a phase or nothing of it.
"""

import hashlib
import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import UserError

SCHEMA = """
CREATE TABLE IF NOT EXISTS labels (      -- the label log: events, only ever appended
    seq INTEGER PRIMARY KEY, cycle INTEGER NOT NULL, sample_id TEXT NOT NULL, label INTEGER NOT NULL,
    source TEXT NOT NULL, time TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS labels_keep BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'the label log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS labels_stay BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'the label log is append-only'); END;
CREATE TABLE IF NOT EXISTS phases (      -- a row is written in the transaction that finishes a phase
    cycle INTEGER NOT NULL, phase TEXT NOT NULL, seconds REAL NOT NULL, result TEXT NOT NULL, PRIMARY KEY (cycle, phase));
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write below `path` into a `UserError` that says what to do."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(
            f"Cannot write to {path} ({error}): free some space or make the folder writable, or set NEXTLABEL_HOME "
            "to another folder. What was finished before is kept."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a crash, sees the old file or the new one, never a part."""
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)  # one level: a run whose folder was deleted is not made anew
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A DataFrame as Parquet, atomically."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """An array as .npy without pickle, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


class Log:
    """The SQLite file of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the tables where they are missing."""
        with writing(self.path.parent), closing(sqlite3.connect(self.path)) as db, db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    def append(
        self, cycle: int, sample_ids: list[str], labels: NDArray[np.int64], sources: list[str], seconds: float
    ) -> None:
        """Append label events in order, a source for each, and finish the phase "label" of this cycle, in one transaction."""
        with writing(self.path.parent), self._transaction() as db:
            self._record(db, cycle, sample_ids, labels, sources)
            named = sorted(set(sources))
            self._finish(db, cycle, "label", seconds, {"labels": len(sample_ids), "source": ", ".join(named)})

    def record(self, cycle: int, sample_ids: list[str], labels: NDArray[np.int64], sources: list[str]) -> None:
        """Append label events that people gave for a cycle whose phase "label" is still to come."""
        with writing(self.path.parent), self._transaction() as db:
            self._record(db, cycle, sample_ids, labels, sources)

    def finish(self, cycle: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        """Record that a phase is finished, and what it found."""
        with writing(self.path.parent), self._transaction() as db:
            self._finish(db, cycle, phase, seconds, result)

    def labels(self, up_to_cycle: int | None = None) -> pd.DataFrame:
        """Label events (seq, cycle, sample_id, label, source, time) in order, those of later cycles left out."""
        last = np.iinfo(np.int64).max if up_to_cycle is None else up_to_cycle
        with self._reading() as db:
            return pd.read_sql_query("SELECT * FROM labels WHERE cycle <= ? ORDER BY seq", db, params=(int(last),))

    def phases(self) -> pd.DataFrame:
        """Finished phases (cycle, phase, seconds, result) in order; result is a dict."""
        with self._reading() as db:
            table = pd.read_sql_query("SELECT * FROM phases ORDER BY rowid", db)
        table["result"] = [json.loads(result) for result in table["result"]]
        return table

    def set_fact(self, key: str, value: Any) -> None:
        """Remember one JSON value under a name."""
        with writing(self.path.parent), self._transaction() as db:
            db.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, json.dumps(value)),
            )

    def fact(self, key: str, default: Any = None) -> Any:
        """A value given to `set_fact`."""
        with self._reading() as db:
            row = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def facts(self, prefix: str) -> dict[str, Any]:
        """All facts whose names begin so, in the order in which they were first set."""
        with self._reading() as db:
            rows = db.execute("SELECT key, value FROM facts ORDER BY rowid").fetchall()
        return {key: json.loads(value) for key, value in rows if key.startswith(prefix)}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as db, db:
            yield db

    def _connection(self) -> closing[sqlite3.Connection]:
        """To the file that is there: plain `connect` would make an empty one."""
        return closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=30))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection() as db:
                yield db
        except (sqlite3.DatabaseError, pd.errors.DatabaseError) as error:
            raise UserError(
                f"The label log {self.path} cannot be read ({error}): restore the file from a backup, or delete the folder "
                f"{self.path.parent} to give up the run."
            ) from error

    @staticmethod
    def _record(
        db: sqlite3.Connection, cycle: int, sample_ids: list[str], labels: NDArray[np.int64], sources: list[str]
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        db.executemany(
            "INSERT INTO labels (cycle, sample_id, label, source, time) VALUES (?, ?, ?, ?, ?)",
            [
                (cycle, sample_id, int(label), source, now)
                for sample_id, label, source in zip(sample_ids, labels, sources, strict=True)
            ],
        )

    @staticmethod
    def _finish(db: sqlite3.Connection, cycle: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        db.execute("INSERT INTO phases VALUES (?, ?, ?, ?)", (cycle, phase, seconds, json.dumps(result)))


class ScoreCache:
    """Arrays keyed by what they were computed from, so that none is ever stale: in memory, and as .npy below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory: dict[str, NDArray[Any]] = {}

    def get(self, key: dict[str, Any], compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of this key; `compute` is called where neither memory nor disk has it."""
        name = _name(key)
        if name not in self.memory:
            path = self.folder / name[:2] / f"{name}.npy"
            stored = _read_array(path)
            if stored is None:
                stored = compute()
                with writing(self.folder):
                    self.folder.mkdir(exist_ok=True)
                write_array(path, stored)
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
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(key), json.dumps({**found, "result": result}).encode())

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{_name(key)}.json"


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
