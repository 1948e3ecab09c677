"""BADGE: Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR 2020."""

from typing import TYPE_CHECKING

import numpy as np

from core.described import BLUE
from core.strategies import Floats, Pool, Strategy

if TYPE_CHECKING:
    from torch import Tensor


def score(pool: Pool) -> Floats:
    """K, K − 1, … 1 in the order of choice and 0 for all others, [n].

    The choice is k-means++ seeding on gradient embeddings g = (p − e_ŷ) ⊗ h, the gradient of the head's weights for
    the suggested label ŷ.
    """
    import torch

    h = pool.embeddings().double()
    p = torch.from_numpy(pool.probs()).to(h.device)
    a = p - torch.nn.functional.one_hot(p.argmax(dim=1), p.shape[1])
    chosen = kmeans_plus_plus(a, h, pool.budget, np.random.default_rng(pool.seed))
    found = np.zeros(len(pool))
    found[chosen] = len(chosen) - np.arange(len(chosen))
    return found


def kmeans_plus_plus(a: "Tensor", h: "Tensor", k: int, rng: np.random.Generator) -> list[int]:
    """Positions of at most k of the n products a ⊗ h (a [n, C], h [n, D]), drawn by squared distance to those before.

    The first has the largest norm. The products are never formed: ‖a⊗h − b⊗g‖² = |a|²|h|² + |b|²|g|² − 2 (a·b)(h·g).
    Ends early where all that is left lies on a chosen point.
    """
    import torch

    squares = a.square().sum(dim=1) * h.square().sum(dim=1)
    chosen = [int(squares.argmax())]
    distance = torch.full_like(squares, torch.inf)
    while len(chosen) < min(k, len(a)):
        last = chosen[-1]
        to_last = squares + squares[last] - 2 * (a @ a[last]) * (h @ h[last])
        distance = torch.minimum(distance, to_last.clamp_min_(0))
        distance[last] = 0.0
        upto = distance.cumsum(dim=0)
        if not float(upto[-1]) > 0:
            break
        drawn = int(torch.searchsorted(upto, float(rng.random() * upto[-1]), right=True))
        if drawn >= len(a) or drawn in chosen:  # rounding put the draw on a point of no weight
            drawn = int(distance.argmax())
        chosen.append(drawn)
    return chosen


STRATEGY = Strategy(
    name="badge",
    title="BADGE",
    formula="K − place",
    higher="chosen early by k-means++ on gradient embeddings (p − e_ŷ) ⊗ h",
    values="0 for those not chosen",
    reference="Ash et al. 2020",
    score=score,
    needs="embeddings",
    colour=BLUE,
    symbol="star",
    place=9,
)
