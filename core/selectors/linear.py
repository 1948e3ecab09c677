"""A linear head on fixed embeddings: multinomial logistic regression, seconds on a CPU."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.models.architectures import Headed
from core.selectors import Progress
from data.errors import UserError

# α of the objective, mean loss + α/2 · ‖W‖², strongest first. No one of them fits all: on 5,000 images of CIFAR-10H with 31%
# of wrong labels 1,280 features of ImageNet want 0.3, and 128 of self-supervised learning 0.003
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
FOLDS = 3  # that the penalty is chosen by
CONSTANT = 1e-6  # deviation, as a share of the mean, that is rounding alone: such a feature says nothing
STEPS = 100  # of L-BFGS; it stops earlier where the gradient vanishes
FOLD_STEPS = 30  # of it in a fold, which starts from the solution of the penalty before
UPDATES = 600  # by Adam, where dropout makes the objective random
BATCH = 256
LEARNING_RATE = 0.01  # of these, falling to 0


def fit(
    model: Headed,
    embeddings: Tensor,
    labels: NDArray[np.int64],
    *,
    seed: int,
    progress: Progress = lambda share: None,
) -> float:
    """Train `model.head`, a linear layer, on embeddings [n, D] and labels int [n]; returns the mean loss in nats.

    Embeddings are standardised for it, and the standardisation is folded into the weights. The penalty is the strongest
    one whose loss on held-out labels is within a standard error of the least (Hastie et al., "The elements of statistical
    learning", 7.10): labels may be wrong, and a weak one learns them by heart. Where `model.dropout` has a probability,
    the head is trained on with it. Raises `UserError` where there is nothing to learn from, or an embedding is not finite.
    """
    if len(labels) == 0:
        raise UserError("There is no labelled sample to train on: label some first.")
    if not bool(torch.isfinite(embeddings).all()):
        raise UserError("The embeddings are not finite: train the encoder again at a lower learning rate.")
    raw, y = embeddings.float(), torch.from_numpy(labels).to(embeddings.device)
    mean, std = raw.mean(dim=0), raw.std(dim=0, unbiased=False)
    std = torch.where(std > CONSTANT * mean.abs(), std, 1.0)
    x = (raw - mean) / std
    generator = torch.Generator().manual_seed(seed)
    start = torch.zeros_like(model.head.weight, dtype=torch.float32), torch.zeros_like(model.head.bias).float()
    stochastic = model.dropout.p > 0
    choosing = 0.4 if stochastic else 0.9  # share of the work
    penalty = _chosen(x, y, start, generator, lambda share: progress(choosing * share))
    weight, bias = _solved(x, y, penalty, start, STEPS)
    if stochastic:

        def dropped(at: Tensor) -> Tensor:
            # The model drops raw embeddings, so these are what must be dropped here; their mean stays
            keep = (torch.rand(len(at), raw.shape[1], generator=generator) >= model.dropout.p) / (1 - model.dropout.p)
            return (raw[at] * keep.to(raw.device) - mean) / std

        weight, bias = _trained_on(
            dropped, y, penalty, (weight, bias), generator, lambda share: progress(0.5 + 0.5 * share)
        )
    with torch.no_grad():
        model.head.weight.copy_(weight / std)
        model.head.bias.copy_(bias - (weight / std) @ mean)
        progress(1.0)
        return float(F.cross_entropy(x @ weight.T + bias, y))


Head = tuple[Tensor, Tensor]  # weight [K, D], bias [K]


def _chosen(x: Tensor, y: Tensor, start: Head, generator: torch.Generator, progress: Progress) -> float:
    """The penalty that held-out labels speak for."""
    if len(x) < 2 * FOLDS:
        return PENALTIES[0]
    fold = (torch.randperm(len(x), generator=generator) % FOLDS).to(x.device)
    heads, means, errors = [start] * FOLDS, [], []
    for k, penalty in enumerate(PENALTIES):
        held_out = torch.empty(len(x), device=x.device)
        for f in range(FOLDS):
            heads[f] = weight, bias = _solved(x[fold != f], y[fold != f], penalty, heads[f], FOLD_STEPS)
            out = fold == f
            held_out[out] = F.cross_entropy(x[out] @ weight.T + bias, y[out], reduction="none")
        means.append(float(held_out.mean()))
        errors.append(float(held_out.std()) / len(x) ** 0.5)
        progress((k + 1) / len(PENALTIES))
        if means[-1] > min(means):
            break  # weaker ones are slower and worse
    best = int(np.argmin(means))
    return PENALTIES[next(k for k, value in enumerate(means) if value <= means[best] + errors[best])]


def _solved(x: Tensor, y: Tensor, penalty: float, start: Head, steps: int) -> Head:
    """The minimum, by L-BFGS from `start`."""
    weight, bias = (tensor.clone().requires_grad_() for tensor in start)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return weight.detach(), bias.detach()


def _trained_on(
    inputs: Callable[[Tensor], Tensor],
    y: Tensor,
    penalty: float,
    start: Head,
    generator: torch.Generator,
    progress: Progress,
) -> Head:
    """The head after `UPDATES` on random `inputs`, a function of the samples' positions."""
    weight, bias = (tensor.clone().requires_grad_() for tensor in start)
    optimiser = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=UPDATES)
    for update in range(UPDATES):
        at = torch.randint(len(y), (BATCH,), generator=generator).to(y.device)
        optimiser.zero_grad()
        with torch.enable_grad():
            loss = F.cross_entropy(inputs(at) @ weight.T + bias, y[at]) + penalty / 2 * weight.square().sum()
            loss.backward()
        optimiser.step()
        decay.step()
        progress((update + 1) / UPDATES)
    return weight.detach(), bias.detach()
