"""Selectors: how label cleaning learns from labels that may be wrong.

One a file, which exports its `SELECTOR`: what it is called, how figures draw it, what it needs, and how it is built and
trained. Their modules import torch when they build or train, not before: they are listed without it. `fitting` and `linear`
are what they share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from core.described import Method
from data.catalogue import Catalogue

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from core.models.architectures import Model
    from data.dataset import Pixels

Progress = Callable[[float], None]  # called with the finished share of the work, in [0, 1]


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train."""

    epochs: int
    lr: float
    batch_size: int
    schedule: Literal["one-cycle", "step", "constant"]
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    augment: Literal["flip-crop", "flip", "crop", "none"] = "flip-crop"
    steps: int | None = None  # gradient steps, exactly so many whatever the epochs; the last epoch may end early
    class_weights: Literal["none", "inverse-frequency", "median-frequency"] = "none"  # of the pixels of masks


@dataclass(frozen=True)
class Shape:
    """What a model is built for."""

    model: str
    width: int
    channels: int
    n_classes: int
    seed: int
    dropout: float = 0.0  # probability before the head
    backbone: str = "mobilenet_v2"  # of the pretrained selector
    weights: str | None = None  # of a network from elsewhere, as `core.models.networks.build` takes them
    side: tuple[int, int] = (32, 32)  # height and width of the images


def _nothing(*given: Any, **settings: Any) -> NoReturn:
    raise TypeError("there is no model to build or train: the predicted probabilities come from a file")


@dataclass(frozen=True, kw_only=True)
class Selector(Method):
    """A way of learning, and what it needs: the engine gives it that without knowing its name.

    Raises `ValueError` for one that trains and does not say how.
    """

    trains: bool = True
    """Whether there is a model to build and train; else the predicted probabilities of every cycle come from a file."""
    build: "Callable[[Shape], Model]" = _nothing
    """A fresh model."""
    fit: Callable[..., float] = _nothing
    """fit(model, images, rows, labels, settings, *, seed, noise, callbacks): train in place, return the last mean loss.

    rows, labels: int [n] · noise: estimated share of wrong labels · callbacks: of `core.selectors.fitting`.
    """
    prepare: Callable[..., None] | None = None
    """prepare(model, images, settings, *, seed, callbacks): learn the embedding from the images alone."""
    prepared: bool = False
    """The embedding is there before labels are looked at, so that a head on it is all that needs to be trained."""
    plain: bool = False
    """It is cross-entropy on the labels as they are, so that on a frozen network it is a linear head."""
    needs_noise: bool = False
    """`fit` uses the estimated share of wrong labels."""
    labels: Literal["given", "reference"] = "given"
    """Which labels it learns from: those given, or the right ones."""
    statistics: "Callable[[Pixels], tuple[Tensor, Tensor]] | None" = None
    """Mean and standard deviation by which images are normalised; None: those of the images, by channel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trains and _nothing in (self.build, self.fit):
            raise ValueError("a selector that trains says how: build and fit")


class Companion(Protocol):
    """A module that a strategy wants trained together with the model, from the outputs of the model's stages."""

    def loss(self, stages: "list[Tensor]", losses: "Tensor", share: float) -> "Tensor":
        """What is added to a batch's loss, given each sample's own loss [n] and the finished share of the training."""

    def __call__(self, stages: "list[Tensor]") -> "Tensor":
        """Its prediction for each sample, [n]."""

    def to(self, device: "torch.device") -> "Companion":
        """As `nn.Module.to`."""

    def train(self) -> "nn.Module":
        """As `nn.Module.train`."""


CATALOGUE = Catalogue(
    Selector,
    "selector",
    "SELECTOR",
    "core.selectors",
    "selectors",
    helpers=("fitting", "linear"),
)


def load(name: str) -> Selector:
    """The selector of this name. Raises `UserError` where there is none."""
    return CATALOGUE.named(name)
