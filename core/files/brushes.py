"""Masks as Label Studio has them: a labelling configuration, brushes of tasks, and what comes back, brushes and polygons.

Masks, and the images that go with them, are as large as the run sees the images.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from core.files import label_studio
from core.files.maskimport import at_size, check_size
from core.store.maskfiles import Codes
from data import ImageDataset
from data.errors import UserError
from data.files import brush, cocomask
from data.masks import VOID, colours

DRAWN = {"rle": "brushlabels", "points": "polygonlabels"}  # what a result's value has, and where its class stands then


def config(class_names: Sequence[str]) -> str:
    """The labelling configuration of a project for masks of these classes; the first nine have the digits as keys."""
    labels = [
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"'
        for name, colour in zip(class_names, colours(len(class_names)), strict=True)
    ]
    brushes = [
        f'{label} hotkey="{place}"/>' if place <= 9 else f"{label}/>" for place, label in enumerate(labels, start=1)
    ]
    polygons = [f"{label}/>" for label in labels]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>',
            '  <BrushLabels name="label" toName="image">',
            *brushes,
            "  </BrushLabels>",
            '  <PolygonLabels name="polygon" toName="image">',
            *polygons,
            "  </PolygonLabels>",
            "</View>",
            "",
        ]
    )


def results(codes: Codes, class_names: Sequence[str], annotator: str | None = None) -> list[dict[str, Any]]:
    """A mask as results, a brush for each of its classes. annotator: who drew it, which comes back with it."""
    height, width = codes.shape
    by = {} if annotator is None else {"meta": {label_studio.ANNOTATOR: annotator}}
    return [
        {
            "id": f"class-{code}",
            "from_name": "label",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush.encoded(codes == code), "brushlabels": [class_names[code]]},
            **by,
        }
        for code in np.unique(codes[codes != VOID]).tolist()
    ]


def read(path: Path, dataset: ImageDataset, run: str) -> tuple[Iterator[tuple[int, str, Codes]], dict[str, int]]:
    """The masks in a Label Studio export (JSON or JSON-MIN) of a run's tasks: rows of the pool, annotators, and masks as they are
    read; and how many annotations were left out for which reason.

    Later brushes and polygons lie on top of earlier ones; pixels without any are unknown. Raises `UserError` as
    `core.files.label_studio.read_label_studio`, and for what cannot be drawn.
    """
    given, skipped = label_studio.latest(path, dataset.ids, run, _parts, "nothing drawn")

    def masks() -> Iterator[tuple[int, str, Codes]]:
        for row, who, parts in given:
            where = f"{path.name}, sample {dataset.ids[row]!r}"
            found = np.full(dataset.images.shape[1:3], VOID, np.uint8)
            for part in parts:
                mask, name = _drawn(part, dataset, row, where)
                found[mask] = _code(name, dataset.class_names, where)
            yield row, who, found

    return masks(), skipped


def _parts(annotation: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The brushes and polygons of an annotation, each with its value and the size of its image."""
    try:
        if "result" in annotation:
            parts = list(annotation["result"] or [])
        else:  # JSON-MIN: values alone, by the name of their control
            flat = [one for key in ("label", "polygon") for one in annotation.get(key) or []]
            parts = [{**one, "value": one} for one in flat]
        found = [part for part in parts if DRAWN.keys() & part["value"].keys()]
        strange = {part["type"] for part in parts if str(part.get("type")).endswith("labels")} - set(DRAWN.values())
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{name} has a result of another form than Label Studio's: is it of another project?") from None
    if strange:
        raise UserError(f"{name} holds {min(strange)}: draw masks with the brush or as polygons, as config.xml has it.")
    return found


def _drawn(part: dict[str, Any], dataset: ImageDataset, row: int, where: str) -> tuple[np.ndarray, str]:
    """The pixels of a brush or polygon at the run's size, bool [H, W], and the name of its class."""
    value, height, width = part["value"], part.get("original_height"), part.get("original_width")
    if not isinstance(height, int) or not isinstance(width, int):
        raise UserError(f"{where}: a result has no original_width and original_height: export it again as JSON.")
    if part.get("image_rotation"):
        raise UserError(f"{where}: the image was turned in Label Studio: turn it back, and export again.")
    check_size((height, width), dataset, row, where)
    kind = next(key for key in DRAWN if key in value)
    names = value.get(DRAWN[kind])
    if not isinstance(names, list) or len(names) != 1:
        n = len(names) if isinstance(names, list) else "no"
        raise UserError(f"{where}: a brush or polygon has {n} classes: give it one.")
    try:
        mask = brush.decoded(value["rle"], height, width) if kind == "rle" else _polygon(value["points"], height, width)
    except ValueError as error:
        raise UserError(f"{where}: {error}: draw it again, or take it out.") from error
    return at_size(mask.astype(np.uint8), dataset, row, where) == 1, str(names[0])


def _polygon(points: Any, height: int, width: int) -> np.ndarray:
    """The pixels of a polygon whose points are in percent of the sides."""
    try:
        flat = [side * part / 100 for x, y in points for side, part in ((width, x), (height, y))]
    except (TypeError, ValueError) as error:
        raise ValueError("a polygon whose points are no pairs of numbers") from error
    try:
        return cocomask.drawn(cocomask.read([flat], height, width), height, width)
    except ValueError as error:
        raise ValueError(f"the annotation {error}") from error


def _code(name: str, class_names: Sequence[str], where: str) -> int:
    if name not in class_names:
        raise UserError(
            f"{where}: there is no class {name[:100]!r} in this run; its classes are {', '.join(class_names[:20])}."
        )
    return class_names.index(name)
