"""Norms of per-sample loss gradients: how much one sample would change the model (Wang et al., AAAI 2022).

`gradient_norms` is exact for every parameter of any model. Where each layer is one whose per-sample gradients can be
read off a batch, it costs about one plain forward and backward pass (`engine`, `rules`); every other model is taken to
`torch.func`, sample by sample (`slow`), and the log says why.
"""

import logging
from collections.abc import Iterator
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from core.gradnorm import checks, engine, slow
from core.gradnorm.losses import Draws, Loss, mean_probs, sample_loss
from core.gradnorm.rules import RULES, Unsupported

__all__ = ["Loss", "Reduction", "Scope", "gradient_norms", "sample_loss"]

Reduction = Literal["sum", "l2", "none"]
Scope = Literal["all", "head"]

log = logging.getLogger(__name__)

# For each model and way of calling it: how the engine runs it, or None if it cannot.
_plans: WeakKeyDictionary[nn.Module, dict[Any, engine.Plan | None]] = WeakKeyDictionary()


def gradient_norms(
    model: nn.Module,
    images: Tensor,
    *,
    loss: Loss = "entropy",
    targets: Tensor | None = None,
    reduction: Reduction = "sum",
    scope: Scope = "all",
    draws: int | None = None,
    seed: int = 0,
) -> Tensor:
    """‖∇θ L(x)‖ of every sample by itself, the model in eval mode.

    Dropout and the like are switched to eval mode within. Batch normalisation in training mode is refused: whoever leaves
    it there may mean the statistics of the batch, under which no sample has a gradient of its own.

    images: [N, …] as the model takes them, samples first; logits [N, K] or [N, K, …], K ≥ 2 (the loss is the mean over
    the rest).

    loss
        "entropy": L = −Σ p ln p (Eq. 7) · "expected": L = Σ p · CE with p attached to the graph (Eq. 6, as the
        authors' code), which **is** the entropy term by term; with p detached its gradient vanishes ·
        "egl": Σ_y p_y ‖∇ CE(·, y)‖, an expectation of norms (Settles & Craven 2008), K backward passes; see `draws` ·
        "label": CE with `targets` int [N] (or [N, …] for dense logits), −1 where unknown: the loss is the mean over
        the known positions of the sample, and a sample without any has a loss and a norm of zero (where
        `F.cross_entropy` with ignore_index would have NaN).
    reduction
        "sum": L2 norms of the parameter tensors, added (the authors' code) · "l2": one global L2 norm (the paper's
        text) · "none": Tensor [N, number of trainable parameter tensors], in `named_parameters` order. With "egl" the
        expectation is taken of the reduced norms.
    scope
        "all": every trainable parameter · "head": the last linear layer alone; nothing below it is derived.
    draws
        Of "egl" alone: the mean of the norms over so many labels drawn from the posterior with `seed`, an unbiased
        estimate by as many backward passes. Dense logits [N, K, H, W] have K^(H·W) label maps, over which the expectation
        has no closed form: every position draws its own label y ~ p. All samples share their uniform numbers, so that a
        norm does not depend on the others of its call. Without draws dense logits get one class at all positions,
        weighted by its mean probability, which is K label maps of the K^(H·W).

    Returns a Tensor [N] (or [N, tensors]) on the device of the images, float64 for a model in float64 and float32
    otherwise, ≥ 0. The model is left as it was found: mode, gradients, hooks; so are the random numbers.

    Raises `ValueError` for an unknown option, draws below 1 or of another loss, missing or misplaced targets or targets
    out of range, images that the model cannot take, logits of a single class, a model without trainable parameters or in
    half precision (autocast is fine), batch normalisation that would use the statistics of the batch, and a loss that is
    not finite; `RuntimeError` under `torch.inference_mode`.
    """
    checks.check_call(images, loss, targets)
    if reduction not in ("sum", "l2", "none"):
        raise ValueError(f'Unknown reduction "{reduction}": give "sum", "l2" or "none".')
    if scope not in ("all", "head"):
        raise ValueError(f'Unknown scope "{scope}": give "all" or "head".')
    if draws is not None and (loss != "egl" or draws < 1):
        raise ValueError('Draws are of loss="egl" and at least 1: leave them out, or correct them.')
    drawn = None if draws is None else Draws(draws, seed)
    model = getattr(model, "_orig_mod", model)  # of torch.compile, which hides the functions that the engine watches
    targets = None if targets is None else targets.long()
    parameters = _head(model) if scope == "head" else checks.trainable(model)
    checks.check_model(model, parameters)
    images = images.detach()
    with checks.as_found(model, images):
        if not len(images):
            return images.new_zeros((0, len(parameters)) if reduction == "none" else (0,), dtype=torch.float32)
        known = _plans.get(model, {}).get(_way(model, parameters, images))
        shape = checks.answer(model, images[:1]) if known is None else known.logits
        losses = checks.losses(loss, targets, shape, drawn)
        plan = _plan(model, parameters, images)
        values, norms, start = [], [], 0
        while start < len(images):
            most, left = plan.chunk if plan is not None else slow.chunk_of(parameters), len(images) - start
            size = -(-left // -(-left // most))  # chunks of one size: a small last one would be slow
            x, own = images[start : start + size], None if targets is None else targets[start : start + size]
            try:
                if plan is not None and len(x) > 1:  # one by itself is derived as one of two
                    logits, each = engine.passes(model, parameters, plan, x, own, losses)
                else:
                    logits, each = slow.passes(model, parameters, x, own, losses)
                if loss == "egl":
                    reduced = (_reduced(tensors, reduction) for _, tensors in each)
                    own_values, own_norms = sample_loss(logits, "entropy", None), _over_labels(logits, reduced, draws)
                else:
                    own_values, tensors = next(each)
                    own_norms = _reduced(tensors, reduction)
            except Unsupported as reason:
                _give_up(model, parameters, images, reason)
                plan, losses = None, checks.losses(loss, targets, checks.answer(model, images[:1]), drawn)
                continue
            values.append(own_values)
            norms.append(own_norms)
            start += size
    found = torch.cat(norms)
    checks.check_finite(torch.cat(values) + found.reshape(len(found), -1).sum(dim=1))
    return found


def _plan(model: nn.Module, parameters: dict[str, Tensor], images: Tensor) -> engine.Plan | None:
    """How the engine runs this model, or None for the slow way; one image needs no plan."""
    if len(images) == 1:
        return None
    plans, way = _plans.setdefault(model, {}), _way(model, parameters, images)
    if way in plans:
        return plans[way]
    try:
        plan = engine.make_plan(model, parameters, torch.stack([images[0], images[-1]]))
    except Unsupported as reason:
        _give_up(model, parameters, images, reason)
        return None
    if plan.final:
        plans[way] = plan
    return plan


def _give_up(model: nn.Module, parameters: dict[str, Tensor], images: Tensor, reason: Unsupported) -> None:
    """Leave this model to the slow way from now on, and say so once. What is not finite would be no reason."""
    with torch.no_grad():
        parts = [sample_loss(model(part), "entropy", None) for part in images.split(slow.MAX_CHUNK)]
    checks.check_finite(torch.cat(parts))
    _plans.setdefault(model, {})[_way(model, parameters, images)] = None
    layer = ""
    if reason.parameter:
        name = reason.parameter.rpartition(".")[0]
        module = dict(model.named_modules(remove_duplicate=False))[name]  # a ScriptModule has no get_submodule
        layer = f"{name or 'the model itself'} ({type(module).__name__}): "
    log.warning("Gradient norms sample by sample, which is slower: %s%s.", layer, reason)


def _way(model: nn.Module, parameters: dict[str, Tensor], images: Tensor) -> Any:
    """What a plan depends on: the modules, which of their parameters are asked for, how they are called, and the rules."""
    device = images.device.type
    parts = (*map(id, model.modules()), *((id(p), p.stride()) for p in parameters.values()))
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return parts, images.shape[1:], images.dtype, images.device, autocast, tuple(RULES.values())


def _reduced(tensors: Tensor, reduction: Reduction) -> Tensor:
    """[n, tensors] → [n], or as it is for "none"."""
    if reduction == "none":
        return tensors
    return tensors.sum(dim=1) if reduction == "sum" else torch.linalg.vector_norm(tensors, dim=1)


def _over_labels(logits: Tensor, norms: Iterator[Tensor], draws: int | None) -> Tensor:
    """The mean of norms over drawn labels; without draws Σ_y p_y · (norms for class y)."""
    if draws is not None:
        return torch.stack(list(norms)).mean(dim=0)
    p = mean_probs(logits)
    total = torch.zeros((), device=p.device, dtype=p.dtype)
    for y, each in enumerate(norms):
        total = total + each * p[:, y].view(-1, *(1,) * (each.ndim - 1))
    return total


def _head(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of the last linear layer."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.weight.requires_grad]
    if not linear:
        raise ValueError('The model has no linear layer, so scope="head" has no meaning: use scope="all".')
    own = {id(p) for p in linear[-1].parameters()}
    return {name: p for name, p in checks.trainable(model).items() if id(p) in own}
