"""The models of a cycle where labels are masks: a class a pixel. What they say of the pool is taken in one pass, image by image.

A posterior [N, C, H, W] is too large to be held: of each image its means are kept, and of each pixel the most probable class and
the entropy, one byte each, in files of the cycle's folder.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from core import masks, metrics, regions
from core.engine.inference import Scorer, compact
from core.engine.learner import Learner, Part
from core.models.architectures import TINY, Model
from core.models.batches import Images
from core.models.forward import maps, stochastic_maps
from core.models.segmenters import Segmenter
from core.posterior import MaskPosterior, Posterior, pixel_measures
from core.relabel import Floats, Ints, Labels
from core.runs.answers import ENTROPIES, PREDICTED, ClassAnswer, MaskAnswer
from core.runs.reference import reference_labels
from core.runs.run import CLASS_IOU
from core.selectors import Settings
from core.store.atomic import writing
from data.lazy import taken

DRAWS, DRAW_SEED = 8, 0  # label maps that stand for the expectation of "egl"
Maps = Iterator[tuple[Ints, NDArray[np.float32]]]  # rows [n], posteriors [n, C, H, W]


class MaskScorer(Scorer):
    """A `Scorer` of masks: posteriors a batch at a time, everything else image by image."""

    sampled = {"draws": DRAWS, "seed": DRAW_SEED}  # noqa: RUF012  # as of the base

    def maps(self, images: Images, rows: Ints) -> Maps:
        """Posteriors of some images, of the pool or others."""
        return maps(cast(Segmenter, self.model), images, rows, progress=self.progress)

    def projection(self) -> NDArray[np.float16]:
        return self.cache.get(
            {**self.key, "score": "projection"}, lambda: compact(self.embeddings(np.arange(len(self.images))))
        )

    def bald(self, passes: int, seed: int, rows: Ints | None = None) -> Floats:
        at = np.arange(len(self.images)) if rows is None else rows
        drawn = stochastic_maps(cast(Segmenter, self.model), self.images, at, passes, seed, progress=self.progress)
        return np.concatenate([np.empty(0), *(masks.bald(each) for _, each in drawn)])


class MaskLearner(Learner):
    """A `Learner` of masks."""

    def scorer(self, model: Model, file: Path | None) -> Scorer:
        return MaskScorer(model, file, self.pool, self.dataset.fingerprint, self.cache, self.report)

    def settings(self, cycle: int, n: int) -> Settings:
        """As there, and where steps are given exactly so many."""
        config, usual = self.config, super().settings(cycle, n)
        finetune = config.finetune_epochs > 0 and cycle > 0
        return dataclasses.replace(usual, steps=None if finetune else config.steps, class_weights=config.class_weights)

    def example_labels(self, n: int) -> Ints:
        return np.zeros((n, *self.dataset.labels.shape[1:]), dtype=np.int64)

    def _fitted(self, model: Any, rows: Ints, labels: Any) -> dict[str, float]:
        found = pixel_measures(self._confusion(maps(model, self.pool, rows), rows, labels))
        return {f"train_{name}": value for name, value in found.items()}

    def _likelihood(self, model: Any, rows: Ints, labels: Any) -> float:
        total, count, place = 0.0, 0, _places(rows)
        for at, p in maps(model, self.pool, rows):
            right = np.asarray(labels[place[at]])
            own = np.take_along_axis(p, np.maximum(right, 0)[:, None], axis=1)[:, 0]
            known = right != masks.VOID
            total, count = total + float(np.log(np.maximum(own[known], TINY)).sum()), count + int(known.sum())
        return total / max(1, count)

    def _confusion(self, found: Maps, rows: Ints, labels: Any) -> Ints:
        """Pixels by class and predicted class, [C, C]; labels: of the rows, in their order."""
        n_classes, place = len(self.dataset.class_names), _places(rows)
        total = np.zeros((n_classes, n_classes), dtype=np.int64)
        for at, p in found:
            total += metrics.confusion(labels[place[at]], p.argmax(axis=1), n_classes).sum(axis=0)
        return total

    def test_measures(self, found: dict[Part, Scorer]) -> dict[str, Any]:
        if not len(self.dataset.test_labels):
            return {}
        rows = np.flatnonzero(self.dataset.readable_test())
        total = self._confusion(
            _mean([cast(MaskScorer, one).maps(self.test, rows) for one in found.values()]),
            rows,
            taken(self.dataset.test_labels, rows),
        )
        each = metrics.iou(total)
        return {**pixel_measures(total), CLASS_IOU: [None if np.isnan(one) else float(one) for one in each]}

    def combined_maps(self, found: dict[Part, Scorer]) -> Maps:
        """Posteriors of the pool: the mean over the ensemble, each fold by its own part."""
        rows = np.arange(len(self.dataset))
        for fold in range(self.config.folds):
            own = [cast(MaskScorer, one) for part, one in found.items() if part[0] == fold]
            yield from _mean([one.maps(self.pool, rows[self.fold_of == fold]) for one in own])

    def posterior(
        self, found: dict[Part, Scorer], folder: Path, standing: Any = None, state: Labels | None = None
    ) -> Posterior:
        shape, n_classes = self.dataset.labels.shape, len(self.dataset.class_names)
        reference, checks = reference_labels(self.config, self.dataset), self.config.question.checks
        known = np.zeros(len(self.dataset), dtype=bool) if state is None else state.majority >= 0
        with writing(folder):
            predicted, entropies = (_Part(folder / name, shape) for name in (PREDICTED, ENTROPIES))
        means = {name: np.full(shape[0], np.nan) for name in MEANS}
        shares, found_regions = np.zeros((shape[0], n_classes)), list[pd.DataFrame]()
        agreement, correspondence = np.zeros((2, n_classes, n_classes), dtype=np.int64)
        for at, p in self.combined_maps(found):
            answer = p.argmax(axis=1)
            log_p = np.log(np.maximum(p, TINY))
            entropy = -(p * log_p).sum(axis=1)
            predicted.array[at] = answer
            entropies.array[at] = np.rint(np.clip(entropy / np.log(n_classes), 0, 1) * 255)
            means["mean_entropy"][at], means["mean_margin"][at] = masks.entropy(p), masks.margin(p)
            means["mean_confidence"][at] = p.max(axis=1).mean(axis=(1, 2), dtype=np.float64)
            shares[at] = p.mean(axis=(2, 3), dtype=np.float64)
            right = None if reference is None else np.asarray(reference[at])
            if right is not None:
                each = metrics.confusion(right, answer, n_classes)
                means["reference_iou"][at] = metrics.mean_iou(each)
                means["reference_accuracy"][at] = metrics.pixel_accuracy(each)
            if known[at].any():
                given = np.asarray(standing[at])
                means["cross_entropy"][at], means["ambiguity"][at] = masks.terms(given, p)
                agreement += metrics.confusion(given, answer, n_classes).sum(axis=0)
                if right is not None:
                    each = metrics.confusion(right, given, n_classes)
                    means["right"][at] = np.trace(each, axis1=1, axis2=2)
                    means["known"][at] = (right != masks.VOID).sum(axis=(1, 2))
                    correspondence += each.sum(axis=0)
                if checks:
                    covered = np.stack([standing.covered(row) for row in at.tolist()])
                    found_regions.append(regions.table(at, given, p, right, covered))
        with writing(folder):
            return MaskPosterior(
                predicted=predicted.whole(),
                entropies=entropies.whole(),
                class_shares=shares,
                agreement=agreement,
                correspondence=correspondence,
                regions=_in_order(found_regions),
                **means,
            )


LEARNERS: dict[str, type[Learner]] = {ClassAnswer.kind: Learner, MaskAnswer.kind: MaskLearner}

MEANS = (
    *("mean_entropy", "mean_margin", "mean_confidence"),
    *("cross_entropy", "ambiguity", "reference_iou", "reference_accuracy", "right", "known"),
)


def _in_order(parts: list[pd.DataFrame]) -> pd.DataFrame | None:
    """Regions of batches in pool order: folds come one after the other."""
    return pd.concat(parts).sort_values(["image", "region"], ignore_index=True) if parts else None


class _Part:
    """An array of bytes on its way to a file, which is there whole or not at all."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.part = path, path.with_name(f".{path.name}.{os.getpid()}.part")
        self.array = open_memmap(self.part, mode="w+", dtype=np.uint8, shape=shape)

    def whole(self) -> NDArray[np.uint8]:
        """Put it in its place, and read it from there."""
        self.array.flush()
        del self.array
        os.replace(self.part, self.path)
        return np.asanyarray(np.load(self.path, mmap_mode="r", allow_pickle=False))


def _places(rows: Ints) -> Ints:
    """Where each row stands among `rows`, by its number."""
    found = np.full(int(rows.max()) + 1 if len(rows) else 0, -1, dtype=np.int64)
    found[rows] = np.arange(len(rows))
    return found


def _mean(found: list[Maps]) -> Maps:
    """The mean of several models' posteriors of the same rows in the same batches."""
    for same in zip(*found, strict=True):
        total = sum(p.astype(np.float64) for _, p in same) if len(same) > 1 else same[0][1]
        yield same[0][0], (total / len(same)).astype(np.float32) if len(same) > 1 else same[0][1]
