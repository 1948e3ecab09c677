"""Rankings handed out to Label Studio, and labels imported from files."""

import contextlib
import io
import tempfile
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from core.analysis import samples
from core.files import brushes, maskexport, maskimport
from core.files.label_studio import (
    file_address,
    label_studio_config,
    label_studio_tasks,
    prediction_scores,
    read_label_studio,
    read_votes,
    write_label_studio,
)
from core.runs import annotation, audit, questions
from core.runs.run import PERSON, Run
from core.store.maskfiles import MaskFiles
from data import ImageDataset
from data.errors import UserError
from data.files import preview
from data.files.archive import Writer
from data.masks import VOID

LARGEST = 1 << 14  # pixels a side of an image that is written as PNG, since browsers do not show its file
HEAD = 1024  # bytes that say whose file of JSON it is
BUNDLE = 500  # images of a Label Studio bundle: some megabytes, and more than a session's work


def label_studio(
    run: Run, dataset: ImageDataset, cycle: int, folder: Path, top: int | None = None, prefix: str | None = None
) -> list[Path]:
    """Write Label Studio's import file for a ranking into a folder, the best `top` of it; returns the files.

    Where there is no ground truth, one image in ten is drawn at random, as on the page Annotate (`core.runs.audit`). prefix: what
    stands before a sample's id in the address of its image; None: the images are written next to the tasks, as the files they
    came in where browsers show these, and their addresses are those of Label Studio's local files, its document root being the
    folder above.
    """
    table = run.ranking(cycle, ["sample_id", "rank"])
    table = table[table["rank"].notna()].sort_values("rank")
    if questions.of(run.config, dataset).audited:
        table = table.loc[audit.queue(table.index.to_numpy(), len(dataset), run.config.seed)]
        table["rank"] = np.arange(1, len(table) + 1)  # the order in which Label Studio is to serve them
    table = table.head(len(table) if top is None else top)
    if len(table) == 0:
        raise UserError(f"No image of run {run.id} is left to check at cycle {cycle}: choose an earlier one.")
    hand_out = {"class": _hand_out_classes, "mask": _hand_out_masks}[run.answer.kind]
    return hand_out(run, dataset, cycle, folder, table, prefix)


def _hand_out_classes(
    run: Run, dataset: ImageDataset, cycle: int, folder: Path, table: pd.DataFrame, prefix: str | None
) -> list[Path]:
    table = samples.table(run, dataset, cycle).loc[table.index].assign(rank=table["rank"])
    rows, root = [] if prefix is not None else [int(row) for row in table.index], run.config.root
    suffixes = {row: None if (found := preview.original(dataset, row, root)) is None else found.suffix for row in rows}
    addresses = {dataset.ids[row]: file_address(dataset.ids[row], suffix or ".png") for row, suffix in suffixes.items()}

    def contents() -> Iterator[tuple[str, bytes]]:
        for row, suffix in suffixes.items():  # one at a time: they may be large
            found = None if suffix is None else preview.original(dataset, row, root)
            whole = preview.png(preview.shown(dataset, row, root, LARGEST), level=6) if found is None else found.read()
            yield addresses[dataset.ids[row]], whole

    def image_of(sample_id: str) -> str:
        if prefix is None:
            return _local(folder, addresses[sample_id])
        return prefix + quote(sample_id)

    tasks = label_studio_tasks(table, dataset.class_names, run=run.id, image_of=image_of)
    return write_label_studio(
        folder, tasks, label_studio_config(dataset.class_names), None if prefix is not None else contents()
    )


def _hand_out_masks(
    run: Run, dataset: ImageDataset, cycle: int, folder: Path, table: pd.DataFrame, prefix: str | None
) -> list[Path]:
    """The model's mask of each image as prediction, and what people have drawn as annotations."""
    if prefix is not None:
        raise UserError("Masks are as large as the run sees the images, which go with them: leave --image-prefix out.")
    rows = [int(row) for row in table.index]
    drawn, names = maskexport.standing(run, dataset), dataset.class_names
    predicted = run.predicted(cycle)

    def tasks() -> Iterator[dict[str, Any]]:
        for row, score in zip(rows, prediction_scores(table), strict=True):
            address = _local(folder, file_address(dataset.ids[row]))
            proposal = brushes.results(np.asarray(predicted[row]), names)
            yield {
                "data": {"image": address, "sample_id": dataset.ids[row], "run": run.id},
                "predictions": [{"model_version": run.id, "score": score, "result": proposal}],
                "annotations": [
                    {"result": brushes.results(codes, names, source.removeprefix(PERSON))}
                    for source, codes in drawn.layers(row)[1].items()
                    if source.startswith(PERSON) and (codes != VOID).any()
                ],
            }

    images = ((file_address(dataset.ids[row]), preview.png(np.asarray(dataset.images[row]), level=6)) for row in rows)
    return write_label_studio(folder, tasks(), brushes.config(names), images)


def _local(folder: Path, address: str) -> str:
    """The address of a file in the folder by Label Studio's local files."""
    return f"/data/local-files/?d={quote(f'{folder.name}/{address}')}"


