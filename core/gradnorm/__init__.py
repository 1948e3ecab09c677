"""Norms of per-sample loss gradients: how much one sample would change the model (Wang et al., AAAI 2022).

`gradient_norms` is exact for every parameter of any model. Where each layer is one whose per-sample gradients can be
read off a batch, it costs about one plain forward and backward pass (`engine`, `rules`); every other model is taken to
`torch.func`, sample by sample (`slow`), and the log says why.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.gradnorm import engine, slow
from core.gradnorm.losses import Loss, LossFunction, mean_probs, sample_loss, to_differentiate
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
) -> Tensor:
    """‖∇θ L(x)‖ of every sample by itself, the model in eval mode.

    Dropout and the like are switched to eval mode within. Batch normalisation in training mode is refused: whoever leaves
    it there may mean the statistics of the batch, under which no sample has a gradient of its own.

    images: [N, …] as the model takes them, samples first; logits [N, K] or [N, K, …], K ≥ 2 (the loss is the mean over
    the rest).

    loss
        "entropy": L = −Σ p ln p (Eq. 7) · "expected": L = Σ p · CE with p attached to the graph (Eq. 6, as the
        authors' code), which **is** the entropy term by term; with p detached its gradient vanishes ·
        "egl": Σ_y p_y ‖∇ CE(·, y)‖, an expectation of norms (Settles & Craven 2008), K backward passes ·
        "label": CE with `targets` int [N] (or [N, …] for dense logits), −1 where unknown: the loss is the mean over
        the known positions of the sample, and a sample without any has a loss and a norm of zero (where
        `F.cross_entropy` with ignore_index would have NaN).
    reduction
        "sum": L2 norms of the parameter tensors, added (the authors' code) · "l2": one global L2 norm (the paper's
        text) · "none": Tensor [N, number of trainable parameter tensors], in `named_parameters` order. With "egl" the
        expectation is taken of the reduced norms.
    scope
        "all": every trainable parameter · "head": the last linear layer alone; nothing below it is derived.

    Returns a Tensor [N] (or [N, tensors]) on the device of the images, float64 for a model in float64 and float32
    otherwise, ≥ 0. The model is left as it was found: mode, gradients, hooks; so are the random numbers.

    Raises `ValueError` for an unknown option, missing or misplaced targets or targets out of range, images that the
    model cannot take, logits of a single class, a model without trainable parameters or in half precision (autocast is
    fine), batch normalisation that would use the statistics of the batch, and a loss that is not finite;
    `RuntimeError` under `torch.inference_mode`.
    """
    _check_options(images, loss, targets, reduction, scope)
    model = getattr(model, "_orig_mod", model)  # of torch.compile, which hides the functions that the engine watches
    targets = None if targets is None else targets.long()
    parameters = _head(model) if scope == "head" else _trainable(model)
    _check_model(model, images, parameters)
    images = images.detach()
    with _as_found(model, images):
        if not len(images):
            return images.new_zeros((0, len(parameters)) if reduction == "none" else (0,), dtype=torch.float32)
        known = _plans.get(model, {}).get(_way(model, parameters, images))
        losses = _losses(loss, targets, _answer(model, images[:1]) if known is None else known.logits)
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
                reduced = (_reduced(tensors, reduction) for tensors in each)
                norms.append(_expected(mean_probs(logits), reduced) if loss == "egl" else next(reduced))
            except Unsupported as reason:
                _give_up(model, parameters, images, reason)
                plan, losses = None, _losses(loss, targets, _answer(model, images[:1]))
                continue
            values.append(sample_loss(logits, "label" if loss == "label" else "entropy", own))
            start += size
    found = torch.cat(norms)
    _check_finite(torch.cat(values) + found.reshape(len(found), -1).sum(dim=1))
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
    _check_finite(torch.cat(parts))
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


def _expected(p: Tensor, norms: Iterator[Tensor]) -> Tensor:
    """Σ_y p_y · (norms for class y), p [n, K]."""
    total = torch.zeros((), device=p.device, dtype=p.dtype)
    for y, each in enumerate(norms):
        total = total + each * p[:, y].view(-1, *(1,) * (each.ndim - 1))
    return total


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _head(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of the last linear layer."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.weight.requires_grad]
    if not linear:
        raise ValueError('The model has no linear layer, so scope="head" has no meaning: use scope="all".')
    own = {id(p) for p in linear[-1].parameters()}
    return {name: p for name, p in _trainable(model).items() if id(p) in own}


def _check_options(images: Tensor, loss: str, targets: Tensor | None, reduction: str, scope: str) -> None:
    if not isinstance(images, Tensor):
        raise ValueError(f"Images must be a torch.Tensor, not {type(images).__name__}: use torch.from_numpy.")
    if torch.is_inference_mode_enabled() or images.is_inference():
        raise RuntimeError(
            "Gradient norms need autograd: leave torch.inference_mode first and give images made outside it "
            "(torch.no_grad is fine)."
        )
    if loss not in ("entropy", "expected", "egl", "label") or reduction not in ("sum", "l2", "none"):
        raise ValueError(f'Unknown loss "{loss}" or reduction "{reduction}".')
    if scope not in ("all", "head"):
        raise ValueError(f'Unknown scope "{scope}": give "all" or "head".')
    if (loss == "label") != (targets is not None):
        raise ValueError('Targets go with loss="label", and only with it.')
    if targets is not None and (targets.is_floating_point() or targets.dtype == torch.bool):
        raise ValueError(f"Targets must be class numbers, not {targets.dtype}.")
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images: give one target an image.")


def _check_model(model: nn.Module, images: Tensor, parameters: dict[str, Tensor]) -> None:
    if not parameters:
        raise ValueError("The model has no trainable parameter, so it has no gradient.")
    if any(p.is_inference() for p in parameters.values()):
        raise RuntimeError("Gradient norms need autograd: this model was made under torch.inference_mode.")
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in parameters.values()):
        raise ValueError(
            "The model is in half precision, in which gradients underflow: call model.float(); autocast is fine."
        )
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(
                f"{name or 'The model'} ({type(module).__name__}) normalises by the statistics of the batch, which tie "
                "its samples together, so that no sample has a gradient of its own: call model.eval() first"
                + (", and give the layer track_running_stats=True." if module.running_mean is None else ".")
            )


def _answer(model: nn.Module, image: Tensor) -> torch.Size:
    """[K, …]: the shape of the model's logits for one image, if it has an answer."""
    try:
        with torch.no_grad():
            logits = model(image)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        shape = ", ".join(map(str, image.shape[1:]))
        raise ValueError(f"The model cannot take images of shape [N, {shape}] ({image.dtype}): {error}") from error
    if not isinstance(logits, Tensor) or logits.ndim < 2 or len(logits) != 1:
        found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"The model must answer with logits [N, K] or [N, K, …]; for one image it gave {found}.")
    return logits.shape[1:]


