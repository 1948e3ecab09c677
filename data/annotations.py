"""Who gave which label: a table with one vote a row, or one sample a row and one annotator a column."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.errors import UserError

LONG = ("sample_id", "annotator", "label")
NO_VOTE = {"", "nan", "-1", "-1.0"}
WHOLE = re.compile(r"(\d+)\.0+")


@dataclass(frozen=True)
class Annotations:
    """T votes in the order of the file: rows int64 [T] (of the samples), labels int64 [T], annotators, T names."""

    rows: np.ndarray
    labels: np.ndarray
    annotators: list[str]


@dataclass(frozen=True)
class Agreement:
    """How an annotator compares with the others.

    shared: on how many of the samples others voted too · compared: on how many of these one class leads among the
    others' votes · share: of the compared samples, those to which the annotator gave that class; None without any.
    """

    annotator: str
    votes: int
    shared: int
    compared: int
    share: float | None


def read(path: Path, sample_ids: Sequence[str], class_names: Sequence[str], ignore: Sequence[str] = ()) -> Annotations:
    """The votes of a file on these samples: `table`, then `resolve`; raises as they do."""
    return resolve(table(path), path.name, sample_ids, class_names, ignore)


def table(path: Path) -> pd.DataFrame:
    """The votes of a file, one a row: sample_id, annotator, label, all text; samples without a vote are left out.

    CSV (UTF-8) or Parquet; in long form (`sample_id, annotator, label`), or wide: `sample_id` and one column an annotator,
    with blanks, NaN or -1 where there is no vote. Raises UserError where the file is none of these, names an annotator
    twice on one sample, or holds a vote of nobody or on nothing.
    """
    found = _open(path)
    if "sample_id" not in found:
        raise UserError(f"{path.name} has no column sample_id; its columns are {', '.join(map(str, found.columns))}")
    if not {"annotator", "label"} <= set(found):
        others = [name for name in found if name != "sample_id"]
        if not others or {"annotator", "label"} & set(others):
            raise UserError(
                f"{path.name} needs the columns {', '.join(LONG)}, or sample_id and one column for each annotator"
            )
        # Samples in their order, and within a sample the annotators in theirs
        found = found.melt("sample_id", others, "annotator", "label", ignore_index=False).sort_index(kind="stable")
    votes = pd.DataFrame({name: [_text(cell) for cell in found[name]] for name in LONG}, dtype=str)
    votes["label"] = votes["label"].str.strip()
    votes = votes[~votes["label"].str.lower().isin(NO_VOTE)].reset_index(drop=True)
    if votes.empty:
        raise UserError(f"{path.name} holds no annotation; fill in some labels")
    for name in ("sample_id", "annotator"):
        blank = votes[name] == ""
        if blank.any():
            raise UserError(
                f"{path.name} holds {_many(blank.sum(), 'annotation')} without {name}; fill it in or drop them"
            )
    twice = votes.duplicated(["sample_id", "annotator"])
    if twice.any():
        first = votes[twice].iloc[0]
        raise UserError(
            f"{path.name} holds {_many(twice.sum(), 'duplicate annotation')}, the first by {first['annotator']!r} on "
            f"{first['sample_id']!r}; keep one annotation for each annotator and sample"
        )
    return votes


def beside(images: Path) -> Path | None:
    """The table of labels that lies in a folder of images, if one does."""
    return next((images / name for name in ("metadata.csv", "metadata.parquet") if (images / name).is_file()), None)


def _open(path: Path) -> pd.DataFrame:
    """The table as it stands in the file, numbered from 0; the cells of a CSV are text, those that are absent NaN."""
    try:
        if path.suffix.lower() == ".parquet":
            found = pd.read_parquet(path)
            return found.reset_index(drop="sample_id" not in found.index.names)
        # The header is read as a row: pandas would rename a second column of the same name, and take the first column
        # for row labels where all rows have a cell too many.
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; give a table of annotations, CSV or Parquet") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path.name} is empty; it needs the columns {', '.join(LONG)}") from error
    except (OSError, ValueError) as error:  # as which the errors of pandas and pyarrow come
        raise UserError(f"{path.name} cannot be read as a table ({error}); save it again as CSV or Parquet") from error
    header = cells.iloc[0]
    if header.duplicated().any():
        raise UserError(
            f"{path.name} has two columns {header[header.duplicated()].iloc[0]!r}; give each annotator one column"
        )
    return cells.iloc[1:].set_axis(header.tolist(), axis=1).reset_index(drop=True)


def _text(cell: object) -> str:
    """The cell as text; whole numbers of a column with gaps come as 3.0."""
    if cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _whole(label: str) -> str:
    """3 for 3.0, which is how a CSV holds the whole numbers of a column with gaps; other labels as they are."""
    return WHOLE.sub(r"\1", label) if WHOLE.fullmatch(label) else label


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's' if what[-1] != 's' else 'es'}"


def class_names(votes: pd.DataFrame) -> list[str]:
    """The classes that the votes of `table` name: alphabetical, or in the order of their numbers where all are."""
    found = sorted({_whole(label) for label in votes["label"]})
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else found


def resolve(
    votes: pd.DataFrame, name: str, sample_ids: Sequence[str], class_names: Sequence[str], ignore: Sequence[str] = ()
) -> Annotations:
    """The votes of `table` on these samples.

    Labels are read as by `codes`. name: of the file, for messages · ignore: ids that exist besides the samples, whose
    annotations are left out. Raises UserError for unknown samples and classes.
    """
    votes = votes[~votes["sample_id"].isin(set(ignore))]
    row_of = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    rows = votes["sample_id"].map(row_of)
    if rows.isna().any():
        unknown = votes.loc[rows.isna(), "sample_id"]
        raise UserError(
            f"{name} names {_many(unknown.nunique(), 'sample')} that the data do not hold, the first {unknown.iloc[0]!r}; ids "
            f"look like {sample_ids[0]!r}"
        )
    code_of = codes(set(votes["label"]), class_names)
    labels = votes["label"].map(code_of)
    if labels.isna().any():
        unknown = votes.loc[labels.isna(), "label"]
        raise UserError(
            f"{name} names {_many(unknown.nunique(), 'class')} that the data do not have, the first {unknown.iloc[0]!r}; the "
            f"classes are {', '.join(class_names[:20])}{', …' if len(class_names) > 20 else ''}"
        )
    return Annotations(rows.to_numpy(np.int64), labels.to_numpy(np.int64), votes["annotator"].tolist())


def codes(labels: Iterable[str], class_names: Sequence[str]) -> dict[str, int | None]:
    """The class that each label names, None where it names none.

    Labels are class names; or the numbers 0 … K - 1 of the classes, where none of these numbers is a class's name.
    """
    code_of = {class_name: code for code, class_name in enumerate(class_names)}
    numbers = {str(code): code for code in range(len(class_names))}
    if not numbers.keys() & code_of.keys():
        code_of |= numbers
    return {label: code_of.get(label, code_of.get(_whole(label))) for label in labels}


def counts(annotations: Annotations, n: int, n_classes: int) -> np.ndarray:
    """Votes of each of n samples for each class: int64 [n, n_classes]."""
    found = np.zeros((n, n_classes), np.int64)
    np.add.at(found, (annotations.rows, annotations.labels), 1)
    return found


def agreement(annotations: Annotations, n_classes: int) -> list[Agreement]:
    """Each annotator compared with the others, in the order of their first answers; where the others tie, none counts."""
    if not annotations.annotators:
        return []
    votes = np.arange(len(annotations.rows))
    others = counts(annotations, int(annotations.rows.max()) + 1, n_classes)[annotations.rows]  # [T, C]
    others[votes, annotations.labels] -= 1  # without the vote itself
    most = others.max(axis=1)
    shared = most > 0
    compared = shared & ((others == most[:, None]).sum(axis=1) == 1)
    agrees = compared & (others[votes, annotations.labels] == most)
    number = {name: i for i, name in enumerate(dict.fromkeys(annotations.annotators))}
    who = np.array([number[name] for name in annotations.annotators])
    sums = [np.bincount(who[kept], minlength=len(number)).tolist() for kept in (votes, shared, compared, agrees)]
    return [
        Agreement(name, given, beside, clear, equal / clear if clear else None)
        for name, given, beside, clear, equal in zip(number, *sums, strict=True)
    ]
