"""The loop: train a selector → score every sample → choose the next ones → get their labels → record → again.

A cycle has three phases, each finished in one transaction: "label" appends the labels that the last ranking asked
for, "train" writes weights, "score" writes the ranking and the metrics. A worker that dies loses at most the phase it
was in; the next one does that phase again from the same seed, with the same result.
"""

import faulthandler
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import filelock
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from core import graph, metrics, tsne
from core.engine import provenance
from core.engine.inference import NORMS, SCORE_BATCH, Scorer
from core.engine.learner import WHOLE, Learner, Part, save_weights, weights
from core.gradnorm import Loss
from core.models.architectures import Classifier
from core.models.forward import autocast
from core.relabel import Floats, Ints, Labels
from core.runs import audit
from core.runs.questions import TASKS
from core.runs.reference import clean_labels
from core.runs.run import CRASH, DEATHS, PHASES, START_SECONDS, Run
from core.selectors import vanilla
from core.selectors.fitting import ProgressCallback
from core.store.atomic import write_array, write_atomically, write_table, writing
from data.dataset import ImageDataset
from data.errors import UserError

COMPANION = "companion.safetensors"
Report = Callable[[str], None]  # one line a finished phase


class Paused(Exception):
    """The user asked for a pause; what was finished is kept."""


def work(run: Run, dataset: ImageDataset, *, until: int | None = None, report: Report = lambda line: None) -> None:
    """Bring a run to its target number of cycles, or to the `until` first of them, from wherever it stands.

    Raises `UserError` where another worker holds the run or something the user can mend stands in the way (also kept
    in the run, for the dashboard, as is a defect of ours), and `Paused` after a phase when a pause was asked for.
    """
    try:
        with run.lock, _last_words(run):
            write_atomically(run.path / "worker.pid", str(os.getpid()).encode())
            run.log.set_fact("error", None)
            run.log.set_fact("waiting", None)
            run.log.set_fact("machine", provenance.describe())
            run.log.set_fact("starting", 0.0)
            pause = run.path / "pause"
            if pause.exists() and pause.stat().st_mtime < time.time() - START_SECONDS:
                pause.unlink()  # meant for a worker that died; a newer one was asked for while this one was starting
            try:
                run.check_data(len(dataset))
                _Worker(run, dataset, report).finish(run.target() if until is None else min(until, run.target()))
            except UserError as error:
                run.log.set_fact("error", str(error))
                raise
            except Waiting as waiting:
                run.log.set_fact("waiting", str(waiting))
                raise
            except Paused:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                run.log.set_fact("error", f"This is a defect of ours ({what}); please report it with worker.log.")
                raise
            finally:
                for name in ("progress.json", "pause"):
                    (run.path / name).unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise UserError(
            f"Run {run.id} is being worked on by another process: wait for it, or cancel it first."
        ) from error


@contextmanager
def _last_words(run: Run) -> Iterator[None]:
    """Note how the worker before this one died, if the system ended it, and let Python write down by what this one does."""
    report = run.path / CRASH
    if (fallen := run.fallen()) is not None:
        run.log.set_fact(DEATHS, [*run.log.fact(DEATHS, []), list(fallen)])
        (run.path / "progress.json").unlink(missing_ok=True)
    with writing(run.path), report.open("w") as file:
        ours = not faulthandler.is_enabled()
        if ours:
            faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            if ours:
                faulthandler.disable()
            report.unlink(missing_ok=True)


class Waiting(Paused):
    """People have to give labels first; the run says which."""


