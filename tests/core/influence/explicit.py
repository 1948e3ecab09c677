"""The definitions that the products are held against: matrices and gradients written out, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def flat(vector: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in vector.values()])


def random_vector(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in trainable(model).items()}


def single(model: nn.Module, image: Tensor) -> Tensor:
    """Logits [1, K, …] by the first of two copies: torch 2.13 differentiates some batches of one wrongly on a CPU."""
    return model(torch.stack([image, image]))[:1]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the known positions of one sample."""
    return F.cross_entropy(logits, target[None], ignore_index=-1, reduction="sum") / (target >= 0).sum().clamp_min(1)


def gradient(value: Tensor, model: nn.Module) -> Tensor:
    """[parameters]"""
    parameters = list(trainable(model).values())
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(parameters, found, strict=True)]
    )


def label_gradients(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """[N, parameters] ∇CE of every sample."""
    pairs = zip(images, targets, strict=True)
    return torch.stack([gradient(cross_entropy(single(model, x), y), model) for x, y in pairs])


def dots(
    model: nn.Module, images: Tensor, vector: dict[str, Tensor], loss: str, targets: Tensor | None = None
) -> Tensor:
    """[N] one sample, one backward pass after the other."""
    along, rows = flat(vector), []
    for n, image in enumerate(images):
        logits = single(model, image)
        p = logits.softmax(dim=1)
        if loss == "label":
            assert targets is not None
            rows.append(gradient(cross_entropy(logits, targets[n]), model) @ along)
        elif loss == "egl":
            weight = p.detach().reshape(p.shape[1], -1).mean(dim=1)
            every = -F.log_softmax(logits, dim=1)
            rows.append(sum(w * (gradient(every[:, y].mean(), model) @ along).abs() for y, w in enumerate(weight)))
        else:
            rows.append(gradient(torch.special.entr(p).sum(dim=1).mean(), model) @ along)
    return torch.stack(rows)


def ggn(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """[parameters, parameters] (1/n) Σ JᵀΛJ, J row by row and Λ by autograd."""
    total = 0
    for image, target in zip(images, targets, strict=True):
        logits = single(model, image)
        jacobian = torch.stack([gradient(z, model) for z in logits.reshape(-1)])
        inner = torch.autograd.functional.hessian(lambda z, y=target: cross_entropy(z, y), logits.detach())
        total = total + jacobian.T @ inner.reshape(2 * (logits.numel(),)) @ jacobian
    return total / len(images)


def hessian(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """[parameters, parameters] of the mean loss, row by row."""
    parameters = list(trainable(model).values())
    loss = torch.stack([cross_entropy(single(model, x), y) for x, y in zip(images, targets, strict=True)]).mean()
    first = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    every = torch.eye(len(first), dtype=first.dtype)
    rows = torch.autograd.grad(first, parameters, every, is_grads_batched=True)
    return torch.cat([row.reshape(len(first), -1) for row in rows], dim=1)


CURVATURES: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {"ggn": ggn, "hessian": hessian}
