"""The labels as they are handed on, as tables: cleaned labels, suspected issues, votes, the log."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from core.analysis import samples
from core.relabel import Floats, Ints, Labels
from core.runs import answers
from core.runs.run import PERSON, Run
from core.store.log import standing
from data.dataset import ImageDataset
from data.errors import UserError


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


def untrained_text(run: Run, cycle: int, what: str = "exported too") -> str:
    """What to say of them, "" where there are none; what: becomes of them."""
    n = int(untrained(run, cycle).sum())
    if n == 0:
        return ""
    return f"{n:,} annotation{'' if n == 1 else 's'} since the last training {'is' if n == 1 else 'are'} {what}."


def cleaned(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """The labels at a cycle next to those of the start, one row a sample (`core.analysis.labelling.cleaned_labels`).

    At the last cycle they hold all annotations so far; n_untrained: those of a sample that no training has seen. Raises
    `UserError` for labels that no table holds.
    """
    if not run.answer.tabular:
        raise UserError(
            f"The labels of run {run.id} are {run.answer.kind}s, which no table holds: export them as files (`--masks png`)."
        )
    state, taken, events = run.state(dataset.ids, through(run, cycle))
    initial = samples.majority_at_start(taken, (events["cycle"] > 0).to_numpy(), len(dataset))
    table = cleaned_labels(dataset.ids, initial, state, run.answer.label_names)
    return table.assign(n_untrained=table["sample_id"].map(untrained(run, cycle)).fillna(0).astype(np.int64))


def issues(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """Suspected wrong labels in cleanlab's column names, one row a sample (`issue_table`), labels as in `cleaned`, raises too."""
    now = cleaned(run, dataset, cycle)
    probs = run.posterior(cycle).astype(np.float64)
    ranking = samples.table(run, dataset, cycle).assign(label=now["label"], status=now["status"])
    return issue_table(ranking, probs, dataset.class_names)


def given_votes(run: Run) -> pd.DataFrame:
    """The votes of people, as tables of votes are read (`core.analysis.labelling.votes_table`); those of the next cycle too."""
    events = run.log.labels()
    events = events[events["source"].str.startswith(PERSON)]
    annotators = events["source"].str.removeprefix(PERSON).tolist()
    return votes_table(events, annotators, run.answer.label_names)


def issue_table(ranking: pd.DataFrame, probs: Floats, class_names: Sequence[str]) -> pd.DataFrame:
    """Suspected wrong labels in cleanlab's column names, one row a sample.

    ranking: of `core.analysis.samples.table`, in pool order · probs: posterior [N, C]. Columns: sample_id; is_label_issue;
    label_score, p[given] in [0, 1], **low = bad**; given_label and predicted_label, int; given_name, suggested_name;
    cleaning, Φ in nats, **high = bad**; rank, 1 = check first; status. An issue: the most probable class is another than the
    given, and its posterior reaches the mean self-confidence of the samples labelled so (Northcutt et al. 2021, confident
    learning).
    A tie is one too, of label −1, name "—" and label_score 0, so that a reader who drops issues or sorts them treats it rightly.
    Raises `UserError` for a ranking of active learning.
    """
    given, p, tied = ranking["label"].to_numpy(), np.asarray(probs, dtype=np.float64), ranking["status"] == "tied"
    if "cleaning" not in ranking or (given[~tied] < 0).any():
        raise UserError("Only label cleaning looks for wrong labels: choose a run of that task.")
    predicted, there = p.argmax(axis=1), given >= 0
    own = np.where(there, p[np.arange(len(p)), given], 0.0)
    n = np.bincount(given[there], minlength=len(class_names))
    sums = np.bincount(given[there], weights=own[there], minlength=len(class_names))
    threshold = np.where(n > 0, sums / np.maximum(n, 1), 1.0)
    written = answers.of(class_names).written
    return pd.DataFrame(
        {
            "sample_id": ranking["sample_id"].to_numpy(),
            "is_label_issue": ~there | ((predicted != given) & (p.max(axis=1) >= threshold[predicted])),
            "label_score": own,
            "given_label": given,
            "predicted_label": predicted,
            "given_name": written(given),
            "suggested_name": written(predicted),
            "cleaning": ranking["cleaning"].to_numpy(),
            "rank": ranking["rank"].to_numpy(),
            "status": ranking["status"].to_numpy(),
        }
    )


def cleaned_labels(sample_ids: Sequence[str], initial: Ints, state: Labels, class_names: Sequence[str]) -> pd.DataFrame:
    """The labels after cleaning, one row a sample: sample_id, initial_label, label (int), their names, n_votes, status, changed.

    initial: majority labels [N] at the start. A label that is not there is −1, its name "—" and its status "unlabelled", or
    "tied" where people gave several classes equally often.
    """
    written = answers.of(class_names).written
    return pd.DataFrame(
        {
            "sample_id": list(sample_ids),
            "initial_label": initial,
            "label": state.majority,
            "initial_name": written(initial),
            "name": written(state.majority),
            "n_votes": state.histogram.sum(axis=1),
            "status": state.status,
            "changed": state.majority != initial,
        }
    )


def log_table(events: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """The label log with the labels' names: seq, cycle, sample_id, label, name, source, time.

    What is no label is below 0 (`core.store.log.Log.events`), and named as what it is.
    """
    table = events.copy()
    names = np.array([*class_names, "unsure", "skipped", "taken back"], dtype=object)  # −3, −2 and −1
    table.insert(4, "name", names[table["label"].to_numpy(np.int64)])
    return table


def votes_table(events: pd.DataFrame, annotators: Sequence[str], class_names: Sequence[str]) -> pd.DataFrame:
    """The votes that people gave, as `read_votes` takes them: sample_id, annotator, label (a class's name).

    events: of the label log, those by people · annotators: the name of each event's. Of several votes of one annotator on
    a sample the last holds.
    """
    names = answers.of(class_names).written(events["label"])
    table = pd.DataFrame({"sample_id": events["sample_id"].to_numpy(), "annotator": list(annotators), "label": names})
    return table.drop_duplicates(["sample_id", "annotator"], keep="last", ignore_index=True)
