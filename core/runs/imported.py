"""Predictions of a model of the user's own instead of one that a run trains: joined with the pool, and kept by the run.

They are copied into the folder of the cycle that they are first used in, so that a run and its bundle need their file no more;
a cycle without any is ranked by the last. Needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from core import methods
from core.runs import spec
from core.runs.run import Run
from core.runs.spec import Config
from core.store.atomic import write_array, writing
from data import ImageDataset, annotations
from data.errors import UserError
from data.files import packed, predictions
from data.files.predictions import Rows, Table
from data.words import count

ORDER = "the pool"
PROBS, EMBEDDINGS = "imported.npy", "imported-embeddings.npy"  # in the folder of a cycle
IN_SAMPLE = (
    "The predictions are in-sample: a model that was trained on these labels has memorised part of the wrong ones and agrees "
    "with them, so that fewer are found. Predict each sample by a model that was not trained on it (cross-validation)."
)
NOT_SAID = (
    "It is not known whether the predictions are out of sample (--predicted): a model that was trained on these labels has "
    "memorised part of the wrong ones, so that fewer are found."
)


@dataclass(frozen=True, eq=False)
class Imported:
    """Predicted probabilities, float [N, C], and embeddings, float32 [N, D] or None, of the pool in its order."""

    probs: Rows
    embeddings: NDArray[np.float32] | None

    @property
    def digest(self) -> str:
        """A short name for the contents."""
        return predictions.digest(self.probs, self.embeddings)


def needs_of(method: str, task: str) -> str:
    """What a strategy or score asks of a model, as it declares; "" of one that is not installed here."""
    if spec.QUESTIONS[task].checks:
        return methods.label_scores.CATALOGUE[method].needs if method in methods.label_scores.CATALOGUE else ""
    return methods.strategies.CATALOGUE[method].needs if method in methods.strategies.CATALOGUE else ""


def warning(predicted: str | None) -> str:
    """What to know of predictions that are in-sample, or may be; empty for those out of sample."""
    return {"in-sample": IN_SAMPLE, None: NOT_SAID}.get(predicted, "")


def read(config: Config, dataset: ImageDataset, probs: str, embeddings: str | None = None) -> Imported:
    """The predictions in files, and the embeddings where they are given, joined with the pool.

    By id where a file has a column of ids. The rows of a .npy file are those of the folder's table of labels, or where there is
    none the pool's in the order of the sorted ids; its columns are the classes as `columns` has them. Raises `UserError` as
    `data.files.predictions`.
    """
    found = _keyed(predictions.read(Path(probs)), config, dataset)
    if found.columns is None and found.values.shape[1] == len(dataset.class_names):
        found = Table(found.name, found.values, found.ids, columns(dataset.class_names))
    joined = predictions.probabilities(found, dataset.ids, dataset.class_names, ORDER)
    if embeddings is None:
        return Imported(joined, None)
    table = _keyed(predictions.read(Path(embeddings)), config, dataset)
    return Imported(joined, predictions.embeddings(table, dataset.ids, ORDER))


def columns(class_names: Sequence[str]) -> list[str]:
    """The classes in the order of the columns of a .npy file: as they are listed, those that are numbers in their order."""
    return sorted(class_names, key=int) if all(name.isdecimal() for name in class_names) else list(class_names)


def joined(config: Config, dataset: ImageDataset) -> str:
    """How the predictions of a new run are joined with the pool, in one sentence."""
    name = Path(str(config.predictions)).name
    if not name.lower().endswith(".npy"):
        return f"{name} is joined with the images by id."
    table = _table(config)
    order = "the sorted ids" if table is None else f"the rows of {table.name}"
    return f"{name} is joined with the images in the order of {order}; its columns are {', '.join(columns(dataset.class_names))}."


def _table(config: Config) -> Path | None:
    """The table of labels that a folder's images come with."""
    if config.dataset != "folder" or config.root is None:
        return None
    return Path(config.labels) if config.labels is not None else annotations.beside(Path(config.root))


