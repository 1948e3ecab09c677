"""The loop: train a selector → score every sample → choose the next ones → get their labels → record → again.

A cycle has three phases, each finished in one transaction: "label" appends the labels that the last ranking asked
for, "train" writes weights, "score" writes the ranking and the metrics. A worker that dies loses at most the phase it
was in; the next one does that phase again from the same seed, with the same result.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from core.engine import provenance, scoring
from core.engine.imported import Importer
from core.engine.learner import Learner, weights
from core.engine.maps import LEARNERS
from core.engine.scoring import Scoring
from core.relabel import Ints, Labels
from core.runs import annotation, live, questions
from core.runs.questions import Ranked
from core.runs.reference import clean_labels
from core.runs.run import UNREADABLE, Run
from core.store.atomic import write_array, write_table
from data.dataset import ImageDataset
from data.errors import UserError
from data.files import skipped
from data.lazy import taken

Report = Callable[[str], None]  # one line per finished phase


class Paused(Exception):
    """The user asked for a pause; what was finished is kept."""


class Waiting(Paused):
    """People have to give labels first; the run says which."""


def work(run: Run, dataset: ImageDataset, *, until: int | None = None, report: Report = lambda line: None) -> None:
    """Bring a run to its target number of cycles, or to the `until` first of them, from wherever it stands.

    Raises `UserError` where another worker holds the run or something the user can mend stands in the way (also kept
    in the run, for the dashboard, as is an internal error), and `Paused` after a phase when a pause was asked for.
    """
    try:
        with run.lock, live.working(run.path, run.log) as state, live.noting_crashes(run.path):
            try:
                run.log.set_fact("machine", provenance.describe())
                run.check_data(len(dataset))
                worker = _Worker(run, dataset, state, report)
                for cycle in range(run.target() if until is None else min(until, run.target())):
                    worker.cycle(cycle)
            except UserError as error:
                state.end(error=str(error))
                raise
            except Waiting as waiting:
                state.end(waiting=str(waiting))
                raise
            except Paused:
                raise
            except Exception as error:  # the dashboard, which does not read this process's output, is to say it too
                what = f"{type(error).__name__}: {error}"
                state.end(error=f"Internal error ({what}): please report it with worker.log.")
                raise
    except filelock.Timeout as error:
        raise UserError(
            f"Run {run.id} is being worked on by another process: wait for it, or cancel it first."
        ) from error


class _Worker:
    """Goes through the cycles of one run."""

    def __init__(self, run: Run, dataset: ImageDataset, state: live.Worker, report: Report) -> None:
        self.run, self.dataset, self.live, self.report = run, dataset, state, report
        self.config = run.config
        self.task = questions.of(self.config, dataset)
        self.learner: Learner | Importer = (
            LEARNERS[dataset.answer](self.config, dataset, run.path.parent, state.progress)
            if self.config.trains
            else Importer(run, dataset)
        )
        strategy = self.task.strategy
        self.companion = None if strategy is None else strategy.companion
        self.dropout = scoring.dropout(self.task)
        # The first model is shared by all strategies, so that they differ in what they choose alone
        self.first_dropout = self.dropout if strategy is None else 0.0
        self.unreadable = 0  # images that were found not to be readable
        self.finished = {(row.cycle, row.phase) for row in run.log.phases().itertuples()}

    def cycle(self, cycle: int) -> None:
        """One cycle, from the labels that the last ranking asked for to the next ranking; what is finished is passed over."""
        run, config, learner, here = self.run, self.config, self.learner, self.run.cycle_path(cycle)

        if self.begins(cycle, "label"):
            state, _, events = run.state(self.dataset.ids)
            given = events.loc[events["cycle"] == cycle, "source"]
            if cycle > 0 and len(given):  # people have answered already
                result = {"labels": len(given), "source": ", ".join(sorted(set(given)))}
                run.log.finish(cycle, "label", self.live.seconds(), result)
            else:
                rows, labels, sources = self.first_labels(state) if cycle == 0 else self.next_labels(cycle, state)
                ids = [self.dataset.ids[row] for row in rows]
                kept, masks = self.task.answer.kept(labels, run.masks)
                run.log.append(cycle, ids, kept, sources, self.live.seconds(), masks)
            self.ends()

        if self.begins(cycle, "train"):
            result = {"static": True}
            if cycle == 0 or not config.static:
                dropout = self.first_dropout if cycle == 0 else self.dropout
                previous, (rows, labels) = self.previous(cycle), self.known(cycle)
                result = learner.train(
                    here,
                    cycle,
                    rows,
                    labels,
                    dropout=dropout,
                    companion=self.companion,
                    validation=scoring.validation(run, self.task, learner),
                    previous=previous,
                )
            run.log.finish(cycle, "train", self.live.seconds(), result)
            self.ends()

        if self.begins(cycle, "score"):
            scored = self.scoring(cycle)
            columns, measures = scoring.columns(scored), scoring.measures(scored)
            if config.skip_duplicates:
                scored = scoring.without_duplicates(scored, columns[config.method])
            if config.per_group is not None:
                scored = scoring.spread(scored, columns[config.method], config.per_group)
            self.task.answer.write(scored.posterior, here)
            if scored.trained == cycle:
                write_array(here / "embedding.npy", scored.scorer.projection())
            for name, kept in self.task.tables(scored.posterior, scored.candidates).items():
                write_table(here / name, kept)
            table = scoring.ranking_table(
                self.dataset.ids,
                scored.state,
                scored.posterior,
                columns,
                config.method,
                scored.candidates,
                self.task.priority(columns, scored.posterior, scored.candidates),
                self.task.status(scored.state, scored.posterior),
            )
            write_table(here / "ranking.parquet", table)
            run.log.finish(cycle, "score", self.live.seconds(), measures)
            self.ends()

    def begins(self, cycle: int, phase: str) -> bool:
        """Whether a phase has to be done; raises `Paused` where it has, and a pause was asked for."""
        if (cycle, phase) in self.finished:
            return False
        if self.live.asked_to_pause:
            raise Paused(f"Paused before the phase “{phase}” of cycle {cycle}.")
        self.live.begin(cycle, phase)
        return True

    def ends(self) -> None:
        """Say that the phase is done."""
        now = self.live.live
        self.report(f"cycle {now.cycle}: {now.phase} done in {self.live.seconds():.1f} s")
        if len(found := self.dataset.unreadable) > self.unreadable:
            self.unreadable = len(found)
            self.run.log.set_fact(UNREADABLE, dict(self.run.log.fact(UNREADABLE, {})) | dict(found))
            self.report(skipped.sentence(skipped.groups(found)))

    def first_labels(self, state: Labels) -> tuple[Ints, Ints, list[str]]:
        """Rows, labels and sources to start from. Raises `Waiting` where people have to label first."""
        rows, labels, sources = self.task.initial()
        if self.config.annotator == "person" and self.task.people_first:
            new = state.histogram[rows].sum(axis=1) == 0  # people may have spoken before the first training
            rows, labels = rows[new], taken(labels, new)
            sources = [source for source, kept in zip(sources, new, strict=True) if kept]
            answer, standing = self.task.answer, taken(self.run.standing(self.dataset), state.majority >= 0)
            known = len(answer.classes(labels) | answer.classes(standing))
            if known < 2:
                raise Waiting(
                    f"Run {self.run.id} waits for people: its labels are of {known} class{'es' * (known != 1)}, and the first "
                    "training takes two; label some images on the page Annotate, or import labels (`python -m core import`), "
                    "then resume."
                )
        return rows, labels, sources

    def next_labels(self, cycle: int, state: Labels) -> tuple[Ints, Ints, list[str]]:
        """Rows, labels and sources that the last ranking asks for. Raises `UserError` where there are none."""
        ranking, budget = self.run.ranking(cycle - 1), self.run.config_at(cycle - 1).budget
        priority = ranking[self.config.method].to_numpy(np.float64)
        if self.dataset.unreadable:  # they have no rank, and come last
            priority = np.where(ranking["rank"].isna(), -np.inf, priority)
        ranked = Ranked(
            priority, lambda: self.run.regions(cycle - 1), lambda: self.run.standing(self.dataset, cycle - 1)
        )
        rows, labels, source = self.task.collect(state, ranked, budget)
        if len(rows) == 0:
            annotation.check_step(self.run)
            raise UserError(
                "There is nothing left to label: every sample is labelled or cleaned, or nobody is there "
                "to answer; export the labels, or start a run on more data."
            )
        return rows, labels, [source] * len(rows)

    def known(self, cycle: int) -> tuple[Ints, Ints]:
        """Rows and labels to train on."""
        state, _, _ = self.run.state(self.dataset.ids, cycle)
        rows = np.flatnonzero(state.majority >= 0)  # where people's votes tie, there is no label to learn from
        rows = rows[self.dataset.readable(rows)]
        if self.learner.selector.labels == "reference":
            return rows, taken(clean_labels(self.config, self.dataset), rows)
        return rows, taken(self.run.standing(self.dataset, cycle), rows)

    def previous(self, cycle: int) -> Path | None:
        """The folder of weights to go on from; None: start afresh. Raises `UserError` where the weights are missing."""
        if cycle == 0 or not (self.config.warm_start or self.config.finetune_epochs > 0):
            return None
        folder = self.run.cycle_path(cycle - 1)
        if not weights(folder).is_file():
            raise UserError(
                f"Cycle {cycle} of run {self.run.id} goes on from the weights of the cycle before, which are not here: open "
                "a bundle that was made with them (`python -m core bundle RUN --with-weights`), or branch with another selector, "
                "which retrains from scratch."
            )
        return folder

    def scoring(self, cycle: int) -> Scoring:
        """What a cycle is scored by."""
        state, _, events = self.run.state(self.dataset.ids, cycle)
        trained = 0 if self.config.static else cycle
        scorers = self.learner.scorers(self.run.cycle_path(trained), trained, self.dropout)
        here, standing = self.run.cycle_path(cycle), self.run.standing(self.dataset, cycle)
        posterior = self.learner.posterior(scorers, here, standing, state)
        candidates = np.flatnonzero(self.task.candidates(state, posterior))
        candidates = self.subset(cycle, candidates[self.dataset.readable(candidates)])
        return Scoring(
            self.run,
            self.task,
            self.learner,
            cycle,
            trained,
            scorers,
            state,
            standing,
            events,
            posterior,
            candidates,
        )

    def subset(self, cycle: int, candidates: Ints) -> Ints:
        """Those of the candidates that are ranked: all, or so many drawn at random as the configuration says."""
        size = self.config.subset
        if size is None or size >= len(candidates):
            return candidates
        generator = np.random.default_rng(self.learner.seed(cycle, 3))
        return np.sort(generator.choice(candidates, size, replace=False))


def stop_on_signals() -> None:
    """Let SIGTERM end a worker like Ctrl-C: the lock is released, and what was finished is kept."""

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
