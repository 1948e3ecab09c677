"""k-centre greedy against the obvious loop."""

import numpy as np
import pytest
import torch

from core.strategies import core_set


def obvious(x, centres, k):
    """Take the farthest from all centres; it is a centre from then on; repeat."""
    distance = torch.cdist(x, centres).square().amin(dim=1) if len(centres) else torch.full((len(x),), torch.inf)
    chosen, at_choice = [], []
    for _ in range(k):
        row = int(distance.argmax())
        chosen.append(row)
        at_choice.append(float(distance[row]))
        distance = torch.minimum(distance, (x - x[row]).square().sum(dim=1))
        distance[chosen] = -1.0
    return chosen, at_choice, distance


@pytest.mark.parametrize(("block", "rows"), [(1024, 4096), (7, 10), (1, 4096)])
@pytest.mark.parametrize("k", [1, 30, 200])
def test_it_is_exact_however_many_are_kept_up_to_date(monkeypatch, block, rows, k):
    monkeypatch.setattr(core_set, "BLOCK", block)
    monkeypatch.setattr(core_set, "ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    centres = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    chosen, at_choice, left = obvious(x, centres, k)
    found, squared = core_set.k_centre_greedy(x, centres, k)
    assert found.tolist() == chosen
    torch.testing.assert_close(
        squared[chosen].double(), torch.tensor(at_choice, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )
    others = np.setdiff1d(np.arange(200), chosen)
    torch.testing.assert_close(squared[others].double(), left[others], rtol=1e-5, atol=1e-5)


def test_no_centre_yet_and_equal_points():
    x = torch.tensor([[0.0], [0.0], [3.0], [0.0], [1.0]])
    found, _ = core_set.k_centre_greedy(x, torch.empty(0, 1), 5)
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert set(found[:3]) >= {2, 4}
