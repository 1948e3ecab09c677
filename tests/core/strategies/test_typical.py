"""TypiClust: typical samples of clusters that nobody has labelled."""

import numpy as np
import pytest
import torch

from core.strategies import typical

CENTRES = np.eye(6)[:4] * 10


class Pool:
    """Four groups of 40 points; the first two have a labelled one each. The first of a group is its centre."""

    seed, budget, n_labelled = 0, 2, 2

    def __init__(self):
        noise = np.random.default_rng(0).normal(size=(4, 40, 6)) * 0.5
        noise[:, 0] = 0
        self.x = torch.from_numpy((CENTRES[:, None] + noise).reshape(160, 6)).float()

    def __len__(self):
        return 160

    def embeddings(self):
        return self.x

    def labelled_embeddings(self):
        return torch.from_numpy(CENTRES[:2]).float() + 0.1


def test_the_centres_of_the_groups_without_a_label_come_first():
    found = typical.score(Pool())
    first = np.argsort(-found)[:2]
    assert sorted(first // 40) == [2, 3]
    # Typical: nearer to the centre than nine in ten of its group
    for row in first:
        group = Pool().x[row // 40 * 40 : row // 40 * 40 + 40].numpy()
        unit = group / np.linalg.norm(group, axis=1, keepdims=True)
        away = np.linalg.norm(unit - unit.mean(axis=0), axis=1)
        assert (away < away[row % 40]).mean() < 0.1


def test_those_chosen_have_their_place_and_the_others_less_than_one():
    found = typical.score(Pool())
    assert sorted(found)[-2:] == [1.0, 2.0]
    assert (np.sort(found)[:-2] < 1).all()


def test_typicality_is_one_over_the_mean_distance_to_the_neighbours():
    x = np.random.default_rng(1).normal(size=(30, 4))
    away = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 1:21].mean(axis=1)
    np.testing.assert_allclose(typical._typicality(x, x), 1 / (away + 1e-5), rtol=1e-6)


@pytest.mark.parametrize("budget", [1, 5, 158])
def test_so_many_are_chosen_as_are_asked_for(budget):
    pool = Pool()
    pool.budget = budget
    found = typical.score(pool)
    assert (found >= 1).sum() == budget
    assert sorted(found[found >= 1]) == list(range(1, budget + 1))
