"""BALD over passes with dropout: Houlsby et al. 2011, as a score of labels in Bernhardt et al. 2022."""

from core.described import GREY
from core.label_scores import Labelled, LabelScore
from core.scores import Array

DROPOUT = 0.25  # before the head: the dense layers of the classifiers of Gal et al. 2017 have 0.25 to 0.5
PASSES = 50  # only the dropout before the head is drawn again, so that further passes are cheap


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
