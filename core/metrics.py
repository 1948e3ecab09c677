"""Figures of merit: pure functions on arrays, float64."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.scores import check_probs
from data import votes
from data.errors import UserError


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


def estimated_noise(labels: ArrayLike, probs: ArrayLike) -> float:
    """Estimated share of wrong labels in [0, 1] by the confident joint; labels int [N], probs [N, C] out of sample.

    The counts of `confident_classes` are scaled, for each given label, to its number of samples. Posteriors of a model that
    has seen the labels hide wrong ones: the estimate is then too low. Northcutt, Jiang & Chuang, JAIR 2021, Eqs. 1 and 3.
    Raises `UserError` without samples and on NaN.
    """
    given, p = np.asarray(labels), check_probs(probs)
    if len(given) == 0:
        raise UserError("There is no label to estimate the noise of: label some samples first.")
    n_classes = p.shape[1]
    true = confident_classes(given, p)
    counted = true >= 0
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (given[counted], true[counted]), 1.0)
    empty = joint.sum(axis=1) == 0  # no sample of this label is sure of anything: take it as right
    joint[np.flatnonzero(empty), np.flatnonzero(empty)] = 1.0
    joint *= (np.bincount(given, minlength=n_classes) / joint.sum(axis=1))[:, None]
    return float(1 - np.trace(joint) / joint.sum())


def confident_classes(labels: ArrayLike, probs: ArrayLike) -> NDArray[np.int64]:
    """The class that each sample counts as in the confident joint, int64 [N], −1 for none; labels int [N], probs [N, C].

    A sample counts as class j where p[j] reaches the mean self-confidence of the samples labelled j, and as the most probable of
    several. Northcutt, Jiang & Chuang, JAIR 2021, Eq. 1. Raises `UserError` on NaN.
    """
    given, p = np.asarray(labels), check_probs(probs)
    n_classes = p.shape[1]
    present = np.bincount(given, minlength=n_classes)
    own = np.bincount(given, weights=p[np.arange(len(p)), given], minlength=n_classes)
    reaches = p >= np.where(present > 0, own / np.maximum(present, 1), np.inf)
    return np.where(reaches.any(axis=1), np.where(reaches, p, -1.0).argmax(axis=1), -1)


def label_issues(labels: ArrayLike, probs: ArrayLike) -> NDArray[np.bool_]:
    """Which labels are likely wrong, bool [N]; labels int [N], probs [N, C] out of sample.

    Those off the diagonal of the confident joint whose label is not the most probable class either: what cleanlab's
    `find_label_issues(filter_by="confident_learning")` finds. Raises `UserError` on NaN.
    """
    given, p = np.asarray(labels), check_probs(probs)
    counted = confident_classes(given, p)
    own = p[np.arange(len(p)), given]
    return np.asarray((counted >= 0) & (counted != given) & (own < p.max(axis=1)))


def confusion(reference: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Pixels of every image by class, int64 [N, K, K]: rows are the reference, columns the prediction; both int [N, H, W].

    Pixels where either is −1 (void, or not predicted) are left out. The sum over images is the matrix of a data set, which may be
    added up batch by batch. Raises `UserError` for shapes that differ and classes out of range.
    """
    true, given = np.asarray(reference), np.asarray(predicted)
    if true.shape != given.shape:
        raise UserError(
            f"Reference masks of shape {true.shape} and predicted ones of shape {given.shape} cannot be compared: give both at "
            "one size."
        )
    for masks in (true, given):
        if masks.size and not (masks.min() >= -1 and masks.max() < n_classes):
            raise UserError(
                f"Masks must hold classes from 0 to {n_classes - 1}, or −1 where unknown, and these hold {masks.min()} to "
                f"{masks.max()}: correct them."
            )
    n, known = len(true), (true >= 0) & (given >= 0)
    image = np.repeat(np.arange(n), known.reshape(n, math.prod(true.shape[1:])).sum(axis=1))
    cell = (image * n_classes + true[known]) * n_classes + given[known]
    return np.bincount(cell, minlength=n * n_classes**2).reshape(n, n_classes, n_classes)


def iou(confusion: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each class in [0, 1], matrices [..., K, K] → [..., K]; NaN for a class in neither.

    TP / (TP + FP + FN), the Jaccard index, of Pascal VOC and Cityscapes.
    """
    m = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(m, axis1=-2, axis2=-1)
    union = m.sum(axis=-1) + m.sum(axis=-2) - hits
    return _share(hits, union)


def mean_iou(confusion: ArrayLike) -> NDArray[np.float64]:
    """Mean of `iou` over the classes that reference or prediction has, matrices [..., K, K] → [...]; NaN without a known pixel.

    Of a data set it is that of the sum of its matrices, as Pascal VOC and Cityscapes have it, not the mean over images. A class
    that is predicted and never right counts as 0; one that nothing has is left out, as in scikit-learn and Keras.
    """
    each = iou(confusion)
    there = np.isfinite(each)
    return _share(np.where(there, each, 0.0).sum(axis=-1), there.sum(axis=-1))


def pixel_accuracy(confusion: ArrayLike) -> NDArray[np.float64]:
    """Share of the known pixels whose class is right in [0, 1], matrices [..., K, K] → [...]; NaN without a known pixel."""
    m = np.asarray(confusion, dtype=np.float64)
    return _share(np.trace(m, axis1=-2, axis2=-1), m.sum(axis=(-2, -1)))


def _share(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """part / whole, NaN where the whole is 0."""
    p, w = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(p, w, out=np.full(w.shape, np.nan), where=w > 0)


def share_interval(hits: int, drawn: int, population: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share in [0, 1] of a finite population, from `hits` among so many drawn without replacement.

    Both tails of the hypergeometric distribution are inverted, each at (1 − level) / 2, so that the interval covers the
    share in at least `level` of all draws (Clopper and Pearson 1934, for finite populations Buonaccorsi 1987).
    """
    from scipy.stats import hypergeom  # half a second, which most of those who measure do without

    tail = (1 - level) / 2

    def first(fits: Callable[[int], bool], low: int, high: int) -> int:
        """The least number from low to high that fits; `fits` is false, then true; at high it is true."""
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        return low

    least, most = hits, population - (drawn - hits)  # successes that the draw itself leaves possible
    low = first(lambda k: hypergeom.sf(hits - 1, population, k, drawn) > tail, least, most)
    high = most - first(lambda k: hypergeom.cdf(hits, population, most - k, drawn) > tail, 0, most - least)
    return low / population, high / population


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's rank correlation τ_b of two measures of the same things, in [−1, 1]; NaN where one is constant."""
    from scipy import stats  # half a second, which most of those who measure do without

    return float(stats.kendalltau(np.asarray(a), np.asarray(b)).statistic)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation ρ of two measures of the same things, in [−1, 1], ties averaged; NaN where one is constant."""
    from scipy import stats

    one, two = np.asarray(a), np.asarray(b)
    constant = min(len(np.unique(one)), len(np.unique(two))) < 2  # of which scipy would warn
    return float("nan") if constant else float(stats.spearmanr(one, two).statistic)


def area_under_curve(x: ArrayLike, y: ArrayLike) -> float:
    """Mean height of the curve y over x by the trapezoid rule, in y's unit; one point is its own height."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 and x[-1] > x[0] else float(y.mean())


def normalised_auc(auc: float, random: float, oracle: float) -> float | None:
    """(auc − random) / (oracle − random): 0 is the random order, 1 the oracle; None where the two bounds coincide."""
    return (auc - random) / (oracle - random) if oracle > random else None
