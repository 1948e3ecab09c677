"""The masks that stand in a run, as files: PNGs in pairs with their images, and COCO annotations.

All are as large as the run sees the images, and come back pixel for pixel: as the data sets `masks` and `coco-masks`, and as
annotations (`core.files.maskimport`). One image is held at a time. Needs no torch.
"""

import csv
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np

from core.files.export import write_by
from core.runs.merged import Merged
from core.runs.run import Run
from core.store.maskfiles import Codes, encoded
from data import ImageDataset
from data.errors import UserError
from data.files import cocomask, preview
from data.files.archive import Writer
from data.files.imagefile import SUFFIXES
from data.masks import VOID

FORMS = ("png", "coco")
TABLE = "classes.csv"
COCO = "annotations.json"
UNUSUAL = re.compile(r'[\\:*?"<>|%\x00-\x1f]')  # what a name in a zip file, or a file of Windows, cannot have


def standing(run: Run, dataset: ImageDataset, up_to_cycle: int | None = None) -> Merged:
    """The masks that stand in a run, up to a cycle or all. Raises `UserError` where its labels are classes."""
    masks = run.standing(dataset, up_to_cycle)
    if not isinstance(masks, Merged):
        raise UserError(
            f"The labels of run {run.id} are classes, not masks: export them as a table (`--table labels`)."
        )
    return masks


def places(sample_ids: Sequence[str]) -> list[str]:
    """Where the mask of each sample lies below `masks`, without .png: its id without `images/` and the suffix, made safe."""
    plain = [_place(sample_id) for sample_id in sample_ids]
    number = Counter(place.casefold() for place in plain)
    return [
        place if number[place.casefold()] == 1 else f"{place}-{blake2b(sample_id.encode(), digest_size=6).hexdigest()}"
        for place, sample_id in zip(plain, sample_ids, strict=True)
    ]


def _place(sample_id: str) -> str:
    path = PurePosixPath(sample_id)
    *folders, name = [part for part in path.parts if part not in ("/", "images")] or [sample_id]
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        name = PurePosixPath(name).stem
    parts = [UNUSUAL.sub(lambda found: quote(found[0], safe=""), part) for part in (*folders, name)]
    return "/".join("%2E%2E" if part == ".." else part for part in parts)


def ending(form: str, images: bool) -> str:
    """The ending of the file that `write` makes."""
    return ".json" if form == "coco" and not images else ".zip"


def to_bytes(dataset: ImageDataset, masks: Merged, form: str, *, images: bool = False, polygons: bool = False) -> bytes:
    """The content of what `write` writes. Raises as that does."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"masks{ending(form, images)}"
        write(file, dataset, masks, form, images=images, polygons=polygons)
        return file.read_bytes()


def write(
    file: Path, dataset: ImageDataset, masks: Merged, form: str, *, images: bool = False, polygons: bool = False
) -> None:
    """Masks in one of `FORMS` as a file, there whole or not at all.

    images: those of the pool too, all of them · polygons: of COCO, an annotation for each connected region, with a polygon where
    the region has no hole, else an RLE; not an RLE for each class of an image. Raises `UserError` for a file whose ending says
    another format, and where it cannot be written.
    """
    wanted = ending(form, images)
    if file.suffix.lower() != wanted:
        raise UserError(
            f"Masks as {form}{' with images' * images} are a file {wanted}, not {file.suffix or 'one without ending'}: name one."
        )
    if polygons and form != "coco":
        raise UserError("Polygons are for masks as coco: leave --polygons out, or choose `--masks coco`.")
    if form == "png":
        write_by(file, lambda path: _write_pairs(path, dataset, masks, images))
    elif images:
        write_by(file, lambda path: _write_coco_folder(path, dataset, masks, polygons))
    else:
        write_by(file, lambda path: _write_coco(path, dataset, masks, polygons))


def _write_pairs(file: Path, dataset: ImageDataset, masks: Merged, images: bool) -> None:
    """Indexed PNGs below `masks`, of images that have a labelled pixel; images below `images`; and the table of classes."""
    with Writer(file, compressed=False) as archive:
        archive.add(TABLE, _table(dataset.class_names))
        for row, place in enumerate(places(dataset.ids)):
            if images:
                archive.add(f"images/{place}.png", _image(dataset, row))
            codes = masks.codes(row)
            if (codes != VOID).any():
                archive.add(f"masks/{place}.png", encoded(codes))


def _write_coco(file: Path, dataset: ImageDataset, masks: Merged, polygons: bool) -> None:
    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(_coco(dataset, masks, dataset.ids, polygons))


def _write_coco_folder(file: Path, dataset: ImageDataset, masks: Merged, polygons: bool) -> None:
    names = [f"{place}.png" for place in places(dataset.ids)]
    with Writer(file, compressed=False) as archive:
        with archive.entry(COCO) as entry:
            for text in _coco(dataset, masks, names, polygons):
                entry.write(text.encode())
        for row, name in enumerate(names):
            archive.add(f"images/{name}", _image(dataset, row))


def _image(dataset: ImageDataset, row: int) -> bytes:
    return preview.png(np.asarray(dataset.images[row]), level=6)


def _table(class_names: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerows([("value", "name"), *enumerate(class_names), (VOID, "void")])
    return buffer.getvalue().encode()


def _coco(dataset: ImageDataset, masks: Merged, names: Sequence[str], polygons: bool) -> Iterator[str]:
    """The text of a COCO file, a piece an image.

    Pixels whose class is unknown have no annotation: categories are marked as stuff (isthing 0), which says so.
    """
    height, width = masks.shape[1:]
    categories = [{"id": k, "name": name, "isthing": 0} for k, name in enumerate(dataset.class_names, start=1)]
    yield f'{{"categories": {json.dumps(categories, ensure_ascii=False)},\n"images": ['
    for row, name in enumerate(names):
        image = {"id": row + 1, "file_name": name, "height": height, "width": width}
        yield ("," if row else "") + "\n" + json.dumps(image, ensure_ascii=False)
    yield '],\n"annotations": ['
    number = 0
    for row in range(len(names)):
        for one in _annotations(masks.codes(row), polygons):
            number += 1
            yield ("," if number > 1 else "") + "\n" + json.dumps({"id": number, "image_id": row + 1, **one})
    yield "]}\n"


def _annotations(codes: Codes, polygons: bool) -> Iterator[dict[str, Any]]:
    for code in np.unique(codes[codes != VOID]).tolist():
        mask = codes == code
        for (rows, columns), region in cocomask.regions(mask) if polygons else [cocomask.bounds(mask)]:
            outline = cocomask.outline(region) if polygons else None
            if outline is None:
                whole = np.zeros_like(mask)
                whole[rows, columns] = region
                segmentation: Any = cocomask.compressed(whole)
            else:
                segmentation = [(np.reshape(outline, (-1, 2)) + np.array([columns.start, rows.start])).ravel().tolist()]
            yield {
                "category_id": code + 1,
                "segmentation": segmentation,
                "area": int(region.sum()),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
            }
