"""What came of removing labels and retraining: the predicted against the realised change of the held-out loss. Needs no torch.

Reads what `core.engine.removal` measured. Several runs that differ in their seed alone are pooled: a run is then one observation,
the mean over its retrainings, since these share their labels and their prediction.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.analysis import bounds
from core.analysis.comparison import POWER, detectable_difference
from core.plots import curves
from core.relabel import Floats
from core.runs import removal
from core.runs.removal import Removal
from core.runs.run import Run
from data.errors import UserError

Study = tuple[Run, Removal]

CONTRAST = "top − bottom"
CHANGES = ["predicted", "predicted_rest", "realised", "low", "high", "sd", "detectable"]
COLUMNS = ["seed", "cycle", "n_labels", "choice", "n_removed", *CHANGES, "trainings", "run"]
POOLED = ["cycle", "n_labels", "choice", "n_removed", *CHANGES, "runs", "seeds", "trainings"]
DAMPINGS = [
    *("seed", "cycle", "damping", "own", "signed", "absolute"),
    *("k", "signed_top", "absolute_top", "chance", "iterations", "residual", "failed", "run"),
]
TITLES = {
    "removal": "Predicted and realised change of the held-out loss",
    "removal-pooled": "The same over runs",
    "dampings": "Rank stability over damping",
}
PRINTED = tuple(TITLES)
DEFINITIONS = {
    "removal": (
        "Change of the mean held-out loss, in nats, where the labels of highest signed Eq. 2 (top), of lowest (bottom) or as "
        "many at random are removed and the model is retrained from scratch; above 0 the loss rises without them: they helped. "
        "predicted: Eq. 2 summed over the removed, the mean of the training loss still divided by n; predicted_rest: divided by "
        "the labels that are left, as the retraining does. realised: paired with a training on all labels from the same seed, "
        "mean and 95 % t-interval over trainings; detectable: the smallest true change that a t-test at 5 % with as many "
        f"observations of the same spread finds with a probability of {100 * POWER:.0f} %."
    ),
    "removal-pooled": "A run is one observation, the mean over its trainings: interval, sd and detectable are over runs.",
    "dampings": (
        "How alike the influences of the labels are under another damping and under the run's: Spearman's correlation of signed "
        "Eq. 2 and of its absolute value, Eq. 3, and of the k highest by one damping, how many are among the k highest by the "
        "other, k being the number of labels removed; by chance k² / n are."
    ),
    "labels": (
        "Each labelled image: Eq. 2 (influence), Eq. 3 (absolute) and Eq. 4 (bound), of the summed held-out loss, in nats; and "
        "which choices removed it."
    ),
    "ladder": (
        "Quartiles over the candidates of a cycle of Eqs. 2 to 5 (target, approx-1 to -3), of the summed held-out loss, in nats."
    ),
}


def studies(runs: Sequence[Run]) -> list[Study]:
    """The studies of some runs, the last cycle's of each. Raises as `core.runs.removal.read`."""
    return [(run, found[-1]) for run in runs if (found := removal.of_run(run))]


def of_cycle(run: Run, cycle: int) -> list[Study]:
    """The study of a cycle. Raises `UserError` where there is none, and as `core.runs.removal.read`."""
    found = removal.read(run, cycle)
    if found is None:
        raise UserError(
            f"No labels of cycle {cycle} of run {run.id} were removed: `{removal.command(run, cycle)}` does it."
        )
    return [(run, found)]


def table(found: Sequence[Study]) -> pd.DataFrame:
    """A row a study and choice, and one for the difference of top and bottom; `COLUMNS`.

    n_labels, n_removed: of n labels so many · predicted, predicted_rest: of `core.runs.removal.Removal` · realised: mean over the
    trainings; low, high: its 95 % t-interval; sd: of the trainings; detectable: the smallest true change that so many of them
    find (`core.analysis.comparison`); missing for one training. Changes are of the mean held-out loss, in nats.
    """
    rows = []
    for run, one in found:
        place = [run.config.seed, one.cycle, len(one.sample_ids)]
        for choice, predicted, rest, realised in _changes(one):
            removed = None if choice == CONTRAST else one.n_removed
            rows.append([*place, choice, removed, predicted, rest, *_interval(realised), len(realised), run.id])
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n_removed": "Int64"})


def pooled(found: Sequence[Study]) -> pd.DataFrame:
    """`table` over runs of equal numbers of labels and removed labels, a row a choice; `POOLED`.

    The interval, sd and detectable are over runs, each the mean over its trainings: how many there are says `runs`.
    """
    rows, long = [], table(found)
    for key, part in long.groupby(["cycle", "n_labels", "choice", "n_removed"], sort=False, dropna=False):
        realised = part["realised"].to_numpy(np.float64)
        means = [float(part[name].mean()) for name in ("predicted", "predicted_rest")]
        seeds = ", ".join(str(seed) for seed in sorted(part["seed"]))
        rows.append([*key, *means, *_interval(realised), len(part), seeds, int(part["trainings"].sum())])
    return pd.DataFrame(rows, columns=POOLED).astype({"n_removed": "Int64"})


