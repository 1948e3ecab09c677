"""What pages, command line and exports show of a run, as DataFrames. Reads runs, needs no torch."""

import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from core import audit, exchange, figures, layout, metrics, policies, relabel, scores
from core.relabel import Floats
from core.run import PERSON, Config, Run, all_runs
from core.store import standing
from core.tasks import TASKS, initial_labels, reference_counts
from data import ImageDataset, votes
from data.errors import UserError

BUNDLE = 500  # images of a Label Studio bundle: some megabytes, and more than a session's work
EMBEDDING_TEXT = "t-SNE of the model's embedding"
BINS = 60  # of a histogram
FIGURES = ("curves", "policies", "distribution", "confusion", "scatter", "map", "embedding")
MEASURES = {
    "correctness": "Right labels",
    "estimated_correctness": "Right labels, estimated",
    "agreement": "Model agrees",
    "accuracy": "Test accuracy",
}
NOTES = {
    "estimated_correctness": "95 % interval, from the first {:,.0f} images of a random order that people have answered; what "
    "they say is taken as right, and a tie is no right label.",
    "agreement": "Labels that are also the prediction of a model that has not learnt them (out of fold). This is not the share "
    "of right labels, for the model errs as well. That share is estimated, with its interval, once people have answered images "
    "drawn at random, which are one in ten on the page Annotate.",
}
FEWEST = 10  # random images that an estimate rests on
NOISY_TEST = (
    "The test set has the same doubtful labels as the pool; wrong ones count as errors of a model that is right."
)
ENVELOPE_SEEDS = 5  # sets of votes behind the random and oracle envelopes, as the paper's five runs


def learning_curve(runs: list[Run]) -> pd.DataFrame:
    """Test accuracy against labels, one row a run and cycle: run, method, seed, cycle, n_labels, accuracy, gap."""
    parts = [run.cycles().assign(run=run.id, method=run.config.arm, seed=run.config.seed) for run in runs]
    columns = ["run", "method", "seed", "cycle", "n_labels", "accuracy", "gap"]
    parts = [part.reindex(columns=columns) for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def cleaning_curve(run: Run, dataset: ImageDataset, up_to_cycle: int | None = None) -> pd.DataFrame:
    """Correctness after 0 … T collected labels of a cleaning run: run, method, seed, n_labels, correctness.

    Empty where nobody knows the true labels.
    """
    columns = ["run", "method", "seed", "n_labels", "correctness"]
    config = run.config
    reference = reference_counts(config, dataset)
    _, taken, _ = run.state(dataset.ids, up_to_cycle)
    n = len(dataset.ids)
    if reference is None or len(taken.sample) < n:
        return pd.DataFrame(columns=columns)
    # The first n events are the initial labels
    collected = taken[n:]
    initial = np.empty(n, dtype=np.int64)
    initial[taken.sample[:n]] = taken.label[:n]
    curve = relabel.correctness_curve(reference.argmax(axis=1), initial, collected)
    return pd.DataFrame(
        {
            "run": run.id,
            "method": config.arm,
            "seed": config.seed,
            "n_labels": np.arange(len(curve)),
            "correctness": curve,
        }
    )[columns]


def envelopes(config: Config, dataset: ImageDataset, budget: int) -> pd.DataFrame:
    """Bounds of a cleaning run: policy ("oracle" | "random" | "minimal"), n_labels, mean and standard deviation.

    Oracle and random by `core.relabel.simulate` over five sets of votes on the run's own initial labels; minimal is the
    straight line that corrects one sample with every two labels. Empty where nobody knows the true labels.
    """
    reference = reference_counts(config, dataset)
    if reference is None:
        return pd.DataFrame(columns=["policy", "n_labels", "mean", "sd"])
    initial = initial_labels(config, dataset)
    x = np.arange(budget + 1)
    seeds = config.seed + np.arange(ENVELOPE_SEEDS)
    parts = []
    for policy in ("oracle", "random"):
        curves = relabel.simulate(reference, initial, policy, budget=budget, seeds=seeds).correctness
        parts.append(
            pd.DataFrame(
                {"policy": policy, "n_labels": x, "mean": curves.mean(axis=0), "sd": curves.std(axis=0, ddof=1)}
            )
        )
    start = metrics.correctness(initial, reference)
    parts.append(
        pd.DataFrame(
            {"policy": "minimal", "n_labels": x, "mean": np.minimum(1.0, start + x / 2 / len(initial)), "sd": 0.0}
        )
    )
    return pd.concat(parts, ignore_index=True)


def summary(run: Run, dataset: ImageDataset) -> dict[str, Any]:
    """The object that `run --json` prints: run, task, seed, cycles, auc, auc_normalised.

    Label cleaning: mean correctness over the collected labels, and the same on the scale from the random order (0) to
    the oracle (1). Active learning: mean accuracy over the labels (trapezoids), and no normalised value.
    """
    config, cycles = run.config, run.cycles()
    auc = normalised = None
    if config.task == "label-cleaning":
        curve = cleaning_curve(run, dataset)
        if len(curve) > 1:
            bounds = envelopes(config, dataset, len(curve) - 1).groupby("policy")["mean"].mean()
            auc = float(curve["correctness"].mean())
            normalised = metrics.normalised_auc(auc, bounds["random"], bounds["oracle"])
    elif "accuracy" in cycles:  # not so without a test set
        auc = metrics.area_under_curve(cycles["n_labels"], cycles["accuracy"])
    return {
        "run": run.id,
        "task": config.task,
        "seed": config.seed,
        "cycles": [row.dropna().to_dict() for _, row in cycles.astype(object).iterrows()],
        "auc": auc,
        "auc_normalised": normalised,
    }


@dataclass(frozen=True)
class Measure:
    """One share of a cycle as it is shown. interval: "55.4 to 100.0 %" of an estimate, else "" · certain: whether it is a fact
    rather than an estimate or a hint, so that a change may be drawn as better or worse · note: what to know of it, "" for
    nothing."""

    title: str
    text: str
    interval: str
    certain: bool
    note: str

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})" if self.interval else self.text


