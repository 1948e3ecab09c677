"""What a run keeps on disk: the append-only label log, finished phases, scores, weights, and the shared score cache.

SQLite in WAL mode holds what must be atomic; larger arrays are files that are complete before a row names them, so
that a process killed at any moment leaves either all of a phase or nothing of it.
"""

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.store import atomic
from data.errors import UserError

# What an event of the label log says instead of a class
TAKEN_BACK = -1  # the last thing that its source said of the sample, and that still stood, is taken back
SKIPPED = -2  # seen, and left for later
UNSURE = -3  # seen, and left to others

MASK = 0  # a mask was given, which the table of masks names


class Drawn(NamedTuple):
    """The mask of an event: the digest by which it is kept, and how many pixels it covers, which are those that have a class."""

    digest: str
    pixels: int


class Event(NamedTuple):
    """What somebody said of a sample. label: a class, `MASK`, or one of those above · mask: what `MASK` stands for."""

    sample_id: str
    label: int
    source: str
    mask: Drawn | None = None


SCHEMA = """
CREATE TABLE IF NOT EXISTS labels (      -- the label log: events, only ever appended; a label below 0 is no class, see above
    seq INTEGER PRIMARY KEY, cycle INTEGER NOT NULL, sample_id TEXT NOT NULL, label INTEGER NOT NULL,
    source TEXT NOT NULL, time TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS labels_keep BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'the label log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS labels_stay BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'the label log is append-only'); END;
CREATE TABLE IF NOT EXISTS masks (       -- of the events that give a mask: its name and the number of pixels that it covers
    seq INTEGER PRIMARY KEY, digest TEXT NOT NULL, pixels INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS masks_keep BEFORE UPDATE ON masks BEGIN SELECT RAISE(ABORT, 'the label log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS masks_stay BEFORE DELETE ON masks BEGIN SELECT RAISE(ABORT, 'the label log is append-only'); END;
CREATE TABLE IF NOT EXISTS phases (      -- a row is written in the transaction that finishes a phase
    cycle INTEGER NOT NULL, phase TEXT NOT NULL, seconds REAL NOT NULL, result TEXT NOT NULL, PRIMARY KEY (cycle, phase));
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Answers:
    """What people have said and are saying: the cycle that takes it, the `events` so far, and the new ones in order."""

    cycle: int
    events: pd.DataFrame
    new: list[Event | tuple[str, int, str]]


class Log:
    """The SQLite file of one run; `frozen` it is read alone, and nothing is written beside it either."""

    def __init__(self, path: Path, *, frozen: bool = False) -> None:
        self.path, self.frozen = path, frozen

    def create(self) -> None:
        """Make the tables where they are missing."""
        with atomic.writing(self.path.parent), closing(sqlite3.connect(self.path)) as db, db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    def append(
        self,
        cycle: int,
        sample_ids: list[str],
        labels: NDArray[np.int64],
        sources: list[str],
        seconds: float,
        masks: Sequence[Drawn] | None = None,
    ) -> None:
        """Append label events in order, a source for each, and finish the phase "label" of this cycle, in one transaction.

        masks: what each stands for, where the labels are `MASK`.
        """
        given = map(Event, sample_ids, labels.tolist(), sources, repeat(None) if masks is None else masks)
        with atomic.writing(self.path.parent), self._transaction() as db:
            self._record(db, cycle, list(given))
            named = sorted(set(sources))
            self._finish(db, cycle, "label", seconds, {"labels": len(sample_ids), "source": ", ".join(named)})

    @contextmanager
    def answering(self, sources: list[str]) -> Iterator["Answers"]:
        """A transaction for events that people cause, in the cycle whose phase "label" is still to come.

        Yields what these sources have said so far, to which their new events are added. All other writers wait meanwhile, so
        that it still holds when these are written; an exception leaves the log as it was.
        """
        with atomic.writing(self.path.parent), self._transaction() as db:
            db.execute("BEGIN IMMEDIATE")
            (cycle,) = db.execute("SELECT COALESCE(MAX(cycle) + 1, 0) FROM phases WHERE phase = 'label'").fetchone()
            marks = ", ".join("?" * len(sources))
            query = f"SELECT * FROM {_table(db)} WHERE source IN ({marks}) ORDER BY seq"
            answers = Answers(cycle, pd.read_sql_query(query, db, params=tuple(sources)), [])
            yield answers
            self._record(db, cycle, [Event(*one) for one in answers.new], "milliseconds")

    def restore(self, events: pd.DataFrame, phases: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        """Fill an empty log with what another one held: its `events`, `phases` (as records) and facts."""
        columns = ["seq", "cycle", "sample_id", "label", "source", "time"]
        with atomic.writing(self.path.parent), self._transaction() as db:
            db.executemany(
                f"INSERT INTO labels VALUES ({', '.join('?' * len(columns))})", events[columns].values.tolist()
            )
            if "digest" in events:
                drawn = events.loc[events["digest"].notna(), ["seq", "digest", "pixels"]]
                db.executemany(
                    "INSERT INTO masks VALUES (?, ?, ?)",
                    [(int(a), str(b), int(c)) for a, b, c in drawn.values.tolist()],
                )
            for phase in phases:
                self._finish(db, phase["cycle"], phase["phase"], phase["seconds"], phase["result"])
            db.executemany(
                "INSERT INTO facts VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()]
            )

    def finish(self, cycle: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        """Record that a phase is finished, and what it found."""
        with atomic.writing(self.path.parent), self._transaction() as db:
            self._finish(db, cycle, phase, seconds, result)

    def labels(self, up_to_cycle: int | None = None) -> pd.DataFrame:
        """The label events that stand, as `events` has them: what was taken back, by these cycles, is as if never given."""
        found = standing(self.events(up_to_cycle))
        given = found["label"] >= 0
        return found if given.all() else found[given].reset_index(drop=True)

    def events(self, up_to_cycle: int | None = None, sources: str = "", after: int = -1) -> pd.DataFrame:
        """The whole log (seq, cycle, sample_id, label, source, time) in order, events of later cycles left out.

        Where masks were given there are digest and pixels too, missing of other events. label: a class, `MASK`, or one of
        `TAKEN_BACK`, `SKIPPED` and `UNSURE` · sources: how those begin that are wanted · after: only
        events of later cycles than that.
        """
        if not sources and after < 0:
            whole = self._whole()
            wanted = whole["cycle"] <= (whole["cycle"].max() if up_to_cycle is None else up_to_cycle)
            return whole if wanted.all() else whole[wanted].reset_index(drop=True)
        last = np.iinfo(np.int64).max if up_to_cycle is None else up_to_cycle
        wanted_rows = "cycle <= ? AND cycle > ? AND substr(source, 1, ?) = ?"
        with self._reading() as db:
            query = f"SELECT * FROM {_table(db)} WHERE {wanted_rows} ORDER BY seq"
            return pd.read_sql_query(query, db, params=(int(last), after, len(sources), sources))

    def identity(self) -> str:
        """What tells apart what the log held at different times: it is append-only, so that its ends say what lies between."""
        with self._reading() as db:
            return self._ends(db)

    def _ends(self, db: sqlite3.Connection) -> str:
        first, last = (
            db.execute(f"SELECT seq, time FROM labels ORDER BY seq {order} LIMIT 1").fetchone()
            for order in ("ASC", "DESC")
        )
        return f"{self.path.absolute()} {first} {last}"

    def _whole(self) -> pd.DataFrame:
        """All events; those of the logs that were read last are kept in memory, for a page asks for them several times."""
        with self._reading() as db:
            key = f"{self._ends(db)} {self.path.stat().st_ino}"
            with _reading_whole:
                if key not in _recent:
                    _recent[key] = _events(db)
                _recent.move_to_end(key)
                while len(_recent) > 1 and sum(map(len, _recent.values())) > KEPT:
                    _recent.popitem(last=False)
                return _recent[key].copy(deep=False)

    def phases(self) -> pd.DataFrame:
        """Finished phases (cycle, phase, seconds, result) in order; result is a dict."""
        with self._reading() as db:
            table = pd.read_sql_query("SELECT * FROM phases ORDER BY rowid", db)
        table["result"] = [json.loads(result) for result in table["result"]]
        return table

    def set_fact(self, key: str, value: Any) -> None:
        """Remember one JSON value under a name."""
        with atomic.writing(self.path.parent), self._transaction() as db:
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
        if self.frozen:
            raise UserError(f"Run {self.path.parent.name} is an example and stays as it is: start a run of your own.")
        with self._connection() as db, db:
            yield db

    def _connection(self) -> closing[sqlite3.Connection]:
        """To the file that is there: plain `connect` would make an empty one. A frozen one is opened without any lock."""
        return _opened(self.path, UNTOUCHED if self.frozen else "mode=rw")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._readable() as db:
                yield db
        except (sqlite3.DatabaseError, pd.errors.DatabaseError) as error:
            raise UserError(f"The label log {self.path} cannot be read ({error}): {self._way_out(error)}") from error

    @contextmanager
    def _readable(self) -> Iterator[sqlite3.Connection]:
        """A connection to read by, also where SQLite can write nothing beside the file, as a log in WAL mode wants it to."""
        with self._connection() as db:
            try:
                db.execute("PRAGMA schema_version").fetchone()
            except sqlite3.OperationalError as error:
                if _family(error) not in OUTSIDE or not os.access(self.path, os.R_OK):
                    raise
            else:
                yield db
                return
        with _copied(self.path) as path, _opened(path, UNTOUCHED if path == self.path else "mode=rw") as db:
            yield db

    def _way_out(self, error: Exception) -> str:
        """What to do about it. Deleting a run is for a file that is gone or no database, and never for a disk that is full."""
        family = _family(error)
        if family in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return "another process holds it; wait a moment and try again."
        if family in OUTSIDE and self.path.exists():
            return (
                f"nothing says that it is damaged; see that {self.path.parent} may be read, that its disk is in order and that "
                "some space is free, then try again."
            )
        return f"restore the file from a backup, or delete the folder {self.path.parent} to give up the run."

    @staticmethod
    def _record(
        db: sqlite3.Connection,
        cycle: int,
        events: Sequence[Event],
        precision: Literal["seconds", "milliseconds"] = "seconds",
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec=precision)
        (last,) = db.execute("SELECT COALESCE(MAX(seq), 0) FROM labels").fetchone()
        db.executemany(
            "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?)",
            [
                (seq, cycle, event.sample_id, event.label, event.source, now)
                for seq, event in enumerate(events, start=last + 1)
            ],
        )
        drawn = [(seq, *event.mask) for seq, event in enumerate(events, start=last + 1) if event.mask is not None]
        if drawn:  # a log of an earlier version has no table of them, and no masks
            db.executemany("INSERT INTO masks VALUES (?, ?, ?)", drawn)

    @staticmethod
    def _finish(db: sqlite3.Connection, cycle: int, phase: str, seconds: float, result: dict[str, Any]) -> None:
        db.execute("INSERT INTO phases VALUES (?, ?, ?, ?)", (cycle, phase, seconds, json.dumps(result)))


KEPT = 2_000_000  # events of all logs in memory, a hundred bytes each
COLUMNS = {"seq": "int64", "cycle": "int64", "sample_id": "str", "label": "int64", "source": "str", "time": "str"}
MASKS = {"digest": "str", "pixels": "float64"}
_recent: OrderedDict[str, pd.DataFrame] = OrderedDict()  # by what they held
_reading_whole = threading.Lock()


def _table(db: sqlite3.Connection) -> str:
    """What events are read from: their masks are looked up where there are some. Logs of earlier versions have no such table."""
    (there,) = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'masks'").fetchone()
    drawn = there and db.execute("SELECT 1 FROM masks LIMIT 1").fetchone()
    return "(SELECT * FROM labels LEFT JOIN masks USING (seq))" if drawn else "labels"


def _events(db: sqlite3.Connection) -> pd.DataFrame:
    """All events, column by column: a million rows as tuples take longer than as a text of JSON that holds them all."""
    found, table = {}, _table(db)
    for name, kind in (COLUMNS if table == "labels" else COLUMNS | MASKS).items():
        (text,) = db.execute(
            f"SELECT json_group_array({name}) FROM (SELECT {name} FROM {table} ORDER BY seq)"
        ).fetchone()
        found[name] = pd.Series(json.loads(text), dtype=kind)
    return pd.DataFrame(found)


UNTOUCHED = "mode=ro&immutable=1"  # how a file is opened that nobody writes to, and beside which nothing can be written
OUTSIDE = (  # errors of the disk and of permissions, which say nothing of what is in the file
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
)


def _family(error: BaseException | None) -> int:
    """SQLite's primary error code, also of an error that pandas wraps; 0 for none. https://www.sqlite.org/rescode.html"""
    while error is not None and not hasattr(error, "sqlite_errorcode"):
        error = error.__cause__
    return 0 if error is None else int(error.sqlite_errorcode) & 0xFF


