"""Strategies side by side over seeds: the evidence of Wang et al. 2022 from runs of our own. Reads runs, needs no torch.

Only runs of one setting are compared: the same task, data, budget, model and training; strategy, seed and number of cycles
may differ. A strategy is shown as far as all of its seeds have come, so that no mean is one over fewer seeds at the end.
A value that is not finite counts as not measured.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import methods
from core.analysis import bounds, measures, published
from core.plots import curves
from core.runs import answers, same
from core.runs.run import TAKE, Run
from core.runs.spec import Config
from data.errors import UserError

BASELINE = "random"
FIGURES = ("accuracy", "verdicts", "high-gradient", "gap")
TITLES = {
    "accuracy": "Test accuracy",
    "verdicts": "Better than random?",
    "high-gradient": "High-gradient images selected",
    "gap": "Generalisation gap",
    "fell": "Gradient norm fell",
    "influence": "Bound and influence",
    "correlations": "Rank correlation of scores",
}
UNITS = {
    "accuracy": "%",
    "high-gradient": "% of the selected",
    "gap": "points",
    "fell": "% of the selected",
    "influence": "% of K",
}
LONG = ["method", "seed", "cycle", "n_labels"]
MEANS = ["method", "cycle", "n_labels", "mean", "sd", "n_seeds"]
VERDICTS = [
    *(
        "method",
        "baseline",
        "difference",
        "low",
        "high",
        "sd",
        "detectable",
        "n_seeds",
        "cycles",
        "left_out",
        "verdict",
    ),
]
UNCLEAR = "no clear difference"
POWER = 0.8  # probability with which a difference as large as the detectable one is found
CORRELATIONS = ["pair", "method", "cycle", "n_labels", "mean", "low", "high", "n_seeds", "how"]

NORM_RUNS = ("expected-gradnorm", "entropy-gradnorm")
PAIRS = {  # of score columns, and the runs that have both
    "sum and L2 norm": ("sum-gradnorm", "l2-gradnorm", NORM_RUNS),
    "all parameters and last layer": ("sum-gradnorm", "head-gradnorm", NORM_RUNS),
    "entropy-gradnorm and EGL": ("entropy-gradnorm", "egl", ("egl",)),
}
IDENTITY = "expected- and entropy-gradnorm"

DEFINITIONS = {
    "accuracy": "Test accuracy after each training, in %: mean and standard deviation over seeds.",
    "verdicts": (
        "Difference to random of the same seed in mean test accuracy over the cycles after the first, which the two share, in "
        "points, with the 95 % t-interval over seeds; better or worse: the interval lies on one side of 0. Detectable: the "
        "smallest true difference that a t-test at 5 % with as many seeds and pairs of the same spread finds with a probability "
        f"of {100 * POWER:.0f} %; no clear difference says nothing of smaller ones."
    ),
    "high-gradient": (
        "Of the K images that a cycle selects, how many are among the K candidates whose loss with the true label has the "
        "largest gradient norm, in % of K; a random choice would hit K / candidates of them."
    ),
    "gap": "Train minus test accuracy after each cycle's training, in points, from cycle 1 on.",
    "fell": (
        "Of the images selected after the previous cycle, how many have under the new model a gradient norm no higher than "
        "under the previous one, in %; for strategies that rank by a gradient norm. The control: the same of all candidates that "
        "the previous cycle ranked, most of which the new model has not learnt."
    ),
    "influence": bounds.DEFINITION,
    "correlations": (
        "Spearman correlation of two scores over the ranked candidates of a cycle: mean over seeds, and in brackets the lowest "
        "and the highest. Sum and L2: the norms of the parameter tensors added, as in the paper's code, and one norm over all, "
        "as in its text. Expected- and entropy-gradnorm are not compared: with the posterior in the graph they are the same "
        "sum, term by term, so that their correlation is 1 by identity."
    ),
}
CONTROLS = {"signed": "signed Eq. 2", "pool": "all candidates"}  # columns of a table of means beside its mean
NOT_MEASURED = "Not measured in these runs: run with evidence, as `python -m core run --protocol …` does."
NO_INFLUENCE = "Not measured in these runs: run with `--evidence influence`; where that failed, Curves says why."


@dataclass(frozen=True)
class Member:
    """A run that counts, with what was read of it."""

    run: Run
    config: Config
    cycles: pd.DataFrame

    def long(self, *columns: str) -> pd.DataFrame:
        """`LONG` and these columns of the run's scored cycles, float, NaN where the run has none."""
        table = self.cycles.reindex(columns=["cycle", "n_labels", *columns]).astype(dict.fromkeys(columns, float))
        return table.assign(method=self.config.method, seed=self.config.seed)[[*LONG, *columns]]