def measure_title(name: str, config: Config) -> str:
    """What a share of `Run.cycles` is called; that of a test set with doubtful labels says so."""
    if name == "accuracy" and config.doubtful_test:
        return "Test accuracy, noisy labels"
    return MEASURES[name]


def measures(config: Config, cycle: pd.Series) -> dict[str, Measure]:
    """The shares that may stand for a cycle, a row of `Run.cycles`, by their names, the most telling first.

    An estimate from fewer than `FEWEST` random images is none of them, nor is one without an interval, which earlier versions
    made of labels that the model had learnt.
    """
    shown = {name: float(cycle[name]) for name in MEASURES if pd.notna(cycle.get(name))}
    if not cycle.get("checked_at_random", 0) >= FEWEST:
        shown.pop("estimated_correctness", None)
    found = {}
    for name, value in shown.items():
        interval, note = "", NOTES.get(name, "")
        if name == "estimated_correctness":
            interval = f"{100 * cycle['estimated_low']:.1f} to {100 * cycle['estimated_high']:.1f} %"
            note = note.format(cycle["checked_at_random"])
        if name == "accuracy" and config.doubtful_test:
            note = NOISY_TEST
        found[name] = Measure(measure_title(name, config), f"{100 * value:.1f} %", interval, not note, note)
    return found


def split_text(config: Config, dataset: ImageDataset) -> str:
    """How the images are divided, in one sentence."""
    n, held_out = len(dataset), len(dataset.test_labels)
    if config.dataset != "folder" or not held_out:
        test = f", {held_out:,} to test on" if held_out else ", none set aside to test on"
        return f"{n:,} images in the pool{test}."
    return (
        f"{n:,} images in the pool, {held_out:,} held out to test on: these are neither ranked nor checked "
        "(--test-share 0 puts them into the pool)."
    )


