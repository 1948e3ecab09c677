"""Expected gradient length: Settles & Craven, "An analysis of active learning strategies for sequence labeling", 2008."""

import numpy as np
from numpy.typing import NDArray

from core.strategies.pool import Pool


def score(pool: Pool) -> NDArray[np.float64]:
    """Σ_y p_y ‖∇θ CE(·, y)‖ ≥ 0 over all parameters, [n]: an expectation of norms, K backward passes."""
    return pool.gradient_norms("egl")
