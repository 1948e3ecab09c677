"""Never a wrong number: what the engine cannot read off a batch is taken sample by sample, and the log names it."""

import logging
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.gradnorm import gradient_norms
from core.gradnorm.rules import RULES
from tests.core.gradnorm.slow_loop import loop
from tests.core.gradnorm.zoo import Pooled, Routed


class Distances(nn.Module):
    """A parameter in a function that has no rule."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.cdist(x, self.points)


class Square(torch.autograd.Function):
    """w² x with a gradient of its own, which torch functions do not show and torch.func cannot map."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight**2

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight**2, (gradient * 2 * weight * x).sum()


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(()))

    def forward(self, x):
        return Square.apply(x, self.weight)


class Scale(torch.autograd.Function):
    """w x for each channel; a torch function on the parameter would show, if autograd were not off in here."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(dim=(0, 2, 3)).view_as(weight)


class CustomOfChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 1, 1))

    def forward(self, x):
        return Scale.apply(x, self.weight)


class Held(nn.Module):
    """The parameter is also in a list, where torch.func cannot put another in its place."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.weights = [self.weight]

    def forward(self, x):
        return torch.cdist(x, self.weights[0])


class WithoutAutograd(nn.Conv2d):
    """The weight is used once more, where it is not derived."""

    def forward(self, x):
        with torch.no_grad():
            plain = super().forward(x)
        return super().forward(x) + plain


class Picky(nn.Linear):
    """Fails under torch.func with an error of its own."""

    def forward(self, x):
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            raise TypeError("expected a plain tensor")
        return torch.cdist(x, self.weight)


class Centred(nn.Linear):
    """Takes the mean of the batch away, with no gradient through it."""

    def forward(self, x):
        return super().forward(x - x.detach().mean(dim=0, keepdim=True).round(decimals=1))


class Mixed(nn.Conv2d):
    """Each sample sees the mean of the batch."""

    def forward(self, x):
        y = super().forward(x)
        return y + y.mean(dim=0, keepdim=True)


class Backwards(nn.Conv2d):
    """The samples in another order."""

    def forward(self, x):
        return super().forward(x.flip(0)).flip(0)


class DetachedUse(nn.Linear):
    """The weight is used a second time, without a gradient."""

    def forward(self, x):
        return super().forward(x) + F.linear(x, self.weight.detach())


class Changed(nn.Linear):
    """What is made of the weight is written to after it was used."""

    def forward(self, x):
        weight = self.weight * 2
        y = F.linear(x, weight)
        weight.zero_()
        return y


