"""The four terms of the paper: exact, in order, and true of what retraining does."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from core.influence import Solution, influence, inverse_hvp, loss_gradient
from tests.core.influence import explicit
from tests.core.influence.test_solve import network

N, DAMPING = 12, 0.05


@pytest.fixture(scope="module")
def solved():
    """A network, its earlier self, candidates with their labels, H⁻¹ Σ ∇L(x_j) written out and as it is solved."""
    model, images, targets = network()
    before, _, _ = network()
    with torch.no_grad():
        for p in before.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    generator = torch.Generator().manual_seed(2)
    held_out, candidates = torch.randn(2, 9, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.arange(9) % 3
    matrix = explicit.ggn(model, images, targets)
    matrix += DAMPING * torch.eye(len(matrix), dtype=matrix.dtype)
    right = explicit.label_gradients(model, held_out, labels).sum(dim=0)
    vector = loss_gradient(model, held_out, labels)
    solution = inverse_hvp(model, images, targets, vector, damping=DAMPING, tolerance=1e-13)
    return model, before, candidates, labels, torch.linalg.solve(matrix, right), solution


def test_equal_those_of_the_explicit_inverse(solved):
    model, before, candidates, labels, s, solution = solved
    found = influence(model, candidates, solution, n_labels=N, targets=labels, before=before)
    gradients = explicit.label_gradients(model, candidates, labels)
    earlier = explicit.label_gradients(before, candidates, labels)
    torch.testing.assert_close(found.target, gradients @ s / N, rtol=1e-8, atol=0)
    torch.testing.assert_close(found.approx_1, (gradients @ s / N).abs(), rtol=1e-8, atol=0)
    torch.testing.assert_close(found.approx_2, gradients.norm(dim=1) * s.norm() / N, rtol=1e-8, atol=0)
    torch.testing.assert_close(found.approx_3, earlier.norm(dim=1) * s.norm() / N, rtol=1e-8, atol=0)


@pytest.mark.parametrize("loss", ["entropy", "expected", "egl"])
def test_before_labelling_equal_those_of_the_explicit_inverse(solved, loss):
    model, _, candidates, _, s, solution = solved
    found = influence(model, candidates, solution, n_labels=N, loss=loss)
    target, approx_1, approx_2 = [], [], []
    for image in candidates:
        logits = explicit.single(model, image)
        p, each = logits.softmax(dim=1).detach()[0], -F.log_softmax(logits, dim=1)[0]
        if loss == "egl":
            gradients = torch.stack([explicit.gradient(value, model) for value in each])
        else:
            gradients = explicit.gradient(torch.special.entr(logits.softmax(dim=1)).sum(), model)[None]
            p = torch.ones_like(p[:1])
        target.append((p * (gradients @ s)).sum() / N)
        approx_1.append((p * (gradients @ s).abs()).sum() / N)
        approx_2.append((p * gradients.norm(dim=1)).sum() * s.norm() / N)
    torch.testing.assert_close(found.target, torch.stack(target), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.approx_1, torch.stack(approx_1), rtol=1e-8, atol=0)
    torch.testing.assert_close(found.approx_2, torch.stack(approx_2), rtol=1e-8, atol=0)
    assert found.approx_3 is None


@pytest.mark.parametrize("loss", ["label", "entropy", "expected", "egl"])
def test_are_a_chain_of_bounds(solved, loss):
    model, _, candidates, labels, _, solution = solved
    found = influence(model, candidates, solution, n_labels=N, loss=loss, targets=labels if loss == "label" else None)
    assert (found.target.abs() <= found.approx_1).all()
    assert (found.approx_1 <= found.approx_2).all()


def test_a_solution_that_did_not_converge_is_not_used(solved):
    model, _, candidates, labels, _, solution = solved
    rough = Solution(solution.vector, residual=0.4, iterations=30, converged=False)
    with pytest.raises(ValueError, match=r"did not converge.*residual is 0.4 after 30 iterations.*larger damping"):
        influence(model, candidates, rough, n_labels=N, targets=labels)
    with pytest.raises(ValueError, match="trained on, not 0"):
        influence(model, candidates, solution, n_labels=0, targets=labels)


def minimised(features, labels, weights, weight_decay, start):
    """The head [K, D + 1] of least (1/n) Σ weight · CE + weight_decay/2 ‖θ‖², by Newton's method, gradient below 1e-10."""
    ones = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    theta, n = start.clone(), len(features)
    for _ in range(50):
        p = (ones @ theta.T).softmax(dim=1)
        error = (p - F.one_hot(labels, p.shape[1])) * weights[:, None] / n
        gradient = error.T @ ones + weight_decay * theta
        if gradient.norm() < 1e-10:
            return theta
        inner = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) * weights[:, None, None] / n
        matrix = torch.einsum("nkl,nd,ne->kdle", inner, ones, ones).reshape(2 * (theta.numel(),))
        matrix += weight_decay * torch.eye(len(matrix), dtype=torch.float64)
        theta = theta - torch.linalg.solve(matrix, gradient.reshape(-1)).view_as(theta)
    raise AssertionError("Newton's method did not converge")


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_predicts_what_leaving_one_out_does(curvature):
    """Every training sample is left out and a convex head with L2 retrained to its minimum: Eq. 2 in order, and to scale."""
    generator = torch.Generator().manual_seed(0)
    n, weight_decay = 200, 0.02
    features = torch.randn(n + 100, 5, generator=generator, dtype=torch.float64)
    labels = (features @ torch.randn(5, 3, generator=generator, dtype=torch.float64)).argmax(dim=1)
    flipped = torch.rand(len(labels), generator=generator) < 0.15
    labels = torch.where(flipped, torch.randint(3, labels.shape, generator=generator), labels)
    train, held_out = slice(0, n), slice(n, None)

    def loss(theta):
        return F.cross_entropy(features[held_out] @ theta[:, :-1].T + theta[:, -1], labels[held_out], reduction="sum")

    everyone = torch.ones(n, dtype=torch.float64)
    whole = minimised(features[train], labels[train], everyone, weight_decay, torch.zeros(3, 6, dtype=torch.float64))
    realised = []
    for left_out in range(n):
        weights = everyone.clone()
        weights[left_out] = 0
        realised.append(loss(minimised(features[train], labels[train], weights, weight_decay, whole)) - loss(whole))

    model = nn.Linear(5, 3).double()
    with torch.no_grad():
        model.weight.copy_(whole[:, :-1])
        model.bias.copy_(whole[:, -1])
    vector = loss_gradient(model, features[held_out], labels[held_out])
    options = {"damping": 0, "weight_decay": weight_decay, "curvature": curvature, "tolerance": 1e-10}
    solution = inverse_hvp(model, features[train], labels[train], vector, **options)
    predicted = influence(model, features[train], solution, n_labels=n, targets=labels[train]).target
    found = torch.stack(realised)
    assert stats.spearmanr(predicted, found).statistic > 0.99
    assert stats.linregress(predicted, found).slope == pytest.approx(1, abs=0.05)
    assert 0 < (predicted > 0).double().mean() < 1, "some samples help, some harm"
