"""Random sampling: the baseline that every strategy has to beat."""

import numpy as np

from core.described import VERMILLION
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Uniform in [0, 1), [n]."""
    return np.random.default_rng(pool.seed).random(len(pool))


STRATEGY = Strategy(
    name="random",
    title="Random",
    formula="u ~ U[0, 1)",
    higher="drawn first; no information: the lower bound",
    answers=("class", "mask"),
    score=score,
    needs="nothing",
    colour=VERMILLION,
    symbol="x",
    dash="dot",
    place=0,
)
