"""What gradient_norms promises, whichever way it computes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.gradnorm import gradient_norms, sample_loss, slow
from core.models import architectures
from tests.core.gradnorm.slow_loop import loop
from tests.core.gradnorm.zoo import build, left_as_found


def small():
    return architectures.build("small-cnn", 3, 4, 4, seed=0).eval()


@pytest.mark.parametrize("name", ["small-cnn", "vit", "segmenter"])
def test_reductions(name):
    model, images = build(name)
    tensors = gradient_norms(model, images, reduction="none")
    assert tensors.shape == (len(images), len(list(model.parameters())))
    torch.testing.assert_close(gradient_norms(model, images, reduction="sum"), tensors.sum(dim=1))
    torch.testing.assert_close(gradient_norms(model, images, reduction="l2"), tensors.square().sum(dim=1).sqrt())


def test_egl_is_the_expectation_of_the_reduced_norms():
    """Not the reduction of expectations: the norm of a mean vector is less than the mean of norms."""
    model, images = build("small-cnn")
    p = model(images).softmax(dim=1).detach()
    every = torch.stack(
        [
            gradient_norms(model, images, loss="label", targets=torch.full((len(images),), y), reduction="l2")
            for y in range(4)
        ],
        dim=1,
    )
    torch.testing.assert_close(gradient_norms(model, images, loss="egl", reduction="l2"), (p * every).sum(dim=1))
    expectations = gradient_norms(model, images, loss="egl", reduction="none")
    assert (torch.linalg.vector_norm(expectations, dim=1) < (p * every).sum(dim=1)).all()


def test_expected_is_entropy_and_vanishes_when_detached():
    """Eq. 6 with P in the graph is Eq. 7 term by term; with P detached Σ p (p − e_y) = 0."""
    model, images = build("small-cnn")
    entropy = gradient_norms(model, images, loss="entropy")
    torch.testing.assert_close(gradient_norms(model, images, loss="expected"), entropy, rtol=1e-12, atol=0)
    torch.testing.assert_close(loop(model, images, "expected").sum(dim=1), entropy, rtol=1e-9, atol=0)
    assert loop(model, images, "expected", detach=True).sum(dim=1).max() < 1e-12 * entropy.min()


@pytest.mark.parametrize("loss", ["entropy", "egl", "label"])
@pytest.mark.parametrize("name", ["small-cnn", "vit", "attention"])
def test_head_equals_the_last_layer_of_all(name, loss):
    model, images = build(name)
    targets = torch.tensor([0, 1, 2, 3, 0]) if loss == "label" else None
    options = {"loss": loss, "targets": targets, "reduction": "none"}
    everything = gradient_norms(model, images, **options)
    torch.testing.assert_close(gradient_norms(model, images, **options, scope="head"), everything[:, -2:])


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


def test_one_image_and_none():
    model, images = build("small-cnn")
    torch.testing.assert_close(gradient_norms(model, images[:1]), gradient_norms(model, images)[:1])
    assert gradient_norms(model, images[:0]).shape == (0,)
    assert gradient_norms(model, images[:0], reduction="none").shape == (0, len(list(model.parameters())))


@pytest.mark.parametrize("name", ["resnet18", "vit", "attention"])
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast(name, dtype):
    model, images = build(name)
    expected = loop(model, images, "entropy").sum(dim=1)
    images = images.float() if images.is_floating_point() else images
    with torch.autocast("cpu", dtype):
        found = gradient_norms(model.float(), images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=3e-2, atol=0)


def test_channels_last(caplog):
    model, images = build("resnet18")
    plain = gradient_norms(model, images)
    last = {"memory_format": torch.channels_last}
    torch.testing.assert_close(gradient_norms(model, images.to(**last)), plain)
    torch.testing.assert_close(gradient_norms(model.to(**last), images.to(**last)), plain)
    assert not caplog.messages


def test_dropout_is_off_even_in_training_mode():
    model, images = build("vgg")
    plain = gradient_norms(model, images)
    model.classifier.train()
    torch.testing.assert_close(gradient_norms(model, images), plain)
    assert model.classifier.training


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("scope", ["all", "head"])
def test_the_model_is_left_as_it_was_found(scope, fails):
    model = architectures.build("resnet18", 3, 4, 4, seed=0).eval()
    model.blocks[0].training = True  # a container: the mode of each module is its own
    model.conv1.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    needs = [p.requires_grad for p in model.parameters()]
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with left_as_found(model):
        if fails:
            with pytest.raises(ValueError, match="not finite"):
                gradient_norms(model, images * torch.tensor([1.0, float("nan"), 1.0]).view(-1, 1, 1, 1), scope=scope)
        else:
            found = gradient_norms(model, images, scope=scope, reduction="none")
            assert found.shape[1] == (2 if scope == "head" else len(needs) - 1)
    assert torch.backends.mha.get_fastpath_enabled()
    assert not images.requires_grad


def test_works_under_no_grad_and_refuses_inference_mode():
    model, images = small(), torch.randn(3, 3, 16, 16)
    plain, head = gradient_norms(model, images), gradient_norms(model, images, scope="head")
    with torch.no_grad():
        torch.testing.assert_close(gradient_norms(model, images), plain)
        torch.testing.assert_close(gradient_norms(model, images, scope="head"), head)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="inference_mode"):
            gradient_norms(model, images)
        made_there, model_there = torch.randn(3, 3, 16, 16), small()
    with pytest.raises(RuntimeError, match="inference_mode"):
        gradient_norms(model, made_there)
    with pytest.raises(RuntimeError, match="inference_mode"):
        gradient_norms(model_there, images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_targets_of_any_integer_type(dtype):
    model, images, targets = small(), torch.randn(3, 3, 16, 16), torch.tensor([0, 3, 1])
    expected = gradient_norms(model, images, loss="label", targets=targets)
    torch.testing.assert_close(gradient_norms(model, images, loss="label", targets=targets.to(dtype)), expected)


@pytest.mark.parametrize("way", ["engine", "torch.func", "one by one"])
@pytest.mark.parametrize("name", ["small-cnn", "segmenter"])
def test_unknown_targets_are_left_out(name, way, monkeypatch):
    """The mean is over the known positions of a sample; a sample without any has a norm of zero."""
    if way != "engine":
        monkeypatch.setattr("core.gradnorm._plan", lambda model, parameters, images: None)
    if way == "one by one":
        monkeypatch.setattr(slow, "mapped", slow.one_by_one)
    model, images = build(name)
    targets = torch.randint(4, (len(images), *model(images).shape[2:]))
    targets[1] = -1
    if name == "segmenter":
        targets[2, 3:] = -1
        targets[3] = -1
        targets[3, 0, 0] = 2
    found = gradient_norms(model, images, loss="label", targets=targets, reduction="none")
    torch.testing.assert_close(found, loop(model, images, "label", targets))
    assert not found[1].any()
    assert found[[0, 2, 3, 4]].sum(dim=1).min() > 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_batch_of_one(n, caplog):
    """Flattened to channels last after batch normalisation, a batch of one is what torch 2.13 derives wrongly."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.norm(self.conv(x)).flatten(2).transpose(1, 2).contiguous().tanh().mean(dim=1))

    torch.manual_seed(0)
    model, images = Tokens().double().eval(), torch.randn(n, 3, 5, 5, dtype=torch.float64)
    nn.init.normal_(model.norm.running_mean)

    def entropy(bias):
        logits = torch.func.functional_call(model, {"norm.bias": bias}, (images,))
        return sample_loss(logits, "entropy", None)

    bias, step = model.norm.bias.detach(), 1e-6
    slopes = [(entropy(bias + step * e) - entropy(bias - step * e)) / (2 * step) for e in torch.eye(6).double()]
    expected = torch.linalg.vector_norm(torch.stack(slopes, dim=1), dim=1).detach()
    place = [name for name, _ in model.named_parameters()].index("norm.bias")
    torch.testing.assert_close(loop(model, images, "entropy")[:, place], expected, rtol=1e-6, atol=0)
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found[:, place], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found, loop(model, images, "entropy"))
    assert not caplog.messages, "the engine's plan is held against plain autograd, which must be right"


