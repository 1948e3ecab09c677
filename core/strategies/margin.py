"""Margin sampling: Scheffer, Decomain, Wrobel, "Active hidden Markov models for information extraction", 2001."""

from core import scores
from core.strategies.pool import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − (p₁ − p₂) in [0, 1], [n]: the two most probable classes are close."""
    return scores.margin(pool.probs())


STRATEGY = Strategy(score)
