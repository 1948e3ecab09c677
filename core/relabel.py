"""Algorithm 1 of active label cleaning (Bernhardt et al., Nature Communications 2022), and its static simulation.

Take the sample of highest priority, draw labels from its true label distribution until a majority forms (one class
has more votes than any other), go on with the next. A tie keeps the majority label that stood before it.

The k-th vote of sample i is a function of (seed, i, k) alone. So all policies meet the same annotators, a curve does
not depend on the order in which others were asked, and a run that was killed goes on with the votes it would have had.

How a sequential algorithm becomes array code: a sample's future is a chain of votes, grouped into visits. A greedy
scheduler that always serves the highest priority plays the votes of all chains in the order of their *running minimum*
priority, for a chain whose priority rises after a visit is simply served again at once. So votes of many samples are
drawn side by side, each keyed by that minimum, and one sort restores the sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.scores import total_votes
from data import votes
from data.errors import UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
CHUNK = 1 << 22  # bytes of an array that is computed for some samples at a time: larger ones take longer, too


@dataclass
class Labels:
    """Where the labels of N samples over C classes stand, as replayed from a label log."""

    histogram: Ints  # [N, C] votes so far, the initial label included
    majority: Ints  # [N] the majority label, −1 before the first vote, and where people's votes tie
    cleaned: NDArray[np.bool_]  # [N] relabelled until a majority formed
    tied: NDArray[np.bool_]  # [N] no class has more votes than any other

    @property
    def status(self) -> NDArray[np.str_]:
        """One word for each sample, [N]: "tied", "cleaned", "labelled" or "unlabelled"."""
        return np.select([self.tied, self.cleaned, self.majority >= 0], ["tied", "cleaned", "labelled"], "unlabelled")


@dataclass(frozen=True)
class Votes:
    """T collected labels in the order of collection."""

    sample: Ints  # [T] row of the sample
    label: Ints  # [T]
    majority: Ints  # [T] the sample's majority label after this vote, −1 where people's votes tie
    formed: NDArray[np.bool_]  # [T] whether one class has more votes than any other after it

    def __getitem__(self, which: NDArray[np.bool_] | slice) -> "Votes":
        """Some of them, in the same order."""
        return Votes(self.sample[which], self.label[which], self.majority[which], self.formed[which])


@dataclass(frozen=True)
class Visits:
    """V relabels in the order in which they began: labels of one sample until a majority formed, or the budget ended."""

    sample: Ints  # [V]
    first: Ints  # [V] position of the first label among those collected
    n_votes: Ints  # [V]
    before: Ints  # [V] majority label before, and after; −1 where people's votes tie
    after: Ints  # [V]
    formed: NDArray[np.bool_]  # [V] whether it came to a majority
    of: Ints  # [T] the relabel that each collected label belongs to


@dataclass(frozen=True)
class Curves:
    """Statistics after 0 … T collected labels, [T + 1] each."""

    correctness: Floats  # share of right majority labels
    clear_errors: Ints  # wrong ones on images that are not ambiguous
    difficult_errors: Ints  # and on those that are
    total_variation: Floats  # mean over samples of ½ Σ |label histogram as shares − true distribution|, in [0, 1]


@dataclass(frozen=True)
class Simulation:
    """Curves of a static simulation over S seeds."""

    correctness: Floats  # [S, budget + 1] share of right majority labels after 0 … budget collected labels
    collected: Ints  # [S] labels that were really collected: fewer than the budget once every sample is cleaned

    @property
    def auc(self) -> float:
        """Area under the mean correctness curve divided by its length: mean correctness in [0, 1]."""
        return float(self.correctness.mean())


def expected_relabels(probs: ArrayLike) -> Floats:
    """Expected number of labels to draw until a majority forms, for a sample with one vote, [N, C] → [N, C].

    Entry (i, c): sample i holds one vote for class c and draws from `probs[i]`. Drawing stops when a class is hit
    again, so E = Σ_k P(the first k draws are distinct and none is c) = Σ_k k! e_k(p without c), with e_k the
    elementary symmetric polynomials; and Σ_k k! e_k = ∫ e^{−t} Π_{j≠c} (1 + p_j t) dt, a polynomial that n
    Gauss–Laguerre nodes integrate exactly up to degree 2n − 1. Exact (to rounding) up to 128 classes; beyond that
    64 nodes remain, with a relative error below 1e-6 for the uniform distribution over 1,000 classes.
    """
    p = np.asarray(probs, dtype=np.float64)
    t, weight = _quadrature(p.shape[1])
    found = np.empty_like(p)
    for part in _chunks(len(p), p.shape[1] * len(t)):
        found[part] = _expectation(_integrand(p[part], t, weight)[:, None], p[part], t)
    return found


def _quadrature(n_classes: int) -> tuple[Floats, Floats]:
    """Nodes and weights of the integral behind `expected_relabels`, [nodes] each."""
    t, weight = np.polynomial.laguerre.laggauss(min(n_classes // 2 + 1, 64))
    return t, weight


def _integrand(p: Floats, t: Floats, weight: Floats) -> Floats:
    """weight × Π_j (1 + p_j t), every class in it, [n, C] → [n, nodes]."""
    return np.asarray(weight * (1.0 + p[:, :, None] * t).prod(axis=1))


def _expectation(integrand: Floats, held: Floats, t: Floats) -> Floats:
    """The integral without the class that a sample holds, of probability `held`: […, nodes], […] → […]."""
    return np.asarray((integrand / (1.0 + held[..., None] * t)).sum(axis=-1))


def _chunks(n: int, numbers: int) -> Iterator[slice]:
    """Slices that cover n rows, so that an array of so many float64 numbers a row takes `CHUNK` bytes at most."""
    step = max(1, CHUNK // (8 * numbers))
    return (slice(start, start + step) for start in range(0, n, step))


class Oracle:
    """Oracle score (1 − q[c]) / E[relabels] in [0, 1] of sample i with the majority label c: `oracle[i, c]`, of arrays too.

    q: the true label distribution, from `label_counts` [N, C] · E: `expected_relabels`. As in the public code E is that of a
    sample with one vote, also when the sample is taken again. A score is computed when it is asked for: Algorithm 1 needs few of
    the N × C, and what it keeps is at most 64 numbers a sample. Raises `UserError` on a sample without any vote.
    """

    def __init__(self, label_counts: ArrayLike) -> None:
        self.counts = np.asarray(label_counts)
        self.total = total_votes(self.counts)
        n, n_classes = self.counts.shape
        self.t, weight = _quadrature(n_classes)
        self.integrand = np.empty((n, len(self.t)))
        for part in _chunks(n, n_classes * len(self.t)):
            self.integrand[part] = _integrand(self.counts[part] / self.total[part], self.t, weight)

    def __getitem__(self, where: tuple[Ints, Ints]) -> Floats:
        """The scores of samples with labels, both int arrays that broadcast to one shape, or numbers."""
        samples, labels = np.broadcast_arrays(*where)
        rows, columns = samples.ravel(), labels.ravel()
        found = np.empty(len(rows))
        for part in _chunks(len(rows), len(self.t)):
            row = rows[part]
            q = self.counts[row, columns[part]] / self.total[row, 0]
            found[part] = (1.0 - q) / _expectation(self.integrand[row], q, self.t)
        return found.reshape(samples.shape)


def oracle_priority(label_counts: ArrayLike) -> Floats:
    """The `Oracle` score for every possible majority label, [N, C] → [N, C]."""
    oracle = Oracle(label_counts)
    n, n_classes = oracle.counts.shape
    return oracle[np.arange(n)[:, None], np.arange(n_classes)]


def collect(label_counts: ArrayLike, state: Labels, priority: ArrayLike | Oracle, *, budget: int, seed: int) -> Votes:
    """Collect up to `budget` labels by Algorithm 1, starting from `state` (which is left as it is).

    label_counts int [N, C]: the true label distribution · priority, high first: float [N] for a fixed ranking, in
    which a sample is taken once; or the oracle, with a value for each possible majority label, by which a sample may be
    taken again. A sample that was left tied comes first. Equal priorities: lower row first.
    Raises `UserError` where a priority is NaN.
    """
    counts = np.asarray(label_counts)
    total_votes(counts)  # refuses a sample that nobody voted on
    if isinstance(priority, Oracle):
        first = priority[np.arange(len(counts)), state.majority]
    else:
        first = np.where(state.cleaned, -np.inf, _ranked(priority))
    queue = _queue(np.where(state.tied, np.inf, first), budget)
    held = state.histogram[queue.rows].astype(np.int64), state.majority[queue.rows]
    return _collect(counts, *held, queue, priority, budget=budget, seed=seed)


@dataclass(frozen=True)
class _Queue:
    """The samples that a budget can reach, the next first: each of them gives at least one label."""

    rows: Ints  # [R]
    priority: Floats  # [R]


def _queue(priority: Floats, budget: int) -> _Queue:
    """Of priorities [N], those of −∞ left out. Equal ones: lower row first."""
    rows = np.flatnonzero(priority > -np.inf)
    if 0 < budget < len(rows):  # sorting a million for the sake of a thousand takes most of a simulation
        least = np.partition(priority[rows], len(rows) - budget)[len(rows) - budget]
        rows = rows[priority[rows] >= least]
    rows = rows[np.argsort(-priority[rows], kind="stable")][:budget]
    return _Queue(rows, priority[rows])


def _ranked(priority: ArrayLike) -> Floats:
    """A fixed ranking as float64 [N]. Raises `UserError` where it is NaN."""
    scores = np.asarray(priority, dtype=np.float64)
    if np.isnan(scores).any():
        raise UserError(
            f"{np.isnan(scores).sum()} samples have no score (NaN), so they cannot be ranked: score them again."
        )
    return scores


def _collect(
    counts: Ints,
    histogram: Ints,
    majority: Ints,
    queue: _Queue,
    priority: ArrayLike | Oracle,
    *,
    budget: int,
    seed: int,
) -> Votes:
    """Algorithm 1 on a queue; histogram [R, C] and majority [R] of its samples at the start."""
    if isinstance(priority, Oracle):
        return _served_again(counts, histogram, majority, queue, priority, budget=budget, seed=seed)
    return _served_once(counts, histogram, majority, queue.rows, budget=budget, seed=seed)


def _served_once(counts: Ints, histogram: Ints, majority: Ints, rows: Ints, *, budget: int, seed: int) -> Votes:
    """The labels of samples that are taken one after the other, each until a majority forms."""
    eye = np.eye(counts.shape[1], dtype=np.int64)
    parts, collected, start = (
        [np.empty((0, 5), dtype=np.int64)],
        0,
        0,
    )  # a line a label: place, draw, label, majority, formed
    while collected < budget and start < len(rows):
        # Each gives a label at least, and few more than two: so no round draws many more than the budget has left
        active = np.arange(start, min(len(rows), start + max(256, (budget - collected) // 2)))
        start = int(active[-1]) + 1
        running = histogram[active]
        drawn = running.sum(axis=1) - 1  # the initial label is not a draw
        last = drawn + budget
        while len(active):
            width = max(1, min(budget, 512 // len(active)))  # few samples left: many labels of each at once
            row = rows[active]
            draw = drawn[:, None] + np.arange(width)
            label = votes.draw_votes(counts[row], seed, row, draw)  # [A, W]
            after = running[:, None, :] + np.cumsum(eye[label], axis=1)  # [A, W, C]
            top = after.max(axis=2)
            formed = (after == top[:, :, None]).sum(axis=2) == 1
            done = formed.any(axis=1)
            kept = np.arange(width) <= np.where(done, formed.argmax(axis=1), width)[:, None]
            stands = np.where(formed, after.argmax(axis=2), majority[active, None])
            place = np.broadcast_to(active[:, None], draw.shape)
            new = np.stack([place, draw, label, stands, formed], axis=-1)[kept]
            parts.append(new)
            collected += len(new)
            going = ~done & (draw[:, -1] + 1 < last)
            active, running, drawn, last = active[going], after[going, -1], drawn[going] + width, last[going]
    table = np.concatenate(parts)
    place, draw, label, stands, formed = table[np.lexsort((table[:, 1], table[:, 0]))][:budget].T
    return Votes(rows[place], label, stands, formed.astype(bool))


def _served_again(
    counts: Ints, histogram: Ints, majority: Ints, queue: _Queue, oracle: Oracle, *, budget: int, seed: int
) -> Votes:
    """The labels of samples whose priority changes with their majority label, so that one may be taken again."""
    rows, key, majority = queue.rows, queue.priority.copy(), majority.copy()
    drawn = histogram.sum(axis=1) - 1  # the initial label is not a draw
    table = np.empty((0, 6))  # one line a vote: key, row, draw, label, majority, whether it formed
    active = np.arange(len(rows))
    while len(active):
        # Few chains left: draw many votes of each at once. Many chains: one vote each, since most stop after it.
        # Growing with what was drawn, the rounds are few even where one sample takes most of the budget.
        width = max(1, min(budget, max(512, len(table) // 4) // len(active)))
        i, row = active, rows[active]
        draw = drawn[i, None] + np.arange(width)
        label = votes.draw_votes(counts[row], seed, row, draw)  # [A, W]
        running = histogram[i, None, :] + np.cumsum(np.eye(counts.shape[1], dtype=np.int64)[label], axis=1)  # [A, W, C]
        top = running.max(axis=2)
        formed = (running == top[:, :, None]).sum(axis=2) == 1
        # The majority after each vote is that of the last vote at which one had formed.
        last = np.maximum.accumulate(np.where(formed, np.arange(width), -1), axis=1)
        after = np.where(
            last >= 0, np.take_along_axis(running.argmax(axis=2), np.maximum(last, 0), 1), majority[i, None]
        )
        # A vote that follows a formed majority begins a new visit, with the priority of that majority.
        begins = np.where(formed, oracle[row[:, None], after], np.inf)
        keys = np.minimum.accumulate(np.concatenate([key[i, None], begins], axis=1), axis=1)
        of = np.broadcast_to(row[:, None], draw.shape)
        new = np.stack([keys[:, :-1], of, draw, label, after, formed], axis=-1).reshape(-1, 6)
        histogram[i], majority[i], key[i], drawn[i] = running[:, -1], after[:, -1], keys[:, -1], drawn[i] + width

        # The last vote that the budget reaches so far: a chain whose next vote comes after it is done with.
        table = np.concatenate([table, new[new[:, 0] > -np.inf]])
        cut_key, cut_row = -np.inf, -1.0
        if len(table) >= budget:
            by_key, by_row = table[:, 0], table[:, 1]
            cut_key = np.partition(by_key, len(table) - budget)[len(table) - budget]
            at_cut = by_key == cut_key
            place = budget - int((by_key > cut_key).sum()) - 1
            cut_row = np.partition(by_row[at_cut], place)[place]
            table = table[(by_key > cut_key) | (at_cut & (by_row <= cut_row))]
        active = i[(key[i] > cut_key) | ((key[i] == cut_key) & (row < cut_row))]

    table = table[np.lexsort((table[:, 2], table[:, 1], -table[:, 0]))][:budget]
    sample, label, after, had_formed = table[:, [1, 3, 4, 5]].astype(np.int64).T
    return Votes(sample, label, after, had_formed.astype(bool))


def simulate(
    label_counts: ArrayLike, initial_labels: ArrayLike, policy: str | ArrayLike, *, budget: int, seeds: ArrayLike
) -> Simulation:
    """Relabel by Algorithm 1 with a ranking that does not change, once for each seed.

    label_counts int [N, C]: the true label distribution, its mode the right label · initial_labels int [N] ·
    policy "oracle" | "random" | float [N] of scores, high first · budget: labels to collect · seeds: one int or
    several, each a set of annotators' votes. Raises `UserError` on labels outside the classes, a policy that is
    neither known nor of length N, NaN scores or a negative budget. Bernhardt et al. 2022, Algorithm 1 and Fig. 3.
    """
    counts, initial = np.asarray(label_counts), np.asarray(initial_labels, dtype=np.int64)
    many = [int(seed) for seed in np.atleast_1d(np.asarray(seeds))]
    curves, collected = np.empty((len(many), budget + 1)) if budget >= 0 else np.empty(0), np.empty(len(many), np.int64)
    for s, taken in enumerate(simulate_votes(counts, initial, policy, budget=budget, seeds=many)):
        curve = correctness_curve(counts.argmax(axis=1), initial, taken)
        curves[s, : len(curve)], curves[s, len(curve) :], collected[s] = curve, curve[-1], len(curve) - 1
    return Simulation(curves, collected)


def simulate_votes(
    label_counts: ArrayLike, initial_labels: ArrayLike, policy: str | ArrayLike, *, budget: int, seeds: list[int]
) -> Iterator[Votes]:
    """The labels that `simulate` collects, one set a seed; takes and raises the same."""
    counts, initial = np.asarray(label_counts), np.asarray(initial_labels, dtype=np.int64)
    n, n_classes = counts.shape
    if initial.shape != (n,) or initial.min() < 0 or initial.max() >= n_classes:
        raise UserError(f"Initial labels must be {n} numbers from 0 to {n_classes - 1}, one a row of the label counts.")
    if budget < 0:
        raise UserError(f"A budget of {budget} labels is negative: give 0 or more.")
    total_votes(counts)  # refuses a sample that nobody voted on
    eye = np.eye(n_classes, dtype=np.int64)
    shuffled = isinstance(policy, str) and policy == "random"
    priority: Floats | Oracle = np.empty(0) if shuffled else priorities(policy, counts)
    # The queue of a policy that does not depend on the seed is the same for all sets of votes
    queue = None if shuffled else _queue(_at_start(priority, initial), budget)
    for seed in seeds:
        mine = _queue(random_order(n, seed), budget) if queue is None else queue
        held = eye[initial[mine.rows]], initial[mine.rows]
        yield _collect(counts, *held, mine, priority, budget=budget, seed=seed)


def _at_start(priority: Floats | Oracle, initial: Ints) -> Floats:
    """Priorities [N] before any label is collected."""
    return priority[np.arange(len(initial)), initial] if isinstance(priority, Oracle) else _ranked(priority)


def priorities(policy: str | ArrayLike, label_counts: ArrayLike) -> Floats | Oracle:
    """What `collect` takes for a policy: "oracle" or scores [N]. Raises `UserError` on any other."""
    if isinstance(policy, str):
        if policy != "oracle":
            raise UserError(f'"{policy}" is no policy: give "oracle", "random" or an array of scores, high first.')
        return Oracle(label_counts)
    scores = np.asarray(policy, dtype=np.float64)
    if scores.shape != (len(np.asarray(label_counts)),):
        raise UserError(
            f"Scores of shape {scores.shape} do not fit {len(np.asarray(label_counts))} samples: "
            "give one score a sample."
        )
    return scores


def random_order(n: int, seed: int) -> Floats:
    """Priorities [n] of the random policy, uniform in [0, 1)."""
    return np.random.default_rng(seed).random(n)


def correctness_curve(truth: Ints, initial: Ints, taken: Votes) -> Floats:
    """Share of right majority labels after 0 … T collected labels, [T + 1]; truth and initial majority int [N]."""
    right = taken.majority == truth[taken.sample]
    before = np.empty_like(right)
    order = np.argsort(taken.sample, kind="stable")  # each sample's votes side by side, in time
    sample = taken.sample[order]
    opens = np.concatenate([[True], sample[1:] != sample[:-1]])[: len(sample)]
    before[order] = np.where(opens, initial[sample] == truth[sample], np.roll(right[order], 1))
    change = right.astype(np.int64) - before
    return ((initial == truth).sum() + np.concatenate([[0], np.cumsum(change)])) / len(truth)


def visits(taken: Votes, initial: Ints) -> Visits:
    """The relabels that collected labels belong to; initial: majority labels [N] before them.

    A relabel that the budget of a cycle cut, and a later cycle finished, is one.
    """
    order = np.argsort(taken.sample, kind="stable")  # each sample's votes side by side, in time
    sample, majority, formed = taken.sample[order], taken.majority[order], taken.formed[order]
    new = np.concatenate([[True], sample[1:] != sample[:-1]])[: len(sample)]
    opens = new | np.concatenate([[True], formed[:-1]])[: len(sample)]
    starts = np.flatnonzero(opens)
    ends = np.concatenate([starts[1:], [len(sample)]])[: len(starts)] - 1
    before = np.where(new[starts], initial[sample[starts]], np.roll(majority, 1)[starts])
    by_time = np.argsort(order[starts], kind="stable")
    place = np.empty(len(starts), dtype=np.int64)
    place[by_time] = np.arange(len(starts))
    of = np.empty(len(sample), dtype=np.int64)
    of[order] = place[np.cumsum(opens) - 1]
    starts, ends = starts[by_time], ends[by_time]
    return Visits(sample[starts], order[starts], ends - starts + 1, before[by_time], majority[ends], formed[ends], of)


KINDS = (
    "clear noise corrected",
    "clear noise not corrected",
    "difficult corrected",
    "difficult not corrected",
    "clean",
    "made wrong",
)


def kinds(before: Ints, after: Ints, label_counts: Ints) -> NDArray[np.object_]:
    """What each relabel was, of `KINDS`: majority labels before and after [V], true counts of their samples [V, C].

    Difficult: the wrong label of an image whose votes disagree (`data.votes.ambiguous`); clear noise: of one whose votes do
    not; clean and made wrong: the label was right before. Bernhardt et al. 2022.
    """
    truth = label_counts.argmax(axis=1)
    difficult = votes.ambiguous(label_counts) if len(label_counts) else np.zeros(0, dtype=bool)
    corrected, was_right = after == truth, before == truth
    cases = [was_right & corrected, was_right, difficult & corrected, difficult, corrected]
    named = [KINDS[4], KINDS[5], KINDS[2], KINDS[3], KINDS[0]]
    return np.select(cases, named, KINDS[1]).astype(object)


def statistics_curves(label_counts: ArrayLike, initial: Ints, taken: Votes) -> Curves:
    """How the labels stand after each of T collected labels, against the true counts [N, C]; initial labels [N].

    The label histogram of a sample holds its initial label and those collected. Raises `UserError` on a sample without
    true votes. Bernhardt et al. 2022, Methods.
    """
    return Statistics(label_counts, initial).after(taken)


class Statistics:
    """How labels stand against the true counts [N, C] from the same initial labels [N], whatever is collected.

    Raises `UserError` on a sample without true votes.
    """

    def __init__(self, label_counts: ArrayLike, initial: Ints) -> None:
        self.counts, self.initial = np.asarray(label_counts), initial
        self.total = total_votes(self.counts)  # refuses a sample that nobody voted on
        self.truth = self.counts.argmax(axis=1)
        self.difficult, self._looked_at = np.zeros(len(initial), dtype=bool), np.zeros(len(initial), dtype=bool)
        self.wrong = initial != self.truth
        self._look_at(np.flatnonzero(self.wrong))
        # ½ Σ |e_c − q| = 1 − q[c] for a sample with one label
        own = self.counts[np.arange(len(initial)), initial] / self.total[:, 0]
        self.variation = 1 - own

    def _look_at(self, rows: Ints) -> None:
        """Find out which samples are difficult, of those alone that are asked for: of a large pool few are."""
        rows = np.unique(rows[~self._looked_at[rows]])
        if len(rows):
            self.difficult[rows], self._looked_at[rows] = votes.ambiguous(self.counts[rows]), True

    def after(self, taken: Votes) -> Curves:
        """`statistics_curves` of these collected labels."""
        self._look_at(taken.sample)
        n, n_classes = self.counts.shape
        eye = np.eye(n_classes, dtype=np.int64)
        order = np.argsort(taken.sample, kind="stable")
        sample, label, majority = taken.sample[order], taken.label[order], taken.majority[order]
        new = np.concatenate([[True], sample[1:] != sample[:-1]])[: len(sample)]
        start = np.maximum.accumulate(np.where(new, np.arange(len(sample)), 0)) if len(sample) else np.arange(0)
        every = np.cumsum(eye[label], axis=0)
        histogram = every - (every - eye[label])[start] + eye[self.initial[sample]]  # [T, C] after each label
        q = self.counts[sample] / self.total[sample]
        variation = 0.5 * np.abs(histogram / histogram.sum(axis=1, keepdims=True) - q).sum(axis=1)
        wrong = majority != self.truth[sample]

        def curve(after: NDArray[Any], first: NDArray[Any]) -> NDArray[Any]:
            """Sum over all samples: `first` [N], changed to `after` [T] by each label."""
            change = after - np.where(new, first[sample], np.roll(after, 1))
            in_time = np.empty_like(change)
            in_time[order] = change
            return first.sum() + np.concatenate([np.zeros(1, change.dtype), np.cumsum(in_time)])

        difficult = self.difficult
        clear = curve((wrong & ~difficult[sample]).astype(np.int64), (self.wrong & ~difficult).astype(np.int64))
        hard = curve((wrong & difficult[sample]).astype(np.int64), (self.wrong & difficult).astype(np.int64))
        return Curves((n - clear - hard) / n, clear, hard, curve(variation, self.variation) / n)


def labels_per_correction(curves: Curves) -> float | None:
    """Collected labels for each right majority label gained; None where none was."""
    wrong = curves.clear_errors + curves.difficult_errors
    gained = int(wrong[0] - wrong[-1])
    return (len(wrong) - 1) / gained if gained > 0 else None


def replay(
    sample: Ints,
    label: Ints,
    shape: tuple[int, int],
    *,
    replaced: Ints | None = None,
    relabels: NDArray[np.bool_] | None = None,
    ties_keep: bool = True,
) -> tuple[Labels, Votes]:
    """Where the labels stand after a log of T events, int [T] each, over (N, C), and the majority after each event.

    replaced: the label of the same sample that an event takes the place of, −1 for none (the default): a person who
    votes again, or the first person to look at a label that came with the data · relabels: whether an event was asked
    for; by default all but a sample's first · ties_keep: a tie keeps the majority label that stood before it, as in
    Algorithm 1; if not, it has no label (−1), so that nothing depends on the order in which votes were given.
    """
    order = np.argsort(sample, kind="stable")
    rows, given = sample[order], label[order]
    instead = np.full(len(rows), -1) if replaced is None else replaced[order]
    opens = np.concatenate([[True], rows[1:] != rows[:-1]])[: len(rows)]
    closes = np.roll(opens, -1)
    asked = ~opens if relabels is None else relabels[order]
    state = Labels(
        np.zeros(shape, dtype=np.int64),
        np.full(shape[0], -1),
        np.zeros(shape[0], dtype=bool),
        np.zeros(shape[0], dtype=bool),
    )
    # Most samples of a large pool have one label, and nothing is to be counted
    alone = opens & closes & (instead < 0)
    after, formed = given.copy(), np.ones(len(rows), dtype=bool)
    state.histogram[rows[alone], given[alone]] = 1
    several = np.flatnonzero(~alone)
    running, after[several], formed[several] = _majorities(
        given[several], instead[several], opens[several], shape[1], ties_keep
    )
    last = closes[several]
    state.histogram[rows[several][last]] = running[last]

    final = rows[closes]
    state.majority[final] = after[closes]
    state.tied[final] = ~formed[closes]
    state.cleaned[final] = formed[closes] & asked[closes]
    majority, had_formed = np.empty_like(label), np.empty(len(label), dtype=bool)
    majority[order], had_formed[order] = after, formed
    return state, Votes(sample, label, majority, had_formed)


def _majorities(
    given: Ints, instead: Ints, opens: NDArray[np.bool_], n_classes: int, ties_keep: bool
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """(label histogram [T, C], majority label, whether one class has more votes) after each of T events, sample by sample.

    instead: the label that an event takes the place of, −1 for none · opens: whether it is the first of its sample.
    """
    at = np.arange(len(given))
    start = np.maximum.accumulate(np.where(opens, at, 0)) if len(given) else at
    one_hot = np.concatenate([np.eye(n_classes, dtype=np.int64), np.zeros((1, n_classes), dtype=np.int64)])  # −1: none
    change = one_hot[given] - one_hot[instead]
    votes_so_far = np.cumsum(change, axis=0)
    before = votes_so_far - change  # up to, but without, each event
    running = votes_so_far - before[start]
    top = running.max(axis=1, initial=0)
    formed = (running == top[:, None]).sum(axis=1) == 1  # always so at a sample's first vote
    after = running.argmax(axis=1)
    if ties_keep:
        after = after[np.maximum.accumulate(np.where(formed, at, 0))] if len(given) else after
    else:
        after[~formed] = -1
    return running, after, formed
