"""What a model of one's own says of the samples: predicted probabilities and embeddings, read from files and checked.

    probs.npy                 float [N, C], a row for each sample in the order in which the samples come
    probs.csv, .parquet       a column sample_id (or file_name) and one column for each class, rows in any order

Embeddings are the same with D columns of any name. Nothing in these files is run: no pickle is read.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from data import annotations
from data.errors import UserError
from data.words import count

KEYS = ("sample_id", "file_name")  # what the column of ids may be called
SUFFIXES = (".npy", ".csv", ".parquet")
TOLERANCE = 0.01  # of a row's sum: float16 and probabilities of three decimals stay well within it
BLOCK = 1 << 16  # rows that are checked at a time, so that a memory map is never held whole
Rows = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers. name: of the file · values: float [n, d] · ids: of the rows, None where they come in the order of the
    samples · columns: what the d columns are called, None of a .npy file."""

    name: str
    values: Rows
    ids: list[str] | None
    columns: list[str] | None


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The labels of n samples. counts: annotations for each class, int64 [n, C], without any where a sample has no label."""

    ids: list[str]
    counts: NDArray[np.int64]
    class_names: list[str]


def read(path: Path) -> Table:
    """The rows of a .npy, CSV or Parquet file. Raises `UserError` where it is none of these, or damaged."""
    if path.suffix.lower() == ".npy":
        return Table(path.name, _array(path), None, None)
    found = _arrow(path)
    key = _key(found, path.name)
    columns = [name for name in found.column_names if name not in KEYS]
    if not columns:
        raise UserError(f"{path.name} has no column besides {key}; it needs one for each class, or of the embedding")
    ids = _texts(found[key])
    _refuse_twice(ids, path.name)
    return Table(path.name, np.column_stack([_numbers(found[name], name, path.name) for name in columns]), ids, columns)


def ids_of(path: Path) -> list[str]:
    """The samples that a table names, in the order of its rows. Raises `UserError` where it names none."""
    found = _arrow(path)
    return _texts(found[_key(found, path.name)])


def _key(found: pa.Table, name: str) -> str:
    key = next((one for one in KEYS if one in found.column_names), None)
    if key is None:
        raise UserError(f"{name} has no column sample_id or file_name; its columns are {_list(found.column_names)}")
    return key


def _array(path: Path) -> Rows:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path.name} cannot be read as an array of numbers: it is cut short, or holds pickled objects, which are not "
            "opened; write it once more by numpy.save of a float array"
        ) from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f" or not found.size:
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else "an archive of several arrays"
        raise UserError(f"{path.name} holds {what}; it needs floats [samples, columns], one row for each sample")
    return found


def _absent(path: Path) -> UserError:
    return UserError(f"there is no file {path}; give a file {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def _arrow(path: Path) -> pa.Table:
    """A CSV or Parquet file, ids and labels as text."""
    text = dict.fromkeys([*KEYS, "label", "annotator"], pa.string())
    try:
        if path.suffix.lower() == ".parquet":
            found = pyarrow.parquet.read_table(path)
        elif path.suffix.lower() == ".csv":
            found = pyarrow.csv.read_csv(
                path, convert_options=pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=False)
            )
        else:
            raise UserError(f"{path.name} is no file {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; give one of these")
    except FileNotFoundError as error:
        raise _absent(path) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise UserError(f"{path.name} cannot be read as a table ({reason}); save it again as CSV or Parquet") from error
    twice = pd.Index(found.column_names)
    if twice.has_duplicates:
        raise UserError(f"{path.name} has two columns {twice[twice.duplicated()][0]!r}; rename or drop one")
    if not found.num_rows:
        raise UserError(f"{path.name} has no row; it needs one for each sample")
    return found


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Cells as text, as `data.annotations` has them: nothing for a gap, 3 for 3.0."""
    if pa.types.is_floating(column.type) or pa.types.is_dictionary(column.type):
        return [annotations._text(cell) for cell in column.to_pylist()]
    return list(pc.fill_null(column.cast(pa.string()), "").to_pylist())


def _numbers(column: pa.ChunkedArray, name: str, file: str) -> Rows:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        if pa.types.is_null(column.type):
            return np.full(len(column), np.nan)
        raise UserError(
            f"{file} holds no numbers in the column {name!r}; drop it, or write numbers: one column for each class, or of the "
            "embedding"
        )
    return np.asarray(column.to_numpy(), dtype=np.float32 if column.type == pa.float32() else np.float64)