def test_a_compiled_model_is_asked_in_its_plain_form():
    model, images = small(), torch.randn(3, 3, 16, 16)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(gradient_norms(compiled, images), gradient_norms(model, images))


def test_images_must_be_a_tensor():
    with pytest.raises(ValueError, match=r"not ndarray: use torch\.from_numpy"):
        gradient_norms(small(), torch.randn(3, 3, 16, 16).numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "Unknown loss"),
        ({"reduction": "mean"}, "Unknown reduction"),
        ({"scope": "body"}, "Unknown scope"),
        ({"loss": "label"}, "Targets go with"),
        ({"targets": torch.zeros(3, dtype=torch.long)}, "Targets go with"),
        ({"loss": "label", "targets": torch.zeros(2, dtype=torch.long)}, "one target an image"),
        ({"loss": "label", "targets": torch.tensor([0, 1, 4])}, "from 0 to 3"),
        ({"loss": "label", "targets": torch.tensor([0, -2, 3])}, "from 0 to 3, or −1 where unknown"),
        ({"loss": "label", "targets": torch.zeros(3)}, "class numbers"),
        ({"loss": "label", "targets": torch.zeros(3, dtype=torch.bool)}, "class numbers"),
        ({"loss": "label", "targets": torch.zeros(3, 2, dtype=torch.long)}, "of shape"),
    ],
)
def test_says_what_is_wrong_with_options(options, message):
    with pytest.raises(ValueError, match=message):
        gradient_norms(small(), torch.randn(3, 3, 16, 16), **options)


