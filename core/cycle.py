"""The loop: train a selector → score every sample → choose the next ones → get their labels → record → again.

A cycle has three phases, each finished in one transaction: "label" appends the labels that the last ranking asked
for, "train" writes weights, "score" writes the ranking and the metrics. A worker that dies loses at most the phase it
was in; the next one does that phase again from the same seed, with the same result.
"""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from core import machine, metrics, models
from core.batches import Images, channel_statistics, pick_device
from core.gradnorm import Loss, Reduction, gradient_norms
from core.models import Classifier
from core.relabel import Floats, Ints, Labels
from core.run import PHASES, START_SECONDS, Run
from core.store import ScoreCache, Trainings, digest, write_array, write_atomically, write_table
from core.tasks import TASKS
from core.trainers import Settings, autocast, place, predict, vanilla
from data import ImageDataset
from data.errors import UserError

SCORE_BATCH = 512
Norm = Literal["sum", "l2", "head"]
NORMS: tuple[Norm, ...] = ("sum", "l2", "head")  # all from one pass
Report = Callable[[str], None]  # one line a finished phase


class Paused(Exception):
    """The user asked for a pause; what was finished is kept."""


def work(run: Run, dataset: ImageDataset, *, report: Report = lambda line: None) -> None:
    """Bring a run to its target number of cycles, from wherever it stands.

    Raises `UserError` where another worker holds the run or something the user can mend stands in the way (also kept
    in the run, for the dashboard, as is a defect of ours), and `Paused` after a phase when a pause was asked for.
    """
    try:
        with run.lock:
            write_atomically(run.path / "worker.pid", str(os.getpid()).encode())
            run.log.set_fact("error", None)
            run.log.set_fact("machine", machine.describe())
            run.log.set_fact("starting", 0.0)
            pause = run.path / "pause"
            if pause.exists() and pause.stat().st_mtime < time.time() - START_SECONDS:
                pause.unlink()  # meant for a worker that died; a newer one was asked for while this one was starting
            try:
                _Worker(run, dataset, report).finish()
            except UserError as error:
                run.log.set_fact("error", str(error))
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


