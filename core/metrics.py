"""Figures of merit: pure functions on arrays, float64."""

import numpy as np
from numpy.typing import ArrayLike

from data import votes


def accuracy(probs: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples in [0, 1] whose most probable class is the label; probs [N, C], labels int [N]."""
    return float((np.asarray(probs).argmax(axis=1) == np.asarray(labels)).mean())


def correctness(majority: ArrayLike, label_counts: ArrayLike) -> float:
    """Share of samples in [0, 1] whose majority label is the mode of the true counts; int [N] and [N, C]."""
    return float((np.asarray(majority) == np.asarray(label_counts).argmax(axis=1)).mean())


def remaining_errors(majority: ArrayLike, label_counts: ArrayLike) -> tuple[int, int]:
    """(clear, difficult) wrong majority labels: on samples that are not ambiguous, and on those that are.

    Ambiguous: entropy of the true counts above 0.30 on the base-C scale (Bernhardt et al. 2022).
    """
    wrong = np.asarray(majority) != np.asarray(label_counts).argmax(axis=1)
    difficult = votes.ambiguous(np.asarray(label_counts))
    return int((wrong & ~difficult).sum()), int((wrong & difficult).sum())


def area_under_curve(x: ArrayLike, y: ArrayLike) -> float:
    """Mean height of the curve y over x by the trapezoid rule, in y's unit; one point is its own height."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 and x[-1] > x[0] else float(y.mean())


def normalised_auc(auc: float, random: float, oracle: float) -> float | None:
    """(auc − random) / (oracle − random): 0 is the random order, 1 the oracle; None where the two bounds coincide."""
    return (auc - random) / (oracle - random) if oracle > random else None
