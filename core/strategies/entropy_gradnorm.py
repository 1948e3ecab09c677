"""Entropy-gradnorm: Wang et al., "Boosting active learning via improving test performance", AAAI 2022, Eq. 7."""

import numpy as np
from numpy.typing import NDArray

from core.strategies.pool import Pool


def score(pool: Pool) -> NDArray[np.float64]:
    """‖∇θ H(p)‖ ≥ 0 over all parameters, [n]: the entropy of the posterior as the loss."""
    return pool.gradient_norms("entropy")
