"""Entropy of the posterior: the ambiguity term of Φ alone, which ranks no labels."""

from core.described import SKY
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """H(p) in [0, ln C] nats, [N]."""
    return it.entropy()


SCORE = LabelScore(
    name="entropy",
    title="Entropy",
    formula="H(p) = −Σ p ln p",
    higher="the model is unsure",
    values="nats in [0, ln C]",
    unit="nats",
    reference="Shannon 1948",
    answers=("class", "mask"),
    compute=compute,
    ranks=False,
    colour=SKY,
    symbol="hexagon-open",
    dash="dash",
    place=2,
)
