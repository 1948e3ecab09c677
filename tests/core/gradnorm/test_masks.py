"""Gradient norms of the mean loss over the pixels of a U-Net: by rule, exact, void pixels left out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.gradnorm import gradient_norms
from core.gradnorm.rules import costs
from core.models import architectures
from data.torchvision_import import torchvision  # noqa: F401  # before segmentation-models-pytorch, which imports it
from tests.core.gradnorm.slow_loop import loop
from tests.core.gradnorm.zoo import left_as_found

K = 4


class Interpolated(nn.Module):
    """Skip connections concatenated to what bilinear interpolation enlarges."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.merge, self.norm, self.head = nn.Conv2d(10, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, K, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x).relu()
        coarse = self.coarse(F.max_pool2d(fine, 2)).relu()
        up = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.norm(self.merge(torch.cat([fine, up], dim=1))).relu_())


def smp() -> nn.Module:
    pytest.importorskip("segmentation_models_pytorch")
    return architectures.build("smp:unet/resnet18", 3, K, 8, seed=0, weights="none", side=(32, 32))


NETWORKS = {
    "small-unet": lambda: architectures.build("small-unet", 3, K, 4, seed=0),
    "interpolated": Interpolated,
    "smp": smp,
}
SIDES = {"small-unet": (13, 18), "interpolated": (9, 14), "smp": (32, 32)}  # those of the U-Net are padded


def made(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network in float64, whose statistics are those of other images, five images, and masks with void pixels."""
    torch.manual_seed(0)
    model, sides = NETWORKS[name]().train(), SIDES[name]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(torch.randn(8, 3, *sides))
    masks = torch.randint(-1, K, (5, *sides))
    masks[1, :, :5] = -1
    masks[2] = -1
    masks[3] = -1
    masks[3, 4, 7] = 2  # a single labelled pixel
    return model.double().eval(), torch.randn(5, 3, *sides, dtype=torch.float64), masks


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("small-unet", "entropy"),
        ("small-unet", "expected"),
        ("small-unet", "label"),
        ("interpolated", "label"),
        ("smp", "label"),
    ],
)
def test_norms_are_those_of_the_loop(name, loss, caplog):
    model, images, masks = made(name)
    targets = masks if loss == "label" else None
    with left_as_found(model):
        found = gradient_norms(model, images, loss=loss, targets=targets, reduction="none")
    expected = loop(model, images, loss, targets)
    scale = float(expected.max())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12 * scale)
    torch.testing.assert_close(
        gradient_norms(model, images, loss=loss, targets=targets), expected.sum(dim=1), rtol=1e-9, atol=0
    )
    assert not caplog.messages, "no parameter fell to the slow way"
    known = [0, 1, 3, 4] if loss == "label" else range(5)
    assert (found.sum(dim=1) > 0).tolist() == [n in known for n in range(5)]


def test_channels_last_images(monkeypatch, caplog):
    """As the loop has them, with the gradients of concatenations in parts, and void pixels."""
    monkeypatch.setattr(costs, "CALL", 0)  # as of images that are not as small
    model, images, masks = made("small-unet")
    expected = loop(model, images, "label", masks)
    last = {"memory_format": torch.channels_last}
    found = gradient_norms(model.to(**last), images.contiguous(**last), loss="label", targets=masks, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12 * float(expected.max()))
    assert not caplog.messages


def test_void_pixels_are_as_if_they_were_not_there():
    """Of a network that sees each pixel alone, the norm is that of the image without them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, K, 1)).double().eval()
    images, masks = torch.randn(3, 3, 4, 6, dtype=torch.float64), torch.randint(0, K, (3, 4, 6))
    masks[:, :, 2:] = -1
    found = gradient_norms(model, images, loss="label", targets=masks)
    torch.testing.assert_close(
        found, gradient_norms(model, images[..., :2], loss="label", targets=masks[..., :2]), rtol=1e-9, atol=0
    )


def drawn_loop(model: nn.Module, images: torch.Tensor, draws: int, seed: int) -> torch.Tensor:
    """Norms summed over parameters, mean over labels drawn as `gradient_norms` says it draws them."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        uniform = torch.rand(images.shape[2:], generator=generator, dtype=torch.float64)
        p = model(images).softmax(dim=1).detach()
        targets = torch.stack(
            [torch.searchsorted(one.cumsum(0).flatten(1).T.contiguous(), uniform.view(-1, 1)) for one in p]
        )
        targets = targets.clamp_max(K - 1).view(len(images), *images.shape[2:])
        found.append(loop(model, images, "label", targets).sum(dim=1))
    return torch.stack(found).mean(dim=0)


def test_sampled_egl_is_the_mean_over_label_maps_drawn(caplog):
    model, images, _ = made("small-unet")
    found = gradient_norms(model, images, loss="egl", draws=3, seed=5)
    torch.testing.assert_close(found, drawn_loop(model, images, 3, 5), rtol=1e-9, atol=0)
    assert not caplog.messages
    assert not torch.equal(found, gradient_norms(model, images, loss="egl", draws=3, seed=6))


def test_a_sampled_norm_does_not_depend_on_what_is_asked_with_it():
    model, images, _ = made("small-unet")
    whole = gradient_norms(model, images, loss="egl", draws=2)
    for n in range(len(images)):
        torch.testing.assert_close(gradient_norms(model, images[[n]], loss="egl", draws=2), whole[[n]])
    torch.testing.assert_close(gradient_norms(model, images.flip(0), loss="egl", draws=2).flip(0), whole)


def test_sampled_egl_goes_to_the_exact_one_where_there_is_one():
    """Of one label a sample the expectation has K terms: the mean over many draws comes near it, without a bias."""
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, K)).double().eval(), torch.randn(6, 3, 2, 2).double()
    exact = gradient_norms(model, images, loss="egl")
    assert ((gradient_norms(model, images, loss="egl", draws=300) / exact - 1).abs() < 0.1).all()


def test_draws_are_of_egl_and_some():
    model, images, masks = made("small-unet")
    for options in ({"loss": "egl", "draws": 0}, {"draws": 3}, {"loss": "label", "targets": masks, "draws": 3}):
        with pytest.raises(ValueError, match="Draws are of"):
            gradient_norms(model, images, **options)
