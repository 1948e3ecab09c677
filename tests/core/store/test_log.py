"""What is kept: appended, atomic, and never stale."""

import os
import shutil
import sqlite3
from collections import OrderedDict
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from core.store import atomic, cache
from core.store import log as logs
from core.store.cache import ScoreCache
from core.store.log import Log
from data.errors import UserError


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path / "run.sqlite")
    made.create()
    return made


def test_labels_are_appended_in_order_and_replayed_by_cycle(log):
    log.append(0, ["a", "b"], np.array([1, 0]), ["initial"] * 2, 0.1)
    log.append(1, ["b"], np.array([2]), ["votes"], 0.1)
    assert log.labels()["sample_id"].tolist() == ["a", "b", "b"]
    assert log.labels(up_to_cycle=0)["label"].tolist() == [1, 0]
    assert log.phases()[["cycle", "phase"]].values.tolist() == [[0, "label"], [1, "label"]]


@pytest.mark.parametrize("statement", ["UPDATE labels SET label = 5", "DELETE FROM labels"])
def test_the_log_cannot_be_rewritten(log, statement):
    log.append(0, ["a"], np.array([1]), ["initial"], 0.1)
    with sqlite3.connect(log.path) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(statement)


def test_a_phase_is_finished_once_and_its_labels_come_with_it_or_not_at_all(log):
    log.append(0, ["a"], np.array([1]), ["initial"], 0.1)
    with pytest.raises(sqlite3.IntegrityError):
        log.append(0, ["b"], np.array([1]), ["initial"], 0.1)
    assert log.labels()["sample_id"].tolist() == ["a"]


def test_facts_keep_json(log):
    assert log.fact("target", 3) == 3
    log.set_fact("target", 5)
    log.set_fact("target", 6)
    assert log.fact("target") == 6


def test_a_failed_write_leaves_the_old_file_and_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "scores.bin"
    atomic.write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left.*free some space"):
        atomic.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_was_read_before_is_not_taken_for_what_is_there_now(log):
    """Whole logs are kept in memory: an event that is added is seen, and nobody can write into what others read."""
    log.append(0, ["x", "y"], np.array([0, 1]), ["initial"] * 2, 0.1)
    first, identity = log.events(), log.identity()
    assert log.identity() == identity
    first["label"] = 7
    assert log.events()["label"].tolist() == [0, 1]
    log.append(1, ["x"], np.array([1]), ["votes"], 0.1)
    assert log.events()["label"].tolist() == [0, 1, 1]
    assert log.events(0)["label"].tolist() == [0, 1]
    assert log.identity() != identity
    elsewhere = Log(log.path.with_name("other.sqlite"))
    elsewhere.create()
    assert len(elsewhere.events()) == 0
    assert elsewhere.identity() != identity


def test_whole_logs_take_a_bounded_amount_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "KEPT", 5)
    monkeypatch.setattr(logs, "_recent", OrderedDict())
    for number in range(4):
        one = Log(tmp_path / f"{number}.sqlite")
        one.create()
        one.append(0, ["x", "y"], np.array([0, 1]), ["initial"] * 2, 0.1)
        assert len(one.events()) == 2
    assert len(logs._recent) == 2


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="NEXTLABEL_HOME"):
        atomic.write_atomically(tmp_path / "runs" / "x" / "file", b"")


