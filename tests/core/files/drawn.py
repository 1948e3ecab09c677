"""A run whose labels are masks, made by hand: eight images of a folder of one's own, some with masks that came with them."""

from pathlib import Path

import numpy as np
from PIL import Image

import data
from core.runs import run, settle
from core.runs.run import GIVEN, PERSON, Run
from core.runs.spec import Config
from data.masks import VOID

NAMES = ["a b", "a.b", "deep/ä", "o, p", "q", "r", "s", "t"]
CLASSES = ["sky", 'road, <wet> & "dry"', "tree"]
HEIGHT, WIDTH = 12, 16


def mask(seed: int, void: float = 0.2) -> np.ndarray:
    """Blocks and single pixels of three classes and of none, uint8 [12, 16]."""
    random = np.random.default_rng(seed)
    codes = np.kron(random.integers(0, 3, (4, 4)), np.ones((3, 4), int)).astype(np.uint8)
    codes[random.random(codes.shape) < 0.1] = 1
    codes[random.random(codes.shape) < void] = VOID
    return codes


def folder(root: Path, sides: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Images of these sides below `images`, and a mask of the first, which a folder needs."""
    for seed, name in enumerate(NAMES):
        for part, pixels in (
            ("images", np.random.default_rng(seed).integers(0, 256, (*sides, 3), np.uint8)),
            ("masks", np.asarray(Image.fromarray(mask(seed)).resize(sides[::-1], Image.Resampling.NEAREST))),
        ):
            if part == "images" or seed == 0:
                (root / part / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / part / f"{name}.png")
    (root / "classes.csv").write_text("value,name\n0,sky\n" + '1,"road, <wet> & ""dry"""\n2,tree\n')
    return root


def a_run(root: Path, **options: object) -> tuple[Run, data.ImageDataset]:
    """A run that people label: masks of the first three came with the data, and ann has drawn over the second and the fourth."""
    pool = data.load("masks", root, test_share=0, **options)
    config = Config(
        "active-learning", "masks", "margin", 2, 1, root=str(root), test_share=0.0, annotator="person", initial=3
    )
    one = run.create(config, settle.about(pool) | {"answer": "mask"})
    given = [one.masks.add(mask(seed)) for seed in range(3)]
    one.log.append(0, pool.ids[:3], np.zeros(3, np.int64), [GIVEN] * 3, 0.0, given)
    drawn = [one.masks.add(mask(10 + seed, 0.5)) for seed in range(2)]
    one.log.append(1, [pool.ids[1], pool.ids[3]], np.zeros(2, np.int64), [PERSON + "ann"] * 2, 0.0, drawn)
    return one, pool


def codes(one: Run, pool: data.ImageDataset) -> np.ndarray:
    """The masks that stand, int64 [N, H, W]."""
    return np.asarray(one.standing(pool))
