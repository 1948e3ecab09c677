"""Scenes composed of Fashion-MNIST's garments, with masks: for segmentation without a download. Made when they are loaded.

A scene is 64 x 64 pixels, in colour: on a texture lie two to four garments, turned, scaled, mirrored, tinted and more or less in
contrast with what lies below; light and noise differ from scene to scene, and colour says nothing of the class. A later garment
covers an earlier one. The class of a pixel is that of the topmost garment there, which is where its image is brighter than a
threshold, else background; where one garment borders on another, it is unknown (-1).

Scenes of the pool are made of garments of Fashion-MNIST's pool, those of the test set of its test set; no garment is used twice.
All random numbers are hashes, and the arithmetic rounds alike on every machine: the same scenes everywhere, byte for byte.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.dataset import ImageDataset
from data.masks import VOID, ByteMasks
from data.sources import Source, fashion
from data.votes import random_order, uniforms

POOL, TEST, SIDE = 400, 200, 64
MOST = 4  # garments in a scene
THRESHOLD = 40.0  # of 255: what is brighter is garment
BLOCK = 100  # scenes composed at a time
CLASS_NAMES = ["background", *fashion.CLASS_NAMES]
LOOK, GARMENT, NOISE = 0, 1 << 10, 1 << 16  # where the numbers of these begin
Floats = NDArray[np.float64]


def load() -> ImageDataset:
    """Pool: 400 scenes, ids "garments-pool-000" …; 200 test scenes."""
    whole = fashion.load()
    images, masks = compose(np.asarray(whole.images)[..., 0], np.asarray(whole.labels), POOL, seed=0)
    test_images, test_masks = compose(
        np.asarray(whole.test_images)[..., 0], np.asarray(whole.test_labels), TEST, seed=1
    )
    return ImageDataset(
        name="garments",
        ids=[f"garments-pool-{i:03d}" for i in range(POOL)],
        images=images,
        labels=ByteMasks(masks, len(CLASS_NAMES)),
        label_counts=None,
        class_names=CLASS_NAMES,
        test_images=test_images,
        test_labels=ByteMasks(test_masks, len(CLASS_NAMES)),
        annotators="none",
        annotators_source="The masks follow from how the scenes were composed; no separate annotations.",
    )


def compose(
    garments: NDArray[np.uint8], labels: NDArray[np.int64], n: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """n scenes, uint8 [n,64,64,3], and their masks, uint8 [n,64,64]: 0 for background, label + 1, `VOID` for unknown.

    garments: grey on black, uint8 [G,28,28], at least four for each scene · labels: [G].
    """
    order = random_order(len(garments), seed)[: MOST * n].reshape(n, MOST)
    blocks = [
        _scenes(garments, labels, order, np.arange(n)[start : start + BLOCK], seed) for start in range(0, n, BLOCK)
    ]
    images, masks = zip(*blocks, strict=True)
    return np.concatenate(images), np.concatenate(masks)


def _scenes(
    garments: NDArray[np.uint8],
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    scenes: NDArray[np.int64],
    seed: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    def drawn(start: int, *shape: int) -> Floats:
        """Uniform numbers [scenes, *shape]."""
        number = start + np.arange(int(np.prod(shape)))
        return uniforms(seed, scenes[:, None], number[None]).reshape(len(scenes), *shape)

    look = drawn(LOOK, 16)
    coarse, fine = _texture(drawn(LOOK + 16, 4, 4)), _texture(drawn(LOOK + 32, 12, 12))
    blend = (0.6 * coarse + 0.4 * fine)[..., None]
    below, above = 20 + 130 * look[:, None, None, 0:3], 20 + 130 * look[:, None, None, 3:6]
    picture = below + (above - below) * blend
    count = 2 + np.floor(3 * look[:, 6]).astype(np.int64)
    owner = np.zeros((len(scenes), SIDE, SIDE), np.int64)  # which garment a pixel shows, counted from 1
    mask = np.zeros((len(scenes), SIDE, SIDE), np.uint8)
    for k in range(MOST):
        grey = _placed(garments[order[scenes, k]], drawn(GARMENT + 32 * k, 5))
        shown = (grey >= THRESHOLD) & (k < count)[:, None, None]
        style = drawn(GARMENT + 32 * k + 8, 4)[:, None, None]
        tint, contrast = 140 + 115 * style[..., :3], 0.6 + 0.4 * style[..., 3:]
        painted = contrast * (0.3 + 0.7 * (grey / 255)[..., None]) * tint + (1 - contrast) * picture
        picture = np.where(shown[..., None], painted, picture)
        owner = np.where(shown, k + 1, owner)
        mask = np.where(shown, (labels[order[scenes, k]] + 1).astype(np.uint8)[:, None, None], mask)
    noise = drawn(NOISE, 2, SIDE, SIDE)
    amount = (4 + 20 * look[:, 7])[:, None, None]
    light = (0.7 + 0.4 * look[:, 8])[:, None, None]
    picture = light[..., None] * picture + (amount * (noise[:, 0] + noise[:, 1] - 1))[..., None]
    mask[_borders(owner)] = VOID
    return np.clip(np.floor(picture + 0.5), 0, 255).astype(np.uint8), mask


def _texture(grid: Floats) -> Floats:
    """Values [n,g,g] between which there are smooth transitions, [n,64,64]."""
    at = np.arange(SIDE) * ((grid.shape[1] - 1) / SIDE)
    low = np.floor(at).astype(np.int64)
    share = at - low
    rows = grid[:, low] + (grid[:, low + 1] - grid[:, low]) * share[:, None]
    return rows[:, :, low] + (rows[:, :, low + 1] - rows[:, :, low]) * share


def _placed(garments: NDArray[np.uint8], u: Floats) -> Floats:
    """Garments [n,28,28] somewhere in scenes, [n,64,64], by five numbers each: place, scale, angle, mirrored or not."""
    x, y = 10 + 44 * u[:, 0], 10 + 44 * u[:, 1]
    scale = 0.9 + 0.5 * u[:, 2]
    # The tangent of half the angle, which is at most 12 degrees: sines are not rounded alike everywhere
    half = 0.2 * u[:, 3] - 0.1
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    mirrored = np.where(u[:, 4] < 0.5, -1.0, 1.0)
    across = np.arange(SIDE)[None, None, :] - x[:, None, None]
    down = np.arange(SIDE)[None, :, None] - y[:, None, None]
    cosine, sine, scale, mirrored = (part[:, None, None] for part in (cosine, sine, scale, mirrored))
    column = mirrored * (across * cosine + down * sine) / scale + 13.5
    row = (down * cosine - across * sine) / scale + 13.5
    padded = np.pad(garments, ((0, 0), (1, 2), (1, 2))).astype(np.float64)  # black around
    row, column = np.clip(row + 1, 0, 29), np.clip(column + 1, 0, 29)
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    i = np.arange(len(garments))[:, None, None]

    def between(a: Any, b: Any, share: Floats) -> Floats:
        return a + (b - a) * share

    upper = between(padded[i, top, left], padded[i, top, left + 1], column - left)
    lower = between(padded[i, top + 1, left], padded[i, top + 1, left + 1], column - left)
    return between(upper, lower, row - top)


def _borders(owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels of a garment that lie beside, above or below one of another."""
    border = np.zeros(owner.shape, np.bool_)
    for axis in (1, 2):
        here, there = np.moveaxis(owner, axis, 0)[:-1], np.moveaxis(owner, axis, 0)[1:]
        meet = (here != there) & (here > 0) & (there > 0)
        view = np.moveaxis(border, axis, 0)
        view[:-1] |= meet
        view[1:] |= meet
    return border


SOURCE = Source(
    name="garments",
    title="Garments: 400 scenes composed of Fashion-MNIST's garments, with masks of 10 classes and background, built in",
    reference="Xiao et al. 2017",
    load=lambda root: load(),
    answer="mask",
    n_images=POOL,
    place=10,
)