def _losses(loss: Loss, targets: Tensor | None, answer: torch.Size) -> list[LossFunction]:
    """What is derived of logits [n, *answer]."""
    if answer[0] < 2:
        raise ValueError(
            "The model gives one logit, but a softmax over one class is constant and its gradient zero: give two logits, "
            "for a sigmoid's logit z torch.cat([torch.zeros_like(z), z], dim=1)."
        )
    if targets is not None:
        _check_targets(targets, answer)
    return to_differentiate(loss, answer[0])


def _check_targets(targets: Tensor, answer: torch.Size) -> None:
    if targets.shape[1:] != answer[1:]:
        raise ValueError(f"Targets must be of shape {['N', *answer[1:]]}, not {list(targets.shape)}.")
    if not (int(targets.min()) >= -1 and int(targets.max()) < answer[0]):
        raise ValueError(f"Targets must be class numbers from 0 to {answer[0] - 1}, or −1 where unknown.")


def _check_finite(values: Tensor) -> None:
    wrong = torch.nonzero(~values.isfinite()).flatten()
    if len(wrong):
        raise ValueError(
            f"The loss or its gradient is not finite for {len(wrong)} of {len(values)} samples, first for index "
            f"{int(wrong[0])}: look for NaN or very large values in the images and in the weights."
        )


@contextmanager
def _as_found(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Eval mode within; each module's own mode and the random numbers restored after.

    Attention's fast path, which only exists without autograd, is switched off: it hides its parameters.
    """
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            model.eval()
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        torch.clear_autocast_cache()  # of weights cast while they were frozen
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes:
            module.training = training
