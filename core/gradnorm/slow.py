"""Gradient norms of any model, by means that treat every sample alone: the definition, at its price.

`one_by_one` is plain autograd, the definition itself, for whatever runs in PyTorch. `mapped` lets `torch.func` map the
gradient of one sample over a chunk of samples, which is faster and holds the per-sample gradients of the whole model at
once.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.gradnorm.losses import LossFunction

CHUNK_BYTES = 256 * 2**20  # per-sample gradients held at once: larger chunks were not faster on a CPU
MAX_CHUNK = 256


def passes(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, targets: Tensor | None, losses: Sequence[LossFunction]
) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
    """Logits [n, K, …] and, for each loss, its values [n] and the norms [n, tensors]."""
    logits, each = _derived(model, parameters, x, targets, losses)
    return logits, ((loss(logits, targets), norms) for loss, norms in zip(losses, each, strict=True))


def _derived(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, targets: Tensor | None, losses: Sequence[LossFunction]
) -> tuple[Tensor, Iterator[Tensor]]:
    if len(x) > 1:
        try:
            return mapped(model, parameters, x, targets, losses)
        except Exception:  # a model's code may fail in any way under torch.func, as a custom Function does
            pass  # if it is the model that fails, it fails again below
    return one_by_one(model, parameters, x, targets, losses)


def one_by_one(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, targets: Tensor | None, losses: Sequence[LossFunction]
) -> tuple[Tensor, Iterator[Tensor]]:
    """Logits [n, K, …] and, for each loss, the norms [n, tensors]: a forward pass a sample, a backward pass a loss."""
    answers, rows = [], []
    for n, sample in enumerate(x):  # one after the other, so that one graph is held at a time
        with torch.enable_grad():
            logits = single(model, sample)
            values = [loss(logits, None if targets is None else targets[n : n + 1]).sum() for loss in losses]
        answers.append(logits.detach())
        rows.append([derive(value, parameters) for value in values])
    return torch.cat(answers), (torch.stack(norms) for norms in zip(*rows, strict=True))


def single(model: nn.Module, sample: Tensor) -> Tensor:
    """Logits [1, K, …] of one sample, to be differentiated: the first of two copies.

    torch 2.13 on a CPU differentiates batch normalisation in eval mode wrongly for a batch of one whose gradient is not
    contiguous, as after flatten(2).transpose(1, 2); a batch of two is right. The loss of the first copy alone has the
    gradient of the sample alone.
    """
    return model(torch.stack([sample, sample]))[:1]


def derive(value: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """[tensors] norms of the gradient of one number, 0 for a parameter that it does not depend on."""
    if not value.requires_grad:
        return value.new_zeros(len(parameters))
    gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return torch.stack([value.new_zeros(()) if g is None else torch.linalg.vector_norm(g) for g in gradients])


def chunk_of(parameters: dict[str, Tensor]) -> int:
    """How many samples `mapped` takes at once: each holds its gradients, and as much again while they are made."""
    bytes_a_sample = 2 * sum(p.numel() * p.element_size() for p in parameters.values())
    return max(1, min(MAX_CHUNK, CHUNK_BYTES // max(1, bytes_a_sample)))


def mapped(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, targets: Tensor | None, losses: Sequence[LossFunction]
) -> tuple[Tensor, Iterator[Tensor]]:
    """As `one_by_one`, all samples of the chunk at once; raises `RuntimeError`, or what else the model's code raises
    there, for code that torch.func cannot map."""
    derived = {name: p.detach() for name, p in parameters.items()}
    fixed = {name: p.detach() for name, p in model.named_parameters() if name not in parameters}
    fixed |= {name: b.detach() for name, b in model.named_buffers()}

    def norms_of(loss: LossFunction, sample: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        def value(own: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            logits = functional_call(model, {**own, **fixed}, (sample[None],))
            return loss(logits, None if target is None else target[None])[0], logits[0]

        gradients, logits = grad(value, has_aux=True)(derived)
        return torch.stack([torch.linalg.vector_norm(gradients[name]) for name in derived]), logits

    def of(loss: LossFunction) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be mapped
            if targets is None:
                return vmap(lambda sample: norms_of(loss, sample, None), randomness="different")(x)
            return vmap(lambda sample, target: norms_of(loss, sample, target), randomness="different")(x, targets)

    first, logits = of(losses[0])
    if logits.requires_grad:  # all that was put into the model is detached
        raise RuntimeError("the model holds a parameter where torch.func cannot put another in its place")

    def norms() -> Iterator[Tensor]:
        yield first
        for loss in losses[1:]:
            yield of(loss)[0]

    return logits.detach(), norms()
