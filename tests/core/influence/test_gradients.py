"""Products with per-sample gradients: against one backward pass per sample in float64, for every model of the engine's zoo."""

import logging
import re

import pytest
import torch
from torch import nn

from core.influence import gradient_dots, loss_gradient, passes
from core.models import architectures
from tests.core.gradnorm.test_fallback import LAYERS
from tests.core.gradnorm.zoo import ENGINE, NETWORKS, K, Pooled, Routed, build, left_as_found
from tests.core.influence import explicit

CASES = [(name, "label") for name in ENGINE] + [
    (name, loss) for name in (*NETWORKS, "tied weights", "attention") for loss in ("entropy", "expected", "egl")
]


def labels(model, images):
    logits = model(images[:1]).shape[1:]
    return torch.randint(logits[0], (len(images), *logits[1:]), generator=torch.Generator().manual_seed(0))


def small():
    return architectures.build("small-cnn", 3, 4, 4, seed=0).eval()


# What has no forward rule, and the rows of a table that autograd takes for constants and forward mode does not.
ONE_BY_ONE = {
    "weight norm": "torch has no forward rule for _weight_norm_interface",
    "embedding with padding": "forward mode differs from plain autograd",
}


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_equals_the_loop(name, loss, caplog):
    model, images = build(name)
    vector, targets = explicit.random_vector(model), labels(model, images) if loss == "label" else None
    expected = explicit.dots(model, images, vector, loss, targets)
    with caplog.at_level(logging.INFO):
        found = gradient_dots(model, images, vector, loss=loss, targets=targets)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert [name in ONE_BY_ONE and ONE_BY_ONE[name] in text for text in caplog.messages] == [True] * (
        name in ONE_BY_ONE
    )


# The layers that the engine of gradient norms leaves to the slow way, and why forward mode does; None: it takes them.
REASONS = {
    "distances": r"torch has no forward rule for _cdist_forward",
    "custom function": r"autograd\.Function",
    "custom function of channels": r"autograd\.Function",
    "held in a list": r"holds a parameter where torch\.func cannot put another",
    "without autograd": r"forward mode differs from plain autograd",
    "picky": r"torch has no forward rule for _cdist_forward",
    "centred by the batch": r"samples of a batch reach each other",
    "mean of the batch": r"samples of a batch reach each other",
    "scripted": None,
    "detached use": None,
    "changed weight": None,
    "stored in samples": None,
    "stored in zeros": None,
    "another order": None,
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", LAYERS)
def test_is_exact_and_says_why_it_is_slow(name, caplog):
    torch.manual_seed(0)
    model = Pooled(LAYERS[name][0]()).double().eval()
    images, vector = torch.randn(4, 3, 8, 8, dtype=torch.float64), explicit.random_vector(model)
    targets = labels(model, images)
    expected = explicit.dots(model, images, vector, "label", targets)
    for _ in range(2):
        found = gradient_dots(model, images, vector, targets=targets)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert len(caplog.messages) == (REASONS[name] is not None), "once a model"
    assert REASONS[name] is None or re.search(REASONS[name], caplog.text)


def test_samples_that_take_different_paths(caplog):
    torch.manual_seed(0)
    model, images = Routed().double(), torch.tensor([[1.0, 1, 1], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    vector, targets = explicit.random_vector(model), torch.tensor([0, 1, 2])
    expected = explicit.dots(model, images, vector, "label", targets)
    torch.testing.assert_close(gradient_dots(model, images, vector, targets=targets), expected)
    assert re.search("decides by the values", caplog.text)


def test_a_part_of_the_vector_gives_a_part_of_the_product():
    """Layer by layer: the parts add up."""
    model, images = build("small-cnn")
    vector, targets = explicit.random_vector(model), labels(model, images)
    parts = [gradient_dots(model, images, {name: part}, targets=targets) for name, part in vector.items()]
    torch.testing.assert_close(torch.stack(parts).sum(dim=0), gradient_dots(model, images, vector, targets=targets))


def test_chunks_do_not_change_the_result(monkeypatch):
    model, images = build("resnet18")
    vector, targets = explicit.random_vector(model), labels(model, images)
    whole = gradient_dots(model, images, vector, targets=targets)
    total = loss_gradient(model, images, targets)
    monkeypatch.setattr(passes, "MOST", 2)
    passes._ways.clear()
    torch.testing.assert_close(gradient_dots(model, images, vector, targets=targets), whole)
    torch.testing.assert_close(loss_gradient(model, images, targets), total)


def test_weights_that_changed_are_looked_at_again(monkeypatch):
    verified, verify = [], passes._verify
    monkeypatch.setattr(passes, "_verify", lambda *args: verified.append(1) or verify(*args))
    model, images = build("small-cnn")
    vector, targets = explicit.random_vector(model), labels(model, images)
    for _ in range(2):
        gradient_dots(model, images, vector, targets=targets)
    assert len(verified) == 1
    with torch.no_grad():
        model.head.weight.mul_(2)
    gradient_dots(model, images, vector, targets=targets)
    assert len(verified) == 2


def test_egl_is_the_expectation_of_absolute_products_and_that_of_products_is_zero():
    model, images = build("small-cnn")
    vector = explicit.random_vector(model)
    p = model(images).softmax(dim=1).detach()
    each = [gradient_dots(model, images, vector, targets=torch.full((len(images),), y)) for y in range(K)]
    every = torch.stack(each, dim=1)
    torch.testing.assert_close(gradient_dots(model, images, vector, loss="egl"), (p * every.abs()).sum(dim=1))
    assert (p * every).sum(dim=1).abs().max() < 1e-12 * every.abs().max()


def test_unknown_targets_add_nothing():
    model, images = build("segmenter")
    vector, targets = explicit.random_vector(model), labels(model, images)
    targets[0, 2:] = -1
    targets[1] = -1
    expected = explicit.dots(model, images, vector, "label", targets)
    found = gradient_dots(model, images, vector, targets=targets)
    torch.testing.assert_close(found, expected)
    assert found[1] == 0


def test_loss_gradient_is_the_sum_over_samples():
    model, images = build("vit")
    targets = labels(model, images)
    targets[2] = -1
    expected = explicit.label_gradients(model, images, targets).sum(dim=0)
    torch.testing.assert_close(explicit.flat(loss_gradient(model, images, targets)), expected)


def test_float32_also_under_autocast():
    model, images = build("resnet18")
    vector, targets = explicit.random_vector(model), labels(model, images)
    expected = explicit.dots(model, images, vector, "label", targets)
    model, images = model.float(), images.float()
    plain = gradient_dots(model, images, vector, targets=targets)
    assert plain.dtype == torch.float32
    torch.testing.assert_close(plain.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient_dots(model, images, vector, targets=targets), plain)


def test_one_image_and_none():
    model, images = build("small-cnn")
    vector, targets = explicit.random_vector(model), labels(model, images)
    whole = gradient_dots(model, images, vector, targets=targets)
    torch.testing.assert_close(gradient_dots(model, images[:1], vector, targets=targets[:1]), whole[:1])
    assert gradient_dots(model, images[:0], vector, targets=targets[:0]).shape == (0,)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("layer", [nn.Conv2d, LAYERS["without autograd"][0]])
def test_the_model_is_left_as_it_was_found(layer, fails):
    model = Pooled(layer(3, 4, 3) if layer is nn.Conv2d else layer(), nn.BatchNorm2d(4)).eval()
    model.body.training = True  # a container: the mode of each module is its own
    model.body[1].weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    vector = explicit.random_vector(model)
    with left_as_found(model):
        if fails:
            images[1] = float("nan")
            with pytest.raises(ValueError, match="not finite"):
                gradient_dots(model, images, vector, loss="entropy")
        else:
            gradient_dots(model, images, vector, loss="entropy")
            loss_gradient(model, images, torch.tensor([0, 1, 2]))


def test_a_saturated_softmax_has_products_of_zero_where_it_is_right():
    """And where it is wrong, those of the cross-entropy; nothing is NaN."""
    model, images = nn.Linear(3, 2), torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0]]))
        model.bias.zero_()
    vector = {"bias": torch.tensor([1.0, 0.0])}
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert gradient_dots(model, images, vector, targets=right).tolist() == [0, 0]
    assert gradient_dots(model, images, vector, targets=wrong).tolist() == [1, -1]
    for loss in ("entropy", "egl"):
        assert gradient_dots(model, images, vector, loss=loss).tolist() == [0, 0]


