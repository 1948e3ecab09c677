"""What differs between two cycles, of one run or of two: settings, measures, who was chosen, ranks and labels. Needs no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pyarrow.parquet

from core.analysis import measures, peers
from core.plots import maps
from core.runs import answers, same
from core.runs.run import Run, all_runs
from core.runs.spec import OPTIONS, Config
from core.store.log import standing
from data.dataset import ImageDataset
from data.errors import UserError

NONE = -1  # rank or label of a sample that has none
MEASURES = (
    *("n_labels", "correctness", "estimated_correctness", "estimated_low", "estimated_high", "agreement", "accuracy"),
    *("miou", "pixel_accuracy"),
    *("clear_errors", "difficult_errors", "gap"),
)


@dataclass(frozen=True)
class Side:
    """One of the two: a finished cycle of a run."""

    run: Run
    cycle: int

    @property
    def config(self) -> Config:
        """By which the cycle was ranked."""
        return self.run.config_at(self.cycle)


@dataclass(frozen=True, eq=False)
class Diff:
    """Two cycles over the same N images.

    samples: one row an image in pool order, its index the row: rank_first, rank_second (int32, 1 = next, −1 none), label_first,
    label_second (int16, −1 none), drawn_first, drawn_second (uint64, alike of the same masks, 0 without any), chosen_first,
    chosen_second (bool: got a label after the first ranking) · next_first, next_second (bool): among the next budget of the
    cycle · correlation: Spearman's, over the images that both rank; NaN below two.
    """

    samples: pd.DataFrame
    settings: pd.DataFrame
    measures: pd.DataFrame
    correlation: float


def comparable(run: Run) -> list[Run]:
    """The runs of the same images, whatever the task, this one first."""
    others = [other for other in all_runs() if other.id != run.id and peers.readable(other)]
    return [run, *(other for other in same.alike(run, others, same.IMAGES) if len(other.cycles()))]


def diff(first: Side, second: Side) -> Diff:
    """Compare two cycles. Raises `UserError` where they are not of the same images, or a ranking cannot be read."""
    if differing := same.differing(first.run, second.run, same.IMAGES):
        raise UserError(
            f"Runs {first.run.id} and {second.run.id} are not of the same images ({', '.join(differing)}): choose two with the "
            "same data set and limit."
        )
    table = pd.DataFrame()
    for name, side in (("first", first), ("second", second)):
        rank, label = _ranking(side)
        table[f"rank_{name}"], table[f"label_{name}"] = rank, label
        table[f"drawn_{name}"] = _drawn(side)
        table[f"chosen_{name}"] = _chosen(side)
        table[f"next_{name}"] = (rank > 0) & (rank <= max(1, side.config.budget))
    both = table[(table["rank_first"] > 0) & (table["rank_second"] > 0)]
    ranks = both[["rank_first", "rank_second"]].rank()
    correlation = float(ranks.corr().iloc[0, 1]) if len(both) > 1 else float("nan")
    return Diff(table, settings(first.config, second.config), _measures(first, second), correlation)


def groups(samples: pd.DataFrame) -> dict[str, "pd.Series[bool]"]:
    """Who was chosen by one and not by the other, and who is next; name → mask over `Diff.samples`."""
    return {
        f"{name} by the {who} alone": samples[f"{column}_{who}"] & ~samples[f"{column}_{other}"]
        for name, column in (("labelled", "chosen"), ("next", "next"))
        for who, other in (("first", "second"), ("second", "first"))
    }


def sentence(found: Diff) -> str:
    """What differs, in numbers."""
    samples = found.samples
    both = (samples["chosen_first"] & samples["chosen_second"]).sum()
    one = [(samples[f"chosen_{name}"].sum() - both) for name in ("first", "second")]
    ahead = (samples["next_first"] & samples["next_second"]).sum()
    least = min(samples["next_first"].sum(), samples["next_second"].sum())
    rounded = round(found.correlation, 2) + 0.0  # no −0
    correlation = "" if np.isnan(rounded) else f", rank correlation (Spearman) {rounded:.2f}"
    changed = len(relabelled(samples))
    return (
        f"Labelled since the start: {both:,} images by both, {one[0]:,} only by the first, {one[1]:,} only by the second. "
        f"Next in line: {ahead:,} of {least:,} are the same{correlation}. Labels that differ: {changed:,} of {len(samples):,}."
    )


def named(samples: pd.DataFrame, dataset: ImageDataset) -> pd.DataFrame:
    """Rows of `Diff.samples` as one reads them: sample_id, given_first, given_second (names), ranks, moved.

    moved: rank_first − rank_second: by how many places the second takes it earlier; missing where one does not rank it.
    """
    written = answers.of(dataset.class_names, dataset.answer).written
    ranks = {name: samples[name].where(samples[name] > 0).astype("Int64") for name in ("rank_first", "rank_second")}
    return pd.DataFrame(
        {
            "sample_id": [dataset.ids[row] for row in samples.index],
            "given_first": written(samples["label_first"]),
            "given_second": written(samples["label_second"]),
            **ranks,
            "moved": ranks["rank_first"] - ranks["rank_second"],
        },
        index=samples.index,
    )


def moved(samples: pd.DataFrame) -> pd.DataFrame:
    """The images that both rank and place differently, those that move furthest first."""
    both = samples[(samples["rank_first"] > 0) & (samples["rank_second"] > 0)]
    far = (both["rank_first"] - both["rank_second"]).abs()
    return both.loc[far[far > 0].sort_values(ascending=False, kind="stable").index]


def relabelled(samples: pd.DataFrame) -> pd.DataFrame:
    """The images whose labels differ; of masks those of which other masks are in the log."""
    return samples[
        (samples["label_first"] != samples["label_second"]) | (samples["drawn_first"] != samples["drawn_second"])
    ]


def drawn(
    samples: pd.DataFrame, dataset: ImageDataset, first: Run, at: int, second: Run, then: int, points: int
) -> go.Figure:
    """The plane of two ranks over images that both cycles rank; at most so many `points`, the same every time."""
    some = samples if len(samples) <= points else samples.sample(points, random_state=0)
    table = pd.DataFrame(
        {
            "place_first": (some["rank_first"] - 1) / max(1, samples["rank_first"].max() - 1),
            "place_second": (some["rank_second"] - 1) / max(1, samples["rank_second"].max() - 1),
            "kind": "",
            "sample_id": [dataset.ids[row] for row in some.index],
        },
        index=some.index,
    )
    many = "" if len(some) == len(samples) else f"; {len(some):,} of them drawn"
    text = (
        f"cycle {at}, against {second.id}, cycle {then}; {len(samples):,} images that both rank; 0 %: taken first{many}"
    )
    drawn = maps.places(table, "the first", "the second", measures.note(first, text))
    return drawn.update_layout(dragmode="lasso")


def _ranking(side: Side) -> tuple[np.ndarray, np.ndarray]:
    path = side.run.cycle_path(side.cycle) / "ranking.parquet"
    try:
        found = pyarrow.parquet.read_table(path, columns=["rank", "label"]).to_pandas()
    except (OSError, ValueError, KeyError):
        side.run.ranking(side.cycle)  # says what is wrong
        raise
    return found["rank"].fillna(NONE).to_numpy(np.int32), found["label"].to_numpy(np.int16)


def _drawn(side: Side) -> np.ndarray:
    """Which masks the log has of each image, a number [N] that the same masks share; 0 without any."""
    ids = pyarrow.parquet.read_table(side.run.cycle_path(side.cycle) / "ranking.parquet", columns=["sample_id"])
    events, found = side.run.log.labels(side.cycle), np.zeros(ids.num_rows, dtype=np.uint64)
    if "digest" in events:
        told = (events["source"] + " " + events["digest"]).groupby(events["sample_id"]).agg("\n".join)
        texts = ids["sample_id"].to_pandas().map(told)
        found[texts.notna()] = pd.util.hash_array(texts.dropna().to_numpy(object))
    return found


def _chosen(side: Side) -> np.ndarray:
    """Which images [N] got a label after the first ranking."""
    ids = pyarrow.parquet.read_table(side.run.cycle_path(side.cycle) / "ranking.parquet", columns=["sample_id"])
    given = standing(side.run.log.events(side.cycle, after=0))
    return ids["sample_id"].to_pandas().isin(given.loc[given["label"] >= 0, "sample_id"]).to_numpy()


def settings(first: Config, second: Config) -> pd.DataFrame:
    """setting, first, second: as text, those that differ, of those that say how a run works and not where it comes from."""
    rows = []
    for name, one in OPTIONS.items():
        values = [getattr(config, name) for config in (first, second)]
        if values[0] != values[1] and one.option.identity not in ("data", "lineage") and one.option.level != "program":
            title = one.named(first.task if first.task == second.task else None).replace("_", " ")
            rows.append([title, *map(_text, values)])
    return pd.DataFrame(rows, columns=["setting", "first", "second"])


def _text(value: Any) -> str:
    return "—" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _measures(first: Side, second: Side) -> pd.DataFrame:
    """measure, first, second (NaN where a run has it not) and change, second less first."""
    rows = [dict(side.run.cycles().iloc[side.cycle]) for side in (first, second)]
    for row in rows:
        if pd.isna(row.get("estimated_low")):  # of a model that has learnt the labels: no estimate to compare
            row.pop("estimated_correctness", None)
    found = [
        {"measure": name, "first": rows[0].get(name, np.nan), "second": rows[1].get(name, np.nan)}
        for name in MEASURES
        if any(name in row for row in rows)
    ]
    table = pd.DataFrame(found, columns=["measure", "first", "second"]).astype({"first": float, "second": float})
    return table.assign(change=table["second"] - table["first"])
