"""The comparison of a user's own model, on a part of CIFAR-10H: `rank` and a run against what is computed by hand."""

import numpy as np
import pytest

import data
from benchmarks import own_predictions


@pytest.mark.slow
def test_rank_and_a_run_are_what_is_computed_by_hand(tmp_path, real_data):
    dataset = data.load("cifar10h", real_data, size=5000)
    logits = np.random.default_rng(0).normal(size=(len(dataset), 10)) + 2.5 * np.eye(10)[dataset.labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = own_predictions.compare(tmp_path, dataset, probs.astype(np.float32), real_data).set_index("policy")
    order = table["auc"].sort_values().index.tolist()
    assert (order[0], order[-1]) == ("random", "oracle")
    assert (table["auc_normalised"].drop(["random", "oracle"]) > 0.2).all()


@pytest.mark.slow
def test_the_network_learns(real_data):
    some = data.load("cifar10", real_data, limit=200)
    model = own_predictions.train(np.asarray(some.images), some.labels, epochs=8)
    assert sum(p.numel() for p in model.parameters()) == 269_722  # He et al. 2016, Table 6: 0.27 M
    probs = own_predictions.predicted(model, np.asarray(some.images))
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert (probs.argmax(axis=1) == some.labels).mean() > 0.15