def _keyed(found: Table, config: Config, dataset: ImageDataset) -> Table:
    """The rows with their ids. Raises `UserError` where their number says that they are of others."""
    if found.ids is not None:
        return found
    if config.root is not None and packed.is_packed(Path(config.root)):
        raise UserError(
            f"{found.name} has no ids, and of images that came in a bundle the order is not known; give a CSV or Parquet "
            "file with a column sample_id"
        )
    table = _table(config)
    if table is None:
        ids, order = sorted(dataset.ids), "their sorted ids"
    else:
        ids, order = (
            [_relative(one, Path(str(config.root))) for one in predictions.ids_of(table)],
            f"the rows of {table.name}",
        )
    if len(ids) != len(found.values):
        raise UserError(
            f"{found.name} has {count(len(found.values), 'row')}, and there are {count(len(ids), 'image')} in the order of "
            f"{order}; give one row for each, or a CSV or Parquet file with a column sample_id"
        )
    return Table(found.name, found.values, ids, found.columns)


def _relative(name: str, root: Path) -> str:
    """A file's name in a table as the sample's id: absolute paths are relative to the folder."""
    path = PurePosixPath(name.strip())
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else name.strip()


def keep(run: Run, cycle: int, found: Imported) -> None:
    """Copy the predictions of a cycle into its folder, the embeddings first: a folder has both or it has none."""
    here = run.cycle_path(cycle)
    with writing(here):
        here.mkdir(exist_ok=True)
        (here / EMBEDDINGS).unlink(missing_ok=True)
    if found.embeddings is not None:
        write_array(here / EMBEDDINGS, found.embeddings)
    write_array(here / PROBS, found.probs)


def begin(run: Run, dataset: ImageDataset) -> str:
    """Copy the predictions that a run starts from into its first cycle, once; returns their digest.

    Raises `UserError` where the files are gone, or are no longer those that the run was started with.
    """
    config = run.config
    if of_cycle(run, 0) is None:
        if config.predictions is None:
            raise UserError(f"The predictions of run {run.id} are missing: restore {run.cycle_path(0) / PROBS}.")
        found = read(config, dataset, config.predictions, config.embeddings)
        if found.digest != config.imported:
            raise UserError(
                f"{Path(config.predictions).name} is not what it was when run {run.id} was started: restore it, or "
                "start a new run."
            )
        keep(run, 0, found)
    return str(config.imported)


def of_cycle(run: Run, cycle: int) -> Path | None:
    """The folder whose predictions rank a cycle: its own, else the last before it; None where there is none."""
    folders = (run.cycle_path(one) for one in range(cycle, -1, -1))
    return next((one for one in folders if (one / PROBS).is_file()), None)


def load(place: Path) -> Imported:
    """The predictions that a cycle's folder keeps, memory-mapped. Raises `UserError` where they are damaged."""
    found = []
    for name in (PROBS, EMBEDDINGS):
        try:
            found.append(np.load(place / name, mmap_mode="r", allow_pickle=False) if (place / name).is_file() else None)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{place / name} is damaged: restore it, or give the predictions again.") from error
    if found[0] is None:
        raise UserError(f"{place / PROBS} is missing: restore it, or give the predictions again.")
    return Imported(found[0], found[1])


def bring(run: Run, dataset: ImageDataset, probs: str, embeddings: str | None = None) -> int:
    """Take new predictions for the next cycle of a run; returns that cycle. Its worker is started by who asks.

    Raises `UserError` for a run that trains, one that is being worked on, and predictions that an earlier cycle was ranked by.
    """
    run.check_work()
    config, cycle = run.config, len(run.cycles())
    if config.trains:
        raise UserError(f"Run {run.id} trains its own model: start a run with --predictions to rank by those of yours.")
    if run.is_running():
        raise UserError(f"Run {run.id} is being worked on: wait for it, or pause it first.")
    found = read(config, dataset, probs, embeddings)
    if found.embeddings is None and needs_of(config.method, config.task) == "embeddings":
        raise UserError(f"{config.method} compares embeddings: give those of the new model too, with --embeddings.")
    for past in range(cycle):
        own = run.cycle_path(past)
        if (own / PROBS).is_file() and load(own).digest == found.digest:
            raise UserError(
                f"{Path(probs).name} holds the predictions of cycle {past} of run {run.id}: train on the labels since then and "
                "predict again, or step without them to rank by those that are there."
            )
    keep(run, cycle, found)
    return cycle
