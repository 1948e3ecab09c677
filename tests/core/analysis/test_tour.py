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


def test_at_the_logits_the_gradient_of_the_entropy_vanishes_for_the_sure_the_uniform_and_a_tie():
    found = tour.at_logits(10)
    flat, one = found.figure.data
    assert (flat.x[0], one.x[0], flat.x[-1]) == (pytest.approx(0.1), 0.5, 1.0)
    np.testing.assert_allclose([flat.y[0], flat.y[-1], one.y[0], one.y[-1]], 0, atol=1e-12)
    assert found.peak == pytest.approx(0.67, abs=0.005)
    assert max(flat.y) > 0.4
    p = np.array([flat.x[200], *[(1 - flat.x[200]) / 9] * 9])
    entropy = -(p * np.log(p)).sum()
    assert flat.y[200] == pytest.approx(np.sqrt(((p * (np.log(p) + entropy)) ** 2).sum()))
