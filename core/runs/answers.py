"""What a label is: how it is checked, learnt from, measured, written and asked for.

The second axis of a run; the first is the question (`core.runs.questions`). The engine, tables, exports and the page Annotate
go through an `Answer` and never ask which one it is. Needs no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core import masks, metrics
from core.posterior import ClassPosterior, Posterior
from core.relabel import Floats, Ints, Labels
from core.runs.merged import Merged, places, undecided
from core.store.atomic import write_array
from core.store.log import MASK, Drawn
from core.store.maskfiles import MaskFiles
from data import dataset, masknoise, votes
from data.errors import UserError
from data.masks import BACKGROUND, VOID, colours, narrowed, widened

SURE, FAIRLY, UNSURE = "is sure", "is fairly sure", "is unsure"
UNKNOWN = -1
"""The label of a sample that has none."""
NO_LABEL = "—"
"""How it is written."""
POSTERIOR = "posterior.npy"
PREDICTED, ENTROPIES = "predicted.npy", "entropies.npy"
"""Of masks, instead: the most probable class of each pixel, and its entropy as a share of ln C from 0 to 255, uint8 [N, H, W]."""


class Answer(ABC):
    """One kind of label, over C classes."""

    kind: ClassVar[dataset.Answer]
    """What a label is."""
    measured: ClassVar[tuple[str, ...]]
    """The metrics that a test set is measured by, the most telling first."""
    layers: ClassVar[dict[str, str]] = {}
    """What can be drawn of an image pixel by pixel, by name; nothing where a label is of the whole image."""
    headings: ClassVar[dict[str, str]]
    """What the columns given, suggested and reference of a table of samples are called."""
    beside: ClassVar[str]
    """What given and suggested, side by side, say of an image."""
    of_reference: ClassVar[str]
    """What stands before the reference, in a word, of whoever gave it: `{}`."""
    crossed: ClassVar[bool]
    """Whether given and suggested labels can be crossed in a table of images."""
    maps: ClassVar[tuple[str, ...]]
    """The maps that images can be placed on: by noise and ambiguity of their labels, by the embedding of the model."""
    measure: ClassVar[str]
    """What the first of them is called: "accuracy"."""
    tabular: ClassVar[bool]
    """Whether a label can stand in a cell of a table; where it cannot, labels leave as files (`core.files.maskexport`)."""
    counted: ClassVar[bool]
    """Whether annotators' labels of an image are counted as votes."""
    agrees: ClassVar[str]
    """What the agreement of two annotators is."""
    meaning: ClassVar[str]
    """What it is."""
    correct: ClassVar[str]
    """What the share of correct labels is, in words."""
    noise_kinds: ClassVar[Mapping[str, str]]
    """Ways of injecting noise into such labels, the usual one first, and what is wrong by each."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)

    @property
    def n_outputs(self) -> int:
        """Classes C: channels of the model's output."""
        return len(self.class_names)

    @property
    def label_names(self) -> list[str]:
        """The labels that an event of the log can give, in words: the classes, or one, that there is a mask."""
        return self.class_names

    @property
    def n_labels(self) -> int:
        """How many these are."""
        return len(self.label_names)

    @property
    def images(self) -> dict[str, int]:
        """The files uint8 [N, H, W] in which a cycle keeps what its models say, with the largest value of each; none where it
        keeps probabilities (`POSTERIOR`)."""
        return {}

    @abstractmethod
    def fits(self, label: Any) -> bool:
        """Whether something is a label that can be given: `UNKNOWN` is none."""

    @abstractmethod
    def standing(
        self, state: Labels, events: pd.DataFrame, ids: list[str], files: MaskFiles, sides: tuple[int, int]
    ) -> Any:
        """The labels that stand, [N, …], as the loss takes them: of a log's events, whose replay is `state`.

        ids: of the pool · files: what masks are read from · sides: height and width of the images.
        """

    @abstractmethod
    def decided(self, state: Labels, events: pd.DataFrame, rows: Ints, files: MaskFiles) -> Labels:
        """The state of a replayed log, in which disagreement about all of a label is a tie; rows: int [T], of the events."""

    @abstractmethod
    def classes(self, labels: Any) -> set[int]:
        """The classes that occur in labels [n, …]."""

    @abstractmethod
    def given(self, events: pd.DataFrame, files: MaskFiles) -> set[int]:
        """The classes that events of a log give; files: what masks are read from."""

    @abstractmethod
    def votes(self, labels: Any) -> Ints | None:
        """Known labels [n, …] as the counts [n, C] of annotators who all agree; None where annotators are not counted."""

    @abstractmethod
    def said(self, events: pd.DataFrame, rows: Ints, n: int, files: MaskFiles) -> dict[str, dict[int, Any]]:
        """What each source says of each image that it labelled, by source and row; rows: of each event, among n."""

    @abstractmethod
    def compared(self, first: list[Any], second: list[Any]) -> tuple[float, float | None]:
        """How far two annotators agree on the same images, in [0, 1], and Cohen's kappa; None where chance always agrees."""

    @abstractmethod
    def shares(self, labels: Any) -> Floats:
        """The share of each class in labels [n, …], float64 [n, C]: 1 of a sample's own, or that of the known pixels."""

    @abstractmethod
    def kept(self, labels: Any, files: MaskFiles) -> tuple[Ints, list[Drawn] | None]:
        """Labels [n] as the log takes them, and the masks that they stand for, which are written first."""

    @abstractmethod
    def write(self, posterior: Posterior, folder: Path) -> None:
        """Keep what a cycle's models say in its folder, atomically."""

    @abstractmethod
    def written(self, labels: ArrayLike) -> NDArray[np.object_]:
        """Labels [n] as tables and exports write them; `NO_LABEL` for `UNKNOWN`."""

    @abstractmethod
    def suggested(self, codes: ArrayLike, folder: Path, rows: slice | int = slice(None)) -> NDArray[np.object_]:
        """What the models of the cycle in this folder suggest for some rows of the pool, [n], in a word each.

        codes: the labels [n] of the ranking that are the most probable. Raises `UserError` where a file cannot be read.
        """

    @abstractmethod
    def mainly(self, labels: Any) -> Ints:
        """The class that stands for each of the labels [N, …] in tables, int64 [N]; `UNKNOWN` for none. Reads every mask."""

    @abstractmethod
    def told(
        self, ranking: pd.DataFrame, folder: Path, standing: Callable[[], Any], reference: Ints
    ) -> dict[str, NDArray[Any]]:
        """What a table of a cycle's samples says of their labels, [N] each: given, suggested and reference in a word each, and
        numbers of its own.

        ranking, folder: of the cycle · standing: gives the labels that stand there · reference: classes [N] as of
        `mainly`. Raises as `suggested`.
        """

    @abstractmethod
    def reason(self, sample: pd.Series) -> str:
        """Why a sample stands where it stands, in one sentence: "labelled cat; the model says dog 0.93 and is sure: …".

        sample: a row of `core.analysis.samples` · sure: entropy below a third of its largest value ln C, unsure: above two
        thirds.
        """

    def sure(self, sample: pd.Series) -> str:
        """How sure the model is of a sample."""
        entropy = sample["entropy"] / np.log(self.n_outputs)
        return SURE if entropy < 1 / 3 else UNSURE if entropy > 2 / 3 else FAIRLY

    @abstractmethod
    def read(self, text: str, where: str) -> int:
        """The label that a file writes so. Raises `UserError`, which says where, for what is none."""

    @abstractmethod
    def desk(self) -> dict[str, Any]:
        """What the page Annotate needs to ask for a label."""


