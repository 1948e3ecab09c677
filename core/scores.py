"""Scores of samples from posteriors and label counts: pure functions, float64, natural logarithms.

Classes stand on dimension 1; what follows them (pixels) is averaged, so that segmentation is the same code.
Every score is **high first**: the higher, the sooner the sample is taken.
"""

from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.errors import UserError

Array = NDArray[np.float64]

# The smallest normal float32: posteriors come from a float32 softmax, which underflows to 0 below it. Flooring
# there keeps a cross-entropy finite (at most 87.3 nats) without changing any order that float32 could tell apart.
FLOOR = float(np.finfo(np.float32).tiny)

# Of the passes behind BALD, for a score of labels and for a strategy
DROPOUT = 0.25  # before the head: the dense layers of the classifiers of Gal et al. 2017 have 0.25 to 0.5
PASSES = 50  # only the dropout before the head is drawn again, so that further passes are cheap


def check_probs(probs: ArrayLike) -> Array:
    """`probs` as float64 [N, C, …]. Raises `UserError` where a posterior is NaN, infinite or negative."""
    p = np.asarray(probs, dtype=np.float64)
    bad = ~np.isfinite(p) | (p < 0)
    if bad.any():
        refuse(np.asarray(bad.reshape(len(p), -1).any(axis=1)))
    return p


def refuse(rows: NDArray[np.bool_]) -> NoReturn:
    """Raise `UserError` for the samples, bool [N], whose posterior is none."""
    raise UserError(
        f"The posterior is not a probability (NaN, infinite or negative) for {rows.sum()} of {len(rows)} samples, "
        f"first at row {int(rows.argmax())}: training probably diverged; lower the learning rate and run again."
    )


def total_votes(label_counts: ArrayLike) -> Array:
    """Number of votes of each sample, [N, C, …] → [N, 1, …]. Raises `UserError` on a sample without any vote."""
    total = np.asarray(label_counts).sum(axis=1, keepdims=True, dtype=np.float64)
    if not (total > 0).all():
        raise UserError(
            f"Sample at row {int((total <= 0).argmax())} has no annotation at all: remove it or label it first."
        )
    return np.asarray(total)


def distribution(label_counts: ArrayLike) -> Array:
    """Counts normalised per sample, [N, C, …] → [N, C, …]. Raises `UserError` on a sample without any vote."""
    return np.asarray(label_counts, dtype=np.float64) / total_votes(label_counts)


def _matching(probs: ArrayLike, label_counts: ArrayLike) -> tuple[Array, Array]:
    p, q = check_probs(probs), distribution(label_counts)
    if p.shape != q.shape:
        raise UserError(
            f"Label counts of shape {q.shape} do not fit a posterior of shape {p.shape}: "
            "give one row of counts a sample, one column a class."
        )
    return p, q


def _mean_rest(values: Array) -> Array:
    return values.reshape(len(values), -1).mean(axis=1)


def _log(p: Array) -> Array:
    floored = np.maximum(p, FLOOR)
    return np.log(floored, out=floored)


def _expected_surprise(weights: Array, log_p: Array) -> Array:
    """−Σ w ln p, the classes summed: [N, C, …] → [N]."""
    return _mean_rest(-(weights * log_p).sum(axis=1))


def entropy(probs: ArrayLike) -> Array:
    """Entropy H(p) = −Σ p ln p in nats, [N, C, …] → [N]; 0 · ln 0 = 0. Raises `UserError` on NaN."""
    p = check_probs(probs)
    return _expected_surprise(p, _log(p))


def cross_entropy(label_counts: ArrayLike, probs: ArrayLike) -> Array:
    """Cross-entropy −Σ l̂ ln p of the label histogram against the posterior in nats, both [N, C, …] → [N].

    Counts are normalised per sample; p is floored at 1.2e-38. Raises `UserError` on NaN, a row without votes or
    shapes that do not match. Bernhardt et al. 2022.
    """
    p, q = _matching(probs, label_counts)
    return _expected_surprise(q, _log(p))


def cleaning_score(label_counts: ArrayLike, probs: ArrayLike, gamma: float = 0.0) -> Array:
    """Φ = CE(l̂, p) − max(H(p) − γ·ln C, 0) in nats, [N, C, …] → [N]; high = likely a wrong, clear label.

    `gamma` lies on the base-C scale, in [0, 1]: 0 is Eq. 2 of Bernhardt et al. 2022, 0.30 their public code. Raises as
    `cross_entropy` does.
    """
    p, q = _matching(probs, label_counts)
    log_p = _log(p)  # most of the time goes into the logarithms: take them once for both terms
    ambiguity = np.maximum(_expected_surprise(p, log_p) - gamma * np.log(p.shape[1]), 0.0)
    return _expected_surprise(q, log_p) - ambiguity


def self_confidence(labels: ArrayLike, probs: ArrayLike, label_counts: ArrayLike | None = None) -> Array:
    """1 − p[label] in [0, 1], labels int [N] and probs [N, C] → [N]; high = suspicious (cleanlab sorts p, low first).

    A label below 0 is a tie, which `label_counts` [N, C] are needed for: p is then the mean over the classes that tie, so
    that no order of annotators or classes decides.
    """
    p, given = check_probs(probs), np.asarray(labels)
    own = p[np.arange(len(p)), given]
    if label_counts is not None:
        counts = np.asarray(label_counts)
        own = np.where(given < 0, p.mean(axis=1, where=counts == counts.max(axis=1, keepdims=True)), own)
    return 1.0 - own


def normalised_margin(labels: ArrayLike, probs: ArrayLike) -> Array:
    """(p[label] − max of the other classes + 1) / 2 in [0, 1], labels int [N] and probs [N, C] → [N]; **low = suspicious**.

    The label quality score that cleanlab calls normalized_margin (Northcutt et al. 2021).
    """
    p, given = check_probs(probs), np.asarray(labels)
    rows = np.arange(len(p))
    others = p.copy()
    others[rows, given] = -np.inf
    return np.asarray((p[rows, given] - others.max(axis=1) + 1.0) / 2.0)


def margin(probs: ArrayLike) -> Array:
    """1 − (p₁ − p₂) of the two most probable classes in [0, 1], [N, C, …] → [N]; high = uncertain."""
    top = np.sort(check_probs(probs), axis=1)
    return _mean_rest(1.0 - (top[:, -1] - top[:, -2]))


def bald(probs: ArrayLike) -> Array:
    """Mutual information H[mean p] − mean H[p] in nats over S stochastic passes, [S, N, C] → [N]. Houlsby et al. 2011."""
    p = check_probs(probs)
    return entropy(p.mean(axis=0)) - np.mean([entropy(one) for one in p], axis=0)
