"""Label diffusion against the dense inverse, and that no label speaks for itself."""

import numpy as np
import pytest

from core import graph, scores
from data.errors import UserError


def blobs(n, seed=0, n_classes=4, spread=1.5, noise=0.15):
    """Embeddings [n, 32] around one centre a class, the right labels, and given ones of which some are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    x = rng.standard_normal((n_classes, 32))[truth] + spread * rng.standard_normal((n, 32))
    given = np.where(rng.random(n) < noise, (truth + rng.integers(1, n_classes, n)) % n_classes, truth)
    return x, truth, given


def rows_to_one(f):
    return f / f.sum(axis=1, keepdims=True)


def plain_affinity(x, k):
    """Loops over pairs, in float64."""
    n = len(x)
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in x] for a in x]
    w = np.zeros((n, n))
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: -cosine[i][j])
        for j in others[:k]:
            w[i, j] = w[j, i] = max(cosine[i][j], 0) ** 3
    degree = w.sum(axis=1)
    return w / np.sqrt(degree[:, None] * degree)


def test_affinity_equals_the_loop_over_pairs():
    x, _, _ = blobs(60)
    found = graph.affinity(x.astype(np.float32), 7).toarray()
    np.testing.assert_allclose(found, plain_affinity(x, 7), atol=1e-5)


def test_conjugate_gradients_equal_the_dense_solution():
    x, _, given = blobs(80)
    s = graph.affinity(x.astype(np.float32), 7)
    system, right = np.eye(80) - 0.9 * s.toarray(), np.eye(4)[given]
    right[:, 3] = 0  # a class that nobody gave
    found = graph.conjugate_gradients(graph.sparse.csr_matrix(system), right)
    np.testing.assert_allclose(found, np.linalg.solve(system, right), atol=1e-5)


@pytest.mark.parametrize("spread", [0.5, 1.5, 3.0])
def test_is_close_to_withholding_each_label_alone(spread):
    """F_i less the part of its own label, by the dense inverse; left in, a label would speak for itself."""
    x, _, given = blobs(600, spread=spread)
    votes = np.eye(4, dtype=int)[given]
    inverse = np.linalg.inv(np.eye(600) - graph.ALPHA * graph.affinity(x.astype(np.float32), 30).toarray())
    alone = rows_to_one(inverse @ votes - np.diag(inverse)[:, None] * votes)
    found = graph.diffuse(x, votes)
    assert np.abs(found - alone).mean() < 0.008
    own = np.arange(600), given
    assert abs((found - alone)[own].mean()) < 0.005
    assert (rows_to_one(inverse @ votes) - alone)[own].mean() > 0.02


def test_the_label_of_a_sample_does_not_move_its_own_row():
    x, _, given = blobs(100)
    votes = np.eye(4, dtype=int)[given]
    before = graph.diffuse(x, votes, k=8)
    votes[17] = [0, 5, 0, 1]
    after = graph.diffuse(x, votes, k=8)
    np.testing.assert_allclose(after[17], before[17], atol=1e-5)
    assert np.abs(after - before).max() > 0.01


def test_wrong_labels_rank_first():
    x, truth, given = blobs(500, spread=0.8)
    votes = np.eye(4, dtype=int)[given]
    order = np.argsort(-scores.cleaning_score(votes, graph.diffuse(x, votes)))
    n_wrong = (given != truth).sum()
    assert (given != truth)[order[:n_wrong]].mean() > 0.95


def test_a_sample_that_no_label_reaches_gets_the_uniform_distribution():
    """Two groups at right angles: nobody labelled the second, and one label is alone in its group of three."""
    x = np.repeat(np.eye(3), [20, 20, 3], axis=0)
    votes = np.zeros((43, 2), dtype=int)
    votes[:20, 1], votes[40, 0] = 1, 1
    found = graph.diffuse(x, votes, k=2)
    np.testing.assert_allclose(found[:20], [[0, 1]] * 20, atol=1e-9)
    np.testing.assert_allclose(found[20:41], 0.5)
    np.testing.assert_allclose(found[41:], [[1, 0]] * 2, atol=1e-9)


def test_more_neighbours_than_samples_means_all_of_them():
    x, _, given = blobs(12)
    votes = np.eye(4, dtype=int)[given]
    np.testing.assert_array_equal(graph.diffuse(x, votes, k=50), graph.diffuse(x, votes, k=11))


@pytest.mark.parametrize(
    "x",
    [np.ones((40, 8)), np.zeros((40, 8)), np.random.default_rng(0).standard_normal((40, 1))],
    ids=["alike", "zero", "line"],
)
def test_embeddings_that_say_nothing_still_give_distributions(x):
    """All alike, all zero, and on a line."""
    found = graph.diffuse(x, np.eye(3, dtype=int)[np.arange(40) % 3], k=5)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_one_sample_has_no_neighbours():
    np.testing.assert_array_equal(graph.diffuse(np.ones((1, 4)), [[1, 0]]), [[0.5, 0.5]])


def test_embeddings_of_a_diverged_model_are_refused():
    x, _, given = blobs(20)
    x[3, 1] = np.nan
    with pytest.raises(UserError, match=r"not finite.*learning rate"):
        graph.diffuse(x, np.eye(4, dtype=int)[given])
