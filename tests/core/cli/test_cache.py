"""How much room the cache takes, and less of it, while a worker runs or none does."""

import json
import os
import time

import filelock
import pytest

from core.__main__ import main
from core.runs import live
from core.store import cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with three scores of 1,000 bytes, used 3, 2 and 1 hours ago, and the index of a training."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path))
    for hours in (3, 2, 1):
        path = tmp_path / ".cache" / "ab" / f"{hours}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    (tmp_path / ".cache" / "trainings").mkdir()
    (tmp_path / ".cache" / "trainings" / "a.json").write_text("{}")
    return tmp_path


def scores(home):
    return sorted(path.stem for path in home.rglob("*.npy"))


def test_it_shows_sizes_by_kind(home, capsys):
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert "3.0 kB" in said
    assert "3.0 kB of at most 5.0 GB" in said
    assert main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["kind"]: (one["files"], one["bytes"]) for one in found["kinds"]} == {
        "scores": (3, 3000),
        "samples": (0, 0),
        "curves": (0, 0),
        "trainings": (1, 2),
    }
    assert scores(home) == ["1", "2", "3"]


def test_it_is_pruned_to_a_size_or_to_the_bound(home, capsys, monkeypatch):
    assert main(["cache", "--prune", "--keep", "2500"]) == 0
    assert "Removed 1 file, 1.0 kB." in capsys.readouterr().out
    assert scores(home) == ["1", "2"]
    monkeypatch.setenv(cache.BOUND, "1500")
    assert main(["cache", "--prune"]) == 0
    assert scores(home) == ["1"]
    assert main(["cache", "--prune", "--keep", "0"]) == 0
    assert scores(home) == []
    assert (home / ".cache" / "trainings" / "a.json").exists()


def test_what_a_running_worker_uses_stays(home, capsys):
    """A worker in this process, which reads the first of the scores after it began."""
    work = home / "run"
    work.mkdir()
    os.utime(home / ".cache" / "ab" / "1.npy")
    with filelock.FileLock(work / live.LOCK), live.working(work) as worker:
        worker.begin(0, "train")
        assert main(["cache", "--prune", "--keep", "0"]) == 0
    assert "is used by a running worker" in capsys.readouterr().out
    assert scores(home) == ["1"]


@pytest.mark.parametrize("given", [["--keep", "1GB"], ["--prune", "--keep", "much"]])
def test_what_makes_no_sense_is_one_sentence(home, given, capsys):
    assert main(["cache", *given]) == 2
    assert "--keep" in capsys.readouterr().err
    assert scores(home) == ["1", "2", "3"]
