"""Products with curvatures and their inverse, against matrices written out in float64 and against curvlinops."""

import re

import curvlinops
import pytest
import torch
from torch import nn

from core.gradnorm import checks
from core.influence import gradient_dots, inverse_hvp, loss_gradient, passes, solve
from core.models import architectures
from tests.core.gradnorm.test_fallback import LAYERS
from tests.core.gradnorm.zoo import Pooled, build
from tests.core.influence import explicit


def network(width=3):
    """A small CNN of 983 parameters that has learnt a little, in float64, with twelve images and their labels."""
    torch.manual_seed(0)
    model = architectures.build("small-cnn", 1, 3, width, seed=0).double()
    images, targets = torch.randn(12, 1, 8, 8, dtype=torch.float64), torch.arange(12) % 3
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(10):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval(), images, targets


NETWORK = network()
VECTOR = explicit.random_vector(NETWORK[0])


class Distances(nn.Module):
    """From points that are held where torch.func cannot put others in their place."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.randn(8, 8))
        self.held = [self.points]

    def forward(self, x):
        return (x.unsqueeze(-2) - self.held[0]).square().sum(dim=-1)


def product(model, images, targets, vector, kind):
    """As `inverse_hvp` takes it."""
    with passes.exact(model, images):
        products = solve._Products(model, checks.trainable(model), images, targets, kind)
        return products(explicit.flat(vector))


@pytest.mark.parametrize("kind", ["ggn", "hessian"])
@pytest.mark.parametrize("name", ["small-cnn", "resnet18", "segmenter", "raw parameters"])
def test_products_equal_the_matrix(name, kind):
    model, images = build(name)
    targets = torch.arange(len(images)) % 4
    if name == "segmenter":
        targets = targets[:, None, None].expand(-1, 8, 8).clone()
        targets[0, 2:] = -1
        images, targets = images[:2], targets[:2]
    if name == "resnet18":  # a matrix of its stem and head is enough
        for key, p in model.named_parameters():
            p.requires_grad_(key.startswith(("conv1", "head")))
    vector = explicit.random_vector(model)
    expected = explicit.CURVATURES[kind](model, images, targets) @ explicit.flat(vector)
    found = product(model, images, targets, vector, kind)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["ggn", "hessian"])
def test_products_equal_those_of_curvlinops(kind):
    model, images, targets = NETWORK
    operator = {"ggn": curvlinops.GGNLinearOperator, "hessian": curvlinops.HessianLinearOperator}[kind]
    theirs = operator(model, nn.CrossEntropyLoss(), list(model.parameters()), [(images, targets)])
    expected = theirs @ explicit.flat(VECTOR)
    torch.testing.assert_close(
        product(*NETWORK, VECTOR, kind), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())
    )


@pytest.mark.parametrize("kind", ["ggn", "hessian"])
@pytest.mark.parametrize("name", ["custom function", "held in a list", "without autograd", "centred by the batch"])
def test_products_of_what_forward_mode_cannot_take(name, kind, caplog):
    """By double backward, sample by sample."""
    torch.manual_seed(0)
    model = Pooled(Distances() if name == "held in a list" else LAYERS[name][0]()).double().eval()
    images, vector = torch.randn(4, 3, 8, 8, dtype=torch.float64), explicit.random_vector(model)
    targets = torch.arange(4)
    expected = explicit.CURVATURES[kind](model, images, targets) @ explicit.flat(vector)
    found = product(model, images, targets, vector, kind)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert "sample by sample" in caplog.text


@pytest.mark.parametrize("kind", ["ggn", "hessian"])
@pytest.mark.parametrize("weight_decay", [0, 0.05])
def test_equals_the_explicit_inverse(kind, weight_decay):
    model, images, targets = NETWORK
    matrix = explicit.CURVATURES[kind](model, images, targets)
    damping = 0.02 - min(0.0, float(torch.linalg.eigvalsh(matrix)[0]))
    shifted = matrix + (damping + weight_decay) * torch.eye(len(matrix), dtype=matrix.dtype)
    vector = loss_gradient(model, images.flip(3), targets)
    expected = torch.linalg.solve(shifted, explicit.flat(vector))
    options = {"damping": damping, "weight_decay": weight_decay, "curvature": kind}
    found = inverse_hvp(model, images, targets, vector, **options, tolerance=1e-12)
    assert found.converged
    assert found.residual <= 1e-12
    solution = explicit.flat(found.vector)
    torch.testing.assert_close(solution, expected, rtol=0, atol=1e-8 * float(expected.norm()) / len(expected) ** 0.5)
    rough = inverse_hvp(model, images, targets, vector, **options, tolerance=1e-2)
    residual = float(
        (explicit.flat(vector) - shifted @ explicit.flat(rough.vector)).norm() / explicit.flat(vector).norm()
    )
    assert rough.residual == pytest.approx(residual)
    assert residual <= 1e-2
    assert rough.iterations < found.iterations


def test_float32_reaches_a_residual_that_is_its_own(caplog):
    """Of what the recurrence believes, rounding leaves less; the residual is that of the solution that is returned."""
    model, images, targets = network()
    model, images = model.float(), images.float()
    vector = loss_gradient(model, images.flip(3), targets)
    assert inverse_hvp(model, images, targets, vector, damping=0.02, tolerance=1e-4).converged
    found = inverse_hvp(model, images, targets, vector, damping=0.02, tolerance=1e-12)
    assert not found.converged
    assert 1e-12 < found.residual < 1e-4
    assert "Conjugate gradients stopped at a relative residual of" in caplog.text


def test_says_when_it_does_not_converge(caplog):
    model, images, targets = NETWORK
    found = inverse_hvp(model, images, targets, VECTOR, damping=1e-4, tolerance=1e-8, max_iterations=3)
    assert not found.converged
    assert found.iterations == 3
    assert found.residual > 1e-8
    assert re.search(r"after 3 iterations, above 1e-08: give a damping above 0\.0001, more iterations", caplog.text)


def test_a_vector_of_zeros_needs_no_iteration():
    zeros = {name: torch.zeros_like(tensor) for name, tensor in VECTOR.items()}
    found = inverse_hvp(*NETWORK, zeros, damping=0.1)
    assert (found.converged, found.iterations, found.residual) == (True, 0, 0)
    assert not any(tensor.any() for tensor in found.vector.values())


def test_names_that_are_left_out_are_zeros():
    part = {"head.bias": VECTOR["head.bias"]}
    whole = {name: torch.zeros_like(tensor) for name, tensor in VECTOR.items()} | part
    one, other = (inverse_hvp(*NETWORK, vector, damping=0.1).vector for vector in (part, whole))
    assert all(torch.equal(one[name], other[name]) for name in VECTOR)


class Once(torch.autograd.Function):
    """x w whose backward can be derived no further, and without a forward rule."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum()


