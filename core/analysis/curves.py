"""What each cycle did and came to: how accuracy and label accuracy grow with the labels, and what lies above and below."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import metrics, relabel
from core.analysis import checked, measures, peers, policies, simulation
from core.analysis.simulation import Simulator
from core.plots import curves as plots
from core.relabel import Floats
from core.runs import answers, questions
from core.runs.reference import ground_truth_digest, initial_labels, reference_counts, reference_labels
from core.runs.run import Run
from core.runs.spec import Config
from data.dataset import ImageDataset


def learning_curve(runs: list[Run]) -> pd.DataFrame:
    """Test accuracy against labels, one row a run and cycle: run, method, seed, cycle, n_labels, accuracy, gap.

    accuracy: where labels are masks the mean IoU (`core.analysis.measures.cycles`).
    """
    parts = [measures.cycles(run).assign(run=run.id, method=run.config.arm, seed=run.config.seed) for run in runs]
    columns = ["run", "method", "seed", "cycle", "n_labels", "accuracy", "gap"]
    parts = [part.reindex(columns=columns) for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def cleaning_curve(run: Run, dataset: ImageDataset, up_to_cycle: int | None = None) -> pd.DataFrame:
    """Correctness after 0 … T collected labels of a cleaning run: run, method, seed, n_labels, correctness.

    Where labels are masks a label is a checked region, and n_pixels are those of all that were checked so far. Empty where no
    ground truth is available.
    """
    columns = ["run", "method", "seed", "n_labels", "correctness"]
    config = run.config
    if reference_labels(config, dataset) is None:
        return pd.DataFrame(columns=columns)
    key = {"cleaning curve": simulation.VERSION, "log": run.log.identity(), "until": up_to_cycle}
    key["reference"] = ground_truth_digest(config, dataset)
    replayed = CHECKS[dataset.answer].replayed
    *pixels, curve = np.atleast_2d(simulation.cache().get(key, lambda: replayed(run, dataset, up_to_cycle)))
    if len(curve) == 0:
        return pd.DataFrame(columns=columns)
    return pd.DataFrame(
        {
            "run": run.id,
            "method": config.arm,
            "seed": config.seed,
            "n_labels": np.arange(len(curve)),
            **dict(zip(["n_pixels"], pixels, strict=False)),
            "correctness": curve,
        }
    )


def _replayed(run: Run, dataset: ImageDataset, up_to_cycle: int | None) -> Floats:
    """Correctness after 0 … T collected labels, [T + 1]; empty before the initial labels are there."""
    reference = reference_counts(run.config, dataset)
    _, taken, _ = run.state(dataset.ids, up_to_cycle)
    n = len(dataset.ids)
    if reference is None or len(taken.sample) < n:
        return np.empty(0)
    # The first n events are the initial labels
    initial = np.empty(n, dtype=np.int64)
    initial[taken.sample[:n]] = taken.label[:n]
    return relabel.correctness_curve(reference.argmax(axis=1), initial, taken[n:])


def envelopes(config: Config, dataset: ImageDataset, budget: int) -> pd.DataFrame:
    """Bounds of a cleaning run: policy ("oracle" | "random" | "minimal"), n_labels, mean and standard deviation.

    Oracle and random simulated over `VOTE_SETS` draws of annotations on the run's own initial labels; minimal is the
    straight line that corrects one sample with every two labels. Where labels are masks as `core.analysis.checked.envelopes`.
    Empty where no ground truth is available.
    """
    if reference_labels(config, dataset) is None:
        return pd.DataFrame(columns=["policy", "n_labels", "mean", "sd"])
    return CHECKS[dataset.answer].envelopes(config, dataset, budget)


def _envelopes(config: Config, dataset: ImageDataset, budget: int) -> pd.DataFrame:
    simulator, x = Simulator(config, dataset), np.arange(budget + 1)
    parts = []
    for policy in ("oracle", "random"):
        curves = simulator.correctness(policy, budget)
        parts.append(
            pd.DataFrame(
                {"policy": policy, "n_labels": x, "mean": curves.mean(axis=0), "sd": curves.std(axis=0, ddof=1)}
            )
        )
    parts.append(pd.DataFrame({"policy": "minimal", "n_labels": x, "mean": simulator.minimal(budget), "sd": 0.0}))
    return pd.concat(parts, ignore_index=True)


def _areas(config: Config, dataset: ImageDataset, curve: pd.DataFrame) -> tuple[float, float, float]:
    bounds = _envelopes(config, dataset, len(curve) - 1).groupby("policy")["mean"].mean()
    return float(curve["correctness"].mean()), float(bounds["random"]), float(bounds["oracle"])


def _correct(config: Config, dataset: ImageDataset) -> float:
    counts = reference_counts(config, dataset)
    assert counts is not None, "asked where the right labels are known"
    return metrics.correctness(initial_labels(config, dataset), counts)


class Checks(NamedTuple):
    """Label cleaning of one kind of labels.

    replayed: correctness after 0 … T collected labels [T + 1], or [2, T + 1] with the pixels before it · envelopes: as the
    function of this name · areas: of a `cleaning_curve`, of the random order and of the oracle · drawn: `cleaning_curve`s of a
    configuration as figures draw them, in whose column n_labels stands what a budget counts, and the name of the column that
    counted it · correct: the share of what is right at the start · counted, right: what that is a share of, and when it is
    right, in words · collected: what each column counts, in words · simulated: the envelopes that are means over several
    simulations, and what differs from one to the next.
    """

    replayed: Callable[[Run, ImageDataset, int | None], Floats]
    envelopes: Callable[[Config, ImageDataset, int], pd.DataFrame]
    areas: Callable[[Config, ImageDataset, pd.DataFrame], tuple[float, float, float]]
    drawn: Callable[[pd.DataFrame, Config], tuple[pd.DataFrame, str]]
    correct: Callable[[Config, ImageDataset], float]
    counted: str
    right: str
    collected: dict[str, str]
    simulated: dict[str, str]


CHECKS = {
    answers.ClassAnswer.kind: Checks(
        _replayed,
        _envelopes,
        _areas,
        lambda curves, config: (curves, "n_labels"),
        _correct,
        "labels",
        "correct majority labels",
        {"n_labels": "collected labels"},
        plots.SIMULATED,
    ),
    answers.MaskAnswer.kind: Checks(
        checked.replayed,
        checked.envelopes,
        checked.areas,
        checked.drawn,
        lambda config, dataset: checked.start(config, dataset).correctness,
        "pixels",
        "correct pixels",
        {"n_labels": "checked regions", "n_pixels": "checked pixels"},
        {"random": "random orders"},
    ),
}


def figure(run: Run, dataset: ImageDataset, cycle: int, others: list[Run] | None = None) -> go.Figure:
    """The curve of a run, marked at a cycle: test accuracy, label accuracy between random and oracle, or its estimate.

    others: further runs to draw, by default those that differ from this one in the seed alone.
    """
    config, accuracy = run.config_at(cycle), measures.test_title(run)
    runs = [run, *(peers.same_experiment(run) if others is None else others)]
    if not config.question.checks:
        text = f"{run.answer.measure} on the test set after each training; band ± 1 s.d. over seeds"
        return plots.learning_curves(learning_curve(runs), cycle, measures.note(run, text), accuracy)
    if reference_labels(config, dataset) is None:
        text = f"{run.answer.measure} on the test set after each training"
        if questions.kind(config.task, run.answer.kind).drawn:
            text = "estimate: from images of a random order that people checked, taken as correct; exact 95 % interval"
        return plots.estimates(measures.cycles(run), cycle, measures.note(run, text), accuracy)
    checks = CHECKS[dataset.answer]
    table, axis = checks.drawn(pd.concat([cleaning_curve(one, dataset) for one in runs], ignore_index=True), config)
    at, end = int(run.cycles()[axis].iloc[cycle]), float(table["n_labels"].max())
    bounds = envelopes(config, dataset, int(end)).rename(columns={axis: "n_labels"})
    collected = checks.collected[axis]
    text = measures.note(run, f"AUC: mean share of {checks.right} over the {collected}; bands ± 1 s.d.")
    return plots.cleaning_curves(
        table, bounds, at, text, collected.capitalize(), checks.right.capitalize(), checks.simulated
    )


def cycle_changes(run: Run, dataset: ImageDataset) -> pd.DataFrame:
    """What each cycle did: cycle, labels collected, samples touched, majority labels changed, seconds per phase."""
    _, taken, events = run.state(dataset.ids)
    before: Floats = np.full(len(dataset.ids), -1.0)
    seen = np.zeros(len(dataset.ids), dtype=bool)
    rows = []
    phases = run.log.phases()
    for cycle in sorted(set(phases["cycle"])):
        mine = (events["cycle"] == cycle).to_numpy()
        after = before.copy()
        after[taken.sample[mine]] = taken.majority[mine]  # the last event of a sample wins
        spent = phases[phases["cycle"] == cycle].set_index("phase")["seconds"]
        rows.append(
            {
                "cycle": int(cycle),
                "labels": int(mine.sum()),
                "samples": len(np.unique(taken.sample[mine])),
                "changed": int(((after != before) & seen).sum()),
                "training_s": spent.get("train"),
                "scoring_s": spent.get("score"),
            }
        )
        before = after
        seen[taken.sample[mine]] = True
    return pd.DataFrame(rows)


def cycle_table(run: Run, dataset: ImageDataset) -> pd.DataFrame:
    """What each cycle did and came to: `cycle_changes` with the measures of `Run.cycles`."""
    return cycle_changes(run, dataset).merge(run.cycles().drop(columns="seconds"), on="cycle", how="left")


def summary(run: Run, dataset: ImageDataset) -> dict[str, Any]:
    """The object that `run --json` prints: run, task, seed, cycles, auc, auc_normalised.

    Label cleaning: mean correctness over the collected labels, of masks over what the budget counts, and the same on the scale
    from the random order (0) to the oracle (1). Active learning: mean accuracy over the labels, of masks mean IoU (trapezoids),
    and no normalised value.
    """
    config, cycles = run.config, run.cycles()
    auc = normalised = None
    if config.question.checks:
        curve = cleaning_curve(run, dataset)
        if len(curve) > 1:
            auc, random, oracle = CHECKS[dataset.answer].areas(config, dataset, curve)
            normalised = metrics.normalised_auc(auc, random, oracle)
    elif (first := run.answer.measured[0]) in cycles:  # not so without a test set
        auc = metrics.area_under_curve(cycles["n_labels"], cycles[first])
    return {
        "run": run.id,
        "task": config.task,
        "seed": config.seed,
        "cycles": [row.dropna().to_dict() for _, row in cycles.astype(object).iterrows()],
        "auc": auc,
        "auc_normalised": normalised,
    }


def simulable(run: Run, dataset: ImageDataset) -> bool:
    """Whether relabelling by the run's first ranking can be simulated: somebody knows the true label distributions.

    The first ranking of a branch is another run's.
    """
    return reference_counts(run.config, dataset) is not None and run.config.earlier is None


def policy_statistics(runs: list[Run], dataset: ImageDataset) -> pd.DataFrame:
    """What the first rankings of runs come to at the end of the budget (`core.analysis.policies.statistics`)."""
    return policies.statistics(runs, dataset, policies.simulated(runs, dataset))


def areas(runs: list[Run], dataset: ImageDataset) -> pd.DataFrame:
    """One row a run: method, seed, n_labels, last (accuracy or correctness at the end), auc, auc_normalised, run."""
    rows = []
    for run in runs:
        found, cycles = summary(run, dataset), measures.cycles(run)
        last = cycles.iloc[-1]
        rows.append(
            {
                "method": run.config.method,
                "seed": run.config.seed,
                "n_labels": int(last["n_labels"]),
                "last": last.get("correctness", last.get("accuracy")),
                "auc": found["auc"],
                "auc_normalised": found["auc_normalised"],
                "run": run.id,
            }
        )
    return pd.DataFrame(rows)
