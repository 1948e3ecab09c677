"""What a method says of itself beside its name: what its values mean, and how figures draw it."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data.catalogue import Description
from data.dataset import Answer
from data.errors import UserError

# Okabe & Ito (2008): told apart with every common form of colour blindness
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, YELLOW, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#F0E442",
    "#7F7F7F",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOL = re.compile(
    r"(circle|square|diamond|cross|x|triangle-(up|down|left|right)|pentagon|hexagon|octagon|star|hexagram)(-open)?"
)
# Of a table of samples: what is no score, and no score may be called
COLUMNS = (
    "sample-id",
    "row",
    "rank",
    "label",
    "given",
    "suggested",
    "confidence",
    "status",
    "kind",
    "outcome",
    "reference",
    "labelled",
    "iou",
    "pixel-accuracy",
)


@dataclass(frozen=True, kw_only=True)
class Method(Description):
    """A method that figures draw, the same way everywhere. Raises `ValueError` for a look that plotly does not know."""

    answers: tuple[Answer, ...] = ("class",)
    """The kinds of labels that it takes; a run of any other refuses it."""
    colour: str = GREY
    """#RRGGBB; yellow and black are lost on one of the two backgrounds."""
    symbol: str = "circle"
    dash: str = "solid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch("#[0-9A-Fa-f]{6}", self.colour):
            raise ValueError(f"the colour {self.colour!r} must be #RRGGBB, such as those of core.described")
        if not SYMBOL.fullmatch(self.symbol) or self.dash not in DASHES:
            raise ValueError(f"there is no symbol {self.symbol!r} or no dash {self.dash!r} in core.described")


@dataclass(frozen=True, kw_only=True)
class Score(Method):
    """A column of a ranking: one number a sample. Every score is high first: the higher, the sooner the sample is taken."""

    formula: str
    higher: str
    """What a high value says of a sample."""
    values: str = ""
    """Their range, and whatever else is to be known of them."""
    unit: str = ""

    @property
    def meaning(self) -> str:
        """Direction and range, for captions."""
        return "; ".join(filter(None, [f"high: {self.higher}", self.values]))

    def checked(self, values: ArrayLike, n: int) -> NDArray[np.float64]:
        """What it computed for n samples, as float64 [n]. Raises `UserError` where a plug-in computed anything else."""
        try:
            found = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            found = np.empty(())
        if found.shape != (n,):
            raise UserError(
                f'"{self.name}" did not return {n:,} numbers, one per sample: correct the file that defines it, then resume.'
            )
        return found