def samples(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """The ranking of a cycle with class names, and what the reference says where there is one.

    Adds given, suggested (names), reference (name), kind: "clear noise", "difficult" or "correct" for a label that is
    wrong on a clear image, wrong on an ambiguous one, or right (Bernhardt et al. 2022); "" where nobody knows.
    """
    table = run.ranking(cycle)
    names = np.array([*dataset.class_names, "—"], dtype=object)  # −1, no label, is the last
    table["given"], table["suggested"] = names[table["label"]], names[table["suggested"]]
    config = run.config
    cleaning = config.task == "label-cleaning"
    reference = reference_counts(config, dataset) if cleaning else dataset.label_counts
    unknown = np.full(len(table), -1) if cleaning else dataset.labels  # a label that is to be checked is no reference
    truth = unknown if reference is None else reference.argmax(axis=1)
    table["reference"] = names[truth]
    if reference is not None:
        wrong, ambiguous = table["label"].to_numpy() != truth, votes.ambiguous(reference)
        kind = np.select([~wrong, ambiguous], ["correct", "difficult"], "clear noise")
        table["kind"] = np.where(table["label"] >= 0, kind, "")
    else:
        table["kind"] = ""
    return table


def reason(sample: pd.Series, n_classes: int) -> str:
    """Why a sample stands where it stands, in one sentence: "labelled cat; the model says dog 0.93 and is sure: …".

    sample: a row of `samples` · sure: entropy below a third of its largest value ln C, unsure: above two thirds.
    """
    entropy = sample["entropy"] / np.log(n_classes)
    sure = "is sure" if entropy < 1 / 3 else "is unsure" if entropy > 2 / 3 else "is fairly sure"
    says = f"the model says {sample['suggested']} {sample['confidence']:.2f} and {sure}"
    votes = f"{sample['n_votes']:,} vote{'' if sample['n_votes'] == 1 else 's'}"
    if sample["status"] == "tied" and sample["given"] == "—":
        return f"tied ({votes}), so that no label stands; {says}: one more vote may decide"
    if sample["given"] == "—":
        means = {
            "is sure": "unless it is wrong, it would learn little from the label",
            "is unsure": "it cannot guess the label",
            "is fairly sure": "the label may be another",
        }
        return f"not labelled yet; {says}: {means[sure]}"
    if sample["given"] != sample["suggested"]:
        means = {
            "is sure": "likely a wrong label",
            "is unsure": "an ambiguous image, or one that is hard for the model",
            "is fairly sure": "perhaps a wrong label",
        }
    else:
        means = {
            "is sure": "likely a right label",
            "is unsure": "an ambiguous image, though the model agrees",
            "is fairly sure": "probably a right label",
        }
    return f"labelled {sample['given']} ({votes}); {says}: {means[sure]}"


def outcomes(run: Run, dataset: ImageDataset, cycle: int) -> NDArray[np.object_]:
    """What became of every label of a cleaning run by this cycle, [N]; "" where nobody knows the right one.

    "corrected", "still wrong" and "missed" of the labels that were wrong at the start (people were asked; were asked in
    vain; were not asked); "wrongly flagged", "spoilt" and "untouched" of those that were right.
    """
    reference = reference_counts(run.config, dataset) if run.config.task == "label-cleaning" else None
    if reference is None:
        return np.full(len(dataset), "", dtype=object)
    state, taken, events = run.state(dataset.ids, cycle)
    first = (events["cycle"] == 0).to_numpy()
    initial = np.full(len(dataset), -1)
    initial[taken.sample[first]] = taken.majority[first]  # the last event of a sample wins
    asked = np.zeros(len(dataset), dtype=bool)
    asked[taken.sample[~first]] = True
    truth = reference.argmax(axis=1)
    was, now = initial == truth, state.majority == truth
    names = ["corrected", "still wrong", "missed", "spoilt", "wrongly flagged"]
    return np.select([~was & now, ~was & asked, ~was, ~now, asked], names, "untouched").astype(object)


def cycle_changes(run: Run, dataset: ImageDataset) -> pd.DataFrame:
    """What each cycle did: cycle, labels collected, samples touched, majority labels changed, seconds a phase."""
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


def relabels(run: Run, dataset: ImageDataset, up_to_cycle: int | None = None) -> pd.DataFrame:
    """One row a relabel of a cleaning run, in order: what Algorithm 1 did, and whether it was right.

    relabel (from 1), cycle, sample_id, votes (names, in order), n_votes, before, after (majority, names), formed, score (at
    selection, of the run's own score), kind ("clear noise corrected", …; "" where nobody knows), sources.
    """
    config, names = run.config, np.array([*run.about["class_names"], "—"], dtype=object)  # −1, a tie, is the last
    _, taken, events = run.state(dataset.ids, up_to_cycle)
    asked = (events["cycle"] > 0).to_numpy()
    collected = taken[asked]
    initial = run.state(dataset.ids, 0)[0].majority
    visits, log = relabel.visits(collected, initial), events[asked].reset_index(drop=True)
    cycles = log["cycle"].to_numpy()[visits.first]
    scores_at = np.full(len(cycles), np.nan)
    for cycle in np.unique(cycles):
        method = run.config_at(int(cycle) - 1).method
        ranking = run.ranking(int(cycle) - 1)[method].to_numpy(np.float64)
        scores_at[cycles == cycle] = ranking[visits.sample[cycles == cycle]]
    reference = reference_counts(config, dataset)
    kinds = relabel.kinds(visits.before, visits.after, reference[visits.sample]) if reference is not None else ""
    given = pd.Series(names[collected.label]).groupby(visits.of).agg(", ".join)
    return pd.DataFrame(
        {
            "relabel": np.arange(1, len(cycles) + 1),
            "cycle": cycles,
            "sample_id": np.array(dataset.ids, dtype=object)[visits.sample],
            "votes": given.to_numpy(dtype=object),
            "n_votes": visits.n_votes,
            "before": names[visits.before],
            "after": names[visits.after],
            "formed": visits.formed,
            "score": scores_at,
            "kind": kinds,
            "source": log["source"].to_numpy()[visits.first],
        }
    )


def rankings_beside(run: Run, cycle: int) -> dict[str, str]:
    """What a ranking can be set beside: scores of the cycle, and other runs' own scores; key → title.

    A key is "score" or "run/score"; other runs are those on the same data and noise that have come as far.
    """
    found = {name: scores.REGISTRY[name].title for name in run.ranking(cycle).columns if name in scores.REGISTRY}
    for other in comparable(run):
        if len(other.cycles()) > cycle and other.config.seed == run.config.seed:
            config = other.config_at(cycle)
            found[f"{other.id}/{config.method}"] = (
                f"{config.arm}: {scores.REGISTRY[config.method].title} ({other.id[:15]})"
            )
    return found


def disagreement(run: Run, dataset: ImageDataset, cycle: int, first: str, second: str) -> pd.DataFrame:
    """Images that two rankings place differently, the most first: `samples` with place_first, place_second, apart.

    first, second: keys of `rankings_beside`. Places are shares in [0, 1] of the images that both can rank, 0 = checked or
    labelled first; apart = |place_first − place_second|.
    """
    table = samples(run, dataset, cycle)

    def of(key: str) -> pd.Series:
        other, _, name = key.rpartition("/")
        source = table if not other else Run(run.path.parent / other).ranking(cycle)
        return source[name].where(source["rank"].notna())

    values = pd.DataFrame({"first": of(first), "second": of(second)}).dropna()
    places = values.rank(ascending=False, method="average").sub(1).div(max(1, len(values) - 1))
    table = table.loc[values.index].assign(place_first=places["first"], place_second=places["second"])
    table["apart"] = (table["place_first"] - table["place_second"]).abs()
    return table.sort_values("apart", ascending=False, kind="stable")


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


def through(run: Run, cycle: int) -> int | None:
    """Up to which cycle an export reads the log: at the last ranking to its end, so that no annotation is missing."""
    return None if cycle == len(run.cycles()) - 1 else cycle


def untrained(run: Run, cycle: int) -> pd.Series:
    """The annotations of people that are exported with a cycle though no training has seen them, by sample id."""
    if through(run, cycle) is not None:
        return pd.Series(dtype=np.int64)
    events = standing(run.log.events(sources=PERSON, after=cycle))
    last = events[events["label"] >= 0].drop_duplicates(["sample_id", "source"], keep="last")
    return last["sample_id"].value_counts()


def untrained_text(run: Run, cycle: int) -> str:
    """What to say of them, "" where there are none."""
    n = int(untrained(run, cycle).sum())
    if n == 0:
        return ""
    return f"{n:,} annotation{'' if n == 1 else 's'} since the last training {'is' if n == 1 else 'are'} exported too."


def cleaned(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """The labels at a cycle beside those of the start, one row a sample (`core.exchange.cleaned_labels`).

    At the last cycle they hold all annotations so far; n_untrained: those of a sample that no training has seen.
    """
    initial = run.state(dataset.ids, 0)[0].majority
    state, _, _ = run.state(dataset.ids, through(run, cycle))
    table = exchange.cleaned_labels(dataset.ids, initial, state, dataset.class_names)
    return table.assign(n_untrained=table["sample_id"].map(untrained(run, cycle)).fillna(0).astype(np.int64))


def issues(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """Suspected wrong labels in cleanlab's column names, one row a sample (`core.exchange.issues`), labels as in `cleaned`."""
    probs, now = run.posterior(cycle).astype(np.float64), cleaned(run, dataset, cycle)
    ranking = samples(run, dataset, cycle).assign(label=now["label"], status=now["status"])
    return exchange.issues(ranking, probs, dataset.class_names)


def given_votes(run: Run) -> pd.DataFrame:
    """The votes of people, as tables of votes are read (`core.exchange.votes_table`); those of the next cycle too."""
    events = run.log.labels()
    events = events[events["source"].str.startswith(PERSON)]
    annotators = events["source"].str.removeprefix(PERSON).tolist()
    return exchange.votes_table(events, annotators, run.about["class_names"])


def label_studio(
    run: Run, dataset: ImageDataset, cycle: int, folder: Path, top: int | None = None, prefix: str | None = None
) -> list[Path]:
    """Write Label Studio's import file for a ranking into a folder, the best `top` of it; returns the files.

    Where there is no ground truth, one image in ten is drawn at random, as on the page Annotate (`core.audit`). prefix: what
    stands before a sample's id in the address of its image; None: the images are written beside the tasks, and their addresses
    are those of Label Studio's local files, its document root being the folder above.
    """
    table = samples(run, dataset, cycle)
    table = table[table["rank"].notna()].sort_values("rank")
    if TASKS[run.config.task](run.config, dataset).audited:
        table = table.loc[audit.queue(table.index.to_numpy(), len(dataset), run.config.seed)]
        table["rank"] = np.arange(1, len(table) + 1)  # the order in which Label Studio is to serve them
    table = table.head(len(table) if top is None else top)
    if len(table) == 0:
        raise UserError(f"No image of run {run.id} is left to check at cycle {cycle}: choose an earlier one.")
    images = None if prefix is not None else {dataset.ids[row]: dataset.images[row] for row in table.index}

    def image_of(sample_id: str) -> str:
        if prefix is None:
            return f"/data/local-files/?d={quote(f'{folder.name}/{exchange.file_address(sample_id)}')}"
        return prefix + quote(sample_id)

    tasks = exchange.label_studio_tasks(table, dataset.class_names, run=run.id, image_of=image_of)
    return exchange.write_label_studio(folder, tasks, exchange.label_studio_config(dataset.class_names), images)


def label_studio_bundle(run: Run, dataset: ImageDataset, cycle: int, top: int = BUNDLE) -> bytes:
    """What `label_studio` writes, with images, as a zip file; the best `top` of the ranking."""
    with tempfile.TemporaryDirectory() as folder:
        label_studio(run, dataset, cycle, Path(folder), top)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as bundle:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    bundle.write(path, path.relative_to(folder))
    return content.getvalue()


def bring_in(run: Run, dataset: ImageDataset, name: str, content: bytes | None = None) -> str:
    """Labels that people gave, from a file of Label Studio or a table of votes, into the run's log; says how many.

    name: a path; where `content` is given, the name of the file it came in. Raises `UserError` for a file that does not fit
    the run.
    """
    if content is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            return bring_in(run, dataset, str(path))
    path = Path(name)
    if path.suffix.lower() == ".json":
        brought = exchange.read_label_studio(path, dataset.ids, dataset.class_names, run=run.id)
    else:
        brought = exchange.read_votes(path, dataset.ids, dataset.class_names)
    given = brought.annotations
    new = run.record([dataset.ids[row] for row in given.rows], given.labels, given.annotators)
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in brought.skipped.items())
    return f"{new} new labels of {len(given.rows)} in {path.name}{left_out}."


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
        return policy_figure([run, *(of_study(run) if others is None else others)], dataset, band)
    if name == "curves":
        runs = [run, *(same_experiment(run) if others is None else others)]
        accuracy = measure_title("accuracy", config)
        if config.task == "active-learning":
            text = "accuracy on the test set after each training; band ± 1 s.d. over seeds"
            return figures.learning_curves(learning_curve(runs), cycle, note(run, text), accuracy)
        if reference_counts(config, dataset) is None:
            text = "estimate: from images of a random order that people checked, taken as right; exact 95 % interval"
            return figures.estimates(run.cycles(), cycle, note(run, text), accuracy)
        curves = pd.concat([cleaning_curve(one, dataset) for one in runs], ignore_index=True)
        at = int(run.cycles()["n_labels"].iloc[cycle])
        bounds = envelopes(config, dataset, int(curves["n_labels"].max()))
        return figures.cleaning_curves(
            curves,
            bounds,
            at,
            note(run, "AUC: mean share of right majority labels over the collected labels; bands ± 1 s.d."),
        )
    if name == "distribution":
        (score,) = _scores(run, cycle, chosen, (config.method,))
        return score_distribution(run, dataset, cycle, score)
    if name == "confusion":
        table = samples(run, dataset, cycle)
        return confusion(run, pd.crosstab(table["given"], table["suggested"]), cycle)
    if name == "scatter":
        across, up = _scores(run, cycle, chosen, ("entropy", config.method))
        return scatter(run, samples(run, dataset, cycle).dropna(subset=[across, up]), across, up, cycle)
    if name == "embedding":
        (score,) = _scores(run, cycle, chosen, (config.method,))
        return embedding_map(run, samples(run, dataset, cycle), score, scores.REGISTRY[score].title, cycle)
    scored = with_noise_scores(run, samples(run, dataset, cycle), cycle)
    return figures.noise_map(scored, note(run, f"cycle {cycle}; {map_text(config, dataset)}"))


def _scores(run: Run, cycle: int, chosen: Sequence[str], default: tuple[str, ...]) -> tuple[str, ...]:
    """The scores that a figure draws. Raises `UserError` where the cycle has them not, or another number is asked for."""
    there = [name for name in scores.REGISTRY if name in run.ranking(cycle).columns]
    found = tuple(chosen) or default
    if len(found) != len(default) or not set(found) <= set(there):
        how_many = "one score" if len(default) == 1 else "two scores"
        raise UserError(
            f"This figure shows {how_many} of cycle {cycle} of run {run.id}: choose among {', '.join(there)}."
        )
    return found


def confusion(run: Run, counts: pd.DataFrame, cycle: int) -> go.Figure:
    """Images by given and suggested label. counts: numbers, index and columns are class names."""
    return figures.confusion(counts, note(run, f"cycle {cycle}; numbers of images, n = {counts.to_numpy().sum():,}"))


def scatter(run: Run, table: pd.DataFrame, across: str, up: str, cycle: int) -> go.Figure:
    """Images by two of their scores; table: rows of `samples` that have both."""
    return figures.scatter(table, across, up, note(run, f"cycle {cycle}; {len(table):,} images"))


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
    if not set(layout.COLUMNS) <= set(table.columns):
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no embedding map: it was scored by an earlier version. A branch at this cycle "
            "scores it anew."
        )
    text = (
        f"cycle {cycle}; {some or f'{len(table):,} images'}; {EMBEDDING_TEXT}; colour: {title}, 2nd to 98th percentile"
    )
    return figures.embedding_map(table, colour, title, note(run, text), selected)


def of_study(run: Run) -> list[Run]:
    """The other runs of the run's study that have a ranking; those that differ in their seed alone where it has none."""
    if run.config.study is None:
        return same_experiment(run)
    return [other for other in _beside(run) if other.config.study == run.config.study and len(other.cycles())]


def simulable(run: Run, dataset: ImageDataset) -> bool:
    """Whether relabelling by the run's first ranking can be simulated: somebody knows the true label distributions.

    The first ranking of a branch is another run's.
    """
    return reference_counts(run.config, dataset) is not None and run.config.earlier is None


def policy_statistics(runs: list[Run], dataset: ImageDataset) -> pd.DataFrame:
    """What the first rankings of runs come to at the end of the budget (`core.policies.statistics`)."""
    return policies.statistics(runs, dataset, policies.simulated(runs, dataset))


BANDS = {"sd": "± 1 s.d.", "interval": "95 % interval (± 1.96 standard errors)"}


def policy_figure(runs: list[Run], dataset: ImageDataset, band: str) -> go.Figure:
    """Fig. 3 of Bernhardt et al. 2022: the first rankings of cleaning runs between random and oracle."""
    runs = policies.comparable(runs)
    found = policies.simulated(runs, dataset)
    table = policies.curves(found)
    config, n = runs[0].config, int(table["n_seeds"].max())
    seeds = ", ".join(str(seed) for seed in sorted({run.config.seed for run in runs}))
    small = (
        f"{config.dataset}, N = {len(dataset):,}, {noise_text(config, dataset)} · {config.model}, width {config.width}\n"
        f"static simulation by each first ranking, seed {seeds}, {policies.VOTE_SETS} sets of votes (n = {n}); band "
        f"{BANDS[band]}; AUC: mean share of right majority labels over the collected labels"
    )
    return figures.policy_curves(table, policies.areas(found), band, small)


def budget_figure(run: Run, curves: pd.DataFrame, at: int, target: float) -> go.Figure:
    """The curves of `core.budget`, marked at a budget and a target."""
    if run.config.task == "active-learning":
        text = "mean over the seeds of each strategy; straight lines between cycles"
    else:
        text = (
            f"simulation by each first ranking, mean over {policies.VOTE_SETS} sets of votes; minimal: two labels correct one "
            "image, the least that any ranking can need"
        )
    return figures.budget(curves, run.config.task == "active-learning", at, target, note(run, text))


def noise_text(config: Config, dataset: ImageDataset) -> str:
    """How many of the first labels are wrong, and how that came about."""
    reference = reference_counts(config, dataset)
    if reference is None:
        return "the labels' errors are not known"
    share = 1 - metrics.correctness(initial_labels(config, dataset), reference)
    if config.temperature is not None:
        return f"{share:.1%} wrong labels, drawn from the votes at T = {config.temperature:g}"
    how = f"{config.noise_kind} noise, injected" if config.noise else "as found"
    return f"{share:.1%} wrong labels, {how}"


def score_distribution(run: Run, dataset: ImageDataset, cycle: int, score: str) -> go.Figure:
    """Histogram of a score over the images that may still be chosen; for the run's own score with the next budget's cut."""
    table = run.ranking(cycle)
    table = table[table["rank"].notna()]
    config = run.config_at(cycle)
    cut = next_cut(table, config) if score == config.method else None
    numbers, edges = np.histogram(table[score].dropna(), bins=BINS)
    bins = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "everything": numbers, "kept": numbers})
    text = note(run, f"cycle {cycle}; {len(table):,} images that may still be chosen")
    return figures.distribution(bins, score, cut, text)


