"""Running a model: where it lies, in which precision, and what it says of images.

`predict` is for classes. The posteriors of pixels are too large to be held for a pool (5 GB for 10,000 images of 96 × 128 in 11
classes): `maps` and `stochastic_maps` give them a batch at a time, and whoever asks keeps what is wanted of each image.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.architectures import Model
from core.models.batches import Images
from core.models.segmenters import Segmenter, cut

AT_ONCE = 16 * 128 * 128  # pixels that a deep network sees at a time on a CPU
FEWEST = 8  # images of a batch
AT_ONCE_CUDA = 64 * AT_ONCE  # pixels whose masks a GPU predicts at a time
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


def maps(
    model: Segmenter,
    images: Images,
    index: NDArray[np.int64] | None = None,
    batch_size: int = 256,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Posteriors of every pixel, a batch at a time: (rows [n] of `index`, by default of all, float32 [n, K, H, W]).

    The model is put into eval mode.
    """
    model.eval()
    rows, done = np.arange(len(images)) if index is None else index, 0
    for at, x in images.batches(rows, at_once(model, images, batch_size)):
        with torch.inference_mode(), autocast(images.device):
            found = model(x).float().softmax(dim=1).cpu().numpy()
        yield at, found
        done += len(at)
        progress(done / len(rows))


def stochastic_maps(
    model: Segmenter,
    images: Images,
    index: NDArray[np.int64],
    passes: int,
    seed: int,
    batch_size: int = 256,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[NDArray[np.int64], Iterator[NDArray[np.float32]]]]:
    """Posteriors with dropout before the head, a batch at a time: (rows [n] of `index`, float32 [n, K, H, W] for each pass).

    What the head sees is computed once; a pass draws each of its entries anew, so that further passes are cheap. They are made as
    they are asked for, one held at a time: `core.masks.bald` takes them so. The same seed and batches give the same numbers on a
    CPU. The model is put into eval mode.
    """
    model.eval()
    done, keep = 0, 1 - model.dropout.p
    for at, x in images.batches(index, at_once(model, images, batch_size)):
        with torch.inference_mode(), autocast(images.device):
            seen = model.head_input(x).float()
        generator = torch.Generator(images.device).manual_seed(seed + done)

        def drawn(
            x: Tensor = x, seen: Tensor = seen, generator: torch.Generator = generator
        ) -> Iterator[NDArray[np.float32]]:
            for _ in range(passes):
                with torch.inference_mode(), autocast(images.device):
                    kept = torch.empty_like(seen).bernoulli_(keep, generator=generator)
                    logits = cut(model.head(seen * kept / keep), x)
                    found = logits.float().softmax(dim=1).cpu().numpy()
                yield found

        yield at, drawn()
        done += len(at)
        progress(done / len(index))


def at_once(model: Model, images: Images, most: int) -> int:
    """How many images to ask a model about at a time, at most `most`.

    Of a deep network few on a CPU: activations beyond some 32 MB are memory that the system maps again at every layer, which took
    half of the time of MobileNetV2 at 128 pixels with 512 images, none with 16. Of masks, whose activations and logits have every
    pixel of the image, as few as it takes, down to one, on a GPU too.
    """
    pixels = model.pixels(*images.array.shape[1:3])
    if isinstance(model, Segmenter):
        most_pixels = AT_ONCE_CUDA if images.device.type == "cuda" else AT_ONCE
        return max(1, min(most, most_pixels // pixels))
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
