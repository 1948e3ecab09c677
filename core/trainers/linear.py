"""A linear head on fixed embeddings: multinomial logistic regression, seconds on a CPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.models import Headed
from core.trainers import Progress
from data.errors import UserError

PENALTY = 1.0  # C of the usual parametrisation: ½‖W‖² + C Σ loss, on standardised embeddings; the common default
STEPS = 100  # of L-BFGS; it stops earlier where the gradient vanishes
EPOCHS = 30  # passes over the data where dropout makes the objective random
BATCH = 256


def fit(
    model: Headed,
    embeddings: Tensor,
    labels: NDArray[np.int64],
    *,
    seed: int,
    progress: Progress = lambda share: None,
) -> float:
    """Train `model.head`, a linear layer, on embeddings [n, D] and labels int [n]; returns the mean loss in nats.

    Embeddings are standardised for it, and the standardisation is folded into the weights. Where `model.dropout` has a
    probability, the head is trained with it. Raises `UserError` where there is nothing to learn from, or an embedding is
    not finite.
    """
    if len(labels) == 0:
        raise UserError("There is no labelled sample to train on: label some first.")
    if not bool(torch.isfinite(embeddings).all()):
        raise UserError("The embeddings are not finite: train the encoder again at a lower learning rate.")
    x, y = embeddings.float(), torch.from_numpy(labels).to(embeddings.device)
    mean, std = x.mean(dim=0), x.std(dim=0, unbiased=False).clamp_min(1e-6)
    x = (x - mean) / std
    weight = torch.zeros_like(model.head.weight, dtype=torch.float32, requires_grad=True)
    bias = torch.zeros_like(model.head.bias, dtype=torch.float32, requires_grad=True)
    decay = 1 / (2 * PENALTY * len(x))

    def objective(batch: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(batch @ weight.T + bias, target) + decay * weight.square().sum()

    with torch.enable_grad():
        if model.dropout.p > 0:
            _stochastic(objective, [weight, bias], x, y, model.dropout.p, seed, progress)
        else:
            _exact(objective, [weight, bias], x, y, progress)
    with torch.no_grad():
        loss = float(F.cross_entropy(x @ weight.T + bias, y))
        model.head.weight.copy_(weight / std)
        model.head.bias.copy_(bias - (weight / std) @ mean)
    return loss


def _exact(objective: Any, parameters: list[Tensor], x: Tensor, y: Tensor, progress: Progress) -> None:
    optimiser = torch.optim.LBFGS(parameters, max_iter=STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")
    done = 0

    def closure() -> Tensor:
        nonlocal done
        done += 1
        optimiser.zero_grad()
        value: Tensor = objective(x, y)
        value.backward()
        progress(min(1.0, done / STEPS))
        return value

    optimiser.step(closure)


def _stochastic(
    objective: Any, parameters: list[Tensor], x: Tensor, y: Tensor, p: float, seed: int, progress: Progress
) -> None:
    # Dropping raw embeddings shifts their mean; dropped standardised ones stay centred, and the fold is the same
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            keep = (torch.rand(len(batch), x.shape[1], generator=generator) >= p).to(x.device) / (1 - p)
            at = batch.to(x.device)
            optimiser.zero_grad()
            objective(x[at] * keep, y[at]).backward()
            optimiser.step()
        progress((epoch + 1) / EPOCHS)
