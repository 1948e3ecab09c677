"""Labels diffused on a graph of nearest neighbours in embedding space.

The public code of Bernhardt et al. 2022 has a graph selector too, by another formula (softmax of the diffused labels at a
temperature, cross-entropy alone); their paper has none.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from data.errors import UserError
from data.votes import random_order

Array = NDArray[np.float64]

NEIGHBOURS = 30
ALPHA = 0.9  # share that a sample takes from its neighbours; the rest is what it holds itself
FOLDS = 10  # a sample's own label is withheld together with a tenth of all others
TOLERANCE = 1e-6  # of the conjugate gradients, relative
STEPS = 200  # of them at most


def diffuse(embeddings: ArrayLike, histogram: ArrayLike, *, k: int = NEIGHBOURS, alpha: float = ALPHA) -> Array:
    """What the neighbours of each sample say of its label: float64 [N, C], rows that sum to one.

    embeddings: [N, D] · histogram: votes [N, C]; a sample without any takes part as a neighbour alone · k: neighbours by
    cosine, at most N − 1 · alpha in (0, 1). Solves (I − αS) F = Y, S the symmetrically normalised graph (Zhou et al. 2004;
    Iscen et al., CVPR 2019), once for each tenth of the samples with the labels of that tenth withheld: a label never
    speaks for itself, however few the labels are. Against withholding one label at a time, by the dense inverse, this
    moves a probability by 0.005 in the mean (blobs of 300 to 1,500 samples). Where no label reaches a sample its row is
    uniform. Raises `UserError` on embeddings that are not finite.
    """
    x, votes = np.asarray(embeddings, dtype=np.float32), np.asarray(histogram, dtype=np.float64)
    n, n_classes = votes.shape
    if not np.isfinite(x).all():
        raise UserError(
            "The embeddings are not finite: training probably diverged; lower the learning rate and run again."
        )
    if n < 2:
        return np.full((n, n_classes), 1 / n_classes)
    system = sparse.identity(n, format="csr") - alpha * affinity(x, min(k, n - 1))
    total = votes.sum(axis=1, keepdims=True)
    labels = np.divide(votes, total, out=np.zeros_like(votes), where=total > 0)
    found = np.empty_like(votes)
    fold_of = np.empty(n, dtype=np.int64)
    fold_of[random_order(n, seed=0)] = np.arange(n) % FOLDS
    for fold in range(min(FOLDS, n)):
        mine = fold_of == fold
        found[mine] = conjugate_gradients(system, np.where(mine[:, None], 0.0, labels))[mine]
    found = np.maximum(found, 0.0)
    mass = found.sum(axis=1, keepdims=True)
    return np.divide(found, mass, out=np.full_like(found, 1 / n_classes), where=mass > 1e-12)


def affinity(x: NDArray[np.float32], k: int) -> Any:
    """S = D^−½ W D^−½ as a sparse [N, N]; W: cosines of the k nearest neighbours, negative ones as 0, cubed, both ways."""
    from sklearn.neighbors import NearestNeighbors  # a second to import, which other scores do without

    n = len(x)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.maximum(norm, 1e-12)
    # Nearest in angle are nearest in distance among unit vectors, which is searched faster
    distance, neighbour = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit).kneighbors()
    cosine = np.maximum(1 - distance.astype(np.float64) ** 2 / 2, 0.0)
    directed = sparse.csr_matrix((cosine.ravel() ** 3, (np.repeat(np.arange(n), k), neighbour.ravel())), shape=(n, n))
    weights = directed.maximum(directed.T)
    degree = np.asarray(weights.sum(axis=1)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.maximum(degree, 1e-12)))
    return (scale @ weights @ scale).tocsr()


def conjugate_gradients(system: Any, right: Array) -> Array:
    """Solve for all columns of `right` [N, C] at once; `system` is sparse, symmetric and positive definite."""
    solution = np.zeros_like(right)
    residual = right.copy()
    direction = residual.copy()
    squared = (residual**2).sum(axis=0)
    goal = TOLERANCE**2 * squared
    for _ in range(STEPS):
        if (squared <= goal).all():
            break
        image = system @ direction
        step = squared / np.maximum((direction * image).sum(axis=0), 1e-300)
        solution += step * direction
        residual -= step * image
        last, squared = squared, (residual**2).sum(axis=0)
        direction = residual + squared / np.maximum(last, 1e-300) * direction
    return solution
