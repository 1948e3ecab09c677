"""Predicted probabilities of a model of the user's own, from a file: nothing is trained here."""

from core.described import SKY
from core.selectors import Selector

SELECTOR = Selector(
    name="imported",
    title="Predictions of your own model",
    trains=False,
    colour=SKY,
    dash="longdash",
    place=6,
)
