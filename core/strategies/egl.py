"""Expected gradient length: Settles & Craven, "An analysis of active learning strategies for sequence labeling", 2008."""

from core.strategies.pool import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Σ_y p_y ‖∇θ CE(·, y)‖ ≥ 0 over all parameters, [n]: an expectation of norms, K backward passes."""
    return pool.gradient_norms("egl")


STRATEGY = Strategy(score, loss="egl")
