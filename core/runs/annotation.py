"""What people say of the images of a run: recorded, taken back, agreed on; and what lies before each annotator.

All of it is read from the label log at every step, so that a second tab, another annotator or a crash changes nothing. Needs
no torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from core import methods
from core.relabel import Ints
from core.runs import audit, questions
from core.runs.run import PERSON, Run
from core.runs.spec import Config
from core.store.log import MASK, SKIPPED, TAKEN_BACK, UNSURE, Answers, Drawn, Event, standing
from core.store.maskfiles import Codes
from data import ImageDataset, annotations, votes
from data.annotations import Annotations
from data.errors import UserError
from data.files import masktext
from data.masks import VOID, widened

LONGEST_NAME = 60
PAUSE = 60.0  # seconds between two votes that are no longer work
ROUND = 100  # votes to aim at where a run has no budget
STALE = "This page is older than the run: load it again."
BLANK = "Nothing is drawn in this mask: give some pixels a class, or skip the image, or say that you are unsure."


@dataclass(frozen=True)
class Said:
    """The last thing that an annotator said of an image. seq: of the event · row: in the pool · label: a class, or as in
    `core.store.log` · digest: of the mask that was drawn, None without one."""

    seq: int
    row: int
    label: int
    digest: str | None

    @property
    def skipped(self) -> bool:
        """Whether the image was left for later."""
        return self.label == SKIPPED


@dataclass(frozen=True)
class Desk:
    """What lies before one annotator.

    queue: pool rows int [Q] still to answer, next first · said: what the annotator said since the last ranking, in order ·
    votes: of everybody since then, one an image and annotator · mine, skipped, unsure: of this annotator, unsure of all
    cycles · pace: the annotator's votes a minute, pauses left out; None before there are two.
    """

    queue: Ints
    said: list[Said]
    votes: int
    mine: int
    skipped: int
    unsure: int
    pace: float | None


def annotator_name(text: str) -> str:
    """A name as it is kept: one line without blanks at its ends. Raises `UserError` for none, or one too long."""
    name = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not name:
        raise UserError("Say who you are, so that your annotations have a name.")
    if len(name) > LONGEST_NAME:
        raise UserError(f"This name has {len(name)} characters: take one of at most {LONGEST_NAME}.")
    return name


def annotators(run: Run) -> list[str]:
    """Who has said something in this run, by name."""
    sources = run.log.events(sources=PERSON)["source"].unique().tolist()
    return sorted(source.removeprefix(PERSON) for source in sources)


def asks(run: Run) -> bool:
    """Whether labels of people are taken now: where they check labels, not before the first cycle has begun."""
    early = questions.kind(run.config.task, run.answer.kind).people_first
    return run.config.annotator == "person" and (early or run.open_cycle() > 0)


def check_people(run: Run) -> None:
    """Raise `UserError` where labels of this run are simulated, or none are asked for yet."""
    if run.config.annotator != "person":
        raise UserError(f"Run {run.id} simulates its annotators: start one with --annotator person to import labels.")
    if not asks(run):
        raise UserError(f"Run {run.id} has no ranking yet: wait for its first cycle.")


@contextmanager
def _answering(run: Run, annotators: list[str]) -> Iterator[Answers]:
    """The transaction in which these annotators say something. Raises as `record`."""
    check_people(run)
    with run.log.answering(sorted({PERSON + who for who in annotators})) as answers:
        yield answers


def record(run: Run, sample_ids: list[str], labels: Ints, annotators: list[str], *, confirm: bool = False) -> int:
    """Append labels int [n] that people gave, for the next cycle; returns how many were new.

    A vote that its annotator has given before, and not changed since, is left out, so that a file may be read twice. confirm:
    not so one that came with the labels to check, which the annotator now gives again. Raises `UserError` where labels of this
    run are simulated, or none are asked for yet.
    """
    with _answering(run, annotators) as answers:
        stands = standing(answers.events)
        if confirm and run.config.question.checks:
            stands = stands[stands["cycle"] > 0]
        last = {(e.sample_id, e.source): e.label for e in stands.itertuples()}
        for sample_id, label, who in zip(sample_ids, labels, annotators, strict=True):
            if last.get((sample_id, PERSON + who)) != label:
                last[sample_id, PERSON + who] = label
                answers.new.append((sample_id, int(label), PERSON + who))
    return len(answers.new)


def record_masks(run: Run, sample_ids: list[str], masks: Sequence[Drawn], annotators: list[str]) -> int:
    """Append masks that people drew, for the next cycle; returns how many were new. masks: as `Run.masks` keeps them.

    One that its annotator has given before, and not changed since, is left out. Raises as `record`.
    """
    with _answering(run, annotators) as answers:
        last = {(e.sample_id, e.source): getattr(e, "digest", None) for e in standing(answers.events).itertuples()}
        for sample_id, drawn, who in zip(sample_ids, masks, annotators, strict=True):
            if last.get((sample_id, PERSON + who)) != drawn.digest:
                last[sample_id, PERSON + who] = drawn.digest
                answers.new.append(Event(sample_id, MASK, PERSON + who, drawn))
    return len(answers.new)


def record_mask(run: Run, sample_id: str, codes: Codes, annotator: str, *, confirm: bool = False) -> int:
    """Append a mask that a person drew, uint8 [H, W] as in `data.masks`, for the next cycle; returns how many events that took.

    It is all that the person says of the sample now: earlier masks of this cycle that have a class where it has none would show
    there, and are taken back. One that is the person's last and still stands is left out; confirm, raises: as `record`.
    """
    source = PERSON + annotator
    with _answering(run, [annotator]) as answers:
        drawn = run.masks.add(codes)
        own = standing(answers.events[answers.events["sample_id"] == sample_id])
        if confirm and run.config.question.checks:
            own = own[own["cycle"] > 0]
        if (_digests(own) or [None])[-1] != drawn.digest:
            now = own[own["cycle"] == answers.cycle]
            below = [run.masks.read(one) for one in _digests(now) if one is not None]
            if any(((codes == VOID) & (one != VOID)).any() for one in below):
                answers.new.extend([Event(sample_id, TAKEN_BACK, source)] * len(now))
            answers.new.append(Event(sample_id, MASK, source, drawn))
    return len(answers.new)


def _digests(events: pd.DataFrame) -> list[str | None]:
    """The mask of each event; None of those without one."""
    if "digest" not in events:
        return [None] * len(events)
    return [None if pd.isna(one) else str(one) for one in events["digest"]]


def pass_over(run: Run, sample_id: str, kind: Literal["skip", "unsure"], annotator: str) -> int:
    """Note that a person left a sample for later, or to others; returns how many events that took.

    What the person said of it since the last cycle is taken back. Raises as `record`.
    """
    label, source = UNSURE if kind == "unsure" else SKIPPED, PERSON + annotator
    with _answering(run, [annotator]) as answers:
        own = standing(answers.events[answers.events["sample_id"] == sample_id])
        if label != UNSURE or not len(own) or own["label"].iloc[-1] != UNSURE:
            back = int((own["cycle"] == answers.cycle).sum())
            answers.new.extend([(sample_id, TAKEN_BACK, source)] * back)
            answers.new.append((sample_id, label, source))
    return len(answers.new)


def take_back(run: Run, seq: int, annotator: str) -> bool:
    """Take back what a person said of a sample, the event `seq` of the log; what the person said before holds again.

    Nothing happens where the person has spoken of the sample since, has taken it back already, or a cycle has been trained on
    it: asking twice is safe. Raises as `record`.
    """
    with _answering(run, [annotator]) as answers:
        last = standing(answers.events).drop_duplicates("sample_id", keep="last")
        found = last[(last["seq"] == seq) & (last["cycle"] == answers.cycle)]
        answers.new.extend((sample_id, TAKEN_BACK, PERSON + annotator) for sample_id in found["sample_id"])
    return len(answers.new) > 0


def check_step(run: Run) -> None:
    """Raise `UserError` where people are asked and have given no label since the last cycle, or too few to begin.

    Raises as `Run.check_work` too.
    """
    run.check_work()
    if run.config.annotator != "person":
        return
    events, cycle = run.log.labels(), run.open_cycle()
    if cycle == 0 and not run.config.question.checks and run.config.initial == 0:
        if len(run.answer.given(events, run.masks)) < 2:
            raise UserError(
                f"Run {run.id} has no labels of two classes yet: give some on the page Annotate, or import them "
                "(`python -m core import`), then train."
            )
    elif cycle > 0 and not (events["cycle"] >= cycle).any():
        raise UserError(
            f"Nobody has given a label since the last ranking of run {run.id}: give some on the page Annotate, or import "
            "them (`python -m core import`, or on the page Cycles), then step."
        )


def unranked(run: Run, dataset: ImageDataset) -> pd.DataFrame:
    """In place of a ranking, before the first training: the images without a label in random order.

    sample_id, rank, given, suggested ("—" each), confidence (NaN): the columns of a sample table that a queue needs.
    """
    config = run.config
    order = votes.random_order(len(dataset), config.seed)
    order = order[~np.isin(order, questions.of(config, dataset).initial()[0])]
    rank = np.full(len(dataset), np.nan)
    rank[order] = np.arange(1, len(order) + 1)
    return pd.DataFrame({"sample_id": dataset.ids, "rank": rank, "given": "—", "suggested": "—", "confidence": np.nan})


def desk(run: Run, table: pd.DataFrame, annotator: str) -> Desk:
    """What lies before an annotator, by a ranking of `core.analysis.samples.table` or `unranked`, in pool order.

    An image leaves the queue when the annotator has voted on it or is unsure of it, and goes to its end when skipped;
    what others say of it changes nothing before the next ranking. Votes that came with the data to check do not count. Where
    labels of one class are checked, one image in `core.runs.audit.EVERY` is drawn at random instead.
    """
    task = questions.kind(run.config.task, run.answer.kind)
    checking = not task.people_first
    cycle, events = run.open_cycle(), standing(run.log.events(sources=PERSON))
    own = events[events["source"] == PERSON + annotator]
    last = own.drop_duplicates("sample_id", keep="last")
    now, first = last["cycle"] == cycle, 1 if checking else 0
    voted = last[(last["label"] >= 0) & (last["cycle"] >= first)]
    skipped, unsure = last[(last["label"] == SKIPPED) & now], last[last["label"] == UNSURE]

    rank, sample_id = table["rank"].to_numpy(np.float64, na_value=np.nan), table["sample_id"]
    ranked = np.flatnonzero(~np.isnan(rank))
    ranked = ranked[np.argsort(rank[ranked], kind="stable")]
    out = sample_id.isin([*voted["sample_id"], *unsure["sample_id"], *skipped["sample_id"]]).to_numpy()
    row_of = {name: row for row, name in sample_id[sample_id.isin(last["sample_id"])].items()}
    waiting = [row_of[one] for one in skipped["sample_id"] if not np.isnan(rank[row_of[one]])]
    queue = ranked[~out[ranked]]
    if task.drawn:
        queue = audit.queue(queue, len(table), run.config.seed, answered=int(now.sum()))
    mine = own[(own["label"] >= 0) & (own["cycle"] == cycle)]
    given = events[(events["label"] >= 0) & (events["cycle"] == cycle)]
    return Desk(
        queue=np.concatenate([queue, np.array(waiting, dtype=np.int64)]),
        said=[
            Said(e.seq, row_of[e.sample_id], e.label, digest)
            for e, digest in zip(last[now].itertuples(), _digests(last[now]), strict=True)
        ],
        votes=len(given.drop_duplicates(["sample_id", "source"])),
        mine=mine["sample_id"].nunique(),
        skipped=len(skipped),
        unsure=len(unsure),
        pace=pace(mine["time"]),
    )


def pace(times: pd.Series) -> float | None:
    """Votes a minute, from the times [T] of votes in order; of gaps longer than a minute none is work. None without any."""
    seconds = pd.to_datetime(times, format="ISO8601").diff().dt.total_seconds().dropna()
    gaps = seconds[seconds <= PAUSE]
    return 60 * len(gaps) / max(float(gaps.sum()), 1e-3) if len(gaps) else None


def guidance(table: pd.DataFrame, row: int, config: Config) -> dict[str, Any]:
    """What the run knows of an image, as text: given, suggested, differs, details (a tie, posterior, rank and score)."""
    one = table.iloc[row]
    details = [f"tied, {int(one['n_votes'])} annotations"] if one.get("status") == "tied" else []
    if not np.isnan(one["confidence"]):
        details.append(f"model {100 * one['confidence']:.0f} %")
    if config.method in table and not np.isnan(one[config.method]):
        details.append(
            f"rank {int(one['rank']):,} of {int(table['rank'].notna().sum()):,}" if not pd.isna(one["rank"]) else ""
        )
        details.append(f"{methods.described(config.method).title} {one[config.method]:.3f}")
    known = [name for name in (one["given"], one["suggested"]) if name != "—"]
    return {
        "given": one["given"] if one["given"] != "—" else "",
        "suggested": one["suggested"] if one["suggested"] != "—" else "",
        "differs": len(set(known)) > 1,
        "details": " · ".join(text for text in details if text),
    }


def act(run: Run, dataset: ImageDataset, annotator: str, action: dict[str, Any]) -> None:
    """Do in the run what an annotator did on the page.

    action: {"do": "vote", "id": …, "label": class}, {"do": "mask", "id": …, "mask": as of `data.files.masktext`}, {"do": "skip" |
    "unsure", "id": …} or {"do": "undo", "seq": event}. Doing one twice is as doing it once. Raises `UserError` for anything
    else, and as `record`.
    """
    what, sample_id, number = action.get("do"), action.get("id"), action.get("label", action.get("seq"))
    whole = isinstance(number, int) and not isinstance(number, bool)
    if what == "undo" and whole:
        take_back(run, int(str(number)), annotator)
    elif sample_id not in dataset.ids:
        raise UserError(STALE)
    elif what == "vote" and run.answer.fits(number):
        record(run, [str(sample_id)], np.array([number], dtype=np.int64), [annotator], confirm=True)
    elif what == "mask":
        height, width = dataset.images.shape[1:3]
        codes = masktext.decode(action.get("mask"), height, width, run.answer.n_outputs)
        if (codes == VOID).all():
            raise UserError(BLANK)
        if not run.answer.fits(widened(codes)):
            raise UserError(STALE)
        record_mask(run, str(sample_id), codes, annotator, confirm=True)
    elif what == "skip":
        pass_over(run, str(sample_id), "skip", annotator)
    elif what == "unsure":
        pass_over(run, str(sample_id), "unsure", annotator)
    else:
        raise UserError(STALE)


def goal(run: Run, table: pd.DataFrame) -> int:
    """Votes to collect before the next cycle: as somebody set it, else the run's budget, else `ROUND` or what is there."""
    usual = run.config.budget or max(1, min(ROUND, int(table["rank"].notna().sum())))
    return int(run.log.fact("goal", usual))


