"""The oracle of Bernhardt et al. 2022 (public code): the upper bound of every score of labels."""

from core.described import BLUE
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """(1 − q[majority]) / E[relabels] in [0, 1], [N]. Raises `UserError` where the true label distribution is not known."""
    return it.oracle()


SCORE = LabelScore(
    name="oracle",
    title="Oracle",
    formula="(1 − q[majority]) / E[relabels]",
    higher="likely wrong by the true label distribution q, and cheap to correct: the upper bound",
    values="in [0, 1]",
    reference="Bernhardt et al. 2022, public code",
    answers=("class", "mask"),
    compute=compute,
    bound=True,
    colour=BLUE,
    dash="dash",
    place=7,
)
