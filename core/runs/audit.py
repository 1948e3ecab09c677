"""How many labels are right, where no ground truth is known: an interval from images that people check at random.

A model alone cannot say it: on labels of known noise, estimates from its predictions were off by its own errors, in and out of
fold (`python -m benchmarks label-accuracy`). So one image in `EVERY` of a queue is the next of a random order that neither a
ranking nor an answer has any influence on. The first images of this order, as far as people have answered them, are a
random sample of the pool. What people say is taken as right.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core import metrics
from core.relabel import Ints
from core.runs.run import PERSON, Run
from core.store.log import standing
from data import votes

EVERY = 10
AHEAD = 1000  # places of a queue that are dealt out one by one; behind them the ranking goes on


@dataclass(frozen=True)
class Estimate:
    """Share of right labels among those that stand, in [0, 1], its 95 % interval, and how many random images were checked."""

    share: float
    low: float
    high: float
    checked: int


@lru_cache(maxsize=4)
def order(n: int, seed: int) -> Ints:
    """The random order of a run's n images: int64 [n]; other than that of the folds and of the score "random"."""
    found = np.argsort(votes.uniforms(seed, np.arange(n), votes.AUDIT), kind="stable")
    found.setflags(write=False)  # it is handed out again
    return found


def queue(ranked: Ints, n: int, seed: int, answered: int = 0) -> Ints:
    """The rows of a ranking [Q], best first, with images of the run's random order among them (`interleaved`)."""
    drawn = order(n, seed)
    return interleaved(ranked, drawn[np.isin(drawn, ranked)], answered)


def interleaved(ranked: Ints, drawn: Ints, answered: int) -> Ints:
    """A queue [Q] of the images of a ranking [Q], best first, in which every `EVERY`-th is the next of `drawn` [Q] instead.

    drawn: the same images in random order · answered: how many came before this queue.
    """
    ahead = min(AHEAD, len(ranked))
    placed: list[int] = []
    taken: set[int] = set()
    by_rank, by_chance = iter(ranked.tolist()), iter(drawn.tolist())
    for place in range(ahead):
        source = by_chance if (answered + place) % EVERY == EVERY - 1 else by_rank
        one = next(row for row in source if row not in taken)
        placed.append(one)
        taken.add(one)
    return np.concatenate([np.array(placed, dtype=np.int64), ranked[~np.isin(ranked, placed)]])


def label_accuracy(initial: Ints, decided: Ints, answered: NDArray[np.bool_], drawn: Ints) -> Estimate | None:
    """The share of right labels among those that stand, where what people decided replaced the initial ones.

    initial: labels at the start, int [N] · decided: what people said, −1 where they have not, or disagree · answered: bool [N],
    whether anybody was asked, undecided ones included, which count as wrong in the lower bound and as right in the upper ·
    drawn: the random order. None before the first of it is answered. The interval is exact for a random sample without
    replacement (hypergeometric, `metrics.share_interval`): it covers the truth in at least 95 % of all draws.
    """
    n = len(initial)
    waiting = np.flatnonzero(~answered[drawn])
    sample = drawn[: waiting[0] if len(waiting) else n]
    if len(sample) == 0:
        return None
    known, kept = decided >= 0, decided == initial
    right, undecided = int((known & kept)[sample].sum()), int((~known)[sample].sum())
    fixed = int((known & ~kept).sum())  # wrong at the start, right now
    least, most = int((known & kept).sum()), n - fixed  # right at the start, as far as it is known without any sample

    def now(first: float) -> float:
        return (min(max(first, least), most) + fixed) / n

    low, _ = metrics.share_interval(right, len(sample), n)
    _, high = metrics.share_interval(right + undecided, len(sample), n)
    share = right / (len(sample) - undecided) if undecided < len(sample) else 0.5
    return Estimate(now(share * n), now(low * n), now(high * n), len(sample))


def of_run(run: Run, sample_ids: list[str], up_to_cycle: int | None = None) -> Estimate | None:
    """`label_accuracy` of a cleaning run, from the answers of these cycles; None where people gave none."""
    events = standing(run.log.events(up_to_cycle, sources=PERSON))
    asked = set(events.loc[events["cycle"] > 0, "sample_id"])
    if not asked:
        return None
    state, _, _ = run.state(sample_ids, up_to_cycle)
    decided = np.where(state.cleaned, state.majority, -1)
    answered = np.fromiter((one in asked for one in sample_ids), dtype=bool, count=len(sample_ids))
    drawn = order(len(sample_ids), run.config.seed)
    return label_accuracy(run.state(sample_ids, 0)[0].majority, decided, answered, drawn)
