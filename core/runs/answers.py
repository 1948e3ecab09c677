"""What a label is: how it is checked, learnt from, measured, written and asked for.

The second axis of a run; the first is the question (`core.runs.questions`). The engine, tables, exports and the page Annotate
go through an `Answer` and never ask which one it is. Needs no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core import metrics
from core.relabel import Floats, Ints
from data.errors import UserError

UNKNOWN = -1
"""The label of a sample that has none."""
NO_LABEL = "—"
"""How it is written."""


class Answer(ABC):
    """One kind of label, over C classes."""

    kind: ClassVar[str]
    """What a label is: "class"."""
    measured: ClassVar[tuple[str, ...]]
    """The metrics that `measure` gives, the most telling first."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)

    @property
    def n_outputs(self) -> int:
        """Classes C: channels of the model's output."""
        return len(self.class_names)

    @abstractmethod
    def fits(self, label: Any) -> bool:
        """Whether something is a label that can be given: `UNKNOWN` is none."""

    @abstractmethod
    def targets(self, labels: Ints) -> Ints:
        """Labels [n] as the loss takes them, int64 [n, …], −1 where there is nothing to learn."""

    @abstractmethod
    def predicted(self, probs: Floats) -> Ints:
        """The labels [n] that predicted probabilities [n, C, …] suggest."""

    @abstractmethod
    def measure(self, probs: Floats, labels: Ints) -> dict[str, float]:
        """`measured` of predicted probabilities [n, C, …] against labels [n]."""

    @abstractmethod
    def written(self, labels: ArrayLike) -> NDArray[np.object_]:
        """Labels [n] as tables and exports write them; `NO_LABEL` for `UNKNOWN`."""

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

    def fits(self, label: Any) -> bool:
        whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
        return whole and 0 <= int(label) < self.n_outputs

    def targets(self, labels: Ints) -> Ints:
        return labels

    def predicted(self, probs: Floats) -> Ints:
        return np.asarray(probs.argmax(axis=1), dtype=np.int64)

    def measure(self, probs: Floats, labels: Ints) -> dict[str, float]:
        return {"accuracy": metrics.accuracy(probs, labels)}

    def written(self, labels: ArrayLike) -> NDArray[np.object_]:
        names = np.array([*self.class_names, NO_LABEL], dtype=object)  # −1 is the last
        return np.asarray(names[np.asarray(labels, dtype=np.int64)], dtype=object)

    def read(self, text: str, where: str) -> int:
        if text not in self.class_names:
            raise UserError(
                f"{where}: there is no class {text[:100]!r} in this run; its classes are {', '.join(self.class_names[:20])}."
            )
        return self.class_names.index(text)

    def desk(self) -> dict[str, Any]:
        return {"classes": self.class_names}


def of(class_names: Sequence[str]) -> Answer:
    """How the labels of a data set with these classes are answered."""
    return ClassAnswer(class_names)
