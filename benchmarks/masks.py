"""Where labels are masks: gradient norms of U-Nets, memory of a pass over many images, and pictures of masks over images."""

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.gradient_norms import FLOOR, LOOP, OURS, Case, compare, peak
from core.engine.maps import MaskScorer
from core.models import architectures
from core.models.batches import Images, pick_device
from core.models.forward import place
from core.store.cache import ScoreCache
from data.files import overlay

SIDES, N_CLASSES = (96, 128), 11  # of CamVid in our data
SHOWN, TURNS = 100, 7
POOLS = (1_000, 10_000)


def measure() -> None:
    """Print all three."""
    for width in (8, 16, 32):
        for channels_last in (True, False):
            case = Case(
                f"U-Net, width {width}", SIDES[0], 8, pick_device().type, width=SIDES[1], channels_last=channels_last
            )
            compare(case, [FLOOR, OURS, LOOP])
    overlays()
    for n in POOLS:
        alone = multiprocessing.get_context("spawn").Process(target=memory, args=(n,))  # its peak is its own
        alone.start()
        alone.join()


def overlays() -> None:
    """As many masks over their images as a gallery shows at a time."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (SHOWN, *SIDES, 3), dtype=np.uint8)
    codes = random.integers(0, N_CLASSES, (SHOWN, *SIDES), dtype=np.uint8)
    names, spent = [f"class {k}" for k in range(N_CLASSES)], []
    for _ in range(TURNS):
        began = time.perf_counter()
        overlay.overlay(images, codes, names, 0.5)
        spent.append(time.perf_counter() - began)
    print(f"{SHOWN} overlays of {SIDES[0]} × {SIDES[1]}: {1000 * statistics.median(spent):.0f} ms")


def memory(n: int) -> None:
    """What a pass over n images takes beyond them: posteriors, then gradient norms of the entropy."""
    device = pick_device()
    pool = np.random.default_rng(0).integers(0, 256, (n, *SIDES, 3), dtype=np.uint8)
    images = Images(pool, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25), device)
    model = place(architectures.build("small-unet", 3, N_CLASSES, 8, seed=0).eval(), device)
    with tempfile.TemporaryDirectory() as folder:
        scorer = MaskScorer(model, None, images, "made", ScoreCache(Path(folder)), lambda done: None)
        before, began = peak(device), time.perf_counter()
        for _ in scorer.maps(images, np.arange(n)):
            pass
        posteriors = time.perf_counter() - began
        scorer.gradient_norms(np.arange(n), "entropy", "sum")
        norms = time.perf_counter() - began - posteriors
    print(
        f"U-Net, width 8, {n:,} images of {SIDES[0]} × {SIDES[1]}: posteriors {posteriors:.0f} s, gradient norms {norms:.0f} s, "
        f"{(peak(device) - before) / 2**20:.0f} MiB beyond the images ({pool.nbytes / 2**20:.0f} MiB)",
        flush=True,
    )
