"""Architectures: [N, C, H, W] floats → logits [N, K]. Each is stages, an embedding and its last linear layer, `head`.

Those of masks, [N, C, H, W] → [N, K, H, W], are in `core.models.segmenters`.
"""

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.models import CATALOGUE, is_known
from data.errors import UserError

SIDE = 128  # pixels that a pretrained network sees: small images lie too far from what it has learnt from
TINY = 1e-12  # keeps the logarithm of a mean posterior finite
REGISTER = 16  # floats in the widest vector register of a CPU (AVX-512)


class Model(nn.Module, ABC):
    """An embedding, dropout, and what makes logits of it."""

    dropout: nn.Dropout

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """The embedding of every image, [N, D]: what the head sees, unless `head_input` is something else."""

    def head_input(self, x: Tensor) -> Tensor:
        """What the head sees: the embedding [N, D], in a network of masks a map [N, F, H', W']."""
        return self.embed(x)

    @abstractmethod
    def classify(self, embedding: Tensor) -> Tensor:
        """Logits [N, K] of embeddings [N, D], in a network of masks [N, K, H', W'] of maps."""

    def pixels(self, height: int, width: int) -> int:
        """Pixels of such an image as a deep network sees it; 0 of a network so small that any number of images will do."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.head_input(x))


class Headed(Model):
    """A model with one linear layer behind its embedding."""

    head: nn.Linear

    def classify(self, embedding: Tensor) -> Tensor:
        return self.head(self.dropout(embedding))


class Classifier(Headed):
    """Stages of growing width, their mean over positions as the embedding, dropout and a linear head."""

    stage_widths: tuple[int, ...]
    """Channels of each stage's output; the last is the size of the embedding."""

    @abstractmethod
    def stages(self, x: Tensor) -> list[Tensor]:
        """Output of every stage, [N, width, H', W'] each."""

    def embed(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean(dim=(2, 3))

    def with_stages(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K], and the output of every stage."""
        stages = self.stages(x)
        return self.classify(stages[-1].mean(dim=(2, 3))), stages


class SmallCNN(Classifier):
    """Three convolution blocks and a linear head: seconds a training on a CPU. `width` is that of the first block."""

    def __init__(self, in_channels: int, n_classes: int, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        self.stage_widths = (width, 2 * width, 4 * width)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
                for a, b in pairwise((in_channels, *self.stage_widths))
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, n_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        found = []
        for block in self.body:
            x = block(x)
            found.append(x)
        return found


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution with a stride, which on a CPU takes the pixels it strides to before it convolves them.

    Left to do both, oneDNN writes past its workspace in the backward pass of channels-last images with fewer channels than a
    vector register holds (https://github.com/uxlfoundation/oneDNN/issues/6035): from about 46 pixels the process dies of
    it, below that memory is overwritten unseen. Values and gradients are the same to within rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or self.in_channels >= REGISTER:
            return super().forward(x)
        return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight, self.bias)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions around a shortcut, He et al. 2016."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_planes == planes
            else nn.Sequential(Pointwise(in_planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet18(Classifier):
    """ResNet-18 with the CIFAR stem: one 3 × 3 convolution and no pooling before the blocks. `width` 64 is the paper's."""

    def __init__(self, in_channels: int, n_classes: int, width: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.stage_widths = (width, 2 * width, 4 * width, 8 * width)
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks, planes = [], width
        for stage, out in enumerate(self.stage_widths):
            for block in range(2):
                blocks.append(BasicBlock(planes, out, 2 if stage > 0 and block == 0 else 1))
                planes = out
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(planes, n_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        x, found = F.relu(self.bn1(self.conv1(x))), []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found[1::2]  # two blocks a stage


class Pair(Model):
    """Two classifiers as one: its posterior is the mean of theirs, its embedding both of theirs side by side."""

    def __init__(self, first: Headed, second: Headed, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.dropout = first, second, nn.Dropout(dropout)

    def embed(self, x: Tensor) -> Tensor:
        """Both embeddings, [N, 2D]."""
        return torch.cat([self.first.embed(x), self.second.embed(x)], dim=1)

    def heads(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both, [N, K] each."""
        first, second = self.dropout(embedding).chunk(2, dim=1)
        return self.first.head(first), self.second.head(second)

    def classify(self, embedding: Tensor) -> Tensor:
        """Logarithm of the mean posterior, [N, K]."""
        first, second = self.heads(embedding)
        return ((first.softmax(dim=1) + second.softmax(dim=1)) / 2 + TINY).log()


class Pretrained(Headed):
    """A network without its last layer as the embedding, dropout and a linear head."""

    def __init__(self, backbone: nn.Module, size: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, n_classes)

    def embed(self, x: Tensor) -> Tensor:
        """What the head sees, [N, D], of images that are normalised as ImageNet's."""
        side = (SIDE, SIDE)
        x = F.interpolate(x.expand(-1, 3, -1, -1), size=side, mode="bilinear", antialias=x.shape[2] > SIDE)
        return self.backbone(x)

    def pixels(self, height: int, width: int) -> int:
        return SIDE * SIDE


class Backbone(Headed):
    """Another's network without its class head as the embedding, dropout and a linear head.

    Images are brought to the sides that the network takes; of one that takes any, small images are enlarged.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int,
        n_classes: int,
        dropout: float,
        *,
        sides: tuple[int, int] | None = None,
        least: int = 1,
        channels: int | None = None,
    ) -> None:
        """network: [N, C, H, W] → [N, size] · sides: height and width that it takes, None: any · least: pixels of the shorter
        side below which images are enlarged · channels: of the images that it takes where grey ones are repeated to it."""
        super().__init__()
        self.network, self.sides, self.least, self.channels = network, sides, least, channels
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, n_classes)

    def embed(self, x: Tensor) -> Tensor:
        if self.channels is not None:
            x = x.expand(-1, self.channels, -1, -1)
        return self.features(resized(x, self.sides, self.least))

    def pixels(self, height: int, width: int) -> int:
        return math.prod(sides_of(height, width, self.sides, self.least))

    def features(self, x: Tensor) -> Tensor:
        """What the network makes of images of the right size, [N, D]."""
        return self.network(x)


class Whole(Model):
    """A network that has no linear layer at its end: its logits stand for the embedding too, and nothing is dropped."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.dropout = network, nn.Dropout(0.0)

    def embed(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        return self.network(x)

    def classify(self, embedding: Tensor) -> Tensor:
        return embedding


class Frozen(Headed):
    """A linear head on the embedding of a network that stays as it is, and is no part of the parameters or the state."""

    of: Tensor

    def __init__(self, network: Headed, name: str, n_classes: int, dropout: float) -> None:
        """name: stands for the network and its weights; the state keeps it, so that no head comes to another network."""
        super().__init__()
        self.name = name
        self.register_buffer("of", torch.frombuffer(bytearray(name.encode()), dtype=torch.uint8))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(network.head.in_features, n_classes)
        self._network = (network.eval().requires_grad_(False),)  # nn.Module registers no module in a tuple

    def embed(self, x: Tensor) -> Tensor:
        return self._network[0].embed(x)

    def pixels(self, height: int, width: int) -> int:
        return self._network[0].pixels(height, width)


def embedding(model: Model, needs: str) -> None:
    """Raise `UserError`, which says what needs it, for a network of which no embedding is known."""
    if isinstance(model, Whole):
        raise UserError(
            f"{needs} needs a network that ends in a linear layer, whose input is its embedding, and this one does not: let the "
            "factory return such a network, or choose something else."
        )


def headed(model: Model, needs: str) -> Headed:
    """A model that has a linear head. Raises as `embedding`."""
    embedding(model, needs)
    assert isinstance(model, Headed)
    return model


def resized(x: Tensor, sides: tuple[int, int] | None, least: int) -> Tensor:
    """Images [N, C, H, W] at these sides; where any will do, enlarged until the shorter one has `least` pixels."""
    height, width = x.shape[2:]
    sides = sides_of(height, width, sides, least)
    if (height, width) == sides:
        return x
    smaller = sides[0] < height or sides[1] < width
    return F.interpolate(x, size=sides, mode="bilinear", antialias=smaller)


def sides_of(height: int, width: int, sides: tuple[int, int] | None, least: int) -> tuple[int, int]:
    """Height and width that `resized` gives images."""
    scale = max(1.0, least / min(height, width))
    return sides or (round(scale * height), round(scale * width))


def build(
    name: str,
    in_channels: int,
    n_classes: int,
    width: int,
    seed: int,
    dropout: float = 0.0,
    *,
    weights: str | None = None,
    side: tuple[int, int] = (32, 32),
) -> Model:
    """A fresh model of this name; the same seed gives the same weights and leaves the global RNG alone.

    A `Classifier` or, of masks, a `core.models.segmenters.Segmenter` where `core.models.CATALOGUE` names it, else what
    `core.models.networks.build` makes. dropout: probability before the head; it has no weights, so that models that differ in it
    alone can share theirs · weights: as there · side: height and width of the images. Raises `UserError` for a name that is not
    there, and as `networks.build`.
    """
    from core.models import networks

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in CATALOGUE or not (is_known(name) or is_known(name, "mask")):
            return CATALOGUE.named(name).build(in_channels, n_classes, width, dropout)
        return networks.build(name, in_channels, n_classes, dropout, weights=weights, side=side)
