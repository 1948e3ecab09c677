"""A mask as a short text that travels to a browser and back: runs of equal pixels, two bytes each, in base64.

The pixels are taken row after row; a run says how many follow, less one, then their class; longer ones are split.
"""

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import UserError
from data.masks import VOID

LONGEST = 256  # pixels of a run
AGAIN = "nothing of it was saved; load the page again, and draw it once more"


def encode(codes: NDArray[np.uint8]) -> str:
    """A mask of at least one pixel in one byte a pixel, uint8 [H, W], as text."""
    flat = codes.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    parts = -(-lengths // LONGEST)
    pairs = np.empty((int(parts.sum()), 2), np.uint8)
    pairs[:, 0] = LONGEST - 1
    pairs[np.cumsum(parts) - 1, 0] = (lengths - 1) % LONGEST
    pairs[:, 1] = np.repeat(flat[starts], parts)
    return base64.b64encode(pairs.tobytes()).decode()


def decode(text: Any, height: int, width: int, n_classes: int) -> NDArray[np.uint8]:
    """The mask, uint8 [height, width], that `encode` wrote so; its size is checked before any memory is taken for it.

    Raises `UserError` for what is no such text, a mask of another size, and one with a class that is neither `VOID` nor below
    `n_classes`.
    """
    if not isinstance(text, str):
        raise UserError(f"The mask is not a text: {AGAIN}.")
    if len(text) > 4 * -(-2 * height * width // 3):  # a run for each pixel
        raise UserError(f"The mask is longer than one of {width} × {height} pixels can be: {AGAIN}.")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"The mask is damaged, it is no base64: {AGAIN}.") from error
    if len(content) % 2:
        raise UserError(f"The mask is damaged, its last run is cut off: {AGAIN}.")
    pairs = np.frombuffer(content, np.uint8).reshape(-1, 2)
    lengths = pairs[:, 0].astype(np.int64) + 1
    if lengths.sum() != height * width:
        raise UserError(
            f"The mask has {lengths.sum():,} pixels, and those of this data set {width} × {height}, which is "
            f"{height * width:,}: {AGAIN}."
        )
    unknown = pairs[(pairs[:, 1] >= n_classes) & (pairs[:, 1] != VOID), 1]
    if len(unknown):
        raise UserError(f"The mask has the class {unknown[0]}, and there are {n_classes}, counted from 0: {AGAIN}.")
    return np.repeat(pairs[:, 1], lengths).reshape(height, width)
