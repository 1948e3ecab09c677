"""BALD over passes with dropout: Houlsby et al. 2011, as a score of labels in Bernhardt et al. 2022."""

from core.described import GREY
from core.label_scores import Labelled, LabelScore
from core.scores import DROPOUT, PASSES, Array


def compute(it: Labelled) -> Array:
    """Mutual information between label and dropped weights in [0, ln C] nats, [N]."""
    return it.model.bald(PASSES)


SCORE = LabelScore(
    name="bald",
    title="BALD",
    formula="H[mean p] − mean H[p]",
    higher="passes with dropout are each sure, and disagree",
    values="nats in [0, ln C]. It does not look at the label",
    unit="nats",
    reference="Houlsby et al. 2011; Bernhardt et al. 2022",
    compute=compute,
    needs="model",
    dropout=DROPOUT,
    colour=GREY,
    place=4,
)
