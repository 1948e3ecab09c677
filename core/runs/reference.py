"""The labels that a run starts from, and those that are taken as right."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from core.relabel import Ints
from core.runs import answers
from core.runs.spec import Config
from core.store.cache import digest
from data import ImageDataset, annotations, masknoise, votes
from data.errors import UserError

KEPT = 8  # sets of initial labels in memory, for each data set


def relabel_seed(config: Config) -> int:
    """Seed of the votes that are collected."""
    return config.seed if config.relabel_seed is None else config.relabel_seed


def reference_counts(config: Config, dataset: ImageDataset) -> Ints | None:
    """The label distribution [N, C] that relabels are drawn from, or None where people are asked, and where labels are masks.

    Annotators' counts where the data set has them; else the clean labels, where the labels to start from are others.
    """
    if not _is_known(config, dataset):
        return None
    if dataset.label_counts is not None:
        return dataset.label_counts
    if dataset.annotations is not None and config.noise == 0:
        return annotations.counts(dataset.annotations, len(dataset), len(dataset.class_names))
    return answers.of(dataset.class_names, dataset.answer).votes(dataset.labels)


def _is_known(config: Config, dataset: ImageDataset) -> bool:
    """Whether the labels that are checked have others to be held against."""
    if config.annotator == "person":
        return False
    votes_there = dataset.label_counts is not None or dataset.annotations is not None
    return votes_there or config.noise > 0 or dataset.noisy_labels is not None


def reference_labels(config: Config, dataset: ImageDataset) -> Any:
    """The labels [N, …] that are taken as right, −1 where one is not known; None where none is.

    In active learning they are the data set's own, also where people label; in label cleaning a label that is to be checked is
    no reference.
    """
    if not config.question.checks:
        counts = dataset.label_counts
    elif _is_known(config, dataset):
        counts = reference_counts(config, dataset)
    else:
        return None
    return dataset.labels if counts is None else np.asarray(counts.argmax(axis=1))


def initial_labels(config: Config, dataset: ImageDataset) -> Any:
    """The noisy labels [N, …] that a cleaning run starts from: drawn from tempered counts, with injected noise, or as found.

    Those of the last configurations are kept in memory: nobody writes into them.
    """
    known = _initial.setdefault(dataset, {})
    key = (config.noise, config.noise_kind, config.temperature, config.seed)
    if key not in known:
        if len(known) == KEPT:
            known.pop(next(iter(known)))
        known[key] = _drawn(config, dataset)
    return known[key]


def _drawn(config: Config, dataset: ImageDataset) -> Any:
    if config.temperature is not None and dataset.label_counts is not None:
        return votes.initial_labels(dataset.label_counts, config.temperature, config.seed)
    if config.noise > 0 and config.noise_kind in masknoise.KINDS:
        n_classes = len(dataset.class_names)
        return masknoise.inject(config.noise_kind, dataset.labels, n_classes, config.noise, config.seed)
    if config.noise > 0:
        return votes.inject(
            config.noise_kind, dataset.images, dataset.labels, dataset.class_names, config.noise, config.seed
        )
    return dataset.labels if dataset.noisy_labels is None else dataset.noisy_labels


def clean_labels(config: Config, dataset: ImageDataset) -> Any:
    """The right labels [N, …]: what a selector that knows the truth trains on. Raises `UserError` where they are not known."""
    reference = reference_labels(config, dataset)
    if reference is None:
        raise UserError(
            'The selector "clean" needs to know the true labels, which this data set does not: choose another selector.'
        )
    return reference


def ground_truth(config: Config, dataset: ImageDataset) -> tuple[Ints | None, Any]:
    """What labels are held against: (true counts [N, C], None without; `reference_labels` [N, …], −1 where none is known)."""
    counts = reference_counts(config, dataset) if config.question.checks else dataset.label_counts
    labels = reference_labels(config, dataset)
    return counts, np.broadcast_to(np.int64(-1), dataset.labels.shape) if labels is None else labels


def ground_truth_digest(config: Config, dataset: ImageDataset) -> str:
    """A short name for the contents of `ground_truth`."""

    def compute() -> str:
        counts, labels = ground_truth(config, dataset)
        return digest(labels if counts is None else counts)

    return _once(dataset, ("truth", config.task, config.annotator, config.noise > 0), compute)


def initial_digest(config: Config, dataset: ImageDataset) -> str:
    """A short name for the contents of `initial_labels`."""
    key = ("initial", config.noise, config.noise_kind, config.temperature, config.seed)
    return _once(dataset, key, lambda: digest(initial_labels(config, dataset)))


def _once(dataset: ImageDataset, key: tuple[object, ...], compute: Callable[[], str]) -> str:
    """Computed once for a data set in memory: of a million samples it takes a second."""
    known = _digests.setdefault(dataset, {})
    if key not in known:
        known[key] = compute()
    return known[key]


_initial: weakref.WeakKeyDictionary[ImageDataset, dict[tuple[object, ...], Any]] = weakref.WeakKeyDictionary()
_digests: weakref.WeakKeyDictionary[ImageDataset, dict[tuple[object, ...], str]] = weakref.WeakKeyDictionary()
