"""How the engine comes to trust a plan, and how many samples it takes at once."""

import pytest
import torch
from torch import nn

from core.gradnorm import engine, gradient_norms
from core.gradnorm.rules import RULES
from data.torchvision_import import torchvision
from tests.core.gradnorm.slow_loop import loop
from tests.core.gradnorm.zoo import Attention, K, Pooled, Sequence

TOKENS = {"embedding", "attention"}


def zero_head(model: nn.Module) -> nn.Module:
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(head.weight)
    return model


class Mixed(nn.Linear):
    """The mean of the batch takes part in the gradient alone."""

    def forward(self, x):
        y = super().forward(x)
        mean = y.mean(dim=0, keepdim=True)
        return y + mean - mean.detach()


class Scaled(nn.Module):
    """A branch that starts at a millionth, as in ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(8, 8), nn.Parameter(torch.full((8,), 1e-6))

    def forward(self, x):
        return x + self.scale * self.linear(x)


FRESH = {
    "vit": lambda: torchvision.models.VisionTransformer(  # its head starts as zeros
        image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=K
    ),
    "resnet with zero residuals": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=K, zero_init_residual=True
    ),
    "embedding": lambda: zero_head(Sequence()),
    "attention": lambda: zero_head(Sequence(Attention(True))),
    "linear on two leading dimensions": lambda: zero_head(Pooled(nn.Linear(8, 5))),
    "scaled branch": lambda: Pooled(Scaled()),
}


def inputs(name, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randint(11, (5, 7)) if name in TOKENS else torch.randn(5, 3, 8, 8, dtype=dtype)


@pytest.fixture
def made(monkeypatch):
    """The plans that are made."""
    plans, make = [], engine.make_plan
    monkeypatch.setattr(engine, "make_plan", lambda *args: plans.append(make(*args)) or plans[-1])
    return plans


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FRESH)
def test_a_gradient_of_zero_hides_no_plan(name, dtype, made, caplog):
    """Fresh models have zeros that keep gradients from the layers below: their plan is made once and holds later too."""
    torch.manual_seed(0)
    model, images = FRESH[name]().to(dtype).eval(), inputs(name, dtype)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for _ in range(2):
        found = gradient_norms(model, images, reduction="none")
        expected = loop(model, images, "entropy")
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    expected = loop(model, images, "entropy")
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
    assert len(made) == 1
    assert not caplog.messages


def test_a_gradient_of_zero_under_autocast(made, caplog):
    """What autocast keeps of the weights must not outlive their values."""
    torch.manual_seed(0)
    model, images = FRESH["vit"]().eval(), inputs("vit", torch.float32)
    expected = loop(model, images, "entropy").sum(dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = [gradient_norms(model, images, scope=scope) for scope in ("all", "head", "all")]
    torch.testing.assert_close(torch.stack(found), expected.expand(3, -1), rtol=3e-2, atol=0)
    assert len(made) == 2, "one a scope"
    assert not caplog.messages


def test_a_layer_whose_output_is_not_used(made, caplog):
    """No gradient reaches it; where it comes to be used, it is not trusted."""

    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.other, self.use = nn.Linear(8, K), nn.Linear(8, K), False

        def forward(self, x):
            main, other = self.main(x).mean(dim=(1, 2)), self.other(x).mean(dim=(1, 2))
            return other if self.use else main

    torch.manual_seed(0)
    model, images = Switched().double(), inputs("images")
    for _ in range(2):
        torch.testing.assert_close(gradient_norms(model, images, reduction="none"), loop(model, images, "entropy"))
    assert len(made) == 1
    assert not caplog.messages
    model.use = True
    torch.testing.assert_close(gradient_norms(model, images, reduction="none"), loop(model, images, "entropy"))
    assert "other (Linear): the model calls its layers differently" in caplog.text


def test_what_mixes_samples_is_found_out_below_a_zero_head(caplog):
    torch.manual_seed(0)
    model, images = zero_head(Pooled(Mixed(8, 8))).double(), inputs("mixed")
    gradient_norms(model, images)
    assert "body.0 (Mixed): samples of a batch reach each other" in caplog.text
    nn.init.normal_(model.head.weight)
    torch.testing.assert_close(gradient_norms(model, images, reduction="none"), loop(model, images, "entropy"))


@pytest.mark.parametrize("name", ["vit", "scaled branch"])
def test_a_wrong_rule_is_found_out_below_zeros(name, monkeypatch, caplog):
    """Also where its part of the gradient is too small to be seen beside the others."""
    right = RULES[torch.nn.functional.linear]

    def wrong(input, weight, bias=None):
        uses = right(input, weight, bias)
        if len(weight) == K:  # the head, which would be found out at once
            return uses
        return [use._replace(squared=lambda layout, g: g.flatten(1).square().sum(dim=1)) for use in uses]

    monkeypatch.setitem(RULES, torch.nn.functional.linear, wrong)
    torch.manual_seed(0)
    model, images = FRESH[name]().eval(), inputs(name, torch.float32)
    expected = loop(model, images, "entropy")
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
    assert "its gradients in a batch differ" in caplog.text


def test_lifted_parameters_come_back_whatever_happens():
    """Not as a copy: their own memory, which was not written to."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.PReLU()).double()
    nn.init.zeros_(model[0].weight)
    model[1].weight = nn.Parameter(torch.tensor([0.0, -0.0], dtype=torch.float64))
    places = [p.data_ptr() for p in model.parameters()]
    bits = [p.detach().view(torch.int64).clone() for p in model.parameters()]

    def interrupted():
        with engine._lifted(model):
            assert model[0].weight.all()
            assert model[1].weight.all()
            assert model[2].weight.item() == 0.25, "not near zero"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert places == [p.data_ptr() for p in model.parameters()]
    assert all(torch.equal(was, p.detach().view(torch.int64)) for was, p in zip(bits, model.parameters(), strict=True))


def test_a_planned_model_runs_once_for_a_chunk():
    torch.manual_seed(0)
    model, images = Pooled(nn.Conv2d(3, 4, 3)), inputs("images", torch.float32)
    gradient_norms(model, images)
    runs = []
    model.register_forward_hook(lambda module, x, y: runs.append(len(y)))
    gradient_norms(model, images)
    assert runs == [5]


def test_a_model_whose_answer_grows_is_asked_again(caplog):
    """EGL has a backward pass a class; the plan knows of as many as there were."""

    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.grown = nn.Linear(3, 3), nn.Linear(3, 4), False

        def forward(self, x):
            return self.two(x) if self.grown else self.one(x)

    torch.manual_seed(0)
    model, images = Growing().double(), torch.randn(4, 3, dtype=torch.float64)
    gradient_norms(model, images, loss="egl")
    model.grown = True
    torch.testing.assert_close(gradient_norms(model, images, loss="egl", reduction="none"), loop(model, images, "egl"))
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("mebibytes", "samples"), [(2, 96), (20, 9), (45, 4), (124, 4), (300, 3), (600, 2), (5_000, 2)]
)
def test_some_samples_share_what_a_chunk_costs(mebibytes, samples):
    assert engine.chunk_of(mebibytes * 2**20, is_cuda=False) == samples
