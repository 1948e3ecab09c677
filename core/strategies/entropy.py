"""Entropy sampling: Shannon 1948; Settles, "Active learning literature survey", 2009. The control of the gradient norms."""

from core.described import SKY
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Entropy of the posterior in [0, ln C] nats, [n]; of a mask the mean over its pixels."""
    return pool.entropy()


STRATEGY = Strategy(
    name="entropy",
    title="Entropy",
    formula="H(p) = −Σ p ln p",
    higher="the model is unsure",
    values="nats in [0, ln C]",
    unit="nats",
    reference="Shannon 1948; Settles 2009",
    answers=("class", "mask"),
    score=score,
    needs="posterior",
    colour=SKY,
    symbol="hexagon-open",
    dash="dash",
    place=11,
)
