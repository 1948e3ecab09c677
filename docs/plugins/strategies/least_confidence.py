"""Least confidence: Lewis & Gale, "A sequential algorithm for training text classifiers", SIGIR 1994."""

from core.described import VERMILLION
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − p₁ in [0, 1], [n]: the most probable class has little probability."""
    return 1 - pool.probs().max(axis=1)


STRATEGY = Strategy(
    name="least-confidence",
    title="Least confidence (1 − p₁)",
    formula="1 − p₁",
    higher="the most probable class has little probability",
    values="in [0, 1]",
    reference="Lewis & Gale 1994",
    score=score,
    needs="posterior",
    colour=VERMILLION,
    symbol="octagon",
)
