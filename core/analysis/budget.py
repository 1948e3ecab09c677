"""What a budget buys, in labels and in money: each policy between the random order and the best that can be. Needs no torch."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from core.analysis import policies, samples
from core.analysis.curves import learning_curve, simulable
from core.relabel import Floats
from core.runs import questions
from core.runs.questions import Unit
from core.runs.run import Run
from data.dataset import ImageDataset

UNITS = ("€", "$", "£", "minutes")  # of the price of a label
REACH = 2  # simulated as far as so many budgets of the runs
BASELINE = "random"
COLUMNS = ["policy", "value", "labels_per_correction", "labels_for_target", "saved", "saved_at_least"]


def curves(runs: Sequence[Run], dataset: ImageDataset) -> pd.DataFrame:
    """What labels buy: policy, n_labels, mean, sd (over draws of annotations, or seeds), low and high, sorted by n_labels.

    Label cleaning: share of correct majority labels after so many collected labels, simulated by each run's first ranking as far
    as twice the runs' budget, with oracle, random and minimal. Minimal is the least any policy can need: a wrong first label
    is one annotation, one more ties with it, two more make the right class a majority; a line of two labels per correction.
    Active learning: test accuracy after so many labels in all, by strategy. Empty where no ground truth is available, and for
    a branch, whose first ranking is another run's.
    """
    first = runs[0]
    if first.config.question.checks:
        if not simulable(first, dataset):
            return pd.DataFrame(columns=policies.CURVES)
        return policies.curves(policies.simulated(runs, dataset, REACH * policies.budget_of(runs)))
    cycles = learning_curve(list(runs)).rename(columns={"method": "policy"})
    common = cycles.groupby(["policy", "run"])["n_labels"].max().groupby("policy").min()
    cycles = cycles[cycles["n_labels"] <= cycles["policy"].map(common)]  # no mean over fewer seeds at the end
    grouped = cycles.groupby(["policy", "n_labels"])["accuracy"]
    table = pd.DataFrame({"mean": grouped.mean(), "sd": grouped.std(ddof=1).fillna(0), "n_seeds": grouped.size()})
    return table.assign(low=np.nan, high=np.nan).reset_index()[policies.CURVES]


def labels_for(n_labels: Floats, value: Floats, target: float) -> int | None:
    """The fewest labels after which a curve reaches `target`, straight lines between its points; None where it does not.

    n_labels: [T], rising · value: [T].
    """
    reached = np.flatnonzero(np.asarray(value) >= target)
    if len(reached) == 0:
        return None
    k = int(reached[0])
    if k == 0:
        return math.ceil(n_labels[0])
    share = (target - value[k - 1]) / (value[k] - value[k - 1])
    return math.ceil(
        n_labels[k - 1] + share * (n_labels[k] - n_labels[k - 1]) - 1e-9
    )  # 1e-9: rounding of whole numbers


def plan(found: pd.DataFrame, budget: int, target: float, n_samples: int | None = None) -> pd.DataFrame:
    """`COLUMNS` of every policy of `curves` at a budget, the best first.

    value: at the budget, NaN where the curve does not go so far · labels_per_correction: budget over correct labels gained of
    n_samples, NaN where none is, or without n_samples · labels_for_target: of `labels_for`, NaN where it is not reached ·
    saved: labels that the random order needs for the same value, less the budget (negative: the random order needs
    fewer); where its curve ends before, `saved_at_least`: more than that.
    """
    by = {str(policy): part for policy, part in found.groupby("policy", sort=False)}
    rows = []
    for policy, part in by.items():
        x, y = part["n_labels"].to_numpy(np.float64), part["mean"].to_numpy(np.float64)
        value = float(np.interp(budget, x, y)) if x[0] <= budget <= x[-1] else math.nan
        gained = (value - y[0]) * n_samples if n_samples is not None else 0.0
        saved, at_least = math.nan, False
        if BASELINE in by and policy != BASELINE and not math.isnan(value):
            base = by[BASELINE]
            base_x, base_y = base["n_labels"].to_numpy(np.float64), base["mean"].to_numpy(np.float64)
            needs = labels_for(base_x, base_y, value)
            at_least = needs is None
            saved = (float(base_x[-1]) if needs is None else needs) - budget
        needed = labels_for(x, y, target)
        rows.append(
            {
                "policy": policy,
                "value": value,
                "labels_per_correction": budget / gained if gained > 0 else math.nan,
                "labels_for_target": math.nan if needed is None else needed,
                "saved": saved,
                "saved_at_least": at_least,
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("value", ascending=False, kind="stable", ignore_index=True)


def priced(found: pd.DataFrame, price: float, unit: str, learning: bool) -> pd.DataFrame:
    """The `plan` of each policy as people read it: policy, value, then labels, and what they cost where a label has a price.

    per_correction and cost_per_correction not in active learning, saved and cost_saved where the random order is among the
    policies. Amounts are texts, those that are not known "".
    """
    table = found[["policy", "value"]].copy()
    if not learning:
        table["per_correction"] = found["labels_per_correction"]
        if price:
            table["cost_per_correction"] = [amount(n * price, unit) for n in found["labels_per_correction"]]
    table["for_target"] = [amount(n) or "not reached" for n in found["labels_for_target"]]
    if price:
        table["cost_for_target"] = [amount(n * price, unit) for n in found["labels_for_target"]]
    if found["saved"].notna().any():
        saved = [
            ("more than " if more else "", n) for more, n in zip(found["saved_at_least"], found["saved"], strict=True)
        ]
        table["saved"] = [sign + amount(n) if amount(n) else "" for sign, n in saved]
        if price:
            table["cost_saved"] = [sign + amount(n * price, unit) if amount(n) else "" for sign, n in saved]
    return table


def amount(value: float, unit: str | None = None) -> str:
    """A number of labels, or an amount of money or time; "" for NaN."""
    return "" if math.isnan(value) else f"{value:,.0f}" if unit is None else money(value, unit)


def unit(run: Run) -> Unit:
    """What a run collects."""
    return questions.kind(run.config.task, run.answer.kind).unit(run.config)


def offer(run: Run, dataset: ImageDataset, cycle: int) -> int:
    """How much of its `unit` the ranking of a cycle offers, at most. Raises as `Run.ranking`."""
    height, width = dataset.images.shape[1:3]
    task, ranking = questions.kind(run.config.task, run.answer.kind), run.ranking(cycle, ["rank"])
    return task.offer(run.config, ranking, lambda: run.regions(cycle), (height, width))


def progress(run: Run, cycle: int) -> tuple[int, int | None]:
    """(what was collected up to a cycle, what the run is to have in all), counted in its `unit`: in active learning with what it
    started from.

    The second is None where people label, and give as many as they will.
    """
    collected, config = run.cycles()[unit(run).column], run.config
    so_far = int(collected.iloc[cycle])
    if config.annotator == "person":
        return so_far, None
    to_come = config.budget * max(0, run.target() - len(collected))
    return so_far, int(collected.iloc[-1]) + to_come


def money(value: float, unit: str) -> str:
    """An amount with its unit, € for instance; minutes from an hour on as hours."""
    if unit != "minutes":
        return f"{unit} {value:,.2f}"
    return f"{value / 60:,.1f} h" if abs(value) >= 60 else f"{value:,.1f} min"


def spent(run: Run, dataset: ImageDataset, cycle: int) -> tuple[int, int]:
    """(labels collected after the first ranking, labels that changed by them) up to a cycle of a cleaning run."""
    done = samples.relabels(run, dataset, cycle)
    return int(done["n_votes"].sum()), int((done["before"] != done["after"]).sum())
