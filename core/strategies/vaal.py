"""VAAL: Sinha, Ebrahimi & Darrell, "Variational adversarial active learning", ICCV 2019."""

from core.described import ORANGE
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − D(z(x)) in [0, 1], [n]: looks unlike the labelled images to the discriminator. The model is not asked."""
    from core.strategies._adversarial import unfamiliarity

    return unfamiliarity(pool)


STRATEGY = Strategy(
    name="vaal",
    title="VAAL",
    formula="1 − D(z)",
    higher="looks unlike the labelled images to a discriminator",
    values="in [0, 1]",
    reference="Sinha et al. 2019",
    score=score,
    trained=True,
    colour=ORANGE,
    symbol="pentagon-open",
    dash="dash",
    place=3,
)
