"""rank: which labels to check, or which samples to label, by predictions of a model of one's own.

No image is read and nothing is trained: the table of a million samples takes seconds.
"""

import argparse
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from core import methods, metrics, neighbours, scores
from core.cli import options as known
from core.cli.options import Parser, add_choice
from core.cli.printing import file_format
from core.cli.shared import tell
from core.described import Score
from core.files import export
from core.relabel import Floats, Ints
from core.runs import imported, settle, spec
from data.errors import UserError
from data.files import predictions
from data.files.predictions import LabelTable, Table
from data.words import count

SHOWN = 10  # rows of the ranking that are printed


def rank_options(sub: Parser) -> None:
    """Options of `rank`."""
    sub.set_defaults(command=rank)
    known.add(sub, ("predictions", "embeddings", "predicted"), default="")
    known.add(sub, ("gamma",))
    sub.add_argument(
        "--labels",
        type=Path,
        help="labels to check: CSV or Parquet with sample_id (or file_name) and label, or several people's annotations; .npy "
        "int [samples]. Without it the samples are ranked by what to label next",
    )
    sub.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="what the columns of a .npy file stand for (default: as the labels say)",
    )
    names = [*label_scores(embedded=True), *acquisition_scores()]
    add_choice(
        sub,
        "--score",
        names,
        f"what ranks (default: {settle.default_method(spec.CLEANING)}; of several annotations {settle.VOTES_SCORE}; without "
        f"labels {settle.UNTRAINED_STRATEGY})",
    )
    sub.add_argument("--out", type=Path, required=True, help="the ranking, best first: .csv or .parquet")
    sub.add_argument("--json", action="store_true", help="print one object")


def label_scores(*, embedded: bool) -> dict[str, methods.label_scores.LabelScore]:
    """The scores of labels that need no model, in the order of lists; embedded: those too that need embeddings."""
    needs = ("posterior", "embeddings") if embedded else ("posterior",)
    return {name: one for name, one in methods.label_scores.CATALOGUE.items() if one.needs in needs and not one.bound}


def acquisition_scores() -> dict[str, methods.strategies.Strategy]:
    """The acquisition scores that need the predicted probabilities of classes alone."""
    found = methods.strategies.CATALOGUE.items()
    return {name: one for name, one in found if one.needs == "posterior" and "class" in one.answers}


def rank(options: argparse.Namespace) -> None:
    """Read, rank, write, and say what was found."""
    kind = file_format(options.out)
    if kind not in export.TABLE_FORMATS:
        raise UserError(f'"{kind}" is no format of a ranking: name a file that ends in .csv or .parquet.')
    if options.predictions is None:
        raise UserError(
            "Say what to rank by: --predictions takes a file of predicted probabilities, .npy, CSV or Parquet."
        )
    table = predictions.read(Path(options.predictions))
    labels, order = None, "the rows"
    if options.labels is not None:
        names = options.classes or table.columns
        labels = predictions.read_labels(options.labels, table.values.shape[1], names)
        order = f"the rows of {options.labels.name}"
    ids = labels.ids if labels is not None else table.ids or [str(row) for row in range(len(table.values))]
    class_names = labels.class_names if labels is not None else _named(options.classes, table)
    probs = predictions.probabilities(table, ids, class_names, order)
    embedded = None
    if options.embeddings is not None:
        embedded = predictions.embeddings(predictions.read(Path(options.embeddings)), ids, order)
    method = options.score or _default(labels)
    score = _score(method, labels, embedded)
    found = ranking(probs, ids, class_names, labels, score, gamma=options.gamma or 0.0, embeddings=embedded)
    export.write_file(options.out, csv_bytes(found) if kind == "csv" else export.table_bytes(found, kind))
    joined = "by id" if table.ids is not None else f"in the order of {order}"
    about = {**summary(found, score, labels), "joined": joined, "spare": predictions.spare(table, ids)}
    _report(about, found, options)


def _named(given: Sequence[str] | None, table: Table) -> list[str]:
    return list(given or table.columns or [str(code) for code in range(table.values.shape[1])])


def _default(labels: LabelTable | None) -> str:
    if labels is None:
        return settle.UNTRAINED_STRATEGY
    return settle.default_method(spec.CLEANING, votes=bool((labels.counts.sum(axis=1) > 1).any()))


