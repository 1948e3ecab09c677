"""Networks of masks: logits at the size of the images, an embedding, and a head that dropout stands before."""

import sys
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from core import models
from core.models import architectures, networks
from data.errors import UserError
from data.torchvision_import import torchvision  # before segmentation-models-pytorch, which imports it

small = partial(architectures.build, "small-unet")
SMP = "smp:unet/resnet18"


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 48), (4, 13, 5), (3, 1, 1)])
def test_logits_at_the_size_of_any_images(channels, height, width):
    model, x = small(channels, 7, 4, seed=0).eval(), torch.randn(2, channels, height, width)
    assert model(x).shape == (2, 7, height, width)
    assert model.embed(x).shape == (2, model.stage_widths[-1])


def test_the_padding_is_of_zeros_and_cut_off():
    model, x = small(3, 7, 4, seed=0).eval(), torch.randn(2, 3, 13, 18)
    padded = torch.nn.functional.pad(x, (0, 6, 0, 3))
    torch.testing.assert_close(model(x), model(padded)[:, :, :13, :18])


def test_it_is_a_head_on_what_the_decoder_makes_and_an_embedding_of_the_coarsest_stage():
    model, x = small(3, 7, 4, seed=0, dropout=0.5).eval(), torch.randn(2, 3, 16, 24)
    logits, stages = model.with_stages(x)
    assert tuple(stage.shape[1] for stage in stages) == model.stage_widths == (4, 8, 16, 32)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    torch.testing.assert_close(model(x), logits)
    torch.testing.assert_close(model.head(model.head_input(x)), logits)
    torch.testing.assert_close(model.embed(x), stages[-1].mean(dim=(2, 3)))
    both = model.with_embedding(x)
    torch.testing.assert_close(both, (logits, model.embed(x)))
    model.dropout.train()
    assert not torch.equal(model.classify(model.head_input(x)), logits)  # another draw


def test_every_pixel_can_see_the_whole_of_a_small_image():
    """What a skip connection alone would not let through: a change in one corner reaches the other."""
    model, x = small(1, 3, 8, seed=0).eval(), torch.randn(1, 1, 16, 16)
    other = x.clone()
    other[0, 0, 0, 0] += 5
    assert (model(other) - model(x))[0, :, -1, -1].abs().max() > 0


def test_models_of_masks_are_listed_apart():
    assert "small-unet" in models.listed("mask")
    assert "small-unet" not in models.listed()
    assert models.is_known("small-unet", "mask")
    assert models.is_known(SMP, "mask")
    assert not models.is_known("small-unet")
    assert not models.is_known(SMP)
    assert not models.is_known("small-cnn", "mask")


# segmentation-models-pytorch


@pytest.fixture(scope="module")
def smp():
    return pytest.importorskip("segmentation_models_pytorch")


def build(name=SMP, channels=3, n_classes=4, **options):
    return architectures.build(
        name, channels, n_classes, 8, 0, **{"weights": models.RANDOM, "side": (32, 40), **options}
    )


@pytest.mark.parametrize(
    ("name", "channels"), [(SMP, 3), (SMP, 1), ("smp:fpn/mobilenet_v2", 3), ("smp:unet/tu-test_resnet", 3)]
)
def test_a_network_of_segmentation_models_is_encoder_decoder_and_head(smp, name, channels):
    model, x = build(name, channels, dropout=0.5).eval(), torch.randn(2, channels, 32, 40)
    assert model(x).shape == (2, 4, 32, 40)
    assert model.embed(x).shape == (2, model.stage_widths[-1])


def test_it_says_what_the_package_says(smp):
    network, x = smp.Unet("resnet18", encoder_weights=None, classes=4).eval(), torch.randn(2, 3, 64, 96)
    model = networks._Smp(network, 4, 0.5).eval()
    torch.testing.assert_close(model(x), network(x))


@pytest.mark.parametrize("channels", [3, 1])
def test_weights_of_the_encoder_come_from_a_file(smp, channels, tmp_path):
    torch.manual_seed(1)
    state = torchvision.models.resnet18(weights=None).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    found = build(channels=channels, weights=str(tmp_path / "w.safetensors")).encoder.state_dict()
    first = found.pop("conv1.weight")
    assert all(torch.equal(t, state[name]) for name, t in found.items())
    expected = state["conv1.weight"] if channels == 3 else state["conv1.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("smp:unett/resnet18", 'has no architecture "unett": .* unet'),
        ("smp:dpt/resnet18", 'has no architecture "dpt"'),
        ("smp:unet/resnet19", 'has no encoder "resnet19": .* resnet'),
        ("smp:unet/tu-no_such_network", "cannot build smp:unet/tu-no_such_network"),
    ],
)
def test_a_network_that_is_not_there_is_the_users_error(smp, name, sentence):
    with pytest.raises(UserError, match=sentence):
        build(name)


def test_weights_that_do_not_fit_are_the_users_error(smp, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="not those of the encoder resnet18"):
        build(weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match="cannot be read from a file"):
        build("smp:unet/tu-test_resnet", weights=str(tmp_path / "w.safetensors"))


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match="pip install segmentation-models-pytorch"):
        build()