class _Worker:
    def __init__(self, run: Run, dataset: ImageDataset, report: Report) -> None:
        self.run, self.dataset, self.report = run, dataset, report
        self.config = run.config
        self.task = TASKS[self.config.task](self.config, dataset)
        self.device = pick_device()
        statistics = channel_statistics(dataset.images)
        self.pool = Images(dataset.images, *statistics, self.device)
        self.test = Images(dataset.test_images, *statistics, self.device)
        self.strategy = self.task.strategy
        self.cache = ScoreCache(run.path.parent / ".cache")
        self.trained = Trainings(run.path.parent)
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
        config, rows = self.config, np.flatnonzero(state.majority >= 0)
        # The first model is the same for all strategies, so that they differ in what they choose alone; what a strategy
        # asks of training is joined to it afterwards, and holds from then on
        first = self.cycle == 0
        model, companion = self.fresh_model(0.0 if first else self.dropout()), self.fresh_companion()
        finetune = config.finetune_epochs > 0 and not first
        if finetune or (config.warm_start and not first):
            self.load_weights(model, self.cycle - 1)
            if companion is not None:
                self.load_companion(companion, self.cycle - 1)
        settings = Settings(
            epochs=config.finetune_epochs if finetune else config.epochs,
            lr=config.lr / 20 if finetune else config.lr,  # gentle: the labels changed little
            batch_size=config.batch_size,
            schedule="constant" if finetune else config.schedule,
            nesterov=config.nesterov,
        )

        def fit(**options: Any) -> float:
            labels, seed = state.majority[rows], self.seed(1)
            return vanilla.fit(model, self.pool, rows, labels, settings, seed=seed, progress=self.progress, **options)

        shared = None
        if companion is None or first:
            key = self.training(model, settings, rows, state.majority[rows])
            shared = self.trained.find(key)
            if shared is None:
                result = {"train_loss": fit()}
                self.save(model, "weights.safetensors")
                self.trained.add(key, self.run.id, self.cycle, result)
            else:
                content, result = shared
                write_atomically(self.weights(self.cycle), content)
                self.load_weights(model, self.cycle)
        if companion is not None:
            if first:
                fit(companion=companion, frozen=True)
            else:
                result = {"train_loss": fit(companion=companion)}
                self.save(model, "weights.safetensors")
            self.save(companion, "companion.safetensors")
        self.run.log.finish(self.cycle, "train", self.seconds(), {**result, "shared": shared is not None})

    def training(self, model: nn.Module, settings: Settings, rows: Ints, labels: Ints) -> dict[str, Any]:
        """All that decides the weights of a training without companion: equal trainings are done once for all runs."""
        return {
            "start": digest(np.concatenate([t.float().numpy().ravel() for t in model.state_dict().values()])),
            "model": [self.config.model, self.config.width, self.dropout() if self.cycle else 0.0],
            "settings": dataclasses.asdict(settings),
            "data": self.dataset.fingerprint,
            "rows": digest(rows),
            "labels": digest(labels),
            "seed": self.seed(1),
            "device": [self.device.type, torch.__version__, torch.get_num_threads()],
        }

    def score(self) -> None:
        state, _, events = self.run.state(self.dataset.ids, self.cycle)
        model = self.fresh_model(self.dropout())
        self.load_weights(model, self.cycle)
        place(model, self.device).eval()
        scorer = Scorer(model, self.weights(self.cycle), self.pool, self.dataset.fingerprint, self.cache, self.progress)
        probs = scorer.probs().astype(np.float64)
        candidates = self.subset(np.flatnonzero(self.task.candidates(state)))
        columns = self.task.score_columns(state, probs)
        measured = self.task.measure(state, len(events), probs)
        if self.strategy is not None:
            found = {self.config.method: np.empty(0)}
            if len(candidates):  # none are left where the last cycle has labelled the whole pool
                unlabelled = Unlabelled(self, scorer, candidates, state.majority, probs)
                found = {self.config.method: self.strategy.score(unlabelled)}
            if self.config.evidence:
                found |= self.evidence(scorer, candidates) if len(candidates) else {}
                measured |= self.fall(scorer)
            for name, values in found.items():
                columns[name] = np.full(len(probs), np.nan)
                columns[name][candidates] = values
        write_array(self.run.cycle_path(self.cycle) / "posterior.npy", probs.astype(np.float32))
        write_table(
            self.run.cycle_path(self.cycle) / "ranking.parquet",
            ranking_table(self.dataset.ids, state, probs, columns, self.config.method, candidates),
        )
        if len(self.test):
            test = predict(model, self.test, progress=self.progress)
            measured["accuracy"] = metrics.accuracy(test, self.dataset.test_labels)
            if "train_accuracy" in measured:
                measured["gap"] = measured["train_accuracy"] - measured["accuracy"]
        self.run.log.finish(self.cycle, "score", self.seconds(), measured)

    def subset(self, candidates: Ints) -> Ints:
        """Those of the candidates that are ranked: all, or so many drawn at random as the configuration says."""
        size = self.config.subset
        if size is None or size >= len(candidates):
            return candidates
        return np.sort(np.random.default_rng(self.seed(3)).choice(candidates, size, replace=False))

    def evidence(self, scorer: "Scorer", rows: Ints) -> dict[str, Floats]:
        """Further columns for the tables of `core.comparison`, [n] each."""
        loss = self.strategy.loss if self.strategy is not None else None
        found = {"label-gradnorm": scorer.gradient_norms(rows, "label", self.config.reduction, self.dataset.labels)}
        if loss == "egl":
            found["entropy-gradnorm"] = scorer.gradient_norms(rows, "entropy", self.config.reduction)
        elif loss is not None:
            found |= {f"{name}-gradnorm": scorer.gradient_norms(rows, loss, name) for name in NORMS}
        return found

    def fall(self, scorer: "Scorer") -> dict[str, float]:
        """Of the samples chosen by their gradient norm a cycle ago, how many have none larger now that they are learnt."""
        if self.cycle == 0 or self.strategy is None or self.strategy.loss is None:
            return {}
        events = self.run.log.labels(self.cycle)
        ranking = self.run.ranking(self.cycle - 1).set_index("sample_id")[self.config.method]
        chosen = events.loc[events["cycle"] == self.cycle, "sample_id"]
        rows = np.flatnonzero(np.isin(self.dataset.ids, chosen))
        before = ranking.to_numpy(np.float64)[rows]
        after = scorer.gradient_norms(rows, self.strategy.loss, self.config.reduction)
        return {"selected": len(rows), "fell": int((after <= before).sum())}

    def fresh_model(self, dropout: float) -> Classifier:
        channels, config = self.dataset.images.shape[3], self.config
        return models.build(config.model, channels, self.task.n_classes, config.width, self.seed(0), dropout)

    def dropout(self) -> float:
        return 0.0 if self.strategy is None else self.strategy.dropout

    def fresh_companion(self) -> Any:
        """The module that the strategy wants trained with the model, a `core.trainers.Companion`, or None."""
        if self.strategy is None or self.strategy.companion is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed(4))
            return self.strategy.companion(self.fresh_model(0.0).stage_widths)

    def save(self, module: nn.Module, name: str) -> None:
        tensors = {key: t.detach().cpu().contiguous() for key, t in module.state_dict().items()}
        write_atomically(self.run.cycle_path(self.cycle) / name, save(tensors))

    def load_weights(self, model: nn.Module, cycle: int) -> None:
        model.load_state_dict(load_file(self.weights(cycle)))

    def load_companion(self, companion: nn.Module, cycle: int) -> None:
        companion.load_state_dict(load_file(self.run.cycle_path(cycle) / "companion.safetensors"))

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
        model: Classifier,
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

    def embeddings(self, rows: Ints) -> Tensor:
        """What the head sees of the rows, float32 [n, D] on the device."""
        parts = []
        with torch.no_grad(), autocast(self.images.device):
            for at, x in self.images.batches(rows, SCORE_BATCH):
                parts.append(self.model.embed(x).float())
                self.progress((len(parts) * SCORE_BATCH - SCORE_BATCH + len(at)) / len(rows))
        return torch.cat(parts)

    def gradient_norms(self, rows: Ints, loss: Loss, reduction: Norm, labels: Ints | None = None) -> Floats:
        """Gradient norms [n] of the rows over all parameters ("sum", "l2") or the head's ("head", summed).

        labels: int [N], for loss "label".
        """
        if loss == "egl":  # its expectation is over norms that are reduced already
            assert reduction != "head"
            over_all: Reduction = reduction
            return self._cached(
                rows,
                {"loss": loss, "reduction": reduction},
                lambda x, _: gradient_norms(self.model, x, loss=loss, reduction=over_all),
            )
        # Both schemes of the paper are one function, term by term (`core.gradnorm`): one computation serves both
        loss = "entropy" if loss == "expected" else loss
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        head = [name.startswith("head.") for name in names]

        def all_three(x: Tensor, at: Ints) -> Tensor:
            targets = None if labels is None else torch.from_numpy(labels[at]).to(x.device)
            each = gradient_norms(self.model, x, loss=loss, targets=targets, reduction="none")
            return torch.stack([each.sum(1), torch.linalg.vector_norm(each, dim=1), each[:, head].sum(1)], dim=1)

        known = None if labels is None else digest(labels[rows])
        return self._cached(rows, {"loss": loss, "labels": known}, all_three)[:, NORMS.index(reduction)]

    def _cached(self, rows: Ints, what: dict[str, Any], compute: Callable[[Tensor, Ints], Tensor]) -> Floats:
        def over_batches() -> Floats:
            parts, done = [], 0
            for at, x in self.images.batches(rows, SCORE_BATCH):
                try:
                    parts.append(compute(x, at))
                except ValueError as error:  # the model is ours and fits: what remains is a loss that is not finite
                    raise UserError(
                        f"{error} Training probably diverged: lower the learning rate and run again."
                    ) from error
                done += len(at)
                self.progress(done / len(rows))
            return torch.cat(parts).double().cpu().numpy() if parts else np.empty((0, len(NORMS)))

        key = {**self.key, "score": "gradient-norm", **what, "rows": digest(rows)}
        return self.cache.get(key, over_batches)


