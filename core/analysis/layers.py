"""What a finished cycle says pixel by pixel, where labels are masks: of one image, of classes, of two cycles. Needs no torch.

A run whose answer has no `layers` has none of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from core import metrics
from core.analysis import measures
from core.plots import classes
from core.relabel import Floats, Ints
from core.runs.answers import ENTROPIES, PREDICTED
from core.runs.reference import ground_truth
from core.runs.run import Run
from data.dataset import ImageDataset
from data.errors import UserError
from data.masks import VOID, narrowed

Codes = NDArray[np.uint8]
CHUNK = 256  # masks compared at once


@dataclass(frozen=True, eq=False)
class Layers:
    """The masks of a cycle over N images.

    standing, reference: int64 [N, H, W], −1 unknown, read when asked for; reference: None where none is known · predicted: the
    most probable class of each pixel · entropies: as a share of ln C, from 0 to 255; uint8 [N, H, W] each, on disk.
    """

    class_names: list[str]
    standing: Any
    reference: Any
    predicted: Codes
    entropies: NDArray[np.uint8]
    checks: bool = False
    """Whether the masks that stand are what is in question."""

    @property
    def against(self) -> str:
        """What predictions are held against: "label" where labels are checked or nothing else is known, else "reference"."""
        return "label" if self.checks or self.reference is None else "reference"

    def said(self, rows: Ints) -> Codes:
        """The predicted masks, uint8 [n, H, W]."""
        return np.asarray(self.predicted[rows])

    def label(self, rows: Ints) -> Codes:
        """The masks that stand, uint8 [n, H, W], unknown where nobody has drawn."""
        return narrowed(self.standing[rows])

    def truth(self, rows: Ints) -> Codes:
        """The reference masks, uint8 [n, H, W]; all unknown without any."""
        if self.reference is None:
            return np.full((len(rows), *self.predicted.shape[1:]), VOID, dtype=np.uint8)
        return narrowed(self.reference[rows])

    def target(self, rows: Ints) -> Codes:
        """What predictions are held against, uint8 [n, H, W]."""
        return self.label(rows) if self.against == "label" else self.truth(rows)

    def classes(self, row: int) -> pd.DataFrame:
        """One row for each class that target or prediction of an image has: class, target, predicted (shares of the pixels), iou.

        Its index is the class. The IoU is over the pixels whose class is known; NaN without any.
        """
        target, predicted = self.target(np.array([row]))[0], self.predicted[row]
        n = len(self.class_names)
        true, said = (np.bincount(one.ravel(), minlength=256)[:n] / one.size for one in (target, predicted))
        table = pd.DataFrame({"class": self.class_names, "target": true, "predicted": said})
        table["iou"] = metrics.iou(_confusion(target[None], predicted[None], n)[0])
        return table[(true > 0) | (said > 0)]

    def over_pool(self) -> pd.DataFrame:
        """One row a class: class, images, share, predicted_images, predicted_share, iou.

        images, share: masks that stand and have it, and its share of their known pixels · predicted_*: the same of what is
        predicted for the whole pool · iou: over the pool, against the reference; NaN without one.
        """
        n = len(self.class_names)
        there, drawn = np.zeros((2, n)), np.zeros(n)
        pixels, total = np.zeros(n), np.zeros((n, n), dtype=np.int64)
        for start in range(0, len(self.predicted), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self.predicted)))
            said = self.said(rows)
            counts = _counts(said, n)
            there[1] += (counts > 0).sum(axis=0)
            pixels += counts.sum(axis=0)
            drawn_here = rows[~self.standing.blank[rows]]
            if len(drawn_here):
                counts = _counts(self.label(drawn_here), n)
                there[0] += (counts > 0).sum(axis=0)
                drawn += counts.sum(axis=0)
            if self.reference is not None:
                total += _confusion(self.truth(rows), said, n).sum(axis=0)
        return pd.DataFrame(
            {
                "class": self.class_names,
                "images": there[0].astype(int),
                "share": drawn / max(1, drawn.sum()),
                "predicted_images": there[1].astype(int),
                "predicted_share": pixels / max(1, pixels.sum()),
                "iou": np.full(n, np.nan) if self.reference is None else metrics.iou(total),
            }
        )


def of_cycle(run: Run, dataset: ImageDataset, cycle: int) -> Layers:
    """The masks of a finished cycle. Raises `UserError` where its files cannot be read."""
    predicted, entropies = (_read(run, cycle, name) for name in (PREDICTED, ENTROPIES))
    _, truth = ground_truth(run.config, dataset)
    reference = truth if len(truth.shape) == predicted.ndim else None
    return Layers(
        dataset.class_names, run.standing(dataset, cycle), reference, predicted, entropies, run.config.question.checks
    )


def _read(run: Run, cycle: int, name: str) -> NDArray[np.uint8]:
    try:
        return np.asanyarray(np.load(run.cycle_path(cycle) / name, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no readable masks ({name}): choose another cycle, or restore the file."
        ) from error


def class_figure(run: Run, cycle: int) -> go.Figure | None:
    """`Run.class_iou` as a figure with a cycle framed; None where it was not measured."""
    table = run.class_iou().T
    if table.empty:
        return None
    text = "IoU of each class on the test set, in %; empty: no test image has the class, and none was predicted"
    return classes.iou(table, cycle, measures.note(run, text))


def between(first: Layers, second: Layers, sample_ids: list[str]) -> pd.DataFrame:
    """How two cycles' predictions of the same images differ, those that differ most first; index: the pool's rows.

    sample_id · same: share of the pixels that both give one class · iou_first, iou_second: mean IoU of each with the reference,
    NaN where none is known · change: iou_second − iou_first.
    """
    n, parts = len(first.class_names), []
    for start in range(0, len(first.predicted), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(first.predicted)))
        one, other = first.said(rows), second.said(rows)
        truth = first.truth(rows)
        same = (one == other).mean(axis=(1, 2))
        parts.append([same, *(metrics.mean_iou(_confusion(truth, said, n)) for said in (one, other))])
    same, one_iou, other_iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    table = pd.DataFrame(
        {
            "sample_id": sample_ids,
            "same": same,
            "iou_first": one_iou,
            "iou_second": other_iou,
            "change": other_iou - one_iou,
        }
    )
    return table.sort_values("same", kind="stable")


def _counts(masks: Codes, n: int) -> Floats:
    """Pixels of each class in each mask, [b, n]."""
    return np.stack([np.bincount(one.ravel(), minlength=256)[:n] for one in masks])


def _confusion(target: Codes, said: Codes, n: int) -> Ints:
    return metrics.confusion(np.where(target == VOID, -1, target.astype(np.int64)), said.astype(np.int64), n)
