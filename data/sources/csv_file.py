"""A CSV file of paths: the columns path and label, and split, if some images are to be tested on.

    path,label,split
    cat/1.png,cat,train          relative to the CSV file
    /data/scans/2.dcm,dog,test   or absolute

Files may lie beside the CSV file, and below the folders that may be read (`data.files.roots`); ids are the paths as they
are written. A blank label, -1 or nan is unknown. Splits test, val, valid and validation are the test set.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data.dataset import ImageDataset
from data.errors import UserError
from data.files import roots
from data.files.encoded import Links, Paths
from data.lazy import Fit
from data.sources import Source, own
from data.sources.own import Entry, Found, Progress, assemble

PATHS = ("path", "file_name")  # what the column may be called
TEST = {"test", "val", "valid", "validation"}
GONE = "there is no such file"


def load(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
) -> ImageDataset:
    """The images that a CSV file, `root`, names; options and errors as of `data.sources.folder.load`."""
    return assemble(find(root, size, fit, class_names, test_share), class_names)


def find(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Read the table and look at its files; parameters and errors as of `load`."""
    own.check_options(size, fit, test_share)
    file = root.resolve()
    if not file.is_file():
        raise UserError(f"{root} is no file; give a CSV file with the columns path and label")
    table = _read(file)
    column = next((name for name in PATHS if name in table), None)
    if column is None or ("label" not in table and class_names is None):
        raise UserError(
            f"{file.name} has no column {'path' if column is None else 'label'}; its columns are {', '.join(table.columns)}"
        )
    names = table[column].str.strip().tolist()
    if twice := table[column].str.strip().duplicated().to_numpy().nonzero()[0].tolist():
        raise UserError(
            f"line {twice[0] + 2} of {file.name} names {names[twice[0]]!r} a second time; keep one line per image"
        )
    labels = own.named(table["label"].tolist() if "label" in table else [None] * len(table), None)
    splits = table["split"].str.strip().str.lower().isin(TEST).tolist() if "split" in table else [False] * len(table)
    inside = [file.parent, *roots.roots()]
    skipped = _left_out(file.parent, names, inside)
    gone = {name for name, _ in skipped}
    entries = [
        Entry(name, label, test) for name, label, test in zip(names, labels, splits, strict=True) if name not in gone
    ]
    if not entries:
        name, why = skipped[0] if skipped else ("no line", "the table is empty")
        raise UserError(f"no image that {file.name} names can be read; the first one: {name}: {why}")
    entries = own.pool_then_test(entries, test_share)
    files = Paths(file.parent, [entry.id for entry in entries], inside)
    return own.found("csv", file, entries, files, size=size, fit=fit, skipped=skipped, table=file, progress=progress)


def _read(file: Path) -> pd.DataFrame:
    try:
        found = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: as which the errors of UTF-8 and of pandas' reader come
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read as a UTF-8 table ({reason}); save it again as CSV, UTF-8") from error
    return found.rename(columns=lambda name: str(name).strip())


def _left_out(folder: Path, names: Sequence[str], inside: Sequence[Path]) -> list[tuple[str, str]]:
    """The names that are no file which may be read, and why."""
    links, found = Links(*inside), []
    outside = f"it lies outside of what may be read; put it below {folder}, or set NEXTLABEL_ROOTS"
    for name in names:
        above, last = os.path.split(os.path.join(folder, name))
        try:
            if not last or "\0" in name:
                found.append((name, GONE))
            elif links.leads_out(above, last):  # first: whether anything is there outside is nobody's business
                found.append((name, outside))
            elif not os.path.isfile(os.path.join(above, last)):
                found.append((name, GONE))
        except OSError:  # a name longer than the system allows
            found.append((name, GONE))
    return found


SOURCE = Source(
    name="csv",
    title="Your own images: a CSV file of paths and labels",
    load=load,
    find=find,
    options=own.OPTIONS,
    needs_root=True,
    place=5,
)