class Stored(nn.Module):
    """A parameter is written into a tensor of samples."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(8))

    def forward(self, x):
        x = x.clone()
        x[:, 0, 0] = self.token
        return x


class Filled(Stored):
    """… and into one that is not made of samples."""

    def forward(self, x):
        tokens = x.new_zeros(3, 8, 8)
        tokens[0, 0] = self.token
        return x + tokens


LAYERS = {
    "distances": (Distances, r"body\.0 \(Distances\): there is no rule for cdist"),
    "custom function": (Custom, r"body\.0 \(Custom\): .*custom autograd\.Function"),
    "custom function of channels": (CustomOfChannels, r"body\.0 \(CustomOfChannels\): .*custom autograd\.Function"),
    "held in a list": (Held, r"body\.0 \(Held\): there is no rule for cdist"),
    "without autograd": (lambda: WithoutAutograd(3, 4, 3), r"body\.0 \(WithoutAutograd\): .*torch\.no_grad"),
    "picky": (lambda: Picky(8, 8), r"body\.0 \(Picky\): there is no rule for cdist"),
    "scripted": (lambda: torch.jit.script(nn.Conv2d(3, 4, 3)), r"body\.0 "),
    "centred by the batch": (lambda: Centred(8, 8), r"body\.0 \(Centred\)"),
    "mean of the batch": (lambda: Mixed(3, 4, 3), r"body\.0 \(Mixed\)"),
    "detached use": (lambda: DetachedUse(8, 8), r"body\.0 \(DetachedUse\)"),
    "changed weight": (lambda: Changed(8, 8), r"body\.0 \(Changed\)"),
    "stored in samples": (Stored, r"body\.0 \(Stored\): there is no rule for __setitem__"),
    "stored in zeros": (Filled, r"body\.0 \(Filled\): there is no rule for __setitem__"),
    "another order": (lambda: Backwards(3, 4, 3), r"body\.0 \(Backwards\)"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", LAYERS)
def test_is_exact_and_names_the_layer(name, caplog):
    torch.manual_seed(0)
    layer, message = LAYERS[name]
    model = Pooled(layer()).double().eval()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    expected = loop(model, images, "entropy")
    with caplog.at_level(logging.INFO):
        found = gradient_norms(model, images, reduction="none")
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
        gradient_norms(model, images, loss="egl")
    assert len(caplog.messages) == 1, "once a model"
    assert re.search(message, caplog.messages[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, torch.randn(2, 3, 8, 8))])
def test_a_whole_model_as_a_script(make, caplog):
    torch.manual_seed(0)
    model = make(Pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()).double()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for loss in ("entropy", "egl"):
        torch.testing.assert_close(
            gradient_norms(model, images, loss=loss, reduction="none"), loop(model, images, loss)
        )
    assert len(caplog.messages) == 1
    assert re.search(r"body\.0 \(.*Module\): it is used where no torch function shows it", caplog.messages[0])


def test_an_input_that_is_changed_in_place_after_its_use():
    """Autograd refuses it, for the weight's gradient needs the input as it was; frozen weights would not show that."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 4)

        def forward(self, x):
            y = self.first(x)
            z = self.head(y)
            y.zero_()
            return z

    torch.manual_seed(0)
    model, images = Model().double(), torch.randn(4, 3, dtype=torch.float64)
    for call in (lambda: loop(model, images, "entropy"), lambda: gradient_norms(model, images)):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            call()


def test_an_input_that_is_changed_in_place_under_autocast(caplog):
    """There autograd keeps a copy in half precision, so that the change does no harm; we fall back."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 4)

        def forward(self, x):
            x = x.clone()
            y = self.first(x)
            x.zero_()
            return self.head(y)

    torch.manual_seed(0)
    model, images = Model(), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        expected = loop(model, images, "entropy").sum(dim=1)
        torch.testing.assert_close(gradient_norms(model, images), expected, rtol=3e-2, atol=0)
    assert re.search(r"first \(Linear\): its input was changed in place", caplog.messages[0])


def test_a_model_that_changes_between_calls_is_looked_at_again(caplog):
    torch.manual_seed(0)
    model, images = Pooled(nn.Conv2d(3, 4, 3)).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    gradient_norms(model, images)
    model.body[0] = nn.Conv2d(3, 4, 1).double()
    torch.testing.assert_close(gradient_norms(model, images, reduction="none"), loop(model, images, "entropy"))
    assert not caplog.messages


def test_a_user_registers_a_rule(monkeypatch, caplog):
    """As docs/gradient-norms.md shows; the model is looked at again, although it was given up before."""
    torch.manual_seed(0)
    model, images = Pooled(Distances()).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    expected = loop(model, images, "entropy")
    torch.testing.assert_close(gradient_norms(model, images, reduction="none"), expected)
    assert "there is no rule for cdist" in caplog.text
    caplog.clear()
    monkeypatch.setitem(RULES, torch.cdist, None)  # taken out again after this test
    text = (Path(__file__).parents[3] / "docs" / "gradient-norms.md").read_text()
    (block,) = (
        part.split("```")[0] for part in text.split("```python\n")[1:] if "import Unsupported, Use, rule" in part
    )
    exec(block, {})
    torch.testing.assert_close(gradient_norms(model, images, reduction="none"), expected)
    assert not caplog.messages


def test_samples_that_take_different_paths(caplog):
    torch.manual_seed(0)
    model, images = Routed().double(), torch.tensor([[1.0, 1, 1], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(gradient_norms(model, images, reduction="none"), loop(model, images, "entropy"))
    assert len(caplog.messages) == 1