def set_goal(run: Run, votes: int) -> None:
    """Let every annotator of the run aim at so many votes a cycle."""
    run.log.set_fact("goal", votes)


def agreement(run: Run) -> pd.DataFrame:
    """Each annotator beside the others: annotator, votes, unsure, shared, compared, share.

    Of classes the share is that of the compared images on which the annotator says what most others say
    (`data.annotations.agreement`); of masks it is the mean IoU with the others, over all pairs of masks of one image.
    """
    events = standing(run.log.events(sources=PERSON))
    last = events.drop_duplicates(["sample_id", "source"], keep="last")
    unsure = last.loc[last["label"] == UNSURE, "source"].str.removeprefix(PERSON).value_counts()
    found = annotations.agreement(_votes(events), len(run.about["class_names"]))
    pairs = kappas(run)
    rows = []
    for one in found:
        share = one.share
        if not run.answer.counted:
            mine = pairs[(pairs["first"] == one.annotator) | (pairs["second"] == one.annotator)]
            share = float(np.average(mine["agree"], weights=mine["shared"])) if len(mine) else None
        rows.append(
            {
                "annotator": one.annotator,
                "votes": one.votes,
                "unsure": int(unsure.get(one.annotator, 0)),
                "shared": one.shared,
                "compared": one.compared if run.answer.counted else one.shared,
                "share": share,
            }
        )
    return pd.DataFrame(rows, columns=["annotator", "votes", "unsure", "shared", "compared", "share"])


