"""What distinguishes the two tasks: where labels come from, which scores a ranking shows, and what is measured.

Numpy only. The engine (`core.engine.loop`) calls these and never asks which task it runs.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core import methods, metrics, relabel
from core.posterior import ClassPosterior, Posterior
from core.relabel import Floats, Ints, Labels
from core.runs import answers, reference, spec
from core.runs.run import GIVEN, PERSON
from core.runs.spec import Config
from data import ImageDataset
from data.lazy import taken

if TYPE_CHECKING:
    from core.label_scores import AskedModel, Labelled, LabelScore
    from core.strategies import Strategy


class Task(ABC):
    """One task on one data set under one configuration."""

    dropout = 0.0
    """Probability of dropout before the head that the scores of labels need."""
    audited = False
    """Whether people check labels, some of them at random to estimate how many are right (`core.runs.audit`)."""
    people_first = False
    """Whether people may give labels before the first training."""

    def __init__(self, config: Config, dataset: ImageDataset) -> None:
        self.config, self.dataset = config, dataset
        self.answer = answers.of(dataset.class_names, dataset.answer)

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return self.answer.n_outputs

    @property
    def strategy(self) -> "Strategy | None":
        """What ranks the candidates; None where one of `score_columns` does."""
        return None

    @abstractmethod
    def initial(self) -> tuple[Ints, Ints, list[str]]:
        """Labels before the first training: rows, labels, and the source of each."""

    @abstractmethod
    def candidates(self, state: Labels) -> NDArray[np.bool_]:
        """Which samples [N] may be chosen."""

    @abstractmethod
    def collect(self, state: Labels, priority: Floats, budget: int) -> tuple[Ints, Ints, str]:
        """Labels of the best candidates by `priority` [N], at most `budget`: rows, labels, and their source."""

    @abstractmethod
    def measure(self, state: Labels, collected: int, posterior: Posterior) -> dict[str, float]:
        """Metrics of a cycle from its labels, `collected` of them after the start, and its posterior."""

    @abstractmethod
    def score_columns(self, state: Labels, posterior: Posterior) -> dict[str, Floats]:
        """The columns of a ranking that follow from labels and posterior, [N] each."""

    def model_columns(self, state: Labels, posterior: Posterior, model: "AskedModel") -> dict[str, Floats]:
        """The columns that ask more of the model, [N] each."""
        return {}


class ActiveLearning(Task):
    """The pool is unlabelled; a chosen sample gets its reference label, or waits for people."""

    people_first = True

    @property
    def strategy(self) -> "Strategy":
        return methods.strategies.load(self.config.method)

    def initial(self) -> tuple[Ints, Ints, list[str]]:
        known = np.flatnonzero(self.dataset.labelled)
        order = np.random.default_rng([self.config.seed, 0]).permutation(known)
        rows = np.sort(order[: self.config.initial])
        source = GIVEN if self.config.annotator == "person" else "reference"
        return rows, taken(self.dataset.labels, rows), [source] * len(rows)

    def candidates(self, state: Labels) -> NDArray[np.bool_]:
        unlabelled = state.majority < 0
        return unlabelled if self.config.annotator == "person" else unlabelled & self.dataset.labelled

    def collect(self, state: Labels, priority: Floats, budget: int) -> tuple[Ints, Ints, str]:
        if self.config.annotator == "person":
            return nobody()
        ranked = np.flatnonzero(self.candidates(state) & np.isfinite(priority))  # the others were not in the subset
        rows = ranked[np.argsort(-priority[ranked], kind="stable")[:budget]]
        return rows, taken(self.dataset.labels, rows), "reference"

    def measure(self, state: Labels, collected: int, posterior: Posterior) -> dict[str, float]:
        labelled = state.majority >= 0
        return {
            "n_labels": int(labelled.sum()),
            **{f"train_{name}": value for name, value in posterior.measure(state.majority, labelled).items()},
        }

    def score_columns(self, state: Labels, posterior: Posterior) -> dict[str, Floats]:
        return {"entropy": posterior.entropy(), "margin": posterior.margin()}


class LabelCleaning(Task):
    """Every sample has a label that may be wrong; relabelling draws votes until a majority forms."""

    def __init__(self, config: Config, dataset: ImageDataset) -> None:
        super().__init__(config, dataset)
        self.reference = reference.reference_counts(config, dataset)
        self.audited = self.reference is None
        chosen = methods.label_scores.load(config.method)
        self.scores = [one for one in methods.label_scores.CATALOGUE.values() if one is chosen or self.shown(one)]
        self.dropout = max(one.dropout for one in self.scores)

    def shown(self, score: "LabelScore") -> bool:
        """Whether a score that does not rank is a column all the same."""
        return not score.bound and (score.needs == "posterior" or bool(self.config.evidence))

    def initial(self) -> tuple[Ints, Ints, list[str]]:
        n, known = len(self.dataset.ids), self.dataset.annotations
        if self.config.annotator != "person":
            return np.arange(n), reference.initial_labels(self.config, self.dataset), ["initial"] * n
        if known is None:
            return np.arange(n), reference.initial_labels(self.config, self.dataset), [GIVEN] * n
        silent = np.setdiff1d(np.arange(n), known.rows)  # no vote: the label that came with the data stands in
        labels = np.concatenate([self.dataset.labels[silent], known.labels])
        sources = [GIVEN] * len(silent) + [PERSON + who for who in known.annotators]
        return np.concatenate([silent, known.rows]), labels, sources

    def candidates(self, state: Labels) -> NDArray[np.bool_]:
        return ~state.cleaned

    def collect(self, state: Labels, priority: Floats, budget: int) -> tuple[Ints, Ints, str]:
        if self.reference is None:
            return nobody()
        config = self.config
        ranked = relabel.priorities("oracle", self.reference) if config.method == "oracle" else priority
        taken = relabel.collect(self.reference, state, ranked, budget=budget, seed=reference.relabel_seed(config))
        return taken.sample, taken.label, f"votes ({self.dataset.annotators})"

    def measure(self, state: Labels, collected: int, posterior: Posterior) -> dict[str, float]:
        found: dict[str, float] = {"n_labels": collected}
        if self.reference is None:
            labelled = state.majority >= 0  # a tie has no label to agree with
            if (
                self.config.out_of_sample and labelled.any()
            ):  # a model that has learnt the labels agrees with wrong ones
                found["agreement"] = float((posterior.suggested()[labelled] == state.majority[labelled]).mean())
            return found | {"tied": int(state.tied.sum())}
        clear, difficult = metrics.remaining_errors(state.majority, self.reference)
        return found | {
            "correctness": metrics.correctness(state.majority, self.reference),
            "clear_errors": clear,
            "difficult_errors": difficult,
        }

    def score_columns(self, state: Labels, posterior: Posterior) -> dict[str, Floats]:
        given = self.labelled(state, posterior)
        return {one.name: one.of(given) for one in self.scores if one.needs == "posterior"}

    def model_columns(self, state: Labels, posterior: Posterior, model: "AskedModel") -> dict[str, Floats]:
        given = self.labelled(state, posterior, model)
        return {one.name: one.of(given) for one in self.scores if one.needs != "posterior"}

    def labelled(self, state: Labels, posterior: Posterior, model: "AskedModel | None" = None) -> "Labelled":
        """What scores are computed from."""
        assert isinstance(posterior, ClassPosterior)
        config, seed = self.config, reference.relabel_seed(self.config)
        return methods.label_scores.Labelled(
            state.histogram, state.majority, posterior.probs, config.gamma, seed, model, self.reference
        )


def nobody() -> tuple[Ints, Ints, str]:
    """What is collected where people give the labels in their own time: rows, labels, and their source."""
    none = np.empty(0, dtype=np.int64)
    return none, none, "nobody"


TASKS: dict[str, type[Task]] = {spec.LEARNING: ActiveLearning, spec.CLEANING: LabelCleaning}