class ClassAnswer(Answer):
    """One of C classes for each image."""

    kind = "class"
    measured = ("accuracy",)
    headings: ClassVar = {"given": "Given label", "suggested": "Suggested label", "reference": "Reference"}
    beside = "label ≠ what the model suggests"
    of_reference = "Majority of {}"
    crossed = True
    maps = ("noise", "embedding")
    tabular = True
    counted = True
    agrees = "Same label"
    measure = "accuracy"
    meaning = "share of the test images that the model of the cycle gets right"
    correct = "share of images whose majority label is that of the reference annotations"
    noise_kinds = votes.NOISE_KINDS

    def fits(self, label: Any) -> bool:
        whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
        return whole and 0 <= int(label) < self.n_outputs

    def standing(
        self, state: Labels, events: pd.DataFrame, ids: list[str], files: MaskFiles, sides: tuple[int, int]
    ) -> Any:
        return state.majority

    def decided(self, state: Labels, events: pd.DataFrame, rows: Ints, files: MaskFiles) -> Labels:
        return state

    def classes(self, labels: Any) -> set[int]:
        return set(np.unique(labels).tolist()) - {UNKNOWN}

    def given(self, events: pd.DataFrame, files: MaskFiles) -> set[int]:
        return set(events["label"]) - {UNKNOWN}

    def votes(self, labels: Any) -> Ints | None:
        return np.eye(self.n_outputs, dtype=np.int64)[labels]

    def said(self, events: pd.DataFrame, rows: Ints, n: int, files: MaskFiles) -> dict[str, dict[int, Any]]:
        found: dict[str, dict[int, Any]] = {}
        for source, row, label in zip(events["source"], rows.tolist(), events["label"], strict=True):
            found.setdefault(source, {})[row] = int(label)
        return found

    def compared(self, first: list[Any], second: list[Any]) -> tuple[float, float | None]:
        from sklearn.metrics import cohen_kappa_score  # a second, which a page of one annotator does without

        same = float(np.mean(np.array(first) == np.array(second)))
        return same, None if len({*first, *second}) == 1 else float(cohen_kappa_score(first, second))

    def shares(self, labels: Any) -> Floats:
        return np.eye(self.n_outputs)[labels]

    def kept(self, labels: Any, files: MaskFiles) -> tuple[Ints, list[Drawn] | None]:
        return np.asarray(labels, dtype=np.int64), None

    def write(self, posterior: Posterior, folder: Path) -> None:
        assert isinstance(posterior, ClassPosterior)
        write_array(folder / POSTERIOR, posterior.probs.astype(np.float32))

    def written(self, labels: ArrayLike) -> NDArray[np.object_]:
        names = np.array([*self.class_names, NO_LABEL], dtype=object)  # −1 is the last
        return np.asarray(names[np.asarray(labels, dtype=np.int64)], dtype=object)

    def suggested(self, codes: ArrayLike, folder: Path, rows: slice | int = slice(None)) -> NDArray[np.object_]:
        return self.written(codes)

    def mainly(self, labels: Any) -> Ints:
        return np.asarray(labels, dtype=np.int64)

    def told(
        self, ranking: pd.DataFrame, folder: Path, standing: Callable[[], Any], reference: Ints
    ) -> dict[str, NDArray[Any]]:
        words = {"given": ranking["label"], "suggested": ranking["suggested"], "reference": reference}
        return {name: self.written(codes) for name, codes in words.items()}

    def reason(self, sample: pd.Series) -> str:
        sure = self.sure(sample)
        says = f"the model says {sample['suggested']} {sample['confidence']:.2f} and {sure}"
        votes = f"{sample['n_votes']:,} annotation{'' if sample['n_votes'] == 1 else 's'}"
        if sample["status"] == "tied" and sample["given"] == NO_LABEL:
            return f"tied ({votes}), so that no label stands; {says}: one more annotation may decide"
        if sample["given"] == NO_LABEL:
            means = {
                SURE: "unless it is wrong, it would learn little from the label",
                UNSURE: "it cannot guess the label",
                FAIRLY: "the label may be another",
            }
            return f"not labelled yet; {says}: {means[sure]}"
        if sample["given"] != sample["suggested"]:
            means = {
                SURE: "likely a wrong label",
                UNSURE: "an ambiguous image, or one that is hard for the model",
                FAIRLY: "perhaps a wrong label",
            }
        else:
            means = {
                SURE: "likely a correct label",
                UNSURE: "an ambiguous image, though the model agrees",
                FAIRLY: "probably a correct label",
            }
        return f"labelled {sample['given']} ({votes}); {says}: {means[sure]}"

    def read(self, text: str, where: str) -> int:
        if text not in self.class_names:
            raise UserError(
                f"{where}: there is no class {text[:100]!r} in this run; its classes are {', '.join(self.class_names[:20])}."
            )
        return self.class_names.index(text)

    def desk(self) -> dict[str, Any]:
        return {"classes": self.class_names}


