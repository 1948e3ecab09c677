"""The score of active label cleaning: Bernhardt et al., Nature Communications 2022, Eq. 2."""

from core.described import GREEN
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """Φ = CE(l̂, p) − max(H(p) − γ·ln C, 0) in nats, [N]."""
    return it.cleaning_score()


SCORE = LabelScore(
    name="cleaning",
    title="Cleaning score Φ",
    formula="CE(l̂, p) − H(p)",
    higher="likely a wrong label on a clear image",
    values="nats. γ > 0 replaces H by max(H − γ·ln C, 0), the public code's form",
    unit="nats",
    reference="Bernhardt et al. 2022, Eq. 2",
    options=("gamma",),
    answers=("class", "mask"),
    compute=compute,
    colour=GREEN,
    place=0,
)
