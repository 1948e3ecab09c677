"""Running a model: where it lies, in which precision, and what it says of images."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.models.architectures import Model
from core.models.batches import Images

AT_ONCE = 16 * 128 * 128  # pixels that a deep network sees at a time on a CPU
FEWEST = 8  # images of a batch
M = TypeVar("M", bound=nn.Module)


def predict(
    model: Model,
    images: Images,
    index: NDArray[np.int64] | None = None,
    batch_size: int = 256,
    progress: Callable[[float], None] = lambda share: None,
) -> NDArray[np.float32]:
    """Posterior of every row of `index` (all rows by default), float32 [n, K], the model left in eval mode."""
    model.eval()
    rows = np.arange(len(images)) if index is None else index
    batch_size = at_once(model, images, batch_size)
    parts = []
    with torch.inference_mode(), autocast(images.device):
        for at, x in images.batches(rows, batch_size):
            parts.append(model(x).float().softmax(dim=1).cpu())
            progress((len(parts) - 1) * batch_size / len(rows) + len(at) / len(rows))
    return torch.cat(parts).numpy()


def at_once(model: Model, images: Images, most: int) -> int:
    """How many images to ask a model about at a time, at most `most`.

    Of a deep network few on a CPU: activations beyond some 32 MB are memory that the system maps again at every layer, which took
    half of the time of MobileNetV2 at 128 pixels with 512 images, none with 16.
    """
    pixels = model.pixels(*images.array.shape[1:3])
    if not pixels or images.device.type == "cuda":
        return most
    return max(FEWEST, min(most, AT_ONCE // pixels))


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the GPU computes in it natively; nothing elsewhere (on a CPU it was slower)."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


def place(model: M, device: torch.device) -> M:
    """The model on `device` with channels-last weights, which convolutions prefer on a GPU and on a CPU."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