def _score(name: str, labels: LabelTable | None, embedded: Any) -> Score:
    if labels is None:
        if name not in acquisition_scores():
            raise UserError(
                f"{name} ranks labels to check: give them with --labels, or choose one of {', '.join(acquisition_scores())}."
            )
        return acquisition_scores()[name]
    known = {key: one for key, one in label_scores(embedded=True).items() if one.ranks}
    if name not in known:
        raise UserError(
            f"{name} ranks samples without labels: leave --labels out, or choose one of {', '.join(known)}."
        )
    if known[name].needs == "embeddings" and embedded is None:
        raise UserError(f"{name} compares each sample with its neighbours: give --embeddings, or choose another score.")
    return known[name]


class _Predicted:
    """What `core.strategies.Pool` says of samples of which there are predicted probabilities alone."""

    def __init__(self, probs: Floats) -> None:
        self._probs = probs

    def __len__(self) -> int:
        return len(self._probs)

    def probs(self) -> Floats:
        return self._probs

    def entropy(self) -> Floats:
        return scores.entropy(self._probs)

    def margin(self) -> Floats:
        return scores.margin(self._probs)

    def shares(self) -> Floats:
        return self._probs


class _Embedded:
    """What `core.label_scores.AskedModel` says of samples of which there are embeddings."""

    def __init__(self, embeddings: Any, histogram: Ints, rows: Ints) -> None:
        self._embeddings, self._histogram, self._rows = embeddings, histogram, rows

    def neighbours(self) -> Floats:
        from core import graph  # half a second to import, which other scores do without

        return graph.diffuse(self._embeddings, self._histogram)[self._rows]


def ranking(
    probs: Any,
    ids: Sequence[str],
    class_names: Sequence[str],
    labels: LabelTable | None,
    score: Score,
    *,
    gamma: float = 0.0,
    embeddings: Any = None,
) -> pd.DataFrame:
    """One row a sample, the first to take first.

    probs: float [N, C] · ids: N · labels: of the samples in this order, None where they are to be labelled · score: what ranks ·
    embeddings: [N, D]. Columns: sample_id; rank, missing without a label to check; given_label and predicted_label, int, −1 for
    none or a tie, and their names; confidence; n_votes; every score that needs no model, **high = take first**; is_label_issue,
    label_score = p[label] and normalized_margin as in cleanlab, **low = bad**; and from embeddings near_duplicate_group (0:
    none), outlier_score (high = far from all others) and is_outlier (`core.neighbours`).
    """
    p = np.asarray(probs, dtype=np.float64)
    found: dict[str, Any] = {"sample_id": list(ids)}
    predicted, n = p.argmax(axis=1), len(p)
    if labels is None:
        columns = {
            name: one.of(cast(methods.strategies.Pool, _Predicted(p))) for name, one in acquisition_scores().items()
        }
        there, tied = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
        given = np.full(n, -1)
    else:
        counts = labels.counts
        votes = counts.sum(axis=1)
        most = counts.max(axis=1)
        there = votes > 0
        tied = there & ((counts == most[:, None]).sum(axis=1) > 1)
        given = np.where(there & ~tied, counts.argmax(axis=1), -1)
        columns = _of_labels(p, counts, given, np.flatnonzero(there), score, gamma, embeddings)
    chosen_by = columns[score.name]
    rows = np.flatnonzero(there)
    order = rows[np.lexsort((rows, -chosen_by[rows], ~tied[rows]))]
    place = np.zeros(n, dtype=np.int64)
    place[order] = np.arange(1, len(order) + 1)
    found["rank"] = pd.array(place, dtype="Int64") if there.all() else pd.Series(place).where(there).astype("Int64")
    names = np.array([*class_names, "—"], dtype=object)  # −1 is the last
    found |= {"given_label": given} if labels is not None else {}
    found |= {"predicted_label": predicted}
    found |= {"given_name": names[given]} if labels is not None else {}
    found |= {"suggested_name": names[predicted], "confidence": p.max(axis=1)}
    found |= {"n_votes": votes} if labels is not None else {}
    found |= columns
    if labels is not None:
        found |= _as_cleanlab(p, given, tied)
    if embeddings is not None:
        distance, neighbour = neighbours.nearest(embeddings)
        outlier = neighbours.outlier_score(distance)
        found["near_duplicate_group"] = neighbours.near_duplicates(distance, neighbour)
        found |= {"outlier_score": outlier, "is_outlier": outlier > neighbours.OUTLIER}
    sequence = np.concatenate([order, np.flatnonzero(~there)])
    return pd.DataFrame(found).iloc[sequence].reset_index(drop=True)


