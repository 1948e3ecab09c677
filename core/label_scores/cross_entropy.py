"""Cross-entropy of a label against the posterior: the noisiness term of Φ alone."""

from core.described import ORANGE
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """CE(l̂, p) ≥ 0 in nats, [N]."""
    return it.cross_entropy()


SCORE = LabelScore(
    name="cross-entropy",
    title="Cross-entropy",
    formula="CE(l̂, p)",
    higher="the model disagrees with the label",
    values="nats ≥ 0",
    unit="nats",
    reference="Bernhardt et al. 2022",
    answers=("class", "mask"),
    compute=compute,
    colour=ORANGE,
    place=1,
)
