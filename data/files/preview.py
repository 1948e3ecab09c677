"""Images as a browser shows them: the file behind one, made smaller, as PNG, JPEG or a URL that needs no request."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.dataset import ImageDataset
from data.files import decode, imagefile
from data.files.packed import GREY, PLACEHOLDER
from data.lazy import LazyImages

EXACT = 1_000_000  # values of an image, up to which its URL holds every pixel as it is
BROWSERS = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "GIF": ".gif",
    "WEBP": ".webp",
    "BMP": ".bmp",
}  # formats that all of them show
Pixels = NDArray[np.uint8]  # [H, W, C], of one channel or three
Shape = tuple[int, int]  # height, width


def small(images: Any, rows: tuple[int, ...], side: int) -> Pixels:
    """These rows of `images`, uint8 [N, H, W, C], as uint8 [n, h, w, C], none with a side above `side` pixels."""
    height, width = images.shape[1:3]
    factor = min(1.0, side / max(height, width))
    if factor == 1.0:
        return np.asarray(images[list(rows)])
    size = max(1, round(factor * width)), max(1, round(factor * height))
    return np.stack(
        [_pixels(_picture(images[row]).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)) for row in rows]
    )


def shaped(image: Pixels, ratio: float, side: int) -> Pixels:
    """An image stretched to width / height = `ratio`, its longer side `side` pixels."""
    size = max(1, round(side * min(1.0, ratio))), max(1, round(side * min(1.0, 1 / ratio)))
    return _pixels(_picture(image).resize(size))


def sheet(images: Pixels, across: int) -> Pixels:
    """Images uint8 [n, h, w, C] as one, so many side by side, [lines · h, columns · w, C]; black where none is left."""
    n, height, width, channels = images.shape
    columns = min(across, n)
    lines = -(-n // columns)
    made = np.zeros((lines * columns, height, width, channels), dtype=np.uint8)
    made[:n] = images
    made = made.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    return made.reshape(lines * height, columns * width, channels)


def png(image: Pixels, side: int | None = None, *, level: int = 1) -> bytes:
    """An image as PNG, enlarged to at least `side` pixels without smoothing. level: of compression, 1 fast to 9 small."""
    picture = _picture(image)
    if side is not None and max(picture.size) < side:
        factor = side // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return _encoded(picture, "PNG", compress_level=level)


def url(image: Pixels) -> str:
    """An image as a URL that needs no request: exact where it is small, else a photograph."""
    if image.size < EXACT:
        return data_url(png(image))
    return data_url(_encoded(_picture(image), "JPEG", quality=90, subsampling=0), "jpeg")


def data_url(content: bytes, kind: str = "png") -> str:
    """An encoded image as a URL that needs no request. kind: what follows "image/" in its media type."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def file_shape(dataset: ImageDataset, row: int, root: str | Path | None) -> Shape | None:
    """Height and width in pixels of the file of an image, as it is shown; None where the data set has no such file.

    root: of the data set, as `data.load` took it. Reads the file's header.
    """
    if isinstance(dataset.images, LazyImages):
        return dataset.images.file_shape(row)
    found = _path(dataset, row, root)
    head = "" if found is None else decode.head(found)
    return None if isinstance(head, str) else head[:2]


def file_pixels(dataset: ImageDataset, row: int, root: str | Path | None, most: int) -> Pixels | None:
    """The file of an image as uint8 [H, W, 3], not stretched, no side above `most` pixels; None as `file_shape`."""
    if isinstance(dataset.images, LazyImages):
        return dataset.images.whole(row, most)
    found = _path(dataset, row, root)
    pixels = "" if found is None else decode.whole(found, decode.depth(Path(root or "").expanduser().resolve()), most)
    return None if isinstance(pixels, str) else pixels


def shown(dataset: ImageDataset, row: int, root: str | Path | None, most: int) -> Pixels:
    """An image as its file has it, else as the pool has it, uint8 [H, W, C], no side above `most` pixels."""
    found = file_pixels(dataset, row, root, most)
    return small(dataset.images, (row,), most)[0] if found is None else found


def test_image(dataset: ImageDataset, row: int, most: int) -> Pixels:
    """A test image as `shown` has one of the pool; an even grey where a bundle has left the test images out."""
    images = dataset.test_images
    if row >= len(images):
        return np.full((PLACEHOLDER, PLACEHOLDER, 1), GREY, dtype=np.uint8)
    found = images.whole(row, most) if isinstance(images, LazyImages) else None
    return small(images, (row,), most)[0] if found is None else found


def cells(dataset: ImageDataset, rows: Sequence[int], root: str | Path | None, side: int) -> Pixels:
    """Images for a sheet, uint8 [n, h, w, C], no side above `side`: from their files, all stretched to one shape, else as the
    pool has them.
    """
    with ThreadPoolExecutor() as threads:
        files = list(threads.map(lambda row: file_pixels(dataset, row, root, side), rows))
    if all(one is None for one in files):
        return small(dataset.images, tuple(rows), side)
    whole = [
        small(dataset.images, (row,), side)[0] if one is None else one for row, one in zip(rows, files, strict=True)
    ]
    height, width = (max(one.shape[axis] for one in whole) for axis in (0, 1))
    return np.stack([_pixels(_picture(one).convert("RGB").resize((width, height))) for one in whole])


@dataclass(frozen=True)
class Original:
    """The file of an image. suffix: that of its format, whatever its name."""

    suffix: str
    file: imagefile.File

    def read(self) -> bytes:
        """Its content."""
        with imagefile.reader(self.file) as opened:
            return opened.read()


def original(dataset: ImageDataset, row: int, root: str | Path | None) -> Original | None:
    """The file of an image, where a browser shows it as it is meant to be.

    That leaves out formats that browsers do not know, and 16-bit images, of which they show the darkest part.
    """
    found = dataset.images.original(row) if isinstance(dataset.images, LazyImages) else _path(dataset, row, root)
    if found is None:
        return None
    try:
        with imagefile.opened(found) as image:
            suffix = "" if image.mode in decode.DEEP else BROWSERS.get(image.format or "", "")
    except (OSError, ValueError):  # DICOM, or none at all
        return None
    return Original(suffix, found) if suffix else None


def _path(dataset: ImageDataset, row: int, root: str | Path | None) -> Path | None:
    """Where the file lies, of a folder; None where it has gone, or left the folder through a link."""
    if dataset.name != "folder" or root is None:
        return None
    top = Path(root).expanduser().resolve()
    try:
        path = Path(os.path.realpath(top / dataset.ids[row]))
        return path if path.is_relative_to(top) and path.is_file() else None
    except (OSError, ValueError):  # a name that the system does not take
        return None


def _picture(image: Pixels) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, -1)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
