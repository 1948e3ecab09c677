"""Tables of a comparison against figures worked out by hand, on runs that nobody trained."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from core.analysis import comparison, published
from core.runs import run
from core.runs.spec import Config
from core.store import atomic
from data.errors import UserError

ABOUT = {
    "class_names": ["cat", "dog"],
    "n_samples": 50,
    "annotators": "none",
    "annotators_source": "",
    "skipped": [],
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own for every test."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path))


def made(
    method="random",
    seed=0,
    accuracies=(),
    *,
    fell=None,
    pool=None,
    overlaps=None,
    task="active-learning",
    about=ABOUT,
    **changes,
):
    """A run with these test accuracies (None: no metrics), 5 labels at the start and 5 a cycle, train accuracy 1.

    fell, pool: from cycle 1 on, of how many of 5 selected, and of 10 candidates, the gradient norm fell · overlaps: likewise,
    how many of 5 both Eq. 3 and Eq. 5 choose, and Eq. 2 and Eq. 5; None where that failed.
    """
    settings = {"dataset": "fashion", "budget": 5, "cycles": 3, "initial": 5, **changes}
    one = run.create(Config(task=task, method=method, seed=seed, **settings), about)
    for cycle, value in enumerate(accuracies):
        result = {"n_labels": 5 * (cycle + 1), "train_accuracy": 1.0, "accuracy": value, "gap": 1.0 - value}
        if fell is not None and cycle > 0:
            result |= {"fell": fell[cycle - 1], "selected": 5}
        if pool is not None and cycle > 0:
            result |= {"pool_fell": pool[cycle - 1], "pool": 10}
        if overlaps is not None and cycle > 0:
            result |= {"influence_n": 50 - 5 * cycle, "influence_k": 5}
            both = overlaps[cycle - 1]
            result |= {"influence_failed": "No."} if both is None else dict(zip(OVERLAPS, both, strict=True))
        ranked(one, cycle, rank=[1.0, np.nan])  # without evidence
        one.log.finish(cycle, "score", 1.0, result)
    return one


OVERLAPS = ("influence_eq3_eq5", "influence_eq2_eq5")


def ranked(one, cycle, **columns):
    """Write the ranking of a cycle: `rank` may have gaps."""
    n = len(next(iter(columns.values())))
    table = pd.DataFrame({"sample_id": [str(i) for i in range(n)], **columns})
    atomic.write_table(one.cycle_path(cycle) / "ranking.parquet", table)


def cells(table, *columns):
    return table[list(columns)].to_numpy().tolist()


def test_accuracy_is_mean_and_sample_deviation_in_percent():
    runs = [made("margin", 0, [0.5, 0.6]), made("margin", 1, [0.3, 0.8]), made("random", 0, [0.5, 0.7])]
    found = comparison.accuracy_table(runs)
    assert cells(found, "method", "cycle", "n_labels", "n_seeds") == [
        ["random", 0, 5, 1], ["random", 1, 10, 1], ["margin", 0, 5, 2], ["margin", 1, 10, 2],
    ]  # fmt: skip
    np.testing.assert_allclose(found["mean"], [50, 70, 40, 70])
    np.testing.assert_allclose(found["sd"], [np.nan, np.nan, 10 * np.sqrt(2), 10 * np.sqrt(2)])


def test_a_strategy_goes_as_far_as_all_its_seeds_and_who_has_not_begun_is_no_seed():
    runs = [made("margin", 0, [0.5, 0.6, 0.7]), made("margin", 1, [0.5, 0.6]), made("margin", 2), made("egl", 0, [0.4])]
    found = comparison.accuracy_table(runs)
    assert cells(found, "method", "cycle", "n_seeds") == [["egl", 0, 1], ["margin", 0, 2], ["margin", 1, 2]]
    assert comparison.coverage(runs) == (
        "3 runs of 2 strategies; 1 more not begun, or repeated. A strategy is shown as far as all its seeds have come: "
        "egl 1 cycle × 1 seed, margin 2 cycles × 2 seeds."
    )
    assert comparison.coverage(runs[:1]) == "1 run of 1 strategy: 3 cycles × 1 seed each."
    assert comparison.coverage(runs[2:3]) == "None of these runs has finished a cycle yet."


def test_of_two_runs_with_one_seed_the_further_one_counts():
    runs = [made("margin", 0, [0.1]), made("margin", 0, [0.5, 0.6]), made("margin", 0, [0.9, 0.9])]
    assert cells(comparison.accuracy(runs), "seed", "cycle", "accuracy") == [[0, 0, 0.5], [0, 1, 0.6]]


def test_the_gap_begins_at_cycle_1():
    found = comparison.generalisation_gap([made("margin", 0, [0.5, 0.6, 0.75]), made("margin", 1, [0.5, 0.8, 0.85])])
    assert found["cycle"].tolist() == [1, 2]
    np.testing.assert_allclose(found["mean"], [30, 20])
    np.testing.assert_allclose(found["sd"], [10 * np.sqrt(2), 5 * np.sqrt(2)])


def test_gradient_fell_is_a_share_of_the_selected():
    runs = [made("egl", seed, [0.5] * 3, fell=fell) for seed, fell in enumerate([(5, 4), (3, 4)])]
    found = comparison.gradient_fell([*runs, made("random", 0, [0.5] * 3)])
    assert cells(found, "method", "cycle", "n_labels", "n_seeds") == [["egl", 1, 10, 2], ["egl", 2, 15, 2]]
    np.testing.assert_allclose(found["mean"], [80, 80])
    np.testing.assert_allclose(found["sd"], [20 * np.sqrt(2), 0])
    assert found[["pool", "pool_sd"]].isna().all(axis=None), "runs of earlier versions"
    assert comparison.wide(found)["Figures"].tolist() == ["ours, 2 seeds"]


def test_how_norms_fall_has_all_candidates_as_its_control():
    given = [((5, 4), (6, 9)), ((3, 4), (8, 9))]
    runs = [made("egl", seed, [0.5] * 3, fell=fell, pool=pool) for seed, (fell, pool) in enumerate(given)]
    found = comparison.tables(runs)["fell"]
    np.testing.assert_allclose(found["pool"], [70, 90])
    np.testing.assert_allclose(found["pool_sd"], [10 * np.sqrt(2), 0], atol=1e-12)
    assert comparison.wide(found).values.tolist() == [
        ["egl", "ours, 2 seeds", "80.0 ± 28.3", "80.0 ± 0.0"],
        ["egl", "ours, all candidates", "70.0", "90.0"],
    ]
    assert "The control: the same of all candidates" in comparison.texts(comparison.tables(runs))["fell"]
    older = made("egl", 2, [0.5] * 3, fell=(5, 5))
    assert comparison.gradient_fell([*runs, older])["pool"].isna().all(), "a mean over fewer seeds is no control"


def test_the_control_of_how_norms_fall_stands_beside_the_papers_figures():
    found = comparison.tables([made("expected-gradnorm", 0, [0.5] * 3, fell=(5, 4), pool=(6, 9), **cifar())])["fell"]
    assert comparison.wide(found)["Figures"].tolist() == ["ours, 1 seed", "ours, all candidates", "paper"]


def test_high_gradient_counts_selected_among_the_highest():
    """Budget 2, five candidates, one of them without a rank: of the two highest norms (rows 1 and 3) one is selected."""
    one, two = (made("egl", seed, [0.5], budget=2) for seed in (0, 1))
    ranked(one, 0, rank=[1, 2, 3, 4, np.nan], **{"label-gradnorm": [0.1, 0.9, 0.2, 0.8, 7.0]})
    ranked(two, 0, rank=[1, 2, 3, 4, np.nan], **{"label-gradnorm": [0.8, 0.9, 0.2, 0.1, 7.0]})
    found = comparison.high_gradient([one, two])
    assert cells(found, "method", "cycle", "n_seeds", "k", "candidates", "count") == [["egl", 0, 2, 2, 4, 1.5]]
    np.testing.assert_allclose(found[["mean", "sd", "count_sd", "random"]], [[75, 50 / np.sqrt(2), 1 / np.sqrt(2), 50]])
    assert comparison.wide(found).values.tolist() == [
        ["egl", "ours, 2 seeds", "75.0 ± 35.4"],
        ["a random choice", "K / candidates", "50.0"],
    ]


def test_high_gradient_of_norms_that_are_not_finite_and_of_a_pool_that_runs_out():
    one = made("egl", 0, [0.5, 0.5, 0.5], budget=3)
    ranked(one, 0, rank=[1, 2, 3, 4, 5], **{"label-gradnorm": [np.inf, 0.9, 0.1, 0.8, np.nan]})
    ranked(one, 1, rank=[1, 2], **{"label-gradnorm": [0.1, 0.9]})  # fewer than the budget are left
    ranked(one, 2, rank=[np.nan, np.nan], **{"label-gradnorm": [np.nan, np.nan]})
    found = comparison.high_gradient([one])
    assert cells(found, "cycle", "count", "k", "candidates", "mean") == [
        [0, 2, 3, 3, pytest.approx(200 / 3)],
        [1, 2, 2, 2, 100],
    ]


def test_a_ranking_that_is_written_anew_is_measured_anew():
    one = made("egl", 0, [0.5], budget=1)
    for norms, share in (([0.1, 0.9], 0), ([0.9, 0.1], 100)):
        ranked(one, 0, rank=[1, 2], **{"label-gradnorm": norms})
        assert comparison.high_gradient([one])["mean"].tolist() == [share]


def test_rank_correlations_are_spearmans():
    rng = np.random.default_rng(0)
    names = ["sum-gradnorm", "l2-gradnorm", "head-gradnorm"]
    runs = [made("entropy-gradnorm", seed, [0.5, 0.6]) for seed in (0, 1)]
    drawn = {}
    for one in runs:
        for cycle in (0, 1):
            values = rng.integers(0, 6, (3, 20)).astype(float)  # with ties
            drawn[one.config.seed, cycle] = values
            rank = np.where(np.arange(20) < 15, np.arange(20.0), np.nan)
            values_on_disk = np.where(np.isnan(rank), 99.0, values)  # what is not ranked does not count
            ranked(one, cycle, rank=rank, **dict(zip(names, values_on_disk, strict=True)))
    egl = made("egl", 0, [0.5])
    ranked(egl, 0, rank=[1, 2, 3], **{"entropy-gradnorm": [3.0, 1.0, 2.0], "egl": [9.0, 1.0, 2.0]})
    found = comparison.rank_correlations([*runs, egl, made("random", 0, [0.5])])
    for pair, column in ((0, 1), (1, 2)):
        table = found[found["pair"] == list(comparison.PAIRS)[pair]].set_index("cycle")
        for cycle in (0, 1):
            both = [stats.spearmanr(drawn[seed, cycle][0, :15], drawn[seed, cycle][column, :15])[0] for seed in (0, 1)]
            expected = [np.mean(both), min(both), max(both)]
            np.testing.assert_allclose(table.loc[cycle, ["mean", "low", "high"]].astype(float), expected)
            assert table.loc[cycle, "n_seeds"] == 2
    measured = found[found["pair"] == "entropy-gradnorm and EGL"]
    assert cells(measured, "method", "cycle", "mean", "how") == [["egl", 0, 1.0, "measured"]]
    wide = comparison.wide_correlations(found).set_index(["Scores", "Runs of"])
    assert wide.loc[("entropy-gradnorm and EGL", "egl"), "Cycle 0 · 5 labels"] == "1.00 [1.00, 1.00]"
    assert pd.isna(wide.loc[("entropy-gradnorm and EGL", "egl"), "Cycle 1 · 10 labels"])
    assert wide.loc[("expected- and entropy-gradnorm", "any"), "Cycle 1 · 10 labels"] == "1 by identity"
    assert cells(found[found["how"] == "identity"], "pair", "mean") == [["expected- and entropy-gradnorm", 1.0]]


def test_a_constant_score_correlates_with_nothing():
    one = made("egl", 0, [0.5])
    ranked(one, 0, rank=[1, 2], **{"entropy-gradnorm": [0.0, 0.0], "egl": [9.0, 1.0]})
    found = comparison.rank_correlations([one])
    assert found.empty
    assert comparison.wide_correlations(found).empty


def test_verdicts_are_paired_t_intervals_over_the_cycles_after_the_first():
    random = [[0.1, 0.50, 0.60], [0.1, 0.52, 0.58], [0.1, 0.48, 0.62]]
    # The first cycle would decide, and does not count
    margin = [[0.9, 0.55, 0.64], [0.9, 0.58, 0.61], [0.9, 0.51, 0.66]]
    runs = [made("random", s, a) for s, a in enumerate(random)] + [made("margin", s, a) for s, a in enumerate(margin)]
    (row,) = comparison.verdicts(runs).itertuples()
    differences = 100 * (np.mean(np.array(margin)[:, 1:], axis=1) - np.mean(np.array(random)[:, 1:], axis=1))
    assert row.difference == pytest.approx(differences.mean())
    interval = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert (row.low, row.high) == pytest.approx(interval)
    assert (row.method, row.n_seeds, row.cycles, row.verdict) == ("margin", 3, 2, "better")
    (row,) = comparison.verdicts(runs, baseline="margin").itertuples()
    assert (row.method, row.verdict, row.high) == ("random", "worse", pytest.approx(-interval[0]))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
def test_a_detectable_difference_is_found_in_four_of_five_studies(n):
    """By the noncentral t distribution of scipy.stats; other words for the same are in the docstring."""
    found = comparison.detectable_difference(n, 1.5)
    power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, found * np.sqrt(n) / 1.5)
    assert power == pytest.approx(0.8, abs=1e-4)


def test_a_detectable_difference_by_simulation():
    draws = np.random.default_rng(0).normal(comparison.detectable_difference(3, 1.5), 1.5, (200_000, 3))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(3))
    assert np.mean(t > stats.t.ppf(0.975, 2)) == pytest.approx(0.8, abs=0.005)
    known = {n: round(comparison.detectable_difference(n, 1.5), 1) for n in (3, 10, 20)}
    assert known == {3: 4.9, 10: 1.5, 20: 1.0}


def test_no_clear_difference_says_what_could_have_been_seen():
    random, margin = ([0.5, 0.60], [0.5, 0.62], [0.5, 0.61]), ([0.5, 0.61], [0.5, 0.61], [0.5, 0.63])
    runs = [made("random", s, a) for s, a in enumerate(random)] + [made("margin", s, a) for s, a in enumerate(margin)]
    tables = comparison.tables(runs)
    (row,) = tables["verdicts"].itertuples()
    assert (row.sd, row.verdict) == (pytest.approx(np.std([1, -1, 2], ddof=1)), "no clear difference")
    least = f"{comparison.detectable_difference(3, row.sd):.1f}"
    assert comparison.readable(tables["verdicts"])["said"].tolist() == [
        f"no clear difference (≥ {least} points detectable)"
    ]
    assert (
        f"No clear difference over 3 seeds (1 strategy): detectable were differences of {least} points."
        in (comparison.texts(tables)["verdicts"])
    )
    (dot,) = comparison.figure(runs, "verdicts", tables).data
    assert f"≥ {least} points detectable" in dot.hovertemplate


def test_verdicts_of_few_seeds_of_unequal_length_and_without_a_clear_difference():
    runs = [
        made("random", 0, [0.5, 0.6, 0.7]),
        made("random", 1, [0.5, 0.6]),
        made("random", 2, [0.5]),  # not past the first cycle
        made("egl", 0, [0.5, 0.7, 0.1]),
        made("egl", 1, [0.5, 0.5, 0.9]),
        made("egl", 7, [0.5, 0.9, 0.9]),  # no random run of this seed
        made("margin", 0, [0.5, 0.7, 0.9]),
        made("badge", 2, [0.5, 0.9]),
    ]
    found = comparison.verdicts(runs)
    assert cells(found, "method", "n_seeds", "cycles", "verdict") == [
        ["egl", 2, 1, "no clear difference"],  # cycle 2 has one pair alone, and counts for none
        ["margin", 1, 2, "too few seeds"],
    ]
    np.testing.assert_allclose(found["difference"], [0, 15], atol=1e-12)
    assert found.loc[1, ["low", "high", "sd", "detectable"]].isna().all()


def test_equal_runs_do_not_differ():
    runs = [made(method, seed, [0.5, 0.6]) for method in ("random", "margin") for seed in (0, 1)]
    assert comparison.verdicts(runs)["verdict"].tolist() == ["no clear difference"]


def test_an_accuracy_that_is_no_number_takes_its_seed_along_and_is_counted():
    runs = [made("random", seed, [0.5, 0.6, 0.7]) for seed in (0, 1, 2)]
    runs += [made("margin", seed, [0.5, 0.7, 0.8]) for seed in (0, 1)] + [made("margin", 2, [0.5, np.nan, 0.9])]
    runs += [made("egl", seed, [0.5, np.nan]) for seed in (0, 1)]
    found = comparison.verdicts(runs)
    assert cells(found, "method", "n_seeds", "left_out", "verdict") == [
        ["egl", 0, 2, "too few seeds"],
        ["margin", 2, 1, "better"],
    ]
    assert "Left out: 3 pairs" in comparison.texts(comparison.tables(runs))["verdicts"]
    lines = comparison.accuracy_table(runs)
    assert lines[lines["method"] == "margin"]["cycle"].tolist() == [0, 2]


def test_without_random_there_is_no_verdict_and_the_text_says_so():
    runs = [made("margin", 0, [0.5, 0.6]), made("egl", 0, [0.5, 0.6])]
    found = comparison.tables(runs)
    assert found["verdicts"].empty
    assert "There is no run of random" in comparison.texts(found)["verdicts"]
    with pytest.raises(UserError, match="no run of random"):
        comparison.figure(runs, "verdicts", found)


def test_the_number_of_comparisons_is_named():
    runs = [made(method, seed, [0.5, 0.6]) for method in ("random", "margin", "egl") for seed in (0, 1)]
    text = comparison.texts(comparison.tables(runs))["verdicts"]
    assert "2 comparisons; the intervals are not adjusted for their number" in text


def test_no_run_no_table():
    found = comparison.tables([])
    assert set(found) == set(comparison.TITLES)
    assert all(table.empty for table in found.values())
    assert set(comparison.texts(found)) == set(comparison.TITLES)
    assert comparison.groups([]) == []


def test_without_evidence_the_text_says_how_to_get_it():
    runs = [made("random", 0, [0.5, 0.6])]
    found = comparison.tables(runs)
    said = comparison.texts(found)
    for name in ("high-gradient", "fell", "correlations"):
        assert found[name].empty
        assert comparison.NOT_MEASURED in said[name]
    assert comparison.NOT_MEASURED not in said["accuracy"] + said["gap"]


def test_runs_with_steps_of_another_size_are_never_mixed():
    one, two = made("random", 0, [0.5]), made("margin", 0, [0.5])
    two.log.set_fact("take/0", 50)
    with pytest.raises(UserError, match=r"labels of single steps: 50 after cycle 0, the budget"):
        comparison.tables([one, two])


def test_runs_of_different_settings_are_never_mixed():
    one, two = made("random", 0, [0.5]), made("margin", 0, [0.5], budget=6)
    longer = made("margin", 1, [0.5], cycles=9, root="/elsewhere")  # may differ
    with pytest.raises(UserError, match=r"different settings \(budget: 5, 6\)"):
        comparison.tables([one, two])
    assert comparison.groups([two, one, longer]) == [[one, longer], [two]]
    with pytest.raises(UserError, match="no active learning"):
        comparison.accuracy([made("cleaning", task="label-cleaning")])
    assert comparison.groups([made("cleaning", task="label-cleaning")]) == []


def cifar(**changes):
    return {"dataset": "cifar10", "about": {**ABOUT, "n_samples": 50}, **changes}


def test_published_figures_stand_beside_ours_by_share_of_the_pool():
    """50 images and 5 labels a cycle: 10, 20 and 30 %, which the paper has as cycles 0, 2 and 4."""
    runs = [
        made("expected-gradnorm", 0, [0.5, 0.6, 0.7], fell=(5, 4), **cifar()),
        made("egl", 0, [0.5, 0.6], **cifar()),
    ]
    for cycle in (0, 1, 2):
        ranked(runs[0], cycle, rank=np.arange(1, 41), **{"label-gradnorm": np.arange(40.0)})
    for cycle in (0, 1):
        ranked(runs[1], cycle, rank=np.arange(1, 41), **{"label-gradnorm": np.arange(40.0)})
    found = comparison.tables(runs)
    high = found["high-gradient"]
    assert cells(
        high[high["method"] == "expected-gradnorm"], "cycle", "published_budget", "published", "matched_by"
    ) == [
        [0, 10, pytest.approx(100 * 703 / 2500), "share"],
        [1, 20, pytest.approx(100 * 1216 / 2500), "share"],
        [2, 30, pytest.approx(100 * 2318 / 2500), "share"],
    ]
    assert high[high["method"] == "egl"]["published"].isna().all()
    assert found["gap"].query("method == 'expected-gradnorm'")["published"].tolist() == [10.04, 7.05]
    np.testing.assert_allclose(found["fell"]["published"], [100 * 2481 / 2500, 100 * 2439 / 2500])
    text = comparison.texts(found)["high-gradient"]
    assert "Table 1 of Wang et al. 2022, matched by share of the pool labelled" in text
    assert "K = 2,500 a cycle, ResNet-18, 200 epochs" in text


def test_published_figures_stand_beside_ours_by_cycle_where_no_share_is_the_same():
    about = {**ABOUT, "n_samples": 1000}
    runs = [made("core-set", 0, [0.5, 0.6, 0.7], **cifar(about=about))]
    found = comparison.tables(runs)
    assert cells(found["gap"], "cycle", "published_budget", "published", "matched_by") == [
        [1, 15, 14.59, "cycle"],
        [2, 20, 12.73, "cycle"],
    ]
    assert "matched by number of the cycle" in comparison.texts(found)["gap"]
    assert "published" not in comparison.tables([made("core-set", 0, [0.5, 0.6])])["gap"]


def test_published_tables_are_those_of_the_paper():
    assert published.table("high-gradient").groupby("method").size().tolist() == [7] * 6
    assert published.table("gap").groupby("method").size().tolist() == [6] * 7
    fell = published.table("fell").set_index(["method", "cycle"])["published"]
    assert fell["entropy-gradnorm", 6] == pytest.approx(90.0)


def test_wide_tables_tell_ours_from_the_papers():
    runs = [made("core-set", seed, [0.5, 0.6 + 0.02 * seed, 0.7], **cifar()) for seed in (0, 1)]
    found = comparison.wide(comparison.tables(runs)["gap"], decimals=2)
    assert list(found.columns) == ["Strategy", "Figures", "Cycle 1 · 10 labels", "Cycle 2 · 15 labels"]
    assert found.fillna("").values.tolist() == [
        ["core-set", "ours, 2 seeds", "39.00 ± 1.41", "30.00 ± 0.00"],
        ["core-set", "paper", "12.73 (20 %)", "9.95 (30 %)"],
    ]
    single = comparison.wide(comparison.tables(runs[:1])["accuracy"])
    assert single.values.tolist() == [["core-set", "ours, 1 seed", "50.0", "60.0", "70.0"]]
    assert comparison.wide(comparison.tables([])["gap"]).empty


@pytest.mark.parametrize("name", comparison.FIGURES)
def test_every_figure_says_what_it_shows(name):
    runs = [made(method, seed, [0.5, 0.6, 0.7]) for method in ("random", "egl") for seed in (0, 1)]
    for one in runs:
        for cycle in range(3):
            ranked(one, cycle, rank=np.arange(1, 41), **{"label-gradnorm": np.arange(40.0)})
    figure = comparison.figure(runs, name, comparison.tables(runs))
    small = figure.layout.annotations[-1].text.replace("<br>", " ")
    assert "fashion, N = 50, reference labels, K = 5" in small
    assert "4 runs, seed 0, 1" in small
    assert figure.layout.xaxis.title.text
    with pytest.raises(UserError, match="no figure"):
        comparison.figure(runs, "map", {})


def test_runs_on_two_folders_are_not_compared():
    one, two = (
        made(seed=seed, accuracies=[0.5], dataset="folder", root=root) for seed, root in enumerate(("/a", "/b"))
    )
    assert len(comparison.groups([one, two])) == 2
    with pytest.raises(UserError, match="root: /a, /b"):
        comparison.read([one, two])


def test_evidence_and_study_do_not_separate_runs():
    one = made("random", 0, [0.5], study="first")
    assert comparison.groups([one, made("margin", 0, [0.5], evidence=True, study="second")])[1:] == []


def test_the_overlap_of_bound_and_influence_is_of_the_cycle_that_ranked():
    runs = [
        made("margin", 0, [0.5, 0.6, 0.7], overlaps=[(4, 1), (3, 0)]),
        made("margin", 1, [0.5, 0.6, 0.7], overlaps=[(2, 2), None]),
        made("random", 0, [0.5, 0.6]),
    ]
    found = comparison.tables(runs)["influence"]
    assert cells(found, "method", "cycle", "n_labels", "n_seeds", "eq3_eq5", "k", "candidates") == [
        ["margin", 0, 5, 2, 3, 5, 45]
    ]  # of cycle 1 one seed is not known
    (row,) = found.itertuples()
    assert (row.mean, row.sd) == (pytest.approx(60), pytest.approx(20 * np.sqrt(2)))
    assert (row.signed, row.random) == (pytest.approx(30), pytest.approx(100 * 5 / 45))
    table = comparison.wide(found)
    assert table["Figures"].tolist() == ["ours, 2 seeds", "ours, signed Eq. 2", "K / candidates"]
    assert table.iloc[:, 2].tolist() == ["60.0 ± 28.3", "30.0", "11.1"]


def test_table_2_of_the_paper_is_one_row_for_every_strategy():
    runs = [made(method, 0, [0.5] * 4, overlaps=[(4, 1)] * 3, **cifar(cycles=4)) for method in ("margin", "egl")]
    tables = comparison.tables(runs)
    found = tables["influence"]
    for method in ("margin", "egl"):
        part = found[found["method"] == method]
        np.testing.assert_allclose(part["published"], [100 * n / 2500 for n in (2290, 2396, 2449)])  # 10, 20 and 30 %
    assert "“Paper”: Table 2 of Wang et al. 2022" in comparison.texts(tables)["influence"]


def test_where_nobody_asked_for_influence_the_text_says_how_to():
    tables = comparison.tables([made("random", 0, [0.5, 0.6])])
    assert tables["influence"].empty
    assert "run with `--evidence influence`" in comparison.texts(tables)["influence"]
