"""Expected gradient length: Settles & Craven, "An analysis of active learning strategies for sequence labeling", 2008."""

from core.described import PURPLE
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Σ_y p_y ‖∇θ CE(·, y)‖ ≥ 0 over all parameters, [n]: an expectation of norms, K backward passes."""
    return pool.gradient_norms("egl")


STRATEGY = Strategy(
    name="egl",
    title="Expected gradient length",
    formula="Σ p_y ‖∇θ CE(·, y)‖",
    higher="a label would change the model most",
    values="≥ 0",
    reference="Settles & Craven 2008",
    options=("reduction",),
    answers=("class", "mask"),
    score=score,
    loss="egl",
    colour=PURPLE,
    symbol="diamond",
    place=8,
)
