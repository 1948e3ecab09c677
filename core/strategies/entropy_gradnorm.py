"""Entropy-gradnorm: Wang et al., "Boosting active learning via improving test performance", AAAI 2022, Eq. 7."""

from core.described import GREEN
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """‖∇θ H(p)‖ ≥ 0 over all parameters, [n]: the entropy of the posterior as the loss."""
    return pool.gradient_norms("entropy")


STRATEGY = Strategy(
    name="entropy-gradnorm",
    title="Entropy gradient norm",
    formula="‖∇θ H(p)‖",
    higher="would change the model most",
    values="≥ 0. It vanishes for a confident posterior, and for a uniform one, too",
    reference="Wang et al. 2022, Eq. 7",
    options=("reduction",),
    answers=("class", "mask"),
    score=score,
    loss="entropy",
    colour=GREEN,
    place=7,
)
