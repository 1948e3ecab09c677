"""Gradient norms of all parameters: ours, the batch-size-1 loop of the paper's code, and the floor of one plain pass."""

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from core import models
from core.batches import pick_device
from core.gradnorm import gradient_norms, sample_loss

BATCH, REPEATS = 64, 5


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """The fastest of some calls, after one to warm up."""
    best = float("inf")
    for attempt in range(REPEATS + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if attempt:
            best = min(best, time.perf_counter() - began)
    return best


def measure() -> None:
    """Milliseconds for a batch of 64 and the ratio to the floor."""
    device = pick_device()
    for name, width, channels, side in (("small-cnn", 16, 1, 28), ("resnet18", 16, 3, 32), ("resnet18", 64, 3, 32)):
        model = models.build(name, channels, 10, width, seed=0).to(device).eval()
        x = torch.randn(BATCH, channels, side, side, device=device)
        parameters = list(model.parameters())

        def floor(model=model, x=x, parameters=parameters) -> None:  # type: ignore[no-untyped-def]
            torch.autograd.grad(
                F.cross_entropy(model(x), torch.zeros(BATCH, dtype=torch.long, device=device)), parameters
            )

        def loop(model=model, x=x, parameters=parameters) -> None:  # type: ignore[no-untyped-def]
            for image in x:
                gradients = torch.autograd.grad(sample_loss(model(image[None]), "entropy", None).sum(), parameters)
                sum(g.norm() for g in gradients)

        plain = seconds(floor, device)
        print(f"{name}, width {width}, {side} × {side}, batch {BATCH}, {device.type}")
        for who, call in (
            ("floor: one forward + backward", floor),
            ("NextLabel, all parameters", lambda m=model, x=x: gradient_norms(m, x)),
            ("NextLabel, head", lambda m=model, x=x: gradient_norms(m, x, scope="head")),
            ("batch-size-1 loop", loop),
        ):
            spent = seconds(call, device)
            print(f"  {who:30} {1000 * spent:8.1f} ms  {spent / plain:6.2f} × floor")
