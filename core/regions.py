"""Checking the regions of masks one after the other: in which order, for which budget, and what it gains. Pure, float64.

A region is a connected region of one class (`core.masks.regions`). Checking it replaces its pixels by the right ones, where these
are known. A budget counts regions, each a label, or their pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core import masks, metrics
from core.masks import VOID, Ints
from core.scores import Array
from data.masks import numbered
from data.votes import random_order

Unit = Literal["labels", "pixels"]
"""What a budget counts: regions, each of which costs the same, or their pixels."""


@dataclass(frozen=True)
class Tally:
    """The regions of N masks, one row each, and how many of their pixels are wrong.

    image, number: the row of the mask and the region's number there (`core.masks.number`), int [R] · pixels: int [R] · wrong:
    those whose class is not the right one, int [R]; pixels whose right class is not known are neither · right, known: pixels
    of all masks that are right, and that have a right class.
    """

    image: Ints
    number: Ints
    pixels: Ints
    wrong: Ints
    right: int
    known: int

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def correctness(self) -> float:
        """Share of the known pixels that are right, in [0, 1]; NaN where none is known."""
        return self.right / self.known if self.known else float("nan")


def table(
    rows: Ints, given: NDArray[Any], probs: NDArray[Any], reference: NDArray[Any] | None, covered: NDArray[np.bool_]
) -> pd.DataFrame:
    """The connected regions of the masks of n images, one row each, by image and number.

    rows: numbers of the images, [n] · given: their masks [n, H, W] · probs: posteriors [n, C, H, W] · reference: right masks
    [n, H, W], or None · covered: pixels that annotators have given, bool [n, H, W]. Columns: image, region (its number), label,
    pixels, top, left, bottom, right; cross_entropy, ambiguity (CE and H, means over the pixels in nats); wrong (share of the
    pixels with a right class that have another one, NaN where there is none); checked (whether all pixels that can be answered
    are covered: those with a right class, or all where none is known). Raises as `core.masks.regions`.
    """
    found = masks.regions(given, probs)
    wrong, known, open_ = (np.zeros(len(found)) for _ in range(3))
    for k in range(len(rows)):
        of, here = masks.number(given[k]), found.image == k
        right = given[k] if reference is None else reference[k]
        has = right != VOID
        for count, which in ((wrong, has & (given[k] != right)), (known, has), (open_, has & ~covered[k])):
            count[here] = np.bincount(of[which], minlength=int(here.sum()) + 1)[1:]
    share = np.divide(wrong, known, out=np.full(len(found), np.nan), where=(known > 0) & (reference is not None))
    return pd.DataFrame(
        {
            "image": rows[found.image],
            "region": found.number,
            "label": found.label,
            "pixels": found.pixels,
            **dict(zip(("top", "left", "bottom", "right"), found.box.T, strict=True)),
            "cross_entropy": found.cross_entropy,
            "ambiguity": found.entropy,
            "wrong": share,
            "checked": open_ == 0,
        }
    )


def tally(given: Any, reference: Any) -> Tally:
    """Count the regions of masks int [N, H, W], −1 void, against the right ones, of the same shape; both may be lazy.

    Pixels that are void in a mask and known in the reference are not right.
    """
    image, number, pixels, wrong = [], [], [], []
    right = known = 0
    for row in range(len(given)):
        mask, truth = np.asarray(given[row]), np.asarray(reference[row])
        numbers, classes = numbered(mask)
        off = (mask != truth) & (truth != VOID)
        image.append(np.full(len(classes), row))
        number.append(np.arange(1, len(classes) + 1))
        pixels.append(np.bincount(numbers.ravel(), minlength=len(classes) + 1)[1:])
        wrong.append(np.bincount(numbers[off], minlength=len(classes) + 1)[1:])
        here = int((truth != VOID).sum())
        right, known = right + here - int(off.sum()), known + here
    every = [np.concatenate([np.empty(0, dtype=np.int64), *part]) for part in (image, number, pixels, wrong)]
    return Tally(every[0], every[1], every[2], every[3], right, known)


def priority(score: ArrayLike, pixels: ArrayLike, unit: Unit) -> Array:
    """What regions are taken by, high first, [R]: their mean score, times their pixels where each costs the same.

    score: mean over the pixels of each, float [R]. The gain of a region is that of its pixels together.
    """
    mean = np.asarray(score, dtype=np.float64)
    return mean if unit == "pixels" else mean * np.asarray(pixels)


def affordable(pixels: ArrayLike, budget: int, unit: Unit) -> int:
    """How many of the regions, or images, that come in this order a budget pays for; pixels: int [n] of each.

    Of a budget in pixels the first one that does not fit ends it; a very first one is taken all the same, or a large one would
    hold everything up.
    """
    cost = np.asarray(pixels)
    if unit == "labels":
        return min(budget, len(cost))
    fits = int(np.searchsorted(np.cumsum(cost), budget, side="right"))
    return max(fits, min(1, len(cost))) if budget > 0 else 0


def images(budget: int, unit: Unit, shape: tuple[int, ...]) -> int:
    """How many images [N, H, W, …] a budget pays for: of one in pixels those that fit with all their pixels, at least one."""
    return budget if unit == "labels" else max(1, budget // (shape[1] * shape[2]))


def oracle(it: Tally, unit: Unit) -> Ints:
    """The best order of the regions, int [R]: most wrong pixels first, or by their share where a budget counts pixels."""
    share = it.wrong / np.maximum(it.pixels, 1)
    return np.argsort(-priority(share, it.pixels, unit), kind="stable")


def curve(it: Tally, order: ArrayLike, unit: Unit) -> tuple[Array, Array]:
    """Cost and share of right pixels after 0 … T checked regions, [T + 1] each; order: T of the rows of a tally."""
    rows = np.asarray(order, dtype=np.int64)
    cost = np.ones(len(rows)) if unit == "labels" else it.pixels[rows].astype(np.float64)
    gained = np.concatenate([[0], np.cumsum(it.wrong[rows])])
    return np.concatenate([[0.0], np.cumsum(cost)]), (it.right + gained) / max(1, it.known)


def at(x: Array, y: Array, cost: ArrayLike) -> Array:
    """The height of a curve at these costs; between two checks on the line that joins them, after the last its height."""
    return np.interp(np.asarray(cost, dtype=np.float64), x, y)


def area(x: Array, y: Array, end: float, unit: Unit) -> float:
    """Mean height of a curve from 0 to `end`, in y's unit: the AUC.

    Of regions over 0 … end checked ones, as with classes; of pixels by the trapezoid rule.
    """
    if unit == "labels":
        return float(at(x, y, np.arange(round(end) + 1)).mean())
    cost = np.union1d(x[x < end], [end])
    return metrics.area_under_curve(cost, at(x, y, cost))


def random(it: Tally, unit: Unit, seeds: Iterable[int]) -> list[tuple[Array, Array]]:
    """`curve` of random orders of all regions, one for each seed."""
    return [curve(it, random_order(len(it), seed), unit) for seed in seeds]


def bounds(it: Tally, end: float, unit: Unit, seeds: Iterable[int]) -> tuple[float, float]:
    """AUC of the random order, mean over the seeds, and of the oracle, over the same costs."""
    chance = [area(x, y, end, unit) for x, y in random(it, unit, seeds)]
    return float(np.mean(chance)), area(*curve(it, oracle(it, unit), unit), end, unit)
