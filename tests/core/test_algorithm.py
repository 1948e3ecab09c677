"""Algorithm 1, one label at a time in plain Python, against every statistic that the product computes from arrays."""

import numpy as np
import pytest

from core import relabel
from data import votes
from data.errors import UserError

PROBLEMS = list(range(12))


class Plain:
    """Labels of N samples, changed one label at a time; everything is recomputed from scratch each time it is asked for."""

    def __init__(self, counts, initial):
        self.counts, self.initial = counts.tolist(), initial.tolist()
        self.histograms = [[int(c == label) for c in range(counts.shape[1])] for label in self.initial]
        self.majority = list(self.initial)
        self.truth = [row.index(max(row)) for row in self.counts]
        self.visits, self.open = [], {}
        self.log = [self.figures()]

    def formed(self, i):
        return self.histograms[i].count(max(self.histograms[i])) == 1

    def difficult(self, i):
        total = sum(self.counts[i])
        shares = [c / total for c in self.counts[i] if c > 0]
        return -sum(p * np.log(p) for p in shares) / np.log(len(self.counts[i])) > 0.30

    def add(self, i, label):
        if i not in self.open:
            self.open[i] = {"sample": i, "first": len(self.log) - 1, "n_votes": 0, "before": self.majority[i]}
            self.visits.append(self.open[i])
        self.histograms[i][label] += 1
        if self.formed(i):
            self.majority[i] = self.histograms[i].index(max(self.histograms[i]))
        visit = self.open[i]
        visit["n_votes"] += 1
        visit["after"], visit["formed"] = self.majority[i], self.formed(i)
        if self.formed(i):
            del self.open[i]
        self.log.append(self.figures())

    def figures(self):
        n = len(self.counts)
        wrong = [i for i in range(n) if self.majority[i] != self.truth[i]]
        variation = 0.0
        for i in range(n):
            total, votes_now = sum(self.counts[i]), sum(self.histograms[i])
            pairs = zip(self.histograms[i], self.counts[i], strict=True)
            variation += 0.5 * sum(abs(h / votes_now - c / total) for h, c in pairs)
        hard = sum(self.difficult(i) for i in wrong)
        return 1 - len(wrong) / n, len(wrong) - hard, hard, variation / n

    def kind(self, visit):
        right = self.truth[visit["sample"]]
        if visit["before"] == right:
            return "clean" if visit["after"] == right else "made wrong"
        case = "difficult" if self.difficult(visit["sample"]) else "clear noise"
        return f"{case} corrected" if visit["after"] == right else f"{case} not corrected"


def problem(seed, n_classes=None):
    rng = np.random.default_rng(seed)
    n, c = 25, n_classes or int(rng.integers(2, 6))
    counts = rng.integers(0, 9, (n, c)) ** 2 * (rng.random((n, c)) < 0.6)
    counts[np.arange(n), rng.integers(0, c, n)] += 1
    # Some initial labels have no vote at all in the true distribution, as happens in real data
    return counts.astype(np.int64), rng.integers(0, c, n), rng.random(n)


def plain_static(counts, initial, score, budget, seed):
    """Take the best sample that is left, draw its votes until a majority forms, go on."""
    state, drawn = Plain(counts, initial), [0] * len(counts)
    for i in sorted(range(len(counts)), key=lambda i: (-score[i], i)):
        while True:
            if len(state.log) - 1 == budget:
                return state
            state.add(i, int(votes.draw_votes(counts[[i]], seed, np.array([i]), np.array([drawn[i]]))[0, 0]))
            drawn[i] += 1
            if state.formed(i):
                break
    return state


def plain_active(counts, initial, scores, budget, seed):
    """The same with another ranking after every `budget` labels; a sample that was cut off is finished first."""
    state, drawn, cleaned = Plain(counts, initial), [0] * len(counts), set()
    for score in scores:
        spent = 0
        while spent < budget:
            left = [i for i in range(len(counts)) if i not in cleaned]
            if not left:
                return state
            i = next(iter(state.open)) if state.open else min(left, key=lambda i: (-score[i], i))
            state.add(i, int(votes.draw_votes(counts[[i]], seed, np.array([i]), np.array([drawn[i]]))[0, 0]))
            drawn[i], spent = drawn[i] + 1, spent + 1
            if state.formed(i):
                cleaned.add(i)
    return state


