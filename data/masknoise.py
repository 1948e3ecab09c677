"""Noise in masks: right masks in, masks out in which some regions are wrong as annotators' are.

A *region* is a connected region of one class in a right mask (`data.masks.numbered`). The noise rate is the probability with
which a region is affected, each independently: in expectation the share of affected regions. Wrong pixels are no such measure,
for they follow from the sizes: borders that are a few pixels off reach a few per cent of an image at most. The largest region of
an image, on which the others lie, is not affected itself; it gains and loses pixels where others do.

Unknown pixels stay unknown, and no others become so. Every random number is a function of (seed, place of the mask in the pool,
region), so that any part of a pool is the same by itself.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import UserError
from data.masks import MadeMasks, narrowed, numbered
from data.votes import uniforms

KINDS = {  # and what is wrong by each
    "mixed": "shifted borders, swapped classes and dropped objects, each as likely",
    "shifted-borders": "a region is grown, shrunk or moved by one to three pixels",
    "swapped-classes": "a region has any other class, each as likely",
    "dropped-objects": "a region has the class around it",
}
FAR = 3  # pixels that a border is off, at most
WAYS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]  # down and to the right
AFFECTED = 2**33  # where the numbers of regions begin, beyond those of `data.votes`; each region has `NUMBERS` of them
NUMBERS = 8
Mask = NDArray[np.int64]  # [H, W], -1 for unknown
Bits = NDArray[np.bool_]


def inject(kind: str, masks: Any, n_classes: int, noise: float, seed: int) -> MadeMasks:
    """Masks [N, H, W] in which each region is wrong with probability `noise`, by one of `KINDS`; made when they are read.

    masks: int64 [N, H, W], an array or `data.lazy.LazyMasks`, at their places in the pool. Raises `UserError` for another kind,
    and for a rate outside [0, 1].
    """
    if kind not in KINDS:
        raise UserError(f"there is no noise {kind!r} of masks; choose from {', '.join(KINDS)}")
    if not 0 <= noise <= 1:
        raise UserError(f"the noise rate must lie between 0 and 1, got {noise:g}")

    def make(row: int) -> NDArray[np.uint8]:
        return narrowed(noisy(kind, np.asarray(masks[row]), n_classes, noise, seed, row)[None])[0]

    version = getattr(masks, "version", None) or hashlib.blake2b(np.ascontiguousarray(masks).tobytes()).hexdigest()
    name = repr(("noise", version, kind, noise, seed))
    return MadeMasks(make, masks.shape, n_classes, name, getattr(masks, "blank", None))


def noisy(kind: str, mask: Mask, n_classes: int, noise: float, seed: int, row: int) -> Mask:
    """The mask int64 [H, W] of one image with the noise of `inject`; row: its place in the pool."""
    numbers, classes = numbered(mask)
    found = mask.copy()
    if not len(classes):
        return found
    pixels = np.bincount(numbers.ravel(), minlength=len(classes) + 1)[1:]
    draws = AFFECTED + NUMBERS * np.arange(len(classes))[:, None] + np.arange(NUMBERS)
    u = uniforms(seed, np.array(row), draws)
    for region in np.flatnonzero(u[:, 0] < noise):
        if region != pixels.argmax():
            one = numbers == region + 1
            how = kind if kind != "mixed" else list(KINDS)[1 + int(u[region, 1] * 3)]
            if how == "swapped-classes":
                found[one] = (classes[region] + 1 + int(u[region, 2] * (n_classes - 1))) % n_classes
            elif (around := _around(mask, one)) >= 0:
                if how == "dropped-objects":
                    found[one] = around
                else:
                    _displaced(found, mask, one, int(classes[region]), around, u[region, 2:])
    return found


def _around(mask: Mask, one: Bits) -> int:
    """The class that most of the known pixels beside a region have, the first of several; -1 where none is known.

    Where all beside it are unknown, as along borders that nobody labelled, those farther off count, up to `FAR` pixels away.
    """
    for far in range(1, FAR + 1):
        ring = _grown(one, far) & ~one & (mask >= 0)
        if ring.any():
            return int(np.bincount(mask[ring]).argmax())
    return -1


def _displaced(found: Mask, mask: Mask, one: Bits, label: int, around: int, u: NDArray[np.float64]) -> None:
    """Draw a region grown, shrunk or moved into `found`; what it leaves gets the class around it.

    One that would vanish is grown instead. u: at least three uniform numbers.
    """
    way, far = int(u[0] * 3), 1 + int(u[1] * FAR)
    if way == 2:
        down, right = WAYS[int(u[2] * len(WAYS))]
        now = _moved(one, far * down, far * right) & (mask >= 0)
    else:
        now = ~_grown(~one, far) if way == 1 else one
    if way == 0 or not now.any():
        now = _grown(one, far) & (mask >= 0)
    found[one & ~now & (found == label)] = around
    found[now] = label


def _grown(one: Bits, far: int) -> Bits:
    """A region with all pixels that lie at most `far` from it, along rows, columns and diagonals."""
    height, width = one.shape
    for axis, size in ((0, height), (1, width)):
        wide = one.copy()
        for step in range(1, min(far, size - 1) + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            wide[tuple(ahead)] |= one[tuple(behind)]
            wide[tuple(behind)] |= one[tuple(ahead)]
        one = wide
    return one


def _moved(one: Bits, down: int, right: int) -> Bits:
    """A region moved by so many pixels; what leaves the image is lost."""
    y, x = np.nonzero(one)
    y, x = y + down, x + right
    inside = (y >= 0) & (y < one.shape[0]) & (x >= 0) & (x < one.shape[1])
    now = np.zeros_like(one)
    now[y[inside], x[inside]] = True
    return now
