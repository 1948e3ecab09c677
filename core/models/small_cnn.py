"""Small CNN: three convolution blocks, seconds a training on a CPU."""

from typing import TYPE_CHECKING

from core.models import Architecture

if TYPE_CHECKING:
    from core.models.architectures import Classifier


def build(channels: int, n_classes: int, width: int, dropout: float) -> "Classifier":
    """A fresh `core.models.architectures.SmallCNN`."""
    from core.models.architectures import SmallCNN

    return SmallCNN(channels, n_classes, width, dropout)


MODEL = Architecture(
    name="small-cnn",
    title="Small CNN: three convolution blocks, seconds a training on a CPU",
    build=build,
    options=("width",),
    place=0,
)
