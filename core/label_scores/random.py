"""A random order: the lower bound of every score of labels."""

from core import relabel
from core.described import VERMILLION
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """Uniform in [0, 1), [N]."""
    return relabel.random_order(len(it), it.seed)


SCORE = LabelScore(
    name="random",
    title="Random",
    formula="u ~ U[0, 1)",
    higher="drawn first; no information: the lower bound",
    answers=("class", "mask"),
    per_pixel=False,
    compute=compute,
    bound=True,
    colour=VERMILLION,
    symbol="x",
    dash="dot",
    place=6,
)
