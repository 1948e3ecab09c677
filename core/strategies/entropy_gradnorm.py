"""Entropy-gradnorm: Wang et al., "Boosting active learning via improving test performance", AAAI 2022, Eq. 7."""

from core.strategies.pool import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """‖∇θ H(p)‖ ≥ 0 over all parameters, [n]: the entropy of the posterior as the loss."""
    return pool.gradient_norms("entropy")


STRATEGY = Strategy(score, loss="entropy")
