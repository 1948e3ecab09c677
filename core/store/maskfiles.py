"""Masks that a label log names: indexed PNGs beside it, each under the digest of what it shows.

A file is there, whole, before an event names it; equal masks are one file; what is read is checked against its name.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.store.atomic import write_atomically, writing
from core.store.log import Drawn
from data.errors import UserError
from data.masks import VOID, palette

Codes = NDArray[np.uint8]  # [H, W], a class a pixel, or `data.masks.VOID`
DIGEST = 16  # bytes


class MaskFiles:
    """The masks of a run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, codes: Codes) -> Drawn:
        """Keep a mask; one that is there already is not written again. Raises `UserError` where nothing can be written."""
        name = digest(codes)
        path = self.path(name)
        if not path.is_file():
            with writing(self.folder):
                path.parent.parent.mkdir(exist_ok=True)
            write_atomically(path, encoded(codes))
        return Drawn(name, int((codes != VOID).sum()))

    def read(self, name: str, shape: tuple[int, int] | None = None) -> Codes:
        """A mask by its digest. Raises `UserError` for a file that is missing, damaged, or not what its name says.

        shape: height and width that it must have, looked at before anything is decoded.
        """
        path = self.path(name)
        try:
            with Image.open(path, formats=["PNG"]) as image:
                fits = image.mode == "P" and shape in (None, image.size[::-1])
                codes = np.array(image) if fits else np.empty((0, 0), np.uint8)
        except Exception as error:  # Pillow raises whatever a broken file leads to
            raise self._damaged(path) from error
        if digest(codes) != name:
            raise self._damaged(path)
        return codes

    def path(self, name: str) -> Path:
        """Where the mask of this digest lies."""
        return self.folder / name[:2] / f"{name}.png"

    def _damaged(self, path: Path) -> UserError:
        state = "damaged" if path.is_file() else "missing"
        return UserError(
            f"The mask {path.name} of run {self.folder.parent.name} is {state}: restore {self.folder} from a backup, or from a "
            "bundle of the run."
        )


def digest(codes: Codes) -> str:
    """What a mask is called: a digest of its shape and classes, whatever file holds it."""
    return hashlib.blake2b(f"{codes.shape}".encode() + codes.tobytes(), digest_size=DIGEST).hexdigest()


def encoded(codes: Codes) -> bytes:
    """A mask as an indexed PNG, whose palette has the colours of `data.masks.palette`."""
    image = Image.fromarray(codes, mode="P")
    image.putpalette(palette())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
