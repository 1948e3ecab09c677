"""The models of a cycle: built, trained or taken over from an equal training, saved, and asked for their posterior.

A selector may be several models: one for each fold, which has not seen the samples of its fold, times the members of an
ensemble. Such a model is called a part, (fold, member).
"""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load, load_file, save
from torch import nn

from core import metrics, selectors
from core.engine.inference import Scorer
from core.models import architectures
from core.models.architectures import Classifier, Headed, Model
from core.models.batches import Images, channel_statistics, pick_device
from core.models.forward import place, predict
from core.relabel import Floats, Ints
from core.runs.spec import Config
from core.selectors import Progress, Settings, Shape, linear, vanilla
from core.selectors.fitting import Callback, Logger, ProgressCallback
from core.store.atomic import write_atomically, writing
from core.store.cache import ScoreCache, Trainings, digest
from data import votes
from data.dataset import ImageDataset

Part = tuple[int, int]
WHOLE: Part = (0, 0)  # the only part, where there are no folds and no ensemble
MakeCompanion = Callable[[tuple[int, ...]], nn.Module]  # from the widths of the model's stages
COMPANION = "companion.safetensors"


class Learner:
    """Trains the selector of a configuration on a data set; what it computed before, for whatever run, is taken over."""

    def __init__(
        self, config: Config, dataset: ImageDataset, home: Path, report: Progress = lambda share: None
    ) -> None:
        self.config, self.dataset, self.home, self.report, self.done = config, dataset, home, report, 0
        self.selector = selectors.load(config.selector)
        self.device = pick_device()
        statistics = (self.selector.statistics or channel_statistics)(dataset.images)
        self.pool = Images(dataset.images, *statistics, self.device)
        self.test = Images(dataset.test_images, *statistics, self.device)
        self.cache, self.trained = ScoreCache(home / ".cache"), Trainings(home)
        self.parts = list(itertools.product(range(config.folds), range(config.ensemble)))
        # A sample stays in its fold for the whole run, so that no fine-tuned model has ever seen those it is asked about
        order = votes.random_order(len(dataset), config.seed)
        self.fold_of = np.empty(len(dataset), dtype=np.int64)
        self.fold_of[order] = np.arange(len(dataset)) % config.folds

    @property
    def fixed(self) -> bool:
        """Whether the embeddings were there before the labels, and a head on them is all that is trained."""
        return self.selector.prepared and self.config.head == "linear"

    def progress(self, share: float) -> None:
        """Report the finished share of all parts."""
        self.report((self.done + share) / len(self.parts))

    def seed(self, cycle: int, purpose: int, part: Part = WHOLE) -> int:
        """A seed of its own for every run seed, cycle, purpose and part."""
        return seed_of(self.config, cycle, purpose, part)

    def settings(self, cycle: int) -> Settings:
        """How a cycle trains."""
        config = self.config
        finetune = config.finetune_epochs > 0 and cycle > 0
        return Settings(
            epochs=config.finetune_epochs if finetune else config.epochs,
            lr=config.lr / 20 if finetune else config.lr,  # gentle: the labels changed little
            batch_size=config.batch_size,
            schedule="constant" if finetune else config.schedule,
            nesterov=config.nesterov,
        )

    def build(self, cycle: int, part: Part = WHOLE, dropout: float = 0.0) -> Model:
        """A fresh model; its embedding prepared, where the selector learns it from the images alone."""
        config = self.config
        shape = Shape(
            model=config.model,
            width=config.width,
            channels=self.dataset.images.shape[3],
            n_classes=len(self.dataset.class_names),
            seed=self.seed(cycle, 0, part),
            dropout=dropout,
            backbone=config.backbone,
            weights=config.weights,
        )
        model = self.selector.build(shape)
        if self.selector.prepare is not None:
            self._prepare(dataclasses.replace(shape, seed=self.seed(0, 0)), model)
        return model

    def _prepare(self, shape: Shape, model: Model) -> None:
        """Give the model the embedding that all cycles and parts share; it is learnt once for all runs."""
        settings = dataclasses.replace(self.settings(0), epochs=self.config.pretrain_epochs)
        seed = self.seed(0, 5)
        key = {
            "prepared": self.config.selector,
            "shape": dataclasses.asdict(dataclasses.replace(shape, dropout=0.0)),
            "settings": dataclasses.asdict(settings),
            "data": self.dataset.fingerprint,
            "seed": seed,
            "device": self._machine(),
        }

        def learn() -> np.ndarray:
            fresh = self.selector.build(dataclasses.replace(shape, dropout=0.0))
            assert self.selector.prepare is not None
            self.selector.prepare(fresh, self.pool, settings, seed=seed, callbacks=[ProgressCallback(self.progress)])
            return np.frombuffer(save(_tensors(fresh)), dtype=np.uint8)

        prepared = load(self.cache.get(key, learn).tobytes())
        own = model.state_dict()
        model.load_state_dict({**own, **{name: t for name, t in prepared.items() if not name.startswith("head.")}})

    def train(
        self,
        folder: Path,
        cycle: int,
        rows: Ints,
        labels: Ints,
        *,
        dropout: float = 0.0,
        companion: MakeCompanion | None = None,
        previous: Path | None = None,
    ) -> dict[str, Any]:
        """Train every part on the rows with `labels` [n] and write its weights, and a log of its epochs, into `folder`.

        companion: makes a module to be trained along, from the second cycle on; in the first it is trained beside the finished
        model, which all strategies share · previous: folder of weights to go on from. Returns the mean training loss and whether
        all was taken over.
        """
        with writing(folder):
            folder.mkdir(exist_ok=True)
        if companion is None:
            return self._train_parts(folder, cycle, rows, labels, dropout, previous)
        if cycle == 0:
            result = self._train_parts(folder, cycle, rows, labels, dropout, previous)
            model = self.scorers(folder, cycle)[WHOLE].model
        else:
            model, result = self.build(cycle, dropout=dropout), {"shared": False}
        return result | self._train_along(folder, cycle, rows, labels, model, companion, previous)

    def _train_parts(
        self, folder: Path, cycle: int, rows: Ints, labels: Ints, dropout: float, previous: Path | None
    ) -> dict[str, Any]:
        results = []
        for k, part in enumerate(self.parts):
            seen = np.ones(len(rows), dtype=bool) if self.config.folds == 1 else self.fold_of[rows] != part[0]
            self.done = k
            results.append(self._train_part(folder, cycle, part, rows[seen], labels[seen], dropout, previous))
        return {
            "train_loss": float(np.mean([result["train_loss"] for result in results])),
            "shared": all(result["shared"] for result in results),
        }

    def _train_along(
        self,
        folder: Path,
        cycle: int,
        rows: Ints,
        labels: Ints,
        model: Model,
        make: MakeCompanion,
        previous: Path | None,
    ) -> dict[str, Any]:
        """Train a companion with the model, or beside the finished one of cycle 0."""
        companion: Any = self.companion(cycle, make)
        if previous is not None:
            model.load_state_dict(load_file(weights(previous)))
            companion.load_state_dict(load_file(previous / COMPANION))
        loss = vanilla.fit(
            cast(Classifier, model),
            self.pool,
            rows,
            labels,
            self.settings(cycle),
            seed=self.seed(cycle, 1),
            companion=companion,
            frozen=cycle == 0,
            callbacks=self._callbacks(folder / COMPANION if cycle == 0 else weights(folder)),
        )
        save_weights(companion, folder / COMPANION)
        if cycle == 0:
            return {}
        save_weights(model, weights(folder))
        return {"train_loss": loss}

    def companion(self, cycle: int, make: MakeCompanion) -> nn.Module:
        """A fresh module of a strategy's, a `core.selectors.Companion`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed(cycle, 4))
            return make(cast(Classifier, self.build(cycle)).stage_widths)

    def _callbacks(self, file: Path) -> list[Callback]:
        """What watches a training: progress, and a log of its epochs beside the file of its weights."""
        return [ProgressCallback(self.progress), Logger(file.with_suffix(".jsonl"))]

    def _train_part(
        self, folder: Path, cycle: int, part: Part, rows: Ints, labels: Ints, dropout: float, previous: Path | None
    ) -> dict[str, Any]:
        model = self.build(cycle, part, dropout)
        if previous is not None:
            model.load_state_dict(load_file(weights(previous, part)))
        seed, settings = self.seed(cycle, 1, part), self.settings(cycle)
        noise = self.noise_rate(cycle, rows, labels) if self.selector.needs_noise else 0.0
        key = self._key(model, settings, rows, labels, seed, dropout, noise)
        shared = self.trained.find(key)
        if shared is not None:
            content, result = shared
            write_atomically(weights(folder, part), content)
            return {**result, "shared": True}
        place(model, self.device)
        if self.fixed:
            assert isinstance(model, Headed)
            embeddings = self.scorer(model, None).embeddings(np.arange(len(self.dataset)))
            index = torch.from_numpy(rows).to(embeddings.device)
            loss = linear.fit(model, embeddings[index], labels, seed=seed, progress=self.progress)
        else:
            watched = self._callbacks(weights(folder, part))
            loss = self.selector.fit(
                model, self.pool, rows, labels, settings, seed=seed, noise=noise, callbacks=watched
            )
        save_weights(model, weights(folder, part))
        self.trained.add(key, weights(folder, part), {"train_loss": loss})
        return {"train_loss": loss, "shared": False}

    def _key(
        self, model: Model, settings: Settings, rows: Ints, labels: Ints, seed: int, dropout: float, noise: float
    ) -> dict[str, Any]:
        """All that decides the weights of a training: equal trainings are done once for all runs."""
        config = self.config
        return {
            "start": digest(np.concatenate([t.float().cpu().numpy().ravel() for t in model.state_dict().values()])),
            "model": [config.model, config.width, dropout],
            "selector": ["vanilla" if config.selector == "clean" else config.selector, self.fixed, noise],
            "settings": dataclasses.asdict(settings),
            "data": self.dataset.fingerprint,
            "rows": digest(rows),
            "labels": digest(labels),
            "seed": seed,
            "device": self._machine(),
        }

    def _machine(self) -> list[Any]:
        return [self.device.type, torch.__version__, torch.get_num_threads()]

    def noise_rate(self, cycle: int, rows: Ints, labels: Ints) -> float:
        """Share of wrong labels: as configured, else by confident learning from two plain models, each on one half."""
        if self.config.forget_rate is not None:
            return self.config.forget_rate
        half = votes.random_order(len(rows), self.seed(cycle, 6)) % 2 == 0
        probs = np.empty((len(rows), len(self.dataset.class_names)))
        channels, n_classes = self.dataset.images.shape[3], len(self.dataset.class_names)
        for side in (half, ~half):
            model = architectures.build(self.config.model, channels, n_classes, self.config.width, self.seed(cycle, 7))
            vanilla.fit(model, self.pool, rows[side], labels[side], self.settings(cycle), seed=self.seed(cycle, 8))
            probs[~side] = predict(model, self.pool, rows[~side])
        return min(metrics.estimated_noise(labels, probs), 0.9)

    def scorers(self, folder: Path, cycle: int, dropout: float = 0.0) -> dict[Part, Scorer]:
        """The trained parts, ready to be asked."""
        found = {}
        for part in self.parts:
            model = self.build(cycle, part, dropout)
            model.load_state_dict(load_file(weights(folder, part)))
            place(model, self.device).eval()
            found[part] = self.scorer(model, weights(folder, part))
        return found

    def scorer(self, model: Model, file: Path | None) -> Scorer:
        """What a model says of the pool; `file` holds its weights and names what is cached."""
        return Scorer(model, file, self.pool, self.dataset.fingerprint, self.cache, self.report, fixed=self.fixed)

    def combined(self, found: dict[Part, Scorer], ask: Callable[[Scorer], Floats]) -> Floats:
        """What the parts say of each sample of the pool: the mean over the ensemble, each fold by its own part."""
        answer: Floats | None = None
        for fold in range(self.config.folds):
            mean = sum(ask(scorer) for part, scorer in found.items() if part[0] == fold) / self.config.ensemble
            if answer is None:
                answer = np.asarray(mean)
            else:
                answer[self.fold_of == fold] = np.asarray(mean)[self.fold_of == fold]
        assert answer is not None
        return answer

    def test_probs(self, found: dict[Part, Scorer]) -> Floats:
        """Posterior of the test images, [M, C]: the mean over all parts."""
        parts = [scorer.probs_of(self.test, "test").astype(np.float64) for scorer in found.values()]
        return np.asarray(sum(parts) / len(parts))


def seed_of(config: Config, cycle: int, purpose: int, part: Part = WHOLE) -> int:
    """A seed of its own for every run seed, cycle, purpose and part."""
    key = [config.seed, cycle, purpose, *(part if part != WHOLE else ())]
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def weights(folder: Path, part: Part = WHOLE) -> Path:
    """The file of a part's weights."""
    return folder / ("weights.safetensors" if part == WHOLE else f"weights-{part[0]}-{part[1]}.safetensors")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights, atomically."""
    write_atomically(path, save(_tensors(module)))


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: t.detach().cpu().contiguous() for key, t in module.state_dict().items()}
