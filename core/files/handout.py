"""Rankings handed out to Label Studio, and labels imported from files."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from core.analysis import samples
from core.files.label_studio import (
    file_address,
    label_studio_config,
    label_studio_tasks,
    read_label_studio,
    read_votes,
    write_label_studio,
)
from core.runs import annotation, audit, questions
from core.runs.run import Run
from data import ImageDataset
from data.errors import UserError
from data.files import preview
from data.files.archive import Writer

LARGEST = 1 << 14  # pixels a side of an image that is written as PNG, since browsers do not show its file
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
    table = samples.table(run, dataset, cycle)
    table = table[table["rank"].notna()].sort_values("rank")
    if questions.of(run.config, dataset).audited:
        table = table.loc[audit.queue(table.index.to_numpy(), len(dataset), run.config.seed)]
        table["rank"] = np.arange(1, len(table) + 1)  # the order in which Label Studio is to serve them
    table = table.head(len(table) if top is None else top)
    if len(table) == 0:
        raise UserError(f"No image of run {run.id} is left to check at cycle {cycle}: choose an earlier one.")
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
            return f"/data/local-files/?d={quote(f'{folder.name}/{addresses[sample_id]}')}"
        return prefix + quote(sample_id)

    tasks = label_studio_tasks(table, dataset.class_names, run=run.id, image_of=image_of)
    return write_label_studio(
        folder, tasks, label_studio_config(dataset.class_names), None if prefix is not None else contents()
    )


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


def bring_in(run: Run, dataset: ImageDataset, name: str, content: bytes | None = None) -> str:
    """Labels that people gave, from a file of Label Studio or a table of votes, into the run's log; says how many.

    name: a path; where `content` is given, the name of the file it came in. Raises `UserError` for a file that does not fit
    the run.
    """
    if content is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            return bring_in(run, dataset, str(path))
    path = Path(name)
    if path.suffix.lower() == ".json":
        brought = read_label_studio(path, dataset.ids, dataset.class_names, run=run.id)
    else:
        brought = read_votes(path, dataset.ids, dataset.class_names)
    given = brought.annotations
    new = annotation.record(run, [dataset.ids[row] for row in given.rows], given.labels, given.annotators)
    left_out = "".join(f"; {count} left out: {reason}" for reason, count in brought.skipped.items())
    return f"{new} new labels of {len(given.rows)} in {path.name}{left_out}."
