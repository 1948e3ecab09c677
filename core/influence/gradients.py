"""Products of a vector with the loss gradient of every sample, and the gradient of the loss of all."""

import torch
from torch import Tensor, nn
from torch.func import jvp

from core.gradnorm import Loss, checks, sample_loss
from core.gradnorm.losses import mean_probs
from core.influence import passes
from core.influence.passes import Vector


def gradient_dots(
    model: nn.Module, images: Tensor, vector: Vector, *, loss: Loss = "label", targets: Tensor | None = None
) -> Tensor:
    """⟨∇θ L(x), vector⟩ of every sample by itself, exact, the model in eval mode.

    One forward-mode pass gives the products of all samples of a batch (`torch.func.jvp` of the logits along the vector, then
    of the loss along that), for about the price of a plain forward and backward pass and less memory. Where an operator has no
    forward rule, or samples of a batch reach each other, each sample has a backward pass of its own, and the log says why.

    images: [N, …] as the model takes them, samples first; logits [N, K] or [N, K, …], K ≥ 2 · vector: a tensor for each
    trainable parameter by its name; those that are left out count as zeros, so that a layer's part of a vector gives the
    layer's part of the product · loss, targets: as `core.gradnorm.gradient_norms` has them. "egl" is
    Σ_y p_y |⟨∇CE(·, y), vector⟩|, an expectation of absolute values as the expected gradient length is one of norms: that of
    the products themselves is zero for every vector, since Σ_y p_y ∇CE(·, y) = 0. It costs no further pass.

    Returns a Tensor [N] on the device of the images, float64 for a model in float64 and float32 otherwise; autocast is switched
    off within, for products cancel. The model is left as it was found: mode, gradients, hooks; so are the random numbers.

    Raises as `gradient_norms`, and `ValueError` for a vector whose names or shapes are not those of trainable parameters, or
    which is not finite.
    """
    checks.check_call(images, loss, targets)
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    targets = None if targets is None else targets.long()
    parameters = checks.trainable(model)
    checks.check_model(model, parameters)
    vector, images = passes.direction(vector, parameters), images.detach()
    parameters = {name: parameters[name] for name in vector}
    with passes.exact(model, images), torch.no_grad():
        if not len(images):
            return images.new_zeros(0, dtype=torch.float32)
        way = passes.way(model, checks.trainable(model), images)
        losses = checks.losses(loss, targets, way.logits)
        values, products = [], []
        for x, own in way.chunks(images, targets):
            if way.reason is None:
                logits, tangents = passes.ahead(model, parameters, x, vector)
                each = [jvp(lambda z, f=f, own=own: f(z, own), (logits,), (tangents,))[1] for f in losses]
            else:
                logits, each = passes.one_by_one(model, parameters, x, own, losses, vector)
            values.append(sample_loss(logits, "label" if loss == "label" else "entropy", own))
            expected = (mean_probs(logits) * torch.stack(each, dim=1).abs()).sum(dim=1) if loss == "egl" else each[0]
            products.append(expected)
    found = torch.cat(products)
    checks.check_finite(torch.cat(values) + found)
    return found


def loss_gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Vector:
    """Σ_j ∇θ CE(x_j), the gradient of the summed loss of labelled images, the model in eval mode.

    Of held-out images it is the right-hand side of the influence on their loss (Wang et al. 2022, Eq. 2).

    images [n, …] · targets int [n] or [n, …], −1 where unknown; images without any known label add nothing.

    Returns a tensor for each trainable parameter by its name, in its type. Raises as `gradient_dots`, and `ValueError` where
    no image has a label.
    """
    checks.check_call(images, "label", targets)
    if not bool((targets >= 0).any()):
        raise ValueError(
            "No held-out image has a label, so there is no loss to influence: give images with their labels."
        )
    model = getattr(model, "_orig_mod", model)
    targets, images, parameters = targets.long(), images.detach(), checks.trainable(model)
    checks.check_model(model, parameters)
    total, values = {name: torch.zeros_like(p) for name, p in parameters.items()}, []
    with passes.exact(model, images):
        way = passes.way(model, parameters, images)
        checks.check_targets(targets, way.logits)
        for x, own in way.chunks(images, targets, back=True):
            with torch.enable_grad():
                each = sample_loss(passes.answers(model, x), "label", own)
            values.append(each.detach())
            for name, gradient in passes.gradients(each.sum(), parameters).items():
                total[name] += gradient
    checks.check_finite(torch.cat(values))
    return total
