"""How far two rankings agree, and where a budget cuts one."""

from dataclasses import dataclass

import pandas as pd

from core import methods
from core.analysis import peers, samples
from core.runs.run import Run
from core.runs.spec import Config
from data.dataset import ImageDataset


def rankings_beside(run: Run, cycle: int) -> dict[str, str]:
    """What a ranking can be compared with: scores of the cycle, and other runs' own scores; key → title.

    A key is "score" or "run/score"; other runs are those on the same data and noise that have come as far.
    """
    found = {name: methods.described(name).title for name in run.ranking(cycle).columns if name in methods.scores()}
    for other in peers.comparable(run):
        if len(other.cycles()) > cycle and other.config.seed == run.config.seed:
            config = other.config_at(cycle)
            found[f"{other.id}/{config.method}"] = (
                f"{config.arm}: {methods.described(config.method).title} ({other.id[:15]})"
            )
    return found


def disagreement(run: Run, dataset: ImageDataset, cycle: int, first: str, second: str) -> pd.DataFrame:
    """Images that two rankings place differently, the most first: `samples` with place_first, place_second, apart.

    first, second: keys of `rankings_beside`. Places are shares in [0, 1] of the images that both can rank, 0 = checked or
    labelled first; apart = |place_first − place_second|.
    """
    table = samples.table(run, dataset, cycle)

    def of(key: str) -> pd.Series:
        other, _, name = key.rpartition("/")
        source = table if not other else Run(run.path.parent / other).ranking(cycle)
        return source[name].where(source["rank"].notna())

    values = pd.DataFrame({"first": of(first), "second": of(second)}).dropna()
    places = values.rank(ascending=False, method="average").sub(1).div(max(1, len(values) - 1))
    table = table.loc[values.index].assign(place_first=places["first"], place_second=places["second"])
    table["apart"] = (table["place_first"] - table["place_second"]).abs()
    return table.sort_values("apart", ascending=False, kind="stable")


def some(places: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many rows of `disagreement`, always the same ones: what a figure can draw."""
    return places if len(places) <= most else places.sample(most, random_state=0)


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree: Spearman's correlation, and how many of the `first` of each are `shared`."""

    correlation: float
    first: int
    shared: int


def agreement(places: pd.DataFrame) -> Agreement:
    """Of two rankings by `disagreement`: the first are a tenth, at most 100."""
    first = max(1, min(100, len(places) // 10))
    both = set(places.nsmallest(first, "place_first").index) & set(places.nsmallest(first, "place_second").index)
    return Agreement(float(places["place_first"].corr(places["place_second"])), first, len(both))


def next_cut(table: pd.DataFrame, config: Config) -> float | None:
    """The lowest score that the next budget takes, each sample counted as one label; None where all are taken."""
    ranked = table[table["rank"].notna()]
    if config.budget == 0 or len(ranked) <= config.budget:
        return None
    return float(ranked.nsmallest(config.budget, "rank")[config.method].min())
