"""What distinguishes the two tasks: where labels come from, which scores a ranking shows, and what is measured.

Numpy only. The engine (`core.engine.loop`) calls these and never asks which task it runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core import masks, methods, metrics, regions, relabel
from core.posterior import ClassPosterior, MaskPosterior, Posterior
from core.relabel import Floats, Ints, Labels
from core.runs import answers, reference, spec
from core.runs.merged import places
from core.runs.run import GIVEN, PERSON, REGION, REGIONS
from core.runs.spec import Config
from data import ImageDataset
from data.errors import UserError
from data.lazy import taken
from data.masks import MadeMasks, narrowed

if TYPE_CHECKING:
    from core.label_scores import AskedModel, Labelled, LabelScore
    from core.strategies import Strategy


@dataclass(frozen=True)
class Ranked:
    """A cycle's ranking, by which the next one collects labels.

    priority: what it ranked by, [N], high first; −inf or NaN where a sample cannot be chosen · regions: reads the regions that it
    ranked, where labels are masks that are checked (`Run.regions`) · standing: the labels that stood then, [N, …].
    """

    priority: Floats
    regions: Callable[[], pd.DataFrame]
    standing: Callable[[], Any]


@dataclass(frozen=True)
class Unit:
    """What a run collects and its budget counts: "label" (its noun) "spent" (what is done to it), in a column of `Run.cycles`.

    offered: the noun of what a ranking has of it.
    """

    column: str
    one: str
    done: str
    offered: str


class Task(ABC):
    """One task on one data set under one configuration."""

    dropout = 0.0
    """Probability of dropout before the head that the scores of labels need."""
    audited = False
    """Whether people check labels, some of them at random to estimate how many are right (`core.runs.audit`)."""
    people_first = False
    """Whether people may give labels before the first training."""
    drawn = False
    """Whether some of what people check is drawn at random, for the estimate of `audited`."""

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

    @staticmethod
    def unit(config: Config) -> Unit:
        """What its runs collect."""
        if config.budget_unit == "pixels":
            return Unit("n_pixels", "pixel", "spent", "pixel")
        return Unit("n_labels", "label", "spent", "image")

    @staticmethod
    def offer(
        config: Config, ranking: pd.DataFrame, regions: Callable[[], pd.DataFrame], sides: tuple[int, int]
    ) -> int:
        """How much of its unit a ranking offers, at most; regions: as of `Ranked` · sides: height and width of the images."""
        n = int(ranking["rank"].notna().sum())
        return n * sides[0] * sides[1] if config.budget_unit == "pixels" else n

    @abstractmethod
    def initial(self) -> tuple[Ints, Any, list[str]]:
        """Labels before the first training: rows, labels, and the source of each."""

    @abstractmethod
    def candidates(self, state: Labels, posterior: Posterior | None = None) -> NDArray[np.bool_]:
        """Which samples [N] may be chosen, as far as the labels say, and the posterior of the models that learnt them."""

    @abstractmethod
    def collect(self, state: Labels, ranked: Ranked, budget: int) -> tuple[Ints, Any, str]:
        """Labels of the best candidates of a ranking, for at most `budget`: rows, labels [n, …], and their source."""

    @abstractmethod
    def measure(self, state: Labels, events: pd.DataFrame, posterior: Posterior) -> dict[str, float]:
        """Metrics of a cycle from its labels, the events of the log that gave them, and its posterior."""

    def priority(self, columns: dict[str, Floats], posterior: Posterior, candidates: Ints) -> Floats:
        """What the candidates, rows [n], are ranked by, [N], high first; columns: of the ranking."""
        return columns[self.config.method]

    def status(self, state: Labels, posterior: Posterior) -> NDArray[np.str_]:
        """One word for each sample, [N], as of `core.relabel.Labels`."""
        return state.status

    def tables(self, posterior: Posterior, candidates: Ints) -> dict[str, pd.DataFrame]:
        """What a cycle keeps beside its ranking of the candidates, by the names of the files."""
        return {}

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

    def initial(self) -> tuple[Ints, Any, list[str]]:
        known = np.flatnonzero(self.dataset.labelled)
        order = np.random.default_rng([self.config.seed, 0]).permutation(known)
        rows = np.sort(order[: self.config.initial])
        source = GIVEN if self.config.annotator == "person" else "reference"
        return rows, taken(self.dataset.labels, rows), [source] * len(rows)

    def candidates(self, state: Labels, posterior: Posterior | None = None) -> NDArray[np.bool_]:
        unlabelled = state.majority < 0
        return unlabelled if self.config.annotator == "person" else unlabelled & self.dataset.labelled

    def collect(self, state: Labels, ranked: Ranked, budget: int) -> tuple[Ints, Any, str]:
        if self.config.annotator == "person":
            return nobody()
        priority = ranked.priority
        rows = np.flatnonzero(self.candidates(state) & np.isfinite(priority))  # the others were not in the subset
        rows = rows[np.argsort(-priority[rows], kind="stable")]
        rows = rows[: budget if self.config.budget_unit == "labels" else self._affordable(rows, budget)]
        return rows, taken(self.dataset.labels, rows), "reference"

    def _affordable(self, rows: Ints, budget: int) -> int:
        """How many of the masks of these rows, int [n] in order, a budget of known pixels pays for; no more are read."""
        pixels = list[int]()
        for row in rows.tolist():
            pixels.append(int((np.asarray(self.dataset.labels[row]) != masks.VOID).sum()))
            if sum(pixels) > budget:
                break
        return regions.affordable(pixels, budget, "pixels")

    def measure(self, state: Labels, events: pd.DataFrame, posterior: Posterior) -> dict[str, float]:
        labelled = state.majority >= 0
        return {
            "n_labels": int(labelled.sum()),
            **_pixels(events),
            **({"tied": int(state.tied.sum())} if self.config.annotator == "person" else {}),
            **{f"train_{name}": value for name, value in posterior.measure(state.majority, labelled).items()},
        }

    def score_columns(self, state: Labels, posterior: Posterior) -> dict[str, Floats]:
        return {"entropy": posterior.entropy(), "margin": posterior.margin()}


class LabelCleaning(Task):
    """Every sample has a label that may be wrong; relabelling draws votes until a majority forms."""

    drawn = True

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

    def initial(self) -> tuple[Ints, Any, list[str]]:
        n, known = len(self.dataset.ids), self.dataset.annotations
        if self.config.annotator != "person":
            return np.arange(n), reference.initial_labels(self.config, self.dataset), ["initial"] * n
        if known is None:
            return np.arange(n), reference.initial_labels(self.config, self.dataset), [GIVEN] * n
        silent = np.setdiff1d(np.arange(n), known.rows)  # no vote: the label that came with the data stands in
        labels = np.concatenate([self.dataset.labels[silent], known.labels])
        sources = [GIVEN] * len(silent) + [PERSON + who for who in known.annotators]
        return np.concatenate([silent, known.rows]), labels, sources

    def candidates(self, state: Labels, posterior: Posterior | None = None) -> NDArray[np.bool_]:
        return ~state.cleaned

    def collect(self, state: Labels, ranked: Ranked, budget: int) -> tuple[Ints, Any, str]:
        if self.reference is None:
            return nobody()
        config = self.config
        order = relabel.priorities("oracle", self.reference) if config.method == "oracle" else ranked.priority
        taken = relabel.collect(self.reference, state, order, budget=budget, seed=reference.relabel_seed(config))
        return taken.sample, taken.label, f"votes ({self.dataset.annotators})"

    def measure(self, state: Labels, events: pd.DataFrame, posterior: Posterior) -> dict[str, float]:
        found: dict[str, float] = {"n_labels": int((events["cycle"] > 0).sum())}
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


class RegionCleaning(Task):
    """Every image has a mask that may be wrong; its connected regions are checked, one by one."""

    @staticmethod
    def unit(config: Config) -> Unit:
        if config.annotator == "person":  # who draws over as many regions at once as need it
            return Unit("n_labels", "mask", "drawn", "image")
        if config.budget_unit == "pixels":
            return Unit("n_pixels", "pixel", "checked", "pixel")
        return Unit("n_labels", "region", "checked", "region")

    @staticmethod
    def offer(
        config: Config, ranking: pd.DataFrame, regions: Callable[[], pd.DataFrame], sides: tuple[int, int]
    ) -> int:
        table = regions()
        ranked = table[table["rank"].notna()]
        return int(ranked["pixels"].sum()) if config.budget_unit == "pixels" else len(ranked)

    def __init__(self, config: Config, dataset: ImageDataset) -> None:
        super().__init__(config, dataset)
        self.reference = reference.reference_labels(config, dataset)
        chosen, kind = methods.label_scores.load(config.method), self.answer.kind
        every = methods.label_scores.CATALOGUE.values()
        self.scores = [one for one in every if one is chosen or (kind in one.answers and not one.bound)]

    def initial(self) -> tuple[Ints, Any, list[str]]:
        n = len(self.dataset)
        source = GIVEN if self.config.annotator == "person" else "initial"
        return np.arange(n), reference.initial_labels(self.config, self.dataset), [source] * n

    def candidates(self, state: Labels, posterior: Posterior | None = None) -> NDArray[np.bool_]:
        if posterior is None:
            return state.majority >= 0
        found = np.zeros(len(posterior), dtype=np.bool_)
        table = _regions(posterior)
        found[table.loc[~table["checked"], "image"].to_numpy(np.int64)] = True
        return found

    def collect(self, state: Labels, ranked: Ranked, budget: int) -> tuple[Ints, Any, str]:
        if self.reference is None:
            return nobody()
        table = ranked.regions()
        table = table[table["rank"].notna()].sort_values("rank")
        chosen = table[: regions.affordable(table["pixels"], budget, self.config.budget_unit)]
        rows, number = places(chosen["sample_id"], self.dataset.ids), chosen["region"].to_numpy(np.int64)
        standing, right = ranked.standing(), self.reference

        def answer(k: int) -> NDArray[np.uint8]:
            row = int(rows[k])
            inside = masks.number(standing[row]) == number[k]
            return narrowed(np.where(inside, right[row], masks.VOID)[None])[0]

        shape = (len(rows), *self.dataset.images.shape[1:3])
        name = repr((standing.version, rows.tolist(), number.tolist()))
        return rows, MadeMasks(answer, shape, self.n_classes, name), "reference (regions)"

    def measure(self, state: Labels, events: pd.DataFrame, posterior: Posterior) -> dict[str, float]:
        assert isinstance(posterior, MaskPosterior)
        collected = events[events["cycle"] > 0]
        found: dict[str, float] = {"n_labels": len(collected), **_pixels(collected)}
        if self.reference is not None:
            right, known = np.nansum(posterior.right), np.nansum(posterior.known)
            found["correctness"] = float(right / known) if known else float("nan")
            found["label_miou"] = float(metrics.mean_iou(posterior.correspondence))
        elif self.config.out_of_sample:  # a model that has learnt the labels agrees with wrong ones
            found["agreement"] = float(metrics.pixel_accuracy(posterior.agreement))
        return found

    def score_columns(self, state: Labels, posterior: Posterior) -> dict[str, Floats]:
        assert isinstance(posterior, MaskPosterior)
        known = np.where(posterior.known > 0, posterior.known, np.nan)
        wrong = None if self.reference is None else 1 - posterior.right / known
        return self._scores(state.majority, posterior.cross_entropy, posterior.ambiguity, wrong)

    def priority(self, columns: dict[str, Floats], posterior: Posterior, candidates: Ints) -> Floats:
        """An image is ranked as its best region is."""
        table = self.ranked(posterior, candidates)
        best = table.groupby("image")["rank"].min().astype("float64")
        found = np.full(len(posterior), -np.inf)
        found[best.index.to_numpy(np.int64)] = -best.fillna(np.inf)
        return found

    def status(self, state: Labels, posterior: Posterior) -> NDArray[np.str_]:
        """An image is cleaned when every region is."""
        left = self.candidates(state, posterior)
        return np.select([left, state.majority >= 0], ["labelled", "cleaned"], "unlabelled")

    def tables(self, posterior: Posterior, candidates: Ints) -> dict[str, pd.DataFrame]:
        table = self.ranked(posterior, candidates)
        ids = np.array(self.dataset.ids, dtype=object)
        table.insert(0, "sample_id", ids[table.pop("image").to_numpy(np.int64)])
        return {REGIONS: table}

    def ranked(self, posterior: Posterior, candidates: Ints) -> pd.DataFrame:
        """The regions of the masks that stand, one row each, by image and number, as `Run.regions` has them; image: the row.

        candidates: rows [n] of the images whose regions are ranked. Raises `UserError` where one has no finite score.
        """
        table, method = _regions(posterior), self.config.method
        known = table["wrong"].to_numpy(np.float64) if self.reference is not None else None
        surprise, ambiguity = (table[name].to_numpy(np.float64) for name in ("cross_entropy", "ambiguity"))
        columns = self._scores(table["label"].to_numpy(np.int64), surprise, ambiguity, known)
        open_ = ~table["checked"].to_numpy(np.bool_) & np.isin(table["image"], candidates)
        score, pixels = columns[method], table["pixels"].to_numpy(np.int64)
        unit = self.config.budget_unit if methods.label_scores.load(method).per_pixel else "pixels"
        taken_by = regions.priority(score, pixels, unit)
        rows = np.flatnonzero(open_)
        if not np.isfinite(score[rows]).all():
            raise UserError(
                f"{int((~np.isfinite(score[rows])).sum())} regions got no finite {method} score: training probably diverged; "
                "lower the learning rate and run again."
            )
        rank = np.full(len(table), -1, dtype=np.int64)
        rank[rows[np.argsort(-taken_by[rows], kind="stable")]] = np.arange(1, len(rows) + 1)
        return table[["image", *REGION]].assign(
            **columns,
            rank=pd.Series(rank).where(rank > 0).astype("Int64"),
            status=np.where(table["checked"], "cleaned", "labelled"),
        )

    def _scores(self, labels: Ints, surprise: Floats, ambiguity: Floats, wrong: Floats | None) -> dict[str, Floats]:
        """The scores of masks or of regions, [n] each, by their terms."""
        given = methods.label_scores.LabelledMasks(
            histogram=np.zeros((len(labels), self.n_classes), dtype=np.int64),
            labels=labels,
            probs=np.empty((len(labels), 0)),
            gamma=self.config.gamma,
            seed=reference.relabel_seed(self.config),
            surprise=surprise,
            ambiguity=ambiguity,
            wrong=wrong,
        )
        return {one.name: one.of(given) for one in self.scores}


def _regions(posterior: Posterior) -> pd.DataFrame:
    assert isinstance(posterior, MaskPosterior)
    assert posterior.regions is not None, "computed where labels are checked (`core.engine.maps`)"
    return posterior.regions


def _pixels(events: pd.DataFrame) -> dict[str, float]:
    """The pixels that masks among these events cover, as a metric."""
    return {"n_pixels": int(events["pixels"].sum())} if "pixels" in events else {}


def nobody() -> tuple[Ints, Any, str]:
    """What is collected where people give the labels in their own time: rows, labels, and their source."""
    none = np.empty(0, dtype=np.int64)
    return none, none, "nobody"


TASKS: dict[str, type[Task]] = {spec.LEARNING: ActiveLearning, spec.CLEANING: LabelCleaning}
ANSWERED: dict[tuple[str, str], type[Task]] = {(spec.CLEANING, answers.MaskAnswer.kind): RegionCleaning}
"""Those that are tasks of their own with one kind of labels."""


def kind(task: str, answer: str) -> type[Task]:
    """The task that a question is with one kind of labels."""
    return ANSWERED.get((task, answer), TASKS[task])


def of(config: Config, dataset: ImageDataset) -> Task:
    """The task of a configuration on its data."""
    return kind(config.task, dataset.answer)(config, dataset)
