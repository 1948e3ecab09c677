"""What the models of a cycle say of the samples of a pool, whatever a label is: pure arrays, float64, natural logarithms."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core import metrics, scores
from core.relabel import Floats, Ints


class Posterior(ABC):
    """What the models of a cycle say of each sample of the pool, as far as it is kept."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def confidence(self) -> Floats:
        """Probability of the most probable class, [N]; of a mask its mean over the pixels."""

    @abstractmethod
    def suggested(self) -> Ints:
        """The labels [N] that are the most probable."""

    @abstractmethod
    def entropy(self) -> Floats:
        """In nats, [N]; of a mask the mean over the pixels."""

    @abstractmethod
    def margin(self) -> Floats:
        """1 − (p₁ − p₂) of the two most probable classes, [N]; of a mask the mean over the pixels."""

    @abstractmethod
    def shares(self) -> Floats:
        """The probability of each class, [N, C]; of a mask the mean over the pixels."""

    @abstractmethod
    def measure(self, labels: Ints, labelled: NDArray[np.bool_]) -> dict[str, float]:
        """How well the suggested labels agree with those [N] that stand, over the samples that are labelled, bool [N]: the
        answer's `measured`."""

    @abstractmethod
    def columns(self) -> dict[str, Floats]:
        """What a ranking has beside the scores, [N] each."""


class ClassPosterior(Posterior):
    """Probabilities float64 [N, C], all of which are kept."""

    def __init__(self, probs: Floats) -> None:
        self.probs = probs

    def __len__(self) -> int:
        return len(self.probs)

    def confidence(self) -> Floats:
        return np.asarray(self.probs.max(axis=1))

    def suggested(self) -> Ints:
        return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)

    def entropy(self) -> Floats:
        return scores.entropy(self.probs)

    def margin(self) -> Floats:
        return scores.margin(self.probs)

    def shares(self) -> Floats:
        return self.probs

    def measure(self, labels: Ints, labelled: NDArray[np.bool_]) -> dict[str, float]:
        return {"accuracy": metrics.accuracy(self.probs[labelled], labels[labelled])}

    def columns(self) -> dict[str, Floats]:
        return {}


@dataclass(frozen=True)
class MaskPosterior(Posterior):
    """What is kept of probabilities [N, C, H, W], which are too many to be held."""

    predicted: NDArray[np.uint8]
    """The most probable class of each pixel, [N, H, W]; an array or a memory map."""
    entropies: NDArray[np.uint8]
    """The entropy of each pixel as a share of ln C, from 0 to 255, [N, H, W]."""
    mean_entropy: Floats
    mean_margin: Floats
    mean_confidence: Floats
    """Means over the pixels, [N]."""
    class_shares: Floats
    """Mean probability of each class, [N, C]."""
    cross_entropy: Floats
    """Mean −ln p of the classes of the mask that stands, over its known pixels, in nats, [N]; NaN without a mask."""
    ambiguity: Floats
    """Mean entropy over the same pixels, [N]."""
    agreement: Ints
    """Pixels by the class that stands (rows) and the predicted one, over all masks that stand, [C, C]."""
    reference_iou: Floats
    """Mean IoU of the predicted mask with the reference, image by image, [N]; NaN where none is known."""
    reference_accuracy: Floats
    """Share of the pixels with a reference that are right, [N]; NaN where none is known."""
    right: Floats
    """Pixels of the mask that stands whose class is that of the reference, [N]; NaN without a mask or any reference."""
    known: Floats
    """Pixels of the same images that have a reference, [N]."""
    correspondence: Ints
    """Pixels by the class of the reference (rows) and the one that stands, over all masks that stand, [C, C]."""
    regions: pd.DataFrame | None = None
    """Of label cleaning: the connected regions of the masks that stand, as of `core.regions.table`."""

    def __len__(self) -> int:
        return len(self.mean_entropy)

    def confidence(self) -> Floats:
        return self.mean_confidence

    def suggested(self) -> Ints:
        return np.zeros(len(self), dtype=np.int64)  # a mask, for every image

    def entropy(self) -> Floats:
        return self.mean_entropy

    def margin(self) -> Floats:
        return self.mean_margin

    def shares(self) -> Floats:
        return self.class_shares

    def measure(self, labels: Ints, labelled: NDArray[np.bool_]) -> dict[str, float]:
        return pixel_measures(self.agreement)

    def columns(self) -> dict[str, Floats]:
        return {"iou": self.reference_iou, "pixel-accuracy": self.reference_accuracy}


def pixel_measures(confusion: Ints) -> dict[str, float]:
    """Mean IoU and pixel accuracy of a confusion matrix [C, C]."""
    return {"miou": float(metrics.mean_iou(confusion)), "pixel_accuracy": float(metrics.pixel_accuracy(confusion))}
