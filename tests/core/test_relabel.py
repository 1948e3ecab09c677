"""Algorithm 1 against a slow, plain implementation that collects one label at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import relabel
from data import votes
from data.errors import UserError


def one_label_at_a_time(counts, initial, policy, budget, seed):
    """Algorithm 1 as it is written, with loops and no array tricks; returns correctness after 0 … budget labels."""
    n, n_classes = counts.shape
    q = counts / counts.sum(axis=1, keepdims=True)
    truth = counts.argmax(axis=1)
    histogram = np.eye(n_classes, dtype=int)[initial]
    majority, cleaned = initial.copy(), np.zeros(n, dtype=bool)
    oracle = relabel.oracle_priority(counts)
    fixed = relabel.random_order(n, seed) if isinstance(policy, str) else np.asarray(policy)
    curve = [(majority == truth).mean()]
    while len(curve) <= budget:
        if isinstance(policy, str) and policy == "oracle":
            priority = np.array([oracle[i, majority[i]] for i in range(n)])
        else:
            priority = np.where(cleaned, -np.inf, fixed)
        i = int(priority.argmax())  # the first of equals
        if priority[i] == -np.inf:
            curve += [curve[-1]] * (budget + 1 - len(curve))
            break
        while len(curve) <= budget:
            u = votes.uniforms(seed, np.array([i]), np.array([histogram[i].sum() - 1]))[0]
            histogram[i, int((u >= np.cumsum(q[i])[:-1]).sum())] += 1
            top = np.sort(histogram[i])
            if top[-1] > top[-2]:
                majority[i], cleaned[i] = histogram[i].argmax(), True
            curve.append((majority == truth).mean())
            if cleaned[i] and top[-1] > top[-2]:
                break
    return np.array(curve)


def people(n, n_classes, seed, concentration=0.5):
    """Counts of 20 votes an image and one noisy label each."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(20, rng.dirichlet(np.full(n_classes, concentration), n))
    return counts, votes.initial_labels(counts, 3.0, seed)


@given(
    n=st.integers(2, 40),
    n_classes=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    share=st.floats(0, 3),
    policy=st.sampled_from(["oracle", "random", "scores", "ties"]),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_sequential_algorithm(n, n_classes, seed, share, policy):
    counts, initial = people(n, n_classes, seed)
    rng = np.random.default_rng(seed)
    chosen = {"scores": rng.random(n), "ties": rng.integers(0, 3, n).astype(float)}.get(policy, policy)
    budget = int(share * n)
    found = relabel.simulate(counts, initial, chosen, budget=budget, seeds=[seed]).correctness[0]
    np.testing.assert_allclose(found, one_label_at_a_time(counts, initial, chosen, budget, seed), atol=1e-12)


def test_collecting_in_parts_equals_collecting_at_once():
    """A budget may end in the middle of a sample; the next cycle goes on with it first."""
    counts, initial = people(60, 5, 1)
    priority = np.random.default_rng(0).random(60)
    none = np.zeros(60, dtype=bool)
    start = relabel.Labels(np.eye(5, dtype=np.int64)[initial], initial, none, none)
    whole = relabel.collect(counts, start, priority, budget=50, seed=7)
    rows, labels, state = np.arange(60), initial, start
    for part in (1, 4, 7, 13, 25):
        taken = relabel.collect(counts, state, priority, budget=part, seed=7)
        rows, labels = np.concatenate([rows, taken.sample]), np.concatenate([labels, taken.label])
        state, replayed = relabel.replay(rows, labels, (60, 5))
    np.testing.assert_array_equal(rows[60:], whole.sample)
    np.testing.assert_array_equal(labels[60:], whole.label)
    np.testing.assert_array_equal(replayed.majority[60:], whole.majority)


def test_the_votes_of_a_sample_do_not_depend_on_the_policy():
    counts, initial = people(30, 4, 3)
    none = np.zeros(30, dtype=bool)
    start = relabel.Labels(np.eye(4, dtype=np.int64)[initial], initial, none, none)
    up = relabel.collect(counts, start, np.arange(30.0), budget=200, seed=0)
    down = relabel.collect(counts, start, -np.arange(30.0), budget=200, seed=0)
    for i in range(30):
        np.testing.assert_array_equal(up.label[up.sample == i], down.label[down.sample == i])


def test_budget_beyond_the_pool_stops_when_every_sample_is_cleaned():
    counts, initial = people(20, 3, 0)
    result = relabel.simulate(counts, initial, "random", budget=500, seeds=[0, 1])
    assert result.correctness.shape == (2, 501)
    assert (result.collected < 500).all()
    assert (np.ptp(result.correctness[:, result.collected.max() :], axis=1) == 0).all()
    assert result.auc == result.correctness.mean()


def test_clear_images_cost_two_labels_each():
    """All agree and every label is wrong: the minimal sampler's straight line."""
    counts = np.tile([20, 0], (10, 1))
    result = relabel.simulate(counts, np.ones(10, dtype=int), "oracle", budget=20, seeds=[0])
    np.testing.assert_allclose(result.correctness[0, ::2], np.linspace(0, 1, 11))


def test_expected_relabels_against_sampling_and_by_hand():
    q = np.array([[0.7, 0.3], [0.5, 0.5]])
    # two classes, one vote for the first: hit at once with p, else the tie is broken by the next label
    np.testing.assert_allclose(relabel.expected_relabels(q), [[1.3, 1.7], [1.5, 1.5]])
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5))
    lengths = []
    for _ in range(20_000):
        seen, draws = {2}, 0
        while True:
            draws += 1
            label = rng.choice(5, p=p)
            if label in seen:
                break
            seen.add(label)
        lengths.append(draws)
    error = np.std(lengths) / np.sqrt(len(lengths))
    assert abs(relabel.expected_relabels(p[None])[0, 2] - np.mean(lengths)) < 4 * error


