"""Acquisition strategies: which samples to label next.

One a file, each a function `score(pool) -> float64 [n]`, high first, over the n unlabelled samples. A strategy asks
its `Pool` for what it needs; the engine knows none by name.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from core.strategies import egl, entropy_gradnorm, expected_gradnorm, margin, random
from core.strategies.pool import Pool

STRATEGIES: dict[str, Callable[[Pool], NDArray[np.float64]]] = {
    "random": random.score,
    "expected-gradnorm": expected_gradnorm.score,
    "entropy-gradnorm": entropy_gradnorm.score,
    "egl": egl.score,
    "margin": margin.score,
}