class MaskAnswer(Answer):
    """One of C classes for each pixel. A label int64 [N] says whether there is a mask (`MASK`); the masks are files."""

    kind = "mask"
    measured = ("miou", "pixel_accuracy")
    layers: ClassVar = {
        "image": "Image",
        "label": "Label",
        "prediction": "Prediction",
        "reference": "Reference",
        "disagreement": "Disagreement",
        "entropy": "Entropy",
    }
    headings: ClassVar = {
        "given": "Mask, mostly",
        "suggested": "Predicted, mostly",
        "reference": "Reference, mostly",
    }
    beside = "the largest class of the mask (background aside) ≠ that of the prediction"
    of_reference = "Largest class of {}"
    crossed = False
    maps = ("embedding",)
    tabular = False
    counted = False
    agrees = "Mean IoU"
    measure = "mean IoU"
    meaning = (
        "intersection over union of the predicted and the reference pixels of each class, over all test images together, and the "
        "mean over the classes that either has"
    )
    correct = "share of the pixels with a reference label whose label is the same"
    noise_kinds = masknoise.KINDS

    @property
    def label_names(self) -> list[str]:
        return [self.kind]

    @property
    def images(self) -> dict[str, int]:
        return {PREDICTED: self.n_outputs - 1, ENTROPIES: 255}

    def fits(self, label: Any) -> bool:
        codes = np.asarray(label)
        whole = codes.dtype.kind in "iu" and codes.ndim == 2
        return whole and codes.size > 0 and codes.min() >= masks.VOID and 0 <= codes.max() < self.n_outputs

    def standing(
        self, state: Labels, events: pd.DataFrame, ids: list[str], files: MaskFiles, sides: tuple[int, int]
    ) -> Any:
        drawn = events[events["digest"].notna()] if "digest" in events else events.iloc[:0].assign(digest="")
        return Merged(files, places(drawn["sample_id"], ids), drawn, (len(ids), *sides), self.n_outputs)

    def decided(self, state: Labels, events: pd.DataFrame, rows: Ints, files: MaskFiles) -> Labels:
        if "digest" not in events:
            return state
        drawn = events["digest"].notna().to_numpy()
        tied = undecided(files, rows[drawn], events[drawn])
        if not len(tied):
            return state
        majority, ties = state.majority.copy(), state.tied.copy()
        majority[tied], ties[tied] = UNKNOWN, True
        return replace(state, majority=majority, tied=ties)

    def classes(self, labels: Any) -> set[int]:
        return set().union(*(np.unique(labels[k]).tolist() for k in range(len(labels)))) - {UNKNOWN}

    def given(self, events: pd.DataFrame, files: MaskFiles) -> set[int]:
        drawn = events["digest"].dropna().unique() if "digest" in events else ()
        return set().union(*(np.unique(files.read(name)).tolist() for name in drawn)) - {VOID}

    def votes(self, labels: Any) -> Ints | None:
        return None

    def said(self, events: pd.DataFrame, rows: Ints, n: int, files: MaskFiles) -> dict[str, dict[int, Any]]:
        if "digest" not in events:
            return {}
        shape = (n, *(files.read(events["digest"].iloc[0]).shape if len(events) else (0, 0)))
        merged, found = Merged(files, rows, events, shape, self.n_outputs), dict[str, dict[int, Any]]()
        for row in dict.fromkeys(rows.tolist()):
            for source, codes in merged.layers(row)[1].items():
                found.setdefault(source, {})[row] = codes
        return found

    def compared(self, first: list[Any], second: list[Any]) -> tuple[float, float | None]:
        pixels = sum(
            metrics.confusion(widened(a)[None], widened(b)[None], self.n_outputs)[0]
            for a, b in zip(first, second, strict=True)
        )
        total = pixels.sum()
        by_chance = float(pixels.sum(axis=0) @ pixels.sum(axis=1)) / max(1, total) ** 2
        same = float(metrics.pixel_accuracy(pixels))
        kappa = None if by_chance == 1 or not total else (same - by_chance) / (1 - by_chance)
        return float(metrics.mean_iou(pixels)), kappa

    def shares(self, labels: Any) -> Floats:
        counts = [
            np.bincount(np.asarray(labels[k]).ravel() + 1, minlength=self.n_outputs + 1)[1:] for k in range(len(labels))
        ]
        found = np.array(counts, dtype=np.float64).reshape(-1, self.n_outputs)
        return found / np.maximum(found.sum(axis=1, keepdims=True), 1)

    def kept(self, labels: Any, files: MaskFiles) -> tuple[Ints, list[Drawn] | None]:
        drawn = [files.add(narrowed(labels[k : k + 1])[0]) for k in range(len(labels))]
        return np.full(len(drawn), MASK, dtype=np.int64), drawn

    def write(self, posterior: Posterior, folder: Path) -> None:
        pass  # too large to be held: `core.engine.maps` writes predicted masks and entropies as it goes through the pool

    def written(self, labels: ArrayLike) -> NDArray[np.object_]:
        return np.where(np.asarray(labels, dtype=np.int64) == UNKNOWN, NO_LABEL, self.kind).astype(object)

    def suggested(self, codes: ArrayLike, folder: Path, rows: slice | int = slice(None)) -> NDArray[np.object_]:
        try:
            predicted = np.load(folder / PREDICTED, mmap_mode="r", allow_pickle=False)[rows]
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{folder} has no readable predicted masks ({PREDICTED}): choose another cycle, or restore the file."
            ) from error
        found = predicted[None] if predicted.ndim == 2 else predicted
        return self._mostly([np.bincount(one.ravel(), minlength=self.n_outputs)[: self.n_outputs] for one in found])

    def mainly(self, labels: Any) -> Ints:
        known = len(np.shape(labels)) > 1  # a label that is to be checked is no reference
        none = np.zeros(self.n_outputs, dtype=np.int64)
        return self._largest([self._pixels(labels[row]) if known else none for row in range(len(labels))])

    def told(
        self, ranking: pd.DataFrame, folder: Path, standing: Callable[[], Any], reference: Ints
    ) -> dict[str, NDArray[Any]]:
        drawn, none = standing(), np.zeros(self.n_outputs, dtype=np.int64)
        counts = [none if blank else self._pixels(drawn[row]) for row, blank in enumerate(drawn.blank)]
        height, width = drawn.shape[1:]
        return {
            "given": self._mostly(counts),
            "suggested": self.suggested(ranking["suggested"], folder),
            "reference": self._named(reference),
            "labelled": np.array([one.sum() for one in counts]) / (height * width),
        }

    def _pixels(self, mask: Any) -> Ints:
        """Pixels of each class in a mask int64 [H, W], −1 unknown; int64 [C]."""
        return np.bincount(np.asarray(mask).ravel() + 1, minlength=self.n_outputs + 1)[1:]

    def _mostly(self, counts: Sequence[Ints]) -> NDArray[np.object_]:
        return self._named(self._largest(counts))

    def _largest(self, counts: Sequence[Ints]) -> Ints:
        """The largest class of each mask, by pixels [n] of [C]; the background where there is nothing else."""
        of = np.array(counts, dtype=np.int64).reshape(-1, self.n_outputs)
        there = of.sum(axis=1) > 0
        if BACKGROUND in self.class_names:
            own = self.class_names.index(BACKGROUND)
            of[:, own] = np.minimum(of[:, own], 1) * (of.sum(axis=1) == of[:, own])
        return np.where(there, of.argmax(axis=1), UNKNOWN)

    def _named(self, classes: Ints) -> NDArray[np.object_]:
        names = np.array([*self.class_names, NO_LABEL], dtype=object)  # −1 is the last
        return np.asarray(names[classes], dtype=object)

    def reason(self, sample: pd.Series) -> str:
        sure = self.sure(sample)
        says = (
            f"over all pixels the model {sure} (mean confidence {sample['confidence']:.2f}), and the largest class that it finds "
            f"is {sample['suggested']}"
        )
        if sample["status"] == "tied":
            return f"its masks differ in every pixel, so that none stands; {says}: one more mask may decide"
        if sample["given"] == NO_LABEL:
            means = {
                SURE: "unless it is wrong, it would learn little from the mask",
                UNSURE: "it cannot guess the mask",
                FAIRLY: "a mask may correct some of it",
            }
            return f"no mask yet; {says}: {means[sure]}"
        votes = f"{sample['n_votes']:,} annotation{'' if sample['n_votes'] == 1 else 's'}"
        drawn = (
            f"{sample['labelled']:.0%} of its pixels are labelled ({votes}), and the largest class is {sample['given']}"
        )
        return f"{drawn}; {says}"

    def read(self, text: str, where: str) -> int:
        raise UserError(f"{where}: the labels of this run are masks, and a name of a class is none: import mask files.")

    def desk(self) -> dict[str, Any]:
        return {"classes": self.class_names, "colours": colours(self.n_outputs)}


KINDS: dict[str, type[Answer]] = {one.kind: one for one in (ClassAnswer, MaskAnswer)}


def of(class_names: Sequence[str], kind: str = ClassAnswer.kind) -> Answer:
    """How the labels of a data set with these classes are answered; kind: of `data.dataset.Answer`."""
    return KINDS[kind](class_names)
