"""The four terms of the bound that gradient-norm acquisition rests on (Wang et al., AAAI 2022, Eqs. 2 to 5)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.gradnorm import Loss, gradient_norms
from core.influence.gradients import gradient_dots
from core.influence.solve import Solution


@dataclass(frozen=True)
class Influence:
    """Of every sample, Tensors [N]: |target| ≤ approx_1 ≤ approx_2, and approx_2 ≲ approx_3, which nothing guarantees."""

    target: Tensor
    """Eq. 2, (1/n) Σ_j ∇L(x_j)ᵀ H⁻¹ ∇L(x), signed: what removing x adds to the summed held-out loss, to first order. Positive
    where x helps."""
    approx_1: Tensor
    """Eq. 3, (1/n) ‖Σ_j ∇L(x_j)ᵀ H⁻¹ ∇L(x)‖: the norm of one number, its absolute value, in which a sample that harms ranks like
    one that helps."""
    approx_2: Tensor
    """Eq. 4, (1/n) ‖∇L(x)‖ · ‖Σ_j H⁻¹ ∇L(x_j)‖, by Cauchy and Schwarz; the second factor is the same number for every x."""
    approx_3: Tensor | None
    """Eq. 5, Eq. 4 with ∇L(x) of the model T^c before x was labelled; None where that was not given."""


def influence(
    model: nn.Module,
    images: Tensor,
    solution: Solution,
    *,
    n_labels: int,
    loss: Loss = "label",
    targets: Tensor | None = None,
    before: nn.Module | None = None,
) -> Influence:
    """The influence of every sample on the held-out loss, and the paper's bounds of it.

    model: T^{c+1}, which was trained on n_labels = n samples · images: [N, …], the samples x, as the model takes them ·
    solution: H⁻¹ Σ_j ∇L(x_j) by `inverse_hvp` for this model, the vector being `loss_gradient` of the held-out images ·
    before: T^c, for Eq. 5. Its gradient norm stands for that of T^{c+1}; the second factor, one number for all samples, stays,
    so that approx_3 / approx_2 is the ratio of norms that Tables 4 and 5 of the paper ask about.

    loss
        "label": for the true label, in `targets` as `gradient_norms` has them. What can be known before that: "entropy" or
        "expected", the gradient of the paper's unlabelled losses in place of ∇L(x) · "egl": each term's expectation over labels
        y ~ p(y|x); that of Eq. 2 is zero for every sample, since Σ_y p_y ∇CE(·, y) = 0.

    Removing x means that its loss no longer counts and the mean still divides by n. A retraining that divides by n − 1 weighs the
    L2 term less against the losses, which shifts the change for every sample by the same amount.

    Raises as `gradient_dots`, and `ValueError` for a solution that did not converge.
    """
    if not solution.converged:
        raise ValueError(
            f"Conjugate gradients did not converge: the relative residual is {solution.residual:.2g} after {solution.iterations} "
            "iterations: solve with a larger damping, more iterations or a larger tolerance."
        )
    if n_labels < 1:
        raise ValueError(f"n_labels is the number of samples that the model was trained on, not {n_labels}.")
    products = gradient_dots(model, images, solution.vector, loss=loss, targets=targets) / n_labels
    length = torch.stack([torch.linalg.vector_norm(tensor) for tensor in solution.vector.values()]).norm() / n_labels
    with torch.autocast(images.device.type, enabled=False):
        norms, earlier = (
            None if one is None else gradient_norms(one, images, loss=loss, targets=targets, reduction="l2")
            for one in (model, before)
        )
    assert norms is not None
    return Influence(
        target=torch.zeros_like(products) if loss == "egl" else products,
        approx_1=products.abs(),
        approx_2=norms * length,
        approx_3=None if earlier is None else earlier * length,
    )
