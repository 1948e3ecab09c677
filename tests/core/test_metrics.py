"""Figures of merit by hand."""

import numpy as np
import pytest

from core import metrics
from data.errors import UserError


def test_accuracy_and_correctness():
    assert metrics.accuracy([[0.9, 0.1], [0.2, 0.8]], [0, 0]) == 0.5
    assert metrics.correctness([0, 1, 1], [[3, 0], [0, 3], [3, 0]]) == pytest.approx(2 / 3)


def test_errors_are_clear_or_difficult():
    """A wrong label where people agree, and one where they do not; a right one counts for neither."""
    counts = np.array([[20, 0, 0], [8, 7, 5], [8, 7, 5]])
    assert metrics.remaining_errors([1, 1, 0], counts) == (1, 1)


def test_area_is_the_mean_height():
    assert metrics.area_under_curve([0, 10, 20], [0, 1, 1]) == 0.75
    assert metrics.area_under_curve([5], [0.3]) == 0.3


def test_normalised_auc():
    assert metrics.normalised_auc(0.9, 0.8, 1.0) == pytest.approx(0.5)
    assert metrics.normalised_auc(0.9, 0.9, 0.9) is None


def noisy_problem(noise, seed=0, n=4000, n_classes=5):
    """Right and given labels, and what a calibrated model of the given labels says, out of sample."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    logits = rng.standard_normal((n, n_classes)) + 5 * np.eye(n_classes)[truth]
    clean = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    transition = (1 - noise) * np.eye(n_classes) + noise / (n_classes - 1) * (1 - np.eye(n_classes))
    given = (rng.random((n, 1)) > transition[truth].cumsum(axis=1)).sum(axis=1)
    return truth, given, clean @ transition


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2, 0.4])
def test_estimated_noise_is_near_the_true_one(noise):
    """Within 0.03 of the share of wrong labels, of 4,000 samples that a model tells apart in 98 of 100 cases."""
    truth, given, probs = noisy_problem(noise)
    assert metrics.estimated_noise(given, probs) == pytest.approx((truth != given).mean(), abs=0.03)


def confident_joint(given, probs):
    """As the paper writes it, sample by sample."""
    n_classes = len(probs[0])
    threshold = [np.mean([p[j] for p, y in zip(probs, given, strict=True) if y == j]) for j in range(n_classes)]
    joint = np.zeros((n_classes, n_classes))
    for p, y in zip(probs, given, strict=True):
        sure = [j for j in range(n_classes) if p[j] >= threshold[j]]
        if sure:
            joint[y, max(sure, key=lambda j: p[j])] += 1
    for j in range(n_classes):
        joint[j] *= list(given).count(j) / joint[j].sum()
    return joint / joint.sum()


@pytest.mark.parametrize("seed", range(5))
def test_estimated_noise_equals_the_paper_sample_by_sample(seed):
    _, given, probs = noisy_problem(0.3, seed, n=60, n_classes=3)
    assert metrics.estimated_noise(given, probs) == pytest.approx(1 - np.trace(confident_joint(given, probs)))


def test_estimated_noise_with_a_class_that_nobody_was_given_or_is_sure_of():
    """No label 2; and no sample labelled 1 reaches a threshold but by its neighbour's class."""
    assert metrics.estimated_noise([0, 0, 1], [[0.9, 0.1, 0], [0.9, 0.1, 0], [0.1, 0.9, 0]]) == 0
    assert metrics.estimated_noise([0, 0, 1, 1], [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]]) == 0.25


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [([], np.empty((0, 2)), "no label"), ([0], [[np.nan, 1.0]], "NaN")],
)
def test_estimated_noise_says_what_is_wrong(labels, probs, message):
    with pytest.raises(UserError, match=message):
        metrics.estimated_noise(labels, probs)


def test_kendall_tau_counts_pairs():
    """Of three pairs two agree; a tie in one ranking alone shrinks τ_b; a constant has no order."""
    assert metrics.kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert metrics.kendall_tau([1, 2, 2], [1, 2, 3]) == pytest.approx(2 / np.sqrt(2 * 3))
    assert np.isnan(metrics.kendall_tau([1, 1, 1], [1, 2, 3]))
