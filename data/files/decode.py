"""The pixels of one image file as the pool holds them: upright, 8 bits, grey or RGB, white behind what is transparent."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.files import imagefile
from data.files.imagefile import reason

DEEP = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # modes of 16 bits a pixel
GREY = {"1", "L", "LA", "La", "F"} | DEEP
CLEAR = {"RGBA", "RGBa", "LA", "La", "PA"}  # modes with an alpha channel
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners put into 16
TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width
ORIENTATION = 0x0112

depths: dict[Path, int] = {}  # of the folders read in this process, for who decodes one image of them


def depth(root: Path) -> int:
    """Bits that the 16-bit images of a resolved folder use, as it was last read in this process; 16 where it was not."""
    return depths.get(root, 16)


def head(path: Path) -> tuple[int, int, str, bool] | str:
    """Height and width as shown, the mode, and whether there are transparent parts; or why the image cannot be read.

    Reads the header only, if that tells.
    """
    try:
        with imagefile.opened(path) as image:
            width, height = image.size
            notes = imagefile.exif(image, path)
            if notes is None:
                with imagefile.budget.take(imagefile.cost(image, False, False)):
                    notes = image.getexif()
            if notes.get(ORIENTATION) in TURNED:
                width, height = height, width
            return height, width, image.mode, _is_clear(image)
    except Exception as error:  # Pillow raises many kinds for broken files; one bad image must not stop the rest
        return reason(error)


def _is_clear(image: Image.Image) -> bool:
    return image.mode in CLEAR or "transparency" in image.info


def brightest(path: Path) -> int:
    """The largest value of a 16-bit image; 0 where it cannot be read, or holds more."""
    try:
        with imagefile.opened(path) as image, imagefile.budget.take(imagefile.cost(image, False, False)):
            most = max(int(np.asarray(image.crop(box)).max()) for box in imagefile.strips(image))
            return most if most <= 65535 else 0
    except Exception:  # said when it is decoded
        return 0


def bits(brightest: int) -> int:
    """The bits that 16-bit images use, of which the brightest pixel has this value."""
    return next(bits for bits in DEPTHS if brightest < 1 << bits)


def read(path: Path, height: int, width: int, grey: bool, depth: int) -> tuple[np.ndarray, np.ndarray] | str:
    """The pixels uint8 [height,width,1 or 3], and uint8 [16], a digest of the image before it is brought to this size."""
    try:
        with _upright(path, grey, depth) as upright:
            digest = hashlib.blake2b(repr(upright.size).encode(), digest_size=16)
            for box in imagefile.strips(upright):
                digest.update(upright.crop(box).tobytes())
            return _sized(upright, height, width), np.frombuffer(digest.digest(), np.uint8)
    except Exception as error:  # as in head
        return reason(error)


def decode(path: Path, height: int, width: int, grey: bool, depth: int = 16) -> np.ndarray | str:
    """The pixels uint8 [height,width,1 or 3], or why the image cannot be read; depth: bits that 16-bit images use."""
    try:
        with _upright(path, grey, depth) as upright:
            return _sized(upright, height, width)
    except Exception as error:  # as in head
        return reason(error)


def _sized(image: Image.Image, height: int, width: int) -> np.ndarray:
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, -1)


@contextmanager
def _upright(path: Path, grey: bool, depth: int) -> Iterator[Image.Image]:
    """The picture as it is meant to be seen, in its own size, L or RGB; holds its share of the budget meanwhile."""
    with imagefile.opened(path) as image:
        if image.mode == "F":
            raise ValueError("it holds floating-point pixels, whose range is unknown")
        mode = "L" if grey else "RGB"
        notes = imagefile.exif(image, path)
        turned = notes is None or notes.get(ORIENTATION, 1) != 1
        with imagefile.budget.take(imagefile.cost(image, turned, image.mode != mode or _is_clear(image))):
            ImageOps.exif_transpose(image, in_place=True)
            upright = _eight_bits(image, depth)
            if _is_clear(upright):
                upright = _on_white(upright)
            yield upright if upright.mode == mode else upright.convert(mode)


def _eight_bits(image: Image.Image, depth: int) -> Image.Image:
    """The same picture with 8 bits a channel; of 16, the range that `depth` bits hold is spread, so that white stays white."""
    if image.mode not in DEEP:
        return image
    white = (1 << depth) - 1
    values = np.arange(1 << 16)
    shown = np.round(np.minimum(values, white) * (255 / white)).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):  # the grey that stands for nothing
        shown[clear] = 255
    made = Image.new("L", image.size)
    for box in imagefile.strips(image):
        pixels = np.asarray(image.crop(box))
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("it holds more than 16 bits a pixel")
        made.paste(Image.fromarray(shown[pixels]), box)
    return made


def _on_white(image: Image.Image) -> Image.Image:
    """The same picture, RGB, with white behind what is transparent."""
    made = Image.new("RGB", image.size)
    for box in imagefile.strips(image):
        part = image.crop(box).convert("RGBA")
        made.paste(Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB"), box)
    return made
