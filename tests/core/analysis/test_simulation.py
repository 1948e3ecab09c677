"""Simulated curves: the same as by `core.relabel.simulate`, and simulated once."""

import dataclasses

import numpy as np
import pytest

import data
from core import relabel
from core.analysis import simulation
from core.analysis.simulation import VOTE_SETS, Simulator
from core.runs.reference import initial_labels
from core.runs.spec import Config
from data.errors import UserError

CONFIG = Config("label-cleaning", "fashion", "cleaning", budget=30, cycles=2, noise=0.25, temperature=3.0)
SCORES = np.random.default_rng(0).random(200)
POLICIES = pytest.mark.parametrize("policy", ["oracle", "random", SCORES], ids=["oracle", "random", "ranking"])


@pytest.fixture
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def simulated(monkeypatch):
    """The budgets that were simulated."""
    budgets, really = [], relabel.simulate_votes

    def watched(*given, budget, seeds):
        budgets.append(budget)
        return really(*given, budget=budget, seeds=seeds)

    monkeypatch.setattr(relabel, "simulate_votes", watched)
    return budgets


@POLICIES
def test_curves_are_those_of_a_simulation(pool, policy):
    counts, initial = pool.label_counts, initial_labels(CONFIG, pool)
    plain = relabel.simulate(counts, initial, policy, budget=60, seeds=range(VOTE_SETS))
    np.testing.assert_array_equal(Simulator(CONFIG, pool).correctness(policy, 60), plain.correctness)
    every = relabel.simulate_votes(counts, initial, policy, budget=60, seeds=list(range(VOTE_SETS)))
    for found, taken in zip(Simulator(CONFIG, pool).curves(policy, 60), every, strict=True):
        expected = relabel.statistics_curves(counts, initial, taken)
        for field in dataclasses.fields(expected):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


@POLICIES
def test_a_shorter_curve_is_the_beginning_of_a_longer_one(pool, policy):
    longer = Simulator(CONFIG, pool).correctness(policy, 400)
    counts, initial = pool.label_counts, initial_labels(CONFIG, pool)
    for budget in (0, 1, 25, 133):
        alone = relabel.simulate(counts, initial, policy, budget=budget, seeds=range(VOTE_SETS)).correctness
        np.testing.assert_array_equal(longer[:, : budget + 1], alone)


def test_each_policy_is_simulated_once_and_again_only_where_it_is_too_short(pool, simulated):
    for budget in (30, 30, 10, 50, 40):
        Simulator(CONFIG, pool).correctness("oracle", budget)
    assert simulated == [30, 50]


@pytest.mark.parametrize(
    "change",
    [
        lambda config, pool: (dataclasses.replace(config, seed=1), pool),
        lambda config, pool: (dataclasses.replace(config, relabel_seed=7), pool),
        lambda config, pool: (dataclasses.replace(config, temperature=2.0), pool),
        lambda config, pool: (config, dataclasses.replace(pool, label_counts=pool.label_counts[::-1].copy())),
    ],
    ids=["seed", "relabel seed", "initial labels", "reference"],
)
def test_other_content_is_simulated_anew(pool, simulated, change):
    Simulator(CONFIG, pool).correctness("random", 30)
    Simulator(*change(CONFIG, pool)).correctness("random", 30)
    assert simulated == [30, 30]


def test_statistics_end_where_every_label_is_checked_and_the_curve_goes_on(pool):
    ends = Simulator(CONFIG, pool).curves(SCORES, 2000)
    counts, initial = pool.label_counts, initial_labels(CONFIG, pool)
    collected = relabel.simulate(counts, initial, SCORES, budget=2000, seeds=range(VOTE_SETS)).collected
    assert [len(one.correctness) - 1 for one in ends] == collected.tolist()
    curve = Simulator(CONFIG, pool).correctness(SCORES, 2000)
    assert curve.shape == (VOTE_SETS, 2001)
    assert (curve[:, -1] == [one.correctness[-1] for one in ends]).all()


def test_the_minimal_line_corrects_an_image_with_every_two_labels(pool):
    line = Simulator(CONFIG, pool).minimal(2000)
    wrong = (initial_labels(CONFIG, pool) != pool.label_counts.argmax(axis=1)).sum()
    assert line[0] == 1 - wrong / 200
    assert line[2] == pytest.approx(1 - (wrong - 1) / 200)
    assert line[-1] == 1


def test_a_damaged_file_is_simulated_again(pool, home, simulated):
    first = Simulator(CONFIG, pool).correctness("random", 30)
    (file,) = home.rglob("*.npy")
    file.write_bytes(b"")
    np.testing.assert_array_equal(Simulator(CONFIG, pool).correctness("random", 30), first)
    assert simulated == [30, 30]


def test_curves_are_drawn_where_the_home_cannot_be_written(pool, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Simulator(CONFIG, pool).correctness("random", 5).shape == (VOTE_SETS, 6)
    assert list((tmp_path / "nextlabel-cache" / "curves").rglob("*.npy"))


def test_nothing_is_simulated_where_people_are_asked(pool):
    with pytest.raises(UserError, match="People are asked"):
        Simulator(dataclasses.replace(CONFIG, annotator="person"), pool)


def test_version_is_part_of_the_key(pool, simulated, monkeypatch):
    Simulator(CONFIG, pool).correctness("random", 30)
    monkeypatch.setattr(simulation, "VERSION", simulation.VERSION + 1)
    Simulator(CONFIG, pool).correctness("random", 30)
    assert simulated == [30, 30]
