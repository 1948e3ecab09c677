"""What a rule is, and the table of all rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

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


class Joint(NamedTuple):
    """Uses whose work the backward pass of the call shares, where the call is made by `output`."""

    uses: list[Use]
    output: Callable[[], Tensor]


class Shared(Function):
    """f(x) with a backward pass of its own: `gradient` takes x and the gradient of the output to that of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor], gradient: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x)  # so that it is let go as soon as it was used
        ctx.gradient = gradient
        return f(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.gradient(*ctx.saved_tensors, *gradients), None, None


Rule = Callable[..., list[Use] | Joint]
R = TypeVar("R", bound=Rule)
RULES: dict[Any, Rule] = {}


def rule(*functions: Any) -> Callable[[R], R]:
    """Register a rule for torch functions, instead of one that they may have.

    The rule has the signature of the functions. It is called with the arguments of a call in which samples meet a
    parameter, and returns a `Use` for each argument that may be one, in any order, or a `Joint` of these.
    """

    def register(made: R) -> R:
        RULES.update(dict.fromkeys(functions, made))
        return made

    return register


def square(gradient: Tensor) -> Tensor:
    """[n, …] → [n] squared L2 norms; [n] is the gradient of a parameter without dimensions."""
    flat = gradient.unsqueeze(-1).flatten(1)
    return torch.linalg.vecdot(flat, flat)
