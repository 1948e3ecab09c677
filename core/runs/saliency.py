"""How much the mean entropy of a prediction depends on each pixel of one image: kept and read. Needs no torch.

`core.engine.explain` computes it; here is the file, `pixels-ROW.npy` in the folder of the cycle whose model was asked.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.runs.run import Run
from core.store.atomic import write_array
from data.dataset import ImageDataset


def file(run: Run, cycle: int, row: int) -> Path:
    """Where it is kept of the image in this row of the pool."""
    return run.cycle_path(cycle) / f"pixels-{row:06d}.npy"


def write(run: Run, cycle: int, row: int, found: NDArray[np.float32]) -> None:
    """Keep it, float32 [H, W]. Raises `UserError` where the folder cannot be written, and as `Run.check_work`."""
    run.check_work()
    write_array(file(run, cycle, row), found)


def read(run: Run, dataset: ImageDataset, cycle: int, row: int) -> NDArray[np.float32] | None:
    """What is kept of an image, float32 [H, W]; None where there is nothing, or no map of an image of this size."""
    try:
        found = np.load(file(run, cycle, row), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = found.shape == tuple(dataset.images.shape[1:3]) and found.dtype == np.float32 and np.isfinite(found).all()
    return np.asarray(found) if sound else None
