"""Expected-gradnorm: Wang et al., "Boosting active learning via improving test performance", AAAI 2022, Eq. 6."""

import numpy as np
from numpy.typing import NDArray

from core.strategies.pool import Pool


def score(pool: Pool) -> NDArray[np.float64]:
    """‖∇θ Σ p·CE‖ ≥ 0 over all parameters, [n]; p stays in the graph, which makes it the entropy term by term."""
    return pool.gradient_norms("expected")