class Pair(nn.Linear):
    """Answers with two tensors."""

    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (nn.Flatten(), torch.randn(3, 3, 2, 2), "no trainable parameter"),
        (small().half(), torch.randn(3, 3, 16, 16).half(), r"half precision.*model\.float\(\)"),
        (small().train(), torch.randn(3, 3, 16, 16), r"body\.0\.1 .*statistics of the batch.*model\.eval\(\)"),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False)).eval(),
            torch.randn(3, 4, 1, 1),
            "track_running_stats=True",
        ),
        (small(), torch.randn(3, 1, 16, 16), r"cannot take images of shape \[N, 1, 16, 16\].*expected input"),
        (small(), torch.randn(3, 3, 16, 16).double(), "cannot take images"),
        (Pair(2, 2), torch.randn(3, 2), "logits .* gave tuple"),
        (nn.Linear(2, 1), torch.randn(3, 2), r"one logit.*give two logits.*torch\.cat\(\[torch\.zeros_like\(z\), z\]"),
        (nn.Conv2d(3, 1, 1), torch.randn(3, 3, 2, 2), "one logit"),
        (small(), torch.full((3, 3, 16, 16), float("inf")), "not finite for 3 of 3 samples, first for index 0"),
    ],
)
def test_says_what_is_wrong_with_model_and_images(model, images, message):
    with pytest.raises(ValueError, match=message):
        gradient_norms(model, images)


def test_a_head_needs_a_linear_layer():
    with pytest.raises(ValueError, match='scope="all"'):
        gradient_norms(nn.Sequential(nn.Conv2d(3, 4, 4), nn.Flatten()), torch.randn(2, 3, 4, 4), scope="head")


def test_finds_the_samples_whose_loss_is_not_finite():
    images = torch.randn(6, 3, 16, 16)
    images[[2, 4], 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite for 2 of 6 samples, first for index 2"):
        gradient_norms(small(), images)


def test_sample_loss_averages_over_pixels():
    logits = torch.randn(2, 3, 4, 5)
    per_pixel = torch.stack([sample_loss(logits[:, :, i, j], "entropy", None) for i in range(4) for j in range(5)])
    torch.testing.assert_close(sample_loss(logits, "entropy", None), per_pixel.mean(dim=0))
    torch.testing.assert_close(sample_loss(logits, "expected", None), sample_loss(logits, "entropy", None))
    target = torch.randint(3, (2, 4, 5))
    reference = F.cross_entropy(logits, target, reduction="none").mean(dim=(1, 2))
    torch.testing.assert_close(sample_loss(logits, "label", target), reference)
    target[0, 1:] = -1
    target[1] = -1
    reference = torch.stack([F.cross_entropy(logits[:1], target[:1], ignore_index=-1), torch.zeros(())])
    torch.testing.assert_close(sample_loss(logits, "label", target), reference)
