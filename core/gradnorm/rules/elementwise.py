"""Parameters that stand in the model by themselves: broadcast against samples, and met there entry by entry."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.gradnorm.rules.registry import Layout, Unsupported, Use, rule


def to_shape_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """[n, …] of everything that a parameter was broadcast to → [n, *parameter.shape], sums over the copies."""
    try:
        summed = gradient.sum_to_size(len(gradient), *(1,) * (gradient.ndim - 1 - parameter.ndim), *parameter.shape)
    except RuntimeError as error:
        raise Unsupported("a parameter that is not the same for all samples") from error
    return summed.view(-1, *parameter.shape)


def summed_to(parameter: Tensor, factor: Any = 1.0) -> Callable[[Layout, Tensor], Tensor]:
    """The gradient of a parameter that was broadcast against samples, and multiplied by `factor` there."""

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        if isinstance(factor, Tensor):
            g = g * (factor if factor.ndim == 0 else layout.rows(factor.expand(_whole(layout, g))))
        elif factor != 1:
            g = g * factor
        return to_shape_of(parameter, g)

    return gradient


def _whole(layout: Layout, rows: Tensor) -> list[int]:
    """The shape of what `layout` made such rows of."""
    shape = list(rows.shape[1:])
    shape[layout.dim] *= len(rows)
    return shape


@rule(Tensor.expand, Tensor.expand_as, Tensor.broadcast_to, torch.broadcast_to)
def expand(input: Tensor, *_: Any, **__: Any) -> list[Use]:
    return [Use(input, (), summed_to(input))]


@rule(Tensor.repeat)
def repeat(input: Tensor, *_: Any, **__: Any) -> list[Use]:
    def gradient(_: Layout, g: Tensor) -> Tensor:
        shape = (*(1,) * (g.ndim - 1 - input.ndim), *input.shape)
        if any(size % own for size, own in zip(g.shape[1:], shape, strict=True)):
            raise Unsupported("a parameter that is repeated within a sample and beyond it")
        copies = [part for size, own in zip(g.shape[1:], shape, strict=True) for part in (size // own, own)]
        return g.reshape(len(g), *copies).sum(dim=list(range(1, 1 + len(copies), 2))).view(-1, *input.shape)

    return [Use(input, (), gradient)]


@rule(torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
def add(input: Any, other: Any, *, alpha: float = 1) -> list[Use]:
    return [
        Use(term, (), summed_to(term, factor))
        for term, factor in ((input, 1.0), (other, alpha))
        if isinstance(term, Tensor)
    ]


@rule(torch.sub, Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__isub__)
def subtract(input: Any, other: Any, *, alpha: float = 1) -> list[Use]:
    return add(input, other, alpha=-alpha)


@rule(torch.rsub, Tensor.__rsub__)
def subtract_from(input: Any, other: Any, *, alpha: float = 1) -> list[Use]:
    return subtract(other, input, alpha=alpha)


@rule(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def multiply(input: Any, other: Any) -> list[Use]:
    return [
        Use(factor, (rest,) if isinstance(rest, Tensor) else (), summed_to(factor, rest))
        for factor, rest in ((input, other), (other, input))
        if isinstance(factor, Tensor)
    ]


@rule(Tensor.mul_, Tensor.__imul__)
def multiply_in_place(input: Tensor, other: Any) -> list[Use]:
    return multiply(input.clone(), other)  # as it was before


@rule(torch.addcmul, Tensor.addcmul)
def add_product(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> list[Use]:
    return [Use(input, (), summed_to(input)), *(times(value, use) for use in multiply(tensor1, tensor2))]


def times(scale: float, use: Use) -> Use:
    """The use in a call that multiplies by `scale` what the rule of `use` knows of."""
    if scale == 1:
        return use
    squared = use.squared
    return use._replace(
        gradient=lambda layout, g: use.gradient(layout, scale * g),
        squared=None if squared is None else lambda layout, g: squared(layout, scale * g),
    )


@rule(F.prelu, torch.prelu)
def prelu(input: Tensor, weight: Tensor) -> list[Use]:
    def gradient(layout: Layout, g: Tensor) -> Tensor:
        below = g * layout.rows(input).clamp_max(0)
        if weight.numel() == 1:
            return below.flatten(1).sum(dim=1).view(-1, *weight.shape)
        return sum_of_channels(layout, below)

    return [Use(weight, (input,), gradient)]


def sum_of_channels(layout: Layout, g: Tensor) -> Tensor:
    """[n, w, c, …] → [n, c]."""
    layout.own_dimension()
    return g.reshape(*g.shape[:3], -1).sum(dim=(1, 3))


def elementwise(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> list[Use]:
    """The rule of any function whose arguments meet entry by entry, by way of the function's own derivative.

    In the shape of the output no two samples share an entry of the parameter, so that one backward pass gives the
    gradients of all of them.
    """
    if any(isinstance(value, Tensor) for value in kwargs.values()):
        raise Unsupported(f"{function.__name__} with a tensor by the name of an argument")
    shape = torch.broadcast_shapes(*(argument.shape for argument in args if isinstance(argument, Tensor)))

    def use(at: int) -> Use:
        def gradient(layout: Layout, g: Tensor) -> Tensor:
            rows = [layout.rows(a.expand(shape)) if isinstance(a, Tensor) else a for a in args]
            with torch.enable_grad():
                own = rows[at] = rows[at].detach().requires_grad_()
                output = function(*rows, **kwargs)
            return to_shape_of(args[at], torch.autograd.grad(output, own, g)[0])

        others = tuple(a for place, a in enumerate(args) if place != at and isinstance(a, Tensor))
        return Use(args[at], others, gradient)

    return [use(at) for at, a in enumerate(args) if isinstance(a, Tensor) and a.is_floating_point()]


for _function in (
    *(torch.div, torch.true_divide, Tensor.div, Tensor.true_divide, Tensor.__truediv__, Tensor.__rdiv__),
    *(torch.pow, Tensor.pow, Tensor.__pow__, Tensor.__rpow__, torch.addcdiv, Tensor.addcdiv),
    *(torch.maximum, torch.minimum, torch.lerp, Tensor.lerp, torch.where, Tensor.where),
):
    rule(_function)(partial(elementwise, _function))
