"""Influence on a GPU equals that on a CPU."""

import pytest
import torch

from core.influence import gradient_dots, influence, inverse_hvp, loss_gradient
from tests.core.gradnorm.zoo import NETWORKS, build
from tests.core.influence import explicit
from tests.core.influence.test_gradients import labels
from tests.core.influence.test_solve import network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_loop(name, caplog):
    model, images = build(name)
    vector, targets = explicit.random_vector(model), labels(model, images)
    expected = explicit.dots(model, images, vector, "label", targets)
    found = gradient_dots(model.cuda(), images.cuda(), vector, targets=targets.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert not caplog.messages


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_the_terms_equal_those_of_the_cpu(curvature):
    found = []
    for device in ("cpu", "cuda"):
        model, images, targets = (each.to(device) for each in network())
        vector = loss_gradient(model, images.flip(3), targets)
        solution = inverse_hvp(model, images, targets, vector, damping=100, curvature=curvature, tolerance=1e-12)
        terms = influence(model, images, solution, n_labels=len(images), targets=targets)
        found.append(torch.stack([terms.target, terms.approx_2]).cpu())
    torch.testing.assert_close(*found)
