"""What the gradient of a parameter is made of, for every function that a model may give one to.

A rule has the signature of the torch function it stands for. It names the call's parameters and says, for each, how the
gradient of every single sample follows from the gradient of the output; where the squared norm is cheaper to have
than the gradient itself (Goodfellow 2015 for linear layers; Bu et al. 2022, "mixed ghost clipping", for convolutions),
it says how as well. A cost model, calibrated on a CPU and reasoned from operations and bytes for CUDA, chooses among the
exact forms from shapes alone, so that the same call takes the same form and gives the same bits every time.

Legend of the einsums and shapes: n samples, t and s positions, i inputs, o outputs, k offsets of a kernel, w items of
one sample on the batch dimension (windows; mostly 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.gradnorm.losses import at_least_float32


class Unsupported(Exception):
    """Why per-sample gradients cannot be read off a batch, and for which parameter."""

    def __init__(self, reason: str, parameter: str | None = None) -> None:
        super().__init__(reason)
        self.parameter = parameter


@dataclass(frozen=True)
class Layout:
    """Where the samples are: on dimension `dim`, with `items` entries a sample; the sample index runs faster if `inner`."""

    dim: int
    items: int
    inner: bool

    def rows(self, tensor: Tensor) -> Tensor:
        """[n, …]: samples first, at least float32; dimension `dim` of the rest counts the items of one sample."""
        n = tensor.shape[self.dim] // self.items
        sizes = (self.items, n) if self.inner else (n, self.items)
        return at_least_float32(tensor).unflatten(self.dim, sizes).movedim(self.dim + self.inner, 0)

    def own_dimension(self) -> None:
        """Refuse a call that would take something else than samples for its batch."""
        if self.dim != 0:
            raise Unsupported("the samples are not on the batch dimension of the call")


class Use(NamedTuple):
    """One parameter of one call. Both functions take the layout and the output's gradient in rows [n, …]."""

    parameter: Tensor
    saved: tuple[Tensor, ...]  # what they read again when the gradient arrives
    gradient: Callable[[Layout, Tensor], Tensor]  # → [n, *parameter.shape]
    squared: Callable[[Layout, Tensor], Tensor] | None = None  # → [n], if cheaper than the gradient's own


class Prices(NamedTuple):
    """Nanoseconds a sample. Only their proportions matter."""

    convolution: float  # a floating-point operation within a convolution
    product: float  # … within a matrix product
    unfolded: float  # an element of an unfolded image, written and read
    gradient: float  # an element of a per-sample gradient, written and squared
    added: float  # an element of one elementwise sum


# CPU: measured on two cores of an AMD EPYC (AVX2). CUDA: 40 TFLOP/s (TF32) against 2 TB/s. A grouped convolution has no
# tensor-core kernel there, so its operations are dear.
CPU = Prices(convolution=1 / 240, product=1 / 200, unfolded=1.5, gradient=0.5, added=0.25)
CUDA = Prices(convolution=1 / 1_000, product=1 / 40_000, unfolded=0.004, gradient=0.004, added=0.008)
# Temporary memory of one rule. On a CPU a block should stay in the cache; a GPU wants many samples a launch.
CPU_SCRATCH_BYTES = 4 * 2**20
CUDA_SCRATCH_BYTES = 256 * 2**20
# From this many elements on, input and gradient of one sample leave a CPU's cache by themselves, and the convolution's own
# copies of a whole block are memory that is new each time: such samples go one by one, up to 5 times as fast.
LARGE = 2**19


def cheapest(costs: dict[str, float]) -> str:
    """The form of the lowest cost, the first among equals."""
    return min(costs, key=lambda form: costs[form])


def _prices(tensor: Tensor) -> Prices:
    return CUDA if tensor.is_cuda else CPU


def _in_blocks(form: Callable[[Tensor, Tensor], Tensor], x: Tensor, g: Tensor, elements: float) -> Tensor:
    """form(x, g) over blocks of samples, such that `elements` of temporaries a sample stay within the scratch memory."""
    scratch = CUDA_SCRATCH_BYTES if g.is_cuda else CPU_SCRATCH_BYTES
    size = max(1, int(scratch / max(1.0, elements * g.element_size())))
    return torch.cat([form(a, b) for a, b in zip(x.split(size), g.split(size), strict=True)])


def square(gradient: Tensor) -> Tensor:
    """[n, …] → [n] squared L2 norms; [n] is the gradient of a parameter without dimensions."""
    flat = gradient.unsqueeze(-1).flatten(1)
    return torch.linalg.vecdot(flat, flat)


