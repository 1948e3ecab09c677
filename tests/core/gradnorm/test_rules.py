"""Every rule of the engine, and every form of a rule, against one sample at a time in float64."""

import logging
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import nn

from core.gradnorm import engine, gradient_norms
from core.gradnorm.rules import convolutions, costs
from tests.core.gradnorm.slow_loop import loop
from tests.core.gradnorm.zoo import CONVOLUTIONS, ENGINE, LINEARS, NETWORKS, PRODUCTS, TRANSPOSED, K, build

CASES = [(name, "entropy") for name in ENGINE] + [
    (name, loss) for name in (*NETWORKS, "tied weights", "attention") for loss in ("expected", "egl", "label")
]


@pytest.fixture
def engine_only(caplog):
    """Falling back would be exact as well, and hide a rule that fails."""
    caplog.set_level(logging.INFO)
    yield
    assert not [record.message for record in caplog.get_records("call")]


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize(("name", "loss"), CASES)
def test_every_parameter_equals_the_loop(name, loss, dtype, tolerance):
    model, images = build(name)
    targets = None
    if loss == "label":
        targets = torch.arange(len(images)) % K
        targets = targets[:, None, None].expand(-1, *images.shape[2:]).contiguous() if name == "segmenter" else targets
    expected = loop(model, images, loss, targets)
    images = images.to(dtype) if images.is_floating_point() else images
    found = gradient_norms(model.to(dtype), images, loss=loss, targets=targets, reduction="none")
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.max()))


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize("form", ["grouped", "unfold", "product", "gram", "pixels"])
@pytest.mark.parametrize(
    "name", [*CONVOLUTIONS, *TRANSPOSED, *LINEARS, *PRODUCTS, "windows", "reused layers", "encoder"]
)
def test_every_form_equals_the_loop(name, form, monkeypatch):
    """Shapes choose the form; here it is forced wherever it exists, with blocks of two samples."""
    chosen = costs.cheapest
    monkeypatch.setattr(costs, "cheapest", lambda forms: form if form in forms else chosen(forms))
    monkeypatch.setattr(costs, "CPU_SCRATCH_BYTES", 20_000)
    model, images = build(name)
    expected = loop(model, images, "entropy")
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize("name", ["3x3 padded", "depthwise", "1d strided", "3d", "windows"])
def test_large_samples_by_themselves_equal_the_loop(name, monkeypatch):
    """Images too large for a cache take the grouped form one by one; here all count as such."""
    blocks, in_blocks = [], costs.in_blocks

    def counted(form, x, g, elements):
        return in_blocks(lambda a, b: blocks.append(len(a)) or form(a, b), x, g, elements)

    monkeypatch.setattr(costs, "LARGE", 1)
    monkeypatch.setattr(costs, "in_blocks", counted)
    monkeypatch.setattr(costs, "cheapest", lambda forms: "grouped" if "grouped" in forms else min(forms, key=forms.get))
    model, images = build(name)
    expected = loop(model, images, "entropy")
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))
    assert blocks
    assert set(blocks) == {1}


LAYERS = {
    "padded": lambda: nn.Conv2d(8, 6, 3, padding=1),
    "padded unevenly": lambda: nn.Conv2d(8, 6, (3, 2), padding=(0, 1), bias=False),
    "strided and dilated": lambda: nn.Conv2d(8, 6, 2, stride=3, dilation=2),
    "same": lambda: nn.Conv2d(8, 6, (2, 4), padding="same"),
    "depthwise": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=4, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(8, 6, 2, stride=2),
    "transposed groups": lambda: nn.ConvTranspose2d(8, 6, 3, groups=2, padding=1),
}


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize("name", LAYERS)
def test_channels_last_samples_by_themselves_equal_the_loop(name, dtype, tolerance, monkeypatch):
    """What no form could take without a copy in another order; here that counts however small the images."""
    seen = []
    monkeypatch.setattr(costs, "CALL", 0)
    monkeypatch.setattr(costs, "cheapest", lambda forms: seen.append(min(forms, key=forms.get)) or seen[-1])
    torch.manual_seed(0)
    layer = LAYERS[name]()
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), layer, nn.BatchNorm2d(layer.out_channels), nn.Conv2d(layer.out_channels, K, 1)
    )
    model[3].running_mean.normal_()
    model, images = model.double().eval(), torch.randn(5, 3, 12, 10, dtype=torch.float64)
    expected = loop(model, images, "entropy")
    last = {"dtype": dtype, "memory_format": torch.channels_last}
    found = gradient_norms(model.to(**last), images.to(**last), reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.max()))
    assert seen.count("alone") >= 2, "of both convolutions that are more than a pixel large"


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize(
    "name", ["resnet18", "vit", "torchvision resnet18", "groups", "windows", "reused layers", "3d", *TRANSPOSED]
)
def test_every_form_for_cuda_equals_the_loop(name, monkeypatch):
    """What a GPU would choose, computed here."""
    monkeypatch.setattr(costs, "prices", lambda tensor: costs.CUDA)
    model, images = build(name)
    expected = loop(model, images, "entropy")
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))


def test_the_form_follows_from_the_shapes():
    """Wide and small images: Gram matrices; narrow and large ones: gradients; and always the same."""

    def form(i, o, side, stride=1):
        patches = convolutions.Patches((3, 3), (stride, stride), (1, 1), (1, 1), 1)
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(costs, "cheapest", lambda forms: seen.append(min(forms, key=forms.get)) or seen[-1])
            out = (side - 1) // stride + 1
            patches.squared(torch.zeros(1, 1, i, side, side), torch.zeros(1, 1, o, out, out))
        return seen[-1]

    assert [form(64, 64, 32), form(256, 256, 8), form(512, 512, 4), form(256, 512, 8, 2)] == [
        "grouped", "pixels", "pixels", "gram"
    ]  # fmt: skip


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize("name", ["resnet18", "vit", "tied weights", "segmenter"])
def test_chunks_do_not_change_the_result(name, monkeypatch):
    model, images = build(name)
    whole = gradient_norms(model, images)
    monkeypatch.setattr(engine, "CPU_CHUNK_BYTES", 1)
    monkeypatch.setattr(engine, "FEW", 2)  # 2, 2 and 1
    monkeypatch.setattr("core.gradnorm._plans", WeakKeyDictionary())
    torch.testing.assert_close(gradient_norms(model, images), whole)