def test_expected_relabels_of_many_classes_keeps_its_stated_error():
    """Uniform over C classes: E = Σ_k Π_{i=1..k} (1 − i/C), the birthday problem."""
    for n_classes, tolerance in ((10, 1e-12), (128, 1e-10), (1000, 1e-6)):
        exact = 1 + np.cumprod(1 - np.arange(1, n_classes) / n_classes).sum()
        found = relabel.expected_relabels(np.full((1, n_classes), 1 / n_classes))[0, 0]
        assert abs(found / exact - 1) < tolerance, n_classes


def test_replay_of_an_empty_log():
    state, taken = relabel.replay(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), (3, 2))
    assert (state.majority == -1).all()
    assert len(taken.majority) == 0


def test_figures_of_the_reference_simulator(real_data):
    """FACTS: N = 5,000 of CIFAR-10H, 15.4% and 29.7% noise; the public simulator's AUC within 0.004."""
    import data

    dataset = data.load("cifar10h", real_data)
    for noise, budget, oracle, random in ((0.154, 2307, 0.9360, 0.8671), (0.297, 4455, 0.8864, 0.7866)):
        temperature = votes.temperature_for(dataset.label_counts, noise)
        found = {"oracle": [], "random": []}
        for seed in range(5):
            initial = votes.initial_labels(dataset.label_counts, temperature, seed)
            for policy, aucs in found.items():
                aucs.append(relabel.simulate(dataset.label_counts, initial, policy, budget=budget, seeds=[seed]).auc)
        assert abs(np.mean(found["oracle"]) - oracle) < 0.004
        assert abs(np.mean(found["random"]) - random) < 0.004


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "best"}, "no policy"),
        ({"policy": np.full(20, np.nan)}, "no score"),
        ({"policy": np.zeros(3)}, "one score a sample"),
        ({"initial_labels": np.full(20, 3)}, "from 0 to 2"),
        ({"initial_labels": np.zeros(3, dtype=int)}, "one a row"),
        ({"label_counts": np.zeros((20, 3), dtype=int)}, "no vote"),
        ({"budget": -1}, "negative"),
    ],
)
def test_says_what_is_wrong(change, message):
    counts, initial = people(20, 3, 0)
    call = {"label_counts": counts, "initial_labels": initial, "policy": "random", "budget": 5, **change}
    with pytest.raises(UserError, match=message):
        relabel.simulate(call["label_counts"], call["initial_labels"], call["policy"], budget=call["budget"], seeds=[0])
