"""Scores of masks, of images and of their connected regions: pure functions, float64, natural logarithms.

Every score is **high first**, and a mean over the pixels of an image or region. Posteriors [N, C, H, W] may be of any float
type and lie in a memory map: a few images are taken at a time, so that a float64 copy stays within `CHUNK_BYTES`.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core import scores
from core.scores import Array
from data.errors import UserError
from data.masks import numbered

VOID = -1
"""The label of a pixel that has none."""
CHUNK_BYTES = 32 * 2**20  # of float64 posteriors at a time
Ints = NDArray[np.int64]
Masks = NDArray[Any]  # int [N, H, W]
Probs = NDArray[Any]  # float [N, C, H, W]


def entropy(probs: ArrayLike) -> Array:
    """Mean entropy of the pixels in nats, [N, C, H, W] → [N]. Raises `UserError` on NaN."""
    p = _checked(probs)
    return _joined(scores.entropy(p[part]) for part in _chunks(p))


def margin(probs: ArrayLike) -> Array:
    """Mean over the pixels of 1 − (p₁ − p₂) of the two most probable classes, [N, C, H, W] → [N]. Raises `UserError` on NaN."""
    p = _checked(probs)
    return _joined(scores.margin(p[part]) for part in _chunks(p))


def bald(passes: Iterable[ArrayLike]) -> Array:
    """Mean over the pixels of H[mean p] − mean H[p] in nats, S stochastic passes of [N, C, H, W] each → [N].

    Passes are taken one after the other: one and their sum are held at a time. Houlsby et al. 2011, of pixels Kendall et al. 2017
    (Bayesian SegNet). Raises `UserError` on NaN.
    """
    total, each, n = np.zeros(()), np.zeros(()), 0
    for one in passes:
        p = np.asarray(one)
        total, each, n = total + p.astype(np.float64), each + entropy(p), n + 1
    return entropy(total / n) - each / n


def cleaning_score(masks: ArrayLike, probs: ArrayLike, gamma: float = 0.0) -> Array:
    """Φ = CE − max(H − γ·ln C, 0) in nats, CE and H the means over the labelled pixels of an image; high = likely wrong, clear.

    masks: int [N, H, W], −1 void; probs: [N, C, H, W] → [N], NaN for an image without any label. `gamma` as in
    `core.scores.cleaning_score`; Eq. 2 of Bernhardt et al. 2022 with a mean over pixels. Raises `UserError` on NaN, shapes that
    do not match and labels out of range.
    """
    return difference(*terms(masks, probs), np.asarray(probs).shape[1], gamma)


def difference(cross_entropy: Array, entropy: Array, n_classes: int, gamma: float = 0.0) -> Array:
    """Φ of `cleaning_score` from its two terms, in nats."""
    return cross_entropy - np.maximum(entropy - gamma * math.log(n_classes), 0.0)


def terms(masks: ArrayLike, probs: ArrayLike) -> tuple[Array, Array]:
    """The two terms of `cleaning_score` in nats, CE and H, [N] each, means over the labelled pixels; raises the same."""
    masks, p = _matching(masks, probs)
    parts = [[_mean(values, masks[part] != VOID) for values in _terms(masks[part], p[part])] for part in _chunks(p)]
    return _joined(one for one, _ in parts), _joined(one for _, one in parts)


@dataclass(frozen=True)
class Regions:
    """Connected regions of one class in the masks of several images, one row each, by image and class.

    Regions touch at sides or corners (8-connectivity), as thin poles do that run obliquely.
    """

    image: Ints
    """Row of the mask, [R]."""
    number: Ints
    """That of `number`, [R]."""
    label: Ints
    """Class, [R]."""
    pixels: Ints
    """Their number, [R]."""
    box: Ints
    """Top, left, bottom, right, [R, 4]; bottom and right are the first row and column that lie outside."""
    cross_entropy: Array
    """CE over the pixels of the region, in nats, [R]."""
    entropy: Array
    """H over the same pixels, in nats, [R]."""

    def __len__(self) -> int:
        return len(self.image)

    def score(self, n_classes: int, gamma: float = 0.0) -> Array:
        """Φ of `cleaning_score` over the pixels of the region, in nats, [R]; high = likely wrong, clear."""
        return difference(self.cross_entropy, self.entropy, n_classes, gamma)


def regions(masks: ArrayLike, probs: ArrayLike) -> Regions:
    """The connected regions of masks int [N, H, W], −1 void, and what posteriors [N, C, H, W] say of them.

    `number` tells which pixels a region has. Raises as `cleaning_score`.
    """
    masks, p = _matching(masks, probs)
    rows = [_regions_of(masks[at : at + 1], p[at : at + 1]) for at in range(len(masks))]
    counts = [len(label) for label, *_ in rows]
    image = np.repeat(np.arange(len(rows)), counts)
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(1, n + 1) for n in counts)])
    label, pixels, box, surprise, ambiguity = (np.concatenate(part) for part in zip(*rows, strict=True))
    return Regions(image, numbers, label, pixels, box, surprise, ambiguity)


def number(mask: ArrayLike) -> Ints:
    """The region of each pixel of a mask int [H, W], int64 [H, W]: 0 void, then from 1 in the order of `regions`."""
    return _numbered(np.asarray(mask))[0]


def _regions_of(mask: Masks, p: Probs) -> tuple[Ints, Ints, Ints, Array, Array]:
    """Label, pixels, box, CE and H of the regions of one image, [1, H, W] and [1, C, H, W]."""
    numbers, label, box = _numbered(mask[0])
    of = numbers.ravel()
    pixels = np.bincount(of, minlength=len(label) + 1)[1:]
    surprise, ambiguity = (
        np.bincount(of, weights=values.ravel(), minlength=len(label) + 1)[1:] / pixels for values in _terms(mask, p)
    )
    return label, pixels, box, surprise, ambiguity


def _numbered(labels: Masks) -> tuple[Ints, Ints, Ints]:
    """Region of each pixel [H, W], from 1; classes [R] and boxes [R, 4] of the regions."""
    from scipy import ndimage

    numbers, classes = numbered(labels)
    boxes = [(y.start, x.start, y.stop, x.stop) for y, x in ndimage.find_objects(numbers)]
    return numbers, classes, np.array(boxes, dtype=np.int64).reshape(-1, 4)


def _terms(masks: Masks, probs: Probs) -> tuple[Array, Array]:
    """−ln p of the label and the entropy of every pixel, [N, H, W] each; where there is no label both are 0."""
    p, known = np.asarray(probs, dtype=np.float64), masks != VOID
    log_p = np.log(np.maximum(p, scores.FLOOR))
    own = np.take_along_axis(log_p, np.where(known, masks, 0).astype(np.int64)[:, None], axis=1)[:, 0]
    return np.where(known, -own, 0.0), np.where(known, -(p * log_p).sum(axis=1), 0.0)


def _mean(values: Array, known: NDArray[np.bool_]) -> Array:
    """Over the known pixels, [N, H, W] → [N]; NaN where there is none. What is not known is 0."""
    count = known.sum(axis=(1, 2))
    return np.divide(values.sum(axis=(1, 2)), count, out=np.full(len(count), np.nan), where=count > 0)


def _matching(masks: ArrayLike, probs: ArrayLike) -> tuple[Masks, Probs]:
    given, p = np.asarray(masks), _checked(probs)
    if given.shape != (len(p), *p.shape[2:]):
        raise UserError(
            f"Masks of shape {given.shape} do not fit a posterior of shape {p.shape}: give each image a mask [H, W], and a "
            "probability for each class and pixel."
        )
    if given.size and not (given.min() >= VOID and given.max() < p.shape[1]):
        raise UserError(
            f"Masks must hold classes from 0 to {p.shape[1] - 1}, or −1 where unknown, and these hold {given.min()} to "
            f"{given.max()}: correct them."
        )
    return given, p


def _checked(probs: ArrayLike) -> Probs:
    """Posteriors [N, C, H, W] as they are. Raises `UserError` where one is NaN, infinite or negative."""
    p = np.asarray(probs)
    bad = [(~np.isfinite(p[part]) | (p[part] < 0)).any(axis=(1, 2, 3)) for part in _chunks(p)]
    if any(part.any() for part in bad):
        scores.refuse(np.concatenate(bad))
    return p


def _chunks(probs: Probs) -> Iterator[slice]:
    """Images whose float64 posteriors are held at once."""
    size = max(1, CHUNK_BYTES // max(1, 8 * math.prod(probs.shape[1:])))
    return (slice(start, start + size) for start in range(0, len(probs), size))


def _joined(parts: Iterable[Array]) -> Array:
    return np.concatenate([np.empty(0), *parts])