def _of_labels(
    p: Floats, counts: Ints, given: Ints, rows: Ints, score: Score, gamma: float, embeddings: Any
) -> dict[str, Floats]:
    """The scores of labels, [N] each, NaN but for the rows that have one."""
    asked = None if embeddings is None else cast(methods.label_scores.AskedModel, _Embedded(embeddings, counts, rows))
    every = len(rows) == len(p)
    mine = (counts, given, p) if every else (counts[rows], given[rows], p[rows])
    labelled, found = methods.label_scores.Labelled(*mine, gamma=gamma, asked=asked), {}
    # Neighbours are searched for where they rank alone: that takes longer than all else
    by_neighbours = getattr(score, "needs", "") == "embeddings"
    wanted = label_scores(embedded=by_neighbours)
    with ThreadPoolExecutor() as threads:  # numpy lets go of the lock
        values = list(threads.map(lambda one: one.of(labelled), wanted.values()))
    for name, column in zip(wanted, values, strict=True):
        found[name] = column if every else np.full(len(p), np.nan)
        if not every:
            found[name][rows] = column
    return found


def _as_cleanlab(p: Floats, given: Ints, tied: Any) -> dict[str, Any]:
    """The columns of cleanlab; a tie is an issue of label_score 0."""
    rows = np.flatnonzero(given >= 0)
    issue = tied.copy()
    quality, normalised = np.where(tied, 0.0, np.nan), np.where(tied, 0.0, np.nan)
    labels, probs = given[rows], p if len(rows) == len(p) else p[rows]
    issue[rows] = metrics.label_issues(labels, probs)
    quality[rows] = probs[np.arange(len(rows)), labels]
    normalised[rows] = scores.normalised_margin(labels, probs)
    return {"is_label_issue": issue, "label_score": quality, "normalized_margin": normalised}


def summary(found: pd.DataFrame, score: Score, labels: LabelTable | None) -> dict[str, Any]:
    """A ranking in numbers: samples, ranked, score; label_issues, near_duplicates and outliers where they are known."""
    said: dict[str, Any] = {"samples": len(found), "ranked": int(found["rank"].notna().sum()), "score": score.name}
    if labels is not None:
        said["without_label"] = said["samples"] - said["ranked"]
        said["label_issues"] = int(found["is_label_issue"].sum())
    if "is_outlier" in found:
        grouped = found["near_duplicate_group"]
        said["near_duplicates"], said["near_duplicate_groups"] = int((grouped > 0).sum()), int(grouped.max())
        said["outliers"] = int(found["is_outlier"].sum())
    return said


def csv_bytes(table: pd.DataFrame) -> bytes:
    """A DataFrame as CSV, by pyarrow: pandas takes ten times as long. Texts are guarded as in `export.table_bytes`."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    for place, field in enumerate(arrow.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = arrow.column(place)
            if pc.any(pc.match_substring_regex(column, export.FORMULA.pattern.join(["^(", ")"]))).as_py():
                guarded = [export.guarded(cell) for cell in column.to_pylist()]
                arrow = arrow.set_column(place, field.name, pa.array(guarded, pa.string()))
    half = -(-arrow.num_rows // 2)
    with ThreadPoolExecutor() as threads:
        return b"".join(threads.map(_written, (arrow.slice(0, half), arrow.slice(half)), (True, False)))


def _written(arrow: pa.Table, header: bool) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(arrow, buffer, pyarrow.csv.WriteOptions(include_header=header, quoting_style="needed"))
    return buffer.getvalue()


def _report(about: dict[str, Any], found: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print what was found, on stderr what to know of it."""
    if about["spare"]:
        tell(
            f"{count(about['spare'], 'row')} of {Path(options.predictions).name} are of no sample here and were left out."
        )
    if options.labels is not None and (warning := imported.warning(options.predicted)):
        tell(f"nextlabel: {warning}")
    if options.json:
        top = found["sample_id"].head(SHOWN).tolist()
        print(json.dumps({**about, "predicted": options.predicted, "out": str(options.out), "top": top}))
        return
    parts = [f"{count(about['samples'], 'sample')} joined with {Path(options.predictions).name} {about['joined']}"]
    if about.get("without_label"):
        parts.append(f"{about['without_label']:,} without a label are not ranked")
    if "label_issues" in about:
        parts.append(f"{about['label_issues']:,} labels are likely wrong")
    if "outliers" in about:
        groups = count(about["near_duplicate_groups"], "group")
        parts.append(
            f"{count(about['near_duplicates'], 'near duplicate')} in {groups}, {count(about['outliers'], 'outlier')}"
        )
    print("; ".join(parts) + ".")
    score = methods.described(about["score"])
    print(f"Ranked by {score.title}: {score.formula} — {score.meaning}.")
    shown = ["rank", "sample_id", *(["given_name"] if "given_name" in found else []), "suggested_name", about["score"]]
    print(found[shown].head(SHOWN).to_string(index=False, float_format="%.4f"))
    print(options.out)


COMMANDS = {"rank": rank_options}