IMAGES, TARGETS = torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("vector", "options", "message"),
    [
        ({}, {}, "empty: give a tensor"),
        ({"tail": torch.zeros(3)}, {}, '"tail", which is no trainable parameter'),
        ({"head.bias": torch.zeros(3)}, {}, r'"head.bias" is of shape \[3\], its parameter of \[4\]'),
        ({"head.bias": torch.full((4,), float("nan"))}, {}, '"head.bias" is not finite'),
        ({"head.bias": torch.zeros(4)}, {"targets": None}, "Targets go with"),
        ({"head.bias": torch.zeros(4)}, {"targets": torch.tensor([0, 1, 4])}, "from 0 to 3"),
        ({"head.bias": torch.zeros(4)}, {"loss": "hinge"}, "Unknown loss"),
    ],
)
def test_says_what_is_wrong_with_the_vector_and_options(vector, options, message):
    with pytest.raises(ValueError, match=message):
        gradient_dots(small(), IMAGES, vector, **{"targets": TARGETS, **options})


def test_says_what_is_wrong_with_a_model_that_diverged():
    model = small()
    with torch.no_grad():
        model.head.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"not finite for 3 of 3 samples.*weights"):
        gradient_dots(model, IMAGES, {"head.bias": torch.zeros(4)}, targets=TARGETS)
    with pytest.raises(ValueError, match=r"not finite for 3 of 3 samples.*weights"):
        loss_gradient(model, IMAGES, TARGETS)


@pytest.mark.parametrize("targets", [torch.tensor([-1, -1, -1]), torch.tensor([], dtype=torch.long)])
def test_a_loss_needs_a_label(targets):
    with pytest.raises(ValueError, match="No held-out image has a label"):
        loss_gradient(small(), IMAGES[: len(targets)], targets)


def test_images_that_the_model_cannot_take():
    with pytest.raises(ValueError, match="cannot take images"):
        gradient_dots(small(), torch.randn(3, 1, 16, 16), {"head.bias": torch.zeros(4)}, targets=TARGETS)