class WithoutDoubleBackward(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(()))

    def forward(self, x):
        return Once.apply(x, self.weight)


def linear():
    """A head of 8 parameters on three features, in float64, with 20 samples: more than its parameters."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    return model, torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 2


def saturated():
    model, images, targets = linear()
    with torch.no_grad():
        model.weight.mul_(1e6)
    return model, images, targets


def diverged():
    model, images, targets = linear()
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    return model, images, targets


def without_double_backward():
    torch.manual_seed(0)
    return Pooled(WithoutDoubleBackward()), torch.randn(4, 3, 8, 8), torch.arange(4)


def unlabelled():
    model, images, targets = linear()
    targets[7] = -1
    return model, images, targets


def no_images():
    model, images, targets = linear()
    return model, images[:0], targets[:0]


@pytest.mark.parametrize(
    ("situation", "options", "message"),
    [
        (
            lambda: NETWORK,
            {"damping": 0},
            "singular: the labels give it a rank of at most 24 in .* give a damping, such as",
        ),
        (
            lambda: NETWORK,
            {"damping": 0, "curvature": "hessian"},
            'not positive definite.*give a damping above .*"ggn"',
        ),
        (linear, {"damping": 0}, "The curvature is singular: it is .* along one direction.* give a damping, such as"),
        (
            saturated,
            {"damping": 0},
            "singular: it is zero along the vector, as where the softmax of every training image is",
        ),
        (diverged, {"damping": 0.1}, "not finite for 20 of 20 samples.*weights"),
        (
            without_double_backward,
            {"damping": 0.1},
            "neither .*autograd.Function.*once_differentiable.*torch's own functions",
        ),
        (without_double_backward, {"damping": 0.1, "curvature": "hessian"}, 'Hessian needs .* double backward.*"ggn"'),
        (unlabelled, {"damping": 0.1}, "training image at index 7 has no label"),
        (no_images, {"damping": 0.1}, "no training image"),
        (linear, {"damping": -0.1}, "damping must be 0 or more, not -0.1"),
        (linear, {"damping": float("nan")}, "damping must be 0 or more, not nan"),
        (linear, {"damping": 0.1, "weight_decay": -1}, "weight_decay must be 0 or more"),
        (linear, {"damping": 0.1, "curvature": "fisher"}, 'Unknown curvature "fisher": give "ggn" or "hessian"'),
        (linear, {"damping": 0.1, "tolerance": 0}, "between 0 and 1, not 0"),
        (linear, {"damping": 0.1, "max_iterations": 0}, "at least 1, not 0"),
        (linear, {"damping": 0.1, "vector": {"tail": torch.zeros(3)}}, '"tail", which is no trainable parameter'),
    ],
)
def test_says_what_is_wrong(situation, options, message):
    model, images, targets = situation()
    vector = (
        options.pop("vector", explicit.random_vector(model)) if "vector" in options else explicit.random_vector(model)
    )
    with pytest.raises(ValueError, match=message):
        inverse_hvp(model, images, targets, vector, **options)


def test_without_damping_a_vector_within_the_curvature_is_solved():
    """A softmax does not see what is added to all logits alike; gradients have no such part, and need no damping."""
    model, images, targets = linear()
    vector = loss_gradient(model, images[:7], targets[:7])
    found = inverse_hvp(model, images, targets, vector, damping=0, tolerance=1e-10)
    matrix = explicit.ggn(model, images, targets)
    torch.testing.assert_close(matrix @ explicit.flat(found.vector), explicit.flat(vector))


def test_a_saturated_softmax_leaves_the_damping_alone(caplog):
    model, images, targets = saturated()
    vector = explicit.random_vector(model)
    found = inverse_hvp(model, images, targets, vector, damping=0.5)
    assert found.converged
    torch.testing.assert_close(found.vector["bias"], vector["bias"] / 0.5)
    assert "softmax of every training image is saturated" in caplog.text


def test_one_image_s_solution_serves_every_test_image():
    """H⁻¹ is symmetric: what x does to each test image, from one solution for x."""
    model, images, targets = NETWORK
    one = inverse_hvp(
        model, images, targets, loss_gradient(model, images[:1], targets[:1]), damping=0.1, tolerance=1e-12
    )
    each = gradient_dots(model, images.flip(3), one.vector, targets=targets)
    other = loss_gradient(model, images.flip(3), targets)
    all_of_them = inverse_hvp(model, images, targets, other, damping=0.1, tolerance=1e-12)
    dot = gradient_dots(model, images[:1], all_of_them.vector, targets=targets[:1])
    torch.testing.assert_close(each.sum(), dot[0])


@pytest.mark.parametrize("kind", ["ggn", "hessian"])
def test_the_model_is_left_as_it_was_found(kind):
    model, images, targets = network()
    model.train()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    for module in model.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    inverse_hvp(model, images, targets, explicit.random_vector(model), damping=100, curvature=kind)
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert all(p.requires_grad and p.grad is None for p in model.parameters() if p is not model.head.weight)
    assert torch.equal(random, torch.get_rng_state())