@dataclass(frozen=True)
class Members:
    """Runs that were read once, for all tables and figures: every function here takes them instead of runs."""

    chosen: list[Member]
    given: int  # number of runs before the choice

    def long(self, *columns: str) -> pd.DataFrame:
        """The rows of all members."""
        return _concatenated([member.long(*columns) for member in self.chosen], [*LONG, *columns])


Runs = Sequence[Run] | Members


def setting(run: Run) -> str:
    """Names what comparable runs have in common: everything but strategy, seed and number of cycles."""
    return json.dumps(_setting(run), sort_keys=True)


def _setting(run: Run) -> dict[str, Any]:
    taken = [
        f"{labels:,} after cycle {key.removeprefix(TAKE)}" for key, labels in run.log.facts(TAKE).items() if labels
    ]
    return same.deciding(run, same.SETTING) | {"labels of single steps": " and ".join(taken) or "the budget"}


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs by setting, the largest group first; what has another task than active learning is left out."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if not run.config.question.checks:
            found.setdefault(setting(run), []).append(run)
    return sorted(found.values(), key=len, reverse=True)


def read(runs: Runs) -> Members:
    """Those that have scored a cycle, one for each strategy and seed: that which came furthest, of equals the first.

    Raises `UserError` where the runs are no active learning, or differ in more than strategy, seed and number of cycles.
    """
    if isinstance(runs, Members):
        return runs
    configs = [(run, run.config) for run in runs]
    for run, config in configs:
        if config.question.checks:
            raise UserError(f"Run {run.id} is no active learning: only such runs can be compared by strategy.")
    settings = [_setting(run) for run, _ in configs]
    differing = {
        name: sorted({str(one[name]) for one in settings})
        for name in (settings[0] if settings else ())
        if any(one[name] != settings[0][name] for one in settings)
    }
    if differing:
        what = "; ".join(f"{name}: {', '.join(values)}" for name, values in differing.items())
        raise UserError(
            f"These runs have different settings ({what}): choose runs of the same task, data, budget, model and training."
        )
    best: dict[tuple[str, int], Member] = {}
    for run, config in configs:
        cycles, key = measures.cycles(run), (config.method, config.seed)
        if len(cycles) > (len(best[key].cycles) if key in best else 0):
            best[key] = Member(run, config, cycles)
    return Members(list(best.values()), len(configs))


def accuracy(runs: Runs) -> pd.DataFrame:
    """One row a run and scored cycle: method, seed, cycle, n_labels, accuracy, gap (shares in [0, 1]).

    Of two runs with the same strategy and seed, the one that has come furthest counts. Raises as `read`.
    """
    return _sorted(read(runs).long("accuracy", "gap"), ["seed", "cycle"])


def accuracy_table(runs: Runs) -> pd.DataFrame:
    """Mean and standard deviation (%) of the test accuracy over seeds: method, cycle, n_labels, mean, sd, n_seeds.

    The standard deviation is the sample's (n − 1), missing for one seed. Raises as `accuracy`.
    """
    return _over_seeds(accuracy(runs), "accuracy", 100.0)


def generalisation_gap(runs: Runs) -> pd.DataFrame:
    """Train minus test accuracy in points from cycle 1 on (the paper's Table 3); columns as `accuracy_table`."""
    table = _over_seeds(accuracy(runs), "gap", 100.0)
    return table[table["cycle"] >= 1].reset_index(drop=True)


