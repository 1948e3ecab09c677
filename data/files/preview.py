"""Images as a browser shows them: the file behind one, made smaller, as PNG, JPEG or a URL that needs no request."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.files import decode

EXACT = 1_000_000  # values of an image, up to which its URL holds every pixel as it is
Pixels = NDArray[np.uint8]  # [H, W, C], of one channel or three


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


def file_shape(name: str, root: str | Path | None, sample_id: str) -> tuple[int, int] | None:
    """Height and width in pixels of the file of an image, as it is shown; None where the data set has no such file.

    name, root: as `data.load` takes them; only "folder" keeps a file an image. Reads the file's header.
    """
    found = _path(name, root, sample_id)
    if found is None:
        return None
    head = decode.head(found)
    return None if isinstance(head, str) else head[:2]


def file_pixels(name: str, root: str | Path | None, sample_id: str, most: int) -> Pixels | None:
    """The file of an image as uint8 [H, W, 3], not stretched, its longer side at most `most` pixels; None as `file_shape`."""
    found, size = _path(name, root, sample_id), file_shape(name, root, sample_id)
    if found is None or size is None:
        return None
    factor = min(1.0, most / max(size))
    height, width = (max(1, round(factor * side)) for side in size)
    pixels = decode.decode(found, height, width, False, decode.depth(Path(root or "").expanduser().resolve()))
    return None if isinstance(pixels, str) else pixels


def _path(name: str, root: str | Path | None, sample_id: str) -> Path | None:
    """Where the file lies; None where it has gone, or left the folder through a link."""
    if name != "folder" or root is None:
        return None
    top = Path(root).expanduser().resolve()
    try:
        path = Path(os.path.realpath(top / sample_id))
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
