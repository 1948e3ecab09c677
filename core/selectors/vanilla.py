"""Plain supervised training: SGD with momentum on cross-entropy, flip and padded crop, nothing about noise."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from core.described import GREEN
from core.selectors import Companion, Selector, Settings, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from core.models.architectures import Classifier, Model
    from core.models.batches import Images
    from core.selectors.fitting import Callback


def build(shape: Shape) -> "Model":
    """A fresh model, `core.models.architectures.build`."""
    from core.models import architectures

    return architectures.build(
        shape.model,
        shape.channels,
        shape.n_classes,
        shape.width,
        shape.seed,
        shape.dropout,
        weights=shape.weights,
        side=shape.side,
    )


def fit(
    model: "Model",
    images: "Images",
    index: NDArray[np.int64],
    labels: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    noise: float = 0.0,
    companion: Companion | None = None,
    frozen: bool = False,
    callbacks: "Sequence[Callback]" = (),
) -> float:
    """Train `model` in place on the rows `index` with `labels` int [n]; returns the mean loss of the last epoch in nats.

    noise: not used · companion: a module trained with the model, its loss added to each batch's · frozen: train the
    companion alone, beside a model that stays as it is. Raises as `core.selectors.fitting.run`.
    """
    import torch
    from torch.nn import functional as F

    from core.models.forward import place
    from core.selectors import fitting

    place(model, images.device).train(not frozen)
    parts: list[nn.Module] = [] if frozen else [model]
    if companion is not None:
        parts.append(companion.to(images.device).train())
    targets = torch.from_numpy(labels).to(images.device)

    def loss_of(x: "Tensor", batch: "Tensor", epoch: int, done: float) -> "Tensor":
        with torch.set_grad_enabled(not frozen):
            if companion is None:
                logits, stages = model(x), []
            else:
                stages = cast("Classifier", model).stages(x)
                logits = model.classify(stages[-1].mean(dim=(2, 3)))
        losses = F.cross_entropy(logits.float(), targets[batch], reduction="none")
        loss = torch.zeros((), device=images.device) if frozen else losses.mean()
        if companion is not None:
            loss = loss + companion.loss(stages, losses.detach(), 1.0 if frozen else done)
        return loss

    return fitting.run(parts, images, index, settings, loss_of, seed=seed, callbacks=callbacks)


SELECTOR = Selector(
    name="vanilla",
    title="Plain training",
    build=build,
    fit=fit,
    plain=True,
    colour=GREEN,
    place=0,
)
