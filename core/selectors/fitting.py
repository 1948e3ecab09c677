"""The training loop that selectors share: batches, augmentation, schedule, divergence; they differ in their loss.

Callbacks watch it, as in skorch: progress, a log of its epochs, early stopping, checkpoints.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from core.masks import VOID
from core.models.batches import Images
from core.models.forward import autocast
from core.selectors import Progress, Settings
from data.errors import UserError

PADDING = 4  # of the random crop, for 32 × 32 images; scaled with the side
SCALES = 0.75, 1.5  # of the random crop of images with masks

V = TypeVar("V")
Loss = Callable[[V, Tensor, int, float], Tensor]
"""Mean loss of what `Views` makes of a batch, given its positions among the rows int64 [n], the epoch, and the finished share."""
Views = Callable[[Tensor, Tensor, torch.Generator], V]
"""What is learnt from: made of a batch [n, C, H, W] and its positions among the rows int64 [n]."""


@dataclass
class Training:
    """A training on its way: what a callback sees of it, and may save, restore or stop."""

    parts: list[nn.Module]
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    """Of the order of the samples, and of augmentation."""
    device: torch.device
    epochs: int
    steps: int
    """Batches per epoch."""
    total: int
    """Batches of all epochs, of which the last may be shorter."""
    epoch: int = 0
    """Epochs that are finished."""
    step: int = 0
    """Batches of the present epoch that are finished."""
    loss: float = math.nan
    """Mean of the last finished epoch."""
    stopped: bool = False
    """Set by a callback: no further epoch is begun."""

    @property
    def share(self) -> float:
        """Finished share of all epochs, in [0, 1]."""
        return (self.epoch * self.steps + self.step) / self.total


class Callback:
    """What is told of a training as it goes on. Each method does nothing unless a subclass says what."""

    def on_train_begin(self, training: Training) -> None:
        """Before the first epoch."""

    def on_batch_end(self, training: Training) -> None:
        """After every batch."""

    def on_epoch_end(self, training: Training) -> None:
        """After every epoch, whose loss is finite; may set `training.stopped`."""

    def on_train_end(self, training: Training) -> None:
        """After the last epoch; not where the training fails or is interrupted."""


def run(
    parts: list[nn.Module],
    images: Images,
    rows: NDArray[np.int64],
    settings: Settings,
    loss_of: Loss[V],
    *,
    seed: int,
    callbacks: Sequence[Callback] = (),
    views: Views[V] | None = None,
) -> float:
    """Minimise `loss_of` over the rows by SGD on the parameters of `parts`; returns the mean loss of the last epoch.

    parts: everything that the training changes, buffers included · views: what is made of a batch for `loss_of`, by default
    the images, varied as the settings say. The same seed gives the same weights, bit for bit, on one CPU. Raises `UserError`
    where there is nothing to learn from or the loss is not finite.
    """
    if len(rows) == 0:
        raise UserError("There is no labelled sample to train on: label some first.")
    steps = steps_per_epoch(len(rows), settings.batch_size)
    total = settings.epochs * steps if settings.steps is None else settings.steps
    optimiser = torch.optim.SGD(
        [p for part in parts for p in part.parameters() if p.requires_grad],
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    scheduler, generator = _scheduler(optimiser, settings, total), torch.Generator().manual_seed(seed)
    training = Training(parts, optimiser, scheduler, generator, images.device, math.ceil(total / steps), steps, total)
    loss_sum = torch.zeros((), device=images.device)
    vary = views or cast("Views[V]", lambda x, _, generator: augment(x, generator, settings.augment))
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout draws from the global generator
        for callback in callbacks:
            callback.on_train_begin(training)
        while training.epoch < training.epochs and not training.stopped:
            order = torch.randperm(len(rows), generator=generator)
            loss_sum.zero_()
            ahead = min(steps, total - training.epoch * steps)
            for step in range(ahead):
                batch = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                x = vary(images[rows[batch.numpy()]], batch, generator)
                with autocast(images.device):
                    loss = loss_of(x, batch.to(images.device), training.epoch, training.share)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                scheduler.step()
                loss_sum += loss.detach() * len(batch)
                training.step = step + 1
                for callback in callbacks:
                    callback.on_batch_end(training)
            training.loss = float(loss_sum) / min(len(rows), ahead * settings.batch_size)
            if not math.isfinite(training.loss):
                raise UserError(
                    f"Training diverged in epoch {training.epoch + 1} (the loss is not finite): use a lower learning rate than "
                    f"{settings.lr:g}."
                )
            training.epoch, training.step = training.epoch + 1, 0
            for callback in callbacks:
                callback.on_epoch_end(training)
        for callback in callbacks:
            callback.on_train_end(training)
    return training.loss


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Batches that an epoch over n samples has."""
    steps = math.ceil(n / batch_size)
    if n > 1 and n % batch_size == 1:
        steps -= 1  # batch normalisation has no variance over the one sample that is left over
    return steps


