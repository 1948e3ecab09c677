"""Parquet files as Hugging Face's datasets writes them: a column of images, each its encoded bytes, and one of labels.

`root` is one file or a folder of shards; those whose name or folder begins with "test" (or else "val") are the test set. The
image column is a struct with `bytes`, or plain binary. Labels are texts, or numbers whose names stand in the schema's metadata
(ClassLabel). Ids are FILE/ROW. Nothing is unpacked: a group of rows is read when one of its images is asked for, so that files
with groups of some hundred rows, as Hugging Face writes them, are read fastest.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.dataset import ImageDataset
from data.errors import UserError
from data.lazy import Fit
from data.sources import Source, own
from data.sources.own import Entry, Found, Progress, assemble

IMAGES, LABELS = ("image", "img"), ("label", "labels", "class")  # what the columns are usually called
MEMORY = 256 << 20  # bytes of groups of rows that are kept
LARGEST = 1 << 30  # bytes of images in a group


def load(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
) -> ImageDataset:
    """The images in Parquet files at `root`; options and errors as of `data.sources.folder.load`.

    class_names: by default those of the schema, in its order.
    """
    return assemble(find(root, size, fit, class_names, test_share), class_names)


def find(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Read the labels and look at the images; parameters and errors as of `load`."""
    own.check_options(size, fit, test_share)
    shards = own.shards(root, ".parquet", "Parquet file")
    column, labels, names = _columns(shards[0][0])
    if labels is None and class_names is None:
        raise UserError(f"{shards[0][0].name} has no column label; name the classes for people to choose from")
    names = list(class_names or names)
    top = root.resolve() if root.is_dir() else root.resolve().parent
    entries: list[Entry] = []
    counts = []
    for file, test in shards:
        if _columns(file)[:2] != (column, labels):
            raise UserError(f"{file.name} has other columns than {shards[0][0].name}; give files of one data set")
        stem, given = file.relative_to(top).with_suffix("").as_posix(), _labels(file, labels, names)
        counts.append(len(given))
        entries += [Entry(f"{stem}/{row}", label, test, place=len(entries) + row) for row, label in enumerate(given)]
    if not entries:
        raise UserError(f"there is no row in {root}; give Parquet files with images")
    which = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    rows = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
    cells = Cells([file for file, _ in shards], column, which, rows, [entry.id for entry in entries])
    entries = own.pool_then_test(entries, test_share)
    return own.found(
        "parquet",
        root.resolve(),
        entries,
        cells.take(np.array([entry.place for entry in entries], np.int64)),
        size=size,
        fit=fit,
        skipped=[],
        class_names=names if labels is not None else (),
        progress=progress,
    )


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{file.name} cannot be read as a Parquet file ({reason}); download or write it again"
        ) from error


