"""Normalisation: y = γ x̂ + β, so ∂L/∂γ = Σ_t g_t x̂_t and ∂L/∂β = Σ_t g_t."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from core.gradnorm.losses import at_least_float32
from core.gradnorm.rules import costs
from core.gradnorm.rules.elementwise import sum_of_channels
from core.gradnorm.rules.registry import Joint, Layout, Shared, Unsupported, Use, rule

# Elements of a sample from which on the library's kernel also adds up the gradient of the bias, and a call a sample pays.
WIDE, MANY = 2**18, 2**15


@rule(F.batch_norm)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Joint:
    if training or running_mean is None or running_var is None:
        raise Unsupported("batch normalisation by the statistics of the batch ties its samples together")
    mean, var = running_mean, running_var
    found: dict[str, Tensor] = {}  # what one call of the library's kernel computed beyond what was asked for
    whole = input.requires_grad and input.is_contiguous() and weight is not None and input.dtype == weight.dtype

    def weighted(layout: Layout, g: Tensor) -> Tensor:
        """Every channel of every sample is a channel of one batch, so that the library's own kernel adds them up. Where that
        would take a copy in another order, as of channels-last images, it is done entry by entry instead."""
        layout.own_dimension()
        x = layout.rows(input)
        n, w, c = x.shape[:3]
        if not g.is_cuda and not (x.is_contiguous() and g.is_contiguous()):
            shape = (c, *(1,) * (x.ndim - 3))
            centre, scale = mean.to(g.dtype).view(shape), (var.to(g.dtype) + eps).rsqrt()
            added = costs.in_blocks(lambda a, b: sum_of_channels(layout, (a - centre).mul_(b)), x, g, x[0].numel())
            return added * scale
        # contiguous: torch 2.13 on a CPU is wrong for a batch of one that is not
        x, g = (tensor.transpose(0, 1).reshape(w, n * c, -1).contiguous() for tensor in (x, g))
        once = whole and w == 1
        per_channel = torch.stack((mean, var, weight if once else var)).to(g.dtype).repeat(1, n)  # type: ignore[arg-type]
        below, gradient, added = torch.ops.aten.native_batch_norm_backward(
            *(g, x, per_channel[2] if once else None, per_channel[0], per_channel[1], None, None, False, eps),
            (once, True, once),
        )
        if once:
            found["input"] = below.view(input.shape)
        if once and x[0].numel() >= n * WIDE:
            found["bias"] = added.view(n, c)
        return gradient.view(n, c)

    def summed(layout: Layout, g: Tensor) -> Tensor:
        return found.pop("bias") if "bias" in found else sum_of_channels(layout, g)

    def below(x: Tensor, g: Tensor) -> Tensor:
        """The gradient of the input, which is there if that of the weight was asked for."""
        if "input" in found:
            return found.pop("input")
        statistics = (weight, mean, var, None, None, False, eps)
        return torch.ops.aten.native_batch_norm_backward(g, x, *statistics, (True, False, False))[0]

    def normalised(x: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, weight, bias, False, momentum, eps)

    uses = _affine(input, weight, bias, weighted, summed)
    return Joint(uses, lambda: Shared.apply(input, normalised, below) if whole else normalised(input))  # type: ignore[no-untyped-call]


@rule(F.group_norm)
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Use]:
    def weighted(layout: Layout, g: Tensor) -> Tensor:
        layout.own_dimension()
        x = F.group_norm(at_least_float32(input), num_groups, eps=eps)
        return sum_of_channels(layout, g * layout.rows(x))

    return _affine(input, weight, bias, weighted, sum_of_channels)


@rule(F.instance_norm)
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Use]:
    def weighted(layout: Layout, g: Tensor) -> Tensor:
        layout.own_dimension()
        # running statistics that are read only: with statistics of the input they would be written to
        known = (None, None) if use_input_stats else (running_mean, running_var)
        x = F.instance_norm(at_least_float32(input), *known, use_input_stats=use_input_stats, eps=eps)
        return sum_of_channels(layout, g * layout.rows(x))

    return _affine(input, weight, bias, weighted, sum_of_channels)


@rule(F.layer_norm)
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Use] | Joint:
    shape = list(normalized_shape)

    def added(layout: Layout, g: Tensor) -> Tensor:
        return g.reshape(len(g), -1, *shape).sum(dim=1)

    def weighted(layout: Layout, g: Tensor) -> Tensor:
        return added(layout, g * layout.rows(F.layer_norm(at_least_float32(input), shape, eps=eps)))

    plain = _affine(input, weight, bias, weighted, added)
    if input.is_cuda or weight is None or input.dtype != weight.dtype or input[0].numel() < MANY:
        return plain
    return _joint_layer_norm(input, shape, weight, bias, eps, plain)


def _joint_layer_norm(
    input: Tensor, shape: list[int], weight: Tensor, bias: Tensor | None, eps: float, plain: list[Use]
) -> Joint:
    """By the library's kernel, once a sample, from the statistics of the forward pass."""
    x = input.contiguous()
    statistics: list[Tensor] = []
    found: dict[str, Tensor] = {}

    def normalised(x: Tensor) -> Tensor:
        output, *statistics[:] = torch.native_layer_norm(x, shape, weight, bias, eps)
        return output

    def below(x: Tensor, g: Tensor) -> Tensor:
        return _layer_norm_backward(g, x, shape, *statistics, weight, bias, (True, False, False))[0]

    def weighted(layout: Layout, g: Tensor) -> Tensor:
        if layout.dim or layout.inner:
            return plain[0].gradient(layout, g)
        rows = zip(*(tensor.view(len(g), -1, *tensor.shape[1:]) for tensor in (x, *statistics)), strict=True)
        which = (False, True, bias is not None)
        parts = [
            _layer_norm_backward(a, *b[:1], shape, *b[1:], weight, bias, which)[1:]
            for a, b in zip(g, rows, strict=True)
        ]
        if bias is not None:
            found["bias"] = torch.stack([part[1] for part in parts])
        return torch.stack([part[0] for part in parts])

    def added(layout: Layout, g: Tensor) -> Tensor:
        return found.pop("bias") if "bias" in found else plain[1].gradient(layout, g)

    uses = _affine(x, weight, bias, weighted, added)
    return Joint(uses, lambda: Shared.apply(x, normalised, below))  # type: ignore[no-untyped-call]


_layer_norm_backward = torch.ops.aten.native_layer_norm_backward


@rule(F.rms_norm)
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> list[Use]:
    shape = list(normalized_shape)

    def weighted(layout: Layout, g: Tensor) -> Tensor:
        x = layout.rows(F.rms_norm(at_least_float32(input), shape, eps=eps))
        return (g * x).reshape(len(g), -1, *shape).sum(dim=1)

    return [] if weight is None else [Use(weight, (input,), weighted)]


def _affine(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    weighted: Callable[[Layout, Tensor], Tensor],
    added: Callable[[Layout, Tensor], Tensor],
) -> list[Use]:
    uses = [] if weight is None else [Use(weight, (x,), weighted)]
    return uses if bias is None else [*uses, Use(bias, (), added)]
