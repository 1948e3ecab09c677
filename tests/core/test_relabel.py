"""Algorithm 1 against a slow, plain implementation that collects one label at a time."""

import math
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import relabel
from data import votes
from data.errors import UserError

ORACLE = "oracle"


@dataclass
class Plain:
    """What the slow way finds, in lists."""

    taken: list = field(default_factory=list)  # (sample, label, majority, formed) of each label
    visits: list = field(default_factory=list)  # [sample, first, votes, before, after, formed] of each relabel
    of: list = field(default_factory=list)
    statistics: list = field(default_factory=list)  # (right, clear errors, difficult errors, total variation)


def one_label_at_a_time(counts, initial, cycles, seed):
    """Algorithm 1 as it is written, loops and no arrays; cycles: (budget, ORACLE or one score a sample) of each."""
    counts = [[int(x) for x in row] for row in counts]
    n, n_classes = len(counts), len(counts[0])
    q = [[x / sum(row) for x in row] for row in counts]
    truth = [row.index(max(row)) for row in counts]
    oracle = relabel.oracle_priority(counts)  # tested below: two that differ by rounding alone are no tie
    entropy = [-sum(x * math.log(x) for x in row if x) for row in q]
    difficult = [h > 0.30 * math.log(n_classes) for h in entropy]
    histogram = [[int(c == label) for c in range(n_classes)] for label in initial]
    majority, cleaned, open_visit, found = [int(label) for label in initial], [False] * n, None, Plain()

    def record():
        wrong = [i for i in range(n) if majority[i] != truth[i]]
        variation = 0.0
        for i in range(n):
            total = sum(histogram[i])
            variation += sum(abs(histogram[i][c] / total - q[i][c]) for c in range(n_classes)) / 2 / n
        hard = sum(difficult[i] for i in wrong)
        found.statistics.append((n - len(wrong), len(wrong) - hard, hard, variation))

    record()
    for budget, ranking in cycles:
        for _ in range(budget):
            if open_visit is None:
                if isinstance(ranking, str):
                    priority, available = [oracle[i][majority[i]] for i in range(n)], range(n)
                else:
                    priority, available = ranking, [i for i in range(n) if not cleaned[i]]
                if not available:
                    break
                open_visit = max(available, key=lambda i: priority[i])  # the first of equals
                found.visits.append([open_visit, len(found.taken), 0, majority[open_visit], None, False])
            i = open_visit
            u, label, passed = votes.uniforms(seed, np.array([i]), np.array([sum(histogram[i]) - 1]))[0], 0, q[i][0]
            while u >= passed:
                label += 1
                passed += q[i][label]
            histogram[i][label] += 1
            formed = histogram[i].count(max(histogram[i])) == 1
            if formed:
                majority[i], cleaned[i], open_visit = histogram[i].index(max(histogram[i])), True, None
            visit = found.visits[-1]
            visit[2], visit[4], visit[5] = visit[2] + 1, majority[i], formed
            found.of.append(len(found.visits) - 1)
            found.taken.append((i, label, majority[i], formed))
            record()
    return found


def expected_draws(q, held, others=()):
    """Expected labels until one repeats, over every order in which distinct ones can come."""
    seen = {held, *others}
    return 1 + sum(q[c] * expected_draws(q, held, (*others, c)) for c in range(len(q)) if c not in seen)


def kind(counts, before, after):
    """The case of one relabel."""
    truth, shares = int(np.argmax(counts)), [x / sum(counts) for x in counts if x]
    if before == truth:
        return "clean" if after == truth else "made wrong"
    difficult = -sum(x * math.log(x) for x in shares) > 0.30 * math.log(len(counts))
    return ("difficult " if difficult else "clear noise ") + ("corrected" if after == truth else "not corrected")


def assert_same(counts, initial, taken, plain):
    """Labels, relabels, their kinds and all statistics."""
    columns = [taken.sample, taken.label, taken.majority, taken.formed]
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == plain.taken
    visits = relabel.visits(taken, initial)
    columns = [visits.sample, visits.first, visits.n_votes, visits.before, visits.after, visits.formed]
    assert [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)] == plain.visits
    assert visits.of.tolist() == plain.of
    assert relabel.kinds(visits.before, visits.after, counts[visits.sample]).tolist() == [
        kind(counts[i].tolist(), before, after) for i, _, _, before, after, _ in plain.visits
    ]
    right, clear, difficult, variation = (list(column) for column in zip(*plain.statistics, strict=True))
    curves = relabel.statistics_curves(counts, initial, taken)
    np.testing.assert_allclose(curves.correctness, np.array(right) / len(counts), atol=1e-12)
    assert curves.clear_errors.tolist() == clear
    assert curves.difficult_errors.tolist() == difficult
    np.testing.assert_allclose(curves.total_variation, variation, atol=1e-12)
    np.testing.assert_array_equal(
        relabel.correctness_curve(counts.argmax(axis=1), initial, taken), np.array(right) / len(counts)
    )
    gained = right[-1] - right[0]
    assert relabel.labels_per_correction(curves) == (len(plain.taken) / gained if gained > 0 else None)


