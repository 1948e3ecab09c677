"""Margin sampling: Scheffer, Decomain, Wrobel, "Active hidden Markov models for information extraction", 2001."""

from core import scores
from core.described import ORANGE
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − (p₁ − p₂) in [0, 1], [n]: the two most probable classes are close."""
    return scores.margin(pool.probs())


STRATEGY = Strategy(
    name="margin",
    title="Margin (1 − gap)",
    formula="1 − (p₁ − p₂)",
    higher="two classes are close",
    values="in [0, 1]",
    reference="Scheffer et al. 2001",
    score=score,
    needs="posterior",
    colour=ORANGE,
    symbol="triangle-up",
    place=10,
)
