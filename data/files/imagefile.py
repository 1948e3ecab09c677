"""Which files are images, judged by their content, and opening one so that it cannot harm.

A few kilobytes can hold a picture of gigabytes. So one image may have so many pixels and no more, and what is decoded at
the same time, in all threads of the process together, stays within a budget that the headers are measured by.
"""

import io
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO

import pillow_heif
from PIL import Image, UnidentifiedImageError

File = Path | bytes
"""An encoded image: where it lies, or its content, as it was read out of a larger file."""

# What Pillow may open. Naming the formats keeps out the exotic ones, such as EPS, which starts another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
# Names that are taken at their word when files are listed; all others are looked into. What Pillow finds decides in the end.
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Cameras' raw files pass for TIFF, and Pillow would take the thumbnail inside for the picture.
RAW = {".3fr", ".arw", ".cr2", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"}
CLUTTER = {"thumbs.db", "ehthumbs.db", "desktop.ini"}  # what systems put next to images; the rest of it is hidden
PREFIX = 132  # first bytes of a file, by which the format is told: DICOM's mark stands behind 128 bytes of anything

MOST_PIXELS = (1 << 30) // 12  # of one image, Pillow's own limit: 89 million
MOST_SIDE = 1 << 20  # to make a long image small takes memory in proportion to its length
IN_FLIGHT = 512 << 20  # bytes that images take while they are decoded, all threads together
STRIP = 1 << 20  # pixels that are worked on at a time, where a copy of the whole is not needed

# Modes that Pillow keeps in one byte a pixel, and in two; the others take four
ONE_BYTE, TWO_BYTES = {"1", "L", "P"}, {"I;16", "I;16B", "I;16L", "I;16N"}
# Bytes per pixel that a decoder holds besides the picture it makes, as measured
DECODERS = {"AVIF": 8, "HEIF": 8, "JPEG2000": 21, "TIFF": 2, "WEBP": 12}
PROGRESSIVE = 6  # of a JPEG: its coefficients

NO_IMAGE = "not an image that can be read"
NO_PICTURE = "a camera's raw file; export it as JPEG, PNG or TIFF"
TOO_LARGE = f"it has more than {MOST_PIXELS:,} pixels; scale it down"
TOO_LONG = f"it is more than {MOST_SIDE:,} pixels long; cut it into parts"
DICOM = b"DICM"  # what a DICOM file has at its 128th byte
EXIF_KINDS = {b"eXIf", b"iTXt", b"tEXt", b"zTXt"}  # chunks of a PNG that may say how it was turned

pillow_heif.register_heif_opener()
Image.init()  # Pillow loads most of its readers only when told to, once formats are named
# One block for each picture (PILLOW_BLOCK_SIZE): of blocks of 16 MB, the C library keeps those that were freed, thread by thread
Image.core.set_block_size(1 << 30)  # type: ignore[attr-defined]
# `opened` leaves such an image out, and says so
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Budget:
    """So many bytes, `size`, and never more, for all who take some of them at the same time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Hold so many bytes, and wait until they are free; what wants more than there is gets all, and is alone."""
        amount = min(amount, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self.taken + amount <= self.size)
            self.taken += amount
        try:
            yield
        finally:
            with self._changed:
                self.taken -= amount
                self._changed.notify_all()


budget = Budget(IN_FLIGHT)


def left_out(name: PurePath, first: Callable[[], bytes], *, dicom: bool = True) -> str:
    """Why a file is not taken for an image; empty where it may be one.

    first: reads the first `PREFIX` bytes; not called for the usual names, so that large folders are listed quickly · dicom:
    whether DICOM files are images, which they were not in earlier versions.
    """
    suffix = name.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    if suffix in RAW:
        return NO_PICTURE
    try:
        prefix = first()
    except OSError as error:
        return reason(error)
    if dicom and prefix[128:] == DICOM:
        return ""
    accepts = (Image.OPEN[name][1] for name in FORMATS)
    return "" if any(accept is not None and accept(prefix) for accept in accepts) else NO_IMAGE


@contextmanager
def opened(file: File) -> Iterator[Image.Image]:
    """An image of which only the header has been read. Raises what Pillow raises, and ValueError for one too large."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
        check_size(*image.size)
        yield image


def check_size(width: int, height: int) -> None:
    """Raise ValueError for an image that is too large to be decoded."""
    if width * height > MOST_PIXELS:
        raise ValueError(TOO_LARGE)
    if max(width, height) > MOST_SIDE:
        raise ValueError(TOO_LONG)


def reader(file: File) -> IO[bytes]:
    """The content of an encoded image, to read from."""
    return io.BytesIO(file) if isinstance(file, bytes) else file.open("rb")


def cost(image: Image.Image, turned: bool, copied: bool) -> int:
    """Bytes that it takes at most to decode an opened image.

    turned: it is set upright then, copied: brought to another mode; either makes a second picture.
    """
    stored = 1 if image.mode in ONE_BYTE else 2 if image.mode in TWO_BYTES else 4
    decoder = DECODERS.get(image.format or "", PROGRESSIVE if "progressive" in image.info else 0)
    return image.width * image.height * (decoder + stored * (1 + turned) + 4 * copied)


def exif(image: Image.Image, file: File) -> Image.Exif | None:
    """What the camera noted in an opened image; None where only decoding it would tell.

    Of any PNG without notes in its header, Pillow decodes the picture in search of some behind it; few have them there.
    """
    if image.format != "PNG":
        return image.getexif()
    return None if _ends_with_notes(file) else Image.Image.getexif(image)


def _ends_with_notes(image: File) -> bool:
    """Whether a PNG holds notes behind its pixels, or has no proper end, which decoding shows as well."""
    pixels = False
    with reader(image) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return False
            pixels |= kind == b"IDAT"
            if pixels and kind in EXIF_KINDS:
                return True
            file.seek(length + 4, 1)  # its content, and a checksum
    return True


def strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows that together are the image, of about `STRIP` pixels each."""
    rows = max(1, STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def reason(error: Exception) -> str:
    """Why an image cannot be read, for the user, who sees its path next to it."""
    if isinstance(error, UnidentifiedImageError):
        return NO_IMAGE  # this text, and that of the system, would repeat the path
    if isinstance(error, Image.DecompressionBombError):
        return TOO_LARGE
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r" \(\d+ bytes not processed\)", "", str(error))  # a number would make each a reason of its own
    return text or type(error).__name__