def compare(state, counts, initial, taken):
    curves = relabel.statistics_curves(counts, initial, taken)
    plain = np.array(state.log)
    assert len(taken.sample) == len(plain) - 1
    np.testing.assert_allclose(curves.correctness, plain[:, 0], atol=1e-12)
    np.testing.assert_array_equal(curves.clear_errors, plain[:, 1])
    np.testing.assert_array_equal(curves.difficult_errors, plain[:, 2])
    np.testing.assert_allclose(curves.total_variation, plain[:, 3], atol=1e-12)
    np.testing.assert_allclose(
        relabel.correctness_curve(counts.argmax(axis=1), initial, taken), plain[:, 0], atol=1e-12
    )
    visits = relabel.visits(taken, initial)
    found = zip(*(getattr(visits, name).tolist() for name in state.visits[0]), strict=True) if state.visits else []
    assert [tuple(visit.values()) for visit in state.visits] == list(found)
    kinds = relabel.kinds(visits.before, visits.after, counts[visits.sample])
    assert kinds.tolist() == [state.kind(visit) for visit in state.visits]
    gained = plain[-1, 0] - plain[0, 0]
    per_correction = relabel.labels_per_correction(curves)
    if gained > 1e-9:
        assert per_correction == pytest.approx((len(plain) - 1) / (gained * len(counts)))
    else:
        assert per_correction is None


@pytest.mark.parametrize("seed", PROBLEMS)
@pytest.mark.parametrize("budget", [0, 1, 17, 400])  # the last is more than it takes to clean all
def test_static_relabelling_equals_one_label_at_a_time(seed, budget):
    counts, initial, score = problem(seed)
    (taken,) = relabel.simulate_votes(counts, initial, score, budget=budget, seeds=[seed])
    state = plain_static(counts, initial, score, budget, seed)
    compare(state, counts, initial, taken)
    curve = relabel.simulate(counts, initial, score, budget=budget, seeds=[seed]).correctness[0]
    reached = [row[0] for row in state.log]
    np.testing.assert_allclose(curve, reached + [reached[-1]] * (budget + 1 - len(reached)), atol=1e-12)


@pytest.mark.parametrize("seed", PROBLEMS)
@pytest.mark.parametrize("budget", [1, 7, 60])
def test_active_relabelling_equals_one_label_at_a_time(seed, budget):
    """Cycles with rankings of their own, whose budgets cut relabels in the middle."""
    counts, initial, _ = problem(seed)
    scores = np.random.default_rng(seed + 100).random((5, len(counts)))
    shape = counts.shape
    sample, label = np.arange(len(counts)), initial.copy()
    for score in scores:
        state, _ = relabel.replay(sample, label, shape)
        taken = relabel.collect(counts, state, score, budget=budget, seed=seed)
        sample, label = np.concatenate([sample, taken.sample]), np.concatenate([label, taken.label])
    state, log = relabel.replay(sample, label, shape)
    plain = plain_active(counts, initial, scores, budget, seed)
    compare(plain, counts, initial, log[len(counts) :])
    assert state.majority.tolist() == plain.majority
    assert state.histogram.tolist() == plain.histograms
    assert sorted(np.flatnonzero(state.tied)) == sorted(plain.open)


@pytest.mark.parametrize("seed", PROBLEMS)
def test_the_oracle_takes_samples_again_and_its_statistics_hold(seed):
    counts, initial, _ = problem(seed)
    (taken,) = relabel.simulate_votes(counts, initial, "oracle", budget=150, seeds=[seed])
    state = Plain(counts, initial)
    for i, label in zip(taken.sample.tolist(), taken.label.tolist(), strict=True):
        state.add(i, label)
    compare(state, counts, initial, taken)


def test_relabels_of_one_sample_by_the_oracle_are_counted_apart():
    # Sample 0 holds a wrong label and draws 0 0 …: relabelled until right
    taken = relabel.Votes(np.zeros(3, int), np.array([1, 0, 0]), np.array([1, 1, 0]), np.array([True, False, True]))
    visits = relabel.visits(taken, np.array([1]))
    assert visits.n_votes.tolist() == [1, 2]
    assert visits.before.tolist() == [1, 1]
    assert visits.after.tolist() == [1, 0]
    assert visits.of.tolist() == [0, 1, 1]


def test_a_row_without_votes_a_negative_budget_and_nan_scores_are_refused():
    counts, initial, score = problem(0)
    empty = counts.copy()
    empty[3] = 0
    for call, message in (
        (lambda: relabel.simulate(empty, initial, score, budget=5, seeds=0), "row 3 has no annotation"),
        (lambda: relabel.simulate(counts, initial, score, budget=-1, seeds=0), "negative"),
        (lambda: relabel.simulate(counts, initial, score * np.nan, budget=5, seeds=0), "no score"),
        (lambda: relabel.simulate(counts, initial + 9, score, budget=5, seeds=0), "Initial labels"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_an_initial_label_that_nobody_voted_for_has_the_highest_oracle_score():
    counts = np.array([[10, 0, 0], [10, 0, 0]])
    priority = relabel.oracle_priority(counts)
    assert priority[0, 1] == pytest.approx(1 / relabel.expected_relabels(counts / 10)[0, 1])
    assert priority[0, 1] > priority[0, 0] == 0