def _refuse_twice(ids: Sequence[str], file: str) -> None:
    index = pd.Index(ids)
    if index.has_duplicates:
        twice = index[index.duplicated()]
        raise UserError(f"{file} names {twice[0]!r} more than once; keep one row for each sample")


def probabilities(table: Table, ids: Sequence[str], class_names: Sequence[str], order: str) -> Rows:
    """The predicted probabilities of the samples `ids` [n] for the classes [C], float [n, C] in their order.

    order: how samples come that have no key, for messages. A table with a key may hold other samples too. Raises `UserError`
    for samples that it does not hold, other classes, and rows that are no probabilities.
    """
    values = _of_samples(table, ids, order)
    n_classes = len(class_names)
    if values.shape[1] != n_classes:
        raise UserError(
            f"{table.name} has {values.shape[1]} columns of numbers, and there are {n_classes} classes; give one column for each "
            f"class: {_list(class_names)}"
        )
    if table.columns is not None:
        code_of = annotations.codes(table.columns, class_names)
        strange = [name for name, code in code_of.items() if code is None]
        if strange:
            raise UserError(
                f"{table.name} has a column {strange[0]!r}, and the classes are {_list(class_names)}; name each column after its "
                "class"
            )
        places = {code: place for place, code in enumerate(code_of.values())}
        if len(places) < n_classes:
            raise UserError(f"{table.name} has two columns for one class; keep one for each: {_list(class_names)}")
        order_of = [places[code] for code in range(n_classes)]
        # In the order of the rows in memory too: sums over the classes are then the same to the last bit, whatever the file
        values = values if order_of == list(range(n_classes)) else np.take(values, order_of, axis=1)
    check(values, table.name, ids)
    return values


def check(values: Rows, name: str, ids: Sequence[str]) -> None:
    """Raise `UserError` for the first row [n, C] that is not finite, not in [0, 1], or does not sum to one."""
    for start, block in _blocks(values):
        wrong = ~np.isfinite(block).all(axis=1)
        if wrong.any():
            at = start + int(wrong.argmax())
            raise UserError(
                f"{name} holds a number that is missing or not finite, in the row of {ids[at]!r}; predict that sample again, or "
                "leave it out here and in the labels"
            )
        wrong = (block < -TOLERANCE).any(axis=1) | (block > 1 + TOLERANCE).any(axis=1)
        if wrong.any():
            at = start + int(wrong.argmax())
            raise UserError(
                f"{name} holds a number below 0 or above 1, in the row of {ids[at]!r}; give probabilities, after the softmax, "
                "instead of logits"
            )
        sums = block.sum(axis=1, dtype=np.float64)
        wrong = np.abs(sums - 1) > TOLERANCE
        if wrong.any():
            at = int(wrong.argmax())
            raise UserError(
                f"{name} holds a row that sums to {sums[at]:.3g} instead of 1, that of {ids[start + at]!r}; give probabilities "
                "over all classes, after the softmax"
            )


def embeddings(table: Table, ids: Sequence[str], order: str) -> NDArray[np.float32]:
    """The embeddings of the samples `ids` [n], float32 [n, D] in their order.

    Raises `UserError` as `probabilities` for samples that are not there, and for numbers that are not finite.
    """
    values = _of_samples(table, ids, order)
    for start, block in _blocks(values):
        wrong = ~np.isfinite(block).all(axis=1)
        if wrong.any():
            raise UserError(
                f"{table.name} holds a number that is missing or not finite, in the row of {ids[start + int(wrong.argmax())]!r}; "
                "embed that sample again, or leave it out"
            )
    return np.asarray(values, dtype=np.float32)


def digest(*arrays: Rows | None) -> str:
    """A short name for the contents of arrays."""
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(b"none" if array is None else f"{array.dtype.str}{array.shape}".encode())
        for _, block in () if array is None else _blocks(array):
            found.update(np.ascontiguousarray(block).tobytes())
    return found.hexdigest()


def spare(table: Table, ids: Sequence[str]) -> int:
    """How many rows of a table are of other samples than these."""
    return 0 if table.ids is None else len(table.values) - len(ids)


def _blocks(values: Rows) -> Iterator[tuple[int, Rows]]:
    for start in range(0, len(values), BLOCK):
        yield start, values[start : start + BLOCK]


