"""Learning loss: Yoo & Kweon, "Learning loss for active learning", CVPR 2019."""

from typing import TYPE_CHECKING

from core.described import PURPLE
from core.strategies import Floats, Pool, Strategy

if TYPE_CHECKING:
    from torch import nn


def score(pool: Pool) -> Floats:
    """Predicted loss, [n]; its order alone has a meaning."""
    return pool.companion()


def companion(stage_widths: tuple[int, ...]) -> "nn.Module":
    """A fresh module that predicts losses from the outputs of the model's stages."""
    from core.strategies._learning_loss import LossPrediction

    return LossPrediction(stage_widths)


STRATEGY = Strategy(
    name="ll4al",
    title="Learning loss",
    formula="predicted CE",
    higher="a large loss is predicted",
    values="its order alone counts",
    reference="Yoo & Kweon 2019",
    answers=("class", "mask"),
    score=score,
    trained=True,
    companion=companion,
    colour=PURPLE,
    symbol="diamond-open",
    dash="dash",
    place=4,
)
