"""The figures of a run, as pages show them and files export them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import methods, tsne
from core.analysis import measures, peers, policies, rankings, samples, simulation
from core.analysis.curves import CHECKS, cleaning_curve, envelopes, learning_curve
from core.plots import curves, maps
from core.plots.curves import budget, cleaning_curves, estimates, learning_curves
from core.runs import questions
from core.runs.reference import reference_counts, reference_labels
from core.runs.run import REGIONS, Run
from core.runs.spec import Config
from data.dataset import ImageDataset
from data.errors import UserError

EMBEDDING_TEXT = "t-SNE of the model's embedding"
FIGURES = ("curves", "policies", "distribution", "confusion", "scatter", "map", "embedding")


def figure(
    run: Run,
    dataset: ImageDataset,
    name: str,
    cycle: int,
    others: list[Run] | None = None,
    band: str = "sd",
    chosen: Sequence[str] = (),
) -> go.Figure:
    """One of `FIGURES` of a run at a cycle, as pages show it and files export it.

    others: further runs to draw in the curves, by default those that differ from this one in the seed alone; in the
    policies the other runs of its study · band: of the policies, "sd" or "interval" · chosen: the score of the
    distribution, or of the embedding map's colours, by default the run's own; the two of the scatter plot, across and up. Raises
    `UserError` where the cycle has no such score, or no embedding map.
    """
    config = run.config_at(cycle)
    if name == "policies":
        return policy_figure([run, *(peers.of_study(run) if others is None else others)], dataset, band)
    if name == "curves":
        runs = [run, *(peers.same_experiment(run) if others is None else others)]
        accuracy = measures.test_title(run)
        if not config.question.checks:
            text = f"{run.answer.measure} on the test set after each training; band ± 1 s.d. over seeds"
            return learning_curves(learning_curve(runs), cycle, note(run, text), accuracy)
        if reference_labels(config, dataset) is None:
            text = f"{run.answer.measure} on the test set after each training"
            if questions.kind(config.task, run.answer.kind).drawn:
                text = (
                    "estimate: from images of a random order that people checked, taken as correct; exact 95 % interval"
                )
            return estimates(measures.cycles(run), cycle, note(run, text), accuracy)
        checks = CHECKS[dataset.answer]
        curves, axis = checks.drawn(
            pd.concat([cleaning_curve(one, dataset) for one in runs], ignore_index=True), config
        )
        at, end = int(run.cycles()[axis].iloc[cycle]), float(curves["n_labels"].max())
        bounds = envelopes(config, dataset, int(end)).rename(columns={axis: "n_labels"})
        collected = checks.collected[axis]
        text = f"AUC: mean share of {checks.right} over the {collected}; bands ± 1 s.d."
        axes = collected.capitalize(), checks.right.capitalize()
        return cleaning_curves(curves, bounds, at, note(run, text), *axes, checks.simulated)
    if name == "distribution":
        (score,) = _scores(run, cycle, chosen, (config.method,))
        return score_distribution(run, dataset, cycle, score)
    if name == "confusion":
        table = samples.table(run, dataset, cycle)
        return confusion(run, pd.crosstab(table["given"], table["suggested"]), cycle)
    if name == "scatter":
        across, up = _scores(run, cycle, chosen, ("entropy", config.method))
        return scatter(run, samples.table(run, dataset, cycle).dropna(subset=[across, up]), across, up, cycle)
    if name == "embedding":
        (score,) = _scores(run, cycle, chosen, (config.method,))
        return embedding_map(run, samples.table(run, dataset, cycle), score, methods.described(score).title, cycle)
    there = samples.of_cycle(run, dataset, cycle)
    scored = there.table("cross-entropy", "cleaning")
    if "cross-entropy" not in there.columns:  # in active learning images without any label have none
        run.posterior(cycle)  # says so where none of them has, because it is gone
        scored = scored.dropna(subset="cross-entropy")
    return maps.noise_map(scored, note(run, f"cycle {cycle}; {map_text(config, dataset)}"))


def _scores(run: Run, cycle: int, chosen: Sequence[str], default: tuple[str, ...]) -> tuple[str, ...]:
    """The scores that a figure draws. Raises `UserError` where the cycle has them not, or another number is asked for."""
    there = [name for name in methods.scores() if name in run.ranking(cycle).columns]
    found = tuple(chosen) or default
    if len(found) != len(default) or not set(found) <= set(there):
        how_many = "one score" if len(default) == 1 else "two scores"
        raise UserError(
            f"This figure shows {how_many} of cycle {cycle} of run {run.id}: choose among {', '.join(there)}."
        )
    return found


def confusion(run: Run, counts: pd.DataFrame, cycle: int) -> go.Figure:
    """Images by given and suggested label. counts: numbers, index and columns are class names."""
    return maps.confusion(counts, note(run, f"cycle {cycle}; numbers of images, n = {counts.to_numpy().sum():,}"))


def scatter(run: Run, table: pd.DataFrame, across: str, up: str, cycle: int) -> go.Figure:
    """Images by two of their scores; table: rows of `samples` that have both."""
    return maps.scatter(table, across, up, note(run, f"cycle {cycle}; {len(table):,} images"))


def embedding_map(
    run: Run,
    table: pd.DataFrame,
    colour: str,
    title: str,
    cycle: int,
    some: str = "",
    selected: Sequence[int] | None = None,
) -> go.Figure:
    """Images where the embedding of a cycle puts them; table: rows of `samples` · some: which of all, if not all.

    colour, title: a column and what it is called. Raises `UserError` where the cycle has no map.
    """
    if not set(tsne.COLUMNS) <= set(table.columns):
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no embedding map: it was scored by an earlier version. A branch at this cycle "
            "scores it again."
        )
    text = (
        f"cycle {cycle}; {some or f'{len(table):,} images'}; {EMBEDDING_TEXT}; colour: {title}, 2nd to 98th percentile"
    )
    return maps.embedding_map(table, colour, title, note(run, text), selected)


BANDS = {"sd": "± 1 s.d.", "interval": "95 % interval (± 1.96 standard errors)"}


def policy_figure(runs: list[Run], dataset: ImageDataset, band: str) -> go.Figure:
    """Fig. 3 of Bernhardt et al. 2022: the first rankings of cleaning runs between random and oracle."""
    runs = policies.comparable(runs)
    found = policies.simulated(runs, dataset)
    table = policies.curves(found)
    config, n = runs[0].config, int(table["n_seeds"].max())
    seeds = ", ".join(str(seed) for seed in sorted({run.config.seed for run in runs}))
    small = (
        f"{config.dataset}, N = {len(dataset):,}, {noise_text(config, dataset)} · {config.network}\n"
        f"static simulation by each first ranking, seed {seeds}, {simulation.VOTE_SETS} draws of annotations (n = {n}); band "
        f"{BANDS[band]}; AUC: mean share of correct majority labels over the collected labels"
    )
    return curves.policy_curves(table, policies.areas(found), band, small)


def budget_figure(run: Run, curves: pd.DataFrame, at: int, target: float) -> go.Figure:
    """The curves of `core.analysis.budget`, marked at a budget and a target."""
    if not run.config.question.checks:
        text = "mean over the seeds of each strategy; straight lines between cycles"
    else:
        text = (
            f"simulation by each first ranking, mean over {simulation.VOTE_SETS} draws of annotations; minimal: two labels "
            "correct one image, the least that any ranking can need"
        )
    return budget(curves, not run.config.question.checks, at, target, note(run, text))


def noise_text(config: Config, dataset: ImageDataset) -> str:
    """How many of the first labels are wrong, and how that came about."""
    if reference_labels(config, dataset) is None:
        return "the labels' errors are not known"
    share = 1 - CHECKS[dataset.answer].correct(config, dataset)
    if config.temperature is not None:
        return f"{share:.1%} wrong labels, drawn from the annotations at T = {config.temperature:g}"
    how = f"{config.noise_kind} noise, injected" if config.noise else "as found"
    return f"{share:.1%} wrong {CHECKS[dataset.answer].counted}, {how}"


def score_distribution(run: Run, dataset: ImageDataset, cycle: int, score: str) -> go.Figure:
    """Histogram of a score over the images that may still be chosen; for the run's own score with the next budget's cut, where
    the budget counts images."""
    table = run.ranking(cycle)
    table = table[table["rank"].notna()]
    config = run.config_at(cycle)
    of_images = config.budget_unit == "labels" and not (run.cycle_path(cycle) / REGIONS).is_file()
    cut = rankings.next_cut(table, config) if score == config.method and of_images else None
    numbers, edges = np.histogram(table[score].dropna(), bins=samples.BINS)
    bins = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "everything": numbers, "kept": numbers})
    text = note(run, f"cycle {cycle}; {len(table):,} images that may still be chosen")
    return maps.distribution(bins, score, cut, text)


def map_text(config: Config, dataset: ImageDataset) -> str:
    """What the letters and kinds of the map of noise mean."""
    if not config.question.checks:
        return "CE against the reference label, which the strategy does not see"
    if reference_counts(config, dataset) is None:
        return "l̂: label histogram; which labels are wrong is not known"
    return "l̂: label histogram; clear noise: wrong label on an image whose annotations agree; difficult: whose annotations do not"


def note(run: Run, definition: str) -> str:
    """The small print of a figure: data, annotators, run and definition."""
    about, config = run.about, run.config
    kind = about["annotators"] if config.question.checks else "none"  # learning asks for the label, not for votes
    labels = {"human": "human annotations", "simulated": "simulated annotators", "none": "reference labels"}[kind]
    if config.annotator == "person":
        labels = "labels by people"
    return (
        f"{config.dataset}, N = {about['n_samples']:,}, {labels} · run {run.id}, seed\u00a0{config.seed}\n{definition}"
    )
