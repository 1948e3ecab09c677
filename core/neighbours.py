"""Near duplicates and outliers among samples, from the nearest neighbours of their embeddings in angle.

Thresholds are relative to what is usual in the same pool, as in cleanlab's Datalab, so that they need no tuning to an
embedding.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.scores import Array
from data.errors import UserError

MOST = (
    200_000  # samples whose neighbours are searched for: 30 times as long as of 35,000, some ten minutes on two cores
)
NEIGHBOURS = 10  # of a sample, by which it is an outlier
DUPLICATE = 0.13  # of the median distance to the nearest neighbour: below it two samples are near duplicates
OUTLIER = 2.7  # times the median of the mean distances to the neighbours: above it a sample is an outlier
Ints = NDArray[np.int64]


def nearest(embeddings: ArrayLike, k: int = NEIGHBOURS) -> tuple[Array, Ints]:
    """Cosine distances in [0, 2] and positions of the k nearest neighbours of each sample, [N, k] each, the nearest first.

    embeddings: [N, D]; k is at most N − 1. Exact, so that the time grows with N². Raises `UserError` on embeddings that are not
    finite, and of more than `MOST` samples.
    """
    from sklearn.neighbors import NearestNeighbors  # a second to import, which other scores do without

    x = np.asarray(embeddings, dtype=np.float32)
    if not np.isfinite(x).all():
        raise UserError("The embeddings are not finite: embed the samples again.")
    if len(x) > MOST:
        raise UserError(
            f"Neighbours are searched for among at most {MOST:,} samples, and these are {len(x):,}: take a part of them."
        )
    k = min(k, len(x) - 1)
    if k < 1:
        return np.empty((len(x), 0)), np.empty((len(x), 0), dtype=np.int64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    # Nearest in angle are nearest in distance among unit vectors, which is searched faster
    neighbour = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit).kneighbors(return_distance=False)
    # By differences, which are exact where two embeddings are equal; by products they are not
    squared = np.stack([((unit - unit[at]) ** 2).sum(axis=1, dtype=np.float64) for at in neighbour.T], axis=1)
    return squared / 2, np.asarray(neighbour, dtype=np.int64)


def near_duplicates(distance: Array, neighbour: Ints) -> Ints:
    """The group of near duplicates of each sample, int64 [N], numbered from 1 by their first member; 0 for none.

    distance, neighbour: of `nearest`. Two samples are near duplicates where their distance is below `DUPLICATE` times the median
    distance to the nearest neighbour, or 0; what such pairs connect is one group.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    n = len(distance)
    if not distance.size:
        return np.zeros(n, dtype=np.int64)
    bound = DUPLICATE * float(np.median(distance[:, 0]))
    row, column = np.nonzero((distance < bound) | (distance == 0))
    pairs = sparse.coo_matrix((np.ones(len(row)), (row, neighbour[row, column])), shape=(n, n))
    _, component = connected_components(pairs, directed=False)
    several = np.bincount(component)[component] > 1
    found = np.zeros(n, dtype=np.int64)
    _, first, place = np.unique(component[several], return_index=True, return_inverse=True)
    found[several] = np.argsort(np.argsort(first))[place] + 1
    return found


def outlier_score(distance: Array) -> Array:
    """Mean distance to the neighbours over its median in the pool, ≥ 0, [N]; above `OUTLIER` a sample is an outlier.

    distance: of `nearest`. 1 everywhere where there is no distance to compare with.
    """
    if not distance.size:
        return np.ones(len(distance))
    mean = distance.mean(axis=1)
    usual = float(np.median(mean))
    return mean / usual if usual > 0 else np.ones(len(distance))