def gradient_fell(runs: Runs) -> pd.DataFrame:
    """Share (%) of the samples bought last whose gradient norm is no higher under the new model (Tables 4 and 5).

    Columns as `accuracy_table`, and pool, pool_sd: the same of all candidates that the cycle before ranked, NaN where not all of
    the seeds have it, as runs of earlier versions. Empty where no run has the evidence.
    """
    long = read(runs).long("fell", "selected", "pool_fell", "pool")
    long["share"] = long["fell"] / long["selected"]  # 0 / 0 is not measured
    long["all"] = long["pool_fell"] / long["pool"]
    names = {"mean": "pool", "sd": "pool_sd", "n_seeds": "pool_seeds"}
    control = _over_seeds(long, "all", 100.0).drop(columns="n_labels").rename(columns=names)
    table = _over_seeds(long, "share", 100.0).merge(control, on=["method", "cycle"], how="left")
    known = table["pool_seeds"] == table["n_seeds"]
    return table.assign(**{name: table[name].astype(float).where(known) for name in ("pool", "pool_sd")})[
        [*MEANS, "pool", "pool_sd"]
    ]


def high_gradient(runs: Runs) -> pd.DataFrame:
    """Of the K selected, how many are among the K of highest true-label gradient norm (Table 1), a row a method and cycle.

    method, cycle, n_labels, mean, sd (% of K), n_seeds, count, count_sd (samples), k, candidates (with a finite norm),
    random (% that a random choice of K would have on average: K / candidates). K is the budget, or all candidates where
    fewer are left. Empty where no run has the evidence.
    """
    parts = []
    for member in read(runs).chosen:
        long = member.long()
        found = [_overlap(member.run, int(cycle)) for cycle in long["cycle"]]
        counts = pd.DataFrame(found, columns=["count", "k", "candidates"], index=long.index)
        parts.append(long.join(counts).query("k > 0"))
    long = _concatenated(parts, [*LONG, "count", "k", "candidates"])
    long["share"] = long["count"] / long["k"]
    long["random"] = 100 * long["k"] / long["candidates"]
    table = _over_seeds(long, "share", 100.0)
    counts = _over_seeds(long, "count").rename(columns={"mean": "count", "sd": "count_sd"})
    by = long.groupby(["method", "cycle"], as_index=False)[["k", "candidates", "random"]].mean()
    on = ["method", "cycle"]
    return table.merge(counts[[*on, "count", "count_sd"]], on=on, how="left").merge(by, on=on, how="left")


def bound_overlap(runs: Runs) -> pd.DataFrame:
    """Of the K candidates of highest Eq. 5, how many are among the K of highest Eq. 3 (Table 2), a row a method and cycle.

    The cycle is the one that ranked the candidates: method, cycle, n_labels, mean, sd (% of K), n_seeds, signed, signed_sd (the
    same of signed Eq. 2 instead of Eq. 3), random (% by chance: K / candidates), and over seeds the means of k, candidates,
    eq3_eq5, eq2_eq5, step_3_4, step_4_5 and positive, as of `core.analysis.bounds.table`. Empty where no run measured it.
    """
    long = _concatenated(
        [
            bounds.table(member.cycles).assign(method=member.config.method, seed=member.config.seed)
            for member in read(runs).chosen
        ],
        [*LONG, *bounds.MEASURES.values()],
    )
    averaged = ["k", "candidates", "eq3_eq5", "eq2_eq5", "step_3_4", "step_4_5", "positive"]
    long[averaged] = long[averaged].astype(float)
    long["share"], long["helps"] = long["eq3_eq5"] / long["k"], long["eq2_eq5"] / long["k"]
    long["random"] = 100 * long["k"] / long["candidates"]
    on = ["method", "cycle"]
    table, signed = _over_seeds(long, "share", 100.0), _over_seeds(long, "helps", 100.0)
    signed = signed.rename(columns={"mean": "signed", "sd": "signed_sd"})[[*on, "signed", "signed_sd"]]
    by = long.groupby(on, as_index=False)[["random", *averaged]].mean()
    return table.merge(signed, on=on, how="left").merge(by, on=on, how="left")


