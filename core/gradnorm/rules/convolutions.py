"""Convolution: a linear layer on the patches of the input."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from core.gradnorm.rules import costs
from core.gradnorm.rules.elementwise import sum_of_channels
from core.gradnorm.rules.products import gram, product, squared_product
from core.gradnorm.rules.registry import Layout, Unsupported, Use, rule, square

_convolution_backward = torch.ops.aten.convolution_backward.default


@rule(F.conv1d, F.conv2d, F.conv3d)
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

    def operands(layout: Layout, g: Tensor) -> tuple["Patches", Tensor, Tensor]:
        layout.own_dimension()
        x, margin = layout.rows(input), before
        if before != after:  # padding="same" around an even kernel
            x = F.pad(x, [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair])
            margin = (0,) * dims
        return Patches(kernel, steps, spread, margin, groups), x, g

    return _uses(weight, bias, input, operands)


@rule(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> list[Use]:
    """Of the convolution that goes the other way the output is the input, and its gradient the image of the patches."""
    dims = weight.ndim - 2
    if input.ndim != weight.ndim:
        raise Unsupported("an image without a batch dimension")
    steps, spread, margin = _each(stride, dims), _each(dilation, dims), _each(padding, dims)
    if any(more >= step for more, step in zip(_each(output_padding, dims), steps, strict=True)):
        raise Unsupported("a transposed convolution with an output padding as large as its stride")

    def operands(layout: Layout, g: Tensor) -> tuple["Patches", Tensor, Tensor]:
        layout.own_dimension()
        return Patches(tuple(weight.shape[2:]), steps, spread, margin, groups), g, layout.rows(input)

    return _uses(weight, bias, input, operands)


def _uses(
    weight: Tensor,
    bias: Tensor | None,
    input: Tensor,
    operands: Callable[[Layout, Tensor], tuple["Patches", Tensor, Tensor]],
) -> list[Use]:
    """operands: the geometry, the image that patches are taken from, and what each of them is multiplied by."""

    def images(layout: Layout, g: Tensor) -> tuple["Patches", Tensor, Tensor]:
        patches, x, g = operands(layout, g)
        if len(patches.kernel) > 1:
            return patches, x, g
        window = ((1, *patches.kernel), (1, *patches.stride), (1, *patches.dilation), (0, *patches.padding))
        return Patches(*window, patches.groups), x.unsqueeze(-2), g.unsqueeze(-2)  # a row is an image of height 1

    def squared(layout: Layout, g: Tensor) -> Tensor:
        patches, x, g = images(layout, g)
        return patches.squared(x, g)

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        patches, x, g = images(layout, g)
        return patches.gradient(x, g).reshape(len(g), *weight.shape)

    uses = [Use(weight, (input,), gradient, squared)]
    if bias is not None:
        uses.append(Use(bias, (), sum_of_channels))
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


def _channels_last(rows: Tensor) -> bool:
    """Whether images [n, w, c, h, w'], one a sample, are in this order, and not in the usual one as well."""
    if rows.ndim != 5 or rows.shape[1] != 1 or rows.is_contiguous():
        return False
    return rows[:, 0].is_contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Patches:
    """The geometry of a convolution over x [n, w, i, …] with output gradients g [n, w, o, …]."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    def squared(self, x: Tensor, g: Tensor) -> Tensor:
        """[n] squared norms of the weight's gradient."""
        if self.groups == 1 and math.prod(self.kernel) == 1 and not any(self.padding):  # a linear layer on pixels
            pixels = x[(slice(None),) * 3 + tuple(slice(None, None, step) for step in self.stride)]
            return squared_product(pixels.transpose(1, 2).flatten(2).mT, g.transpose(1, 2).flatten(2).mT)
        w, i, *image = x.shape[1:]
        o, t, price, k = g.shape[2], w * math.prod(g.shape[3:]), costs.prices(g), math.prod(self.kernel)
        weights, unfolded = o * i // self.groups * k, t * i * k
        forms = {
            "grouped": price.convolution * 2 * t * weights + price.gradient * weights,
        }
        if len(self.kernel) == 2:
            forms |= {
                "unfold": price.product * 2 * t * weights + price.gradient * weights + price.unfolded * unfolded,
                "gram": price.product * 2 * t * t * (i * k + o)
                + price.gradient * 2 * t * t
                + price.unfolded * unfolded,
            }
        if len(self.kernel) == 2 and self.groups == w == 1 and set(self.stride) == {1}:
            padded = math.prod(side + 2 * p for side, p in zip(image, self.padding, strict=True))
            raster = g.shape[3] * (image[1] + 2 * self.padding[1])
            forms["pixels"] = price.product * 2 * (padded**2 * i + raster**2 * o) + price.added * padded**2 * (
                2 + sum(self.kernel)
            )
        # k > 1: see `core.models.architectures.Pointwise` for what oneDNN does to 1 × 1 convolutions with a stride
        if k > 1 and not g.is_cuda and _channels_last(g):
            copies = costs.COPIED * (x[0].numel() + g[0].numel())  # which the other forms make
            forms = {name: cost + copies for name, cost in forms.items()}
            forms["alone"] = costs.CALL + price.convolution * 2 * t * weights + price.gradient * weights
        form = costs.cheapest(forms)
        if form == "alone":
            return self._alone(x[:, 0], g[:, 0])
        if form == "grouped":
            alone = not g.is_cuda and x[0].numel() + g[0].numel() >= costs.LARGE
            return costs.in_blocks(lambda a, b: square(self._grouped(a, b)), x, g, math.inf if alone else weights)
        if form == "pixels":
            return costs.in_blocks(self._pixels, x, g, 3 * padded**2)
        temporary = unfolded + (2 * t * t if form == "gram" else weights)
        of = gram if form == "gram" else (lambda a, b: square(product(a, b)))
        return costs.in_blocks(lambda a, b: of(*self._unfold(a, b)).view(len(a), -1).sum(dim=1), x, g, temporary)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """[n, …] the weight's gradient of every sample, in the order of the weight."""
        if costs.prices(g) is costs.CUDA and len(self.kernel) == 2:
            return product(*self._unfold(x, g)).view(len(x), -1)
        return self._grouped(x, g)

    def _grouped(self, x: Tensor, g: Tensor) -> Tensor:
        """The samples side by side as groups of one convolution, whose weight gradient is then that of each sample."""
        n, w, i = x.shape[:3]
        o, nowhere = g.shape[2], [0] * len(self.kernel)
        weight = g.new_empty(1).expand(n * o, i // self.groups, *self.kernel)  # its values are not read
        x, g = (tensor.transpose(0, 1).reshape(w, -1, *tensor.shape[3:]) for tensor in (x, g))
        window = (self.stride, self.padding, self.dilation, False, nowhere, n * self.groups)
        gradient = _convolution_backward(g, x, weight, None, *window, (False, True, False))[1]
        return gradient.view(n, -1)

    def _alone(self, x: Tensor, g: Tensor) -> Tensor:
        """[n] squared norms from the weight's gradient by the library, sample by sample: x [n, i, …], g [n, o, …]."""
        shape, nowhere = (g.shape[1], x.shape[1] // self.groups, *self.kernel), [0] * len(self.kernel)
        weight = torch.empty(shape, dtype=g.dtype, memory_format=torch.channels_last)  # its values are not read
        window = (self.stride, self.padding, self.dilation, False, nowhere, self.groups)
        gradients = [
            _convolution_backward(b, a, weight, None, *window, (False, True, False))[1]
            for a, b in zip(x.split(1), g.split(1), strict=True)
        ]
        return torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).square()

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