class _Worker:
    def __init__(self, run: Run, dataset: ImageDataset, report: Report) -> None:
        self.run, self.dataset, self.report = run, dataset, report
        self.config = run.config
        self.task = TASKS[self.config.task](self.config, dataset)
        self.learner = Learner(self.config, dataset, run.path.parent, self.progress)
        self.strategy = self.task.strategy
        self.dropout = self.task.dropout  # before the head
        if self.strategy is not None:
            self.dropout = self.strategy.dropout
        self.cycle, self.phase, self.began, self.reported = 0, "label", time.monotonic(), 0.0

    def finish(self, cycles: int) -> None:
        done = {(row.cycle, row.phase) for row in self.run.log.phases().itertuples()}
        for cycle in range(cycles):
            for phase in PHASES:
                if (cycle, phase) in done:
                    continue
                if (self.run.path / "pause").exists():
                    raise Paused(f"Paused before the phase “{phase}” of cycle {cycle}.")
                self.cycle, self.phase, self.began, self.reported = cycle, phase, time.monotonic(), 0.0
                self.progress(0.0)
                {"label": self.label, "train": self.train, "score": self.score}[phase]()
                self.report(f"cycle {cycle}: {phase} done in {self.seconds():.1f} s")

    def label(self) -> None:
        state, _, events = self.run.state(self.dataset.ids)
        given = events.loc[events["cycle"] == self.cycle, "source"]
        if self.cycle > 0 and len(given):  # people have answered already
            result = {"labels": len(given), "source": ", ".join(sorted(set(given)))}
            return self.run.log.finish(self.cycle, "label", self.seconds(), result)
        if self.cycle == 0:
            rows, labels, sources = self.task.initial()
            if self.config.annotator == "person" and self.task.people_first:
                new = state.histogram[rows].sum(axis=1) == 0  # people may have spoken before the first training
                rows, labels = rows[new], labels[new]
                sources = [source for source, kept in zip(sources, new, strict=True) if kept]
                self.check_start(state, labels)
        else:
            ranking = self.run.ranking(self.cycle - 1)
            budget = self.run.config_at(self.cycle - 1).budget
            rows, labels, source = self.task.collect(state, ranking[self.config.method].to_numpy(np.float64), budget)
            sources = [source] * len(rows)
            if len(rows) == 0:
                self.run.check_step()
            if len(rows) == 0:
                raise UserError(
                    "There is nothing left to label: every sample is labelled or cleaned, or nobody is there "
                    "to answer; export the labels, or start a run on more data."
                )
        self.run.log.append(self.cycle, [self.dataset.ids[row] for row in rows], labels, sources, self.seconds())

    def check_start(self, state: Labels, labels: Ints) -> None:
        """Raise `Waiting` where the labels to start from, those of people and [n] more, are of fewer than two classes."""
        known = len(np.unique(np.concatenate([labels, state.majority[state.majority >= 0]])))
        if known < 2:
            raise Waiting(
                f"Run {self.run.id} waits for people: its labels are of {known} class{'es' * (known != 1)}, and the first "
                "training takes two; label some images on the page Annotate, or bring labels in (`python -m core import`), "
                "then resume."
            )

    def train(self) -> None:
        if self.config.static and self.cycle > 0:
            return self.run.log.finish(self.cycle, "train", self.seconds(), {"static": True})
        state, _, _ = self.run.state(self.dataset.ids, self.cycle)
        rows = np.flatnonzero(state.majority >= 0)  # where people's votes tie, there is no label to learn from
        labels = state.majority[rows]
        if self.learner.trainer.labels == "reference":
            labels = clean_labels(self.config, self.dataset)[rows]
        config, here = self.config, self.run.cycle_path(self.cycle)
        goes_on = self.cycle > 0 and (config.warm_start or config.finetune_epochs > 0)
        previous = self.run.cycle_path(self.cycle - 1) if goes_on else None
        if previous is not None and not weights(previous).is_file():
            raise UserError(
                f"Cycle {self.cycle} of run {self.run.id} goes on from the weights of the cycle before, which are not here: open "
                "a bundle that was made with them (`python -m core bundle RUN --with-weights`), or branch with another selector, "
                "which retrains from scratch."
            )
        if self.strategy is None or self.strategy.companion is None:
            # The first model is shared by all strategies, so that they differ in what they choose alone
            dropout = 0.0 if self.strategy is not None and self.cycle == 0 else self.dropout
            result = self.learner.train(here, self.cycle, rows, labels, dropout=dropout, previous=previous)
        else:
            result = self.train_with_companion(rows, labels, previous)
        self.run.log.finish(self.cycle, "train", self.seconds(), result)

    def train_with_companion(self, rows: Ints, labels: Ints, previous: Path | None) -> dict[str, Any]:
        """Train the model and the module that the strategy wants trained with it.

        In the first cycle it is trained beside the finished model that all strategies share, and with it from then on.
        """
        learner, here, cycle = self.learner, self.run.cycle_path(self.cycle), self.cycle
        companion: Any = self.companion()
        if cycle == 0:
            result = learner.train(here, cycle, rows, labels)
            model = learner.scorers(here, cycle)[WHOLE].model
        else:
            model, result = learner.build(cycle, dropout=self.dropout), {"shared": False}
        if previous is not None:
            model.load_state_dict(load_file(weights(previous)))
            companion.load_state_dict(load_file(previous / COMPANION))
        loss = vanilla.fit(
            cast(Classifier, model),
            learner.pool,
            rows,
            labels,
            learner.settings(cycle),
            seed=learner.seed(cycle, 1),
            companion=companion,
            frozen=cycle == 0,
            callbacks=[ProgressCallback(self.progress)],
        )
        if cycle > 0:
            save_weights(model, weights(here))
            result["train_loss"] = loss
        save_weights(companion, here / COMPANION)
        return result

    def score(self) -> None:
        state, _, events = self.run.state(self.dataset.ids, self.cycle)
        trained = 0 if self.config.static else self.cycle
        scorers = self.learner.scorers(self.run.cycle_path(trained), trained, self.dropout)
        scorer = scorers[WHOLE]
        probs = self.learner.combined(scorers, lambda one: one.probs().astype(np.float64))
        candidates = self.subset(np.flatnonzero(self.task.candidates(state)))
        columns = self.task.score_columns(state, probs)
        measured = self.task.measure(state, int((events["cycle"] > 0).sum()), probs)
        if self.task.audited and self.cycle > 0:
            measured |= audited(audit.of_run(self.run, self.dataset.ids, self.cycle))
        columns |= self.task.model_columns(state, probs, AskedModel(self, scorers, trained, state.histogram))
        if self.strategy is not None:
            found = {self.config.method: np.empty(0)}
            if len(candidates):  # none are left where the last cycle has labelled the whole pool
                unlabelled = Unlabelled(self, scorer, candidates, state.majority, probs)
                found = {self.config.method: self.strategy.of(unlabelled)}
            if self.config.evidence:
                found |= self.evidence(scorer, candidates) if len(candidates) else {}
                measured |= self.fall(scorer)
            for name, values in found.items():
                columns[name] = np.full(len(probs), np.nan)
                columns[name][candidates] = values
        columns |= self.places(scorer, moved=trained == self.cycle)
        write_array(self.run.cycle_path(self.cycle) / "posterior.npy", probs.astype(np.float32))
        if trained == self.cycle:
            write_array(self.run.cycle_path(self.cycle) / "embedding.npy", scorer.projection())
        write_table(
            self.run.cycle_path(self.cycle) / "ranking.parquet",
            ranking_table(self.dataset.ids, state, probs, columns, self.config.method, candidates),
        )
        if len(self.dataset.test_labels):
            measured["accuracy"] = metrics.accuracy(self.learner.test_probs(scorers), self.dataset.test_labels)
            if "train_accuracy" in measured:
                measured["gap"] = measured["train_accuracy"] - measured["accuracy"]
        self.run.log.finish(self.cycle, "score", self.seconds(), measured)

    def neighbours(self, scorers: dict[Part, Scorer], histogram: Ints) -> Floats:
        """What the neighbours of each sample say of its label, [N, C]: each fold by the embedding of its own models.

        Embeddings of two models have no axes in common, so that every model's embedding makes a graph of all samples, through
        which the labels are diffused; of a fold's graph the rows count that its models have not been trained on.
        """

        def diffused(scorer: Scorer) -> Floats:
            return graph.diffuse(scorer.embeddings(np.arange(len(self.dataset))).cpu().numpy(), histogram)

        if self.learner.fixed:  # all models have one embedding, which has seen no label
            return diffused(scorers[WHOLE])
        return self.learner.combined(scorers, diffused)

    def places(self, scorer: Scorer, *, moved: bool) -> dict[str, Floats]:
        """The columns of the embedding map, [N] each; moved: whether a training has changed the embedding."""
        before = None
        if self.cycle > 0:
            ranking = self.run.ranking(self.cycle - 1)
            if set(tsne.COLUMNS) <= set(ranking.columns):
                before = ranking[list(tsne.COLUMNS)].to_numpy(np.float32)
        found = scorer.places(before) if moved or before is None else before
        return dict(zip(tsne.COLUMNS, found.T, strict=True))

    def subset(self, candidates: Ints) -> Ints:
        """Those of the candidates that are ranked: all, or so many drawn at random as the configuration says."""
        size = self.config.subset
        if size is None or size >= len(candidates):
            return candidates
        generator = np.random.default_rng(self.learner.seed(self.cycle, 3))
        return np.sort(generator.choice(candidates, size, replace=False))

    def evidence(self, scorer: Scorer, rows: Ints) -> dict[str, Floats]:
        """Further columns for the tables of `core.studies.comparison`, [n] each."""
        loss = self.strategy.loss if self.strategy is not None else None
        found = {"label-gradnorm": scorer.gradient_norms(rows, "label", self.config.reduction, self.dataset.labels)}
        if loss == "egl":
            found["entropy-gradnorm"] = scorer.gradient_norms(rows, "entropy", self.config.reduction)
        elif loss is not None:
            found |= {f"{name}-gradnorm": scorer.gradient_norms(rows, loss, name) for name in NORMS}
        return found

    def fall(self, scorer: Scorer) -> dict[str, float]:
        """Of the samples chosen by their gradient norm a cycle ago, how many have none larger now that they are learnt."""
        if self.cycle in (0, self.config.branched_at) or self.strategy is None or self.strategy.loss is None:
            return {}  # nothing was chosen yet, or not by this strategy
        events = self.run.log.labels(self.cycle)
        ranking = self.run.ranking(self.cycle - 1).set_index("sample_id")[self.config.method]
        chosen = events.loc[events["cycle"] == self.cycle, "sample_id"]
        rows = np.flatnonzero(np.isin(self.dataset.ids, chosen))
        before = ranking.to_numpy(np.float64)[rows]
        after = scorer.gradient_norms(rows, self.strategy.loss, self.config.reduction)
        return {"selected": len(rows), "fell": int((after <= before).sum())}

    def companion(self) -> nn.Module:
        """A fresh module of the strategy's, a `core.selectors.Companion`."""
        assert self.strategy is not None
        assert self.strategy.companion is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.learner.seed(self.cycle, 4))
            return self.strategy.companion(cast(Classifier, self.learner.build(self.cycle)).stage_widths)

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def progress(self, share: float) -> None:
        """Tell the dashboard, four times a second at most."""
        now = time.monotonic()
        if share > 0 and now - self.reported < 0.25:
            return
        self.reported = now
        left = self.seconds() * (1 - share) / share if share > 0 else None
        state = {"cycle": self.cycle, "phase": self.phase, "share": share, "seconds_left": left}
        write_atomically(self.run.path / "progress.json", json.dumps(state).encode())


