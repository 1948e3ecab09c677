"""A branch shares the past and nothing else."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import data
from core import relabel
from core.__main__ import main
from core.analysis import figures, policies, samples
from core.engine import loop
from core.runs import annotation, branch, jobs, questions, run, settle
from core.runs.spec import Config
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 200, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32, "lr": 0.05}
LEARNING = Config(task="active-learning", method="margin", budget=20, cycles=3, initial=20, **TINY)
CLEANING = Config(task="label-cleaning", method="cleaning", budget=30, cycles=3, noise=0.25, finetune_epochs=1, **TINY)


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture(scope="module")
def parents(tmp_path_factory, pool):
    """A finished run of each task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("home") / "runs"))
        yield {config.task: finished(config, pool) for config in (LEARNING, CLEANING)}


def finished(config, pool):
    made = run.create(settle.prepare(config, pool), settle.about(pool))
    loop.work(made, pool)
    return made


def labels(one: run.Run) -> pd.DataFrame:
    return one.log.labels().drop(columns=["seq", "time"])


@pytest.mark.parametrize("task", questions.TASKS)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_with_nothing_changed_a_branch_becomes_its_parent(parents, pool, task, at):
    made = branch.branch(parents[task], pool, at, cycles=3)
    assert len(made.cycles()) == at
    loop.work(made, pool)
    pd.testing.assert_frame_equal(labels(made), labels(parents[task]))
    for one in range(3):
        pd.testing.assert_frame_equal(made.ranking(one), parents[task].ranking(one))


def test_from_the_first_cycle_a_branch_is_the_run_with_the_other_strategy(parents, pool):
    made = branch.branch(parents["active-learning"], pool, 0, method="entropy-gradnorm")
    loop.work(made, pool)
    whole = finished(dataclasses.replace(LEARNING, method="entropy-gradnorm"), pool)
    pd.testing.assert_frame_equal(labels(made), labels(whole))


def test_a_branch_labels_what_its_own_strategy_ranks_first(parents, pool):
    parent = parents["active-learning"]
    made = branch.branch(parent, pool, 1, method="entropy-gradnorm", budget=7)
    loop.work(made, pool)
    pd.testing.assert_frame_equal(made.log.labels(1), parent.log.labels(1))  # times too: it is the same past
    ranking = made.ranking(1)
    np.testing.assert_array_equal(ranking["label"], parent.ranking(1)["label"])
    first = ranking.nsmallest(7, "rank")["sample_id"]
    events = made.log.labels()
    assert sorted(events.loc[events["cycle"] == 2, "sample_id"]) == sorted(first)


def test_equal_training_is_taken_over(parents, pool):
    made = branch.branch(parents["active-learning"], pool, 1, method="entropy-gradnorm")
    lines: list[str] = []
    loop.work(made, pool, report=lines.append)
    phases = made.log.phases()
    assert phases[(phases["cycle"] == 1) & (phases["phase"] == "train")]["result"].iloc[0]["shared"]


def test_another_selector_does_not_go_on_from_the_old_weights(parents, pool):
    made = branch.branch(parents["label-cleaning"], pool, 1, selector="elr")
    assert made.config.finetune_epochs == 0
    loop.work(made, pool)
    assert len(made.cycles()) == 3


def test_views_know_what_ranked_each_cycle(parents, pool):
    made = branch.branch(parents["label-cleaning"], pool, 1, method="cross-entropy")
    loop.work(made, pool)
    again = branch.branch(made, pool, 2, method="self-confidence", cycles=3)
    loop.work(again, pool)
    assert [again.config_at(k).method for k in range(3)] == ["cleaning", "cross-entropy", "self-confidence"]
    history = samples.history(again, 5)
    assert history["score"].tolist() == [again.ranking(k)[again.config_at(k).method].iloc[5] for k in range(3)]
    found = samples.relabels(again, pool)
    second = found[found["cycle"] == 2].iloc[0]
    row = pool.ids.index(second["sample_id"])
    assert second["score"] == again.ranking(1)["cross-entropy"].iloc[row]
    for name in ("curves", "distribution", "map"):
        for one in range(3):
            figures.figure(again, pool, name, one)
    assert policies.comparable([again, parents["label-cleaning"]]) == [parents["label-cleaning"]]