# Linear: z_t = W x_t + b, so ∂L/∂W = Σ_t g_t x_tᵀ


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Use]:
    def operands(layout: Layout, g: Tensor) -> tuple[Tensor, Tensor]:
        x = layout.rows(input)
        return x.reshape(len(x), -1, x.shape[-1]), g.reshape(len(g), -1, g.shape[-1])

    def squared(layout: Layout, g: Tensor) -> Tensor:
        return _squared_product(*operands(layout, g))

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        return _product(*operands(layout, g))

    uses = [Use(weight, (input,), gradient, squared)]
    if bias is not None:
        uses.append(Use(bias, (), lambda _, g: g.reshape(len(g), -1, g.shape[-1]).sum(dim=1)))
    return uses


def _product(x: Tensor, g: Tensor) -> Tensor:
    return torch.einsum("nto,nti->noi", g, x)


def _gram(x: Tensor, g: Tensor) -> Tensor:
    """‖Σ_t g_t x_tᵀ‖² = Σ_ts (g_t·g_s)(x_t·x_s)."""
    inputs, outputs = torch.einsum("nti,nsi->nts", x, x), torch.einsum("nto,nso->nts", g, g)
    return torch.linalg.vecdot(inputs.flatten(1), outputs.flatten(1)).clamp_min(0)


def _squared_product(x: Tensor, g: Tensor) -> Tensor:
    """x [n, t, i], g [n, t, o] → [n] squared norms of Σ_t g_t x_tᵀ, by the cheaper form."""
    (_, t, i), o, price = x.shape, g.shape[2], _prices(g)
    if t == 1:
        return square(x) * square(g)
    form = cheapest(
        {
            "product": price.product * 2 * t * i * o + price.gradient * i * o,
            "gram": price.product * 2 * t * t * (i + o) + price.gradient * 2 * t * t,
        }
    )
    if form == "gram":
        return _in_blocks(_gram, x, g, 2 * t * t)
    return _in_blocks(lambda a, b: square(_product(a, b)), x, g, i * o)