def rank_correlations(runs: Runs) -> pd.DataFrame:
    """Spearman correlations of pairs of scores over the ranked candidates of a cycle.

    pair, method (whose runs), cycle, n_labels, mean, low, high (over seeds), n_seeds, how: "measured", or "identity" for
    expected and entropy gradient norm, which with the posterior in the graph are the same term by term. Empty where no
    run has the evidence.
    """
    rows = []
    for member in read(runs).chosen:
        pairs = {name: (one, two) for name, (one, two, methods) in PAIRS.items() if member.config.method in methods}
        for place in member.long().to_dict("records") if pairs else ():
            for name, pair in pairs.items():
                rows.append({"pair": name, **place, "rho": _spearman(member.run, int(place["cycle"]), *pair)})
    long = pd.DataFrame(rows, columns=["pair", *LONG, "rho"])
    parts = []
    for name, part in long.groupby("pair", sort=False):
        table = _over_seeds(part, "rho")
        by = part.groupby(["method", "cycle"], as_index=False)["rho"].agg(low="min", high="max")
        parts.append(table.merge(by, on=["method", "cycle"]).assign(pair=name, how="measured"))
    found = _concatenated(parts, CORRELATIONS)
    if len(found):
        found.loc[len(found), ["pair", "mean", "how"]] = [IDENTITY, 1.0, "identity"]
    return found.astype({"cycle": "Int64", "n_labels": "Int64", "n_seeds": "Int64"})


def verdicts(runs: Runs, baseline: str = BASELINE) -> pd.DataFrame:
    """Is a strategy better than the baseline? A row a strategy, paired by seed.

    difference (points): mean over seeds of the difference in mean test accuracy over cycles ≥ 1, the first being shared,
    and over those alone that all pairs have; low, high: its 95 % t-interval, missing for one seed, **not** adjusted for
    the number of strategies; sd: of the pairs' differences, and detectable: of `detectable_difference`, both missing for one
    seed; n_seeds; cycles (how many count); left_out (seeds with an accuracy that is not finite);
    verdict: "better", "worse", "no clear difference" or "too few seeds". Empty without a run of the baseline.
    """
    from scipy.special import stdtrit  # quantiles of Student's t; slow to import, and needed here alone

    curves = accuracy(runs)
    later = curves[curves["cycle"] >= 1].pivot(index=["method", "seed"], columns="cycle", values="accuracy")
    methods = list(later.index.unique("method"))
    rows = []
    for method in sorted(set(methods) - {baseline}, key=_place) if baseline in methods else []:
        # A missing cycle is one that a run has not come to; one that is no number was lost and takes its seed along
        paired = later.loc[method].index.intersection(later.loc[baseline].index)
        bad = _not_finite(curves, (method, baseline)) & set(paired)
        points = 100 * (later.loc[method] - later.loc[baseline]).loc[paired.difference(list(bad))].dropna(axis=1)
        if points.empty and not bad:  # no seed in common, or none past the first cycle
            continue
        seeds = points.mean(axis=1).round(9)  # equal accuracies differ by less than that, in their last bits
        n, middle, sd = len(seeds), float(seeds.mean()), float(seeds.std(ddof=1))
        half = float(stdtrit(n - 1, 0.975) * sd / np.sqrt(n)) if n > 1 else np.nan
        low, high = middle - half, middle + half
        verdict = "too few seeds" if n < 2 else "better" if low > 0 else "worse" if high < 0 else UNCLEAR
        least = detectable_difference(n, sd)
        rows.append([method, baseline, middle, low, high, sd, least, n, points.shape[1], len(bad), verdict])
    return pd.DataFrame(rows, columns=VERDICTS)


