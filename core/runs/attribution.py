"""What the label of one image does to every held-out test image, and through which layers: kept, read, refused. Needs no torch.

`core.engine.explain` computes it; here is the file, `influence-ROW.json` in the folder of the cycle whose model was asked.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, NonNegativeInt, TypeAdapter
from pydantic import dataclasses as pydantic

from core.runs import live, settle
from core.runs.live import Live
from core.runs.run import Run
from core.store.atomic import write_atomically
from data.dataset import ImageDataset
from data.errors import UserError

MOST = 8  # test images that are kept of those that a label helps, and of those that it harms
FILES = "influence-*.json"
WHOLE = ConfigDict(allow_inf_nan=False)


@pydantic.dataclass(frozen=True, config=WHOLE)
class Effect:
    """Of the label on the loss of one test image, in nats. row: of the test images · suggested, confidence: of the model."""

    row: NonNegativeInt
    label: NonNegativeInt
    suggested: NonNegativeInt
    confidence: float
    influence: float


@pydantic.dataclass(frozen=True, config=WHOLE)
class Layer:
    """What a module with so many parameters adds to the influence, in nats. kind: its class, "" for a parameter of the whole."""

    name: str
    kind: str
    parameters: int
    influence: float


@pydantic.dataclass(frozen=True, config=WHOLE)
class Attribution:
    """The influence of one image with its reference label, by the model of a cycle: Eq. 2 of Wang et al. 2022, taken apart.

    influence: on the summed loss of the n_held_out test images, in nats, positive where the label helps; the layers add up to it,
    and so do the effects on all test images, n_helped of them above and n_harmed below 0, up to the residual · helps, harms: the
    largest of these, at most `MOST` each, the furthest from 0 first · n_labels: that the model has learnt · residual: relative,
    the larger one of the two solutions; iterations: of that for this image.
    """

    sample_id: str
    label: NonNegativeInt
    influence: float
    n_labels: int
    n_held_out: int
    n_helped: int
    n_harmed: int
    helps: tuple[Effect, ...]
    harms: tuple[Effect, ...]
    layers: tuple[Layer, ...]
    damping: float
    residual: float
    iterations: int

    @property
    def effects(self) -> pd.DataFrame:
        """Effects on the test images, from the most helpful to the most harmful: row, label, suggested, confidence, influence."""
        both = [*self.helps, *reversed(self.harms)]
        return pd.DataFrame(map(dataclasses.asdict, both), columns=[one.name for one in dataclasses.fields(Effect)])

    @property
    def by_layer(self) -> pd.DataFrame:
        """Layers in the order of the network: name, kind, parameters, influence."""
        return pd.DataFrame(
            map(dataclasses.asdict, self.layers), columns=[one.name for one in dataclasses.fields(Layer)]
        )


_FORMAT: TypeAdapter[Attribution] = TypeAdapter(Attribution)


def file(run: Run, cycle: int, row: int) -> Path:
    """Where it is kept of the image in this row of the pool."""
    return run.cycle_path(cycle) / f"influence-{row:06d}.json"


def folder(run: Run) -> Path:
    """Where the worker that computes it has its live state and its log."""
    return run.path / "explain"


def worker(run: Run) -> Live:
    """What the worker that computes it is doing, or how the last one ended."""
    return live.read(folder(run)) if folder(run).is_dir() else Live()


def write(run: Run, cycle: int, row: int, found: Attribution) -> None:
    """Keep it. Raises `UserError` where the folder cannot be written."""
    write_atomically(file(run, cycle, row), to_json(found))


def read(run: Run, cycle: int, row: int, sample_id: str) -> Attribution | None:
    """What is kept of an image; None where there is nothing, or the file is damaged or of another image (then it is computed
    again)."""
    try:
        found = of_json(file(run, cycle, row).read_bytes())
    except (OSError, ValueError):
        return None
    return found if found.sample_id == sample_id else None


def to_json(found: Attribution) -> bytes:
    """As its file has it."""
    return _FORMAT.dump_json(found)


def of_json(content: bytes) -> Attribution:
    """What a file says. Raises `ValueError` for anything that `to_json` would not write."""
    return _FORMAT.validate_json(content)


def kept(run: Run, dataset: ImageDataset, cycle: int) -> dict[int, Attribution]:
    """All that is kept of a cycle, by pool row, in their order."""
    stems = (path.stem.removeprefix("influence-") for path in run.cycle_path(cycle).glob(FILES))
    rows = sorted(int(stem) for stem in stems if stem.isdecimal() and int(stem) < len(dataset.ids))
    found = {row: read(run, cycle, row, dataset.ids[row]) for row in rows}
    return {row: one for row, one in found.items() if one is not None}


def effect_table(found: Iterable[Attribution], class_names: list[str]) -> pd.DataFrame:
    """One row an image and test image: sample_id, reference, total, test_image, test_reference, suggested, confidence,
    influence."""
    parts = [
        one.effects.assign(sample_id=one.sample_id, reference=class_names[one.label], total=one.influence)
        for one in found
    ]
    columns = ["sample_id", "reference", "total", "row", "label", "suggested", "confidence", "influence"]
    table = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    named = {name: table[name].map(dict(enumerate(class_names))) for name in ("label", "suggested")}
    return table.assign(**named).rename(columns={"row": "test_image", "label": "test_reference"})


def layer_table(found: Iterable[Attribution]) -> pd.DataFrame:
    """One row an image and layer: sample_id, total, layer, kind, parameters, influence."""
    parts = [one.by_layer.assign(sample_id=one.sample_id, total=one.influence) for one in found]
    columns = ["sample_id", "total", "name", "kind", "parameters", "influence"]
    table = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    return table.rename(columns={"name": "layer"})


def sentence(found: Attribution) -> str:
    """What the label does to the held-out loss, in one sentence."""
    change = f"{abs(found.influence):.3g} nats {'lower' if found.influence >= 0 else 'higher'}"
    return (
        f"with this label the summed loss of {found.n_held_out:,} held-out test images is {change}, to first order; it helps "
        f"{found.n_helped:,} of them and harms {found.n_harmed:,}."
    )


def check(run: Run, dataset: ImageDataset, cycle: int, row: int) -> None:
    """Raise `UserError` where the influence of an image cannot be computed. Also as `Run.check_work` and `Run.check_data`."""
    config: Any = dataclasses.asdict(run.config)
    if why := settle.no_influence(config)[0]:
        raise UserError(f"Influence {why}: choose another run.")
    run.check_work()
    run.check_data(len(dataset))
    if not (dataset.test_labels >= 0).any():
        raise UserError(
            "Influence is measured on the loss of test images, and this data set has none with a label: start a run with "
            "--test-share, which holds some out."
        )
    if not (run.cycle_path(cycle) / "weights.safetensors").is_file():
        raise UserError(
            f"Influence needs the weights of cycle {cycle} of run {run.id}, which are not here: choose another run or cycle, "
            "or restore the file."
        )
    if dataset.labels[row] < 0:
        raise UserError(
            f"The image {dataset.ids[row]} has no reference label, so that what its label is worth is not known: choose one "
            "that has."
        )
    if not dataset.readable(np.array([row]))[0]:
        raise UserError(f"The image {dataset.ids[row]} cannot be read: restore its file, or choose another image.")
