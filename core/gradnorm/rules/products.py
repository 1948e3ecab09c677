"""Matrix products with a parameter: z_t = W x_t + b, so ∂L/∂W = Σ_t g_t x_tᵀ."""

from collections.abc import Sequence
from string import ascii_letters

import torch
from torch import Tensor
from torch.nn import functional as F

from core.gradnorm.losses import at_least_float32
from core.gradnorm.rules import costs
from core.gradnorm.rules.elementwise import summed_to, times, to_shape_of
from core.gradnorm.rules.registry import Layout, Unsupported, Use, rule, square


@rule(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Use]:
    def operands(layout: Layout, g: Tensor) -> tuple[Tensor, Tensor]:
        x = layout.rows(input)
        return x.reshape(len(x), -1, x.shape[-1]), g.reshape(len(g), -1, g.shape[-1])

    def squared(layout: Layout, g: Tensor) -> Tensor:
        return squared_product(*operands(layout, g))

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        return product(*operands(layout, g))

    uses = [Use(weight, (input,), gradient, squared)]
    if bias is not None:
        uses.append(Use(bias, (), lambda _, g: g.reshape(len(g), -1, g.shape[-1]).sum(dim=1)))
    return uses


def product(x: Tensor, g: Tensor) -> Tensor:
    """x [n, t, i], g [n, t, o] → Σ_t g_t x_tᵀ [n, o, i]."""
    return torch.einsum("nto,nti->noi", g, x)


def gram(x: Tensor, g: Tensor) -> Tensor:
    """‖Σ_t g_t x_tᵀ‖² = Σ_ts (g_t·g_s)(x_t·x_s)."""
    inputs, outputs = torch.einsum("nti,nsi->nts", x, x), torch.einsum("nto,nso->nts", g, g)
    return torch.linalg.vecdot(inputs.flatten(1), outputs.flatten(1)).clamp_min(0)


def squared_product(x: Tensor, g: Tensor) -> Tensor:
    """x [n, t, i], g [n, t, o] → [n] squared norms of Σ_t g_t x_tᵀ, by the cheaper form."""
    (_, t, i), o, price = x.shape, g.shape[2], costs.prices(g)
    if t == 1:
        return square(x) * square(g)
    form = costs.cheapest(
        {
            "product": price.product * 2 * t * i * o + price.gradient * i * o,
            "gram": price.product * 2 * t * t * (i + o) + price.gradient * 2 * t * t,
        }
    )
    if form == "gram":
        return costs.in_blocks(gram, x, g, 2 * t * t)
    return costs.in_blocks(lambda a, b: square(product(a, b)), x, g, i * o)


@rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm)
def matmul(input: Tensor, other: Tensor) -> list[Use]:
    return [_factor(other, input, left=False), _factor(input, other, left=True)]


def _factor(parameter: Tensor, rest: Tensor, left: bool) -> Use:
    """The parameter of z = rest @ parameter or, if `left`, of z = parameter @ rest, which is zᵀ = restᵀ @ parameterᵀ."""

    def operands(layout: Layout, g: Tensor) -> tuple[Tensor, Tensor]:
        """x [n, …, t, i] and g [n, …, t, o]."""
        if parameter.ndim < 2 or rest.ndim < 2:
            raise Unsupported("a matrix product with a vector")
        x = layout.rows(rest[(None,) * (g.ndim - 1 - rest.ndim)])
        return (x.mT, g.mT) if left else (x, g)

    def flat(layout: Layout, g: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(a.reshape(len(a), -1, a.shape[-1]) for a in operands(layout, g))  # type: ignore[return-value]

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        if parameter.ndim == 2:
            found = product(*flat(layout, g))
            return found if left else found.mT
        x, g = operands(layout, g)
        found = g.mT @ x
        return to_shape_of(parameter, found if left else found.mT)

    def squared(layout: Layout, g: Tensor) -> Tensor:
        return squared_product(*flat(layout, g)) if parameter.ndim == 2 else square(gradient(layout, g))

    return Use(parameter, (rest,), gradient, squared)


@rule(torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> list[Use]:
    return [Use(input, (), summed_to(input, beta)), *(times(alpha, use) for use in matmul(mat1, mat2))]


@rule(torch.einsum)
def einsum(equation: str, *operands: Tensor | Sequence[Tensor]) -> list[Use]:
    """The gradient of a factor is the sum of the same products, over what the factor does not have."""
    tensors = [t for operand in operands for t in ([operand] if isinstance(operand, Tensor) else operand)]
    terms, answer = _spelled(equation, tensors)
    return [_summand(k, tensors, terms, answer) for k in range(len(tensors))]


def _summand(k: int, tensors: list[Tensor], terms: list[str], answer: str) -> Use:
    others = [(tensor, term) for at, (tensor, term) in enumerate(zip(tensors, terms, strict=True)) if at != k]
    n = next(letter for letter in ascii_letters if letter not in "".join((answer, *terms)))

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        sample, own = answer[layout.dim], terms[k]
        if sample in own or not set(own) <= {*answer, *"".join(term for _, term in others)}:
            raise Unsupported(f"einsum with a parameter {own} in the product {','.join(terms)}->{answer}")
        rows, factors = [g], [n + answer]
        for tensor, term in others:
            of_samples = sample in term
            split = Layout(term.index(sample), layout.items, layout.inner) if of_samples else None
            rows.append(split.rows(tensor) if split else at_least_float32(tensor))
            factors.append(n * of_samples + term)
        return torch.einsum(f"{','.join(factors)}->{n}{own}", *rows)

    return Use(tensors[k], tuple(tensor for tensor, _ in others), gradient)


def _spelled(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of each factor and of the answer, one a dimension, with letters instead of an ellipsis."""
    if not isinstance(equation, str):
        raise Unsupported("einsum with lists of numbers")
    left, arrow, answer = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [letter for letter in ascii_letters if letter not in equation]
    most = max(tensor.ndim - len(term.replace("...", "")) for tensor, term in zip(tensors, terms, strict=True))
    spare = "".join(free[:most])
    if not arrow:
        once = sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1)
        answer = "..." * ("..." in left) + "".join(once)
    for at, (tensor, term) in enumerate(zip(tensors, terms, strict=True)):
        own = tensor.ndim - len(term.replace("...", ""))
        terms[at] = term.replace("...", spare[most - own :])
    answer = answer.replace("...", spare)
    sizes = {
        (letter, size)
        for t, term in zip(tensors, terms, strict=True)
        for letter, size in zip(term, t.shape, strict=True)
    }
    if len(sizes) > len({letter for letter, _ in sizes}) or any(len(set(term)) < len(term) for term in terms):
        raise Unsupported("einsum over a diagonal, or with factors that are broadcast")
    return terms, answer
