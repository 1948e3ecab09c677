"""The user's own images: an ImageFolder tree, or a folder with a metadata.csv.

    ROOT/cat/1.png                              the class is the folder's name; a fifth is held out as the test set
    ROOT/train/cat/1.png  ROOT/test/cat/2.png   with a test set of its own (`val` serves where there is no `test`)
    ROOT/metadata.csv   or metadata.parquet     columns file_name and label; a blank label, -1 or nan is unknown

A table of labels that lies elsewhere, CSV or Parquet, does the same in its place. Either may hold one more
column for each class, named after it, with the votes of people. Then every column besides file_name and label is a class,
unless `class_names` says which are. The fifth (or `test_share`) that is held out is drawn by class, with a fixed seed, from the
labelled images.

Where a table of votes comes with the images (`data.annotations`), or their classes are named, they need no label:
metadata.csv may do with file_name alone, and images may lie in no class folder.

All images come to one size and one number of channels, on demand (`data.files.ondemand`) or, in runs that were started so, all
at once: grey stays grey when every image is; transparent parts become
white; 16 bits become 8, from the range that the folder uses (12 bits in 16 are common); a turned photograph (EXIF) is set
upright. Of an animation the first picture counts. What is an image is judged by its content, whatever the name
(`data.files.imagefile`). An image that cannot be read, a file that is none, and what lies neither in train nor in test are
left out and listed in `skipped`; hidden files and what systems put beside images are not worth a word. Links that lead out
of ROOT are not followed.
"""

import csv
import json
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from data import annotations
from data.dataset import ImageDataset
from data.errors import UserError
from data.files import decode, dicom, imagefile
from data.files.cache import cached_images
from data.files.encoded import Links, Paths
from data.files.imagefile import CLUTTER, FORMATS, PREFIX, SUFFIXES
from data.files.skipped import LEFT_OUT
from data.lazy import Fit
from data.sources import Source, own
from data.sources.own import UNLABELLED, Entry, Found, assemble

PARTS = ("images", "reasons", "shapes", "modes", "clear", "digests", "depth")  # what is kept of a folder
BLOCK = 512  # images decoded between two reports of progress
DEFAULT_SIZE = 64
LOOSE = "it lies in no class folder"
UNUSUAL = "passed over when the run was started; start a new one to read it"
LEADS_OUT = "it is a link that leads out of the folder"
DECODING = f"2 {FORMATS}"  # changes where the same files give other arrays than before, or can be read that could not


def load(
    root: Path,
    size: int | None = None,
    class_names: Sequence[str] | None = None,
    votes: str | Path | None = None,
    labels: str | Path | None = None,
    test_share: float | None = None,
    by_suffix: bool = False,
    fit: Fit | None = None,
    on_demand: bool = False,
) -> ImageDataset:
    """The images under `root`; ids are their paths relative to it.

    size: height and width to bring every image to; by default the size that all of them have, when it is at most 64 x
    64, else on demand the median of their sides, at most 224 (`data.files.look.usual`), and otherwise 64. class_names: the
    classes and their order; by default the folders' or labels' names in alphabetical order, or the vote columns in theirs,
    or those that `votes` names. votes: a table of annotators' votes (`data.annotations`) by the ids; votes on test images and
    on unreadable ones are left out. labels: a table of labels instead of metadata.csv. test_share: the share in [0, 1) of each
    class's labelled images that is held out as the test set, by default a fifth; with 0 every image belongs to the pool,
    those of a test tree too, and with anything else a test tree stays the test set. by_suffix: of a tree, the usual suffixes
    alone, for runs that were started so. fit: how an image of another shape is brought to that size, by default "resize";
    implies on_demand. on_demand: decode images when they are read, instead of all at once, as runs that were started so need
    it. Raises UserError when there is nothing to learn from, or a table is wrong.
    """
    seen = find(root, size, class_names, votes, labels, test_share, by_suffix, fit, on_demand)
    return assemble(seen, class_names, votes)


