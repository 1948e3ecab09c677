"""Tables whose rows the samples choose: row v of the gradient is the sum of g_t over the positions t that chose v."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.gradnorm.rules import costs
from core.gradnorm.rules.registry import Layout, Unsupported, Use, rule


@rule(F.embedding)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[Use]:
    """The padding token gets no gradient."""
    if max_norm is not None or scale_grad_by_freq:
        raise Unsupported("an embedding whose rows depend on the batch (max_norm, scale_grad_by_freq)")
    return [_rows(weight, input, None if padding_idx is None else padding_idx % weight.shape[0])]


@rule(Tensor.__getitem__)
def item(input: Tensor, index: Any) -> list[Use]:
    if not isinstance(index, Tensor) or index.is_floating_point() or index.dtype == torch.bool:
        raise Unsupported("an index that is not one tensor of row numbers")
    return [_rows(input, index % len(input), None)]


def _rows(table: Tensor, chosen: Tensor, padding: int | None) -> Use:
    def operands(layout: Layout, g: Tensor) -> tuple[Tensor, Tensor]:
        tokens = layout.rows(chosen).reshape(len(g), -1)
        g = g.reshape(*tokens.shape, -1)
        return tokens, g if padding is None else g * (tokens != padding).unsqueeze(2)

    def squared(layout: Layout, g: Tensor) -> Tensor:
        def gram(tokens: Tensor, g: Tensor) -> Tensor:
            same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
            return (torch.einsum("nto,nso->nts", g, g) * same).sum(dim=(1, 2)).clamp_min(0)

        tokens, g = operands(layout, g)
        return costs.in_blocks(gram, tokens, g, 3 * tokens.shape[1] ** 2)

    def gradient(layout: Layout, g: Tensor) -> Tensor:
        tokens, g = operands(layout, g)
        found = g.new_zeros(len(g), len(table), g.shape[2])
        return found.scatter_add_(1, tokens.unsqueeze(2).expand_as(g), g).view(-1, *table.shape)

    return Use(table, (chosen,), gradient, squared)
