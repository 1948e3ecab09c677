"""Near duplicates and outliers, against what was put there."""

import numpy as np
import pytest

from core import neighbours
from data.errors import UserError


@pytest.fixture(scope="module")
def embedded():
    """300 points of a cloud; 3 pairs and one triple of near copies; 2 points far from all."""
    rng = np.random.default_rng(0)
    cloud = np.concatenate([rng.normal(size=(300, 8)) * 0.2 + 1, -np.ones((2, 8)) + rng.normal(size=(2, 8))])
    copies = cloud[[0, 1, 2, 3, 3]] + rng.normal(size=(5, 8)) * 1e-4
    return np.concatenate([cloud, copies])


def test_neighbours_are_those_of_the_slow_way(embedded):
    distance, neighbour = neighbours.nearest(embedded, 5)
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    slow = 1 - unit @ unit.T
    np.fill_diagonal(slow, np.inf)
    np.testing.assert_allclose(distance, np.sort(slow, axis=1)[:, :5], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(slow, neighbour, axis=1), distance, atol=1e-6)


def test_near_copies_are_grouped_by_their_first_member_and_nothing_else_is(embedded):
    group = neighbours.near_duplicates(*neighbours.nearest(embedded))
    assert {name: np.flatnonzero(group == name).tolist() for name in range(1, group.max() + 1)} == {
        1: [0, 302],
        2: [1, 303],
        3: [2, 304],
        4: [3, 305, 306],
    }


def test_equal_embeddings_are_near_duplicates_also_where_all_come_in_pairs():
    x = np.random.default_rng(1).normal(size=(20, 4))
    group = neighbours.near_duplicates(*neighbours.nearest(np.concatenate([x, x])))
    assert group.tolist() == [*range(1, 21), *range(1, 21)]


def test_what_lies_far_from_all_is_an_outlier(embedded):
    score = neighbours.outlier_score(neighbours.nearest(embedded)[0])
    assert set(np.argsort(-score)[:2]) == {300, 301}
    assert (score[[300, 301]] > neighbours.OUTLIER).all()
    assert (score > neighbours.OUTLIER).mean() < 0.05


def test_one_sample_has_no_neighbour():
    distance, neighbour = neighbours.nearest(np.ones((1, 3)))
    assert distance.shape == neighbour.shape == (1, 0)
    assert neighbours.near_duplicates(distance, neighbour).tolist() == [0]
    assert neighbours.outlier_score(distance).tolist() == [1.0]


def test_embeddings_that_are_not_finite_are_said():
    with pytest.raises(UserError, match="not finite"):
        neighbours.nearest(np.array([[1.0, np.nan], [0.0, 1.0]]))