def areas(runs: list[Run], dataset: ImageDataset) -> pd.DataFrame:
    """One row a run: method, seed, n_labels, last (accuracy or correctness at the end), auc, auc_normalised, run."""
    rows = []
    for run in runs:
        found, cycles = summary(run, dataset), run.cycles()
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


def comparable(run: Run) -> list[Run]:
    """Other runs of the same task on the same data and noise, asking the same annotators, that have finished a cycle."""
    task, origin = run.config.task, run.origin
    return [one for one in _beside(run) if one.config.task == task and one.origin == origin and len(one.cycles())]


def map_text(config: Config, dataset: ImageDataset) -> str:
    """What the letters and kinds of the map of noise mean."""
    if config.task == "active-learning":
        return "CE against the reference label, which the strategy does not see"
    if reference_counts(config, dataset) is None:
        return "l̂: label histogram; which labels are wrong is not known"
    return "l̂: label histogram; clear noise: wrong label on an image whose votes agree; difficult: whose votes do not"


def same_experiment(run: Run) -> list[Run]:
    """The other runs that differ from this one in their seed alone and have come at least as far."""
    return [
        other
        for other in _beside(run)
        if other.config.experiment == run.config.experiment and len(other.cycles()) >= len(run.cycles())
    ]


def _beside(run: Run) -> list[Run]:
    """The other runs that can be read: of an example the examples, of the user's own runs those alone."""
    return [o for o in all_runs() if o.id != run.id and o.is_example == run.is_example and readable(o)]


