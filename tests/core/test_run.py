"""Folders of runs: made, found, read, and damaged."""

import numpy as np
import pytest

from core import run
from core.run import Config
from data.errors import UserError

CONFIG = Config("active-learning", "fashion", "margin", 20, 2)
ABOUT = {"class_names": ["a", "b"], "n_samples": 3, "annotators": "none", "annotators_source": "", "skipped": []}


@pytest.fixture
def one(home):
    return run.create(CONFIG, ABOUT)


def test_runs_of_the_same_second_get_names_of_their_own(home):
    made = {run.create(CONFIG, ABOUT).id for _ in range(3)}
    assert len(made) == 3
    assert [found.id for found in run.all_runs()] == sorted(made, reverse=True)


def test_a_run_is_read_back(one):
    found = run.find(one.id)
    assert found.config == CONFIG
    assert found.about == ABOUT
    assert found.cycles().empty
    assert found.progress() == {}


def test_the_experiment_does_not_know_the_seed():
    other = Config("active-learning", "fashion", "margin", 20, 2, seed=5)
    assert other.experiment == CONFIG.experiment
    assert Config("active-learning", "fashion", "egl", 20, 2).experiment != CONFIG.experiment


def test_status_without_a_worker(one):
    assert one.status()[0] == "stopped"
    for cycle in range(2):
        one.log.finish(cycle, "score", 1.0, {"n_labels": 20 * cycle})
    assert one.status()[0] == "finished"
    one.log.set_fact("target", 3)
    assert one.status()[0] == "stopped"
    one.log.set_fact("error", "The disk is full.")
    assert one.status() == ("failed", "The disk is full.")


def test_status_with_a_worker(one):
    with one.lock:
        assert one.status()[0] == "running"
        (one.path / "pause").touch()
        assert one.status()[0] == "pausing"


def test_a_worker_on_its_way_counts_as_running_until_it_is_overdue(one, monkeypatch):
    import time

    one.log.set_fact("starting", time.time())
    assert one.status() == ("running", "Starting the worker…")
    one.log.set_fact("starting", time.time() - run.START_SECONDS - 1)
    assert one.status()[0] == "stopped"


def test_a_replay_stops_at_a_cycle(one):
    one.log.append(0, ["x", "y"], np.array([0, 1]), "reference", 0.1)
    one.log.append(1, ["z"], np.array([1]), "reference", 0.1)
    assert one.state(["x", "y", "z"], 0)[0].majority.tolist() == [0, 1, -1]
    assert one.state(["x", "y", "z"])[0].majority.tolist() == [0, 1, 1]


@pytest.mark.parametrize("read", [lambda one: one.ranking(0), lambda one: one.posterior(0)])
@pytest.mark.parametrize("content", [None, b"", b"PAR1 cut off"])
def test_missing_and_damaged_scores(one, read, content):
    if content is not None:
        one.cycle_path(0).mkdir()
        for name in ("ranking.parquet", "posterior.npy"):
            (one.cycle_path(0) / name).write_bytes(content)
    with pytest.raises(UserError, match="choose another cycle"):
        read(one)
