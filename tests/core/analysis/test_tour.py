"""The page Learn computes what its formulas say."""

import numpy as np
import pytest
import torch

import data
from core import scores
from core.analysis import curves, tour
from core.runs import run


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=1500)


@pytest.fixture(scope="module")
def learning():
    return run.find("example-active-learning")


@pytest.fixture(scope="module")
def cleaning():
    return run.find("example-label-cleaning")


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_the_entropy_by_the_logits(seed):
    logits = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    probs = logits.softmax(0)
    (gradient,) = torch.autograd.grad(-(probs * probs.log()).sum(), logits)
    np.testing.assert_allclose(tour.entropy_gradient(probs.detach().numpy()), gradient.numpy(), atol=1e-12)


def test_where_the_model_is_sure_it_vanishes():
    assert np.abs(tour.entropy_gradient(np.array([1.0, 0.0, 0.0]))).max() == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_expected_length_of_the_gradient_by_the_logits(seed):
    logits = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    probs = logits.detach().softmax(0)
    lengths = [torch.autograd.grad(-logits.log_softmax(0)[y], logits)[0].norm() for y in range(7)]
    assert tour.expected_length(probs.numpy()) == pytest.approx(float((probs * torch.stack(lengths)).sum()))


def test_the_three_images_are_the_first_the_middle_and_the_last_of_the_ranking(learning, pool):
    found = tour.three(learning, pool, 0)
    ranking = learning.ranking(0)["rank"]
    assert found["rank"].tolist() == [ranking.max(), ranking.max() - ranking.notna().sum() // 2, 1]
    assert found["entropy-gradnorm"].is_monotonic_increasing


def test_the_bound_counts_by_hand(learning, pool):
    found = tour.bound(learning, pool, 0)
    table = learning.ranking(0).dropna(subset="rank")
    by_norm = set(table.nlargest(found.chosen, "label-gradnorm")["sample_id"])
    by_rank = set(table.nsmallest(found.chosen, "rank")["sample_id"])
    assert found.chosen == learning.config.budget
    assert found.shared == len(by_norm & by_rank)
    assert found.chance == pytest.approx(100 * 100 / len(table))
    assert found.shared > found.chance


def test_ahead_is_the_difference_at_the_end(learning):
    other = run.find("example-random")
    labels, points = tour.advantage(learning, other)
    mine, theirs = learning.cycles().iloc[-1], other.cycles().iloc[-1]
    assert labels == mine["n_labels"] == theirs["n_labels"]
    assert points == pytest.approx(100 * (mine["accuracy"] - theirs["accuracy"]))


def test_the_cases_are_corners_of_the_plane(cleaning, pool):
    clear, ambiguous, agreed = (row for _, row in tour.cases(cleaning, pool, 0).iterrows())
    assert clear["given"] != clear["suggested"]
    assert clear["entropy"] < ambiguous["entropy"]
    assert agreed["given"] == agreed["suggested"]


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_the_line_of_the_plane_has_the_budget_above_it(cleaning, pool, gamma):
    found, probs = tour.plane(cleaning, pool, 0, gamma), cleaning.posterior(0).astype(np.float64)
    line = found.figure.data[-1]
    votes = cleaning.state(pool.ids, 0)[0].histogram
    ranked = cleaning.ranking(0)["rank"].notna().to_numpy()
    entropy, noisiness = scores.entropy(probs)[ranked], scores.cross_entropy(votes, probs)[ranked]
    above = noisiness > np.interp(entropy, line.x, line.y) + 1e-3  # the run was ranked before rounding to float16
    assert above.sum() == pytest.approx(found.chosen, abs=3)
    assert found.chosen == cleaning.config.budget
    phi = scores.cleaning_score(votes, probs, gamma=gamma)[ranked]
    assert set(np.flatnonzero(above)) <= set(np.argsort(-phi)[: found.chosen])


def test_gamma_changes_who_is_asked_first(cleaning, pool):
    assert tour.plane(cleaning, pool, 0, 0.0).shared == cleaning.config.budget
    assert 0 < tour.plane(cleaning, pool, 0, 0.3).shared < cleaning.config.budget


def test_the_relabel_is_one_of_the_log(cleaning, pool):
    found = tour.relabel(cleaning, pool)
    events = cleaning.log.labels()
    said = events.loc[events["sample_id"] == pool.ids[found.row], "label"].tolist()
    assert [pool.class_names[label] for label in said[: 1 + len(found.votes)]] == [found.given, *found.votes]
    assert found.agreed[-1]
    assert not any(found.agreed[1:-1])  # it stops at the first majority


def test_areas_are_those_of_the_summary(cleaning, pool):
    found, summary = tour.areas(cleaning, pool), curves.summary(cleaning, pool)
    assert found["run"] == summary["auc"]
    between = (found["run"] - found["random"]) / (found["oracle"] - found["random"])
    assert found["normalised"] == pytest.approx(between)


def test_the_norm_at_the_logits_vanishes_for_one_class_for_a_tie_and_where_all_are_alike():
    found = tour.surface()
    assert found.zeros["name"].value_counts().to_dict() == {"one class": 3, "tie of two": 3, "all alike": 1}
    np.testing.assert_allclose(found.zeros["norm"], 0, atol=1e-12)
    for point in found.zeros.itertuples():
        row, column = np.abs(found.up - point.y).argmin(), np.abs(found.across - point.x).argmin()
        assert (found.across[column], found.up[row]) == (pytest.approx(point.x), pytest.approx(point.y))
        assert found.norms[row, column] == pytest.approx(0, abs=1e-12)
    assert (found.norms[np.isfinite(found.norms)] < 1e-3).sum() == len(found.zeros)  # and nowhere else


def test_the_surface_is_a_triangle_of_equal_sides_that_has_the_norm_of_what_each_point_stands_for():
    found = tour.surface()
    inside = np.isfinite(found.norms)
    cell = (found.across[1] - found.across[0]) * (found.up[1] - found.up[0])
    assert inside.sum() * cell == pytest.approx(np.sqrt(3) / 4, rel=0.01)
    third = found.up[30] / found.up[-1]
    second = found.across[100] - third / 2
    p = np.array([1 - second - third, second, third])
    entropy = -(p * np.log(p)).sum()
    assert found.norms[30, 100] == pytest.approx(np.sqrt(((p * (np.log(p) + entropy)) ** 2).sum()))
    np.testing.assert_allclose(found.norms[:, ::-1], found.norms)  # classes 1 and 2 are alike


def test_the_norm_peaks_between_sure_and_unsure_and_the_entropy_where_all_are_alike():
    found = tour.at_logits(10)
    norm, _, entropy, _ = found.profile.data
    assert (norm.x[0], norm.x[-1]) == (pytest.approx(0.1), 1.0)
    np.testing.assert_allclose([norm.y[0], norm.y[-1], entropy.y[-1]], 0, atol=1e-10)
    assert found.peak == pytest.approx(0.67, abs=0.005)
    assert norm.x[np.argmax(norm.y)] == found.peak
    assert (entropy.y[0], entropy.customdata[0]) == (pytest.approx(100), pytest.approx(np.log(10)))
    p = np.array([norm.x[200], *[(1 - norm.x[200]) / 9] * 9])
    assert norm.customdata[200] == pytest.approx(np.linalg.norm(p * (np.log(p) + scores.entropy(p[None])[0])))


def test_the_derivation_counts_by_hand(learning, pool):
    found = tour.derivation(learning, pool, 0)
    before, after = learning.ranking(0), learning.ranking(1)
    candidates = after[before["rank"].notna()]
    k, n = learning.config.budget, len(candidates)
    assert (found.measured["k"], found.measured["candidates"], found.n_labels) == (
        k,
        n,
        learning.cycles()["n_labels"][1],
    )
    top = {
        "eq2": set(candidates.nlargest(k, "influence").index),
        "eq3": set(candidates["influence"].abs().nlargest(k).index),
        "eq5": set(candidates.nlargest(k, "earlier-bound").index),
    }
    assert found.measured["eq3_eq5"] == len(top["eq3"] & top["eq5"])
    assert found.measured["eq2_eq3"] == len(top["eq2"] & top["eq3"])
    assert found.chosen == len(top["eq3"] & set(before.nsmallest(k, "rank").index))
    fell = candidates["bound"] <= candidates["earlier-bound"]
    assert (found.fell, found.fell_chosen) == (fell.sum(), fell[before["rank"] <= k].sum())
    assert found.medians["target"] == pytest.approx(candidates["influence"].median())
    assert found.medians["approx-1"] == pytest.approx(candidates["influence"].abs().median())
    assert found.medians["approx-3"] == pytest.approx(candidates["earlier-bound"].median())
    assert found.measured["step_3_4"] == pytest.approx((candidates["influence"].abs() / candidates["bound"]).median())


def test_the_image_of_the_derivation_was_labelled_next_and_harms_most_of_these(learning, pool):
    found = tour.derivation(learning, pool, 0)
    after = learning.ranking(1)
    labelled = after[learning.ranking(0)["rank"] <= learning.config.budget]
    one = after.loc[found.image.name]
    assert one["influence"] == labelled["influence"].min()
    assert found.image["sample_id"] == pool.ids[found.image.name] == one["sample_id"]
    assert found.values["target"] == one["influence"] == -found.values["approx-1"]
    assert (found.values["approx-2"], found.values["approx-3"]) == (one["bound"], one["earlier-bound"])
    assert found.values["approx-1"] <= found.values["approx-2"]
    assert found.places["target"] == (after["influence"] > one["influence"]).sum() + 1


def test_a_cycle_whose_influence_nobody_measured_has_no_derivation(learning, pool):
    assert tour.derivation(learning, pool, len(learning.cycles()) - 1) is None
