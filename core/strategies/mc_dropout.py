"""MC-dropout: Gal & Ghahramani, ICML 2016, with the BALD score of Gal, Islam & Ghahramani, ICML 2017."""

from core import scores
from core.strategies.pool import Floats, Pool, Strategy

DROPOUT = (
    0.25  # before the head: the rate of the dense layers in the classifiers of Gal et al. 2017 lies at 0.25 to 0.5
)
PASSES = 50  # only the head is drawn anew, so that further passes cost next to nothing


def score(pool: Pool) -> Floats:
    """Mutual information between label and dropped weights in [0, ln C] nats, [n]."""
    return scores.bald(pool.mc_probs(PASSES))


STRATEGY = Strategy(score, dropout=DROPOUT)