def kappas(run: Run) -> pd.DataFrame:
    """Cohen's kappa of every two annotators who labelled the same images: first, second, shared, agree, kappa.

    agree: share of the shared images on which both said the same, of masks their mean IoU · kappa: agreement of images, or of
    pixels, beyond chance, 1 at best, 0 as by chance; None where chance alone agrees always.
    """
    events = standing(run.log.events(sources=PERSON))
    events = events[events["label"] >= 0]
    rows, ids = pd.factorize(events["sample_id"])
    said = run.answer.said(events, rows.astype(np.int64), len(ids), run.masks)
    found = []
    for first, second in combinations(said, 2):
        both = sorted(set(said[first]) & set(said[second]))
        if both:
            agree, kappa = run.answer.compared([said[first][row] for row in both], [said[second][row] for row in both])
            names = first.removeprefix(PERSON), second.removeprefix(PERSON)
            found.append(dict(zip(PAIR, (*names, len(both), agree, kappa), strict=True)))
    return pd.DataFrame(found, columns=PAIR)


PAIR = ["first", "second", "shared", "agree", "kappa"]


def _votes(events: pd.DataFrame) -> Annotations:
    """The votes that hold, of each person and sample the last, samples numbered as they come."""
    held = events[events["label"] >= 0].drop_duplicates(["sample_id", "source"], keep="last")
    rows, _ = pd.factorize(held["sample_id"])
    return Annotations(
        rows.astype(np.int64), held["label"].to_numpy(np.int64), held["source"].str.removeprefix(PERSON).tolist()
    )
