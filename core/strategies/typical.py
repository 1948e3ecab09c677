"""TypiClust: Hacohen et al., "Active learning on a budget: opposite strategies suit high and low budgets", ICML 2022."""

import numpy as np

from core.described import GREEN
from core.strategies import Floats, Pool, Strategy

CLUSTERS = 500  # at most, as in the paper's code
SMALL = 50  # up to so many clusters k-means sees all samples at each step, else a batch of them
LEAST = 5  # samples of a cluster that is worth a label
NEIGHBOURS = 20
BATCH = 5000


def score(pool: Pool) -> Floats:
    """K, K − 1, … 1 in the order of choice; of all others, typicality on a scale below 1; [n].

    All embeddings, at unit length, fall into as many clusters as there will be labels. Clusters are taken in turn, those
    with the fewest labels first and the largest of these; from each the most typical sample: the one with the least mean
    distance to its nearest neighbours in the cluster. Section 3.2 and Algorithm 1 of the paper.
    """
    x = np.concatenate([part.float().cpu().numpy() for part in (pool.embeddings(), pool.labelled_embeddings())])
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    clusters = _clusters(x, min(pool.n_labelled + pool.budget, CLUSTERS, len(x)), pool.seed)
    n = len(pool)
    labelled = np.bincount(clusters[n:], minlength=clusters.max() + 1)
    sizes = np.bincount(clusters, minlength=len(labelled))
    typical = np.zeros(n)
    queues = []
    for cluster in np.lexsort((-sizes, labelled)):
        members = np.flatnonzero(clusters[:n] == cluster)
        if len(members):
            typical[members] = _typicality(x[members], x[clusters == cluster])
            queues.append((sizes[cluster] >= LEAST, members[np.argsort(-typical[members], kind="stable")]))
    # Small clusters are outliers' more often than not: they come after all others
    queues.sort(key=lambda queue: not queue[0])
    chosen: list[int] = []
    for turn in range(max(len(members) for _, members in queues)):
        for worth in (True, False):
            chosen += [int(members[turn]) for large, members in queues if large == worth and turn < len(members)]
        if len(chosen) >= pool.budget:
            break
    chosen = chosen[: pool.budget]
    found = typical / (1 + typical)
    found[chosen] = len(chosen) - np.arange(len(chosen))
    return found


def _clusters(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The cluster int [n] of each of the points x [n, D]."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    state = seed % 2**32
    means = (
        KMeans(k, n_init=1, random_state=state)
        if k <= SMALL
        else MiniBatchKMeans(k, n_init=1, batch_size=BATCH, random_state=state)
    )
    with threadpool_limits(1):  # sums in the order of threads would differ from run to run
        return np.asarray(means.fit_predict(x), dtype=np.int64)


def _typicality(members: np.ndarray, cluster: np.ndarray) -> Floats:
    """One over the mean distance to the nearest neighbours within the cluster, [n]; members are some of it."""
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBOURS + 1, len(cluster))
    distance, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(cluster).kneighbors(members)
    return np.asarray(1 / (distance[:, 1:].mean(axis=1) + 1e-5) if k > 1 else np.zeros(len(members)), dtype=np.float64)


STRATEGY = Strategy(
    name="typical",
    title="Typical first (TypiClust)",
    formula="K − place",
    higher="chosen early: the most typical sample of a cluster without labels",
    values="below 1 for those not chosen",
    reference="Hacohen et al. 2022",
    answers=("class", "mask"),
    score=score,
    needs="embeddings",
    colour=GREEN,
    symbol="hexagon",
    dash="dashdot",
    place=12,
)
