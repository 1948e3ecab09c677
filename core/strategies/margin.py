"""Margin sampling: Scheffer, Decomain, Wrobel, "Active hidden Markov models for information extraction", 2001."""

from core.described import ORANGE
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − (p₁ − p₂) in [0, 1], [n]: the two most probable classes are close; of a mask the mean over its pixels."""
    return pool.margin()


STRATEGY = Strategy(
    name="margin",
    title="Margin (1 − gap)",
    formula="1 − (p₁ − p₂)",
    higher="two classes are close",
    values="in [0, 1]",
    reference="Scheffer et al. 2001",
    answers=("class", "mask"),
    score=score,
    needs="posterior",
    colour=ORANGE,
    symbol="triangle-up",
    place=10,
)
