"""Gradient norms against the slow, obvious way: one sample at a time, plain autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core import models
from core.gradnorm import gradient_norms, sample_loss
from data.torchvision_import import torchvision


def loop(model, images, loss, targets=None, detach=False):
    """[N, tensors]: a batch of one sample, one backward pass, the norm of every parameter's gradient; repeat."""
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def norms(value):
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.stack([torch.zeros((), dtype=images.dtype) if g is None else g.norm() for g in gradients])

    rows = []
    for n, image in enumerate(images):
        logits = model(image[None])
        p = logits.softmax(dim=1)
        every = -F.log_softmax(logits, dim=1)  # CE(·, y) for each class y
        if loss == "entropy":
            rows.append(norms(torch.special.entr(p).sum(dim=1).mean()))
        elif loss == "expected":
            rows.append(norms(((p.detach() if detach else p) * every).sum(dim=1).mean()))
        elif loss == "label":
            rows.append(norms(every[:, targets[n]].mean()))
        else:
            weight = p.detach().reshape(p.shape[1], -1).mean(dim=1)
            rows.append(sum(w * norms(every[:, y].mean()) for y, w in enumerate(weight)))
    return torch.stack(rows)


class Segmenter(nn.Module):
    """Logits [N, K, H, W]."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.head(self.body(x).relu())


def vit():
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4
    )


MODELS = {
    "small-cnn": lambda: models.build("small-cnn", 3, 4, 4, seed=0),
    "resnet18": lambda: models.build("resnet18", 3, 4, 4, seed=0),
    "vit": vit,
    "segmenter": Segmenter,
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    made = MODELS[request.param]()
    with torch.no_grad():  # away from symmetric starts: torchvision's ViT begins with a head of zeros
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for name, b in made.named_buffers():
            if name.endswith("running_mean"):
                b.normal_(std=0.1)
    return made


@pytest.mark.parametrize("loss", ["entropy", "expected", "egl", "label"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
def test_every_parameter_equals_the_loop(model, loss, dtype, tolerance):
    exact = model.double()
    images = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    targets = torch.tensor([0, 3, 1, 2, 2]) if loss == "label" else None
    expected = loop(exact, images, loss, targets)
    dense = None if targets is None or exact(images[:1]).ndim == 2 else targets[:, None, None].expand(5, 16, 16)
    found = gradient_norms(
        model.to(dtype), images.to(dtype), loss=loss, targets=targets if dense is None else dense, reduction="none"
    )
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.max()))


def test_reductions(model):
    images = torch.randn(4, 3, 16, 16)
    tensors = gradient_norms(model, images, reduction="none")
    assert tensors.shape == (4, len(list(model.parameters())))
    torch.testing.assert_close(gradient_norms(model, images, reduction="sum"), tensors.sum(dim=1))
    torch.testing.assert_close(gradient_norms(model, images, reduction="l2"), tensors.square().sum(dim=1).sqrt())


def test_expected_is_entropy_and_vanishes_when_detached():
    """Eq. 6 with P in the graph is Eq. 7 term by term; with P detached Σ p (p − e_y) = 0."""
    torch.manual_seed(0)
    model = MODELS["small-cnn"]().double()
    images = torch.randn(6, 3, 16, 16, dtype=torch.float64)
    entropy = gradient_norms(model, images, loss="entropy")
    torch.testing.assert_close(gradient_norms(model, images, loss="expected"), entropy, rtol=1e-12, atol=0)
    torch.testing.assert_close(loop(model, images, "expected").sum(dim=1), entropy, rtol=1e-9, atol=0)
    assert loop(model, images, "expected", detach=True).sum(dim=1).max() < 1e-12 * entropy.min()


@pytest.mark.parametrize("loss", ["entropy", "egl", "label"])
@pytest.mark.parametrize("name", ["small-cnn", "vit"])
def test_head_in_closed_form_equals_the_last_layer_of_all(name, loss):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    nn.init.normal_(list(model.parameters())[-2])
    images = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 3, 0]) if loss == "label" else None
    everything = gradient_norms(model, images, loss=loss, targets=targets, reduction="none")
    head = gradient_norms(model, images, loss=loss, targets=targets, reduction="none", scope="head")
    torch.testing.assert_close(head, everything[:, -2:])


def test_head_on_several_positions():
    """A linear layer over tokens: its gradient is a sum over positions before the norm is taken."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, x):  # [N, 3, T, 1] → [N, T, 4] → logits [N, 4]
            return self.head(x[..., 0].transpose(1, 2)).tanh().mean(dim=1)

    torch.manual_seed(0)
    model, images = Tokens().double(), torch.randn(4, 3, 7, 1, dtype=torch.float64)
    torch.testing.assert_close(
        gradient_norms(model, images, reduction="none", scope="head"), loop(model, images, "entropy")
    )


def test_chunks_do_not_change_the_result(monkeypatch):
    model, images = MODELS["small-cnn"]().double(), torch.randn(7, 3, 16, 16, dtype=torch.float64)
    whole = gradient_norms(model, images)
    monkeypatch.setattr("core.gradnorm.MAX_CHUNK", 3)
    torch.testing.assert_close(gradient_norms(model, images), whole)
    assert gradient_norms(model, images[:0]).shape == (0,)


@pytest.mark.parametrize("scope", ["all", "head"])
def test_the_model_is_left_as_it_was_found(scope):
    model = MODELS["resnet18"]()
    model.train()
    model.blocks[0].eval()
    model.conv1.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    gradient_norms(model, torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)), scope=scope)
    assert modes == [m.training for m in model.modules()]
    assert needs == [p.requires_grad for p in model.parameters()]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.conv1.weight.grad is None
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled()


def test_works_under_no_grad_and_refuses_inference_mode():
    model, images = MODELS["small-cnn"](), torch.randn(3, 3, 16, 16)
    plain = gradient_norms(model, images)
    with torch.no_grad():
        torch.testing.assert_close(gradient_norms(model, images), plain)
        torch.testing.assert_close(
            gradient_norms(model, images, scope="head"), gradient_norms(model, images, reduction="none")[:, -2:].sum(1)
        )
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        gradient_norms(model, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "Unknown loss"),
        ({"scope": "body"}, "Unknown scope"),
        ({"loss": "label"}, "Targets go with"),
        ({"targets": torch.zeros(3, dtype=torch.long)}, "Targets go with"),
        ({"loss": "label", "targets": torch.zeros(2, dtype=torch.long)}, "one target an image"),
        ({"loss": "label", "targets": torch.tensor([0, 1, 4])}, "from 0 to 3"),
    ],
)
def test_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        gradient_norms(MODELS["small-cnn"](), torch.randn(3, 3, 16, 16), **options)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        gradient_norms(nn.Flatten(), torch.randn(3, 3, 2, 2))


def test_sample_loss_averages_over_pixels():
    logits = torch.randn(2, 3, 4, 5)
    per_pixel = torch.stack([sample_loss(logits[:, :, i, j], "entropy", None) for i in range(4) for j in range(5)])
    torch.testing.assert_close(sample_loss(logits, "entropy", None), per_pixel.mean(dim=0))
