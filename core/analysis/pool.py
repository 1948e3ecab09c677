"""What is in a pool: near duplicates, outliers, odd sizes, and classes whose labels are doubtful.

Near duplicates and outliers are of the cycle's embedding, as the embedding map and the neighbours on a card; doubtful labels
are by its model, and sizes are those of the files. Needs no torch.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core import metrics, neighbours
from core.analysis import layers
from core.neighbours import DUPLICATE, OUTLIER
from core.relabel import Floats, Ints
from core.runs import answers
from core.runs.run import Run
from data.dataset import ImageDataset
from data.errors import UserError
from data.lazy import LARGE, LONG, LazyImages, odd_shapes

__all__ = ["DUPLICATE", "LARGE", "LONG", "MOST_FILES", "OUTLIER", "Pool", "by_class", "of_cycle"]

MOST_FILES = 50_000  # whose headers are read for their sizes: ten seconds


@dataclass(frozen=True, eq=False)
class Pool:
    """The pool of a cycle, [N] in its order.

    group: of near duplicates, 0 for none · outlier: how far from its neighbours, 1 is usual (`core.neighbours`) · doubtful:
    labels that are likely wrong, None where labels are masks · shapes: int32 [N, 2], height and width of the files, 0 where
    unreadable; None where the images are no files, or more than `MOST_FILES` · classes: `by_class`, of masks
    `core.analysis.layers.Layers.over_pool`.
    """

    sample_ids: list[str]
    given: Ints
    group: Ints
    outlier: Floats
    doubtful: np.ndarray | None
    shapes: NDArray[np.int32] | None
    classes: pd.DataFrame

    @property
    def duplicates(self) -> Ints:
        """Rows that have a near duplicate, group by group."""
        rows = np.flatnonzero(self.group > 0)
        return rows[np.argsort(self.group[rows], kind="stable")]

    @property
    def outliers(self) -> Ints:
        """Rows of outliers, the farthest first."""
        rows = np.flatnonzero(self.outlier > OUTLIER)
        return rows[np.argsort(-self.outlier[rows], kind="stable")]

    @property
    def odd(self) -> Ints:
        """Rows of images of an odd size or shape, as `data.lazy.odd_shapes` has it."""
        return np.flatnonzero(odd_shapes(self.shapes)) if self.shapes is not None else np.empty(0, dtype=np.int64)

    def contradicting(self) -> Ints:
        """Rows of near duplicates whose labels are not all one class: at least one is wrong, group by group."""
        if self.doubtful is None:  # masks of near duplicates are never quite the same
            return np.empty(0, dtype=np.int64)
        rows = self.duplicates[self.given[self.duplicates] >= 0]
        several = pd.Series(self.given[rows]).groupby(self.group[rows]).transform("nunique") > 1
        return rows[several.to_numpy(dtype=bool)]


def of_cycle(run: Run, dataset: ImageDataset, cycle: int) -> Pool:
    """The pool as a cycle saw it. Raises `UserError` where the cycle has no embedding, and as `core.neighbours.nearest`."""
    ranking = run.ranking(cycle, ["label"])
    path = run.cycle_path(0 if run.config.static else cycle) / "embedding.npy"
    try:
        embedding = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no readable embedding: choose another cycle or run."
        ) from error
    distance, neighbour = neighbours.nearest(embedding)
    given = ranking["label"].to_numpy(np.int64)
    if run.answer.layers:
        doubtful, classes = None, layers.of_cycle(run, dataset, cycle).over_pool()
    else:
        doubtful, classes = _doubtful(given, run.posterior(cycle).astype(np.float64), dataset.class_names)
    group, outlier = neighbours.near_duplicates(distance, neighbour), neighbours.outlier_score(distance)
    return Pool(dataset.ids, given, group, outlier, doubtful, _shapes(dataset), classes)


def _doubtful(given: Ints, probs: Floats, class_names: list[str]) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Labels that are likely wrong, and the table of classes."""
    there = np.flatnonzero(given >= 0)
    found = np.zeros(len(given), dtype=bool)
    if len(there):
        found[there] = metrics.label_issues(given[there], probs[there])
    return found, by_class(given, probs, found, class_names)


def _shapes(dataset: ImageDataset) -> NDArray[np.int32] | None:
    images = dataset.images
    if not isinstance(images, LazyImages) or len(images) > MOST_FILES:
        return None
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda row: images.file_shape(row) or (0, 0), range(len(images)))
        return np.array(list(found), dtype=np.int32).reshape(-1, 2)


def by_class(given: Ints, probs: Floats, doubtful: np.ndarray, class_names: list[str]) -> pd.DataFrame:
    """One row a class, the most doubtful first: class, images, share, doubtful, doubtful_share, mistaken_for, self_confidence.

    images: that are labelled so, and their share of those with a label · doubtful: labels that are likely wrong, doubtful_share:
    of the class's · mistaken_for: the class that most of these look like, "—" without any · self_confidence: mean p[label].
    """
    predicted, rows = probs.argmax(axis=1), []
    names = answers.of(class_names).written
    labelled = int((given >= 0).sum())
    for code in range(len(class_names)):
        mine = given == code
        wrong = mine & doubtful
        others = np.bincount(predicted[wrong], minlength=len(class_names))
        n = int(mine.sum())
        rows.append(
            {
                "class": class_names[code],
                "images": n,
                "share": n / max(1, labelled),
                "doubtful": int(wrong.sum()),
                "doubtful_share": float(wrong.sum() / n) if n else np.nan,
                "mistaken_for": names([int(others.argmax()) if others.any() else answers.UNKNOWN])[0],
                "self_confidence": float(probs[mine, code].mean()) if n else np.nan,
            }
        )
    return pd.DataFrame(rows).sort_values("doubtful_share", ascending=False, na_position="last", ignore_index=True)
