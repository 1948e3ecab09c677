"""Plain supervised training: SGD with momentum on cross-entropy, flip and crop, nothing about noise."""

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
    from core.models.segmenters import Segmenter
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

    Labels of a `core.models.segmenters.Segmenter` are masks int [n, H, W], −1 void; its loss is `fitting.sample_losses`, its
    augmentation `fitting.augment_masks`. noise: not used · companion: a module trained with the model, its loss added to each
    batch's · frozen: train the companion alone, beside a model that stays as it is. Raises as `core.selectors.fitting.run`.
    """
    import torch
    from torch.nn import functional as F

    from core.models.forward import place
    from core.selectors import fitting

    place(model, images.device).train(not frozen)
    parts: list[nn.Module] = [] if frozen else [model]
    if companion is not None:
        parts.append(companion.to(images.device).train())

    def answer(x: "Tensor") -> "tuple[Tensor, list[Tensor]]":
        with torch.set_grad_enabled(not frozen):
            return (model(x), []) if companion is None else cast("Classifier | Segmenter", model).with_stages(x)

    def joint(losses: "Tensor", stages: "list[Tensor]", done: float) -> "Tensor":
        """The mean loss of a batch from each sample's own [n], with that of the companion."""
        loss = torch.zeros((), device=images.device) if frozen else losses.mean()
        if companion is not None:
            loss = loss + companion.loss(stages, losses.detach(), 1.0 if frozen else done)
        return loss

    def of_classes(x: "Tensor", batch: "Tensor", epoch: int, done: float) -> "Tensor":
        logits, stages = answer(x)
        return joint(F.cross_entropy(logits.float(), targets[batch], reduction="none"), stages, done)

    def of_masks(given: "tuple[Tensor, Tensor]", batch: "Tensor", epoch: int, done: float) -> "Tensor":
        x, masks = given
        logits, stages = answer(x)
        return joint(fitting.sample_losses(logits, masks, weights), stages, done)

    def with_masks(x: "Tensor", batch: "Tensor", generator: "torch.Generator") -> "tuple[Tensor, Tensor]":
        masks = torch.from_numpy(labels[batch.numpy()].astype(np.int64)).to(images.device)
        return fitting.augment_masks(x, masks, generator, settings.augment)

    if labels.ndim == 1:
        targets = torch.from_numpy(labels).to(images.device)
        return fitting.run(parts, images, index, settings, of_classes, seed=seed, callbacks=callbacks)
    found = fitting.class_weights(labels, cast("Segmenter", model).n_classes, settings.class_weights)
    weights = None if found is None else torch.from_numpy(found).to(images.device)
    return fitting.run(parts, images, index, settings, of_masks, seed=seed, callbacks=callbacks, views=with_masks)


SELECTOR = Selector(
    name="vanilla",
    title="Plain training",
    answers=("class", "mask"),
    build=build,
    fit=fit,
    plain=True,
    colour=GREEN,
    place=0,
)
