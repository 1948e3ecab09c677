"""The models of a cycle: built, trained or taken over from an equal training, saved, and asked for their posterior.

A selector may be several models: one for each fold, which has not seen the samples of its fold, times the members of an
ensemble. Such a model is called a part, (fold, member).
"""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, load_file, save
from torch import nn

from core import metrics, selectors
from core.engine.inference import Scorer, label_digest
from core.models import networks
from core.models.architectures import TINY, Classifier, Frozen, Headed, Model, headed
from core.models.batches import Images, channel_statistics, pick_device
from core.models.forward import place, predict
from core.posterior import ClassPosterior, Posterior
from core.relabel import Floats, Ints, Labels
from core.runs.spec import Config
from core.selectors import Progress, Settings, Shape, linear, vanilla
from core.selectors.fitting import Callback, EarlyStopping, Logger, ProgressCallback, steps_per_epoch
from core.store.atomic import write_atomically, writing
from core.store.cache import ScoreCache, Trainings, digest
from data import votes
from data.dataset import ImageDataset
from data.errors import UserError
from data.lazy import taken

Part = tuple[int, int]
WHOLE: Part = (0, 0)  # the only part, where there are no folds and no ensemble
MakeCompanion = Callable[[tuple[int, ...]], nn.Module]  # from the widths of the model's stages
COMPANION = "companion.safetensors"
SECOND = "weights-validation.safetensors"  # of the model that has not learnt a strategy's validation split
HELD_OUT = 0.1  # of the labels, by which a training is stopped early


