"""Runs whose labels people give: what counts, what is estimated, and that votes survive and are never doubled."""

import dataclasses

import numpy as np
import pytest

import data
from core import cycle, run, tasks, views
from core.run import Config
from data.annotations import Annotations
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 120, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def pool():
    """Images with labels that nobody vouches for."""
    found = data.load("fashion", limit=120)
    return dataclasses.replace(found, label_counts=None, annotators="none")


@pytest.fixture
def one(tmp_path, monkeypatch, pool):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    return begun(pool)


def begun(pool) -> run.Run:
    config = Config(task="label-cleaning", method="cleaning", budget=0, cycles=2, **TINY)
    found = run.create(tasks.prepare(config, pool), tasks.about(pool))
    cycle.work(found, pool)
    return found


def other(label: int, by: int = 1) -> int:
    return (label + by) % 10


def test_without_anybody_to_simulate_a_run_ranks_once_and_estimates(one, pool):
    assert one.config.annotator == "person"
    (row,) = one.cycles().to_dict("records")
    assert 0 <= row["estimated_correctness"] <= 1
    assert "correctness" not in row
    assert len(views.envelopes(one.config, pool, 10)) == 0


def test_the_first_person_takes_the_place_of_a_label_that_came_with_the_data(one, pool):
    new = other(pool.labels[0])
    assert one.record([pool.ids[0]], np.array([new]), ["ann"]) == 1
    state, _, _ = one.state(pool.ids)
    assert state.majority[0] == new
    assert state.histogram[0].sum() == 1
    assert state.cleaned[0]


def test_people_who_disagree_leave_a_tie_until_a_third_decides(one, pool):
    a, b = other(pool.labels[0]), other(pool.labels[0], by=2)
    one.record([pool.ids[0]] * 2, np.array([a, b]), ["ann", "bob"])
    state, _, _ = one.state(pool.ids)
    assert state.tied[0]
    assert state.majority[0] == a
    one.record([pool.ids[0]], np.array([b]), ["cy"])
    state, _, _ = one.state(pool.ids)
    assert (state.majority[0], state.tied[0], state.cleaned[0]) == (b, False, True)


def test_whoever_votes_again_replaces_the_own_vote(one, pool):
    a, b = other(pool.labels[3]), other(pool.labels[3], by=2)
    one.record([pool.ids[3]], np.array([a]), ["ann"])
    one.record([pool.ids[3]], np.array([b]), ["ann"])
    state, _, events = one.state(pool.ids)
    assert state.histogram[3].tolist() == np.eye(10, dtype=int)[b].tolist()
    assert len(events) == 122  # the log keeps both


def test_the_same_file_may_be_brought_in_twice(one, pool):
    ids, labels, who = [pool.ids[0], pool.ids[1]], np.array([1, 2]), ["ann", "ann"]
    assert one.record(ids, labels, who) == 2
    assert one.record(ids, labels, who) == 0


def test_the_next_cycle_trains_on_what_people_said(one, pool):
    with pytest.raises(UserError, match="Nobody has given a label"):
        one.check_step()
    one.record(pool.ids[:20], np.array([other(label) for label in pool.labels[:20]]), ["ann"] * 20)
    one.check_step()
    one.log.set_fact("target", 2)
    cycle.work(one, pool)
    assert one.cycles()["n_labels"].tolist() == [0, 20]
    assert (one.ranking(1)["status"][:20] == "cleaned").all()
    assert one.ranking(1)["rank"][:20].isna().all()
    table = views.relabels(one, pool)
    assert table["source"].unique().tolist() == ["person: ann"]
    assert (table["kind"] == "").all()
    assert len(table) == 20


def test_votes_of_several_people_are_the_labels_to_start_from(one, pool):
    rows, labels = np.array([0, 0, 0, 5]), np.array([3, 4, 4, 7])
    voted = dataclasses.replace(
        pool,
        labels=np.where(np.isin(np.arange(120), [0]), -1, pool.labels),
        annotations=Annotations(rows, labels, ["ann", "bob", "cy", "ann"]),
    )
    found = begun(voted)
    state, _, events = found.state(voted.ids, 0)
    assert (state.majority[0], state.histogram[0].sum()) == (4, 3)
    assert (state.majority[5], state.histogram[5].sum()) == (7, 1)
    assert state.majority[1] == pool.labels[1]
    assert not state.cleaned.any()
    assert not state.tied.any()
    assert len(events) == 118 + 4


def test_a_tie_among_first_votes_is_not_a_relabel_that_was_begun(pool, one):
    voted = dataclasses.replace(pool, annotations=Annotations(np.array([0, 0]), np.array([3, 4]), ["ann", "bob"]))
    state, _, _ = begun(voted).state(voted.ids, 0)
    assert not state.tied[0]
    assert state.majority[0] == 3


def test_simulated_runs_take_no_labels_from_people(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    voted = data.load("fashion", limit=120)
    config = Config(task="label-cleaning", method="cleaning", budget=5, cycles=1, **TINY)
    found = run.create(tasks.prepare(config, voted), tasks.about(voted))
    with pytest.raises(UserError, match="simulates its annotators"):
        found.record([voted.ids[0]], np.array([1]), ["ann"])


def test_labels_before_the_first_ranking_are_refused(tmp_path, monkeypatch, pool):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    config = Config(task="label-cleaning", method="cleaning", budget=0, cycles=1, **TINY)
    found = run.create(tasks.prepare(config, pool), tasks.about(pool))
    with pytest.raises(UserError, match="no ranking yet"):
        found.record([pool.ids[0]], np.array([1]), ["ann"])
