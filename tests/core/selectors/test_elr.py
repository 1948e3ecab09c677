"""Early-learning regularisation, against a plain computation."""

import math

import numpy as np
import pytest
import torch

from core.models import architectures
from core.models.batches import Images
from core.selectors import Settings, Shape, elr, vanilla


def test_the_regulariser_is_the_mean_log_of_one_minus_the_agreement():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], dtype=torch.float64)
    t = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.9, 0.1]], dtype=torch.float64)
    plain = [math.log(1 - sum(float(a) * float(b) for a, b in zip(p[i], t[i], strict=True))) for i in range(2)]
    assert float(elr.regulariser(p, t)) == pytest.approx(sum(plain) / 2)


def test_targets_are_the_running_average_of_each_samples_posterior():
    """Two epochs of one batch at a learning rate of zero: the loss must be that of targets averaged twice."""
    images = Images(
        np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8),
        torch.zeros(1, 1, 1),
        torch.ones(1, 1, 1),
        torch.device("cpu"),
    )
    model = vanilla.build(Shape("small-cnn", 4, 1, 3, seed=0))
    labels = np.arange(8) % 3
    seen: list[torch.Tensor] = []
    forward = architectures.Model.forward

    def remember(self, x):
        logits = forward(self, x)
        seen.append(logits.detach().double())
        return logits

    model.forward = remember.__get__(model)
    settings = Settings(2, 1e-12, 8, "constant", weight_decay=0.0)
    loss = elr.fit(model, images, np.arange(8), labels, settings, seed=3)
    orders = torch.Generator().manual_seed(3)
    targets = torch.zeros(8, 3, dtype=torch.float64)
    for logits in seen:
        order = torch.randperm(8, generator=orders)
        torch.rand(8, generator=orders), torch.randint(0, 3, (2, 8), generator=orders)  # what the augmentation draws
        p = logits.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        targets[order] = 0.9 * targets[order] + 0.1 * p / p.sum(dim=1, keepdim=True)
        ce = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)[order])
        plain = ce + 3 * (1 - (p * targets[order]).sum(dim=1)).log().mean()
    assert loss == pytest.approx(float(plain), rel=1e-5)