class ProgressCallback(Callback):
    """Passes the finished share on, after each batch."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_batch_end(self, training: Training) -> None:
        self.progress(training.share)


class Logger(Callback):
    """Writes a JSON line per epoch to a file: epoch (from 1), loss, lr of the next one, and seconds since the training began.

    What cannot be written is left out: a training does not end because its log does.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.began = path, 0.0

    def on_train_begin(self, training: Training) -> None:
        self.began = time.monotonic()
        if training.epoch == 0:  # else a checkpoint goes on
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def on_epoch_end(self, training: Training) -> None:
        line = {
            "epoch": training.epoch,
            "loss": training.loss,
            "lr": float(training.scheduler.get_last_lr()[0]),
            "seconds": round(time.monotonic() - self.began, 3),
        }
        with suppress(OSError), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class EarlyStopping(Callback):
    """Stops a training that got no better for `patience` epochs, by its loss or by `score`, such as accuracy on held-out images.

    score: called after every epoch, high is good; it may put the model into eval mode · restore: end with the weights of the best
    epoch, not of the last. By a schedule that anneals over all epochs, the learning rate of a training that stops is still high.
    """

    def __init__(self, patience: int, score: Callable[[], float] | None = None, *, restore: bool = False) -> None:
        self.patience, self.score, self.restore, self.best, self.waited = patience, score, restore, -math.inf, 0
        self.kept: list[dict[str, Tensor]] = []

    def on_train_begin(self, training: Training) -> None:
        self.best, self.waited, self.kept = -math.inf, 0, []

    def on_epoch_end(self, training: Training) -> None:
        modes = [(module, module.training) for part in training.parts for module in part.modules()]
        found = -training.loss if self.score is None else self.score()
        for module, mode in modes:
            module.training = mode
        better = found > self.best
        self.waited = 0 if better else self.waited + 1
        self.best = max(self.best, found)
        if better and self.restore:
            self.kept = [{name: t.clone() for name, t in part.state_dict().items()} for part in training.parts]
        training.stopped = training.stopped or self.waited >= self.patience

    def on_train_end(self, training: Training) -> None:
        for part, kept in zip(training.parts, self.kept, strict=False):
            part.load_state_dict(kept)


class Checkpoint(Callback):
    """Keeps the state of a training in a file after every `every` epochs, so that a killed one goes on from there.

    On a CPU it then ends with the weights, bit for bit, that it would have had. key: names the training, by its data, settings
    and seed; the file of another one is not used. Other callbacks start from scratch. The file goes away after the training.
    """

    def __init__(self, path: Path, key: str, every: int = 1) -> None:
        self.path, self.key, self.every = path, key, every

    def on_train_begin(self, training: Training) -> None:
        try:
            state = torch.load(self.path, map_location=training.device, weights_only=True)
        except (OSError, EOFError, RuntimeError, UnpicklingError):
            return  # there is none, or it is damaged: from the beginning
        if not isinstance(state, dict) or state.get("key") != self.key:
            return
        for part, kept in zip(training.parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        training.optimiser.load_state_dict(state["optimiser"])
        training.scheduler.load_state_dict(state["scheduler"])
        training.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["rng"].cpu())  # of dropout
        training.epoch, training.loss = state["epoch"], state["loss"]

    def on_epoch_end(self, training: Training) -> None:
        if training.epoch % self.every:
            return
        state = {
            "key": self.key,
            "parts": [part.state_dict() for part in training.parts],
            "optimiser": training.optimiser.state_dict(),
            "scheduler": training.scheduler.state_dict(),
            "generator": training.generator.get_state(),
            "rng": torch.get_rng_state(),
            "epoch": training.epoch,
            "loss": training.loss,
        }
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        with suppress(OSError, RuntimeError):  # a full disk, by torch's name too: the training goes on without
            torch.save(state, part)
            os.replace(part, self.path)

    def on_train_end(self, training: Training) -> None:
        self.path.unlink(missing_ok=True)


