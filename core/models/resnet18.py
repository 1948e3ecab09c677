"""ResNet-18 with the CIFAR stem; width 64 is the paper's."""

from typing import TYPE_CHECKING

from core.models import Architecture

if TYPE_CHECKING:
    from core.models.architectures import Classifier


def build(channels: int, n_classes: int, width: int, dropout: float) -> "Classifier":
    """A fresh `core.models.architectures.ResNet18`."""
    from core.models.architectures import ResNet18

    return ResNet18(channels, n_classes, width, dropout)


MODEL = Architecture(
    name="resnet18",
    title="ResNet-18 with the CIFAR stem; width 64 is the paper's",
    reference="He et al. 2016",
    build=build,
    options=("width",),
    place=1,
)
