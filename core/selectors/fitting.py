"""The loop that the trainers share: batches, augmentation, schedule, divergence. What they differ in is the loss."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.batches import Images
from core.models.forward import autocast
from core.selectors import Progress, Settings
from data.errors import UserError

PADDING = 4  # of the random crop, for 32 × 32 images; scaled with the side

Loss = Callable[[Tensor, Tensor, int, float], Tensor]
"""Mean loss of a batch [n, C, H, W], given its positions among the rows int64 [n], the epoch, and the finished share."""
Views = Callable[[Tensor, torch.Generator], Tensor]  # of a batch, for training


def run(
    parts: list[nn.Module],
    images: Images,
    rows: NDArray[np.int64],
    settings: Settings,
    loss_of: Loss,
    *,
    seed: int,
    progress: Progress = lambda share: None,
    views: Views | None = None,
) -> float:
    """Minimise `loss_of` over the rows by SGD on the parameters of `parts`; returns the mean loss of the last epoch.

    views: how a batch is varied, by default a random flip and padded crop. The same seed gives the same weights, bit for
    bit, on one CPU. `progress` is called after each batch. Raises `UserError` where there is nothing to learn from or the
    loss is not finite.
    """
    if len(rows) == 0:
        raise UserError("There is no labelled sample to train on: label some first.")
    steps = math.ceil(len(rows) / settings.batch_size)
    if len(rows) > 1 and len(rows) % settings.batch_size == 1:
        steps -= 1  # batch normalisation has no variance over the one sample that is left over
    used = min(len(rows), steps * settings.batch_size)
    optimiser = torch.optim.SGD(
        [p for part in parts for p in part.parameters() if p.requires_grad],
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    scheduler = _scheduler(optimiser, settings, steps)
    generator = torch.Generator().manual_seed(seed)
    loss_sum = torch.zeros((), device=images.device)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(rows), generator=generator)
        loss_sum.zero_()
        for step in range(steps):
            batch = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            done = (epoch * steps + step) / (settings.epochs * steps)
            x = (views or augment)(images[rows[batch.numpy()]], generator)
            with autocast(images.device):
                loss = loss_of(x, batch.to(images.device), epoch, done)
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
    return float(loss_sum) / used


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
