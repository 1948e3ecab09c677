"""Expected influence: a control of ours, after Eq. 3 of Wang et al. 2022, before the label is known.

The gradient norm bounds it; it is what the bound was derived for. Of signed Eq. 2 the expectation over the predicted labels is
zero for every sample, since Σ_y p_y ∇CE(·, y) = 0.
"""

from core.described import BLUE
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Σ_y p_y |(1/l) Σ_j ∇L(x_j)ᵀ H⁻¹ ∇CE(·, y)| ≥ 0 in nats, [n]: an expectation of absolute values."""
    return pool.expected_influence()


STRATEGY = Strategy(
    name="expected-influence",
    title="Expected influence",
    formula="Σ p_y |(1/n) Σ_j ∇L(x_j)ᵀ H⁻¹ ∇CE(·, y)|",
    higher="a label would change the loss on held-out labels most, for better or worse",
    values="≥ 0. x_j: a fifth of the initial labels, which the second model that scores has not learnt",
    unit="nats",
    reference="ours, after Wang et al. 2022, Eq. 3",
    options=("damping",),
    score=score,
    trained=True,
    validation=0.2,
    colour=BLUE,
    symbol="hexagram",
    dash="dot",
    place=13,
)