def people(n, n_classes, seed, concentration=0.5):
    """Counts of 20 votes an image and one noisy label each."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(20, rng.dirichlet(np.full(n_classes, concentration), n))
    return counts, votes.initial_labels(counts, 3.0, seed)


@st.composite
def problems(draw):
    """Counts, labels and a seed: people who agree, who do not, and who split evenly; labels that nobody would give."""
    n, n_classes, seed = draw(st.integers(1, 25)), draw(st.integers(2, 5)), draw(st.integers(0, 10_000))
    counts, initial = people(n, n_classes, seed, draw(st.sampled_from([0.05, 0.5, 5.0])))
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        counts = 5 * rng.integers(0, 2, (n, n_classes))
        counts[counts.sum(axis=1) == 0, 0] = 5
    return counts, rng.integers(0, n_classes, n) if draw(st.booleans()) else initial, seed


def scores_of(kind_of_ranking, n, seed):
    """Scores that differ, or of which many are equal."""
    rng = np.random.default_rng(seed)
    return rng.random(n) if kind_of_ranking == "scores" else rng.integers(0, 3, n).astype(float)


@given(problem=problems(), share=st.floats(0, 3), policy=st.sampled_from([ORACLE, "random", "scores", "ties"]))
@settings(max_examples=120, deadline=None)
def test_a_fixed_ranking_equals_the_sequential_algorithm(problem, share, policy):
    counts, initial, seed = problem
    n, budget = len(counts), int(share * len(counts))
    chosen = policy if policy in (ORACLE, "random") else scores_of(policy, n, seed)
    (taken,) = relabel.simulate_votes(counts, initial, chosen, budget=budget, seeds=[seed])
    ranking = relabel.random_order(n, seed).tolist() if policy == "random" else chosen
    plain = one_label_at_a_time(counts, initial, [(budget, ranking)], seed)
    assert_same(counts, initial, taken, plain)
    simulated = relabel.simulate(counts, initial, chosen, budget=budget, seeds=seed)
    right = np.array([row[0] for row in plain.statistics]) / n
    np.testing.assert_array_equal(simulated.correctness[0], np.pad(right, (0, budget + 1 - len(right)), mode="edge"))
    assert simulated.collected == [len(plain.taken)]


@given(
    problem=problems(),
    budgets=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    policy=st.sampled_from([ORACLE, "scores", "ties"]),
)
@settings(max_examples=120, deadline=None)
def test_rankings_that_change_between_cycles_equal_the_sequential_algorithm(problem, budgets, policy):
    """A budget may end in the middle of a relabel: the next cycle finishes it first, whatever its ranking."""
    counts, initial, seed = problem
    n, n_classes = counts.shape
    cycles = [(b, ORACLE if policy == ORACLE else scores_of(policy, n, seed + c)) for c, b in enumerate(budgets)]
    rows, labels = np.arange(n), initial
    for budget, ranking in cycles:
        state, _ = relabel.replay(rows, labels, (n, n_classes))
        taken = relabel.collect(counts, state, relabel.priorities(ranking, counts), budget=budget, seed=seed)
        rows, labels = np.concatenate([rows, taken.sample]), np.concatenate([labels, taken.label])
    _, log = relabel.replay(rows, labels, (n, n_classes))
    assert_same(counts, initial, log[n:], one_label_at_a_time(counts, initial, cycles, seed))


def test_a_relabel_that_two_cycles_share_is_one():
    """Sample 0 was tied when the budget ended; the oracle comes back to sample 2, which is a new relabel."""
    formed = np.array([True, False, True, True])
    taken = relabel.Votes(np.array([2, 0, 0, 2]), np.array([1, 1, 1, 0]), np.array([1, 0, 1, 1]), formed)
    found = relabel.visits(taken, np.array([0, 0, 1]))
    assert found.sample.tolist() == [2, 0, 2]
    assert found.first.tolist() == [0, 1, 3]
    assert found.n_votes.tolist() == [1, 2, 1]
    assert found.before.tolist() == [1, 0, 1]
    assert found.after.tolist() == [1, 1, 1]
    assert not relabel.visits(taken[:2], np.array([0, 0, 1])).formed[1]


def test_every_kind_of_relabel():
    agree, split = [20, 0, 0], [8, 7, 5]
    counts = np.array([agree, agree, split, split, split, agree])
    found = relabel.kinds(np.array([1, 1, 1, 1, 0, 0]), np.array([0, 2, 0, 2, 0, 1]), counts)
    assert found.tolist() == list(relabel.KINDS)


def test_no_labels_have_statistics_too():
    counts, initial = people(5, 3, 0)
    (taken,) = relabel.simulate_votes(counts, initial, "random", budget=0, seeds=[0])
    curves = relabel.statistics_curves(counts, initial, taken)
    assert curves.correctness.tolist() == [(initial == counts.argmax(axis=1)).mean()]
    assert relabel.labels_per_correction(curves) is None
    assert len(relabel.visits(taken, initial).sample) == 0
    assert len(relabel.kinds(np.array([], int), np.array([], int), counts[:0])) == 0


def test_one_class_leaves_nothing_to_correct():
    counts, initial = np.full((4, 1), 7), np.zeros(4, dtype=int)
    for policy, collected in ((ORACLE, 10), ("random", 4)):
        found = relabel.simulate(counts, initial, policy, budget=10, seeds=[0])
        assert found.collected == [collected]
        assert (found.correctness == 1).all()


def test_the_oracle_equals_the_sum_over_all_orders_of_labels():
    counts, _ = people(10, 5, 0)
    plain = [[(1 - q[c]) / expected_draws(q, c) for c in range(5)] for q in (counts / 20).tolist()]
    np.testing.assert_allclose(relabel.oracle_priority(counts), plain, atol=1e-12)


def test_a_label_that_nobody_would_give_costs_as_many_draws_as_none_at_all():
    """Two classes share all votes and the label is the third: 2.5 draws, and the score is 1 / 2.5."""
    np.testing.assert_allclose(relabel.oracle_priority([[10, 10, 0]])[0, 2], 0.4)


def whole_table(counts):
    """The oracle's scores from one array of factors [N, C, nodes], as the integral is written."""
    q = counts / counts.sum(axis=1, keepdims=True)
    t, weight = np.polynomial.laguerre.laggauss(min(q.shape[1] // 2 + 1, 64))
    factors = 1.0 + q[:, :, None] * t
    return (1.0 - q) / (weight * factors.prod(axis=1, keepdims=True) / factors).sum(axis=2)


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (7, 1), (33, 10), (9, 130), (5, 1000)])
def test_the_oracle_computes_entry_by_entry_what_the_whole_table_holds_to_the_last_bit(n, n_classes, monkeypatch):
    monkeypatch.setattr(relabel, "CHUNK", 4_000)  # bytes: many chunks, and single rows that are larger than one
    counts, initial = people(n, n_classes, seed=n)
    plain = whole_table(counts)
    np.testing.assert_array_equal(relabel.oracle_priority(counts), plain)
    oracle = relabel.Oracle(counts)
    np.testing.assert_array_equal(oracle[np.arange(n), initial], plain[np.arange(n), initial])
    assert oracle[n - 1, n_classes - 1] == plain[-1, -1]


