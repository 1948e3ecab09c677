"""The losses whose gradients are measured, and the weights of an expectation over labels."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["entropy", "expected", "egl", "label"]
LossFunction = Callable[[Tensor, Tensor | None], Tensor]  # (logits [n, K, …], targets of the samples or None) → [n]


class Draws(NamedTuple):
    """How many labels of every sample are drawn from its posterior, and the seed."""

    number: int
    seed: int


def sample_loss(logits: Tensor, loss: Loss, target: Tensor | None) -> Tensor:
    """The loss of every sample, logits [N, K, …] → [N], a mean over what follows the classes. `loss` is not "egl".

    A target of −1 is unknown: the mean is over the known ones, and without any the loss is zero.
    """
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    if loss == "label":
        assert target is not None
        known = target >= 0
        values = -log_p.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1)
        total = values.where(known, 0.0).reshape(len(values), -1).sum(dim=1)
        return total / known.reshape(len(known), -1).sum(dim=1).clamp_min(1)
    values = -(log_p.exp() * log_p).sum(dim=1)  # Eq. 6 with the posterior attached to the graph is Eq. 7
    return values.reshape(len(values), -1).mean(dim=1)


def to_differentiate(loss: Loss, shape: torch.Size, draws: Draws | None = None) -> list[LossFunction]:
    """What is derived of each sample's logits, of this shape [K, …]: one loss, or for "egl" the cross-entropy with every class in
    turn, or with each of the labels drawn."""
    if loss == "egl" and draws is not None:
        generator = torch.Generator().manual_seed(draws.seed)
        return [
            _cross_entropy_with_drawn(torch.rand(shape[1:], generator=generator, dtype=torch.float64))
            for _ in range(draws.number)
        ]
    if loss == "egl":
        return [_cross_entropy_with(y) for y in range(shape[0])]
    return [lambda logits, target: sample_loss(logits, loss, target)]


def mean_probs(logits: Tensor) -> Tensor:
    """[N, K, …] → [N, K]: the weight of each class in an expectation over labels."""
    p = at_least_float32(logits).softmax(dim=1)
    return p.reshape(*p.shape[:2], -1).mean(dim=2)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Halves, as autocast makes them, to float32; all else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _cross_entropy_with(y: int) -> LossFunction:
    def loss(logits: Tensor, _: Tensor | None) -> Tensor:
        target = torch.full((len(logits), *logits.shape[2:]), y, device=logits.device)
        return sample_loss(logits, "label", target)

    return loss


def _cross_entropy_with_drawn(uniform: Tensor) -> LossFunction:
    """Labels drawn from the posterior by its distribution function, at the same uniform numbers […] for every sample.

    So the labels of a sample depend on itself and the seed alone, not on which samples are asked about with it, and chance adds
    less to the difference of two samples (common random numbers).
    """

    def loss(logits: Tensor, _: Tensor | None) -> Tensor:
        below = at_least_float32(logits).detach().softmax(dim=1).cumsum(dim=1)
        drawn = (below < uniform.to(below.device, below.dtype)).sum(dim=1).clamp_max(logits.shape[1] - 1)
        return sample_loss(logits, "label", drawn)

    return loss
