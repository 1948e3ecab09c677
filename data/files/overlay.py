"""Masks as a browser shows them: over their images, where two of them differ, and a number a pixel as a colour. Numpy alone.

Images are uint8 [n, h, w, C] of one channel or three, masks uint8 [n, h, w] as `data.masks` codes them; what is made is uint8
[n, h, w, 3]. An opacity is a share from 0, the image alone, to 1, the colours alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.files.preview import Pixels
from data.masks import BACKGROUND, VOID, colours

Codes = NDArray[np.uint8]
HATCHED, HATCH = (160, 160, 160), 5  # grey; pixels from one line to the next
WRONG = (213, 94, 0)  # vermillion (Okabe & Ito 2008)
DIMMED = 0.6  # of the image's light, where colours alone are to catch the eye
# Cividis at equal steps: even in lightness, and alike for all who see colours (Nuñez, Anderton & Renslow 2018)
STOPS = (
    *(
        (0, 32, 76),
        (0, 42, 102),
        (0, 52, 110),
        (39, 63, 108),
        (60, 74, 107),
        (76, 85, 107),
        (91, 95, 109),
        (104, 106, 112),
    ),
    *((117, 117, 117), (131, 129, 120), (146, 140, 120), (161, 152, 118), (176, 165, 114), (192, 178, 109)),
    *((209, 191, 102), (225, 204, 92), (243, 219, 79), (255, 233, 69)),
)


def overlay(images: Pixels, masks: Codes, class_names: Sequence[str], opacity: float) -> Pixels:
    """Each pixel mixed with the colour of its class. A background is left as it is; what is unknown of a mask is
    hatched in grey."""
    table = np.full((256, 3), HATCHED, dtype=np.uint16)
    table[: len(class_names)] = colours(len(class_names))
    coloured = np.zeros(256, dtype=np.bool_)
    coloured[: len(class_names)] = [name != BACKGROUND for name in class_names]
    where = coloured[masks]
    unknown = masks == VOID
    unknown &= ~unknown.all(axis=(1, 2), keepdims=True)  # an image without a mask has nothing that could be missed
    if unknown.any():
        down, across = (np.arange(n) for n in masks.shape[1:])
        where |= unknown & ((down[:, None] + across) % HATCH == 0)
    return _mixed(_rgb(images), table[masks], where, opacity)


def differing(images: Pixels, one: Codes, other: Codes, opacity: float) -> Pixels:
    """The image without its colours, and in vermillion the pixels that both masks know and say differently."""
    known = (one != VOID) & (other != VOID)
    colour = np.broadcast_to(np.array(WRONG, dtype=np.uint16), (*one.shape, 3))
    return _mixed(_grey(images), colour, known & (one != other), opacity)


def heat(values: NDArray[np.uint8]) -> Pixels:
    """Values from 0, dark blue, to 255, yellow, in the colours of Cividis."""
    at = np.linspace(0, 255, len(STOPS))
    table = np.stack([np.interp(np.arange(256), at, channel) for channel in np.transpose(STOPS)], axis=1)
    return np.asarray(np.rint(table).astype(np.uint8)[values])


def resized(masks: Codes, height: int, width: int) -> Codes:
    """Masks at another size, each pixel the nearest of theirs."""
    if masks.shape[1:] == (height, width):
        return masks
    down, across = (
        np.minimum(((np.arange(n) + 0.5) * old / n).astype(np.int64), old - 1)
        for n, old in ((height, masks.shape[1]), (width, masks.shape[2]))
    )
    return np.asarray(masks[:, down[:, None], across[None, :]])


def _mixed(images: Pixels, colour: NDArray[np.uint16], where: NDArray[np.bool_], opacity: float) -> Pixels:
    share = round(256 * opacity)
    mixed = (images.astype(np.uint16) * (256 - share) + colour * share) >> 8
    return np.where(where[..., None], mixed, images).astype(np.uint8)


def _rgb(images: Pixels) -> Pixels:
    return np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[3] == 1 else images


def _grey(images: Pixels) -> Pixels:
    light = images.mean(axis=3, keepdims=True, dtype=np.float32) * DIMMED
    return _rgb(light.astype(np.uint8))
