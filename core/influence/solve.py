"""The inverse of the mean curvature of a training loss, applied to a vector by conjugate gradients."""

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.gradnorm import checks, sample_loss, slow
from core.influence import passes
from core.influence.passes import Vector, Way

Curvature = Literal["ggn", "hessian"]

ROUNDING = 100  # units of rounding below the largest curvature, where a curvature may as well be zero

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found for (curvature + shift · I) x = b."""

    vector: Vector
    """x: a tensor for each trainable parameter by its name, in its type."""
    residual: float
    """‖b − (curvature + shift · I) x‖ / ‖b‖, computed from x itself, not as the recurrence goes."""
    iterations: int
    """Products with the curvature; those that check the residual are not counted."""
    converged: bool
    """Whether the residual is within the tolerance."""


def inverse_hvp(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    vector: Vector,
    *,
    damping: float,
    weight_decay: float = 0.0,
    curvature: Curvature = "ggn",
    tolerance: float = 1e-3,
    max_iterations: int = 1_000,
) -> Solution:
    """(C + (weight_decay + damping) · I)⁻¹ vector, C the mean curvature of the cross-entropy over the images, in eval mode.

    Solved by conjugate gradients (Hestenes & Stiefel 1952; for influence functions Koh & Liang 2017), with its own numbers in
    float64 and products in the type of the model: in float32 residuals below about 1e-5 are out of reach.

    images: [n, …] as the model takes them · targets int [n] or [n, …], −1 where unknown; every image has a label somewhere ·
    vector: a tensor for each trainable parameter by its name; those that are left out count as zeros.

    damping
        added to every eigenvalue, ≥ 0; what it must be for a network, whose curvature is singular, is a choice that a study
        should vary.
    weight_decay
        of the training, as torch's SGD has it: the loss that was minimised is the mean cross-entropy + weight_decay/2 · ‖θ‖².
    curvature
        "ggn": the generalised Gauss–Newton matrix (1/n) Σ JᵀΛJ, J the Jacobian of a sample's logits and Λ the Hessian of its
        loss in them (Schraudolph 2002); positive semi-definite, and the Hessian itself where logits are linear in the
        parameters · "hessian": by double backward; of a network it has negative eigenvalues, which the damping must outweigh.

    Where conjugate gradients do not converge, the log says so and the solution has `converged` False; `influence` does not take
    it. The log also says where all softmaxes are saturated, so that nothing but the shift is inverted.

    Raises as `gradient_dots`, and `ValueError` for a shift of 0 with a curvature that is singular, for a curvature that is not
    positive definite, for an image without a label, for operators without double backward where they need one, and for
    weights, losses or products that are not finite.
    """
    checks.check_call(images, "label", targets)
    for name, value in (("damping", damping), ("weight_decay", weight_decay)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be 0 or more, not {value:g}.")
    if curvature not in ("ggn", "hessian"):
        raise ValueError(f'Unknown curvature "{curvature}": give "ggn" or "hessian".')
    if not (0 < tolerance < 1) or max_iterations < 1:
        raise ValueError(
            f"The tolerance is a relative residual between 0 and 1, not {tolerance:g}, and max_iterations at least 1, not "
            f"{max_iterations}."
        )
    if not len(images):
        raise ValueError(
            "There is no training image, so the loss has no curvature: give those the model was trained on."
        )
    model = getattr(model, "_orig_mod", model)
    parameters, shift = checks.trainable(model), damping + weight_decay
    checks.check_model(model, parameters)
    right = passes.direction(vector, parameters)
    targets, images = targets.long(), images.detach()
    with passes.exact(model, images):
        products = _Products(model, parameters, images, targets, curvature)
        if shift == 0:
            products.check_rank()
        b = _flat({name: right.get(name, torch.zeros_like(p)) for name, p in parameters.items()})
        x, residual, iterations = _conjugate_gradients(products, b, shift, tolerance, max_iterations)
    converged = residual <= tolerance
    if not converged:
        log.warning(
            "Conjugate gradients stopped at a relative residual of %.2g after %d iterations, above %g: give a damping above %g, "
            "more iterations or a larger tolerance.",
            *(residual, iterations, tolerance, damping),
        )
    return Solution(products.unflat(x), residual, iterations, converged)


class _Products:
    """Products of a mean curvature with vectors, flat and in float64."""

    def __init__(
        self, model: nn.Module, parameters: dict[str, Tensor], images: Tensor, targets: Tensor, kind: Curvature
    ) -> None:
        self.model, self.parameters, self.images, self.targets, self.kind = model, parameters, images, targets, kind
        self.way = passes.way(model, parameters, images)
        checks.losses("label", targets, self.way.logits)
        known = (targets >= 0).reshape(len(targets), -1)
        if not bool(known.any(dim=1).all()):
            first = int((~known.any(dim=1)).nonzero()[0])
            raise ValueError(f"The training image at index {first} has no label: give those the model was trained on.")
        self.rank = int(known.sum()) * (self.way.logits[0] - 1)
        self.eps = max(torch.finfo(p.dtype).eps for p in parameters.values())
        with torch.no_grad():
            parts = self.way.chunks(images, targets)
            checks.check_finite(torch.cat([sample_loss(model(x), "label", own) for x, own in parts]))
        if kind == "hessian" or self.way.reason is not None:
            self._try_double_backward()

    def __call__(self, flat: Tensor) -> Tensor:
        vector, total = self.unflat(flat), torch.zeros_like(flat)
        for x, own in self.way.chunks(self.images, self.targets, back=True):
            assert own is not None
            total += self._summed(x, own, vector)
        total /= len(self.images)
        if not total.isfinite().all():
            raise ValueError(
                "The curvature is not finite: look for very large values in the images and in the weights."
            )
        return total

    def unflat(self, flat: Tensor) -> Vector:
        parts = flat.split([p.numel() for p in self.parameters.values()])
        return {
            name: part.view(p.shape).to(p.dtype) for (name, p), part in zip(self.parameters.items(), parts, strict=True)
        }

    def _summed(self, x: Tensor, targets: Tensor, vector: Vector) -> Tensor:
        """Over a batch."""
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has neither a forward rule nor a double backward
            if self.kind == "hessian":
                return _flat(_hessian(self.model, self.parameters, x, targets, vector))
            return _flat(_ggn(self.model, self.parameters, self.way, x, targets, vector))

    def _try_double_backward(self) -> None:
        """Raise `ValueError` where an operator has none."""
        x, own, parameters = self.images[:1], self.targets[:1], self.parameters
        try:
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                value = sample_loss(passes.answers(self.model, x), "label", own).sum()
                _check_once(torch.autograd.grad(value, list(parameters.values()), create_graph=True, allow_unused=True))
            self._summed(x, own, {name: p.detach() for name, p in parameters.items()})
        except RuntimeError as error:
            if self.kind == "hessian":
                raise ValueError(
                    f"The Hessian needs operators with a double backward, and this model has one without ({error}): give "
                    'curvature="ggn".'
                ) from error
            raise ValueError(
                "The curvature needs operators with a forward rule or a double backward, and this model has one with neither "
                f"({self.way.reason}; {error}): write it in torch's own functions, or freeze the parameters below it."
            ) from error

    def check_rank(self) -> None:
        """Raise `ValueError` where the samples are too few for a Gauss–Newton matrix of full rank."""
        n = sum(p.numel() for p in self.parameters.values())
        if self.kind == "ggn" and self.rank < n:
            raise ValueError(
                f"Without damping the curvature is singular: the labels give it a rank of at most {self.rank:,} in {n:,} "
                "parameters: give a damping, such as 0.01, or the weight_decay of the training."
            )


def _ggn(
    model: nn.Module, parameters: dict[str, Tensor], way: Way, x: Tensor, targets: Tensor, vector: Vector
) -> Vector:
    """Σ JᵀΛJ vector over a batch."""
    if way.reason is None:
        with torch.no_grad():
            logits, tangents = passes.ahead(model, parameters, x, vector)
            back = _loss_curvature(logits, tangents, targets)
        with torch.enable_grad():
            return passes.gradients((passes.answers(model, x) * back).sum(), parameters)
    with torch.enable_grad():
        logits = slow.single(model, x[0])
        tangents = _by_double_backward(logits, parameters, vector)
        back = _loss_curvature(logits.detach(), tangents, targets)
        return passes.gradients((logits * back).sum(), parameters)


def _by_double_backward(logits: Tensor, parameters: dict[str, Tensor], vector: Vector) -> Tensor:
    """J vector, as the derivative of the product of vector and Jᵀu in u."""
    u = torch.zeros_like(logits, requires_grad=True)
    found = torch.autograd.grad(logits, list(parameters.values()), u, create_graph=True, allow_unused=True)
    pulled = {name: passes.dense(g, p) for (name, p), g in zip(parameters.items(), found, strict=True)}
    return torch.autograd.grad(passes.inner(pulled, vector), u, retain_graph=True)[0]


def _check_once(gradients: tuple[Tensor | None, ...]) -> None:
    """Raise `RuntimeError` for a function that can be derived once only: where another way leads to what is derived, autograd
    passes over it without a word."""
    waiting: list[Any] = [g.grad_fn for g in gradients if g is not None]
    seen: set[Any] = {None}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("an autograd.Function is marked with @once_differentiable")
        seen.add(node)
        waiting += [below for below, _ in node.next_functions]


def _loss_curvature(logits: Tensor, tangents: Tensor, targets: Tensor) -> Tensor:
    """Λ · tangents [n, K, …], Λ = diag(p) − ppᵀ the Hessian of the cross-entropy in the logits, wherever there is a label."""
    p = logits.softmax(dim=1)
    known = (targets >= 0).to(p.dtype)
    weight = known / known.reshape(len(known), -1).sum(dim=1).view(-1, *(1,) * (known.ndim - 1))
    return p * (tangents - (p * tangents).sum(dim=1, keepdim=True)) * weight.unsqueeze(1)


def _hessian(model: nn.Module, parameters: dict[str, Tensor], x: Tensor, targets: Tensor, vector: Vector) -> Vector:
    """Σ ∇²L vector over a batch, by double backward."""
    with torch.enable_grad():
        value = sample_loss(passes.answers(model, x), "label", targets).sum()
        found = torch.autograd.grad(value, list(parameters.values()), create_graph=True, allow_unused=True)
        first = {name: passes.dense(g, p) for (name, p), g in zip(parameters.items(), found, strict=True)}
        return passes.gradients(passes.inner(first, vector), parameters)


def _conjugate_gradients(
    products: _Products, b: Tensor, shift: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, float, int]:
    """x with (C + shift · I) x ≈ b, its relative residual, and the iterations. Raises `ValueError` as `inverse_hvp`."""
    size, x = float(torch.linalg.vector_norm(b)), torch.zeros_like(b)
    if size == 0:
        return x, 0.0, 0
    along = r = b
    squared, largest, residual = size**2, 0.0, 1.0
    for iteration in range(1, max_iterations + 1):
        bent = products(along)
        length = float(along @ along)
        largest = max(largest, _check_curvature(products, float(along @ bent) / length, largest, shift, iteration))
        bent += shift * along
        step = squared / float(along @ bent)
        x = x + step * along
        r = r - step * bent
        before, squared = squared, float(r @ r)
        along = r + squared / before * along
        if math.sqrt(squared) <= tolerance * size or iteration == max_iterations:
            r = b - products(x) - shift * x  # the recurrence drifts from it by rounding
            former, residual = residual, float(torch.linalg.vector_norm(r)) / size
            if residual <= tolerance or residual > former / 2:
                return x, residual, iteration
            along, squared = r, float(r @ r)
    return x, residual, max_iterations


def _check_curvature(products: _Products, quotient: float, largest: float, shift: float, iteration: int) -> float:
    """The curvature along a direction, vᵀCv/vᵀv, where the shift makes it positive; raises `ValueError` otherwise."""
    if iteration == 1 and quotient == 0:
        if shift == 0:
            raise ValueError(
                "Without damping the curvature is singular: it is zero along the vector, as where the softmax of every training "
                "image is saturated: give a damping, such as 0.01, or the weight_decay of the training."
            )
        log.warning(
            "The curvature is zero along the vector, as where the softmax of every training image is saturated: what is inverted "
            "is the damping alone."
        )
    if shift == 0 and abs(quotient) <= ROUNDING * products.eps * largest:
        raise ValueError(
            f"The curvature is singular: it is {quotient:.2g} along one direction, {largest:.2g} along another: give "
            f"a damping, such as {1e-3 * largest:.2g}, or the weight_decay of the training."
        )
    if quotient + shift <= 0:
        raise ValueError(
            f"The curvature is not positive definite: along a direction it is {quotient:.3g}, which damping and weight_decay, "
            f'{shift:g}, do not outweigh: give a damping above {-quotient:.2g}, or curvature="ggn".'
        )
    return quotient


def _flat(vector: Vector) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).double() for tensor in vector.values()])
