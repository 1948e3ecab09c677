"""MC-dropout: Gal & Ghahramani, ICML 2016, with the BALD score of Gal, Islam & Ghahramani, ICML 2017."""

from core import scores
from core.described import GREY
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Mutual information between label and dropped weights in [0, ln C] nats, [n]; of a mask the mean over its pixels."""
    return pool.bald(scores.PASSES)


STRATEGY = Strategy(
    name="mc-dropout",
    title="MC-dropout (BALD)",
    formula="H[mean p] − mean H[p]",
    higher="passes with dropout are each sure, and disagree",
    values="in [0, ln C]",
    reference="Gal et al. 2016, 2017",
    answers=("class", "mask"),
    score=score,
    dropout=scores.DROPOUT,
    colour=GREY,
    symbol="cross",
    place=1,
)