def detectable_difference(n: int, sd: float) -> float:
    """The smallest true mean of n paired differences that a two-sided t-test at 5 % finds with `POWER`, in the unit of `sd`.

    δ √n / sd is the noncentrality λ with P(T > t) = `POWER`, T noncentral t with n − 1 degrees of freedom and parameter λ, t
    the 97.5 % quantile of the central one (Cohen 1988, ch. 2). For a standard deviation of 1.5: 4.9 of 3 pairs, 1.5 of 10,
    1.0 of 20. NaN for fewer than two.
    """
    from scipy.special import nctdtrinc, stdtrit

    if n < 2:
        return float("nan")
    return float(nctdtrinc(n - 1, 1 - POWER, stdtrit(n - 1, 0.975)) * sd / np.sqrt(n))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`verdicts` with said, the verdict as people read it: of no clear difference, how large one would have had to be."""
    known = table["verdict"] == UNCLEAR
    limits = [
        f"{verdict} (≥ {least:.1f} points detectable)"
        for verdict, least in zip(table["verdict"], table["detectable"], strict=True)
    ]
    return table.assign(said=table["verdict"].mask(known, pd.Series(limits, index=table.index, dtype=object)))


def tables(runs: Runs) -> dict[str, pd.DataFrame]:
    """All tables by name, those of `TITLES`, for files and pages.

    On cifar10 those that the paper has too gain published (same unit as mean), published_budget (% of the pool labelled
    there) and matched_by: "share" of the pool labelled where any cycle of ours has a published one, else "cycle".
    Raises as `accuracy`.
    """
    runs = read(runs)
    found = {
        "accuracy": accuracy_table(runs),
        "verdicts": verdicts(runs),
        "high-gradient": high_gradient(runs),
        "gap": generalisation_gap(runs),
        "fell": gradient_fell(runs),
        "influence": bound_overlap(runs),
        "correlations": rank_correlations(runs),
    }
    if runs.chosen and runs.chosen[0].config.dataset == published.DATASET:
        for name in published.TABLES:
            found[name] = _beside_published(found[name], name, runs.chosen[0].run.about["n_samples"])
    return found


def texts(found: dict[str, pd.DataFrame], measure: str = answers.ClassAnswer.measure) -> dict[str, str]:
    """A definition for each table of `tables`, with what is missing, how many comparisons, and the paper's protocol.

    measure: as of the function of this name.
    """
    said = {}
    for name, definition in DEFINITIONS.items():
        parts, table = (
            [definition.replace("test accuracy", f"test {measure}").replace("Test accuracy", f"Test {measure}")],
            found[name],
        )
        if table.empty:
            parts.append(missing(name, found))
        elif name == "verdicts":
            parts.append(_on_verdicts(table))
        if "published" in table and table["published"].notna().any():
            by = "share of the pool labelled" if (table["matched_by"] == "share").any() else "number of the cycle"
            parts.append(
                f"“Paper”: {published.TABLES[name]} of Wang et al. 2022, matched by {by}, in brackets the share that was "
                f"labelled there. Its protocol: {published.PROTOCOL}; ours is in the small print of the figures."
            )
        said[name] = " ".join(parts)
    return said


def missing(name: str, found: dict[str, pd.DataFrame]) -> str:
    """Why a table of `tables` is empty, and what to do; "" where it is not."""
    if not found[name].empty:
        return ""
    if name in ("accuracy", "gap") or found["accuracy"].empty:
        return "No run has come so far yet."
    if name != "verdicts":
        return NO_INFLUENCE if name == "influence" else NOT_MEASURED
    if BASELINE not in set(found["accuracy"]["method"]):
        return f"There is no run of {BASELINE} among these: add one with the same seeds."
    return f"No strategy has come past the first cycle with a seed that {BASELINE} has too."


def measure(runs: Runs) -> str:
    """What the test images are measured by: "accuracy", or what the runs' labels have instead."""
    chosen = read(runs).chosen
    return chosen[0].run.answer.measure if chosen else answers.ClassAnswer.measure


