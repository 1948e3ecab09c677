"""A million image files listed, and photographs scored at the speed of the decoder and of the model."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import data
from data.files.encoded import Paths
from data.files.ondemand import OnDemand

ROOT = Path(__file__).resolve().parents[1]
MILLION, FOLDERS, REAL = 1_000_000, 100, 16
SIDE, SCORED, DIFFERENT, BATCH = 224, 768, 64, 64
SIZES = {"photographs of 640 × 480": (480, 640), "photographs of 12 megapixels": (3000, 4000)}


def measure() -> None:
    """Print how long a million files take to be listed, and in how much memory; and files scored per second."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        links(root / "million")
        code = f"from benchmarks import images; images.million({str(root / 'million')!r})"
        environment = {
            **os.environ,
            "NEXTLABEL_DATA": str(root / "cache"),
        }  # of a process of its own: no torch is in it
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
        for what, shape in SIZES.items():
            speeds(root / what, what, shape)


def links(root: Path) -> None:
    """An ImageFolder tree of a million links to a few photographs, which lie hidden in it."""
    photographs(root / ".real", (480, 640), REAL)
    for folder in range(FOLDERS):
        place = root / f"class-{folder % 10}" / f"{folder:03d}"
        place.mkdir(parents=True)
        for i in range(MILLION // FOLDERS):
            os.symlink(f"../../.real/{i % REAL}.jpg", place / f"image-{i:05d}.jpg")


def photographs(root: Path, shape: tuple[int, int], n: int) -> None:
    """JPEG files as large as photographs of this height and width: smooth parts, edges and some noise."""
    root.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(n):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
        image += random.integers(-12, 13, (*shape, 1), dtype=np.int16)
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(root / f"{i}.jpg", quality=88)


def million(folder: str) -> None:
    """Load the million, twice, and read some of them."""
    before = memory()
    for what in ("a million files listed and looked at", "again, from what was kept of the look"):
        pool, began, busy = None, time.perf_counter(), time.process_time()
        pool = data.load("folder", folder, on_demand=True)
        wall, cpu, n = time.perf_counter() - began, time.process_time() - busy, len(pool) + len(pool.test_labels)
        print(
            f"{what}: {n:,} in {wall:.1f} s, {cpu:.1f} s of CPU; resident {memory():,.0f} MB (before {before:,.0f} MB)"
        )
    assert pool is not None
    began = time.perf_counter()
    fingerprint = pool.fingerprint[:8]
    print(f"fingerprint {fingerprint} in {time.perf_counter() - began:.1f} s")
    rows = np.random.default_rng(0).choice(len(pool), 6_000, replace=False)
    for start in range(0, len(rows), 500):
        pool.images[rows[start : start + 500]]
    size = f"{pool.images.shape[2]} × {pool.images.shape[1]}"
    print(f"after {len(rows):,} were read at {size}: resident {memory():,.0f} MB, at most {memory('VmHWM'):,.0f} MB")


def memory(name: str = "VmRSS") -> float:
    """Megabytes of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def speeds(root: Path, what: str, shape: tuple[int, int]) -> None:
    """Print files per second: decoded, scored from memory, and both as a run does it."""
    import torch  # which the million is measured without

    from core.models.batches import Images
    from core.models.forward import place, predict
    from data.torchvision_import import torchvision

    photographs(root, shape, DIFFERENT)
    files = Paths(root, [f"{i % DIFFERENT}.jpg" for i in range(SCORED)], [root])
    rows, device = np.arange(SCORED), torch.device("cpu")
    half = torch.full((3, 1, 1), 0.5)

    def lazy() -> OnDemand:
        return OnDemand(files, (SIDE, SIDE, 3), memory=0)

    array = np.asarray(lazy())
    print(f"\n{what}, {SCORED:,} files at {SIDE} × {SIDE}, files per second:")
    decoded = rate(lambda: [lazy()[rows[start : start + BATCH]] for start in range(0, SCORED, BATCH)])
    print(f"  decoder alone, {os.cpu_count()} threads: {decoded:.0f}")
    for name in ("mobilenet_v3_small", "resnet18", "resnet50"):
        model = place(getattr(torchvision.models, name)(weights=None), device)
        scored = rate(lambda model=model: predict(model, Images(array, half, half, device), batch_size=BATCH))  # type: ignore[misc]
        both = rate(lambda model=model: predict(model, Images(lazy(), half, half, device), batch_size=BATCH))  # type: ignore[misc]
        alone = 1 / (1 / scored + 1 / decoded)
        print(f"  {name}: {scored:.0f} from memory, {both:.0f} from files ({alone:.0f} where one waits for the other)")


def rate(work: Callable[[], object]) -> float:
    """Files per second."""
    began = time.perf_counter()
    work()
    return SCORED / (time.perf_counter() - began)
