"""Core-set: Sener & Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018."""

from typing import TYPE_CHECKING

import numpy as np

from core.described import BLUE
from core.strategies import Floats, Pool, Strategy

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1024  # samples kept up to date at a time
ROWS = 4096  # of a distance matrix held at once


def score(pool: Pool) -> Floats:
    """Distance in embedding space to the nearest labelled or earlier chosen sample, ≥ 0, [n]: k-centre greedy.

    The K chosen ones have the distance at which each was chosen, which falls from one to the next; the others what is
    left to them, at most the last of these.
    """
    chosen, squared = k_centre_greedy(pool.embeddings(), pool.labelled_embeddings(), pool.budget)
    found = np.sqrt(squared.double().cpu().numpy())
    found[chosen[::-1]] = np.maximum.accumulate(found[chosen[::-1]])  # rounding must not undo the order of choice
    return found


def k_centre_greedy(x: "Tensor", centres: "Tensor", k: int) -> "tuple[np.ndarray, Tensor]":
    """Choose k of the points x [n, D], each the farthest from `centres` [m, D] and those chosen before.

    Returns (positions [k] in order, squared distance [n] to the nearest centre: of the chosen at their choice). Exact.
    A distance only falls as centres are added, so an old one is an upper bound: only the `BLOCK` largest are kept up to
    date, and the rest are looked at again when the best of the block falls below them.
    """
    import torch

    n, k = len(x), min(k, len(x))
    norms = x.square().sum(dim=1)
    bound = x.new_full((n,), torch.inf)
    for start in range(0, n, ROWS):
        bound[start : start + ROWS] = _squared(x[start : start + ROWS], centres).amin(dim=1)
    fresh = torch.zeros(n, dtype=torch.long, device=x.device)  # how many of the chosen each bound accounts for
    taken = torch.zeros(n, dtype=torch.bool, device=x.device)
    at_choice = x.new_zeros(n)
    chosen: list[int] = []
    while len(chosen) < k:
        open_bound = bound.masked_fill(taken, -torch.inf)
        top = open_bound.topk(min(BLOCK + 1, n))
        block = top.indices[:BLOCK]
        rest = float(top.values[BLOCK]) if n > BLOCK else -torch.inf
        since = int(fresh[block].min())
        if since < len(chosen):
            new = x[torch.tensor(chosen[since:], device=x.device)]
            bound[block] = torch.minimum(bound[block], _squared(x[block], new).amin(dim=1))
        points, best = x[block], bound[block].masked_fill(taken[block], -torch.inf)
        while len(chosen) < k:
            at = int(best.argmax())
            value = float(best[at])
            if value < rest or value == -torch.inf:
                break
            row = int(block[at])
            chosen.append(row)
            taken[row], at_choice[row] = True, value
            best = torch.minimum(best, norms[block] + norms[row] - 2 * points @ x[row]).clamp_min_(0)
            best[taken[block]] = -torch.inf
        bound[block], fresh[block] = best, len(chosen)
    left = torch.tensor(chosen, device=x.device)
    stale = (fresh < len(chosen)) & ~taken
    if bool(stale.any()):
        rows = stale.nonzero()[:, 0]
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            bound[part] = torch.minimum(bound[part], _squared(x[part], x[left]).amin(dim=1))
    return np.asarray(chosen, dtype=np.int64), torch.where(taken, at_choice, bound)


def _squared(a: "Tensor", b: "Tensor") -> "Tensor":
    """Squared distances [len(a), len(b)]; infinite where b is empty."""
    if len(b) == 0:
        return a.new_full((len(a), 1), np.inf)
    return (a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T).clamp_min_(0)


STRATEGY = Strategy(
    name="core-set",
    title="Core-set",
    formula="min_c ‖h − h_c‖",
    higher="far from every labelled or earlier chosen sample c in embedding space",
    values="≥ 0",
    reference="Sener & Savarese 2018",
    answers=("class", "mask"),
    score=score,
    needs="embeddings",
    colour=BLUE,
    symbol="triangle-down-open",
    dash="dash",
    place=2,
)