def titles(runs: Runs) -> dict[str, str]:
    """`TITLES`, with the measure that these runs have."""
    return TITLES | {"accuracy": f"Test {measure(runs)}"}


def coverage(runs: Runs) -> str:
    """How many runs count and how far each strategy goes, in a sentence or two."""
    runs = read(runs)
    curves = accuracy(runs)
    if curves.empty:
        return "None of these runs has finished a cycle yet."
    text = f"{_plural(len(runs.chosen), 'run')} of {_plural(curves['method'].nunique(), 'strategy')}"
    if runs.given > len(runs.chosen):
        text += f"; {runs.given - len(runs.chosen)} more not begun, or repeated"
    reach = curves.groupby(["method", "seed"])["cycle"].max().groupby("method").agg(["min", "max", "size"])
    reach["min"] += 1  # cycles count from 0
    went = {
        method: f"{_plural(int(reach.loc[method, 'min']), 'cycle')} × {_plural(int(reach.loc[method, 'size']), 'seed')}"
        for method in sorted(reach.index, key=_place)
    }
    if len(set(went.values())) == 1 and (reach["max"] < reach["min"]).all():
        return f"{text}: {next(iter(went.values()))} each."
    each = ", ".join(f"{method} {far}" for method, far in went.items())
    return f"{text}. A strategy is shown as far as all its seeds have come: {each}."


def figure(runs: Runs, name: str, found: dict[str, pd.DataFrame]) -> go.Figure:
    """One of `FIGURES` from `tables(runs)`, as the page shows it and the command line exports it.

    Raises `UserError` for another name, or where its table is empty.
    """
    if name not in FIGURES:
        raise UserError(f'There is no figure "{name}" of a comparison: choose one of {", ".join(FIGURES)}.')
    table = found[name]
    if table.empty:
        raise UserError(f"{TITLES[name]}: {missing(name, found)}")
    small = note(runs, NOTES[name].replace("test accuracy", f"test {measure(runs)}"))
    if name == "verdicts":
        return curves.differences(readable(table), small)
    if name == "high-gradient":
        level = table.groupby("n_labels", as_index=False)["random"].mean()
        return curves.compared(table, "Of high gradient norm (% of selected)", "%", small, level)
    if name == "gap":
        return curves.compared(table, f"Train − test {measure(runs)} (points)", "points", small)
    return curves.compared(table, f"Test {measure(runs)} (%)", "%", small)


NOTES = {
    "accuracy": "mean over seeds, band ± 1 s.d.",
    "verdicts": (
        "mean test accuracy over cycles ≥ 1, paired by seed; 95 % t-interval over n seeds, not adjusted for the number of "
        "strategies; a ring: one seed, no interval"
    ),
    "high-gradient": (
        "of the K selected, the share among the K candidates of highest true-label gradient norm; mean over seeds, band ± 1 s.d."
    ),
    "gap": "after each training from cycle 1 on; mean over seeds, band ± 1 s.d.",
}


def note(runs: Runs, definition: str) -> str:
    """The small print of a comparison: data, K, model, number of runs, seeds and definition."""
    chosen = read(runs).chosen
    config, about = chosen[0].config, chosen[0].run.about
    seeds = ", ".join(str(seed) for seed in sorted({member.config.seed for member in chosen}))
    return (
        f"{config.dataset}, N = {about['n_samples']:,}, reference labels, K = {config.budget:,} · "
        f"{config.network}, {config.duration} · "
        f"{_plural(len(chosen), 'run')}, seed {seeds}\n{definition}"
    )


