"""Scores of labels: which labels to check next.

One a file, which exports its `SCORE`: what it is called and means, how figures draw it, and `compute(labelled) -> float64
[N]`, high first, over all N samples. The formulas are functions of `core.scores`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from core import described, masks, relabel, scores
from core.described import Score
from core.scores import Array
from data.catalogue import Catalogue
from data.errors import UserError


class AskedModel(Protocol):
    """What a score may ask of the trained model beyond its posterior."""

    def bald(self, passes: int) -> Array:
        """Mutual information [N] between label and dropped weights, by so many passes with dropout before the head."""

    def neighbours(self) -> Array:
        """Class shares [N, C] that the labels of the nearest neighbours in embedding space speak for (`core.graph`)."""


@dataclass(frozen=True)
class Labelled:
    """What a score of labels is computed from: N samples over C classes."""

    histogram: NDArray[np.int64]  # [N, C] votes so far, the initial label included
    labels: NDArray[np.int64]  # [N] the majority label, −1 where people's votes tie
    probs: Array  # [N, C] the posterior
    gamma: float = 0.0  # of the cleaning score, base-C scale
    seed: int = 0  # of the votes that are collected
    asked: AskedModel | None = None
    counts: NDArray[np.int64] | None = None  # [N, C] of the true label distribution, where it is known

    def __len__(self) -> int:
        return len(self.labels)

    def entropy(self) -> Array:
        """H(p) in nats, [N]."""
        return scores.entropy(self.probs)

    def cross_entropy(self) -> Array:
        """CE(l̂, p) in nats, [N]."""
        return scores.cross_entropy(self.histogram, self.probs)

    def cleaning_score(self) -> Array:
        """Φ = CE(l̂, p) − max(H(p) − γ·ln C, 0) in nats, [N]."""
        return scores.cleaning_score(self.histogram, self.probs, self.gamma)

    def oracle(self) -> Array:
        """(1 − q[majority]) / E[relabels] in [0, 1], [N]. Raises `UserError` where the true label distribution is not known."""
        if self.counts is None:
            raise _unknown()
        return relabel.Oracle(self.counts)[np.arange(len(self)), self.labels]

    @property
    def model(self) -> AskedModel:
        """The trained model, of a score that says that it needs one."""
        assert self.asked is not None, 'a score that asks the model declares needs="model"'
        return self.asked


@dataclass(frozen=True)
class LabelledMasks(Labelled):
    """The same of N masks, or of N connected regions of masks: means over their pixels, which stand for the posterior."""

    surprise: Array = field(kw_only=True)  # [N] mean −ln p of the classes of the pixels, in nats
    ambiguity: Array = field(kw_only=True)  # [N] mean entropy of the pixels, in nats
    wrong: Array | None = field(kw_only=True)  # [N] share of wrong pixels, where that is known

    def entropy(self) -> Array:
        return self.ambiguity

    def cross_entropy(self) -> Array:
        return self.surprise

    def cleaning_score(self) -> Array:
        return masks.difference(self.surprise, self.ambiguity, self.histogram.shape[1], self.gamma)

    def oracle(self) -> Array:
        """Share of wrong pixels in [0, 1], [N]: what checking gains for each pixel. Raises `UserError` where it is not known."""
        if self.wrong is None:
            raise _unknown()
        return self.wrong


def _unknown() -> UserError:
    return UserError("The oracle needs to know the true labels, which this data set does not: choose another score.")


@dataclass(frozen=True, kw_only=True)
class LabelScore(Score):
    """A score of labels, and what it needs: a run computes it without knowing its name."""

    compute: Callable[[Labelled], Array]
    """float64 [N], high first."""
    needs: Literal["posterior", "embeddings", "model"] = "posterior"
    """What it asks. Scores that ask more of the model than its posterior are computed where they rank, or with `evidence`."""
    dropout: float = 0.0
    """Probability of dropout before the head, for a score that asks the model."""
    per_pixel: bool = True
    """Whether it says of each pixel of a region how much checking it gains, so that of two regions the larger one comes first."""
    ranks: bool = True
    """Whether labels can be checked in its order; one that cannot is a column to read the others by."""
    bound: bool = False
    """Whether it is a bound to compare the others with, and computed only where it ranks."""

    def of(self, labelled: Labelled) -> Array:
        """float64 [N]. Raises `UserError` as `checked` and as the score does."""
        return self.checked(self.compute(labelled), len(labelled))


CATALOGUE = Catalogue(LabelScore, "score", "SCORE", "core.label_scores", "scores", taken=described.COLUMNS)


def load(name: str) -> LabelScore:
    """The score of this name. Raises `UserError` where there is none."""
    return CATALOGUE.named(name)
