"""Margin sampling: Scheffer, Decomain, Wrobel, "Active hidden Markov models for information extraction", 2001."""

import numpy as np
from numpy.typing import NDArray

from core import scores
from core.strategies.pool import Pool


def score(pool: Pool) -> NDArray[np.float64]:
    """1 − (p₁ − p₂) in [0, 1], [n]: the two most probable classes are close."""
    return scores.margin(pool.probs())
