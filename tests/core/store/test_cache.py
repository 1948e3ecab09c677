"""What is computed once: never stale, never more than it may be, and nothing that somebody uses goes."""

import os
import time

import numpy as np
import pytest

from core.store import cache
from core.store.cache import ScoreCache
from data.errors import UserError


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


def test_a_damaged_cache_file_is_computed_again(tmp_path):
    cache.ScoreCache(tmp_path).get({"weights": "a"}, lambda: np.arange(3.0))
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:20])
    np.testing.assert_array_equal(cache.ScoreCache(tmp_path).get({"weights": "a"}, lambda: np.ones(2)), [1, 1])


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


def stored(folder, kind, name, size, age):
    """A file of the cache that was last used so many seconds ago."""
    path = folder / cache.KINDS[kind].replace("??", "ab").replace("*", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_was_used_least_recently_goes_first(tmp_path):
    old, older, new = (stored(tmp_path, "scores", name, 100, age) for name, age in (("a", 20), ("b", 30), ("c", 10)))
    gone = cache.prune(tmp_path, 200, before=np.inf)
    assert [entry.path for entry in gone] == [older]
    assert old.exists()
    assert new.exists()


def test_scores_and_tables_share_the_bound_and_trainings_stay(tmp_path):
    table = stored(tmp_path, "samples", "a", 100, 30)
    score = stored(tmp_path, "scores", "a", 100, 20)
    training = stored(tmp_path, "trainings", "a", 100, 40)
    cache.prune(tmp_path, 250, before=np.inf)
    assert (table.exists(), score.exists(), training.exists()) == (False, True, True)
    cache.prune(tmp_path, 0, before=np.inf)
    assert (score.exists(), training.exists()) == (False, True)


def test_what_is_in_use_stays_whatever_it_takes(tmp_path):
    used, unused = stored(tmp_path, "scores", "a", 100, 60), stored(tmp_path, "scores", "b", 100, 5000)
    cache.prune(tmp_path, 0, before=time.time() - 100)
    assert (used.exists(), unused.exists()) == (True, False)


def test_reading_counts_as_use(tmp_path):
    key = {"weights": "a"}
    ScoreCache(tmp_path).get(key, lambda: np.zeros(100))
    (path,) = tmp_path.rglob("*.npy")
    os.utime(path, (0, 0))
    ScoreCache(tmp_path).get(key, lambda: pytest.fail("it is there"))
    assert path.stat().st_mtime > time.time() - 60


def test_the_bound_holds_while_scores_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.BOUND, "2kB")
    monkeypatch.setattr(cache, "SPARED", -cache.TOUCHED - 60)  # as if an hour went by between two
    scores = ScoreCache(tmp_path)
    for i in range(20):
        scores.get({"weights": i}, lambda i=i: np.full(100, i))  # 928 bytes on disk
        assert sum(entry.size for entry in cache.entries(tmp_path)) <= 2000
    np.testing.assert_array_equal(scores.get({"weights": 0}, lambda: pytest.fail("it is in memory")), np.zeros(100))


def test_memory_is_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MEMORY", 2000)
    scores = ScoreCache(tmp_path)
    for i in range(5):
        scores.get({"weights": i}, lambda i=i: np.full(100, float(i)))
        scores.get({"weights": 0}, lambda: pytest.fail("it was asked for just now"))
    assert sum(one.nbytes for one in scores.memory.values()) <= 2000
    np.testing.assert_array_equal(scores.get({"weights": 1}, lambda: pytest.fail("it is on disk")), np.ones(100))


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
    paths = [tmp_path / "ab" / ".x.npy.1.part", tmp_path / "opening-x" / "raw", tmp_path / "opening-y" / "raw"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for path in (paths[0], paths[1].parent):
        os.utime(path, (time.time() - 2 * cache.ABANDONED,) * 2)
    cache.prune(tmp_path, 1000, before=np.inf)
    assert [path.exists() for path in paths] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("5GB", 5 * 10**9), ("0.5 mb", 500_000), ("2 GiB", 2 << 30), ("1k", 1000)],
)
def test_sizes(text, size):
    assert cache.bytes_of(text, "--keep") == size


@pytest.mark.parametrize("text", ["much", "-1", "5 PB", "GB", "1e9"])
def test_what_is_no_size_is_said_at_once(tmp_path, monkeypatch, text):
    monkeypatch.setenv(cache.BOUND, text)
    with pytest.raises(UserError, match=r"NEXTLABEL_CACHE_BYTES is .* which is no size: give one such as 5GB"):
        ScoreCache(tmp_path)


def test_an_array_that_is_too_short_is_computed_again_and_replaced(tmp_path):
    def of(n):
        return ScoreCache(tmp_path).get({"a": 1}, lambda: np.arange(n), lambda stored: len(stored) >= n)

    assert [len(of(n)) for n in (3, 5, 4)] == [3, 5, 5]


def test_a_disk_that_takes_nothing_is_said_where_it_matters_and_not_to_a_reader(tmp_path):
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(UserError, match="Cannot write"):
        ScoreCache(tmp_path / "file").get({"a": 1}, lambda: np.arange(3))
    assert len(ScoreCache(tmp_path / "file", reading=True).get({"a": 1}, lambda: np.arange(3))) == 3