class Unlabelled:
    """The `Pool` that a strategy sees."""

    def __init__(self, worker: _Worker, scorer: Scorer, rows: Ints, labels: Ints, probs: Floats) -> None:
        self.worker, self.scorer, self.rows, self.posterior = worker, scorer, rows, probs
        self.known = np.flatnonzero(labels >= 0)
        self.known_labels = labels[self.known]
        config = worker.config
        self.seed, self.budget, self.n_labelled = worker.learner.seed(worker.cycle, 2), config.budget, len(self.known)
        self.batch_size, self.width = config.batch_size, config.width
        self.steps = config.epochs * -(-len(self.known) // config.batch_size)

    def __len__(self) -> int:
        return len(self.rows)

    def probs(self) -> Floats:
        return self.posterior[self.rows]

    def mc_probs(self, passes: int) -> Floats:
        return self.scorer.mc_probs(self.rows, passes, self.seed)

    def gradient_norms(self, loss: Loss) -> Floats:
        return self.scorer.gradient_norms(self.rows, loss, self.worker.config.reduction)

    def embeddings(self) -> Tensor:
        return self.scorer.embeddings(self.rows)

    def labelled_embeddings(self) -> Tensor:
        return self.scorer.embeddings(self.known)

    def labels(self) -> Tensor:
        return torch.from_numpy(self.known_labels).to(self.scorer.images.device)

    def images(self, positions: Ints) -> Tensor:
        return self.scorer.images[self.rows[positions]]

    def labelled_images(self, positions: Ints) -> Tensor:
        return self.scorer.images[self.known[positions]]

    def companion(self) -> Floats:
        worker, images = self.worker, self.scorer.images
        companion: Any = worker.companion()
        companion.load_state_dict(load_file(worker.run.cycle_path(worker.cycle) / COMPANION))
        companion.to(images.device).eval()
        model, parts = cast(Classifier, self.scorer.model), []
        with torch.no_grad(), autocast(images.device):
            for _, x in images.batches(self.rows, SCORE_BATCH):
                parts.append(companion(model.stages(x)).double().cpu().numpy())
        return np.concatenate(parts)


class AskedModel:
    """The `core.label_scores.AskedModel` that a score of labels asks."""

    def __init__(self, worker: _Worker, scorers: dict[Part, Scorer], cycle: int, histogram: Ints) -> None:
        """scorers: of the models trained in `cycle` · histogram: labels of every sample so far, [N, C]."""
        self.worker, self.scorers, self.cycle, self.histogram = worker, scorers, cycle, histogram

    def bald(self, passes: int) -> Floats:
        seed = self.worker.learner.seed(self.cycle, 2)
        return self.worker.learner.combined(self.scorers, lambda one: one.bald(passes, seed))

    def neighbours(self) -> Floats:
        return self.worker.neighbours(self.scorers, self.histogram)


def audited(found: audit.Estimate | None) -> dict[str, float]:
    """An estimate as the metrics of a cycle."""
    if found is None:
        return {}
    return {
        "estimated_correctness": found.share,
        "estimated_low": found.low,
        "estimated_high": found.high,
        "checked_at_random": found.checked,
    }


def ranking_table(
    ids: list[str],
    state: Labels,
    probs: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    method: str,
    candidates: NDArray[np.int64],
) -> pd.DataFrame:
    """One row a sample in pool order: sample_id, rank (1 = next, missing where it cannot be chosen), label (−1 none),
    suggested, confidence, status, n_votes, then the scores. Ties come first, whatever the score: one more vote decides most.
    Raises `UserError` where a candidate has no finite score.
    """
    chosen_by = columns[method]
    if not np.isfinite(chosen_by[candidates]).all():
        raise UserError(
            f"{int((~np.isfinite(chosen_by[candidates])).sum())} samples got no finite {method} score: training "
            "probably diverged; lower the learning rate and run again."
        )
    order = candidates[np.lexsort((candidates, -chosen_by[candidates], ~state.tied[candidates]))]
    rank = np.full(len(ids), -1, dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return pd.DataFrame(
        {
            "sample_id": ids,
            "rank": pd.Series(rank).where(rank > 0).astype("Int64"),
            "label": state.majority,
            "suggested": probs.argmax(axis=1),
            "confidence": probs.max(axis=1),
            "status": state.status,
            "n_votes": state.histogram.sum(axis=1),
            **columns,
        }
    )


def stop_on_signals() -> None:
    """Let SIGTERM end a worker like Ctrl-C: the lock is released, and what was finished is kept."""

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