def readable(run: Run) -> bool:
    """Whether the run's configuration can be read."""
    try:
        return bool(run.config)
    except UserError:
        return False


def next_cut(table: pd.DataFrame, config: Config) -> float | None:
    """The lowest score that the next budget takes, each sample counted as one label; None where all are taken."""
    ranked = table[table["rank"].notna()]
    if config.budget == 0 or len(ranked) <= config.budget:
        return None
    return float(ranked.nsmallest(config.budget, "rank")[config.method].min())


def with_noise_scores(run: Run, table: pd.DataFrame, cycle: int) -> pd.DataFrame:
    """A ranking with the columns that the map needs. Cleaning has them; in active learning l̂ is the reference label, or where
    there is none the one that people gave, and images without either are left out."""
    if "cross-entropy" in table:
        return table
    label = table["reference"].where(table["reference"] != "—", table["given"])
    known = table[label != "—"]
    probs = run.posterior(cycle)[known.index].astype(np.float64)
    codes = {name: c for c, name in enumerate(run.about["class_names"])}
    one_hot = np.eye(len(codes))[label[known.index].map(codes)]
    noisiness = scores.cross_entropy(one_hot, probs)
    return known.assign(**{"cross-entropy": noisiness, "cleaning": noisiness - scores.entropy(probs)})


def note(run: Run, definition: str) -> str:
    """The small print of a figure: data, annotators, run and definition."""
    about, config = run.about, run.config
    kind = (
        about["annotators"] if config.task == "label-cleaning" else "none"
    )  # learning asks for the label, not for votes
    labels = {"human": "human votes", "simulated": "simulated annotators", "none": "reference labels"}[kind]
    if config.annotator == "person":
        labels = "labels by people"
    return (
        f"{config.dataset}, N = {about['n_samples']:,}, {labels} · run {run.id}, seed\u00a0{config.seed}\n{definition}"
    )
