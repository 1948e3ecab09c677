"""Figure 3 from runs: what is simulated, averaged and said."""

import dataclasses

import numpy as np
import pytest

import data
from core import relabel
from core.analysis import curves, figures, policies, simulation
from core.engine import loop
from core.runs import run, settle
from core.runs.spec import Config
from core.store.cache import ScoreCache
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 200, "model": "small-cnn", "width": 4, "epochs": 3, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pool):
    """Two arms, two seeds each, static."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("home") / "runs"))
        made = []
        for seed in (0, 1):
            for selector in ("vanilla", "elr"):
                config = Config(
                    task="label-cleaning",
                    method="cleaning",
                    selector=selector,
                    budget=60,
                    cycles=2,
                    seed=seed,
                    noise=0.25,
                    static=True,
                    **TINY,
                )
                one = run.create(settle.prepare(config, pool), settle.about(pool))
                loop.work(one, pool)
                made.append(one)
        yield made


def test_a_static_runs_own_curve_is_one_of_the_simulated_ones(runs, pool):
    """The loop and the simulation are two ways to the same labels."""
    found = policies.simulated(runs, pool)
    own = curves.cleaning_curve(runs[2], pool)[
        "correctness"
    ].to_numpy()  # vanilla, seed 1; its votes are those of seed 1
    np.testing.assert_array_equal(found["vanilla"][1][0], own)


def test_curves_are_means_over_training_seeds_and_sets_of_votes(runs, pool):
    found = policies.simulated(runs, pool)
    table = policies.curves(found)
    assert list(found) == ["oracle", "random", "minimal", "vanilla", "elr"]
    every = np.concatenate(found["elr"])
    assert every.shape == (10, 61)
    part = table[table["policy"] == "elr"]
    np.testing.assert_allclose(part["mean"], every.mean(axis=0))
    np.testing.assert_allclose(part["sd"], every.std(axis=0, ddof=1))
    np.testing.assert_allclose(part["high"] - part["mean"], 1.96 * part["sd"] / np.sqrt(10))


def test_areas_lie_on_the_scale_from_random_to_oracle(runs, pool):
    found = policies.simulated(runs, pool)
    table = policies.areas(found).set_index("policy")
    assert table.loc["random", "auc_normalised"] == pytest.approx(0)
    assert table.loc["oracle", "auc_normalised"] == pytest.approx(1)
    mean = np.mean([array.mean() for array in found["vanilla"]])
    assert table.loc["vanilla", "auc"] == pytest.approx(mean)


def test_statistics_are_those_of_the_labels_at_the_end(runs, pool):
    found = policies.simulated(runs, pool)
    table = policies.statistics(runs, pool, found).set_index("policy")
    reference, initial, score = policies.ranked(runs[0], pool)
    ends = []
    for one in (runs[0], runs[2]):
        reference, initial, score = policies.ranked(one, pool)
        seeds = [one.config.seed + k for k in range(5)]
        for taken in relabel.simulate_votes(reference, initial, score, budget=60, seeds=seeds):
            ends.append(relabel.statistics_curves(reference, initial, taken).total_variation[-1])
    assert table.loc["vanilla", "total_variation"] == pytest.approx(np.mean(ends))
    assert table.loc["oracle", "correctness"] > table.loc["random", "correctness"]
    assert table.loc["oracle", "labels_per_correction"] < table.loc["random", "labels_per_correction"]


def test_what_pages_draw_of_the_same_runs_is_simulated_once(runs, pool, tmp_path, monkeypatch):
    """Figure 3 in both bands, its table, and the envelopes of each run."""
    simulated, really = [], relabel.simulate_votes

    def watched(*given, **options):
        simulated.append(given[2])
        return really(*given, **options)

    monkeypatch.setattr(relabel, "simulate_votes", watched)
    monkeypatch.setattr(simulation, "cache", lambda: ScoreCache(tmp_path))
    for band in figures.BANDS:
        figures.policy_figure(runs, pool, band)
    curves.policy_statistics(runs, pool)
    for one in runs:
        curves.envelopes(one.config, pool, 60)
        curves.areas([one], pool)
    assert len(simulated) == 2 * len(("oracle", "random", "vanilla", "elr"))  # for each of two training seeds


@pytest.mark.parametrize("band", list(figures.BANDS))
def test_the_figure_names_every_policy_with_its_area(runs, pool, band):
    drawn = figures.policy_figure(runs, pool, band)
    names = [trace.name for trace in drawn.data if trace.name]
    assert any(name.startswith("elr · AUC 0.") for name in names)
    assert any("upper bound" in name for name in names)
    assert figures.BANDS[band].split(" (")[0] in drawn.layout.annotations[0].text.replace("<br>", " ")


def test_runs_on_other_noise_are_not_compared(runs, pool):
    config = dataclasses.replace(runs[0].config, noise=0.1, temperature=None)
    other = run.write_start(runs[0].path.parent / "other", settle.prepare(config, pool), settle.about(pool))
    loop.work(other, pool)
    with pytest.raises(UserError, match="differ in their data or their noise"):
        policies.comparable([*runs, other])


def test_only_label_cleaning_has_policies(runs, pool):
    config = dataclasses.replace(runs[0].config, task="active-learning", method="random")
    other = run.write_start(runs[0].path.parent / "learning", config, settle.about(pool))
    with pytest.raises(UserError, match="no label cleaning"):
        policies.comparable([other])