def augment(x: Tensor, generator: torch.Generator, how: str = "flip-crop") -> Tensor:
    """Random horizontal flip and padded crop of every image of [n, C, H, W], on the images' own device.

    how: "flip", "crop", "flip-crop" or "none" · The random numbers come from a CPU generator, so that a seed means the same on
    every device, and are the same whatever is done.
    """
    n, _, height, width = x.shape
    pad = max(1, round(PADDING * height / 32))
    flip = torch.rand(n, generator=generator) < 0.5
    shift = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    if how == "none":
        return x
    if "flip" not in how:
        flip[:] = False
    if "crop" not in how:
        shift[:] = pad  # the middle of the padded image
    rows = shift[0, :, None] + torch.arange(height)  # [n, H] in the padded image
    columns = shift[1, :, None] + torch.arange(width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    at = torch.arange(n)
    picked = padded[at[:, None, None].to(x.device), rows[:, :, None].to(x.device), columns[:, None, :].to(x.device)]
    return picked.permute(0, 3, 1, 2)  # channels-last


def augment_masks(
    x: Tensor, masks: Tensor, generator: torch.Generator, how: str = "flip-crop"
) -> tuple[Tensor, Tensor]:
    """Random horizontal flip and scale crop of every image of [n, C, H, W] and its mask [n, H, W], on the images' own device.

    Enlarged by a factor of 1 to 1.5 an image loses its margins, shrunk to 0.75 at least it gets margins of the mean colour, whose
    pixels are void; where the crop lies is random. Images are interpolated bilinearly, masks take the nearest pixel. how, random
    numbers: as of `augment`.
    """
    n, _, height, width = x.shape
    least, most = (math.log(scale) for scale in SCALES)
    flip = torch.rand(n, generator=generator) < 0.5
    scale = torch.empty(n).uniform_(least, most, generator=generator).exp()
    place = torch.rand(2, n, generator=generator)
    if "flip" not in how:
        flip[:] = False
    if how == "none":
        return x, masks
    if "crop" not in how:
        return torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x), torch.where(flip.view(-1, 1, 1), masks.flip(2), masks)

    def source(side: int, place: Tensor) -> Tensor:
        """Where each pixel of a side lies in the image, [n, side] in pixels, their centres at halves."""
        window = side / scale
        return (place * (side - window))[:, None] + (torch.arange(side) + 0.5) / scale[:, None]

    down, right = source(height, place[0]), source(width, place[1])
    right = torch.where(flip[:, None], width - right, right)
    at, rows, columns = torch.arange(n)[:, None, None], down.floor().long(), right.floor().long()
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    picked = masks[
        at.to(masks.device),
        rows.clamp(0, height - 1)[:, :, None].to(masks.device),
        columns.clamp(0, width - 1)[:, None, :].to(masks.device),
    ]
    across, along = (2 * right / width - 1)[:, None, :], (2 * down / height - 1)[:, :, None]
    grid = torch.stack(torch.broadcast_tensors(across, along), dim=3).to(x.device, x.dtype)
    varied = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return varied.contiguous(memory_format=torch.channels_last), picked.where(inside.to(masks.device), VOID)


def sample_losses(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of every image in nats, [n]: the mean over its known pixels, 0 where none is known.

    logits [n, K, H, W], masks int64 [n, H, W], −1 void. Every image counts the same, however much of it is void: it is the loss
    whose gradient `core.gradnorm` measures. weights: of each class, [K]; the weighted losses, too, are divided by the number of
    pixels, not by the sum of their weights, or an image of a single class would not feel its weight.
    """
    each = F.cross_entropy(logits.float(), masks, reduction="none", ignore_index=VOID)
    if weights is not None:
        each = each * weights[masks.clamp_min(0)]
    known = (masks != VOID).flatten(1).sum(dim=1)
    return each.flatten(1).sum(dim=1) / known.clamp_min(1)


def class_weights(masks: NDArray[np.integer], n_classes: int, how: str) -> NDArray[np.float32] | None:
    """The weight of each class in the loss, float32 [K]; None for "none". masks: int [n, H, W], −1 void.

    how: "inverse-frequency": (known pixels) / (classes there · pixels of the class), whose mean over the known pixels is 1 ·
    "median-frequency": median of the frequencies / frequency, that of a class being its share of the known pixels of the
    images that have it (Eigen & Fergus, ICCV 2015; SegNet). A class without a pixel gets 0, which no loss meets.
    """
    if how == "none":
        return None
    count = np.zeros((len(masks), n_classes), dtype=np.int64)
    for row, mask in zip(count, masks, strict=True):
        row += np.bincount(mask[mask != VOID].astype(np.int64), minlength=n_classes)
    there, pixels = count.sum(axis=0) > 0, count.sum(axis=0)
    if how == "inverse-frequency":
        share = pixels * there.sum() / max(1, pixels.sum())
        found = np.divide(1.0, share, out=np.zeros(n_classes), where=there)
    else:
        among = ((count > 0) * count.sum(axis=1, keepdims=True)).sum(axis=0)
        frequency = np.divide(pixels, among, out=np.zeros(n_classes), where=there)
        middle = float(np.median(frequency[there])) if there.any() else 0.0
        found = np.divide(middle, frequency, out=np.zeros(n_classes), where=there)
    return found.astype(np.float32)


def _scheduler(
    optimiser: torch.optim.Optimizer, settings: Settings, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=total + 1, pct_start=0.3)
    if settings.schedule == "step":  # a tenth after four fifths, as 160 of 200 epochs in Wang et al.
        return torch.optim.lr_scheduler.MultiStepLR(optimiser, [round(0.8 * total)])
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
