"""A tiny pool of masks, and runs that check them."""

from typing import Any

import numpy as np

from core.engine import loop
from core.runs import run, settle
from core.runs.run import Run
from core.runs.spec import Config
from data.dataset import ImageDataset

N = 12
CHECKS = {"task": "label-cleaning", "dataset": "garments", "method": "cleaning", "budget": 5, "cycles": 3}
TINY = {"model": "small-unet", "width": 4, "steps": 3, "batch_size": 4}
NOISE = {"noise": 0.4, "noise_kind": "mixed"}


def pool() -> ImageDataset:
    """Scenes [12, 12, 16] of four squares of 3 classes on background; brightness says the class, a pixel of each is void."""
    rng = np.random.default_rng(0)
    right = np.zeros((N, 12, 16), dtype=np.int64)
    for mask in right:
        for top, left in ((1, 1), (1, 9), (7, 2), (7, 10)):
            mask[top : top + 4, left : left + 4] = rng.integers(1, 4)
    images = (60 * right[..., None] + rng.integers(0, 30, (*right.shape, 3))).astype(np.uint8)
    right[:, 0, 7] = -1
    ids, names = [f"scene-{k:02d}" for k in range(N)], ["background", "a", "b", "c"]
    return ImageDataset("squares", ids, images, right, None, names, images[:4], right[:4], "none", "none")


def config(**changes: Any) -> Config:
    """Of a run that checks noisy masks."""
    return Config(**{**CHECKS, **TINY, **NOISE, **changes})


def made(dataset: ImageDataset, **changes: Any) -> Run:
    """A run that has not begun."""
    return run.create(settle.prepare(config(**changes), dataset), settle.about(dataset))


def worked(dataset: ImageDataset, **changes: Any) -> Run:
    """A run that has been worked off."""
    one = made(dataset, **changes)
    loop.work(one, dataset)
    return one