def _of_samples(table: Table, ids: Sequence[str], order: str) -> Rows:
    """The rows of the samples [n], in their order."""
    if table.ids is None:
        if len(table.values) != len(ids):
            raise UserError(
                f"{table.name} has {count(len(table.values), 'row')}, and there are {count(len(ids), 'sample')}; give one "
                f"row for each in the order of {order}, or a CSV or Parquet file with a column sample_id"
            )
        return table.values
    if table.ids == list(ids):  # quicker than a million look-ups
        return table.values
    rows = pd.Index(table.ids).get_indexer(pd.Index(ids))
    if (rows < 0).any():
        raise UserError(
            f"{table.name} has no row for {count(int((rows < 0).sum()), 'sample')}, the first {ids[int((rows < 0).argmax())]!r}; "
            f"its ids look like {table.ids[0]!r}"
        )
    return table.values[rows]


def _list(class_names: Sequence[str]) -> str:
    return ", ".join(class_names[:20]) + (", …" if len(class_names) > 20 else "")


# --- labels without images -----------------------------------------------------------------------------------------


def read_labels(path: Path, n_classes: int, class_names: Sequence[str] | None = None) -> LabelTable:
    """Labels or annotations of samples, one row a sample in the order of the file.

    A column sample_id or file_name and a column label; or the annotations of several people (`data.annotations`); or a .npy
    file of int [n], whose samples are called by the number of their row. class_names: what the classes are called, in the
    order of the columns of the predicted probabilities; None: as the labels say, numbers 0 … C − 1 or names in alphabetical
    order. Raises `UserError` for labels that are none of the classes.
    """
    if path.suffix.lower() == ".npy":
        return _label_array(path, n_classes, class_names)
    found = _arrow(path)
    key = _key(found, path.name)
    ids = _texts(found[key])
    if "label" in found.column_names and "annotator" not in found.column_names:
        _refuse_twice(ids, path.name)
        label, code = np.unique(np.array(_texts(found["label"]), dtype=object).astype(str), return_inverse=True)
        texts = [one.strip() for one in label]
        known = [text for text in texts if text.lower() not in annotations.NO_VOTE]
        names = _class_names(known, n_classes, class_names, path.name)
        code_of = annotations.codes(set(known), names)
        _refuse_strange(code_of, names, path.name)
        of_text = np.array([-1 if code_of.get(text) is None else code_of[text] for text in texts], dtype=np.int64)
        return LabelTable(ids, _one_hot(of_text[code], n_classes), names)
    votes = annotations.table(path)
    ids = list(dict.fromkeys(ids))
    names = _class_names(votes["label"].unique(), n_classes, class_names, path.name)
    given = annotations.resolve(votes, path.name, ids, names)
    return LabelTable(ids, annotations.counts(given, len(ids), n_classes), names)


def _label_array(path: Path, n_classes: int, class_names: Sequence[str] | None) -> LabelTable:
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path.name} cannot be read as an array of labels: it is cut short, or holds pickled objects, which are not "
            "opened; write it once more by numpy.save of an int array"
        ) from error
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iu":
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else "an archive of several arrays"
        raise UserError(f"{path.name} holds {what}; labels are whole numbers, int [samples], one for each sample")
    if len(found) and not -1 <= found.min() <= found.max() < n_classes:
        raise UserError(
            f"{path.name} holds the labels {found.min()} to {found.max()}, and there are {n_classes} classes; labels run "
            f"from 0 to {n_classes - 1}, or −1 for none"
        )
    names = list(class_names) if class_names is not None else [str(code) for code in range(n_classes)]
    return LabelTable([str(row) for row in range(len(found))], _one_hot(found.astype(np.int64), n_classes), names)


def _class_names(labels: Sequence[str], n_classes: int, given: Sequence[str] | None, file: str) -> list[str]:
    if given is not None:
        return list(given)
    names = annotations.class_names(pd.DataFrame({"label": labels}))
    if all(name.isdecimal() and int(name) < n_classes for name in names):
        return [str(code) for code in range(n_classes)]
    if len(names) == n_classes:
        return names
    raise UserError(
        f"{file} holds {count(len(names), 'label')} ({_list(names)}), and the predicted probabilities have {n_classes} columns; "
        "say with --classes what the columns stand for, in their order"
    )


def _refuse_strange(code_of: dict[str, int | None], names: Sequence[str], file: str) -> None:
    strange = [label for label, code in code_of.items() if code is None]
    if strange:
        raise UserError(
            f"{file} holds the label {strange[0][:100]!r}, which is none of the classes {_list(names)}; correct the label, or "
            "give labels and predictions the same class names"
        )


def _one_hot(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Counts [n, C] of one label each [n]; none of −1."""
    found = np.zeros((len(labels), n_classes), dtype=np.int64)
    there = np.flatnonzero(labels >= 0)
    found[there, labels[there]] = 1
    return found
