"""Ways of learning from labels that may be wrong: the selectors of label cleaning. One a file, which names its `TRAINER`."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.architectures import Model
from core.models.batches import Images, channel_statistics
from data.errors import UserError

TRAINERS = ("vanilla", "co-teaching", "elr", "ssl", "pretrained", "clean")

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
    weights: str | None = None  # file of its weights; None: torchvision's, downloaded


@dataclass(frozen=True)
class Trainer:
    """A way of learning, and what it needs: the engine gives it that without knowing its name."""

    build: Callable[[Shape], Model]
    """A fresh model."""
    fit: Callable[..., float]
    """fit(model, images, rows, labels, settings, *, seed, noise, callbacks): train in place, return the last mean loss.

    rows, labels: int [n] · noise: estimated share of wrong labels · callbacks: of `core.selectors.fitting`.
    """
    prepare: Callable[..., None] | None = None
    """prepare(model, images, settings, *, seed, callbacks): learn the embedding from the images alone."""
    prepared: bool = False
    """The embedding is there before labels are looked at, so that a head on it is all that needs to be trained."""
    needs_noise: bool = False
    """`fit` uses the estimated share of wrong labels."""
    labels: Literal["given", "reference"] = "given"
    """Which labels it learns from: those given, or the right ones."""
    statistics: Callable[[NDArray[np.uint8]], tuple[Tensor, Tensor]] = channel_statistics
    """Mean and standard deviation by which images are normalised."""


def load(name: str) -> Trainer:
    """The selector of this name; imports its file and what that needs. Raises `UserError` where there is none."""
    if name not in TRAINERS:
        raise UserError(f'There is no selector "{name}": choose one of {", ".join(TRAINERS)}.')
    return cast(Trainer, importlib.import_module(f"core.selectors.{name.replace('-', '_')}").TRAINER)


class Companion(Protocol):
    """A module that a strategy wants trained together with the model, from the outputs of the model's stages."""

    def loss(self, stages: list[Tensor], losses: Tensor, share: float) -> Tensor:
        """What is added to a batch's loss, given each sample's own loss [n] and the finished share of the training."""

    def __call__(self, stages: list[Tensor]) -> Tensor:
        """Its prediction for each sample, [n]."""

    def to(self, device: torch.device) -> "Companion":
        """As `nn.Module.to`."""

    def train(self) -> nn.Module:
        """As `nn.Module.train`."""


def predict(
    model: nn.Module,
    images: Images,
    index: NDArray[np.int64] | None = None,
    batch_size: int = 256,
    progress: Progress = lambda share: None,
) -> NDArray[np.float32]:
    """Posterior of every row of `index` (all rows by default), float32 [n, K], the model left in eval mode."""
    model.eval()
    rows = np.arange(len(images)) if index is None else index
    parts = []
    with torch.inference_mode(), autocast(images.device):
        for at, x in images.batches(rows, batch_size):
            parts.append(model(x).float().softmax(dim=1).cpu())
            progress((len(parts) - 1) * batch_size / len(rows) + len(at) / len(rows))
    return torch.cat(parts).numpy()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the GPU computes in it natively; nothing elsewhere (on a CPU it was slower)."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on `device` with channels-last weights, which convolutions prefer on a GPU and on a CPU."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
