"""Influence: products with all per-sample gradients against the floor of one plain pass, and what Eqs. 2 to 5 cost on `fashion`.

The products are measured as gradient norms are, in processes that take turns. The rest is one training after the other: seconds,
and CPU seconds of all threads, which other processes on the machine hardly change.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import data
from benchmarks.gradient_norms import FLOOR, LOOP, Case, Way, floor, show, take_turns
from core.gradnorm import Loss, sample_loss
from core.influence import Solution, gradient_dots, influence, inverse_hvp, loss_gradient
from core.models import architectures
from core.models.batches import Images, pick_device
from core.selectors import Settings, vanilla
from data import votes
from data.dataset import ImageDataset

T = TypeVar("T")
OURS, VMAP = "NextLabel, gradient_dots", "torch.func, vmap(grad)"
SETTINGS = Settings(epochs=20, lr=0.1, batch_size=64, schedule="one-cycle")
# Labels, width and damping of each s_test: one of them is varied at a time.
USUAL = (500, 32, 0.1)
CASES = (USUAL, (250, 32, 0.1), (1_000, 32, 0.1), (500, 8, 0.1), (500, 16, 0.1), (500, 32, 0.01))


def direction(model: nn.Module) -> dict[str, Tensor]:
    """A random vector for every parameter."""
    random = torch.Generator().manual_seed(1)
    return {name: torch.randn(p.shape, generator=random).to(p.device) for name, p in model.named_parameters()}


def ours(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    vector = direction(model)
    return lambda: gradient_dots(model, x, vector, loss="entropy")


def loop(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A batch of one sample at a time."""
    vector, parameters = direction(model), dict(model.named_parameters())

    def dot(image: Tensor) -> Tensor:
        value = sample_loss(model(image[None]), "entropy", None).sum()
        gradients = torch.autograd.grad(value, list(parameters.values()))
        return torch.stack([(g * vector[name]).sum() for name, g in zip(parameters, gradients, strict=True)]).sum()

    return lambda: torch.stack([dot(image) for image in x])


def torch_func(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    vector, buffers = direction(model), dict(model.named_buffers())
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def value(own: dict[str, Tensor], image: Tensor) -> Tensor:
        return sample_loss(functional_call(model, {**own, **buffers}, (image[None],)), "entropy", None)[0]

    def dot(image: Tensor) -> Tensor:
        gradients = grad(value)(parameters, image)
        return torch.stack([(g * vector[name]).sum() for name, g in gradients.items()]).sum()

    return lambda: vmap(dot, chunk_size=16 if x.device.type == "cpu" else 128)(x)


WAYS: dict[str, Way] = {FLOOR: floor, OURS: ours, LOOP: loop, VMAP: torch_func}


@dataclass(frozen=True)
class Trained:
    """A small CNN on some images of `fashion`, and all images as it takes them."""

    model: nn.Module
    rows: Tensor  # int64 [n] that it was trained on
    images: Tensor  # of the pool
    labels: Tensor
    held_out: Tensor  # of the test images
    held_out_labels: Tensor


def train(pool: ImageDataset, n: int, width: int) -> Trained:
    """On n random images; the same n for every width."""
    pixels = torch.from_numpy(np.array(pool.images)).float() / 255
    mean, std = pixels.mean().view(1, 1, 1), pixels.std().view(1, 1, 1)
    images, held_out = (Images(each, mean, std, pick_device()) for each in (pool.images, pool.test_images))
    model = architectures.build("small-cnn", 1, len(pool.class_names), width, seed=0)
    rows = votes.random_order(len(pool), 0)[:n]
    vanilla.fit(model, images, rows, pool.labels[rows], SETTINGS, seed=0)
    labels, held_out_labels = (torch.from_numpy(each).to(images.device) for each in (pool.labels, pool.test_labels))
    everyone = images[np.arange(len(images))]
    return Trained(
        model.eval(), torch.from_numpy(rows), everyone, labels, held_out[np.arange(len(held_out))], held_out_labels
    )


def solve(trained: Trained, damping: float) -> Solution:
    """s_test: H⁻¹ Σ ∇L(x_j) over the test images, to a relative residual of 1e-3."""
    vector = loss_gradient(trained.model, trained.held_out, trained.held_out_labels)
    images, labels = trained.images[trained.rows], trained.labels[trained.rows]
    decay = SETTINGS.weight_decay
    return inverse_hvp(trained.model, images, labels, vector, damping=damping, weight_decay=decay, tolerance=1e-3)


def timed(call: Callable[[], T]) -> tuple[T, float, float]:
    """What it gives, seconds and CPU seconds."""
    began, worked = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - began, time.process_time() - worked


def measure_solutions(pool: ImageDataset) -> None:
    """One s_test for each of the cases."""
    print(f"s_test of the small CNN on fashion, {len(pool.test_images):,} test images, relative residual 1e-3")
    print("  labels  parameters  damping  iterations  seconds  CPU seconds  a product's CPU ms")
    for n, width, damping in CASES:
        trained = train(pool, n, width)
        parameters = sum(p.numel() for p in trained.model.parameters())
        solution, seconds, worked = timed(partial(solve, trained, damping))
        print(
            f"  {n:6,}  {parameters:10,}  {damping:7g}  {solution.iterations:10}  {seconds:7.1f}  {worked:11.1f}  "
            f"{1000 * worked / solution.iterations:18.0f}{'' if solution.converged else '  did not converge'}",
            flush=True,
        )


def measure_terms(pool: ImageDataset) -> None:
    """All four terms of every image of the pool, T^c with half of the labels of T^{c+1}."""
    n, width, damping = USUAL
    before, after = train(pool, n // 2, width), train(pool, n, width)
    solution = solve(after, damping)
    print(f"Four terms of {len(pool):,} candidates, small CNN, width {width}, {n} labels")
    losses: tuple[Loss, ...] = ("label", "entropy", "egl")
    for loss in losses:
        targets = after.labels if loss == "label" else None
        terms = partial(influence, after.model, after.images, solution, n_labels=n, before=before.model)
        _, seconds, worked = timed(partial(terms, loss=loss, targets=targets))
        print(f"  {loss:8} {seconds:6.1f} s, {worked:6.1f} CPU seconds", flush=True)


def measure() -> None:
    """The products of a ResNet-18 on small images, then `fashion`."""
    case = Case("ResNet-18, width 64", 32, 64, pick_device().type)
    show(case, take_turns(case, list(WAYS), ways=WAYS), signed=True)
    pool = data.load("fashion")
    measure_solutions(pool)
    measure_terms(pool)
