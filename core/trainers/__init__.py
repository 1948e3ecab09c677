"""Ways of learning from labels that may be wrong. Each file offers `fit`, which trains a model in place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.batches import Images

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
