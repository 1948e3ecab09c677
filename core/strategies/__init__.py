"""Acquisition strategies: which samples to label next.

One a file, which exports its `STRATEGY`: what it is called and means, how figures draw it, what it needs from training, and
`score(pool) -> float64 [n]`, high first, over the n unlabelled samples. The engine takes the K best. A strategy that chooses
a set, one sample in view of those before, scores by the place in its choice. Their modules import torch when they score, not
before: they are listed without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from core import described
from core.described import Score
from data.catalogue import Catalogue

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float64]
UnlabelledLoss = Literal["entropy", "expected", "egl"]
Needs = Literal["nothing", "posterior", "embeddings", "model"]


class Pool(Protocol):
    """The n unlabelled samples that are ranked in a cycle, the m labelled ones, and the model trained on these.

    Tensors are float32 on the accelerator; a position counts from 0 within the n, or within the m.
    """

    seed: int
    """Differs between runs and cycles; the same on resume."""
    budget: int
    """K, the number of samples that will be chosen."""
    n_labelled: int
    """m."""
    batch_size: int
    """Of the model's training."""
    steps: int
    """Batches that the model's training took: the measure for whatever a strategy trains itself."""
    width: int
    """Of the model."""

    def __len__(self) -> int:
        """n."""

    def probs(self) -> Floats:
        """Posterior [n, C]. Not where labels are masks: it is too large to be held."""

    def entropy(self) -> Floats:
        """Entropy of the posterior in nats, [n]; where labels are masks its mean over the pixels, as with the two that follow."""

    def margin(self) -> Floats:
        """1 − (p₁ − p₂) of the two most probable classes, [n]."""

    def bald(self, passes: int) -> Floats:
        """H[mean p] − mean H[p] in nats over so many passes with dropout before the head, [n]."""

    def shares(self) -> Floats:
        """Probability of each class, [n, C]; where labels are masks the share of the image that it is expected to have."""

    def labelled_shares(self) -> Floats:
        """The same of the labels of the labelled samples, [m, C]."""

    def mc_probs(self, passes: int) -> Floats:
        """Posteriors [S, n, C] of so many passes with dropout before the head. Not where labels are masks."""

    def gradient_norms(self, loss: UnlabelledLoss) -> Floats:
        """Gradient norms [n] over all parameters, `core.gradnorm.gradient_norms` with this loss."""

    def embeddings(self) -> "Tensor":
        """What the head sees of the unlabelled samples, [n, D]."""

    def labelled_embeddings(self) -> "Tensor":
        """The same of the labelled samples, [m, D]."""

    def labels(self) -> "Tensor":
        """Labels of the labelled samples, int64 [m]."""

    def images(self, positions: NDArray[np.int64]) -> "Tensor":
        """Normalised images of unlabelled samples, [b, C, H, W]."""

    def labelled_images(self, positions: NDArray[np.int64]) -> "Tensor":
        """The same of labelled samples."""

    def companion(self) -> Floats:
        """What the strategy's own companion predicts for the unlabelled samples, [n]."""

    def expected_influence(self) -> Floats:
        """Σ_y p_y |(1/l) Σ_j ∇L(x_j)ᵀ H⁻¹ ∇CE(·, y)| ≥ 0 in nats, [n], by a second model, which has learnt l of the labels.

        x_j: the validation split, which it has not learnt · H: the damped curvature of its training (`core.influence`). Raises
        `UserError` where that cannot be inverted.
        """


@dataclass(frozen=True, kw_only=True)
class Strategy(Score):
    """A score of unlabelled samples, and what it needs from training: the engine gives it that without knowing its name."""

    score: Callable[[Pool], Floats]
    """float64 [n], high first."""
    needs: Needs = "model"
    """What it asks of the pool: nothing that a model says, `probs` alone, `embeddings` too, or more. All but the last work on
    predictions that somebody else's model made."""
    loss: UnlabelledLoss | None = None
    """The unlabelled loss whose gradient norm is the score."""
    dropout: float = 0.0
    """Probability of dropout before the head."""
    trained: bool = False
    """It needs a network that the run trains: a frozen one is refused."""
    companion: Callable[[tuple[int, ...]], "nn.Module"] | None = None
    """Makes a module, given the widths of the model's stages, to be trained with the model (`core.selectors.Companion`)."""
    validation: float = 0.0
    """Share of the initial labels that make a validation split, the same for the whole run. The model learns them as for every
    strategy; a second model, trained plainly, does not, and is the one that `Pool.expected_influence` asks."""

    def of(self, pool: Pool) -> Floats:
        """float64 [n]. Raises `UserError` as `checked` and as the strategy does."""
        return self.checked(self.score(pool), len(pool))


CATALOGUE = Catalogue(Strategy, "strategy", "STRATEGY", "core.strategies", "strategies", taken=described.COLUMNS)


def load(name: str) -> Strategy:
    """The strategy of this name. Raises `UserError` where there is none."""
    return CATALOGUE.named(name)
