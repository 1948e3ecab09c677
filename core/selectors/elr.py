"""Early-learning regularisation: Liu et al., "Early-learning regularization prevents memorization of noisy labels", 2020."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.architectures import Classifier
from core.models.batches import Images
from core.selectors import Settings, Trainer, fitting, place, vanilla
from core.selectors.fitting import Callback

LAMBDA = 3.0  # weight of the regulariser, as the paper's on CIFAR-10
BETA = 0.9  # of the running average that targets are
FLOOR = 1e-4  # of a posterior, so that the logarithm stays finite


def fit(
    model: Classifier,
    images: Images,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    noise: float = 0.0,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Train in place on the rows with `labels` int [n]: CE + λ · mean ln(1 − ⟨p, t⟩), Eq. 6; returns the last epoch's mean.

    t is the running average of each sample's posterior p (Eq. 9, without its ensembling): what the model learnt early pulls
    at it when it begins to memorise. noise: not used. Raises as `core.selectors.fitting.run`.
    """
    place(model, images.device).train()
    given = torch.from_numpy(labels).to(images.device)
    average = Average(len(rows), model.head.out_features).to(images.device)

    def loss_of(x: Tensor, batch: Tensor, epoch: int, done: float) -> Tensor:
        logits = model(x).float()
        p = logits.softmax(dim=1).clamp(FLOOR, 1 - FLOOR)
        return F.cross_entropy(logits, given[batch]) + LAMBDA * regulariser(p, average.updated(batch, p.detach()))

    return fitting.run([model, average], images, rows, settings, loss_of, seed=seed, callbacks=callbacks)


class Average(nn.Module):
    """The running average t of each sample's posterior, [n, C]: a module, so that a checkpoint keeps it."""

    targets: Tensor

    def __init__(self, n: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("targets", torch.zeros(n, n_classes))

    def updated(self, batch: Tensor, p: Tensor) -> Tensor:
        """The average of a batch, [b, C], with its posterior p of now."""
        now = p / p.sum(dim=1, keepdim=True)
        self.targets[batch] = BETA * self.targets[batch] + (1 - BETA) * now
        return self.targets[batch]


def regulariser(p: Tensor, targets: Tensor) -> Tensor:
    """Mean of ln(1 − ⟨p, t⟩) over a batch, both [n, C]; ≤ 0, and the lower the more p agrees with t."""
    return (1 - (p * targets).sum(dim=1)).log().mean()


TRAINER = Trainer(vanilla.build, fit)
