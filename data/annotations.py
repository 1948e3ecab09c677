"""Who gave which label: a table with one vote a row, or one sample a row and one annotator a column."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.errors import UserError

LONG = ("sample_id", "annotator", "label")
NO_VOTE = {"", "nan", "-1", "-1.0", "<na>", "none"}


@dataclass(frozen=True)
class Annotations:
    """T votes in the order of the file: rows int64 [T] (of the samples), labels int64 [T], annotators, T names."""

    rows: np.ndarray
    labels: np.ndarray
    annotators: list[str]


@dataclass(frozen=True)
class Agreement:
    """How an annotator votes. share: of the `compared` samples, those on which the majority of the others agrees."""

    annotator: str
    votes: int
    compared: int  # samples on which a majority of others has formed
    share: float | None  # None where there are none


def table(path: Path) -> pd.DataFrame:
    """The votes of a file, one a row: sample_id, annotator, label, all text; samples without a vote are left out.

    CSV (UTF-8) or Parquet; in long form (`sample_id, annotator, label`), or wide: `sample_id` and one column an annotator,
    with blanks, NaN or -1 where there is no vote. Raises UserError where the file is none of these.
    """
    try:
        if path.suffix.lower() == ".parquet":
            found = pd.read_parquet(path)
        else:
            found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; give a table of votes, CSV or Parquet") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path.name} is empty; it needs the columns {', '.join(LONG)}") from error
    except (OSError, ValueError, UnicodeDecodeError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise UserError(f"{path.name} cannot be read as a table ({error}); save it again as CSV or Parquet") from error
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
    found = found[list(LONG)].reset_index(drop=True)
    found["label"] = found["label"].map(_text)
    found = found[~found["label"].str.lower().isin(NO_VOTE)].reset_index(drop=True)
    found[["sample_id", "annotator"]] = found[["sample_id", "annotator"]].astype(str)
    if found.empty:
        raise UserError(f"{path.name} holds no vote; fill in some labels")
    twice = found.duplicated(["sample_id", "annotator"])
    if twice.any():
        first = found[twice].iloc[0]
        raise UserError(
            f"{path.name} holds {int(twice.sum())} duplicate votes, the first by {first['annotator']!r} on "
            f"{first['sample_id']!r}; keep one vote for each annotator and sample"
        )
    return found


def _text(cell: object) -> str:
    """A label as text; numbers of a column with gaps come as 3.0."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None or cell is pd.NA else str(cell).strip()


def resolve(
    votes: pd.DataFrame, name: str, sample_ids: Sequence[str], class_names: Sequence[str], ignore: Sequence[str] = ()
) -> Annotations:
    """The votes of `table` on these samples; labels are class names, or their numbers 0 … K − 1.

    name: of the file, for messages · ignore: ids that exist beside the samples, whose votes are left out. Raises
    UserError for unknown samples and classes.
    """
    votes = votes[~votes["sample_id"].isin(set(ignore))]
    row_of = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    rows = votes["sample_id"].map(row_of)
    if rows.isna().any():
        unknown = votes.loc[rows.isna(), "sample_id"]
        raise UserError(
            f"{name} names {unknown.nunique()} samples that the data do not hold, the first {unknown.iloc[0]!r}; ids look like "
            f"{sample_ids[0]!r}"
        )
    code_of = {str(code): code for code in range(len(class_names))} | {c: k for k, c in enumerate(class_names)}
    labels = votes["label"].map(code_of)
    if labels.isna().any():
        unknown = votes.loc[labels.isna(), "label"]
        raise UserError(
            f"{name} names {unknown.nunique()} classes that the data do not have, the first {unknown.iloc[0]!r}; the classes "
            f"are {', '.join(class_names[:20])}"
        )
    return Annotations(rows.to_numpy(np.int64), labels.to_numpy(np.int64), votes["annotator"].tolist())


def read(path: Path, sample_ids: Sequence[str], class_names: Sequence[str], ignore: Sequence[str] = ()) -> Annotations:
    """The votes of a file on these samples: `table`, then `resolve`; raises as they do."""
    return resolve(table(path), path.name, sample_ids, class_names, ignore)


def counts(annotations: Annotations, n: int, n_classes: int) -> np.ndarray:
    """Votes of each of n samples for each class: int64 [n, n_classes]."""
    found = np.zeros((n, n_classes), np.int64)
    np.add.at(found, (annotations.rows, annotations.labels), 1)
    return found


def agreement(annotations: Annotations, n_classes: int) -> list[Agreement]:
    """Each annotator against the majority of the others, the busiest first; where the others tie there is none."""
    n = int(annotations.rows.max()) + 1 if len(annotations.rows) else 0
    others = counts(annotations, n, n_classes)[annotations.rows]  # [T, C], without the vote itself
    others[np.arange(len(others)), annotations.labels] -= 1
    top = others.max(axis=1, initial=0)
    formed = (top > 0) & ((others == top[:, None]).sum(axis=1) == 1)
    agrees = others.argmax(axis=1) == annotations.labels if len(others) else formed
    found = []
    who = np.array(annotations.annotators, dtype=object)
    for name, n_votes in Counter(annotations.annotators).most_common():
        mine = (who == name) & formed
        share = float(agrees[mine].mean()) if mine.any() else None
        found.append(Agreement(name, n_votes, int(mine.sum()), share))
    return found
