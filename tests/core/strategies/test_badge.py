"""k-means++ on factored gradient embeddings against the embeddings themselves."""

import numpy as np
import torch

from core.strategies import badge


def test_it_draws_as_from_the_embeddings_themselves():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    h = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    g = torch.einsum("nc,nd->ncd", a, h).flatten(1)
    rng, chosen = np.random.default_rng(7), [int(g.norm(dim=1).argmax())]
    while len(chosen) < 15:
        distance = torch.cdist(g, g[chosen]).square().amin(dim=1)
        distance[chosen] = 0
        chosen.append(int(np.searchsorted(distance.cumsum(0).numpy(), rng.random() * float(distance.sum()))))
    assert badge.kmeans_plus_plus(a, h, 15, np.random.default_rng(7)) == chosen


def test_it_ends_where_all_that_is_left_is_chosen_already():
    a, h = torch.ones(6, 2, dtype=torch.float64), torch.ones(6, 3, dtype=torch.float64)
    assert badge.kmeans_plus_plus(a, h, 4, np.random.default_rng(0)) == [0]
