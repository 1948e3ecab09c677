"""Random sampling: the baseline that every strategy has to beat."""

import numpy as np
from numpy.typing import NDArray

from core.strategies.pool import Pool


def score(pool: Pool) -> NDArray[np.float64]:
    """Uniform in [0, 1), [n]."""
    return np.random.default_rng(pool.seed).random(len(pool))
