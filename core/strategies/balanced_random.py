"""Class-balanced random sampling: random images, of the classes in turn that have the fewest labels. A control."""

import numpy as np

from core.described import VERMILLION
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """Place in the order of choice, from 1 down to 0, [n].

    Each choice draws an image with a probability in proportion to its share of the class that labels and earlier choices have
    least of. Classes that the model expects nowhere wait until it does.
    """
    generator, n, shares = np.random.default_rng(pool.seed), len(pool), pool.shares()
    if not np.isfinite(shares).all():
        return np.full(n, np.nan)  # training diverged, which whoever ranks says
    total, left = pool.labelled_shares().sum(axis=0), np.ones(n)
    order = np.empty(min(pool.budget, n), dtype=np.int64)
    for k in range(len(order)):
        expected = left @ shares
        rarest = int(np.where(expected > 0, total, np.inf).argmin())
        weight = left * shares[:, rarest]
        order[k] = generator.choice(n, p=weight / weight.sum())
        total, left[order[k]] = total + shares[order[k]], 0.0
    rest = generator.permutation(np.setdiff1d(np.arange(n), order))
    found = np.empty(n)
    found[np.concatenate([order, rest])] = np.linspace(1.0, 0.0, n)
    return found


STRATEGY = Strategy(
    name="balanced-random",
    title="Class-balanced random",
    formula="u ~ p(rarest class)",
    higher="drawn first, of the class with the fewest labels; nothing about how sure the model is",
    answers=("mask",),
    score=score,
    needs="posterior",
    colour=VERMILLION,
    symbol="x-open",
    dash="dashdot",
    place=14,
)
