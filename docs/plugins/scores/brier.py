"""Brier score of a label: Brier, "Verification of forecasts expressed in terms of probability", 1950."""

from core.described import SKY
from core.label_scores import Labelled, LabelScore
from core.scores import Array, distribution


def compute(it: Labelled) -> Array:
    """Σ (l̂ − p)² in [0, 2], [N]: squared distance between the votes' shares and the posterior."""
    return ((distribution(it.histogram) - it.probs) ** 2).sum(axis=1)


SCORE = LabelScore(
    name="brier",
    title="Brier score",
    formula="Σ (l̂ − p)²",
    higher="the model disagrees with the label",
    values="in [0, 2]",
    reference="Brier 1950",
    compute=compute,
    colour=SKY,
)
