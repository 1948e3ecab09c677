"""Selectors and scores of label cleaning side by side: Figure 3 and Table 1 of Bernhardt et al. 2022 from runs of ours.

A run's first ranking is a policy: which labels to check first. Relabelling by it is simulated on the run's own initial
labels, over several sets of votes (relabelling seeds), as the paper does with a trained selector
(`core.analysis.simulation`). Reads runs, needs no torch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from core import metrics, relabel
from core.analysis import published
from core.analysis.simulation import VOTE_SETS, Simulator, why_not
from core.relabel import Floats, Ints
from core.runs import same
from core.runs.reference import initial_labels, reference_counts
from core.runs.run import Run
from data.dataset import ImageDataset
from data.errors import UserError

BOUNDS = ("oracle", "random", "minimal")
CURVES = ["policy", "n_labels", "mean", "sd", "low", "high", "n_seeds"]
STATISTICS = (
    *("policy", "seeds", "n_labels", "auc", "auc_sd", "auc_normalised", "correctness", "clear_errors"),
    *("difficult_errors", "total_variation", "labels_per_correction"),
)
TITLES = {
    "statistics": "Selectors at the end of the budget",
    "before-after": "Table 1: classifiers before and after cleaning",
    "model-selection": "Choosing a classifier on noisy and on cleaned labels",
    "curves": "Figure 3: correct labels against collected labels",
}
DEFINITIONS = {
    "curves": (
        "Share of correct majority labels against collected labels, relabelling by each run's first ranking over "
        f"{VOTE_SETS} draws of annotations. AUC: mean share over the labels; normalised: 0 is the random order, 1 the oracle."
    ),
    "statistics": (
        "At the end of the budget: correct labels, wrong ones left on clear and on difficult images, mean total variation "
        "between an image's labels and its true distribution, and collected labels for each correct one gained; means over seeds."
    ),
    "before-after": (
        "Accuracy on the clean test set of classifiers trained on the labels before and after cleaning; ours: mean over "
        "training seeds. The paper's: ResNet-110, 160 epochs, 32.7 % of 5,000 images relabelled at 30 % noise."
    ),
    "model-selection": (
        "Classifiers by their accuracy on a validation set, a fifth of the pool, with its noisy, its cleaned and its correct "
        "labels, and on the test set. τ: Kendall's rank correlation with the order on the test set."
    ),
}


def tables(runs: Sequence[Run], dataset: ImageDataset) -> dict[str, pd.DataFrame]:
    """All tables by name, those of `TITLES`."""
    found = simulated(runs, dataset)
    return {
        "statistics": statistics(runs, dataset, found),
        "before-after": before_after(runs),
        "model-selection": model_selection(runs),
        "curves": curves(found),
    }


def comparable(runs: Sequence[Run]) -> list[Run]:
    """Those that have a ranking, one for each arm and seed. Raises `UserError` where they differ in data or noise."""
    found: dict[tuple[str, int], Run] = {}
    first: Run | None = None
    for run in runs:
        config = run.config
        if not config.question.checks:
            raise UserError(f"Run {run.id} is no label cleaning: it has no ranking of labels to check.")
        if len(run.cycles()) and config.earlier is None:  # the first ranking of a branch is another run's
            first = first or run
            if differing := same.differing(first, run, same.START):
                raise UserError(
                    f"Runs {first.id} and {run.id} differ in their data or their noise ({', '.join(differing)}): compare "
                    "like with like."
                )
            found.setdefault((config.arm, config.seed), run)
    return list(found.values())


def ranked(run: Run, dataset: ImageDataset) -> tuple[Ints, Ints, Floats]:
    """(label distribution [N, C], initial labels [N], first ranking's score [N]) of a run."""
    config = run.config
    reference = reference_counts(config, dataset)
    if reference is None:
        raise UserError(
            f"{why_not(config, dataset)} in run {run.id}, so nothing can be simulated: its curve is what was done."
        )
    return reference, initial_labels(config, dataset), first_scores(run)


def first_scores(run: Run) -> Floats:
    """The scores [N] of a run's first ranking."""
    method = run.config.method
    return run.ranking(0, [method])[method].to_numpy(np.float64)


def budget_of(runs: Sequence[Run]) -> int:
    """Labels that the runs were to collect: the least of them."""
    return min(max(1, run.config.budget * max(1, run.config.cycles - 1)) for run in runs)


def simulated(runs: Sequence[Run], dataset: ImageDataset, budget: int | None = None) -> dict[str, list[Floats]]:
    """Correctness [S, budget + 1] of every policy over S sets of votes, one array for each training seed.

    Policies: the bounds, then an arm for each group of runs that differ in their seed alone. Oracle and random start from
    the same initial labels as the runs.
    """
    runs = comparable(runs)
    if not runs:
        return {}
    budget = budget_of(runs) if budget is None else budget
    found: dict[str, list[Floats]] = {name: [] for name in BOUNDS}
    for simulator, policies in _by_seed(runs, dataset):
        for name, policy in policies.items():
            found.setdefault(name, []).append(simulator.correctness(policy, budget))
        found["minimal"].append(simulator.minimal(budget)[None])
    return found


def _by_seed(runs: Sequence[Run], dataset: ImageDataset) -> Iterator[tuple[Simulator, dict[str, str | Floats]]]:
    """For each training seed of comparable runs the simulator on its initial labels, and the policies by their names."""
    for seed in sorted({run.config.seed for run in runs}):
        mine = {run.config.arm: run for run in runs if run.config.seed == seed}
        simulator = Simulator(next(iter(mine.values())).config, dataset)
        rankings = {arm: first_scores(run) for arm, run in mine.items() if arm not in BOUNDS}
        yield simulator, {"oracle": "oracle", "random": "random", **rankings}


def curves(found: dict[str, list[Floats]]) -> pd.DataFrame:
    """One row a policy and number of labels: mean, s.d. and 95 % interval (mean ± 1.96 standard errors) over seeds.

    found: of `simulated`. Bernhardt et al. 2022, Fig. 3; the interval is the band of their public code.
    """
    parts = [pd.DataFrame(columns=CURVES)]
    for policy, arrays in found.items():
        every = np.concatenate(arrays)  # [all seeds, budget + 1]
        mean, n = every.mean(axis=0), len(every)
        sd = every.std(axis=0, ddof=1) if n > 1 else np.zeros_like(mean)
        half = 1.96 * sd / np.sqrt(n)
        part = {"policy": policy, "n_labels": np.arange(len(mean)), "mean": mean, "sd": sd}
        parts.append(pd.DataFrame({**part, "low": mean - half, "high": mean + half, "n_seeds": n}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def areas(found: dict[str, list[Floats]]) -> pd.DataFrame:
    """AUC of every policy: policy, seeds, auc, auc_sd (over seeds), auc_normalised (0 random, 1 oracle)."""
    rows = []
    for policy, arrays in found.items():
        each = np.concatenate([array.mean(axis=1) for array in arrays])
        # On the scale of its own initial labels first: training seeds differ in these
        scaled = [
            metrics.normalised_auc(float(array.mean()), float(random.mean()), float(oracle.mean()))
            for array, random, oracle in zip(arrays, found["random"], found["oracle"], strict=False)
        ]
        known = [value for value in scaled if value is not None]
        rows.append(
            {
                "policy": policy,
                "seeds": len(each),
                "auc": float(each.mean()),
                "auc_sd": float(each.std(ddof=1)) if len(each) > 1 else np.nan,
                "auc_normalised": float(np.mean(known)) if known else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["policy", "seeds", "auc", "auc_sd", "auc_normalised"])


def statistics(runs: Sequence[Run], dataset: ImageDataset, found: dict[str, list[Floats]]) -> pd.DataFrame:
    """`STATISTICS` of every policy but the minimal line at the end of the budget, means over training seeds and sets of votes."""
    runs = comparable(runs)
    if not runs:
        return pd.DataFrame(columns=list(STATISTICS))
    budget = found["oracle"][0].shape[1] - 1
    ends: dict[str, list[dict[str, float | None]]] = {}
    for simulator, policies in _by_seed(runs, dataset):
        for name, policy in policies.items():
            for curves in simulator.curves(policy, budget):
                ends.setdefault(name, []).append(
                    {
                        "correctness": float(curves.correctness[-1]),
                        "clear_errors": float(curves.clear_errors[-1]),
                        "difficult_errors": float(curves.difficult_errors[-1]),
                        "total_variation": float(curves.total_variation[-1]),
                        "labels_per_correction": relabel.labels_per_correction(curves),
                    }
                )
    means = pd.DataFrame(
        [{"policy": policy, **pd.DataFrame(rows).astype(float).mean().to_dict()} for policy, rows in ends.items()]
    )
    table = areas(found).merge(means, on="policy").assign(n_labels=budget)
    return table[list(STATISTICS)]


def before_after(runs: Sequence[Run]) -> pd.DataFrame:
    """Table 1: selector, scoring, classifier, and accuracy before, after and on clean labels, ours and published.

    One row for each row of the paper, and for each further pair of arm and classifier that was measured (by
    `core.engine.evaluation.evaluate`). before, after, gain: % and points, means over training seeds; before_sd, after_sd over
    seeds; n_seeds. Empty cells where nothing was measured, or the paper has nothing.
    """
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        for fact in run.log.facts("evaluation/").values():
            measured.setdefault((run.config.arm, fact["classifier"]), []).append(fact)

    def of(pairs: list[tuple[str, str]], which: str) -> Floats:
        # The labels before cleaning are the same for all arms of a seed, and so is the classifier trained on them
        known = {
            f["seed"]: 100 * f["accuracy"] for pair in pairs for f in measured.get(pair, []) if f["labels"] == which
        }
        return np.array([known[seed] for seed in sorted(known)], dtype=np.float64)

    rows = []
    listed = [(row["arm"], row["classifier"]) for row in published.TABLE_1_CLEANING]
    further = [
        {"arm": arm, "classifier": classifier, "before": None, "after": None}
        for arm, classifier in measured
        if (arm, classifier) not in listed and any(f["labels"] == "after" for f in measured[arm, classifier])
    ]
    for row in [*published.TABLE_1_CLEANING, *further]:
        arm, classifier = row["arm"], row["classifier"]
        same = [pair for pair in measured if pair[1] == classifier]
        if arm == "clean":
            before, after = np.empty(0), of(same, "clean")
        else:
            before, after = of(same, "before"), of([(arm, classifier)], "after") if arm else np.empty(0)
        selector, scoring = published.NAMES.get(arm, (arm, "Φ"))
        rows.append(
            {
                "selector": selector,
                "scoring": scoring,
                "classifier": classifier,
                "before": before.mean() if len(before) else np.nan,
                "after": after.mean() if len(after) else np.nan,
                "before_sd": before.std(ddof=1) if len(before) > 1 else np.nan,
                "after_sd": after.std(ddof=1) if len(after) > 1 else np.nan,
                "n_seeds": len(after) if arm else len(before),
                "paper_before": row["before"],
                "paper_after": row["after"],
            }
        )
    table = pd.DataFrame(rows)
    table.insert(5, "gain", table["after"] - table["before"])
    return table[(table["n_seeds"] > 0)].reset_index(drop=True).astype({"paper_before": float, "paper_after": float})


def model_selection(runs: Sequence[Run]) -> pd.DataFrame:
    """Classifiers with their accuracies in % on the validation set (noisy, cleaned, right labels) and the test set.

    run, arm, selector, width, epochs, seed, validation_noisy, validation_cleaned, validation_right, accuracy.
    """
    rows = [
        {"run": run.id, "arm": run.config.arm, **fact}
        for run in runs
        for fact in run.log.facts("model-selection/").values()
    ]
    columns = ["run", "arm", "selector", "width", "epochs", "seed"]
    shares = ["validation_noisy", "validation_cleaned", "validation_right", "accuracy"]
    table = pd.DataFrame(rows, columns=[*columns, *shares])
    table[shares] = 100 * table[shares].astype(float)
    return table


def agreement(table: pd.DataFrame) -> dict[str, float]:
    """Kendall's τ of each validation accuracy of `model_selection` with the test accuracy; empty for fewer than two."""
    if len(table) < 2:
        return {}
    names = ("validation_noisy", "validation_cleaned", "validation_right")
    return {name: metrics.kendall_tau(table[name], table["accuracy"]) for name in names}
