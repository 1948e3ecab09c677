"""Co-teaching: Han et al., "Co-teaching: robust training of deep neural networks with extremely noisy labels", NeurIPS 2018."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.described import ORANGE
from core.selectors import Selector, Settings, Shape, vanilla
from data.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from core.models.architectures import Pair
    from core.models.batches import Images
    from core.selectors.fitting import Callback

RAMP = 10  # epochs until the forget rate is reached, as in the paper; at most half of the training


def build(shape: Shape) -> "Pair":
    """Two fresh networks of different initial weights."""
    from core.models.architectures import Pair, headed

    alone = dataclasses.replace(shape, dropout=0.0)
    first, second = (vanilla.build(dataclasses.replace(alone, seed=shape.seed + k)) for k in (0, 1))
    return Pair(headed(first, "Co-teaching"), headed(second, "Co-teaching"), shape.dropout)


def forget_rate(noise: float, epoch: int, epochs: int) -> float:
    """Share of each batch that is left out in an epoch: from 0 up to `noise`, reached after `RAMP` epochs at most.

    Raises `UserError` for a share outside [0, 1).
    """
    if not 0 <= noise < 1:
        raise UserError(f"The forget rate of co-teaching is {noise}: give a share from 0 up to, not including, 1.")
    return noise * min(1.0, epoch / max(1.0, min(RAMP, epochs / 2)))


def exchanged(first: "Tensor", second: "Tensor", rate: float) -> "Tensor":
    """Loss of a batch from each network's own losses [n]: each learns from those that the *other* finds small, Alg. 1."""
    keep = max(1, round((1 - rate) * len(first)))
    chosen_by_first, chosen_by_second = first.detach().argsort()[:keep], second.detach().argsort()[:keep]
    return first[chosen_by_second].mean() + second[chosen_by_first].mean()


def fit(
    model: "Pair",
    images: "Images",
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    noise: float,
    callbacks: "Sequence[Callback]" = (),
) -> float:
    """Train both networks in place on the rows with `labels` int [n]; returns the last epoch's mean of the two losses' sum.

    noise: estimated share of wrong labels, in [0, 1): so many are forgotten in the end. Raises as `forget_rate` and
    `core.selectors.fitting.run`.
    """
    import torch
    from torch.nn import functional as F

    from core.models.forward import place
    from core.selectors import fitting

    forget_rate(noise, 0, settings.epochs)
    place(model, images.device).train()
    given = torch.from_numpy(labels).to(images.device)

    def loss_of(x: "Tensor", batch: "Tensor", epoch: int, done: float) -> "Tensor":
        first, second = model.heads(model.embed(x))
        losses = [F.cross_entropy(logits.float(), given[batch], reduction="none") for logits in (first, second)]
        return exchanged(losses[0], losses[1], forget_rate(noise, epoch, settings.epochs))

    return fitting.run([model], images, rows, settings, loss_of, seed=seed, callbacks=callbacks)


SELECTOR = Selector(
    name="co-teaching",
    title="Co-teaching: two networks, each learns what the other finds easy",
    reference="Han et al. 2018",
    options=("forget_rate",),
    build=build,
    fit=fit,
    needs_noise=True,
    colour=ORANGE,
    place=1,
)
