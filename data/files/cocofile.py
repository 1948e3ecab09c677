"""Files in COCO's format: what they list, and the masks that their annotations draw."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.errors import UserError
from data.files import cocomask, imagefile
from data.files.classtable import VOID_NAMES
from data.files.cocomask import Shape
from data.masks import VOID

LARGEST = 2 << 30  # bytes of a JSON file, which is read in whole
KEYS = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}
BACKGROUND = "background"
CROWD = "draws a crowd (iscrowd 1) with polygons; a crowd is an RLE, and any other object has iscrowd 0"


def read(file: Path) -> dict[str, Any]:
    """The content of a file: lists of images, annotations and categories, with the keys that they must have.

    Raises UserError for what is no such file.
    """
    wrong = f"{file.name} is no file of COCO annotations"
    try:
        if file.stat().st_size > LARGEST:
            raise UserError(f"{file.name} is larger than {LARGEST >> 30} GB; split it")
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file.name} cannot be read as JSON ({error}); export it again") from error
    for name, keys in KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{wrong}: it has no list of {name}; export it again")
        for one in entries:
            if not isinstance(one, dict) or any(not isinstance(one.get(key), int | str) for key in keys):
                raise UserError(f"{wrong}: one of its {name} lacks {' or '.join(keys)}; export it again")
    return dict(content)


def categories(content: Mapping[str, Any]) -> dict[int | str, str]:
    """The names of the categories by their ids, in the order of these."""
    ordered = sorted(content["categories"], key=lambda one: str(one["id"]).zfill(20))
    return {one["id"]: str(one["name"]) for one in ordered}


def has_stuff(content: Mapping[str, Any]) -> bool:
    """Whether a category is marked as stuff (isthing 0), as in panoptic files: every pixel is annotated then, or unknown."""
    return any(one.get("isthing") == 0 for one in content["categories"])


@dataclass(frozen=True, eq=False)
class Drawing:
    """The mask of an image that is not drawn yet. layers: classes and shapes, from below · base: what is under them all."""

    height: int
    width: int
    base: int
    layers: Sequence[tuple[int, Shape]]

    def codes(self) -> NDArray[np.uint8]:
        """The mask, a class a pixel, [H, W]."""
        columns = np.full((self.width, self.height), self.base, np.uint8)  # as RLE goes, which is twice as fast
        for code, shape in self.layers:
            columns[cocomask.drawn(shape, self.height, self.width).T] = code
        return np.ascontiguousarray(columns.T)

    @cached_property
    def stamp(self) -> tuple[int, int]:
        """Bytes of the shapes, and a number that follows from all there is."""
        digest, n = hashlib.blake2b(repr((self.height, self.width, self.base)).encode(), digest_size=8), 0
        for code, shape in self.layers:
            for part in [shape] if isinstance(shape, bytes) else [one.tobytes() for one in shape]:
                digest.update(f"{code} {len(part)} ".encode() + part)
                n += len(part)
        return n, int.from_bytes(digest.digest(), "big", signed=True)


@dataclass(frozen=True, eq=False)
class Drawings:
    """Masks as `data.files.encoded.Encoded` has them: each is drawn when its file is asked for, a grey PNG of classes."""

    names: Sequence[str]
    drawings: Sequence[Drawing]

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.drawings[row].codes()).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def name(self, row: int) -> str:
        return self.names[row]

    def stamps(self) -> NDArray[np.int64]:
        return np.array([one.stamp for one in self.drawings], np.int64).reshape(-1, 2)

    def take(self, rows: NDArray[np.int64]) -> "Drawings":
        return Drawings([self.names[row] for row in rows], [self.drawings[row] for row in rows])


def drawings(
    content: Mapping[str, Any], name: str, codes: Mapping[str, int], base: int
) -> Iterator[tuple[str, Drawing | str | None]]:
    """The images of a file, by `file_name`, and the masks that their annotations draw, those that come later on top.

    Each is a `Drawing`, why it cannot be taken, or None for an image without annotations. A crowd (iscrowd 1) leaves the pixels
    below it unknown.

    name: of the file, for messages · codes: classes by the names of categories · base: the class of pixels without annotation.
    Raises UserError for an annotation of an image or a category that is not listed, or of no class.
    """
    names = categories(content)
    listed = {one["id"] for one in content["images"]}
    of_image: dict[int | str, list[dict[str, Any]]] = {}
    for one in content["annotations"]:
        for what, key, known in (("a category", "category_id", names), ("an image", "image_id", listed)):
            if one[key] not in known:
                raise UserError(
                    f"{name} has an annotation of {what} {one[key]!r} that it does not list; export it again"
                )
        of_image.setdefault(one["image_id"], []).append(one)
    used = {one["category_id"] for one in content["annotations"]}
    code_of = {id: VOID if names[id].lower() in VOID_NAMES else codes.get(names[id], -1) for id in used}
    for id, code in code_of.items():
        if code < 0:
            raise UserError(
                f"{name} has annotations of the category {names[id]!r}, and the classes are {', '.join(codes)}; rename it, or "
                "leave it out"
            )
    for image in content["images"]:
        yield str(image["file_name"]), _drawing(image, of_image.get(image["id"], []), code_of, base)


def _drawing(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], code_of: Mapping[int | str, int], base: int
) -> Drawing | str | None:
    if not annotations:
        return None
    height, width = image.get("height"), image.get("width")
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width)):
        return "its entry has no height and width; export the file again"
    assert isinstance(height, int)
    assert isinstance(width, int)
    if height * width > imagefile.MOST_PIXELS:
        return imagefile.TOO_LARGE
    layers = []
    for one in annotations:
        crowd, segmentation = one.get("iscrowd") == 1, one.get("segmentation")
        try:
            if crowd and isinstance(segmentation, list) and segmentation:
                raise ValueError(CROWD)
            shape = cocomask.read(segmentation, height, width)
        except ValueError as error:
            return f"its annotation {one.get('id', '')!r} {error}"
        layers.append((VOID if crowd else code_of[one["category_id"]], shape))
    return Drawing(height, width, base, layers)
