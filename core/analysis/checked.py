"""Label cleaning of masks: what checked regions gained, and what lies above and below. Needs no torch.

Simulated orders check the regions of the masks that a run starts from. The regions of a run change as it corrects them, so that
it may come out a little above the oracle.
"""

import numpy as np
import pandas as pd

from core import regions
from core.analysis import simulation
from core.masks import VOID
from core.regions import Tally
from core.relabel import Floats, Ints
from core.runs.merged import BASE, places
from core.runs.reference import ground_truth_digest, initial_digest, initial_labels, reference_labels, relabel_seed
from core.runs.run import Run
from core.runs.spec import Config
from data.dataset import ImageDataset
from data.masks import widened

POINTS = 200  # of an envelope over pixels
AXIS = {"labels": "n_labels", "pixels": "n_pixels"}
"""The column of a curve that counts what a budget counts."""


def replayed(run: Run, dataset: ImageDataset, up_to_cycle: int | None) -> Floats:
    """Checked pixels and share of right ones after 0 … T checked regions, [2, T + 1]; empty before the initial masks."""
    reference, events = reference_labels(run.config, dataset), run.log.labels(up_to_cycle)
    if reference is None or "digest" not in events:
        return np.empty((2, 0))
    row, base = places(events["sample_id"], dataset.ids), events["source"].isin(BASE).to_numpy()
    by_image = np.argsort(row, kind="stable")
    ends = np.searchsorted(row[by_image], np.arange(len(dataset) + 1))
    gained, known = np.zeros(len(events), dtype=np.int64), 0
    for k in range(len(dataset)):
        truth = np.asarray(reference[k])
        mask, has, right = np.full(truth.shape, VOID), truth != VOID, 0
        known += int(has.sum())
        for event in by_image[ends[k] : ends[k + 1]]:
            codes = widened(run.masks.read(events["digest"].iloc[event]))
            mask = np.where(codes == VOID, mask, codes)
            now = int((mask == truth)[has].sum())
            gained[event], right = now - right, now
    cost = np.concatenate([[0.0], np.cumsum(events["pixels"].to_numpy(np.float64)[~base])])
    right_after = gained[base].sum() + np.concatenate([[0], np.cumsum(gained[~base])])
    return np.stack([cost, right_after / max(1, known)])


def start(config: Config, dataset: ImageDataset) -> Tally:
    """The regions of the masks that a run starts from, against the reference; counted once for equal content."""
    key = {
        "regions": simulation.VERSION,
        "reference": ground_truth_digest(config, dataset),
        "initial": initial_digest(config, dataset),
    }

    def count() -> Ints:
        found = regions.tally(initial_labels(config, dataset), reference_labels(config, dataset))
        totals = [found.right, found.known, 0, 0]
        return np.column_stack([np.stack([found.image, found.number, found.pixels, found.wrong]), totals])

    stored = simulation.cache().get(key, count)
    image, number, pixels, wrong = stored[:, :-1]
    return Tally(image, number, pixels, wrong, int(stored[0, -1]), int(stored[1, -1]))


def envelopes(config: Config, dataset: ImageDataset, budget: int) -> pd.DataFrame:
    """Bounds of a run: policy ("oracle" | "random"), n_labels or n_pixels as its budget counts, mean, standard deviation.

    Over 0 … budget of these; random over `core.analysis.simulation.VOTE_SETS` orders.
    """
    it, unit = start(config, dataset), config.budget_unit
    x = np.arange(budget + 1) if unit == "labels" else np.linspace(0, budget, POINTS)
    every = {
        "oracle": [regions.curve(it, regions.oracle(it, unit), unit)],
        "random": regions.random(it, unit, _seeds(config)),
    }
    parts = []
    for policy, curves in every.items():
        heights = np.stack([regions.at(*curve, x) for curve in curves])
        sd = heights.std(axis=0, ddof=1) if len(curves) > 1 else 0.0
        parts.append(pd.DataFrame({"policy": policy, AXIS[unit]: x, "mean": heights.mean(axis=0), "sd": sd}))
    return pd.concat(parts, ignore_index=True)


def areas(config: Config, dataset: ImageDataset, curve: pd.DataFrame) -> tuple[float, float, float]:
    """AUC of a run's curve, of the random order and of the oracle, over the labels or pixels that the run collected."""
    unit = config.budget_unit
    x = curve[AXIS[unit]].to_numpy(np.float64)
    own = regions.area(x, curve["correctness"].to_numpy(np.float64), float(x[-1]), unit)
    return own, *regions.bounds(start(config, dataset), float(x[-1]), unit, _seeds(config))


def drawn(curves: pd.DataFrame, config: Config) -> tuple[pd.DataFrame, str]:
    """Curves of runs of a configuration, in whose column n_labels stands what its budget counts; and what counted it before.

    Of pixels every curve has the same points, at most `POINTS`, as far as all of them go.
    """
    axis = AXIS[config.budget_unit]
    if axis == "n_labels":
        return curves, axis
    x = np.linspace(0, curves.groupby("run")[axis].max().min(), POINTS)
    parts = [
        part.iloc[[0] * POINTS].assign(
            n_labels=x, correctness=regions.at(part[axis].to_numpy(), part["correctness"].to_numpy(), x)
        )
        for _, part in curves.groupby("run", sort=False)
    ]
    return pd.concat(parts, ignore_index=True), axis


def _seeds(config: Config) -> range:
    first = relabel_seed(config)
    return range(first, first + simulation.VOTE_SETS)