class Learner:
    """Trains the selector of a configuration on a data set; what it computed before, for whatever run, is taken over."""

    def __init__(
        self, config: Config, dataset: ImageDataset, home: Path, report: Progress = lambda share: None
    ) -> None:
        self.config, self.dataset, self.home, self.report = config, dataset, home, report
        self.selector = selectors.load(config.selector)
        self.device = pick_device()
        statistics = self._statistics()
        self.pool = Images(dataset.images, *statistics, self.device)
        self.test = Images(dataset.test_images, *statistics, self.device)
        self.cache, self.trained = ScoreCache(home / ".cache"), Trainings(home)
        self.parts = list(itertools.product(range(config.folds), range(config.ensemble)))
        self.done, self.trainings = 0, len(self.parts)
        self.fold_of = _folds(config, len(dataset))

    def reseeded(self, seed: int) -> "Learner":
        """The same with another seed; images and what is kept are shared."""
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, seed=seed)
        other.fold_of = _folds(other.config, len(self.dataset))
        return other

    @property
    def fixed(self) -> bool:
        """Whether the embeddings were there before the labels, and a head on them is all that is trained."""
        return self.config.linear_head

    @functools.cached_property
    def frozen(self) -> tuple[Headed, str]:
        """The network that stays as it is, on the device, and what stands for its weights and what it does with images."""
        config, shape = self.config, self._shape(0)
        network = headed(self.selector.build(shape), "A frozen network")
        place(network, self.device)
        parts = [t.float().cpu().numpy().ravel() for key, t in network.state_dict().items() if key[:5] != "head."]
        named = np.frombuffer(f"{config.model} {shape.side} {networks.code(config.model)}".encode(), dtype=np.uint8)
        return network, digest(np.concatenate([*parts, named.astype(np.float32)]))

    def _statistics(self) -> networks.Statistics:
        """What images are normalised by."""
        images, config = self.dataset.images, self.config
        if self.selector.statistics is not None:
            return self.selector.statistics(images)
        expected = networks.statistics(config.model, config.weights, images.shape[3])
        return channel_statistics(images) if expected is None else expected

    def progress(self, share: float) -> None:
        """Report the finished share of all trainings of a cycle."""
        self.report((self.done + share) / self.trainings)

    def seed(self, cycle: int, purpose: int, part: Part = WHOLE) -> int:
        """A seed of its own for every run seed, cycle, purpose and part."""
        return seed_of(self.config, cycle, purpose, part)

    def settings(self, cycle: int, n: int) -> Settings:
        """How a cycle trains on n labels."""
        config = self.config
        finetune = config.finetune_epochs > 0 and cycle > 0
        least = -(-(config.steps or 0) // max(1, steps_per_epoch(n, config.batch_size)))  # epochs
        return Settings(
            epochs=config.finetune_epochs if finetune else max(config.epochs, least),
            lr=config.lr / 20 if finetune else config.lr,  # gentle: the labels changed little
            batch_size=config.batch_size,
            schedule="constant" if finetune else config.schedule,
            nesterov=config.nesterov,
            augment=config.augment,
        )

    def _shape(self, seed: int, dropout: float = 0.0) -> Shape:
        config = self.config
        return Shape(
            model=config.model,
            width=config.width,
            channels=self.dataset.images.shape[3],
            n_classes=len(self.dataset.class_names),
            seed=seed,
            dropout=dropout,
            backbone=config.backbone,
            weights=config.weights,
            side=(self.dataset.images.shape[1], self.dataset.images.shape[2]),
        )

    def build(self, cycle: int, part: Part = WHOLE, dropout: float = 0.0) -> Model:
        """A fresh model; its embedding prepared, where the selector learns it from the images alone."""
        shape = self._shape(self.seed(cycle, 0, part), dropout)
        if self.config.freeze:
            network, name = self.frozen
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(shape.seed)
                return Frozen(network, name, shape.n_classes, dropout)
        model = self.selector.build(shape)
        if self.selector.prepare is not None:
            self._prepare(dataclasses.replace(shape, seed=self.seed(0, 0)), model)
        return model

    def _prepare(self, shape: Shape, model: Model) -> None:
        """Give the model the embedding that all cycles and parts share; it is learnt once for all runs."""
        settings = dataclasses.replace(self.settings(0, len(self.dataset)), epochs=self.config.pretrain_epochs)
        seed, of = self.seed(0, 5), dataclasses.asdict(dataclasses.replace(shape, dropout=0.0))
        key = {
            "prepared": self.config.selector,
            "shape": {name: value for name, value in of.items() if name != "side"},  # as earlier versions
            "settings": _key_of(settings),
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
        validation: Ints | None = None,
        previous: Path | None = None,
    ) -> dict[str, Any]:
        """Train every part on the rows with `labels` [n] and write its weights, and a log of its epochs, into `folder`.

        companion: makes a module to be trained along, from the second cycle on; in the first it is trained beside the finished
        model, which all strategies share · validation: rows that a second model, trained plainly, does not learn · previous:
        folder of weights to go on from. Returns the mean training loss and whether all was taken over, the second model aside.
        Raises `UserError` where the validation leaves nothing to learn, or is none of the rows.
        """
        with writing(folder):
            folder.mkdir(exist_ok=True)
        if validation is None:
            return self._train(folder, cycle, rows, labels, dropout, companion, previous)
        learnt = ~np.isin(rows, validation)
        if learnt.all() or not learnt.any():
            raise UserError(
                f"Of {len(rows):,} labels none is left {'to hold out' if learnt.all() else 'to learn from'} for the strategy's "
                "second model: start with more labels, all of images that can be read."
            )
        if previous is not None and not (previous / SECOND).is_file():
            raise UserError(
                "The second model of the strategy goes on from its weights of the cycle before, which are not here: open a "
                "bundle that was made with them (`python -m core bundle RUN --with-weights`), or branch with another strategy."
            )
        self.done, self.trainings = 0, len(self.parts) + 1
        result = self._train(folder, cycle, rows, labels, dropout, companion, previous)
        self.done = len(self.parts)
        self._train_part(folder, cycle, WHOLE, rows[learnt], taken(labels, learnt), 0.0, previous, SECOND)
        return result

    def validation(self, initial: Ints, share: float) -> Ints:
        """The validation split of a run: a seeded share of the rows that it starts with, at least one."""
        order = votes.random_order(len(initial), self.seed(0, 10))
        return initial[order < max(1, round(share * len(initial)))]

    def _train(
        self,
        folder: Path,
        cycle: int,
        rows: Ints,
        labels: Ints,
        dropout: float,
        companion: MakeCompanion | None,
        previous: Path | None,
    ) -> dict[str, Any]:
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
            results.append(self._train_part(folder, cycle, part, rows[seen], taken(labels, seen), dropout, previous))
        means = {
            name: float(np.mean([result[name] for result in results]))
            for name in results[0]
            if name != "shared"
            and all(name in result for result in results)  # one of an earlier version has no accuracy
        }
        return {**means, "shared": all(result["shared"] for result in results)}

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
            restore(model, weights(previous))
            companion.load_state_dict(load_file(previous / COMPANION))
        beside, seed = cycle == 0, self.seed(cycle, 1)
        callbacks = self._callbacks(folder / COMPANION if beside else weights(folder))
        learnt = np.ones(len(rows), dtype=bool)
        if not beside:
            learnt, stopping = self._stopping(model, rows, labels, seed)
            callbacks += stopping
        loss = vanilla.fit(
            model,
            self.pool,
            rows[learnt],
            taken(labels, learnt),
            self.settings(cycle, int(learnt.sum())),
            seed=seed,
            companion=companion,
            frozen=beside,
            callbacks=callbacks,
        )
        save_weights(companion, folder / COMPANION)
        if beside:
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

    def _stopping(
        self, model: Model, rows: Ints, labels: Ints, seed: int
    ) -> tuple[NDArray[np.bool_], list[EarlyStopping]]:
        """Which of the rows are learnt from, and what stops a training by the others; all, where nothing does."""
        learnt = self.learnt(len(rows), seed)
        if self.config.patience is None or self.fixed:
            return learnt, []
        if len(rows) < 2:
            raise UserError("--patience holds labels out, and there is one alone: label more, or leave it out.")
        held, right = rows[~learnt], taken(labels, ~learnt)
        return learnt, [EarlyStopping(self.config.patience, lambda: self._likelihood(model, held, right), restore=True)]

    def _likelihood(self, model: Any, rows: Ints, labels: Any) -> float:
        """Mean logarithm of the probability of labels [n]."""
        probs = predict(model, self.pool, rows)
        return float(np.log(np.maximum(probs[np.arange(len(rows)), labels], TINY)).mean())

    def learnt(self, n: int, seed: int) -> NDArray[np.bool_]:
        """Which of n labels a training of this seed learns from: all that early stopping does not hold out, bool [n]."""
        if self.config.patience is None or self.fixed:
            return np.ones(n, dtype=bool)
        return votes.random_order(n, seed) >= max(1, round(HELD_OUT * n))

    def _train_part(
        self,
        folder: Path,
        cycle: int,
        part: Part,
        rows: Ints,
        labels: Ints,
        dropout: float,
        previous: Path | None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """name: of the file of weights, where it is not that of the part."""
        file = weights(folder, part) if name is None else folder / name
        model = self.build(cycle, part, dropout)
        if previous is not None:
            restore(model, previous / file.name)
        seed = self.seed(cycle, 1, part)
        learnt, stopping = self._stopping(model, rows, labels, seed)
        settings = self.settings(cycle, int(learnt.sum()))
        noise = self.noise_rate(cycle, rows, labels) if self.selector.needs_noise else 0.0
        key = self._key(model, settings, rows, labels, seed, dropout, noise)
        shared = self.trained.find(key)
        if shared is not None:
            content, result = shared
            write_atomically(file, content)
            return {**result, "shared": True}
        place(model, self.device)
        if self.fixed:
            assert isinstance(model, Headed)
            embeddings = self.scorer(model, None).embeddings(np.arange(len(self.dataset)))
            index = torch.from_numpy(rows).to(embeddings.device)
            loss = linear.fit(model, embeddings[index], labels, seed=seed, progress=self.progress)
            with torch.no_grad():
                predicted = model.eval().classify(embeddings[index]).argmax(dim=1).cpu().numpy()
            fitted = {"train_accuracy": float((predicted == labels).mean())}
        else:
            loss = self.selector.fit(
                model,
                self.pool,
                rows[learnt],
                taken(labels, learnt),
                settings,
                seed=seed,
                noise=noise,
                callbacks=[*self._callbacks(file), *stopping],
            )
            fitted = self._fitted(model, rows, labels)
        result = {"train_loss": loss, **fitted}
        save_weights(model, file)
        self.trained.add(key, file, result)
        return {**result, "shared": False}

    def _fitted(self, model: Any, rows: Ints, labels: Any) -> dict[str, float]:
        """How many of the labels [n] that it learnt from a model predicts."""
        predicted = predict(model, self.pool, rows).argmax(axis=1)
        return {"train_accuracy": float((predicted == labels).mean())}

    def _key(
        self, model: Model, settings: Settings, rows: Ints, labels: Ints, seed: int, dropout: float, noise: float
    ) -> dict[str, Any]:
        """All that decides the weights of a training: equal trainings are done once for all runs."""
        config, code = self.config, networks.code(self.config.model)
        found = {
            "start": digest(np.concatenate([t.float().cpu().numpy().ravel() for t in model.state_dict().values()])),
            "model": [config.model, config.width, dropout],
            "selector": ["vanilla" if config.selector == "clean" else config.selector, self.fixed, noise],
            "settings": _key_of(settings),
            "data": self.dataset.fingerprint,
            "rows": digest(rows),
            "labels": label_digest(labels),
            "seed": seed,
            "device": self._machine(),
        }
        if config.patience is not None:
            found["patience"] = config.patience
        return found | ({"code": code} if code else {})

    def _machine(self) -> list[Any]:
        return [self.device.type, torch.__version__, torch.get_num_threads()]

    def noise_rate(self, cycle: int, rows: Ints, labels: Ints) -> float:
        """Share of wrong labels: as configured, else by confident learning from two plain models, each on one half."""
        if self.config.forget_rate is not None:
            return self.config.forget_rate
        half = votes.random_order(len(rows), self.seed(cycle, 6)) % 2 == 0
        probs = np.empty((len(rows), len(self.dataset.class_names)))
        for side in (half, ~half):
            model, settings = vanilla.build(self._shape(self.seed(cycle, 7))), self.settings(cycle, int(side.sum()))
            vanilla.fit(model, self.pool, rows[side], labels[side], settings, seed=self.seed(cycle, 8))
            probs[~side] = predict(model, self.pool, rows[~side])
        return min(metrics.estimated_noise(labels, probs), 0.9)

    def scorers(self, folder: Path, cycle: int, dropout: float = 0.0) -> dict[Part, Scorer]:
        """The trained parts, ready to be asked."""
        return {part: self._restored(self.build(cycle, part, dropout), weights(folder, part)) for part in self.parts}

    def second(self, folder: Path, cycle: int) -> Scorer:
        """The model that has not learnt the validation split, ready to be asked."""
        return self._restored(self.build(cycle), folder / SECOND)

    def _restored(self, model: Model, file: Path) -> Scorer:
        restore(model, file)
        place(model, self.device).eval()
        return self.scorer(model, file)

    def scorer(self, model: Model, file: Path | None) -> Scorer:
        """What a model says of the pool; `file` holds its weights and names what is cached."""
        return Scorer(model, file, self.pool, self.dataset.fingerprint, self.cache, self.report, fixed=self.fixed)

    def example_labels(self, n: int) -> Ints:
        """Labels [n, …] to time a training by."""
        return np.arange(n) % len(self.dataset.class_names)

    def check(self) -> None:
        """Raise `UserError` where the model cannot be built for these data; the labels are not looked at."""
        self.build(0)

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

    def posterior(
        self, found: dict[Part, Scorer], folder: Path, standing: Any = None, state: Labels | None = None
    ) -> Posterior:
        """What the parts say of the pool. folder: of the cycle, standing: the labels [N] that stand, state: of whom; where labels
        are masks what is kept is written into the one, and measured against the others."""
        return ClassPosterior(self.combined(found, lambda one: one.probs().astype(np.float64)))

    def test_measures(self, found: dict[Part, Scorer]) -> dict[str, Any]:
        """The answer's measures of the test images that can be read; empty without any."""
        right = self.dataset.test_labels
        if not len(right):
            return {}
        seen = self.dataset.readable_test()
        return {"accuracy": metrics.accuracy(self.test_probs(found)[seen], right[seen])}

    def test_probs(self, found: dict[Part, Scorer]) -> Floats:
        """Posterior of the test images, [M, C]: the mean over all parts."""
        parts = [scorer.probs_of(self.test, "test").astype(np.float64) for scorer in found.values()]
        return np.asarray(sum(parts) / len(parts))


def _folds(config: Config, n: int) -> Ints:
    """The fold of each of n samples: the same for the whole run, so that no fine-tuned model has ever seen those it is asked
    about."""
    found = np.empty(n, dtype=np.int64)
    found[votes.random_order(n, config.seed)] = np.arange(n) % config.folds
    return found


def seed_of(config: Config, cycle: int, purpose: int, part: Part = WHOLE) -> int:
    """A seed of its own for every run seed, cycle, purpose and part."""
    key = [config.seed, cycle, purpose, *(part if part != WHOLE else ())]
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def weights(folder: Path, part: Part = WHOLE) -> Path:
    """The file of a part's weights."""
    return folder / ("weights.safetensors" if part == WHOLE else f"weights-{part[0]}-{part[1]}.safetensors")


def _key_of(settings: Settings) -> dict[str, Any]:
    """Settings as a key; what earlier versions did not name is left out where it is as it was, so that theirs are found."""
    later = {"augment": "flip-crop", "steps": None, "class_weights": "none"}
    return {
        name: value for name, value in dataclasses.asdict(settings).items() if name not in later or value != later[name]
    }


def restore(model: Model, file: Path) -> None:
    """Give a model the weights that a training wrote. Raises `UserError` for a head on another network's embedding."""
    found = load_file(file)
    if isinstance(model, Frozen) and not torch.equal(found["of"], model.of):
        raise UserError(
            f"{file.name} is a head on the embedding of other weights than those that its network has here: put back the weights "
            "that the run was started with, or start a new run."
        )
    model.load_state_dict(found)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights, atomically."""
    write_atomically(path, save(_tensors(module)))


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: t.detach().cpu().contiguous() for key, t in module.state_dict().items()}
