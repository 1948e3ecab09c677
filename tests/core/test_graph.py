"""Label diffusion, against dense matrices, and what it finds."""

import numpy as np
import pytest

from core import graph
from core.scores import cleaning_score
from data.errors import UserError
from data.votes import random_order


def dense(x, histogram, k, alpha):
    """The same by loops and a dense inverse: a sample's fold is withheld, then its row of the solution is taken."""
    n = len(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    w = np.zeros((n, n))
    for i in range(n):
        for j in np.argsort(-cosine[i])[:k]:
            w[i, j] = max(cosine[i, j], 0) ** 3
    w = np.maximum(w, w.T)
    d = w.sum(axis=1)
    inverse = np.linalg.inv(np.eye(n) - alpha * w / np.sqrt(np.outer(d, d)))
    fold_of = np.empty(n, int)
    fold_of[random_order(n, seed=0)] = np.arange(n) % graph.FOLDS
    found = np.empty(histogram.shape)
    for i in range(n):
        y = histogram / np.maximum(histogram.sum(axis=1, keepdims=True), 1)
        y[fold_of == fold_of[i]] = 0
        found[i] = inverse[i] @ y
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("k", "alpha"), [(3, 0.5), (8, 0.9), (100, 0.9)])
def test_it_solves_the_diffusion_without_a_samples_own_label(k, alpha):
    rng = np.random.default_rng(0)
    x, histogram = rng.normal(size=(60, 5)) + 1, rng.integers(0, 3, (60, 4))
    np.testing.assert_allclose(
        graph.diffuse(x, histogram, k=k, alpha=alpha), dense(x, histogram, min(k, 59), alpha), atol=1e-4
    )


def test_wrong_labels_among_neighbours_score_highest():
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    x = 4 * np.eye(3)[truth] + rng.normal(size=(300, 3)) * 0.3
    labels = truth.copy()
    labels[:15] = (labels[:15] + 1) % 3
    votes = np.eye(3, dtype=int)[labels]
    score = cleaning_score(votes, graph.diffuse(x, votes, k=10))
    assert set(np.argsort(-score)[:15]) == set(range(15))


def test_where_no_label_reaches_all_classes_are_as_likely():
    assert graph.diffuse(np.eye(4), np.zeros((4, 2), int)).tolist() == [[0.5, 0.5]] * 4


def test_identical_embeddings_give_the_share_of_labels():
    votes = np.eye(2, dtype=int)[[0] * 30 + [1] * 10]
    found = graph.diffuse(np.ones((40, 3)), votes, k=39)
    assert found[:, 0] == pytest.approx(0.75, abs=0.05)


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="not finite"):
        graph.diffuse(np.full((5, 2), np.nan), np.ones((5, 2), int))


def test_a_single_sample_has_no_neighbour():
    assert graph.diffuse(np.ones((1, 2)), np.ones((1, 4), int)).tolist() == [[0.25] * 4]
