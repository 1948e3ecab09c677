"""What is asked of whoever wants per-sample gradients of a model, and how the model is left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.gradnorm.losses import Draws, Loss, LossFunction, to_differentiate


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, in `named_parameters` order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def check_call(images: Tensor, loss: str, targets: Tensor | None) -> None:
    """Raise `ValueError` for what cannot be images, a loss or targets; `RuntimeError` under `torch.inference_mode`."""
    if not isinstance(images, Tensor):
        raise ValueError(f"Images must be a torch.Tensor, not {type(images).__name__}: use torch.from_numpy.")
    if torch.is_inference_mode_enabled() or images.is_inference():
        raise RuntimeError(
            "Gradients need autograd: leave torch.inference_mode first and give images made outside it "
            "(torch.no_grad is fine)."
        )
    if loss not in ("entropy", "expected", "egl", "label"):
        raise ValueError(f'Unknown loss "{loss}": give "entropy", "expected", "egl" or "label".')
    if (loss == "label") != (targets is not None):
        raise ValueError('Targets go with loss="label", and only with it.')
    if targets is not None and (targets.is_floating_point() or targets.dtype == torch.bool):
        raise ValueError(f"Targets must be class numbers, not {targets.dtype}.")
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images: give one target an image.")


def check_model(model: nn.Module, parameters: dict[str, Tensor]) -> None:
    """Raise `ValueError` for a model whose samples have no gradients of their own in these parameters."""
    if not parameters:
        raise ValueError("The model has no trainable parameter, so it has no gradient.")
    if any(p.is_inference() for p in parameters.values()):
        raise RuntimeError("Gradients need autograd: this model was made under torch.inference_mode.")
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


def answer(model: nn.Module, image: Tensor) -> torch.Size:
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


def losses(loss: Loss, targets: Tensor | None, shape: torch.Size, draws: Draws | None = None) -> list[LossFunction]:
    """What is derived of logits [n, *shape]. Raises `ValueError` for a single class, and for targets that do not fit."""
    if shape[0] < 2:
        raise ValueError(
            "The model gives one logit, but a softmax over one class is constant and its gradient zero: give two logits, "
            "for a sigmoid's logit z torch.cat([torch.zeros_like(z), z], dim=1)."
        )
    if targets is not None:
        check_targets(targets, shape)
    return to_differentiate(loss, shape, draws)


def check_targets(targets: Tensor, shape: torch.Size) -> None:
    """Raise `ValueError` for targets that do not fit logits [n, *shape]."""
    if targets.shape[1:] != shape[1:]:
        raise ValueError(f"Targets must be of shape {['N', *shape[1:]]}, not {list(targets.shape)}.")
    if not (int(targets.min()) >= -1 and int(targets.max()) < shape[0]):
        raise ValueError(f"Targets must be class numbers from 0 to {shape[0] - 1}, or −1 where unknown.")


def check_finite(values: Tensor) -> None:
    """Raise `ValueError` where one of values [n] is not finite."""
    wrong = torch.nonzero(~values.isfinite()).flatten()
    if len(wrong):
        raise ValueError(
            f"The loss or its gradient is not finite for {len(wrong)} of {len(values)} samples, first for index "
            f"{int(wrong[0])}: look for NaN or very large values in the images and in the weights."
        )


@contextmanager
def as_found(model: nn.Module, images: Tensor) -> Iterator[None]:
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
