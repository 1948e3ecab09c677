"""The oracle of Bernhardt et al. 2022 (public code): the upper bound of every score of labels."""

import numpy as np

from core import relabel
from core.described import BLUE
from core.label_scores import Labelled, LabelScore
from core.scores import Array
from data.errors import UserError


def compute(it: Labelled) -> Array:
    """(1 − q[majority]) / E[relabels] in [0, 1], [N]. Raises `UserError` where the true label distribution is not known."""
    if it.counts is None:
        raise UserError("The oracle needs to know the true labels, which this data set does not: choose another score.")
    return relabel.Oracle(it.counts)[np.arange(len(it.labels)), it.labels]


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
