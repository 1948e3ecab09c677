"""The classes of one mask file: a PNG whose values, or colours, each name a class.

Values are those of a grey or indexed PNG, whatever its palette shows; colours those of an RGB or indexed one. A mask lies as its
image is shown: where either was turned by the camera (EXIF), it is set upright by its own notes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data.files import decode, imagefile
from data.files.imagefile import File
from data.lazy import Fit
from data.masks import VOID

Codes = NDArray[np.uint8]  # [H, W], a class a pixel, or VOID
Key = int | tuple[int, int, int]
"""What stands for a class in a file: a value, or a colour."""
VALUES, COLOURS = ("L", "P", "1"), ("RGB", "P", "L")  # modes of masks by value, and by colour
MODES = {"LA": "has transparent parts", "PA": "has transparent parts", "RGBA": "has transparent parts"} | dict.fromkeys(
    decode.DEEP, "has 16 bits a pixel"
)


@dataclass(frozen=True)
class Legend:
    """What the pixels of masks mean.

    classes: value 0 … 255, or colour (r, g, b) → class, `VOID` for unknown; all of them values or all colours · n_classes: K ·
    source: what says so, for messages · assumed: whether nobody said that the value 255 is unknown, as it usually is · resize:
    what to do about a mask of another size than its image, colours: about one in colours that mean nothing; for messages.
    """

    classes: Mapping[Key, int]
    n_classes: int
    source: str
    assumed: bool = False
    resize: str = field(default="save the mask at that size", repr=False)
    colours: str = field(default="add the columns r, g, b there", repr=False)

    @cached_property
    def by_colour(self) -> bool:
        """Whether colours name the classes."""
        return isinstance(next(iter(self.classes)), tuple)

    @cached_property
    def _by_value(self) -> NDArray[np.int16]:
        """The class of each value, -1 where it has none, [256]."""
        found = np.full(256, -1, np.int16)
        for key, code in self.classes.items():
            found[key] = code
        return found

    @cached_property
    def _colours(self) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
        """Colours as one number each, in ascending order, and their classes."""
        keys = [key[0] << 16 | key[1] << 8 | key[2] for key in self.classes if isinstance(key, tuple)]
        order = np.argsort(keys)
        return np.array(keys, np.int32)[order], np.array(list(self.classes.values()), np.int16)[order]

    def codes(self, pixels: NDArray[np.uint8]) -> Codes:
        """The class of every pixel, from values [H, W] or colours [H, W, 3]. Raises ValueError for one that names none."""
        if self.by_colour:
            keys, classes = self._colours
            given = pixels.astype(np.int32)
            given = given[..., 0] << 16 | given[..., 1] << 8 | given[..., 2]
            place = np.minimum(np.searchsorted(keys, given), len(keys) - 1)
            found = np.where(keys[place] == given, classes[place], -1)
        else:
            found = self._by_value[pixels]
        unknown = found < 0
        if unknown.any():
            first = pixels[unknown][0]
            shown = f"the colour {tuple(first.tolist())}" if self.by_colour else f"the value {first}"
            raise ValueError(
                f"its mask holds {shown}, which {self.source} does not name; add it there, or correct the mask"
            )
        return found.astype(np.uint8)


def head(file: File, legend: Legend, shape: tuple[int, int]) -> str:
    """Why a mask cannot be taken, as far as its header tells; empty where it can. shape: height and width of its image."""
    try:
        with imagefile.opened(file) as image:
            _check(image, legend)
            notes = imagefile.exif(image, file)
            if notes is not None:
                turned = notes.get(decode.ORIENTATION) in decode.TURNED
                _check_shape(image.size if turned else image.size[::-1], shape, legend)
    except Exception as error:  # as in decode.head
        return reason(error)
    return ""


def read(file: File, legend: Legend, shape: tuple[int, int]) -> Codes | str:
    """The classes of a mask, [H, W], or why it cannot be taken. shape: height and width of its image, which must be its own."""
    try:
        with imagefile.opened(file) as image:
            _check(image, legend)
            image.info.pop("transparency", None)  # of an indexed mask, whose indices count
            with imagefile.budget.take(imagefile.cost(image, True, legend.by_colour)):
                ImageOps.exif_transpose(image, in_place=True)
                _check_shape((image.height, image.width), shape, legend)
                found = np.empty(shape, np.uint8)
                for left, top, right, bottom in imagefile.strips(image):
                    part = image.crop((left, top, right, bottom))
                    pixels = np.asarray(part.convert("RGB") if legend.by_colour else part)
                    found[top:bottom] = legend.codes(pixels.astype(np.uint8))  # black and white are true and false
        return found
    except Exception as error:  # as in decode.head
        return reason(error)


def sized(codes: Codes, height: int, width: int, fit: Fit) -> Codes:
    """A mask at this size, as its image is brought to it: the nearest pixel's class, `VOID` around."""
    picture = decode.fitted(Image.fromarray(codes), height, width, fit, Image.Resampling.NEAREST, VOID)
    return np.asarray(picture)


def _check(image: Image.Image, legend: Legend) -> None:
    if image.format != "PNG":
        raise ValueError(f"its mask is {image.format}, whose pixels may not be what was drawn; save it as PNG")
    if image.mode in (COLOURS if legend.by_colour else VALUES):
        return
    if image.mode == "RGB":
        raise ValueError(f"its mask is in colours, and {legend.source} names none; {legend.colours}")
    what = MODES.get(image.mode, f"is of the mode {image.mode}")
    raise ValueError(f"its mask {what}; save it as PNG with 8 bits a pixel, indexed, grey or RGB")


def _check_shape(mask: tuple[int, int], image: tuple[int, int], legend: Legend) -> None:
    if mask != image:
        raise ValueError(
            f"its mask has {mask[1]} × {mask[0]} pixels, and the image, as it is shown, {image[1]} × {image[0]}; {legend.resize}"
        )


def reason(error: Exception) -> str:
    """Why a mask cannot be taken, for the user, who sees the path of its image next to it."""
    said = imagefile.reason(error)
    return said if said.startswith("its mask") else f"its mask: {said}"
