"""SRAAL: Zhang et al., "State-relabeling adversarial active learning", CVPR 2020."""

import numpy as np

from core.described import GREY
from core.strategies import Floats, Pool, Strategy


def score(pool: Pool) -> Floats:
    """1 − D(z(x), t(x)) in [0, 1], [n]: looks unlabelled to a discriminator that has been told how sure the model is.

    The supervised half t of the representation learns from the model's embeddings of the labelled samples.
    """
    import torch

    from core.strategies._adversarial import unfamiliarity

    told = torch.from_numpy(uncertainty(pool.probs())).float()
    embeddings = pool.embeddings(), pool.labelled_embeddings()
    return unfamiliarity(pool, uncertainty=told.to(embeddings[0].device), embeddings=embeddings)


def uncertainty(probs: Floats) -> Floats:
    """Online uncertainty indicator in [0, 1], [n, C] → [n]: 1 − minVar(p) / Var(p) · max p; 1 for a uniform posterior.

    Var is the variance of the posterior over its classes, and minVar that of the flattest posterior with the same
    maximum.
    """
    top, n_classes = probs.max(axis=1), probs.shape[1]
    variance = probs.var(axis=1)
    rest = (1 - top) / (n_classes - 1)
    mean = 1 / n_classes
    least = ((top - mean) ** 2 + (n_classes - 1) * (rest - mean) ** 2) / n_classes
    ratio = np.divide(least, variance, out=np.zeros_like(least), where=variance > 0)
    return 1 - np.clip(ratio * top, 0, 1)


STRATEGY = Strategy(
    name="sraal",
    title="SRAAL",
    formula="1 − D(z, t)",
    higher="looks unlabelled to a discriminator that was told how sure the model is",
    values="in [0, 1]",
    reference="Zhang et al. 2020",
    score=score,
    trained=True,
    colour=GREY,
    symbol="square-open",
    dash="dash",
    place=5,
)