def test_cache_computes_once_for_the_same_content(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.arange(3.0)

    cache = ScoreCache(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(cache.get({"weights": "a"}, compute), [0, 1, 2])
    np.testing.assert_array_equal(ScoreCache(tmp_path).get({"weights": "a"}, compute), [0, 1, 2])  # from disk
    assert len(calls) == 1
    cache.get({"weights": "b"}, compute)
    assert len(calls) == 2


def test_an_array_that_is_too_short_is_computed_again_and_replaced(tmp_path):
    def of(n):
        return cache.ScoreCache(tmp_path).get({"a": 1}, lambda: np.arange(n), lambda stored: len(stored) >= n)

    assert [len(of(n)) for n in (3, 5, 4)] == [3, 5, 5]


def test_a_disk_that_takes_nothing_is_said_where_it_matters_and_not_to_a_reader(tmp_path):
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(UserError, match="Cannot write"):
        ScoreCache(tmp_path / "file").get({"a": 1}, lambda: np.arange(3))
    assert len(ScoreCache(tmp_path / "file", reading=True).get({"a": 1}, lambda: np.arange(3))) == 3


def test_a_damaged_cache_file_is_computed_again(tmp_path):
    cache.ScoreCache(tmp_path).get({"weights": "a"}, lambda: np.arange(3.0))
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:20])
    np.testing.assert_array_equal(cache.ScoreCache(tmp_path).get({"weights": "a"}, lambda: np.ones(2)), [1, 1])


@pytest.mark.parametrize("content", [None, b"not a database, but long enough to look like a file of some kind"])
def test_a_missing_or_damaged_log_is_said_and_not_made_anew(log, content):
    log.path.unlink()
    if content is not None:
        log.path.write_bytes(content)
    for read in (log.labels, log.phases, lambda: log.fact("target")):
        with pytest.raises(UserError, match=r"cannot be read .* restore"):
            read()
    assert log.path.exists() == (content is not None)


@pytest.mark.parametrize("ahead", [False, True], ids=["checkpointed", "with a write-ahead log"])
def test_a_log_is_read_where_nothing_can_be_written_beside_it(log, tmp_path, ahead):
    """A folder in the place of SQLite's shared memory stands for a full disk, a read-only mount, a lack of permission."""
    log.append(0, ["x", "y"], np.array([0, 1]), ["initial"] * 2, 0.1)
    there = Log(tmp_path / "there" / "run.sqlite")
    there.path.parent.mkdir()
    with closing(sqlite3.connect(log.path)) as db:  # holds the write-ahead log open
        db.execute("SELECT * FROM labels").fetchone()
        log.append(1, ["x"], np.array([1]), ["votes"], 0.1)
        if not ahead:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for end in ("", "-wal"):
            shutil.copyfile(f"{log.path}{end}", f"{there.path}{end}")
    Path(f"{there.path}-shm").mkdir()
    assert there.labels()["sample_id"].tolist() == ["x", "y", "x"]
    assert there.phases()["cycle"].tolist() == [0, 1]
    with pytest.raises(UserError, match="Cannot write to"):
        there.set_fact("target", 3)


@pytest.mark.parametrize(("code", "match"), [
    (sqlite3.SQLITE_IOERR_READ, "nothing says that it is damaged"),
    (sqlite3.SQLITE_FULL, "some space is free"),
    (sqlite3.SQLITE_READONLY_DIRECTORY, "may be read"),
    (sqlite3.SQLITE_CANTOPEN, "may be read"),
    (sqlite3.SQLITE_BUSY_RECOVERY, "wait a moment"),
    (sqlite3.SQLITE_CORRUPT_VTAB, "restore the file from a backup, or delete"),
])  # fmt: skip
def test_nobody_is_told_to_delete_an_intact_run(log, monkeypatch, code, match):
    def fails(*_, **__):
        error = sqlite3.OperationalError("as SQLite says it")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(sqlite3, "connect", fails)
    with pytest.raises(UserError, match=match) as raised:
        log.phases()
    assert ("delete the folder" in str(raised.value)) == (code == sqlite3.SQLITE_CORRUPT_VTAB)


def test_an_equal_training_is_found_until_its_weights_change(tmp_path):
    key, trainings = {"rows": "abc", "seed": 1}, cache.Trainings(tmp_path)
    weights = tmp_path / "a-run" / "cycle-002" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    assert trainings.find(key) is None
    trainings.add(key, weights, {"train_loss": 0.5})
    assert cache.Trainings(tmp_path).find(key) == (b"weights", {"train_loss": 0.5})
    assert trainings.find({**key, "seed": 2}) is None
    weights.write_bytes(b"changed")
    assert trainings.find(key) is None
    weights.unlink()
    assert trainings.find(key) is None
