"""Early-learning regularisation: Liu et al., "Early-learning regularization prevents memorization of noisy labels", 2020."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.described import GREEN
from core.selectors import Selector, Settings, vanilla

if TYPE_CHECKING:
    from torch import Tensor

    from core.models.architectures import Model
    from core.models.batches import Images
    from core.selectors.fitting import Callback

LAMBDA = 3.0  # weight of the regulariser, as the paper's on CIFAR-10
BETA = 0.9  # of the running average that targets are
FLOOR = 1e-4  # of a posterior, so that the logarithm stays finite


def fit(
    model: "Model",
    images: "Images",
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    noise: float = 0.0,
    callbacks: "Sequence[Callback]" = (),
) -> float:
    """Train in place on the rows with `labels` int [n]: CE + λ · mean ln(1 − ⟨p, t⟩), Eq. 6; returns the last epoch's mean.

    t is the running average of each sample's posterior p (Eq. 9, without its ensembling): what the model learnt early pulls
    at it when it begins to memorise. noise: not used. Raises as `core.selectors.fitting.run`.
    """
    import torch
    from torch.nn import functional as F

    from core.models.architectures import headed
    from core.models.forward import place
    from core.selectors import fitting
    from core.selectors._average import Average

    place(model, images.device).train()
    given = torch.from_numpy(labels).to(images.device)
    average = Average(len(rows), headed(model, "Early-learning regularisation").head.out_features, BETA).to(
        images.device
    )

    def loss_of(x: "Tensor", batch: "Tensor", epoch: int, done: float) -> "Tensor":
        logits = model(x).float()
        p = logits.softmax(dim=1).clamp(FLOOR, 1 - FLOOR)
        return F.cross_entropy(logits, given[batch]) + LAMBDA * regulariser(p, average.updated(batch, p.detach()))

    return fitting.run([model, average], images, rows, settings, loss_of, seed=seed, callbacks=callbacks)


def regulariser(p: "Tensor", targets: "Tensor") -> "Tensor":
    """Mean of ln(1 − ⟨p, t⟩) over a batch, both [n, C]; ≤ 0, and the lower the more p agrees with t."""
    return (1 - (p * targets).sum(dim=1)).log().mean()


SELECTOR = Selector(
    name="elr",
    title="Early-learning regularisation: held to what it learnt early",
    reference="Liu et al. 2020",
    build=vanilla.build,
    fit=fit,
    colour=GREEN,
    dash="dash",
    place=2,
)
