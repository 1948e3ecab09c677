"""The pixels of one image as the pool holds them: upright, 8 bits, grey or RGB, white behind what is transparent.

The one place where files become pixels: orientation (EXIF), depth (16 bits, DICOM windows), CMYK, palettes and alpha are
settled here, for training, previews and exports alike.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data.files import dicom, imagefile
from data.files.imagefile import File, reason
from data.lazy import Fit

DEEP = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # modes of 16 bits a pixel
GREY = {"1", "L", "LA", "La", "F", dicom.GREY} | DEEP
CLEAR = {"RGBA", "RGBa", "LA", "La", "PA"}  # modes with an alpha channel
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners put into 16
TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
GAP = 2  # times the size that is wanted: what a JPEG is at least decoded at, where a coarser one is enough

depths: dict[Path, int] = {}  # of the folders read in this process, for who decodes one image of them


def depth(root: Path) -> int:
    """Bits that the 16-bit images of a resolved folder use, as it was last read in this process; 16 where it was not."""
    return depths.get(root, 16)


def head(file: File) -> tuple[int, int, str, bool] | str:
    """Height and width as shown, the mode, and whether there are transparent parts; or why the image cannot be read.

    Reads the header only, if that tells.
    """
    try:
        try:
            with imagefile.opened(file) as image:
                width, height = image.size
                notes = imagefile.exif(image, file)
                if notes is None:
                    with imagefile.budget.take(imagefile.cost(image, False, False)):
                        notes = image.getexif()
                if notes.get(ORIENTATION) in TURNED:
                    width, height = height, width
                return height, width, image.mode, _is_clear(image)
        except UnidentifiedImageError:
            if not dicom.is_dicom(file):
                raise
            return *dicom.head(file), False
    except Exception as error:  # Pillow raises many kinds for broken files; one bad image must not stop the rest
        return reason(error)


def _is_clear(image: Image.Image) -> bool:
    return image.mode in CLEAR or "transparency" in image.info


def brightest(file: File) -> int:
    """The largest value of a 16-bit image; 0 where it cannot be read, or holds more."""
    try:
        with imagefile.opened(file) as image, imagefile.budget.take(imagefile.cost(image, False, False)):
            most = max(int(np.asarray(image.crop(box)).max()) for box in imagefile.strips(image))
            return most if most <= 65535 else 0
    except Exception:  # said when it is decoded
        return 0


def bits(brightest: int) -> int:
    """The bits that 16-bit images use, of which the brightest pixel has this value."""
    return next(bits for bits in DEPTHS if brightest < 1 << bits)


def read(file: File, height: int, width: int, grey: bool, depth: int) -> tuple[np.ndarray, np.ndarray] | str:
    """The pixels uint8 [height,width,1 or 3], and uint8 [16], a digest of the image before it is brought to this size."""
    try:
        with _upright(file, grey, depth) as upright:
            return _sized(upright, height, width, "resize"), np.frombuffer(_digest(upright), np.uint8)
    except Exception as error:  # as in head
        return reason(error)


def digest(file: File, depth: int) -> bytes | str:
    """16 bytes that follow from all pixels of an image, alike in whatever format they come; or why it cannot be read."""
    try:
        with _upright(file, False, depth) as upright:
            return _digest(upright)
    except Exception as error:  # as in head
        return reason(error)


def _digest(image: Image.Image) -> bytes:
    found = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    for box in imagefile.strips(image):
        found.update(image.crop(box).tobytes())
    return found.digest()


def decode(
    file: File,
    height: int,
    width: int,
    grey: bool,
    depth: int = 16,
    fit: Fit = "resize",
    *,
    quick: bool = False,
) -> np.ndarray | str:
    """The pixels uint8 [height,width,1 or 3], or why the image cannot be read.

    depth: bits that 16-bit images use · quick: decode a JPEG that is much larger at a half, a quarter or an eighth of its size,
    which the scaling from there hides.
    """
    try:
        with _upright(file, grey, depth, (height, width) if quick else None) as upright:
            return _sized(upright, height, width, fit)
    except Exception as error:  # as in head
        return reason(error)


def whole(file: File, depth: int = 16, most: int | None = None) -> np.ndarray | str:
    """An image in its own shape, uint8 [H,W,3], no side above `most` pixels; or why it cannot be read."""
    shape = head(file)
    if isinstance(shape, str):
        return shape
    factor = 1.0 if most is None else min(1.0, most / max(shape[:2]))
    height, width = (max(1, round(factor * side)) for side in shape[:2])
    return decode(file, height, width, False, depth, quick=True)


def _sized(image: Image.Image, height: int, width: int, fit: Fit) -> np.ndarray:
    return np.asarray(fitted(image, height, width, fit)).reshape(height, width, -1)


def fitted(
    image: Image.Image,
    height: int,
    width: int,
    fit: Fit,
    method: Image.Resampling = Image.Resampling.BILINEAR,
    colour: int | None = None,
) -> Image.Image:
    """A picture at this size; an image and its mask, of one size, become so pixel for pixel.

    colour: of what "pad" puts around it, by default black.
    """
    if image.size == (width, height):
        return image
    if fit == "crop":
        return ImageOps.fit(image, (width, height), method)
    if fit == "pad":
        return ImageOps.pad(image, (width, height), method, colour)
    return image.resize((width, height), method)


@contextmanager
def _upright(file: File, grey: bool, depth: int, enough: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """The picture as it is meant to be seen, in its own size, L or RGB; holds its share of the budget meanwhile.

    enough: height and width that are wanted of it; a JPEG may then be decoded smaller, though not below `GAP` times that.
    """
    mode = "L" if grey else "RGB"
    with ExitStack() as stack:
        try:
            image = stack.enter_context(imagefile.opened(file))
        except UnidentifiedImageError:
            if not dicom.is_dicom(file):
                raise
            yield dicom.picture(file).convert(mode)
            return
        if image.mode == "F":
            raise ValueError("it holds floating-point pixels, whose range is unknown")
        notes = imagefile.exif(image, file)
        orientation = None if notes is None else notes.get(ORIENTATION, 1)
        if enough is not None and image.format == "JPEG":
            height, width = enough[::-1] if orientation in TURNED else enough
            image.draft(None, (GAP * width, GAP * height))
        stack.enter_context(
            imagefile.budget.take(imagefile.cost(image, orientation != 1, image.mode != mode or _is_clear(image)))
        )
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
