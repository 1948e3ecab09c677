"""The samples of a cycle: what pages, command line, exports and reports ask for.

A million rows stay in a Parquet file, made once a cycle; DuckDB hands out the hundred that a page shows. Needs no torch.
"""

import atexit
import dataclasses
import hashlib
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet
from numpy.typing import NDArray

from core import methods, relabel, scores, tsne
from core.relabel import Floats, Ints, Votes
from core.runs.reference import ground_truth, ground_truth_digest, reference_counts
from core.runs.run import Run, home
from core.store import cache
from core.store.atomic import write_table
from core.store.cache import below, elsewhere
from data import votes
from data.dataset import ImageDataset
from data.errors import UserError
from data.lazy import Lazy

VERSION = 3  # of the columns; with another one the files are made again
BLOCK = 100_000  # embeddings that are compared at once
BINS = 60  # of a histogram
OUTCOMES = {
    "corrected": "was wrong at the start, is right now",
    "missed": "is wrong, and nobody has been asked",
    "still wrong": "is wrong although people were asked",
    "wrongly flagged": "was right, and people were asked all the same",
    "spoilt": "was right at the start, is wrong now",
    "untouched": "is right, and nobody has been asked",
}
ADDED = (
    "given",
    "suggested",
    "reference",
    "labelled",
    "kind",
)  # to the columns of a ranking, for all who read a table of it
LISTS = ("given", "suggested", "status", "kind", "outcome")
Outline = tuple[list[float], list[float]]  # x and y of the corners of what was drawn on a figure


@dataclass(frozen=True)
class Filter:
    """Which samples to keep: those that pass everything that is set.

    text: part of the sample id, in any case · given, suggested, status, kind, outcome: one of these names ·
    ranges: (score, least, most), ends included · rows: of the pool, None for all.
    """

    text: str = ""
    given: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    ranges: tuple[tuple[str, float, float], ...] = ()
    rows: tuple[int, ...] | None = None

    def sql(self) -> tuple[str, list[Any]]:
        """The condition and its parameters."""
        parts, values = ["true"], list[Any]()
        if self.text:
            parts.append("contains(lower(sample_id), lower(?))")
            values.append(self.text)
        for name in LISTS:
            if chosen := getattr(self, name):
                parts.append(f"list_contains(?, {name})")
                values.append(list(chosen))
        for score, least, most in self.ranges:
            parts.append(f"{_column(score)} BETWEEN ? AND ?")
            values += [least, most]
        if self.rows is not None:
            parts.append('"row" IN (SELECT unnest(?::BIGINT[]))')
            values.append(list(self.rows))
        return " AND ".join(parts), values


