"""Relabelling by a ranking that does not change, simulated once for equal content and read from the cache after that.

The one owner of simulated curves: envelopes, Figure 3 and what a budget buys are all read here. Needs no torch.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core import relabel
from core.relabel import Curves, Floats, Ints, Statistics
from core.runs.reference import (
    ground_truth_digest,
    initial_digest,
    initial_labels,
    reference_counts,
    reference_labels,
    relabel_seed,
)
from core.runs.run import home
from core.runs.spec import Config
from core.store.cache import ScoreCache, below, digest
from data.dataset import ImageDataset
from data.errors import UserError

VERSION = 1  # of what is simulated; with another one it is simulated again
VOTE_SETS = 5  # relabelling seeds, as the paper's five runs


def cache() -> ScoreCache:
    """Where curves are kept, below the home; what it has in memory lives no longer than itself."""
    return ScoreCache(below(home(), "curves"), reading=True)


def why_not(config: Config, dataset: ImageDataset) -> str:
    """Why relabelling by votes cannot be simulated where there are no counts of them."""
    if reference_labels(config, dataset) is None:
        return "People are asked for these labels"
    return "Masks are checked region by region, and nobody votes on them"


class Simulator:
    """Simulations on the initial labels of a configuration, over `VOTE_SETS` sets of votes, the first that of its own runs.

    What the cache has needs neither the labels nor their reference. Raises `UserError` where people are asked.
    """

    def __init__(self, config: Config, dataset: ImageDataset) -> None:
        if reference_counts(config, dataset) is None:
            raise UserError(f"{why_not(config, dataset)}, so nothing can be simulated: the curve is what was done.")
        self.config, self.dataset = config, dataset
        self.seeds = [relabel_seed(config) + k for k in range(VOTE_SETS)]
        self._key = {
            "simulation": VERSION,
            "reference": ground_truth_digest(config, dataset),
            "initial": initial_digest(config, dataset),
            "seeds": self.seeds,
        }
        self._cache = cache()

    def curves(self, policy: str | Floats, budget: int) -> list[Curves]:
        """Statistics of each set of votes after 0 … T labels, T the budget or as many as there were to collect.

        policy: as of `core.relabel.simulate`. What is collected does not depend on where it ends: the longest is kept, and a
        shorter one is its beginning.
        """
        key = {**self._key, "policy": policy if isinstance(policy, str) else digest(policy)}
        stored = self._cache.get(key, lambda: self._simulated(policy, budget), lambda found: found.shape[2] > budget)
        n, every = len(self.dataset), []
        for found in stored[:, :, : budget + 1]:
            clear, difficult, variation = found[:, ~np.isnan(found[0])]
            correctness = (n - clear - difficult) / n
            every.append(Curves(correctness, clear.astype(np.int64), difficult.astype(np.int64), variation))
        return every

    def correctness(self, policy: str | Floats, budget: int) -> Floats:
        """Share of right majority labels after 0 … budget labels, [S, budget + 1]; the last holds where none are left."""
        every = [one.correctness for one in self.curves(policy, budget)]
        return np.stack([np.pad(one, (0, budget + 1 - len(one)), mode="edge") for one in every])

    def minimal(self, budget: int) -> Floats:
        """The least that any policy can need, [budget + 1]: a straight line that corrects one sample with every two labels."""
        start = self.curves("random", budget)[0].correctness[0]
        return np.minimum(1.0, start + np.arange(budget + 1) / 2 / len(self.dataset))

    def _simulated(self, policy: str | Floats, budget: int) -> NDArray[np.float64]:
        """Clear and difficult errors and total variation of each set, [S, 3, budget + 1]; NaN where no label was left."""
        found = np.full((len(self.seeds), 3, budget + 1), np.nan)
        every = relabel.simulate_votes(self._reference, self._initial, policy, budget=budget, seeds=self.seeds)
        for s, taken in enumerate(every):
            curves = self._statistics.after(taken)
            found[s, :, : len(curves.correctness)] = (
                curves.clear_errors,
                curves.difficult_errors,
                curves.total_variation,
            )
        return found

    @cached_property
    def _reference(self) -> Ints:
        found = reference_counts(self.config, self.dataset)
        assert found is not None  # it has a digest
        return found

    @cached_property
    def _initial(self) -> Ints:
        return initial_labels(self.config, self.dataset)

    @cached_property
    def _statistics(self) -> Statistics:
        return Statistics(self._reference, self._initial)
