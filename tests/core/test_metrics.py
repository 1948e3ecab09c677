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


REFERENCE = np.array([[[0, 0, 1], [1, 1, -1]], [[2, 2, 2], [2, -1, -1]]])
PREDICTED = np.array([[[0, 1, 1], [1, 0, 0]], [[2, 2, 1], [2, 0, 2]]])


def test_masks_are_compared_by_hand():
    """Image 1: class 0 has 1 of 3 pixels in common, class 1 has 2 of 4. Image 2: class 2 has 3 of 4, class 1 none of 1."""
    each = metrics.confusion(REFERENCE, PREDICTED, 4)
    assert each.shape == (2, 4, 4)
    assert each[0].tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert each[1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 3, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(metrics.iou(each), [[1 / 3, 1 / 2, np.nan, np.nan], [np.nan, 0, 3 / 4, np.nan]])
    np.testing.assert_allclose(metrics.mean_iou(each), [(1 / 3 + 1 / 2) / 2, 3 / 8])
    np.testing.assert_allclose(metrics.pixel_accuracy(each), [3 / 5, 3 / 4])


def test_a_data_set_is_the_sum_of_its_images():
    whole = metrics.confusion(REFERENCE, PREDICTED, 4).sum(axis=0)
    np.testing.assert_allclose(metrics.iou(whole), [1 / 3, 2 / 5, 3 / 4, np.nan])
    assert float(metrics.mean_iou(whole)) == pytest.approx((1 / 3 + 2 / 5 + 3 / 4) / 3)
    assert float(metrics.pixel_accuracy(whole)) == pytest.approx(6 / 9)
    assert np.isnan(metrics.mean_iou(np.zeros((4, 4))))
    assert np.isnan(metrics.pixel_accuracy(np.zeros((4, 4))))


def test_masks_are_compared_as_scikit_learn_does():
    from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

    rng = np.random.default_rng(0)
    reference, predicted = (rng.integers(-1 if void else 0, 9, (3, 20, 30)) for void in (True, False))
    predicted[predicted == 4] = 5
    found, known = metrics.confusion(reference, predicted.astype(np.uint8), 12).sum(axis=0), reference >= 0
    true, given = reference[known], predicted[known]
    np.testing.assert_array_equal(found[:9, :9], confusion_matrix(true, given, labels=range(9)))
    np.testing.assert_allclose(metrics.iou(found)[:9], jaccard_score(true, given, average=None, labels=range(9)))
    assert float(metrics.mean_iou(found)) == pytest.approx(jaccard_score(true, given, average="macro"))
    assert float(metrics.pixel_accuracy(found)) == pytest.approx(accuracy_score(true, given))


def test_two_annotators_are_compared_where_both_say_something():
    one, other = np.array([[[0, -1, 1, 1]]]), np.array([[[0, 0, -1, 1]]])
    assert metrics.confusion(one, other, 2).tolist() == [[[1, 0], [0, 1]]]


def test_masks_that_cannot_be_compared_are_the_users_error():
    with pytest.raises(UserError, match="give both at one size"):
        metrics.confusion(REFERENCE, PREDICTED[:, :1], 3)
    with pytest.raises(UserError, match="from 0 to 1, or −1 where unknown, and these hold -1 to 2"):
        metrics.confusion(REFERENCE, PREDICTED, 2)