def find(
    root: Path,
    size: int | None = None,
    class_names: Sequence[str] | None = None,
    votes: str | Path | None = None,
    labels: str | Path | None = None,
    test_share: float | None = None,
    by_suffix: bool = False,
    fit: Fit | None = None,
    on_demand: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Found:
    """List the images and look at them, or decode them, or take either from the cache; parameters and errors as of `load`.

    progress: told how many images are done, and of how many.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the path of a folder of images")
    own.check_options(size, fit, test_share)
    on_demand = on_demand or fit is not None
    root = root.resolve()
    skipped = left_out_before(root)
    needs_label = votes is None and class_names is None
    table = annotations.beside(root) if labels is None else Path(labels).expanduser()
    if table is not None:
        if labels is None and not table.resolve().is_relative_to(root):
            raise UserError(f"{table} is a link that leads out of the folder; put the table itself there")
        entries, columns = _read_metadata(root, table, class_names, skipped, needs_label)
    else:
        used = None if votes is None else Path(votes).expanduser().resolve()
        entries, columns = _walk(root, skipped, needs_label, used, on_demand), []
        if by_suffix:
            skipped += [(entry.id, UNUSUAL) for entry in entries if not _is_usual(entry)]
            entries = [entry for entry in entries if _is_usual(entry)]
    if not entries and any(why == LOOSE for _, why in skipped):
        raise UserError(
            f"no image in {root} lies in a class folder; sort them into a folder for each class, or name the classes for "
            "people to choose from"
        )
    if not entries:
        other = f", but {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UserError(
            f"there is no image in {root}{other}; expected class folders with images, train and test folders of them, or a "
            "metadata.csv"
        )
    entries = own.pool_then_test(entries, test_share)
    ids = [entry.id for entry in entries]
    if on_demand:
        files = Paths(root, ids, [root])
        return own.found(
            "folder",
            root,
            entries,
            files,
            size=size,
            fit=fit,
            skipped=skipped,
            columns=columns,
            table=table,
            progress=progress,
        )
    parts = cached_images("folder", root, ids, size, lambda: _decode_all(root, ids, size, progress), PARTS, DECODING)
    reasons, depth = parts["reasons"], int(parts["depth"])
    decode.depths[root] = depth
    read = reasons == ""
    if not read.any():
        raise UserError(f"no image in {root} can be read; the first one: {ids[0]}: {reasons[0]}")
    skipped += [(id, str(reason)) for id, reason in zip(ids, reasons, strict=True) if reason]
    return Found(
        root,
        table,
        [entry for entry, whole in zip(entries, read, strict=True) if whole],
        columns,
        parts["images"],
        parts["shapes"][read],
        parts["modes"][read],
        parts["clear"][read],
        parts["digests"][read],
        depth,
        skipped,
    )


# --- which images there are ------------------------------------------------------------------------------------------


def left_out_before(root: Path) -> list[tuple[str, str]]:
    """What was left out of an uploaded archive when it was unpacked."""
    try:
        return [(str(name), str(why)) for name, why in json.loads((root / LEFT_OUT).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{root / LEFT_OUT} is damaged; delete it, or upload the images again") from error


def _is_usual(entry: Entry) -> bool:
    return PurePosixPath(entry.id).suffix.lower() in SUFFIXES


def _walk(root: Path, skipped: list[tuple[str, str]], needs_label: bool, used: Path | None, dicom: bool) -> list[Entry]:
    """The images of an ImageFolder tree, in the order of their paths; a test image always needs its label.

    used: a table of votes, which may lie among them · dicom: whether DICOM files are images.
    """
    splits = _splits(root)
    entries = []
    for prefix, is_test in splits:
        for id in files(root, prefix, skipped, used, dicom):
            label, deeper, _ = id[len(prefix) :].partition("/")
            if not deeper and (needs_label or is_test):
                skipped.append((id, LOOSE))
            else:
                entries.append(Entry(id, label if deeper else None, is_test))
    if len(splits) > 1:
        names = [prefix[:-1] for prefix, _ in splits]
        read = {path for name in names for path in (root / name, (root / name).resolve())}
        rest = files(root, "", skipped, used, dicom, read)
        skipped += [(id, f"it lies neither in {names[0]} nor in {names[1]}") for id in rest]
    return entries


def _splits(root: Path) -> list[tuple[str, bool]]:
    """Where the images lie, and whether to test with them: train/ and test/ or val/, or all in the root.

    Raises UserError where one of them is a link that leads out: without it, the others would mean something else.
    """
    _refuse_link_out(root, "train")
    # A folder "train" that holds images itself is a class (trains), not a split.
    if not ((root / "train").is_dir() and any(child.is_dir() for child in (root / "train").iterdir())):
        return [("", False)]
    for test in ("test", "val"):
        _refuse_link_out(root, test)
        if (root / test).is_dir():
            return [("train/", False), (f"{test}/", True)]
    return [("train/", False), ("test/", True)]


def _refuse_link_out(root: Path, name: str) -> None:
    if _leads_out(root, root / name):
        raise UserError(
            f"{root / name} is a link that leads out of the folder and is not followed; put the images themselves there, or "
            "give the folder that holds them"
        )


def _leads_out(root: Path, path: Path) -> bool:
    """Whether a path below a resolved root is, through any link on the way, elsewhere."""
    return not Path(os.path.realpath(path)).is_relative_to(root)  # Path.resolve raises for a ring of links


def files(
    root: Path,
    prefix: str,
    skipped: list[tuple[str, str]],
    used: Path | None,
    dicom: bool,
    apart: Collection[Path] = (),
) -> list[str]:
    """Sorted POSIX paths, relative to `root`, of the image files under root/prefix; hidden ones and clutter are passed over.

    used: a file that is read otherwise · apart: folders to pass over. Texts instead of `Path`s, and one look of the system's
    at each file: there may be a million.
    """
    found: list[str] = []
    top, folders, links = str(root), [prefix.rstrip("/")], Links(root)
    passed, other = {str(path) for path in apart}, None if used is None else str(used)
    while folders:
        folder = folders.pop()
        here = os.path.join(top, folder) if folder else top
        before = f"{folder}/" if folder else ""
        deeper = []
        try:
            entries = list(os.scandir(here))
        except OSError:
            continue
        plain = _is_text(before)
        for entry in entries:
            name, id = entry.name, before + entry.name
            if _is(entry.is_dir):
                if name.startswith((".", "__MACOSX")) or entry.path in passed:
                    continue
                if entry.is_symlink():
                    skipped.append((_printable(id), "a link to a folder is not followed"))
                else:
                    deeper.append(id)
                continue
            if name.startswith(".") or name.lower() in CLUTTER or entry.path == other:
                continue
            if entry.is_symlink() and links.leads_out(here, name):
                why = LEADS_OUT
            elif not _is(entry.is_file):
                why = "it is no file: a link to nothing, or a device"
            elif not (plain and _is_text(name)):
                why = "its name is not valid UTF-8; rename it"
            elif name[name.rfind(".") :].lower() in SUFFIXES:
                found.append(id)
                continue
            else:
                why = imagefile.left_out(PurePosixPath(name), partial(_first, entry.path), dicom=dicom)
            if why:
                skipped.append((_printable(id), why))
            else:
                found.append(id)
        folders += reversed(deeper)
    return sorted(found)


def _is(kind: Callable[[], bool]) -> bool:
    """What a folder's entry says it is; nothing, where a ring of links leads nowhere."""
    try:
        return kind()
    except OSError:
        return False


def _is_text(name: str) -> bool:
    """Whether a name is valid UTF-8, of which Python keeps other bytes as halves of surrogate pairs."""
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


def _first(path: str) -> bytes:
    with open(path, "rb", buffering=0) as opened:
        return opened.read(PREFIX)


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def is_votes(table: Path) -> bool:
    """Whether a table holds votes (`sample_id`), for `votes`, rather than labels (`file_name`), for `labels`.

    Raises UserError where it cannot be read, or holds neither.
    """
    if table.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{table.name} is no table; give a file .csv or .parquet")
    header = [name.strip() for name in _rows(table)[0]]
    if "file_name" not in header and "sample_id" not in header:
        raise UserError(
            f"{table.name} has neither a column file_name, for labels, nor a column sample_id, for annotations; its columns are "
            f"{', '.join(header)}"
        )
    return "file_name" not in header


def _rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a table, all text; a row with too many cells has the key None."""
    try:
        if file.suffix.lower() == ".parquet":
            found = pd.read_parquet(file)
            header = [str(name) for name in found.columns]
            columns = [[annotations._text(cell) for cell in found.iloc[:, k]] for k in range(len(header))]
            return header, [dict(zip(header, cells, strict=True)) for cells in zip(*columns, strict=True)]
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened)
            rows = [{key: cell or "" for key, cell in row.items()} for row in reader]
            return list(reader.fieldnames or []), rows
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}; give a table of labels, CSV or Parquet") from error
    except (OSError, ValueError, csv.Error) as error:  # ValueError: as which the errors of UTF-8 and of pyarrow come
        kind = "Parquet" if file.suffix.lower() == ".parquet" else "UTF-8"
        raise UserError(f"{file} cannot be read as a {kind} table ({error}); save it again as CSV, UTF-8") from error


def _read_metadata(
    root: Path, file: Path, class_names: Sequence[str] | None, skipped: list[tuple[str, str]], needs_label: bool
) -> tuple[list[Entry], list[str]]:
    """The images named by a table of labels, in its order, and the columns that hold votes (none without votes)."""
    header, rows = _rows(file)
    if not needs_label and "label" not in header:
        header.append("label")
        rows = [{**row, "label": ""} for row in rows]
    absent = [name for name in ("file_name", "label") if name not in header]
    if absent:
        raise UserError(f"{file} has no column {' and no column '.join(absent)}; its columns are {', '.join(header)}")

    labels = [None if row["label"].strip().lower() in UNLABELLED else row["label"].strip() for row in rows]
    others = [name for name in header if name not in ("file_name", "label")]
    if class_names is not None:
        columns = list(class_names) if set(class_names) <= set(others) else []
    else:
        # Columns named after no label (a date, a patient) are not votes, unless they hold nothing but numbers beside others
        # that are: a class that only minorities voted for.
        columns = [name for name in others if name in labels or all(_is_number(row[name]) for row in rows)]
        columns = columns if set(columns) & set(labels) or not any(labels) else []

    entries, seen, links = [], set(), Links(root)
    for number, (row, label) in enumerate(zip(rows, labels, strict=True), start=2):
        id = row["file_name"].strip()
        path = PurePosixPath(id)
        if path.is_absolute() and path.is_relative_to(root):
            path = path.relative_to(root)
            id = path.as_posix()
        if None in row:
            raise UserError(f"line {number} of {file} has more cells than the header; put quotes round commas")
        if not id or "\0" in id or path.is_absolute() or ".." in path.parts:
            raise UserError(f"line {number} of {file} names {id!r}; file_name must be a path inside of {root}")
        if id in seen:
            raise UserError(f"line {number} of {file} names {id} a second time; keep one line per image")
        seen.add(id)
        above, last = os.path.split(os.path.join(root, id))
        if links.leads_out(above, last):  # first: whether anything is there outside is nobody's business
            skipped.append((id, LEADS_OUT))
            continue
        if not _there(root / id):
            raise UserError(f"line {number} of {file} names {id}, which is not in {root}; add it or drop the line")
        votes = {name: _votes(row[name], name, f"line {number} of {file}") for name in columns}
        entries.append(Entry(id, label, votes=votes or None))
    return entries, columns


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the system allows
        return False


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def _votes(cell: str, name: str, where: str) -> int:
    """The number of votes for the class `name`; a blank cell is none, and 3.0 is 3: tables with gaps are written so."""
    try:
        number = float(cell or 0)
    except ValueError:
        number = -1.0
    if not (0 <= number < 1e9 and number.is_integer()):
        raise UserError(
            f"{where} holds {cell!r} under {name!r}, not a number of annotations; correct it, or drop "
            f"the column when {name!r} is no class"
        )
    return int(number)


# --- reading them ----------------------------------------------------------------------------------------------------


def _decode_all(
    root: Path, ids: list[str], size: int | None, progress: Callable[[int, int], object] | None = None
) -> dict[str, np.ndarray]:
    """images: uint8 [n,H,W,C], the readable ones · reasons: str [len(ids)], why one is not, else empty · the rest as `Found`,
    for all ids; zero where an image is not readable."""
    with ThreadPoolExecutor() as threads:
        heads = [
            # What is decoded at once is what runs of earlier versions saw, and for them scans were no images
            imagefile.NO_IMAGE if not isinstance(head, str) and head[2] in (dicom.GREY, dicom.COLOUR) else head
            for start in range(0, len(ids), BLOCK)
            for head in threads.map(lambda id: decode.head(root / id), ids[start : start + BLOCK])
        ]
        whole = [head for head in heads if not isinstance(head, str)]
        sizes = {head[:2] for head in whole}
        grey = all(head[2] in decode.GREY for head in whole)
        deep = [id for id, head in zip(ids, heads, strict=True) if not isinstance(head, str) and head[2] in decode.DEEP]
        depth = decode.bits(max(threads.map(lambda id: decode.brightest(root / id), deep), default=65535))
        height, width = DEFAULT_SIZE, DEFAULT_SIZE
        if size is not None:
            height, width = size, size
        elif len(sizes) == 1 and max(next(iter(sizes))) <= DEFAULT_SIZE:
            height, width = next(iter(sizes))
        images = np.empty((len(ids), height, width, 1 if grey else 3), np.uint8)
        digests = np.zeros((len(ids), 16), np.uint8)
        reasons: list[str] = []
        n = 0
        # In blocks: a caller who gives up (`progress` raises) waits for one block, not for the folder
        for start in range(0, len(ids), BLOCK):
            block = ids[start : start + BLOCK]
            for read in threads.map(lambda id: decode.read(root / id, height, width, grey, depth), block):
                head = heads[len(reasons)]
                if isinstance(read, str) or head == imagefile.NO_IMAGE:
                    reasons.append(read if isinstance(read, str) else imagefile.NO_IMAGE)
                else:
                    images[n], digests[len(reasons)] = read
                    reasons.append("")
                    n += 1
            if progress is not None:
                progress(len(reasons), len(ids))
    none = (0, 0, "", False)
    heads = [none if isinstance(head, str) or why else head for head, why in zip(heads, reasons, strict=True)]
    return {
        "images": images[:n],
        "reasons": np.array(reasons),
        "shapes": np.array([head[:2] for head in heads], np.int32),
        "modes": np.array([head[2] for head in heads]),
        "clear": np.array([head[3] for head in heads]),
        "digests": digests,
        "depth": np.array(depth),
    }


SOURCE = Source(
    name="folder",
    title="Your own images: class folders, or a metadata.csv with labels and annotations",
    load=load,
    find=find,
    options=(*own.OPTIONS, "votes", "labels", "by_suffix", "on_demand"),
    needs_root=True,
    place=4,
)