@dataclass(frozen=True)
class Samples:
    """All samples of a cycle: a Parquet file with the ranking's columns, and what the reference says where there is one.

    given, suggested, reference: names of classes, of a mask that of its largest class · labelled: share of an image's pixels
    that have a label, where labels are masks · kind: "clear noise", "difficult" or "correct" for a label that is wrong on
    a clear image, wrong on an ambiguous one, or correct (Bernhardt et al. 2022); "" without ground truth · outcome: of
    `OUTCOMES` in label cleaning, "" without ground truth · row: place in the pool. In active learning cross-entropy and
    cleaning are against the reference label, NaN without one. columns: of `table` · scores: columns of the ranking · mapped:
    whether it has the columns of `core.tsne`.
    """

    path: Path
    columns: tuple[str, ...]
    scores: tuple[str, ...]
    n_classes: int
    mapped: bool
    gamma: float | None = None

    def at_gamma(self, gamma: float) -> "Samples":
        """The same samples with Φ = CE − max(H − γ·ln C, 0) as their cleaning score, the form of the paper's code."""
        return dataclasses.replace(self, gamma=gamma)

    def table(self, *more: str) -> pd.DataFrame:
        """All samples in pool order with `columns`, and more of the file's, such as outcome."""
        wanted = list(dict.fromkeys((*self.columns, *more)))
        try:
            found = pd.read_parquet(self.path, columns=["row", *wanted])
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        return found.sort_values("row", ignore_index=True)[wanted]

    def count(self, kept: Filter = Filter()) -> int:
        """How many pass."""
        where, values = kept.sql()
        return int(self._rows(f"SELECT count(*) FROM samples WHERE {where}", values)[0][0])

    def ranked_number(self) -> int:
        """How many samples may be chosen."""
        return int(self._rows("SELECT count(rank) FROM samples", [])[0][0])

    def page(
        self, kept: Filter, order: str, ascending: bool, offset: int = 0, limit: int | None = None
    ) -> pd.DataFrame:
        """So many samples from `offset` on in the order of a column, those without a value last; index: the pool's rows."""
        where, values = kept.sql()
        direction = "ASC" if ascending else "DESC"
        end = "" if limit is None else f" LIMIT {int(limit)} OFFSET {int(offset)}"
        table = self._table(
            f'SELECT * FROM samples WHERE {where} ORDER BY {_column(order)} {direction} NULLS LAST, "row"{end}', values
        )
        table["rank"] = table["rank"].astype("Int64")
        return table.set_index("row")

    def place(self, sample_id: str, kept: Filter, order: str, ascending: bool) -> int | None:
        """Where `page` has a sample, from 0; None where it does not pass."""
        where, values = kept.sql()
        by = f'{_column(order)} {"ASC" if ascending else "DESC"} NULLS LAST, "row"'
        placed = f"SELECT sample_id, row_number() OVER (ORDER BY {by}) - 1 AS place FROM samples WHERE {where}"
        found = self._rows(f"SELECT place FROM ({placed}) WHERE sample_id = ?", [*values, sample_id])
        return int(found[0][0]) if found else None

    def sample(self, sample_id: str) -> pd.Series | None:
        """One sample, its name the pool's row; None where there is none of this id."""
        found = self._table("SELECT * FROM samples WHERE sample_id = ?", [sample_id])
        found["rank"] = found["rank"].astype("Int64")
        return found.set_index("row").iloc[0] if len(found) else None

    def values(self, name: str) -> list[str]:
        """The names that occur in a column of `LISTS`, sorted, without the empty one."""
        found = self._rows(f"SELECT DISTINCT {_column(name)} FROM samples ORDER BY 1", [])
        return [one for (one,) in found if one]

    def bounds(self, score: str) -> tuple[float, float] | None:
        """Least and most value of a score; None where it has none."""
        name = _column(score)
        low, high = self._rows(f"SELECT min({name}), max({name}) FROM samples WHERE isfinite({name})", [])[0]
        return None if low is None else (float(low), float(high))

    def histogram(self, score: str, kept: Filter, bins: int = BINS) -> pd.DataFrame:
        """Samples in equal intervals of a score: low, high, everything and kept (numbers)."""
        bounds = self.bounds(score)
        if bounds is None:
            return pd.DataFrame({"low": [], "high": [], "everything": [], "kept": []})
        low, high = bounds
        width = (high - low) / bins or 1.0
        where, values = kept.sql()
        name = _column(score)
        found = self._table(
            f"SELECT least(floor(({name} - ?) / ?), {int(bins) - 1})::INT AS bin, count(*) AS everything, "
            f"count(*) FILTER (WHERE {where}) AS kept FROM samples WHERE isfinite({name}) GROUP BY bin",
            [low, width, *values],
        ).set_index("bin")
        table = found.reindex(range(bins), fill_value=0)
        edges = low + width * np.arange(bins + 1)
        return pd.DataFrame(
            {"low": edges[:-1], "high": edges[1:], "everything": table["everything"], "kept": table["kept"]}
        )

    def cut(self, score: str, budget: int) -> float | None:
        """The lowest score that a budget takes, each sample counted as one label; None where it takes all, or none."""
        sql = f"SELECT min({_column(score)}) FILTER (WHERE rank <= ?), max(rank) FROM samples"
        low, last = self._rows(sql, [budget])[0]
        return None if low is None or last <= budget else float(low)

    def confusion(self, kept: Filter = Filter()) -> pd.DataFrame:
        """Samples by given (rows) and suggested (columns) label, names sorted as they occur; numbers."""
        where, values = kept.sql()
        found = self._table(
            f"SELECT given, suggested, count(*) AS n FROM samples WHERE {where} GROUP BY given, suggested", values
        )
        return found.pivot(index="given", columns="suggested", values="n").fillna(0).astype(int)

    def points(self, x: str, y: str, kept: Filter, limit: int) -> pd.DataFrame:
        """At most so many samples with both scores, always the same of them; index: the pool's rows."""
        where, values = kept.sql()
        both = f"isfinite({_column(x)}) AND isfinite({_column(y)})"
        table = self._table(
            f'SELECT * FROM samples WHERE {where} AND {both} ORDER BY hash("row") LIMIT {int(limit)}', values
        )
        return table.set_index("row").sort_index()

    def counts(self, name: str, kept: Filter = Filter()) -> dict[str, int]:
        """How many samples have which name in a column of `LISTS`."""
        where, values = kept.sql()
        sql = f"SELECT {_column(name)}, count(*) FROM samples WHERE {where} GROUP BY 1 ORDER BY 1"
        return {one: int(n) for one, n in self._rows(sql, values)}

    def pairs(self, kept: Filter = Filter()) -> pd.DataFrame:
        """Given and suggested labels that occur together, with n: those that differ first, then the most frequent."""
        where, values = kept.sql()
        return self._table(
            f"SELECT given, suggested, count(*) AS n FROM samples WHERE {where} GROUP BY given, suggested "
            "ORDER BY given = suggested, n DESC, given, suggested",
            values,
        )

    def of_pairs(self, pairs: pd.DataFrame, kept: Filter, order: str, ascending: bool, top: int) -> pd.DataFrame:
        """The first `top` samples of each of these `pairs` in the order of a column, pair by pair; index: the pool's rows."""
        where, values = kept.sql()
        by = f'{_column(order)} {"ASC" if ascending else "DESC"} NULLS LAST, "row"'
        table = self._table(
            f"SELECT samples.* FROM (SELECT * FROM samples WHERE {where}) AS samples JOIN (SELECT unnest(?) AS given, "
            "unnest(?) AS suggested, unnest(?) AS place) AS pairs USING (given, suggested) "
            f"QUALIFY row_number() OVER (PARTITION BY place ORDER BY {by}) <= ? ORDER BY place, {by}",
            [*values, pairs["given"].tolist(), pairs["suggested"].tolist(), list(range(len(pairs))), top],
        )
        table["rank"] = table["rank"].astype("Int64")
        return table.set_index("row")

    def mosaic(
        self, x: str, y: str, kept: Filter, across: int, up: int
    ) -> tuple[pd.DataFrame, tuple[float, float]] | None:
        """One sample for each cell of a grid over two scores, the nearest to the cell's middle; None where none has both.

        Returns the samples, with n, how many lie in the cell, and width and height of a cell; index: the pool's rows.
        """
        where, values = kept.sql()
        a, b = _column(x), _column(y)
        where += f" AND isfinite({a}) AND isfinite({b})"
        sql = f"SELECT min({a}), max({a}), min({b}), max({b}) FROM samples WHERE {where}"
        left, right, bottom, top = self._rows(sql, values)[0]
        if left is None:
            return None
        width, height = (right - left) / across or 1.0, (top - bottom) / up or 1.0
        table = self._table(
            f"SELECT *, count(*) OVER (PARTITION BY i, j) AS n FROM (SELECT *, least(floor(u), {int(across) - 1}) AS i, "
            f"least(floor(v), {int(up) - 1}) AS j FROM (SELECT *, ({a} - ?) / ? AS u, ({b} - ?) / ? AS v FROM samples "
            f"WHERE {where})) QUALIFY row_number() OVER (PARTITION BY i, j "
            'ORDER BY (u - i - 0.5) ** 2 + (v - j - 0.5) ** 2, "row") = 1 ORDER BY j, i',
            [left, width, bottom, height, *values],
        )
        return table.drop(columns=["u", "v", "i", "j"]).set_index("row"), (float(width), float(height))

    def inside(self, x: str, y: str, outlines: list[Outline], kept: Filter) -> Ints:
        """The pool's rows of all samples whose two scores lie inside of one of these outlines, sorted.

        outlines: x and y of the corners of each, in order.
        """
        where, values = kept.sql()
        a, b = _column(x), _column(y)
        sql = f'SELECT "row", {a} AS x, {b} AS y FROM samples WHERE {where} AND isfinite({a}) AND isfinite({b})'
        found = self._run(sql, values).fetchnumpy()
        keep = np.zeros(len(found["row"]), dtype=bool)
        for outline in outlines:
            keep |= _within(np.asarray(found["x"]), np.asarray(found["y"]), outline)
        return np.sort(np.asarray(found["row"], dtype=np.int64)[keep])

    def ranked(self, kept: Filter = Filter()) -> Ints:
        """The pool's rows that may be chosen, the next first."""
        where, values = kept.sql()
        found = self._rows(f'SELECT "row" FROM samples WHERE {where} AND rank IS NOT NULL ORDER BY rank', values)
        return np.array([row for (row,) in found], dtype=np.int64)

    def _source(self) -> tuple[str, list[Any]]:
        if self.gamma is None:
            return "SELECT * FROM read_parquet(?)", [str(self.path)]
        phi = '"cross-entropy" - greatest(entropy - ? * ?, 0)'
        sql = f"SELECT * REPLACE ({phi} AS cleaning) FROM read_parquet(?)"
        return sql, [self.gamma, math.log(self.n_classes), str(self.path)]

    def _run(self, sql: str, values: list[Any]) -> duckdb.DuckDBPyConnection:
        source, first = self._source()
        cache.touch(self.path)
        try:
            return _cursor().execute(f"WITH samples AS ({source}) {sql}", [*first, *values])
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        if not self.path.exists():
            return UserError("The samples of this cycle are no longer in the cache: load the page again.")
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return UserError(
            f"The samples of this cycle cannot be read ({reason}): delete {self.path} and load the page again."
        )

    def _rows(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return self._run(sql, values).fetchall()

    def _table(self, sql: str, values: list[Any]) -> pd.DataFrame:
        return self._run(sql, values).df()


def of_cycle(run: Run, dataset: ImageDataset, cycle: int) -> Samples:
    """The samples of a cycle; their file is made where it is missing, or older than the ranking. Raises as `Run.ranking`."""
    ranking = run.cycle_path(cycle) / "ranking.parquet"
    try:
        stat = ranking.stat()
    except OSError:
        run.ranking(cycle)  # says what is wrong
        raise
    truth = ground_truth_digest(run.config, dataset)
    try:
        posterior = (run.cycle_path(cycle) / "posterior.npy").stat().st_mtime_ns
    except OSError:
        posterior = None
    parts = VERSION, run.path, cycle, stat.st_size, stat.st_mtime_ns, posterior, truth, dataset.class_names
    key = " ".join(map(str, parts))
    name = f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.parquet"
    with _making:  # two tabs ask at the same time
        path = below(home(), "samples") / name
        if path.exists():
            cache.touch(path)
        else:
            path = _written(_made(run, dataset, cycle), path)
            cache.tidy(path.parents[1])
    columns = pyarrow.parquet.read_schema(path).names
    own = set(pyarrow.parquet.read_schema(ranking).names)
    shown = tuple(name for name in columns if name in own or name in ADDED)
    scores = tuple(name for name in methods.scores() if name in columns and name in own)
    return Samples(path, shown, scores, len(dataset.class_names), set(tsne.COLUMNS) <= own)


def _written(made: pd.DataFrame, path: Path) -> Path:
    """Where the file was written: a disk that takes nothing more can still be read."""
    # A dictionary of floats, no two of which are equal, takes most of the time that writing them does
    repeated = [*(name for name in ADDED if name in made and name != "labelled"), "status", "outcome"]
    try:
        write_table(path, made, use_dictionary=repeated)
    except UserError:
        path = elsewhere("samples") / path.name
        write_table(path, made, use_dictionary=repeated)
    return path


def table(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """`Samples.table` of a cycle: the ranking in pool order, with names and what the reference says. Raises as `of_cycle`."""
    return of_cycle(run, dataset, cycle).table()


def _made(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """The file's content, in the order of the ranks: most pages ask for the first."""
    made = run.ranking(cycle)
    reference, truth = ground_truth(run.config, dataset)
    mainly = _reference_classes(run, dataset, truth)
    told = run.answer.told(made, run.cycle_path(cycle), lambda: run.standing(dataset, cycle), mainly)
    made = made.assign(**told)
    made["kind"] = ""
    if reference is not None:
        wrong, ambiguous = made["label"].to_numpy() != truth, votes.ambiguous(reference)
        kind = np.select([~wrong, ambiguous], ["correct", "difficult"], "clear noise")
        made["kind"] = np.where(made["label"] >= 0, kind, "")
    made["outcome"] = outcomes(run, dataset, cycle)
    if "cross-entropy" not in made:
        try:
            noise = with_noise_scores(run, made, cycle)
        except UserError:  # a ranking can be read and exported without its posterior
            noise = pd.DataFrame(index=made.index)
        for name in ("cross-entropy", "cleaning"):
            made[name] = noise[name].reindex(made.index) if name in noise else np.nan
    made.insert(0, "row", np.arange(len(made)))
    return made.sort_values("rank", na_position="last", kind="stable")


def _reference_classes(run: Run, dataset: ImageDataset, truth: Any) -> Ints:
    """The class of each reference label, int64 [N], −1 for none; of masks that are read from files once for all cycles."""
    if not isinstance(truth, Lazy):
        return run.answer.mainly(truth)
    key = {"score": "reference classes", "labels": truth.version, "classes": dataset.class_names}
    kept = cache.ScoreCache(below(home(), "samples").parent, reading=True)
    return kept.get(key, lambda: run.answer.mainly(truth))


def history(run: Run, row: int) -> pd.DataFrame:
    """How a sample went through the cycles: cycle, rank, label, suggested (in words), confidence, status, score, and of a mask
    its iou.

    score: the one that ranked the cycle.
    """
    answer, parts = run.answer, []
    for cycle in range(len(run.cycles())):
        path = run.cycle_path(cycle) / "ranking.parquet"
        sql = "SELECT * FROM read_parquet(?, file_row_number = true) WHERE file_row_number = ?"
        try:
            found = _cursor().execute(sql, [str(path), row]).df()
        except duckdb.Error:
            continue  # that cycle's own page says what is wrong with it
        words = {
            "label": answer.written(found["label"]),
            "suggested": answer.suggested(found["suggested"], run.cycle_path(cycle), row),
        }
        parts.append(found.assign(**words, cycle=cycle, score=found[run.config_at(cycle).method]))
    columns = ["cycle", "rank", "label", "suggested", "confidence", "status", "score"]
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    columns += [name for name in ("iou",) if name in table]
    table["rank"] = table["rank"].astype("Int64")
    return table[columns]


def neighbours(run: Run, cycle: int, row: int, k: int = 8) -> Ints:
    """The k pool rows whose embeddings are the nearest in angle to that of `row`, the nearest first; empty without any."""
    path = run.cycle_path(0 if run.config.static else cycle) / "embedding.npy"
    try:
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # a run of before there was one
        return np.empty(0, dtype=np.int64)
    own = embeddings[row].astype(np.float32)
    blocks = [embeddings[start : start + BLOCK].astype(np.float32) @ own for start in range(0, len(embeddings), BLOCK)]
    similarity = np.concatenate(blocks)
    similarity[row] = -np.inf
    k = min(k, len(similarity) - 1)
    best = np.argpartition(-similarity, k)[:k]
    return np.asarray(best[np.argsort(-similarity[best], kind="stable")], dtype=np.int64)


def _within(x: Floats, y: Floats, outline: Outline) -> NDArray[np.bool_]:
    """Which points [n] lie inside of an outline, by how often a ray to the right crosses it."""
    corners_x, corners_y = (np.asarray(one, dtype=np.float64) for one in outline)
    keep = (x >= corners_x.min()) & (x <= corners_x.max()) & (y >= corners_y.min()) & (y <= corners_y.max())
    near_x, near_y = x[keep], y[keep]  # the others need no look at every edge
    odd = np.zeros(len(near_x), dtype=bool)
    for x0, y0, x1, y1 in zip(corners_x, corners_y, np.roll(corners_x, -1), np.roll(corners_y, -1), strict=True):
        if y0 != y1:
            crosses = ((y0 > near_y) != (y1 > near_y)) & (near_x < x0 + (near_y - y0) * (x1 - x0) / (y1 - y0))
            odd ^= crosses
    keep[keep] = odd
    return np.asarray(keep, dtype=bool)


def _column(name: str) -> str:
    """The name as SQL; it comes from links too."""
    if name not in methods.scores() and name not in (
        "row",
        "sample_id",
        "rank",
        "confidence",
        "n_votes",
        "labelled",
        *LISTS,
        *tsne.COLUMNS,
    ):
        raise UserError(f'There is no column "{name[:100]}": choose another one.')
    return f'"{name}"'


_making = threading.Lock()
_database: list[duckdb.DuckDBPyConnection] = []


def _cursor() -> duckdb.DuckDBPyConnection:
    """A connection of this thread's own to one in-memory database, which reads files here and fetches nothing."""
    if not _database:
        settings: dict[str, Any] = {"autoinstall_known_extensions": False, "memory_limit": "512MB"}
        _database.append(duckdb.connect(config=settings))
        atexit.register(_database.clear)  # DuckDB complains at length about a connection that outlives the interpreter
    return _database[0].cursor()


def outcomes(run: Run, dataset: ImageDataset, cycle: int) -> NDArray[np.object_]:
    """What became of every label of a cleaning run by this cycle, [N]; "" without ground truth.

    "corrected", "still wrong" and "missed" of the labels that were wrong at the start (people were asked; were asked in
    vain; were not asked); "wrongly flagged", "spoilt" and "untouched" of those that were right.
    """
    reference = reference_counts(run.config, dataset) if run.config.question.checks else None
    if reference is None:
        return np.full(len(dataset), "", dtype=object)
    state, taken, events = run.state(dataset.ids, cycle)
    later = (events["cycle"] > 0).to_numpy()
    initial = majority_at_start(taken, later, len(dataset))
    asked = np.zeros(len(dataset), dtype=bool)
    asked[taken.sample[later]] = True
    truth = reference.argmax(axis=1)
    was, now = initial == truth, state.majority == truth
    names = ["corrected", "still wrong", "missed", "spoilt", "wrongly flagged"]
    return np.select([~was & now, ~was & asked, ~was, ~now, asked], names, "untouched").astype(object)


def majority_at_start(taken: Votes, later: NDArray[np.bool_], n: int) -> Ints:
    """Majority labels [N] before any label was asked for, −1 for none; later: which events [T] came after that."""
    initial = np.full(n, -1)
    initial[taken.sample[~later]] = taken.majority[~later]  # the last event of a sample wins
    return initial


def relabels(run: Run, dataset: ImageDataset, up_to_cycle: int | None = None) -> pd.DataFrame:
    """One row a relabel of a cleaning run, in order: what Algorithm 1 did, and whether it was right.

    relabel (from 1), cycle, sample_id, votes (names, in order), n_votes, before, after (majority, names), formed, score (at
    selection, of the run's own score), kind ("clear noise corrected", …; "" without ground truth), source; pixels of a mask.
    """
    config, written = run.config, run.answer.written
    _, taken, events = run.state(dataset.ids, up_to_cycle)
    asked = (events["cycle"] > 0).to_numpy()
    collected = taken[asked]
    initial = majority_at_start(taken, asked, len(dataset))
    visits, log = relabel.visits(collected, initial), events[asked].reset_index(drop=True)
    cycles = log["cycle"].to_numpy()[visits.first]
    scores_at = np.full(len(cycles), np.nan)
    for cycle in np.unique(cycles):
        method = run.config_at(int(cycle) - 1).method
        ranking = run.ranking(int(cycle) - 1, [method])[method].to_numpy(np.float64)
        scores_at[cycles == cycle] = ranking[visits.sample[cycles == cycle]]
    reference = reference_counts(config, dataset)
    kinds = relabel.kinds(visits.before, visits.after, reference[visits.sample]) if reference is not None else ""
    said = written(collected.label[np.argsort(visits.of, kind="stable")]).tolist()
    ends = np.cumsum(visits.n_votes).tolist()
    return pd.DataFrame(
        {
            "relabel": np.arange(1, len(cycles) + 1),
            "cycle": cycles,
            "sample_id": np.array(dataset.ids, dtype=object)[visits.sample],
            "votes": [", ".join(said[end - n : end]) for end, n in zip(ends, visits.n_votes.tolist(), strict=True)],
            "n_votes": visits.n_votes,
            "before": written(visits.before),
            "after": written(visits.after),
            "formed": visits.formed,
            "score": scores_at,
            "kind": kinds,
            "source": log["source"].to_numpy()[visits.first],
            **({"pixels": log["pixels"].to_numpy()[visits.first]} if "pixels" in log else {}),
        }
    )


def with_noise_scores(run: Run, table: pd.DataFrame, cycle: int) -> pd.DataFrame:
    """A ranking with the columns that the map needs. Cleaning has them; in active learning l̂ is the reference label, or where
    there is none the one that people gave, and images without either are left out."""
    if "cross-entropy" in table:
        return table
    label = table["reference"].where(table["reference"] != "—", table["given"])
    known = table[label != "—"]
    probs = run.posterior(cycle)[known.index].astype(np.float64)
    codes = {name: c for c, name in enumerate(run.about["class_names"])}
    one_hot = np.eye(len(codes))[label[known.index].map(codes)]
    noisiness = scores.cross_entropy(one_hot, probs)
    return known.assign(**{"cross-entropy": noisiness, "cleaning": noisiness - scores.entropy(probs)})