# Convolution: a linear layer on the patches of the input


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> list[Use]:
    dims = weight.ndim - 2
    if input.ndim != weight.ndim:
        raise Unsupported("an image without a batch dimension")
    kernel = tuple(weight.shape[2:])
    steps, spread = _each(stride, dims), _each(dilation, dims)
    before, after = _margins(padding, kernel, spread)

    def operands(layout: Layout, g: Tensor) -> tuple["_Patches", Tensor, Tensor]:
        layout.own_dimension()
        x, margin, window = layout.rows(input), before, (kernel, steps, spread)
        if before != after:  # padding="same" around an even kernel
            x = F.pad(x, [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair])
            margin = (0,) * dims
        if dims == 1:  # a row is an image of height 1
            x, g, margin = x.unsqueeze(-2), g.unsqueeze(-2), (0, *margin)
            window = ((1, *kernel), (1, *steps), (1, *spread))
        return _Patches(*window, margin, groups), x, g

    def squared(layout: Layout, g: Tensor) -> Tensor:
        patches, x, g = operands(layout, g)
        return patches.squared(x, g)

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        patches, x, g = operands(layout, g)
        return patches.gradient(x, g).reshape(len(g), *weight.shape)

    uses = [Use(weight, (input,), gradient, squared)]
    if bias is not None:
        uses.append(Use(bias, (), _sum_of_channels))
    return uses


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _margins(
    padding: str | int | Sequence[int], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after each dimension; "same" puts the odd one after, as torch does."""
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    both = _each(padding, len(kernel))
    return both, both


@dataclass(frozen=True)
class _Patches:
    """The geometry of a convolution over x [n, w, i, …] with output gradients g [n, w, o, …]; two or three dimensions."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    def squared(self, x: Tensor, g: Tensor) -> Tensor:
        """[n] squared norms of the weight's gradient."""
        if self.groups == 1 and math.prod(self.kernel) == 1 and not any(self.padding):  # a linear layer on pixels
            pixels = x[(slice(None),) * 3 + tuple(slice(None, None, step) for step in self.stride)]
            return _squared_product(pixels.transpose(1, 2).flatten(2).mT, g.transpose(1, 2).flatten(2).mT)
        w, i, *image = x.shape[1:]
        o, t, price, k = g.shape[2], w * math.prod(g.shape[3:]), _prices(g), math.prod(self.kernel)
        weights, unfolded = o * i // self.groups * k, t * i * k
        costs = {
            "grouped": price.convolution * 2 * t * weights + price.gradient * weights,
        }
        if len(self.kernel) == 2:
            costs |= {
                "unfold": price.product * 2 * t * weights + price.gradient * weights + price.unfolded * unfolded,
                "gram": price.product * 2 * t * t * (i * k + o)
                + price.gradient * 2 * t * t
                + price.unfolded * unfolded,
            }
        if len(self.kernel) == 2 and self.groups == w == 1 and set(self.stride) == {1}:
            padded = math.prod(side + 2 * p for side, p in zip(image, self.padding, strict=True))
            raster = g.shape[3] * (image[1] + 2 * self.padding[1])
            costs["pixels"] = price.product * 2 * (padded**2 * i + raster**2 * o) + price.added * padded**2 * (
                2 + sum(self.kernel)
            )
        form = cheapest(costs)
        if form == "grouped":
            alone = not g.is_cuda and x[0].numel() + g[0].numel() >= LARGE
            return _in_blocks(lambda a, b: square(self._grouped(a, b)), x, g, math.inf if alone else weights)
        if form == "pixels":
            return _in_blocks(self._pixels, x, g, 3 * padded**2)
        temporary = unfolded + (2 * t * t if form == "gram" else weights)
        of = _gram if form == "gram" else (lambda a, b: square(_product(a, b)))
        return _in_blocks(lambda a, b: of(*self._unfold(a, b)).view(len(a), -1).sum(dim=1), x, g, temporary)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """[n, …] the weight's gradient of every sample, in the order of the weight."""
        if _prices(g) is CUDA and len(self.kernel) == 2:
            return _product(*self._unfold(x, g)).view(len(x), -1)
        return self._grouped(x, g)

    def _grouped(self, x: Tensor, g: Tensor) -> Tensor:
        """The samples side by side as groups of one convolution, whose weight gradient is then that of each sample."""
        n, w, i = x.shape[:3]
        o, nowhere = g.shape[2], [0] * len(self.kernel)
        weight = g.new_empty(1).expand(n * o, i // self.groups, *self.kernel)  # its values are not read
        x, g = (tensor.transpose(0, 1).reshape(w, -1, *tensor.shape[3:]) for tensor in (x, g))
        window = (self.stride, self.padding, self.dilation, False, nowhere, n * self.groups)
        gradient = torch.ops.aten.convolution_backward(g, x, weight, None, *window, (False, True, False))[1]
        return gradient.view(n, -1)

    def _unfold(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The operands of a linear layer, [n · groups, t, i/groups · k] and [n · groups, t, o/groups]."""
        n, w = x.shape[:2]
        patches = F.unfold(x.flatten(0, 1), self.kernel, self.dilation, self.padding, self.stride)  # [n w, i k, t]
        patches = patches.view(n, w, self.groups, -1, patches.shape[-1])
        g = g.flatten(3).unflatten(2, (self.groups, -1))
        return tuple(a.movedim(1, 3).flatten(0, 1).flatten(2).mT for a in (patches, g))  # type: ignore[return-value]

    def _pixels(self, x: Tensor, g: Tensor) -> Tensor:
        """The Gram form from the Gram matrix of the pixels: patches at t and s have Σ_k x_{t+k}·x_{s+k}.

        On the padded image as one row of pixels an offset k is a shift of both indices, that is a diagonal shift of the
        matrix; sums over the rows of the kernel and over its columns follow each other. Stride 1 and one group.
        """
        image = F.pad(x[:, 0], [p for p in reversed(self.padding) for _ in (0, 1)])
        width, image = image.shape[-1], image.flatten(2)
        inputs = torch.einsum("nit,nis->nts", image, image)
        for size, step in ((self.kernel[1], self.dilation[1]), (self.kernel[0], self.dilation[0] * width)):
            length = inputs.shape[-1] - (size - 1) * step
            shifted = [inputs[:, o : o + length, o : o + length] for o in range(0, size * step, step)]
            inputs = shifted[0].clone()
            for diagonal in shifted[1:]:
                inputs += diagonal
        # where a row of the output has ended, the row of pixels goes on: its gradient there is zero
        g = F.pad(g[:, 0], (0, width - g.shape[-1])).flatten(2)[..., : inputs.shape[-1]]
        outputs = torch.einsum("not,nos->nts", g, g)
        return torch.linalg.vecdot(inputs.flatten(1), outputs.flatten(1)).clamp_min(0)


# Normalisation: y = γ x̂ + β, so ∂L/∂γ = Σ_t g_t x̂_t and ∂L/∂β = Σ_t g_t


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Use]:
    if training or running_mean is None or running_var is None:
        raise Unsupported("batch normalisation by the statistics of the batch ties its samples together")
    mean, var = running_mean, running_var

    def weighted(layout: Layout, g: Tensor) -> Tensor:
        """Every channel of every sample is a channel of one batch, so that the library's own kernel adds them up."""
        layout.own_dimension()
        x = layout.rows(input)
        n, w, c = x.shape[:3]
        # contiguous: torch 2.13 on a CPU is wrong for a batch of one that is not
        x, g = (tensor.transpose(0, 1).reshape(w, n * c, -1).contiguous() for tensor in (x, g))
        statistics = (mean.to(g.dtype).repeat(n), var.to(g.dtype).repeat(n), None, None, False, eps)
        _, gradient, _ = torch.ops.aten.native_batch_norm_backward(g, x, None, *statistics, (False, True, False))
        return gradient.view(n, c)

    return _affine(input, weight, bias, weighted, _sum_of_channels)


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
        return _sum_of_channels(layout, g * layout.rows(x))

    return _affine(input, weight, bias, weighted, _sum_of_channels)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Use]:
    shape = list(normalized_shape)

    def added(layout: Layout, g: Tensor) -> Tensor:
        return g.reshape(len(g), -1, *shape).sum(dim=1)

    def weighted(layout: Layout, g: Tensor) -> Tensor:
        return added(layout, g * layout.rows(F.layer_norm(at_least_float32(input), shape, eps=eps)))

    return _affine(input, weight, bias, weighted, added)


def _affine(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    weighted: Callable[[Layout, Tensor], Tensor],
    added: Callable[[Layout, Tensor], Tensor],
) -> list[Use]:
    uses = [] if weight is None else [Use(weight, (x,), weighted)]
    return uses if bias is None else [*uses, Use(bias, (), added)]


def _sum_of_channels(layout: Layout, g: Tensor) -> Tensor:
    """[n, w, c, …] → [n, c]."""
    layout.own_dimension()
    return g.reshape(*g.shape[:3], -1).sum(dim=(1, 3))


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[Use]:
    """Row v of the gradient is the sum of g_t over the positions t with token v; the padding token gets none."""
    if max_norm is not None or scale_grad_by_freq:
        raise Unsupported("an embedding whose rows depend on the batch (max_norm, scale_grad_by_freq)")
    padding = None if padding_idx is None else padding_idx % weight.shape[0]

    def operands(layout: Layout, g: Tensor) -> tuple[Tensor, Tensor]:
        tokens, g = layout.rows(input).reshape(len(g), -1), g.reshape(len(g), -1, g.shape[-1])
        return tokens, g if padding is None else g * (tokens != padding).unsqueeze(2)

    def squared(layout: Layout, g: Tensor) -> Tensor:
        def gram(tokens: Tensor, g: Tensor) -> Tensor:
            same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
            return (torch.einsum("nto,nso->nts", g, g) * same).sum(dim=(1, 2)).clamp_min(0)

        tokens, g = operands(layout, g)
        return _in_blocks(gram, tokens, g, 3 * tokens.shape[1] ** 2)

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        tokens, g = operands(layout, g)
        return g.new_zeros(len(g), *weight.shape).scatter_add_(1, tokens.unsqueeze(2).expand_as(g), g)

    return [Use(weight, (input,), gradient, squared)]


# Parameters that stand in the model by themselves


def expand(input: Tensor, *sizes: Any, **_: Any) -> list[Use]:
    return [Use(input, (), _summed_to(input))]


def add(input: Any, other: Any, *, alpha: float = 1) -> list[Use]:
    return [
        Use(term, (), _summed_to(term, factor))
        for term, factor in ((input, 1.0), (other, alpha))
        if isinstance(term, Tensor)
    ]


def multiply(input: Any, other: Any) -> list[Use]:
    return [
        Use(factor, (rest,) if isinstance(rest, Tensor) else (), _summed_to(factor, rest))
        for factor, rest in ((input, other), (other, input))
        if isinstance(factor, Tensor)
    ]


def _summed_to(parameter: Tensor, factor: Any = 1.0) -> Callable[[Layout, Tensor], Tensor]:
    """The gradient of a parameter that was broadcast against samples, and multiplied by `factor` there."""

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        if isinstance(factor, Tensor):
            dim = layout.dim
            if factor.ndim == g.ndim - 1 and factor.shape[dim] == g.shape[0] * layout.items:
                g = g * layout.rows(factor)
            elif factor.ndim == 0:
                g = g * factor
            else:
                raise Unsupported("a parameter times something that is broadcast as well")
        elif factor != 1:
            g = g * factor
        return g.sum_to_size(len(g), *(1,) * (g.ndim - 1 - parameter.ndim), *parameter.shape).view(-1, *parameter.shape)

    return gradient


RULES: dict[Any, Callable[..., list[Use]]] = {
    F.linear: linear,
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.conv3d: convolution,
    F.batch_norm: batch_norm,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
    F.embedding: embedding,
    Tensor.expand: expand,
    torch.add: add,
    Tensor.add: add,
    Tensor.add_: add,
    Tensor.__add__: add,
    Tensor.__radd__: add,
    Tensor.__iadd__: add,
    torch.mul: multiply,
    Tensor.mul: multiply,
    Tensor.__mul__: multiply,
    Tensor.__rmul__: multiply,
}