class Unlabelled:
    """The `Pool` that a strategy sees."""

    def __init__(self, worker: _Worker, scorer: Scorer, rows: Ints, labels: Ints, probs: Floats) -> None:
        self.worker, self.scorer, self.rows, self.posterior = worker, scorer, rows, probs
        self.known = np.flatnonzero(labels >= 0)
        self.known_labels = labels[self.known]
        config = worker.config
        self.seed, self.budget, self.n_labelled = worker.seed(2), config.budget, len(self.known)
        self.batch_size, self.width = config.batch_size, config.width
        self.steps = config.epochs * -(-len(self.known) // config.batch_size)

    def __len__(self) -> int:
        return len(self.rows)

    def probs(self) -> Floats:
        return self.posterior[self.rows]

    def mc_probs(self, passes: int) -> Floats:
        model, embeddings = self.scorer.model, self.embeddings()
        parts = []
        devices = [embeddings.device] if embeddings.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            model.dropout.train()
            for _ in range(passes):
                parts.append(model.classify(embeddings).double().softmax(dim=1).cpu().numpy())
            model.dropout.eval()
        return np.stack(parts)

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
        companion, images = self.worker.fresh_companion(), self.scorer.images
        self.worker.load_companion(companion, self.worker.cycle)
        companion.to(images.device).eval()
        parts = []
        with torch.no_grad(), autocast(images.device):
            for _, x in images.batches(self.rows, SCORE_BATCH):
                parts.append(companion(self.scorer.model.stages(x)).double().cpu().numpy())
        return np.concatenate(parts)


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
