"""The desk of the page Annotate where labels are masks: brush, eraser, polygon and fill over one image at a time.

It speaks to the server as `pages.ui.desk` does: what the annotator does shows at once and waits in the browser until the
server has it in the log.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from core.runs.annotation import Desk
from core.runs.run import Run
from data import ImageDataset
from data.files import masktext, preview
from data.lazy import LazyImages
from data.masks import VOID
from pages.ui import assets

GUIDED = True  # as of `pages.ui.desk`: a mask is quicker to correct than to draw

_DESK = assets.component("maskdesk")


def draw(key: str, data: dict[str, Any], done: Callable[[], None]) -> None:
    """Draw the desk; `done` is called before the script runs again, when there is something new in `pages.ui.desk.actions`.

    data: place [run id, annotator, cycle] · classes: names · colours: (r, g, b) of each · height, width: of the masks · queue:
    images {id, url, guide, given, proposal, box}, the next first; url: of an image that is stretched over the mask; given,
    proposal: masks as of `data.files.masktext`, empty without one; box: None, or the region to check as {sides: [top, left,
    bottom, right], label: its class in the given mask} · said: images {…, seq, label, mask}, the newest last · left: images in
    the whole queue · empty: what to say at its end · large: smooth the picture · done: {tab, number} of the last action.
    """
    _DESK(key=key, data=data, on_actions_change=done)


def complete(data: dict[str, Any], run: Run, dataset: ImageDataset, found: Desk) -> None:
    """Add to the data of the page what this desk needs besides: the size of the masks, and those of each image.

    Given is what stood when the images were ranked; it, the model's proposal and, where masks are checked, the region to look at
    first come with the guidance.
    """
    cycle = data["place"][2]
    data["height"], data["width"] = dataset.images.shape[1:3]
    before = None if cycle is None else run.standing(dataset, cycle)
    predicted = None if cycle is None else run.predicted(cycle)
    regions = {} if cycle is None or not run.config.question.checks else first_regions(run.regions(cycle))
    squeezed = isinstance(dataset.images, LazyImages) and dataset.images.fit != "resize"
    rows = [
        *found.queue[: len(data["queue"])].tolist(),
        *(one.row for one in found.said[len(found.said) - len(data["said"]) :]),
    ]
    for row, image in zip(rows, [*data["queue"], *data["said"]], strict=True):
        if squeezed:  # the mask lies over the image as the model takes it, and not over its file
            image["url"] = preview.url(dataset.images[row])
        guided = image["guide"] is not None
        given = before.codes(row) if guided and before is not None else None
        image["given"] = "" if given is None or (given == VOID).all() else masktext.encode(given)
        image["proposal"] = masktext.encode(predicted[row]) if guided and predicted is not None else ""
        image["box"] = regions.get(image["id"]) if guided else None
    for said, image in zip(found.said[len(found.said) - len(data["said"]) :], data["said"], strict=True):
        image["mask"] = "" if said.digest is None else masktext.encode(run.masks.read(said.digest))


def first_regions(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The region of each image that comes first, as `draw` takes it, of those of a cycle (`Run.regions`)."""
    first = table.dropna(subset="rank").sort_values("rank").drop_duplicates("sample_id")
    sides = first[["top", "left", "bottom", "right"]].to_numpy().tolist()
    labels = first["label"].tolist()
    return {
        name: {"sides": box, "label": label} for name, box, label in zip(first["sample_id"], sides, labels, strict=True)
    }
