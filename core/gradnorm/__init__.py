"""Norms of per-sample loss gradients: how much one sample would change the model (Wang et al., AAAI 2022).

`gradient_norms` is exact for every parameter of any model: `torch.func` maps the gradient of one sample over a chunk
of samples, and a chunk is as large as a stated memory limit allows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Literal["entropy", "expected", "egl", "label"]
Reduction = Literal["sum", "l2", "none"]
Scope = Literal["all", "head"]

CHUNK_BYTES = 256 * 2**20  # per-sample gradients held at once: larger chunks were not faster on a CPU
MAX_CHUNK = 256


def gradient_norms(
    model: nn.Module,
    images: Tensor,
    *,
    loss: Loss = "entropy",
    targets: Tensor | None = None,
    reduction: Reduction = "sum",
    scope: Scope = "all",
) -> Tensor:
    """‖∇θ L(x)‖ of every sample, the model in eval mode.

    images: float [N, C, H, W] as the model takes them; logits [N, K] or [N, K, …] (the loss is the mean over the rest).

    loss
        "entropy": L = −Σ p ln p (Eq. 7) · "expected": L = Σ p · CE with p attached to the graph (Eq. 6, as the
        authors' code), which **is** the entropy term by term; with p detached its gradient vanishes ·
        "egl": Σ_y p_y ‖∇ CE(·, y)‖, an expectation of norms (Settles & Craven 2008), K backward passes ·
        "label": CE with `targets` int [N] (or [N, …] for dense logits).
    reduction
        "sum": L2 norms of the parameter tensors, added (the authors' code) · "l2": one global L2 norm (the paper's
        text) · "none": Tensor [N, number of trainable parameter tensors], in `named_parameters` order.
    scope
        "all": every trainable parameter · "head": the last linear layer alone, in closed form.

    Returns a Tensor [N] (or [N, tensors]) of the images' dtype on their device, ≥ 0. The model is left as it was
    found: mode, gradients, hooks. Raises `ValueError` for an unknown option, missing or misplaced targets or targets
    out of range, for a model without trainable parameters, and `RuntimeError` under `torch.inference_mode`.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("Gradient norms need autograd: leave torch.inference_mode first (torch.no_grad is fine).")
    if loss not in ("entropy", "expected", "egl", "label") or reduction not in ("sum", "l2", "none"):
        raise ValueError(f'Unknown loss "{loss}" or reduction "{reduction}".')
    if scope not in ("all", "head"):
        raise ValueError(f'Unknown scope "{scope}": give "all" or "head".')
    if (loss == "label") != (targets is not None):
        raise ValueError('Targets go with loss="label", and only with it.')
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images: give one target an image.")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("The model has no trainable parameter, so it has no gradient.")
    with _eval_mode(model):
        norms = _head_norms if scope == "head" else _all_norms
        tensors = norms(model, images, loss, targets)
    if reduction == "none":
        return tensors
    return tensors.sum(dim=1) if reduction == "sum" else torch.linalg.vector_norm(tensors, dim=1)


def sample_loss(logits: Tensor, loss: Loss, target: Tensor | None) -> Tensor:
    """The loss of every sample, logits [N, K, …] → [N], a mean over what follows the classes. `loss` is not "egl"."""
    log_p = F.log_softmax(logits, dim=1)
    if loss == "label":
        assert target is not None
        values = -log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    else:  # Eq. 6 with the posterior attached to the graph is Eq. 7
        values = (log_p.exp() * -log_p).sum(dim=1)
    return values.reshape(len(values), -1).mean(dim=1)


def _all_norms(model: nn.Module, images: Tensor, loss: Loss, targets: Tensor | None) -> Tensor:
    """[N, tensors] L2 norms of the gradient of each trainable parameter tensor."""
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    fixed |= {name: b.detach() for name, b in model.named_buffers()}

    def logits_of(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, {**parameters, **fixed}, (x[None],))

    def one(parameters: dict[str, Tensor], x: Tensor, target: Tensor | None) -> Tensor:
        return sample_loss(logits_of(parameters, x), "entropy" if target is None else "label", target)[0]

    def norms(parameters: dict[str, Tensor], x: Tensor, target: Tensor | None) -> Tensor:
        gradients = grad(one)(parameters, x, None if target is None else target[None])
        return torch.stack([torch.linalg.vector_norm(gradients[name]) for name in parameters])

    with torch.no_grad():
        first = model(images[:1])
    n_classes = first.shape[1]
    _check_targets(targets, n_classes)
    bytes_a_sample = 2 * sum(p.numel() * p.element_size() for p in trainable.values())
    size = max(1, min(MAX_CHUNK, CHUNK_BYTES // bytes_a_sample))

    parts = []
    for start in range(0, len(images), size):
        x = images[start : start + size]
        if loss == "label":
            assert targets is not None
            parts.append(vmap(norms, in_dims=(None, 0, 0))(trainable, x, targets[start : start + size]))
        elif loss == "egl":
            with torch.no_grad():
                p = _mean_probs(model(x))
            each = torch.stack(
                [
                    vmap(norms, in_dims=(None, 0, None))(trainable, x, torch.full(first.shape[2:], y, device=x.device))
                    for y in range(n_classes)
                ]
            )  # [K, n, tensors]
            parts.append(torch.einsum("nk,knt->nt", p, each))
        else:
            parts.append(vmap(lambda sample: norms(trainable, sample, None))(x))
    return torch.cat(parts) if parts else images.new_zeros((0, len(trainable)))


def _head_norms(model: nn.Module, images: Tensor, loss: Loss, targets: Tensor | None) -> Tensor:
    """[N, tensors] for the last linear layer z = W h + b: ∂L/∂W = Σ_t δ_t h_tᵀ and ∂L/∂b = Σ_t δ_t, with δ = ∂L/∂z.

    The norm of W's gradient comes from the two T × T Gram matrices, ‖Σ_t δ_t h_tᵀ‖² = Σ_ts (δ_t·δ_s)(h_t·h_s), where
    t runs over the positions that the layer is applied to (one, for a classifier). Nothing below the head is derived.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.weight.requires_grad]
    if not linear:
        raise ValueError('The model has no linear layer, so scope="head" has no meaning: use scope="all".')
    head = linear[-1]
    has_bias = head.bias is not None and head.bias.requires_grad
    seen: dict[str, Tensor] = {}

    def catch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["h"], seen["z"] = inputs[0].detach(), output.detach().requires_grad_()
        return seen["z"]

    parts = []
    with _hooked(head, catch), _frozen(model), torch.enable_grad():
        for start in range(0, len(images), MAX_CHUNK):
            logits = model(images[start : start + MAX_CHUNK])
            _check_targets(targets, logits.shape[1])
            if loss == "egl":
                p = _mean_probs(logits.detach())
                each = []
                for y in range(logits.shape[1]):
                    target = torch.full((len(logits), *logits.shape[2:]), y, device=logits.device)
                    each.append(_linear_norms(seen, has_bias, sample_loss(logits, "label", target)))
                parts.append(torch.einsum("nk,knt->nt", p, torch.stack(each)))
            else:
                chunk = None if targets is None else targets[start : start + MAX_CHUNK]
                parts.append(_linear_norms(seen, has_bias, sample_loss(logits, loss, chunk)))
    return torch.cat(parts) if parts else images.new_zeros((0, 1 + has_bias))


def _linear_norms(seen: dict[str, Tensor], has_bias: bool, losses: Tensor) -> Tensor:
    (delta,) = torch.autograd.grad(losses.sum(), seen["z"], retain_graph=True)
    delta, h = delta.flatten(1, -2) if delta.ndim > 2 else delta[:, None], seen["h"]
    h = h.flatten(1, -2) if h.ndim > 2 else h[:, None]  # [N, T, features]
    gram = (
        torch.einsum("ntk,nsk,ntf,nsf->n", delta, delta, h, h)
        if delta.shape[1] > 1
        else (delta.square().sum(dim=(1, 2)) * h.square().sum(dim=(1, 2)))
    )
    norms = [gram.clamp_min(0).sqrt()]
    if has_bias:
        norms.append(torch.linalg.vector_norm(delta.sum(dim=1), dim=1))
    return torch.stack(norms, dim=1)


def _mean_probs(logits: Tensor) -> Tensor:
    """[N, K, …] → [N, K]: the weight of each class in an expectation over labels."""
    p = logits.softmax(dim=1)
    return p.reshape(*p.shape[:2], -1).mean(dim=2)


def _check_targets(targets: Tensor | None, n_classes: int) -> None:
    if targets is not None and len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < n_classes):
        raise ValueError(f"Targets must be class numbers from 0 to {n_classes - 1}.")


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode within, each module's own mode restored after. Attention's fused kernels have no derivative or no map."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes:
            module.training = training


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