def test_the_curve_of_the_oracle_over_many_classes_takes_little_memory():
    """300 samples × 1,000 classes × 64 nodes are 150 MB an array, and grow with the samples; the counts are 2 MB."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(50, np.full(1000, 1 / 1000), 300)
    tracemalloc.start()
    relabel.simulate(counts, counts.argmin(axis=1), "oracle", budget=50, seeds=[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32e6


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
    (taken,) = relabel.simulate_votes(counts, np.ones(10, dtype=int), "oracle", budget=20, seeds=[0])
    assert relabel.labels_per_correction(relabel.statistics_curves(counts, np.ones(10, dtype=int), taken)) == 2


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


@pytest.mark.slow
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
        ({"initial_labels": np.full(20, -1)}, "from 0 to 2"),
        ({"initial_labels": np.zeros(3, dtype=int)}, "one a row"),
        ({"label_counts": np.zeros((20, 3), dtype=int)}, "no annotation"),
        ({"budget": -1}, "negative"),
    ],
)
def test_says_what_is_wrong(change, message):
    counts, initial = people(20, 3, 0)
    call = {"label_counts": counts, "initial_labels": initial, "policy": "random", "budget": 5, **change}
    with pytest.raises(UserError, match=message):
        relabel.simulate(call["label_counts"], call["initial_labels"], call["policy"], budget=call["budget"], seeds=[0])


def test_statistics_refuse_an_image_that_nobody_voted_on():
    none = np.empty(0, dtype=np.int64)
    with pytest.raises(UserError, match="no annotation"):
        relabel.statistics_curves(
            np.array([[3, 1], [0, 0]]), np.zeros(2, dtype=int), relabel.Votes(none, none, none, none.astype(bool))
        )
