"""Expected-gradnorm: Wang et al., "Boosting active learning via improving test performance", AAAI 2022, Eq. 6."""

from core.described import SKY
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """‖∇θ Σ p·CE‖ ≥ 0 over all parameters, [n]; p stays in the graph, which makes it the entropy term by term."""
    return pool.gradient_norms("expected")


STRATEGY = Strategy(
    name="expected-gradnorm",
    title="Expected gradient norm",
    formula="‖∇θ Σ p·CE‖",
    higher="would change the model most",
    values="≥ 0. With p attached to the graph it equals the entropy gradient norm",
    reference="Wang et al. 2022, Eq. 6",
    options=("reduction",),
    answers=("class", "mask"),
    score=score,
    loss="expected",
    colour=SKY,
    symbol="square",
    place=6,
)