def wide(table: pd.DataFrame, decimals: int = 1) -> pd.DataFrame:
    """A table of means as people read it: a row a strategy, a column for each cycle, cells "34.1 ± 3.0".

    Where the table has published figures, each strategy has a row "ours" and, if the paper names it, a row "paper" with
    the budget behind each figure: "28.1 (10 %)". Below `high_gradient` and `bound_overlap` stands what a random choice would
    reach; the latter has a row "ours, signed Eq. 2" for its other control, and `gradient_fell` a row "ours, all candidates".
    """
    table, columns = _by_cycle(table)
    rows: list[dict[str, Any]] = []
    for method, part in table.groupby("method", sort=False):
        place = part.set_index("column")
        n = int(part["n_seeds"].iloc[0])
        rows.append({"Strategy": method, "Figures": f"ours, {_plural(n, 'seed')}"})
        rows[-1] |= {
            name: f"{row['mean']:.{decimals}f}" + (f" ± {row['sd']:.{decimals}f}" if np.isfinite(row["sd"]) else "")
            for name, row in place.iterrows()
        }
        for control, said in CONTROLS.items():
            if control in place and place[control].notna().any():
                rows.append({"Strategy": method, "Figures": f"ours, {said}"})
                rows[-1] |= {str(name): f"{value:.{decimals}f}" for name, value in place[control].dropna().items()}
        if "published" in place and place["published"].notna().any():
            rows.append({"Strategy": method, "Figures": "paper"})
            rows[-1] |= {
                name: f"{row['published']:.{decimals}f} ({row['published_budget']:.0f} %)"
                for name, row in place[place["published"].notna()].iterrows()
            }
    if "random" in table:
        level = table.groupby("column")["random"].mean()
        rows.append({"Strategy": "a random choice", "Figures": "K / candidates"})
        rows[-1] |= {str(name): f"{value:.{decimals}f}" for name, value in level.items()}
    return pd.DataFrame(rows, columns=["Strategy", "Figures", *columns])


def wide_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """The correlations likewise: a row a pair of scores and strategy, cells "0.94 [0.93, 0.95]": mean, lowest and highest."""
    measured, columns = _by_cycle(table[table["how"] == "measured"])
    rows = []
    for (pair, method), part in measured.groupby(["pair", "method"], sort=False):
        rows.append({"Scores": pair, "Runs of": method, "Seeds": str(part["n_seeds"].iloc[0])})
        rows[-1] |= {row.column: f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in part.itertuples()}
    if len(table) > len(measured):
        rows.append({"Scores": IDENTITY, "Runs of": "any", **dict.fromkeys(columns, "1 by identity")})
    return pd.DataFrame(rows, columns=["Scores", "Runs of", "Seeds", *columns])