def _columns(file: Path) -> tuple[str, str | None, list[str]]:
    """The path of the images' bytes, the column of the labels, None without one, and the names of the classes, if it has them."""
    with _opened(file) as opened:
        schema = opened.schema_arrow
    bytes_of = {}
    for one in schema:
        if (
            pa.types.is_struct(one.type)
            and one.type.get_field_index("bytes") >= 0
            and _is_binary(one.type.field("bytes").type)
        ):
            bytes_of[one.name] = f"{one.name}.bytes"
        elif _is_binary(one.type):
            bytes_of[one.name] = one.name
    image = next((name for name in (*IMAGES, *bytes_of) if name in bytes_of), None)
    if image is None:
        raise UserError(
            f"{file.name} holds no images: none of its columns ({', '.join(schema.names)}) has encoded images, as bytes or as a "
            "struct with bytes; give a data set of images"
        )
    features = _features(schema.metadata or {})
    classes = {name: found for name, one in features.items() if (found := _class_names(one))}
    label = next((name for name in (*LABELS, *classes) if name in schema.names), None)
    return bytes_of[image], label, classes.get(label or "", [])


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """What Hugging Face's datasets noted of the columns."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return dict(json.loads(metadata[b"huggingface"])["info"]["features"])
    return {}


def _class_names(feature: Any) -> list[str]:
    """The names of a ClassLabel, else none."""
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _labels(file: Path, column: str | None, names: Sequence[str]) -> list[str | None]:
    with _opened(file) as opened:
        if column is None:
            return [None] * opened.metadata.num_rows
        try:
            given = opened.read(columns=[column]).column(column).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file.name} is damaged ({str(error).splitlines()[0]}); download it again") from error
    try:
        return own.named(given, names)
    except UserError as error:
        raise UserError(f"{file.name}, column {column}: {error}") from None


@dataclass(frozen=True, eq=False)
class Cells:
    """Images in a column of Parquet files: row `row[i]` of `files[which[i]]`; the groups of rows read last are kept."""

    files: Sequence[Path]
    column: str
    which: NDArray[np.int32]
    row: NDArray[np.int64]
    names: Sequence[str]
    groups: "_Groups" = field(default_factory=lambda: _Groups())

    def __len__(self) -> int:
        return len(self.names)

    def file(self, row: int) -> bytes:
        found = self.groups.cell(self.files[self.which[row]], self.column, int(self.row[row]))
        if found is None:
            raise ValueError("its row holds no image")
        return found

    def name(self, row: int) -> str:
        """Without a suffix: Parquet keeps bytes alone."""
        return self.names[row]

    def stamps(self) -> NDArray[np.int64]:
        """The first is no length, which takes reading the bytes, but differs from row to row."""
        changed = np.array([file.stat().st_mtime_ns ^ file.stat().st_size for file in self.files], np.int64)
        return np.stack([self.row - (self.which.astype(np.int64) << 40) - 1, changed[self.which]], axis=1)

    def take(self, rows: NDArray[np.int64]) -> "Cells":
        names = [self.names[row] for row in rows]
        return Cells(self.files, self.column, self.which[rows], self.row[rows], names, self.groups)


class _Groups:
    """Groups of rows, the last that were asked for, up to `MEMORY` bytes and at least one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.starts: dict[Path, NDArray[np.int64]] = {}
        self.kept: OrderedDict[tuple[Path, int], pa.ChunkedArray] = OrderedDict()

    def cell(self, file: Path, column: str, row: int) -> bytes | None:
        """The bytes in a row, None where there are none. Raises ValueError for a group that is damaged or too large."""
        with self.lock:
            if file not in self.starts:
                with pq.ParquetFile(file) as opened:
                    about = opened.metadata
                    sizes = [about.row_group(k).num_rows for k in range(about.num_row_groups)]
                self.starts[file] = np.concatenate([[0], np.cumsum(sizes)])
            group = int(np.searchsorted(self.starts[file], row, side="right")) - 1
            if (file, group) not in self.kept:
                self.kept[file, group] = self._read(file, column, group)
                while len(self.kept) > 1 and sum(one.nbytes for one in self.kept.values()) > MEMORY:
                    self.kept.popitem(last=False)
            self.kept.move_to_end((file, group))
            found = self.kept[file, group]
        return found[row - int(self.starts[file][group])].as_py()

    def _read(self, file: Path, column: str, group: int) -> pa.ChunkedArray:
        try:
            with pq.ParquetFile(file) as opened:
                about = opened.metadata.row_group(group)
                size = sum(
                    about.column(k).total_uncompressed_size
                    for k in range(about.num_columns)
                    if about.column(k).path_in_schema == column
                )
                if size > LARGEST:
                    raise ValueError(
                        f"its group of rows holds more than {LARGEST >> 30} GB; write the file in smaller ones"
                    )
                table = opened.read_row_group(group, columns=[column])
        except (OSError, pa.ArrowException) as error:
            raise ValueError("its group of rows is damaged") from error
        found = table.column(0)
        if not pa.types.is_struct(found.type):
            return found
        return pa.chunked_array([chunk.field("bytes") for chunk in found.chunks], type=found.type.field("bytes").type)


SOURCE = Source(
    name="parquet",
    title="Your own images: Parquet, as Hugging Face writes it",
    load=load,
    find=find,
    options=own.OPTIONS,
    needs_root=True,
    place=7,
)