def test_votes_of_people_after_the_branch_stay_behind(tmp_path, monkeypatch, pool):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    parent = finished(
        Config(task="label-cleaning", method="cleaning", budget=0, cycles=1, annotator="person", **TINY), pool
    )
    annotation.record(parent, pool.ids[:2], np.array([3, 4]), ["ann", "ann"])
    parent.log.set_fact("target", 2)
    loop.work(parent, pool)
    annotation.record(parent, pool.ids[2:3], np.array([5]), ["ann"])
    made = branch.branch(parent, pool, 1, method="cross-entropy")
    loop.work(made, pool)
    asked = made.log.labels()
    assert asked.loc[asked["source"] == "person: ann", "sample_id"].tolist() == pool.ids[:2]
    assert len(made.cycles()) == 2
    state = made.state(pool.ids)[0]
    assert relabel.Labels is type(state)


def test_what_single_steps_took_before_stays_with_a_branch(parents, pool):
    parent = finished(dataclasses.replace(LEARNING, cycles=1), pool)
    for at, labels in ((2, 5), (3, 7)):
        jobs.take(parent, labels)
        parent.log.set_fact("target", at)
        loop.work(parent, pool)
    made = branch.branch(parent, pool, 1, cycles=3)
    loop.work(made, pool)
    assert [made.config_at(at).budget for at in (0, 1)] == [5, 20]
    assert made.cycles()["n_labels"].tolist() == [20, 25, 45]


def test_an_example_can_be_branched(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    example = run.find("example-label-cleaning")
    pool = data.load("fashion", **example.config.load_options)
    made = branch.branch(example, pool, 1, budget=10, cycles=2)
    loop.work(made, pool)
    assert not made.is_example
    assert len(made.cycles()) == 2


@pytest.mark.parametrize(
    ("at", "options", "sentence"),
    [
        (3, {}, "has no finished cycle 3: it has 3, counted from 0"),
        (-1, {}, "has no finished cycle -1"),
        (1, {"method": "badge"}, '--score is "badge": choose one of cleaning'),
        (1, {"cycles": 1}, "has at least 2 cycles in all"),
        (1, {"gamma": 2.0}, "--gamma is 2.0"),
    ],
)
def test_what_cannot_be_branched_leaves_nothing_behind(parents, pool, at, options, sentence):
    before = set(run.home().iterdir())
    with pytest.raises(UserError, match=sentence):
        branch.branch(parents["label-cleaning"], pool, at, **options)
    assert set(run.home().iterdir()) == before


def test_a_full_disk_leaves_nothing_behind(parents, pool, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = set(run.home().iterdir())
    monkeypatch.setattr("core.runs.branch.shutil.copytree", full)
    with pytest.raises(UserError, match="No space left on device"):
        branch.branch(parents["label-cleaning"], pool, 1)
    assert set(run.home().iterdir()) == before


def test_a_static_run_keeps_its_model(parents, pool):
    static = finished(dataclasses.replace(CLEANING, static=True, finetune_epochs=0, cycles=2), pool)
    with pytest.raises(UserError, match="branch from cycle 0"):
        branch.branch(static, pool, 1, selector="elr")


def test_the_command_line(parents, capsys):
    parent = parents["label-cleaning"]
    assert main(["branch", parent.id, "--cycle", "1", "--score", "self-confidence", "--cycles", "2"]) == 0
    said = capsys.readouterr()
    assert f"branched from {parent.id} at cycle 1" in said.err
    made = said.err.split()[1].rstrip(",")
    assert main(["show", made]) == 0
    assert f"Branched from {parent.id} at cycle 1." in capsys.readouterr().out


def test_people_can_go_on_where_the_reference_labels_end(parents, pool):
    made = branch.branch(parents["active-learning"], pool, 1, annotator="person")
    loop.work(made, pool)
    assert len(made.cycles()) == 2
    assert made.config.annotator == "person"
    first = made.ranking(1).nsmallest(3, "rank")["sample_id"].tolist()
    annotation.record(made, first, np.array([1, 2, 3]), ["ann"] * 3)
    made.log.set_fact("target", 3)
    loop.work(made, pool)
    assert made.cycles()["n_labels"].tolist() == [20, 40, 43]
    with pytest.raises(UserError, match="Noise is injected for simulated annotators alone"):
        branch.branch(parents["label-cleaning"], pool, 1, annotator="person")
