"""Random sampling: the baseline that every strategy has to beat."""

import numpy as np

from core.strategies.pool import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Uniform in [0, 1), [n]."""
    return np.random.default_rng(pool.seed).random(len(pool))


STRATEGY = Strategy(score)