def _opened(path: Path, mode: str) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30))


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """The database itself, or a copy where transactions stand in its write-ahead log, which has to be worked in first."""
    ahead = path.with_name(f"{path.name}-wal")
    if not ahead.exists() or ahead.stat().st_size == 0:
        yield path
        return
    with atomic.writing(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        for one in (path, ahead):
            shutil.copyfile(one, Path(folder) / one.name)
        yield Path(folder) / path.name


def standing(events: pd.DataFrame) -> pd.DataFrame:
    """The events of a log that were not taken back, without those that took back; in order, numbered from 0.

    `TAKEN_BACK` takes back the last event of the same source on the same sample that still stands; where there is none,
    nothing.
    """
    undone = events["label"] == TAKEN_BACK
    if not undone.any():
        return events
    keys = ["sample_id", "source"]
    touched = events[pd.MultiIndex.from_frame(events[keys]).isin(pd.MultiIndex.from_frame(events.loc[undone, keys]))]
    stands: dict[tuple[str, str], list[int]] = {}
    dropped = set(touched.index)
    for place, sample_id, source, label in zip(
        touched.index, *(touched[name] for name in (*keys, "label")), strict=True
    ):
        stack = stands.setdefault((sample_id, source), [])
        if label != TAKEN_BACK:
            stack.append(place)
        elif stack:
            stack.pop()
    dropped -= {place for stack in stands.values() for place in stack}
    return events.drop(index=list(dropped)).reset_index(drop=True)
