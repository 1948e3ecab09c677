"""The embedding map: every image in the plane, those that the model finds alike close together. Needs no torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

COLUMNS = ("map-x", "map-y")  # of a ranking
LANDMARKS = 2_000  # images that t-SNE places: a second; more take longer than many a training
NEAREST = 3  # landmarks between which any other image lies
PERPLEXITY = 30
SPREAD = 10  # standard deviation of a map that t-SNE goes on from: about that of one it has finished


def plane(embeddings: NDArray[np.float16], before: Floats | None = None) -> NDArray[np.float32]:
    """Places in the plane, float32 [N, 2] within ±1, of embeddings of unit length [N, d].

    t-SNE (van der Maaten & Hinton, JMLR 2008) places evenly spaced landmarks, in the plane of their first principal axes at
    first, or where they were `before` [N, 2], so that a map changes no more from cycle to cycle than the model does; every
    other image lies between its nearest landmarks. Near means alike; axes and distances afar mean nothing.
    """
    n = len(embeddings)
    chosen = np.unique(np.linspace(0, n - 1, min(n, LANDMARKS)).round().astype(np.int64))
    landmarks = np.nan_to_num(embeddings[chosen].astype(np.float32))
    if len(chosen) < 4 or not landmarks.std(axis=0).any():
        return np.zeros((n, 2), dtype=np.float32)
    from sklearn.manifold import TSNE  # a second of imports that reading a run does without

    start: dict[str, Any] = {"init": "pca", "max_iter": 500}
    if before is not None and (spread := float(before[chosen].std())) > 0:
        # Exaggeration draws groups together that are not yet found
        start = {"init": np.float32(SPREAD / spread) * before[chosen], "early_exaggeration": 1.0, "max_iter": 300}
    places = TSNE(
        **start,
        perplexity=min(PERPLEXITY, (len(chosen) - 1) / 3),
        random_state=0,
        n_jobs=1,  # several add up in another order each time, and the same run would not give the same map
    ).fit_transform(landmarks)
    if n > len(chosen):
        places = _between(np.nan_to_num(embeddings.astype(np.float32)), landmarks, places)
    places = places - places.mean(axis=0)
    return np.asarray(places / max(np.abs(places).max(), 1e-12), dtype=np.float32)


def _between(embeddings: Floats, landmarks: Floats, places: Floats) -> Floats:
    """Means of the places of the nearest landmarks, weighted by nearness, [N, 2]; a landmark stays where it is."""
    from sklearn.neighbors import NearestNeighbors

    distance, near = NearestNeighbors(n_neighbors=NEAREST, algorithm="brute").fit(landmarks).kneighbors(embeddings)
    weight = 1 / np.maximum(distance, 1e-6) ** 2
    return np.asarray((weight[:, :, None] * places[near]).sum(axis=1) / weight.sum(axis=1, keepdims=True))