def _by_cycle(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with the heading of each row's cycle as `column`, and the headings in order."""
    names = [f"Cycle {row.cycle} · {row.n_labels:,.0f} labels" for row in table.itertuples()]
    table = table.assign(column=pd.Series(names, index=table.index, dtype=object))
    return table, list(table.sort_values("cycle", kind="stable")["column"].unique())


def _over_seeds(long: pd.DataFrame, value: str, scale: float = 1.0) -> pd.DataFrame:
    """Mean, sample standard deviation and number of seeds of `value` × scale, in the cycles that all seeds of a method have."""
    known = long[np.isfinite(long[value].astype(float))]
    if known.empty:
        return pd.DataFrame(columns=MEANS)
    seeds = known.groupby("method")["seed"].nunique()
    table = (
        known.assign(scaled=scale * known[value].astype(float))
        .groupby(["method", "cycle"], as_index=False)
        .agg(n_labels=("n_labels", "first"), mean=("scaled", "mean"), sd=("scaled", "std"), n_seeds=("seed", "nunique"))
    )
    return _sorted(table[table["n_seeds"] == table["method"].map(seeds)][MEANS], ["cycle"])


def _sorted(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return table.sort_values(
        ["method", *by], key=lambda column: column.map(_place) if column.name == "method" else column
    ).reset_index(drop=True)


def _place(method: str) -> tuple[int, str]:
    names = list(methods.strategies.CATALOGUE)
    return (names.index(method) if method in names else len(names)), method  # the order of the paper


def _concatenated(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    parts = [part.reindex(columns=columns) for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _not_finite(curves: pd.DataFrame, methods: tuple[str, str]) -> set[int]:
    """Seeds of these methods with an accuracy after the first cycle that is no finite number."""
    bad = ~np.isfinite(curves["accuracy"]) & (curves["cycle"] >= 1) & curves["method"].isin(methods)
    return set(curves.loc[bad, "seed"])


def _overlap(run: Run, cycle: int) -> tuple[int, int, int]:
    """(selected that are of highest true-label norm, K, candidates with a finite norm); (0, 0, 0) where not measured."""
    return _measured_overlap(run, cycle, _stamp(run, cycle))


def _spearman(run: Run, cycle: int, one: str, two: str) -> float:
    """Spearman correlation of two score columns over the ranked samples; NaN where a column is missing or constant."""
    return _measured_spearman(run, int(cycle), one, two, _stamp(run, cycle))


def _stamp(run: Run, cycle: int) -> int:
    """Changes whenever the ranking of a cycle does: what was measured of it is kept until then."""
    try:
        return (run.cycle_path(cycle) / "ranking.parquet").stat().st_mtime_ns
    except OSError:
        return 0  # the reading says what is wrong


@lru_cache(maxsize=4096)
def _measured_overlap(run: Run, cycle: int, stamp: int) -> tuple[int, int, int]:
    table = run.ranking(cycle)
    if "label-gradnorm" not in table:
        return 0, 0, 0
    table = table[table["rank"].notna() & np.isfinite(table["label-gradnorm"].astype(float))]
    budget = run.config_at(cycle).budget
    k = min(budget, len(table))
    highest = table.nlargest(k, "label-gradnorm").index
    return int((table.loc[highest, "rank"] <= budget).sum()), k, len(table)


@lru_cache(maxsize=4096)
def _measured_spearman(run: Run, cycle: int, one: str, two: str, stamp: int) -> float:
    table = run.ranking(cycle)
    if not {one, two} <= set(table):
        return float("nan")
    pair = table.loc[table["rank"].notna(), [one, two]].astype(float)
    pair = pair[np.isfinite(pair).all(axis=1)].rank()  # Spearman's is Pearson's of the ranks, ties averaged
    return float(pair[one].corr(pair[two])) if (pair.nunique() > 1).all() else float("nan")


def _beside_published(table: pd.DataFrame, name: str, n_samples: int) -> pd.DataFrame:
    """A table of means with the paper's columns; rows that the paper does not have stay, without them."""
    theirs = published.table(name)
    budget = 100 * table["n_labels"].astype(float) / n_samples
    nearest = budget.round()
    same = np.isclose(budget, nearest, atol=0.01) & nearest.isin(published.BUDGETS)
    if same.any():
        ours = table.assign(published_budget=nearest.where(same))
        theirs, on, by = theirs.drop(columns="cycle"), ["method", "published_budget"], "share"
    else:
        ours, on, by = table, ["method", "cycle"], "cycle"
    if not theirs["method"].any():  # one row for all
        theirs, on = theirs.drop(columns="method"), on[1:]
    merged = ours.merge(theirs, on=on, how="left")
    known = merged["published"].notna()
    return merged.assign(
        published_budget=merged["published_budget"].where(known), matched_by=known.map({True: by, False: None})
    )[[*table.columns, "published", "published_budget", "matched_by"]]


def _on_verdicts(table: pd.DataFrame) -> str:
    text = (
        f"{_plural(len(table), 'comparison')}; the intervals are not adjusted for their number, so that of 20 "
        "strategies that are no better than random, one would seem to differ by chance."
    )
    unclear = table[table["verdict"] == UNCLEAR]
    for n, part in unclear.groupby("n_seeds"):
        least, most = (f"{part['detectable'].agg(how):.1f}" for how in ("min", "max"))
        span = least if least == most else f"{least} to {most}"
        text += (
            f" No clear difference over {_plural(int(n), 'seed')} ({_plural(len(part), 'strategy')}): detectable were "
            f"differences of {span} points."
        )
    if table["left_out"].any():
        text += f" Left out: {_plural(int(table['left_out'].sum()), 'pair')} with an accuracy that is no number."
    return text


def _plural(n: int, noun: str) -> str:
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else many}"
