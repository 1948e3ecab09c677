"""The loop: train a selector → score every sample → choose the next ones → get their labels → record → again.

A cycle has three phases, each finished in one transaction: "label" appends the labels that the last ranking asked
for, "train" writes weights, "score" writes the ranking and the metrics. A worker that dies loses at most the phase it
was in; the next one does that phase again from the same seed, with the same result.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from core import metrics, models
from core.batches import Images, channel_statistics, pick_device
from core.gradnorm import gradient_norms
from core.relabel import Labels
from core.run import PHASES, START_SECONDS, Run
from core.store import ScoreCache, digest, write_array, write_atomically, write_table
from core.strategies import STRATEGIES
from core.tasks import TASKS
from core.trainers import Settings, place, predict, vanilla
from data import ImageDataset
from data.errors import UserError

SCORE_BATCH = 512
Report = Callable[[str], None]  # one line a finished phase


class Paused(Exception):
    """The user asked for a pause; what was finished is kept."""


def work(run: Run, dataset: ImageDataset, *, report: Report = lambda line: None) -> None:
    """Bring a run to its target number of cycles, from wherever it stands.

    Raises `UserError` where another worker holds the run or something the user can mend stands in the way (also kept
    in the run, for the dashboard), and `Paused` after a phase when a pause was asked for.
    """
    try:
        with run.lock:
            write_atomically(run.path / "worker.pid", str(os.getpid()).encode())
            run.log.set_fact("error", None)
            run.log.set_fact("starting", 0.0)
            pause = run.path / "pause"
            if pause.exists() and pause.stat().st_mtime < time.time() - START_SECONDS:
                pause.unlink()  # meant for a worker that died; a newer one was asked for while this one was starting
            try:
                _Worker(run, dataset, report).finish()
            except UserError as error:
                run.log.set_fact("error", str(error))
                raise
            finally:
                for name in ("progress.json", "pause"):
                    (run.path / name).unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise UserError(
            f"Run {run.id} is being worked on by another process: wait for it, or cancel it first."
        ) from error


class _Worker:
    def __init__(self, run: Run, dataset: ImageDataset, report: Report) -> None:
        self.run, self.dataset, self.report = run, dataset, report
        self.config = run.config
        self.task = TASKS[self.config.task](self.config, dataset)
        self.device = pick_device()
        statistics = channel_statistics(dataset.images)
        self.pool = Images(dataset.images, *statistics, self.device)
        self.test = Images(dataset.test_images, *statistics, self.device)
        self.cache = ScoreCache(run.path.parent / ".cache")
        self.cycle, self.phase, self.began, self.reported = 0, "label", time.monotonic(), 0.0

    def finish(self) -> None:
        done = {(row.cycle, row.phase) for row in self.run.log.phases().itertuples()}
        for cycle in range(self.run.target()):
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
        state, _, _ = self.run.state(self.dataset.ids)
        if self.cycle == 0:
            rows, labels, source = self.task.initial()
        else:
            ranking = self.run.ranking(self.cycle - 1)
            rows, labels, source = self.task.collect(state, ranking[self.config.method].to_numpy(np.float64))
            if len(rows) == 0:
                raise UserError(
                    "There is nothing left to label: every sample is labelled or cleaned, or nobody is there "
                    "to answer; export the labels, or start a run on more data."
                )
        self.run.log.append(self.cycle, [self.dataset.ids[row] for row in rows], labels, source, self.seconds())

    def train(self) -> None:
        state, _, _ = self.run.state(self.dataset.ids, self.cycle)
        model = self.fresh_model()
        config = self.config
        finetune = config.finetune_epochs > 0 and self.cycle > 0
        if finetune:
            model.load_state_dict(load_file(self.weights(self.cycle - 1)))
        settings = Settings(
            epochs=config.finetune_epochs if finetune else config.epochs,
            lr=config.lr / 20 if finetune else config.lr,  # gentle: the labels changed little
            batch_size=config.batch_size,
            schedule="constant" if finetune else config.schedule,
        )
        rows = np.flatnonzero(state.majority >= 0)
        loss = vanilla.fit(
            model, self.pool, rows, state.majority[rows], settings, seed=self.seed(1), progress=self.progress
        )
        content = save({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()})
        write_atomically(self.weights(self.cycle), content)
        self.run.log.finish(self.cycle, "train", self.seconds(), {"train_loss": loss})

    def score(self) -> None:
        state, _, events = self.run.state(self.dataset.ids, self.cycle)
        model = self.fresh_model()
        model.load_state_dict(load_file(self.weights(self.cycle)))
        place(model, self.device).eval()
        scorer = Scorer(model, self.weights(self.cycle), self.pool, self.dataset.fingerprint, self.cache, self.progress)
        probs = scorer.probs().astype(np.float64)
        candidates = np.flatnonzero(self.task.candidates(state))
        columns = self.task.score_columns(state, probs)
        if self.config.method not in columns:
            unlabelled = Unlabelled(scorer, candidates, probs, self.seed(2))
            columns[self.config.method] = np.full(len(probs), np.nan)
            columns[self.config.method][candidates] = STRATEGIES[self.config.method](unlabelled)
        write_array(self.run.cycle_path(self.cycle) / "posterior.npy", probs.astype(np.float32))
        write_table(
            self.run.cycle_path(self.cycle) / "ranking.parquet",
            ranking_table(self.dataset.ids, state, probs, columns, self.config.method, candidates),
        )
        measured = self.task.measure(state, len(events), probs)
        if len(self.test):
            test = predict(model, self.test, progress=self.progress)
            measured["accuracy"] = metrics.accuracy(test, self.dataset.test_labels)
            if "train_accuracy" in measured:
                measured["gap"] = measured["train_accuracy"] - measured["accuracy"]
        self.run.log.finish(self.cycle, "score", self.seconds(), measured)

    def fresh_model(self) -> nn.Module:
        channels = self.dataset.images.shape[3]
        return models.build(self.config.model, channels, self.task.n_classes, self.config.width, self.seed(0))

    def weights(self, cycle: int) -> Path:
        return self.run.cycle_path(cycle) / "weights.safetensors"

    def seed(self, purpose: int) -> int:
        """A seed of its own for every run seed, cycle and purpose."""
        return int(np.random.SeedSequence([self.config.seed, self.cycle, purpose]).generate_state(1)[0])

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


class Scorer:
    """Posteriors and gradient norms of a trained model over the pool, each computed once for the same content."""

    def __init__(
        self,
        model: nn.Module,
        weights: Path,
        images: Images,
        fingerprint: str,
        cache: ScoreCache,
        progress: Callable[[float], None],
    ) -> None:
        self.model, self.images, self.cache, self.progress = model, images, cache, progress
        self.key = {
            "weights": digest(np.fromfile(weights, dtype=np.uint8)),
            "data": fingerprint,
            "device": images.device.type,
        }

    def probs(self) -> NDArray[np.float32]:
        """Posterior of the whole pool, float32 [N, C]."""
        return self.cache.get(
            {**self.key, "score": "posterior"}, lambda: predict(self.model, self.images, progress=self.progress)
        )

    def gradient_norms(self, rows: NDArray[np.int64], loss: str) -> NDArray[np.float64]:
        """Gradient norms [n] of the rows over all parameters, summed over tensors."""
        key = {**self.key, "score": "gradient-norm", "loss": loss, "reduction": "sum", "rows": digest(rows)}
        return self.cache.get(key, lambda: self._gradient_norms(rows, loss))

    def _gradient_norms(self, rows: NDArray[np.int64], loss: Any) -> NDArray[np.float64]:
        parts, done = [], 0
        for at, x in self.images.batches(rows, SCORE_BATCH):
            parts.append(gradient_norms(self.model, x, loss=loss))
            done += len(at)
            self.progress(done / len(rows))
        return torch.cat(parts).double().cpu().numpy() if parts else np.empty(0)


class Unlabelled:
    """The `Pool` that a strategy sees."""

    def __init__(self, scorer: Scorer, rows: NDArray[np.int64], probs: NDArray[np.float64], seed: int) -> None:
        self.scorer, self.rows, self.posterior, self.seed = scorer, rows, probs, seed

    def __len__(self) -> int:
        return len(self.rows)

    def probs(self) -> NDArray[np.float64]:
        return self.posterior[self.rows]

    def gradient_norms(self, loss: str) -> NDArray[np.float64]:
        return self.scorer.gradient_norms(self.rows, loss)


def ranking_table(
    ids: list[str],
    state: Labels,
    probs: NDArray[np.float64],
    columns: dict[str, NDArray[np.float64]],
    method: str,
    candidates: NDArray[np.int64],
) -> pd.DataFrame:
    """One row a sample in pool order: sample_id, rank (1 = next, missing where it cannot be chosen), label (−1 none),
    suggested, confidence, status, n_votes, then the scores. Raises `UserError` where a candidate has no finite score.
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
    status = np.select([state.tied, state.cleaned, state.majority >= 0], ["tied", "cleaned", "labelled"], "unlabelled")
    return pd.DataFrame(
        {
            "sample_id": ids,
            "rank": pd.Series(rank).where(rank > 0).astype("Int64"),
            "label": state.majority,
            "suggested": probs.argmax(axis=1),
            "confidence": probs.max(axis=1),
            "status": status,
            "n_votes": state.histogram.sum(axis=1),
            **columns,
        }
    )


def stop_on_signals() -> None:
    """Let SIGTERM end a worker like Ctrl-C: the lock is released, and what was finished is kept."""

    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
