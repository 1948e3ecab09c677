"""Figures of merit by hand."""

import numpy as np
import pytest

from core import metrics


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
