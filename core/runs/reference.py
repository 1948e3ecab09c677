"""The labels that a run starts from, and those that are taken as right."""

import weakref
from collections.abc import Callable

import numpy as np

from core.relabel import Ints
from core.runs.spec import Config
from core.store.cache import digest
from data import ImageDataset, annotations, votes
from data.errors import UserError

KEPT = 8  # sets of initial labels in memory, for each data set


def relabel_seed(config: Config) -> int:
    """Seed of the votes that are collected."""
    return config.seed if config.relabel_seed is None else config.relabel_seed


def reference_counts(config: Config, dataset: ImageDataset) -> Ints | None:
    """The label distribution [N, C] that relabels are drawn from, or None where people are asked.

    Annotators' counts where the data set has them; else the clean labels, where the labels to start from are others.
    """
    if config.annotator == "person":
        return None
    n_classes = len(dataset.class_names)
    if dataset.label_counts is not None:
        return dataset.label_counts
    if dataset.annotations is not None and config.noise == 0:
        return annotations.counts(dataset.annotations, len(dataset), n_classes)
    if config.noise > 0 or dataset.noisy_labels is not None:
        return np.eye(n_classes, dtype=np.int64)[dataset.labels]
    return None


def initial_labels(config: Config, dataset: ImageDataset) -> Ints:
    """The noisy labels [N] that a cleaning run starts from: drawn from tempered counts, with injected noise, or as found.

    Those of the last configurations are kept in memory: nobody writes into them.
    """
    known = _initial.setdefault(dataset, {})
    key = (config.noise, config.noise_kind, config.temperature, config.seed)
    if key not in known:
        if len(known) == KEPT:
            known.pop(next(iter(known)))
        known[key] = _drawn(config, dataset)
    return known[key]


def _drawn(config: Config, dataset: ImageDataset) -> Ints:
    if config.temperature is not None and dataset.label_counts is not None:
        return votes.initial_labels(dataset.label_counts, config.temperature, config.seed)
    if config.noise > 0:
        return votes.inject(
            config.noise_kind, dataset.images, dataset.labels, dataset.class_names, config.noise, config.seed
        )
    return dataset.labels if dataset.noisy_labels is None else dataset.noisy_labels


def clean_labels(config: Config, dataset: ImageDataset) -> Ints:
    """The right label [N] of every sample: what a selector that knows the truth trains on. Raises `UserError` without one."""
    reference = reference_counts(config, dataset)
    if reference is None:
        raise UserError(
            'The selector "clean" needs to know the true labels, which this data set does not: choose another selector.'
        )
    return np.asarray(reference.argmax(axis=1))


def ground_truth(config: Config, dataset: ImageDataset) -> tuple[Ints | None, Ints]:
    """What labels are held against: (true counts [N, C], None without; right labels [N], −1 where they are not known).

    In active learning they are the data set's own, also where people label.
    """
    cleaning = config.question.checks
    reference = reference_counts(config, dataset) if cleaning else dataset.label_counts
    if reference is not None:
        return reference, np.asarray(reference.argmax(axis=1))
    # A label that is to be checked is no reference
    return None, np.full(len(dataset), -1) if cleaning else dataset.labels


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


_initial: weakref.WeakKeyDictionary[ImageDataset, dict[tuple[object, ...], Ints]] = weakref.WeakKeyDictionary()
_digests: weakref.WeakKeyDictionary[ImageDataset, dict[tuple[object, ...], str]] = weakref.WeakKeyDictionary()