def label_studio_bundle(run: Run, dataset: ImageDataset, cycle: int, top: int = BUNDLE) -> bytes:
    """What `label_studio` writes, with images, as a zip file; the best `top` of the ranking."""
    with tempfile.TemporaryDirectory() as folder:
        label_studio(run, dataset, cycle, Path(folder), top)
        content = io.BytesIO()
        with Writer(content, compressed=False) as bundle:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    bundle.add(path.relative_to(folder).as_posix(), path.read_bytes())
    return content.getvalue()


class AnnotatorError(UserError):
    """Who gave the labels of a file is said nowhere, or twice."""


@dataclass(frozen=True)
class Taken:
    """The files from which labels of one kind are imported. endings: of their names, without dots · what: they are, as help."""

    endings: tuple[str, ...]
    what: str
    unnamed: Callable[[str, bytes], bool]
    """Whether a file, by its name and first `HEAD` bytes, does not say who gave its labels, so that `bring_in` has to be told."""
    bring: Callable[[Run, ImageDataset, Path, str | None], str]


def taken(run: Run) -> Taken:
    """The files from which the labels of a run are imported."""
    return TAKEN[run.answer.kind]


def bring_in(
    run: Run, dataset: ImageDataset, name: str, content: bytes | None = None, annotator: str | None = None
) -> str:
    """Labels that people gave, from a file of Label Studio, a table of votes or masks, into the run's log; says how many.

    name: a path; where `content` is given, the name of the file it came in · annotator: who drew the masks of files that do not
    say it. Raises `UserError` for a file that does not fit the run; nothing is kept of it then.
    """
    if content is not None:
        with _written(name, content) as path:
            return bring_in(run, dataset, str(path), annotator=annotator)
    return taken(run).bring(run, dataset, Path(name), annotator)


@contextlib.contextmanager
def _written(name: str, content: bytes) -> Iterator[Path]:
    """A file of this name, meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        try:
            path.write_bytes(content)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{name[:100]!r} cannot be read ({why}): give the file a short name, and look for free space on the server."
            ) from error
        yield path


def _bring_classes(run: Run, dataset: ImageDataset, path: Path, annotator: str | None) -> str:
    _check_named(path, annotator)
    if path.suffix.lower() == ".json":
        brought = read_label_studio(path, dataset.ids, dataset.class_names, run=run.id)
    else:
        brought = read_votes(path, dataset.ids, dataset.class_names)
    given = brought.annotations
    new = annotation.record(run, [dataset.ids[row] for row in given.rows], given.labels, given.annotators)
    return f"{new} new labels of {len(given.rows)} in {path.name}{_left_out(brought.skipped)}."


def _bring_masks(run: Run, dataset: ImageDataset, path: Path, annotator: str | None) -> str:
    annotation.check_people(run)
    if path.suffix.lower() not in (".json", ".zip") and not path.is_dir():
        raise UserError(
            f"{path.name} holds no masks: give a folder or .zip of PNG files, or .json of COCO or Label Studio."
        )
    skipped: Counter[str] = Counter()
    if not _unnamed_masks(path.name, _head(path) if path.suffix.lower() == ".json" else b""):
        _check_named(path, annotator)
        masks, left = brushes.read(path, dataset, run.id)
        skipped.update(left)
    elif annotator is None:
        raise AnnotatorError(f"{path.name} does not say who drew its masks: name the annotator.")
    else:
        who = annotation.annotator_name(annotator)
        read = maskimport.read_coco if path.suffix.lower() == ".json" else maskimport.read_pngs
        masks = ((row, who, codes) for row, codes in read(path, dataset))
    ids, drawn, people = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        whole = MaskFiles(Path(folder))  # the run keeps none of a file of which one does not fit
        for row, by, codes in masks:
            if (codes == VOID).all():
                skipped["no pixel has a class"] += 1
                continue
            ids.append(dataset.ids[row])
            drawn.append(whole.add(codes))
            people.append(by)
        for one in drawn:
            run.masks.add(whole.read(one.digest))
    new = annotation.record_masks(run, ids, drawn, people)
    return f"{new} new masks of {len(ids)} in {path.name}{_left_out(skipped)}."


def _unnamed_masks(name: str, head: bytes) -> bool:
    """Label Studio's JSON is a list, COCO's is none."""
    return not (Path(name).suffix.lower() == ".json" and head.removeprefix(BOM_UTF8).lstrip().startswith(b"["))


TAKEN = {
    "class": Taken(
        ("json", "csv", "parquet"),
        "Label Studio's JSON, or a table of annotations.",
        lambda name, head: False,
        _bring_classes,
    ),
    "mask": Taken(
        ("zip", "json"),
        "A zip file of PNG masks, each with the name of its image, or of COCO, as **Export masks** writes them; or JSON of COCO "
        "or Label Studio. Masks are as large as the run sees the images, or as the images' own files.",
        _unnamed_masks,
        _bring_masks,
    ),
}


def _check_named(path: Path, annotator: str | None) -> None:
    if annotator is not None:
        raise AnnotatorError(f"{path.name} names its annotators itself: name none.")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): give another file.") from error


def _left_out(skipped: Mapping[str, int]) -> str:
    return "".join(f"; {count} left out: {reason}" for reason, count in skipped.items())