def dampings(found: Sequence[Study]) -> pd.DataFrame:
    """A row a study and damping; `DAMPINGS`.

    own: the run's damping, with which the others are compared · signed, absolute: Spearman's correlations of Eq. 2 and Eq. 3 ·
    signed_top, absolute_top: of the k highest by one, how many are among the k highest by the other; by chance k² / n ·
    iterations, residual: of the conjugate gradients · failed: why nothing is known, "" where it is.
    """
    rows = []
    for run, one in found:
        k, n = one.n_removed, len(one.sample_ids)
        for other in one.dampings:
            ranks = [other.signed, other.absolute, k, other.signed_top, other.absolute_top, k**2 / n]
            cg = [other.iterations, other.residual, other.failed]
            rows.append([run.config.seed, one.cycle, other.damping, one.damping, *ranks, *cg, run.id])
    numbers = dict.fromkeys(("signed", "absolute", "residual"), float)
    counts = dict.fromkeys(("signed_top", "absolute_top", "iterations"), "Int64")
    return pd.DataFrame(rows, columns=DAMPINGS).astype({**numbers, **counts})


def labels(found: Sequence[Study]) -> pd.DataFrame:
    """A row a study and labelled image: run, seed, cycle, sample_id, influence (Eq. 2), absolute (Eq. 3), bound (Eq. 4), removed.

    Of the summed held-out loss, as the columns of a ranking · removed: by which choices, "" by none.
    """
    parts = []
    for run, one in found:
        removed = [""] * len(one.sample_ids)
        for choice in one.removed:
            for at in choice.at:
                removed[at] = f"{removed[at]} {choice.choice}".strip()
        influence = np.array(one.influence)
        parts.append(
            pd.DataFrame(
                {
                    "run": run.id,
                    "seed": run.config.seed,
                    "cycle": one.cycle,
                    "sample_id": one.sample_ids,
                    "influence": influence,
                    "absolute": np.abs(influence),
                    "bound": one.bound,
                    "removed": removed,
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def tables(found: Sequence[Study]) -> dict[str, pd.DataFrame]:
    """All tables of some studies, by the names of `DEFINITIONS`; those that would be empty, and `removal-pooled` of one run, are
    left out."""
    ladders = [bounds.ladder(run).assign(run=run.id, seed=run.config.seed) for run, _ in found]
    made = {
        "removal": table(found),
        "removal-pooled": pooled(found),
        "dampings": dampings(found),
        "labels": labels(found),
        "ladder": pd.concat(ladders, ignore_index=True),
    }
    if len(found) < 2:
        del made["removal-pooled"]
    return {name: one for name, one in made.items() if len(one)}


def figure(found: Sequence[Study]) -> go.Figure:
    """Predicted against realised change, a point a study and choice with its interval; found: not empty."""
    (run, one), n = found[0], len(found)
    config, seeds = run.config, ", ".join(str(run.config.seed) for run, _ in found)
    small = (
        f"{config.dataset}, {len(one.sample_ids):,} labels, {one.n_removed:,} of them removed · {config.network}, "
        f"{config.duration} · {n} run{'s' * (n > 1)}, seed {seeds}, cycle {one.cycle}\n"
        f"mean and 95 % t-interval over {len(one.seeds)} trainings, paired by seed; held-out loss: mean over {one.n_held_out:,} "
        f"test images; predicted: Eq. 2, damping {one.damping:g}; above 0 the removed labels helped"
    )
    points = table(found)
    return curves.realised(points[points["choice"] != CONTRAST], small)


def sentence(one: Removal) -> str:
    """What a study found, in a sentence for each choice."""
    parts = []
    for choice, predicted, _, realised in _changes(one):
        if choice != CONTRAST:
            mean, low, high, *_ = _interval(realised)
            between = "" if np.isnan(low) else f" [{low:+.4f}, {high:+.4f}]"
            parts.append(f"{choice} {mean:+.4f}{between}, predicted {predicted:+.4f}")
    return (
        f"Removing {one.n_removed:,} of the {len(one.sample_ids):,} labels of cycle {one.cycle} changed the held-out loss by "
        f"(nats, {len(one.seeds)} training{'s' * (len(one.seeds) != 1)}): {'; '.join(parts)}."
    )


def _changes(one: Removal) -> list[tuple[str, float, float, Floats]]:
    """(choice, predicted, predicted for a mean over the rest, realised by training) of each choice, and of top − bottom."""
    found = [(c.choice, one.predicted(c), one.predicted_rest(c), one.realised(c)) for c in one.removed]
    top, bottom, _ = found
    return [*found, (CONTRAST, top[1] - bottom[1], top[2] - bottom[2], top[3] - bottom[3])]


def _interval(values: Floats) -> tuple[float, float, float, float, float]:
    """Mean of some values, low and high of its 95 % t-interval, their standard deviation, and what they can detect."""
    from scipy.special import stdtrit  # slow to import

    n, mean = len(values), float(values.mean())
    if n < 2:
        return mean, np.nan, np.nan, np.nan, np.nan
    sd = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * sd / np.sqrt(n)
    return mean, mean - half, mean + half, sd, detectable_difference(n, sd)
