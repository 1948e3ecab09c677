"""Small U-Net: four scales, masks of small images on a CPU."""

from typing import TYPE_CHECKING

from core.models import Architecture

if TYPE_CHECKING:
    from core.models.segmenters import Segmenter


def build(channels: int, n_classes: int, width: int, dropout: float) -> "Segmenter":
    """A fresh `core.models.segmenters.SmallUNet`."""
    from core.models.segmenters import SmallUNet

    return SmallUNet(channels, n_classes, width, dropout)


MODEL = Architecture(
    name="small-unet",
    title="Small U-Net: four scales, minutes a training on a CPU",
    reference="Ronneberger et al. 2015",
    build=build,
    answer="mask",
    options=("width",),
    place=2,
)
