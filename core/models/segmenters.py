"""Architectures of masks: [N, C, H, W] floats → logits [N, K, H, W], at the height and width of the images, whatever they are."""

from abc import abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.architectures import Model

SCALES = 4  # of the small U-Net: the coarsest has an eighth of the image's sides


class Segmenter(Model):
    """An encoder, whose coarsest stage is pooled to the embedding; a decoder; dropout; `head`, which classifies each pixel.

    Images whose sides the encoder cannot halve as often as it would are padded with zeros, the mean colour of normalised images,
    at the bottom and on the right; what is said of the padding is cut off again.
    """

    head: nn.Module
    n_classes: int
    stage_widths: tuple[int, ...]
    """Channels of each stage's output; the last is the size of the embedding."""
    stride: int
    """Sides of the images are padded to multiples of it."""

    @abstractmethod
    def stages(self, x: Tensor) -> list[Tensor]:
        """Output of every stage of the encoder, from fine to coarse, [N, width, H', W'] each, of padded images."""

    @abstractmethod
    def decode(self, stages: list[Tensor]) -> Tensor:
        """What the head sees, [N, F, H', W']."""

    def embed(self, x: Tensor) -> Tensor:
        """The coarsest stage, its mean over positions, [N, D]."""
        return self.stages(self._padded(x))[-1].mean(dim=(2, 3))

    def head_input(self, x: Tensor) -> Tensor:
        """What the head sees of the padded images, [N, F, H', W']."""
        return self.decode(self.stages(self._padded(x)))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits [N, K, H', W'] of what `head_input` gives, with those of the padding."""
        return self.head(self.dropout(embedding))

    def forward(self, x: Tensor) -> Tensor:
        return cut(self.classify(self.head_input(x)), x)

    def with_stages(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K, H, W], and the output of every stage of the encoder."""
        stages = self.stages(self._padded(x))
        return cut(self.classify(self.decode(stages)), x), stages

    def with_embedding(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, K, H, W] and embeddings [N, D], from one pass."""
        logits, stages = self.with_stages(x)
        return logits, stages[-1].mean(dim=(2, 3))

    def pixels(self, height: int, width: int) -> int:
        return height * width

    def _padded(self, x: Tensor) -> Tensor:
        below, right = (-side % self.stride for side in x.shape[2:])
        return F.pad(x, (0, right, 0, below)) if below or right else x


def cut(logits: Tensor, x: Tensor) -> Tensor:
    """Logits [N, K, H', W'] of padded images without those of the padding, [N, K, H, W]; x: the images [N, C, H, W]."""
    height, width = x.shape[2:]
    return logits if logits.shape[2:] == x.shape[2:] else logits[:, :, :height, :width]


class SmallUNet(Segmenter):
    """A U-Net of four scales: seconds to minutes a training on a CPU. `width` is that of the finest, doubled from scale to scale.

    Ronneberger et al., MICCAI 2015, with batch normalisation, padded convolutions, and one convolution a block instead of two.
    """

    stride = 2 ** (SCALES - 1)

    def __init__(self, in_channels: int, n_classes: int, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.stage_widths = tuple(width * 2**scale for scale in range(SCALES))
        self.down = nn.ModuleList(_block(a, b) for a, b in pairwise((in_channels, *self.stage_widths)))
        coarser = list(pairwise(reversed(self.stage_widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in coarser)
        self.merge = nn.ModuleList(_block(2 * b, b) for _, b in coarser)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(width, n_classes, 1)

    def stages(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if found else x)
            found.append(x)
        return found

    def decode(self, stages: list[Tensor]) -> Tensor:
        y = stages[-1]
        for up, merge, skip in zip(self.up, self.merge, reversed(stages[:-1]), strict=True):
            y = merge(torch.cat([skip, up(y)], dim=1))
        return y


def _block(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
