"""uint8 images on their way to the model: resident on the accelerator while they fit, read in batches otherwise."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.dataset import Pixels
from data.lazy import LazyImages

RESIDENT_SHARE = 0.5  # of the accelerator's free memory that images may take; the rest is for the model
BLOCK = 1024  # images that are copied to it at a time
SAMPLED, DECODED = 10_000, 1_000  # images whose colours are counted: of an array, and where each must be decoded for it


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Images:
    """Images uint8 [N, H, W, C] as normalised float32 [n, C, H, W] batches on `device`.

    Of images that are decoded when they are read, the next batch in order is decoded while the last one is worked on.
    """

    def __init__(self, images: Pixels, mean: Tensor, std: Tensor, device: torch.device) -> None:
        self.array, self.device = images, device
        self.mean, self.std = mean.to(device), std.to(device)
        fits = device.type == "cuda" and images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
        self.resident = torch.empty(images.shape, dtype=torch.uint8, device=device) if fits else None
        if self.resident is not None:
            for start in range(0, len(images), BLOCK):
                block = np.array(images[start : start + BLOCK])
                self.resident[start : start + len(block)] = torch.from_numpy(block)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: NDArray[np.int64]) -> Tensor:
        """Float batch [n, C, H, W] of the rows `index`, in channels-last memory order."""
        return self._normalised(self._pixels(index))

    def _pixels(self, index: NDArray[np.int64]) -> Tensor:
        if self.resident is not None:
            return self.resident[torch.from_numpy(index).to(self.device)]
        return torch.from_numpy(np.ascontiguousarray(self.array[index]))

    def _normalised(self, pixels: Tensor) -> Tensor:
        batch = pixels.to(self.device)
        # [n, H, W, C] seen as [n, C, H, W] is channels-last already: no copy
        return (batch.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def batches(self, index: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """The rows `index` in order, `size` at a time, as (rows, float batch)."""
        parts = [index[start : start + size] for start in range(0, len(index), size)]
        if self.resident is not None or not isinstance(self.array, LazyImages):
            for rows in parts:
                yield rows, self[rows]
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = [reader.submit(self._pixels, rows) for rows in parts[:1]]
            for k, rows in enumerate(parts):
                pixels = ahead.pop().result()
                ahead += [reader.submit(self._pixels, coming) for coming in parts[k + 1 : k + 2]]
                yield rows, self._normalised(pixels)


def channel_statistics(images: Pixels) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, 1, 1] per channel on the 0 to 1 scale, from at most `SAMPLED` evenly spaced images.

    `DECODED` of them are enough where each has to be decoded for it.
    """
    most = DECODED if isinstance(images, LazyImages) else SAMPLED
    sample = images[:: -(-len(images) // most)]
    counts = np.zeros(
        (images.shape[3], 256), dtype=np.int64
    )  # of every grey value: exact, and no float copy of the images
    for start in range(0, len(sample), 256):
        chunk = np.asarray(sample[start : start + 256])
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[..., channel].ravel(), minlength=256)
    share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    std = np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))
    deviation = np.maximum(std, 1e-3)  # a constant channel would divide by zero
    return torch.from_numpy(mean.reshape(-1, 1, 1)).float(), torch.from_numpy(deviation.reshape(-1, 1, 1)).float()
