"""uint8 images on their way to the model: resident on the accelerator while they fit, read in batches otherwise."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESIDENT_SHARE = 0.5  # of the accelerator's free memory that images may take; the rest is for the model


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Images:
    """Images uint8 [N, H, W, C] as normalised float32 [n, C, H, W] batches on `device`."""

    def __init__(self, images: NDArray[np.uint8], mean: Tensor, std: Tensor, device: torch.device) -> None:
        self.array, self.device = images, device
        self.mean, self.std = mean.to(device), std.to(device)
        fits = device.type == "cuda" and images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
        self.resident = torch.from_numpy(np.ascontiguousarray(images)).to(device) if fits else None

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: NDArray[np.int64]) -> Tensor:
        """Float batch [n, C, H, W] of the rows `index`, in channels-last memory order."""
        if self.resident is not None:
            batch = self.resident[torch.from_numpy(index).to(self.device)]
        else:
            batch = torch.from_numpy(np.ascontiguousarray(self.array[index])).to(self.device)
        # [n, H, W, C] seen as [n, C, H, W] is channels-last already: no copy
        return (batch.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def batches(self, index: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """The rows `index` in order, `size` at a time, as (rows, float batch)."""
        for start in range(0, len(index), size):
            rows = index[start : start + size]
            yield rows, self[rows]


def channel_statistics(images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, 1, 1] per channel on the 0 to 1 scale, from at most 10,000 evenly spaced images."""
    sample = images[:: -(-len(images) // 10_000)]
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
