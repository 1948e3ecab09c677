"""Plain supervised training: SGD with Nesterov momentum on cross-entropy, flip and padded crop, nothing about noise."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from core.batches import Images
from core.models import Classifier
from core.trainers import Companion, Progress, Settings, autocast, place
from data.errors import UserError

PADDING = 4  # of the random crop, for 32 × 32 images; scaled with the side


def fit(
    model: Classifier,
    images: Images,
    index: NDArray[np.int64],
    labels: NDArray[np.int64],
    settings: Settings,
    *,
    seed: int,
    companion: Companion | None = None,
    frozen: bool = False,
    progress: Progress = lambda share: None,
) -> float:
    """Train `model` in place on the rows `index` with `labels` int [n]; returns the mean loss of the last epoch in nats.

    companion: a module trained with the model, its loss added to each batch's · frozen: train the companion alone,
    beside a model that stays as it is.

    The same seed gives the same weights, bit for bit, on one CPU. `progress` is called after each batch. Raises
    `UserError` where there is nothing to learn from or the loss is not finite.
    """
    if len(index) == 0:
        raise UserError("There is no labelled sample to train on: label some first.")
    place(model, images.device).train(not frozen)
    parts: list[nn.Module] = [] if frozen else [model]
    if companion is not None:
        parts.append(companion.to(images.device).train())
    steps = math.ceil(len(index) / settings.batch_size)
    optimiser = torch.optim.SGD(
        [p for part in parts for p in part.parameters()],
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    scheduler = _scheduler(optimiser, settings, steps)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.from_numpy(labels).to(images.device)
    loss_sum = torch.zeros((), device=images.device)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(index), generator=generator)
        loss_sum.zero_()
        for step in range(steps):
            batch = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            if len(batch) == 1 and len(index) > 1:
                continue  # batch normalisation has no variance over one sample
            done = (epoch * steps + step) / (settings.epochs * steps)
            x = augment(images[index[batch.numpy()]], generator)
            with autocast(images.device):
                with torch.set_grad_enabled(not frozen):
                    stages = model.stages(x)
                    logits = model.classify(stages[-1].mean(dim=(2, 3)))
                losses = F.cross_entropy(logits.float(), targets[batch.to(images.device)], reduction="none")
                loss = torch.zeros((), device=images.device) if frozen else losses.mean()
                if companion is not None:
                    loss = loss + companion.loss(stages, losses.detach(), 1.0 if frozen else done)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            scheduler.step()
            loss_sum += loss.detach() * len(batch)
            progress((epoch * steps + step + 1) / (settings.epochs * steps))
        if not torch.isfinite(loss_sum):
            raise UserError(
                f"Training diverged in epoch {epoch + 1} (the loss is not finite): use a lower learning rate than "
                f"{settings.lr:g}."
            )
    return float(loss_sum) / len(index)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random horizontal flip and padded crop of every image of [n, C, H, W], on the images' own device.

    The random numbers come from a CPU generator, so that a seed means the same on every device.
    """
    n, _, height, width = x.shape
    pad = max(1, round(PADDING * height / 32))
    flip = torch.rand(n, generator=generator) < 0.5
    shift = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    rows = shift[0, :, None] + torch.arange(height)  # [n, H] in the padded image
    columns = shift[1, :, None] + torch.arange(width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    at = torch.arange(n)
    picked = padded[at[:, None, None].to(x.device), rows[:, :, None].to(x.device), columns[:, None, :].to(x.device)]
    return picked.permute(0, 3, 1, 2)  # channels-last


def _scheduler(
    optimiser: torch.optim.Optimizer, settings: Settings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = settings.epochs * steps
    if settings.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=total + 1, pct_start=0.3)
    if settings.schedule == "step":  # a tenth after four fifths, as 160 of 200 epochs in Wang et al.
        return torch.optim.lr_scheduler.MultiStepLR(optimiser, [round(0.8 * total)])
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
