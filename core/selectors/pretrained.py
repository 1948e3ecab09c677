"""ImageNet features: a torchvision network that has seen a million other images, and a head on its embedding."""

from typing import TYPE_CHECKING

from core.described import ORANGE
from core.models import BACKBONES, RANDOM
from core.selectors import Selector, Shape, vanilla
from data.dataset import Pixels
from data.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from core.models.architectures import Pretrained


def build(shape: Shape) -> "Pretrained":
    """The network with its ImageNet weights and a fresh head.

    Raises `UserError` for a network that is not among `BACKBONES`, and for weights that cannot be had or do not fit.
    """
    import torch

    from core.models import networks
    from core.models.architectures import Pretrained

    name, known = shape.backbone, ", ".join(BACKBONES)
    if name not in BACKBONES:
        raise UserError(f'There is no backbone "{name}": choose one of {known}.')
    if shape.weights == RANDOM:
        raise UserError(
            f"The selector pretrained needs ImageNet weights: leave --weights {RANDOM} out, or give a file."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        network, size = networks.torchvision_network(name, shape.weights, f"name another --backbone ({known})")
        return Pretrained(network, size, shape.n_classes, shape.dropout)


def statistics(images: Pixels) -> "tuple[Tensor, Tensor]":
    """ImageNet's mean and standard deviation [C, 1, 1], for grey images their mean over the colours."""
    from core.models import networks

    return networks.imagenet_statistics(images)


SELECTOR = Selector(
    name="pretrained",
    title="ImageNet embedding, linear head",
    options=("backbone", "weights", "head"),
    build=build,
    fit=vanilla.fit,
    prepared=True,
    statistics=statistics,
    colour=ORANGE,
    dash="dash",
    place=4,
)
