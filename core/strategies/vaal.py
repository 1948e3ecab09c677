"""VAAL: Sinha, Ebrahimi & Darrell, "Variational adversarial active learning", ICCV 2019."""

from core.strategies.adversarial import unfamiliarity
from core.strategies.pool import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − D(z(x)) in [0, 1], [n]: looks unlike the labelled images to the discriminator. The model is not asked."""
    return unfamiliarity(pool)


STRATEGY = Strategy(score)
