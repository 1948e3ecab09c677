"""Expected-gradnorm: Wang et al., "Boosting active learning via improving test performance", AAAI 2022, Eq. 6."""

from core.strategies.pool import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """‖∇θ Σ p·CE‖ ≥ 0 over all parameters, [n]; p stays in the graph, which makes it the entropy term by term."""
    return pool.gradient_norms("expected")


STRATEGY = Strategy(score, loss="expected")
