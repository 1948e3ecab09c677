"""Architectures."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from core import models
from core.models import architectures
from data.errors import UserError


@pytest.mark.parametrize("name", models.listed())
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
def test_logits_for_grey_and_colour_of_any_size(name, channels, side):
    model = architectures.build(name, channels, 7, 8, seed=0)
    assert model(torch.randn(2, channels, side, side)).shape == (2, 7)


def test_resnet18_of_the_paper_has_its_number_of_parameters():
    """11.17 million with the CIFAR stem and 10 classes."""
    model = architectures.build("resnet18", 3, 10, 64, seed=0)
    assert sum(p.numel() for p in model.parameters()) == 11_173_962


@pytest.mark.parametrize("name", models.listed())
def test_a_model_is_its_stages_an_embedding_and_a_head(name):
    model, x = architectures.build(name, 3, 7, 4, seed=0, dropout=0.5).eval(), torch.randn(2, 3, 32, 32)
    stages = model.stages(x)
    assert tuple(stage.shape[1] for stage in stages) == model.stage_widths
    assert model.embed(x).shape == (2, model.stage_widths[-1])
    torch.testing.assert_close(model(x), model.head(model.embed(x)))
    model.dropout.train()
    assert not torch.equal(model.classify(model.embed(x)), model(x))  # another draw


STEP = """
import torch
from core.models import architectures
from core.models.forward import place
model = place(architectures.build("resnet18", 3, 5, {width}, seed=0), torch.device("cpu"))
images = torch.randn(16, 3, 64, 64).contiguous(memory_format=torch.channels_last)
model(images).square().mean().backward()
"""


@pytest.mark.parametrize("width", [4, 8])
def test_a_narrow_resnet_learns_from_large_images_on_a_cpu(width):
    """In a process of its own: where oneDNN writes past its workspace, the process dies of a signal."""
    done = subprocess.run([sys.executable, "-c", STEP.format(width=width)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_pointwise_convolution_is_the_plain_one():
    torch.manual_seed(0)
    ours, plain = architectures.Pointwise(4, 8, 1, 2, bias=False), nn.Conv2d(4, 8, 1, 2, bias=False)
    plain.load_state_dict(ours.state_dict())
    one = torch.randn(8, 4, 33, 33, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    ours(one).square().sum().backward()
    plain(other).square().sum().backward()  # contiguous memory, which oneDNN handles well
    rounding = {"rtol": 1e-5, "atol": 1e-5}  # of sums over 2,312 pixels, which two kernels add up in two orders
    torch.testing.assert_close(ours(one), plain(other), **rounding)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, **rounding)
    torch.testing.assert_close(one.grad, other.grad, **rounding)


def test_dropout_has_no_weights_of_its_own():
    plain, dropping = (
        architectures.build("resnet18", 3, 7, 4, seed=0),
        architectures.build("resnet18", 3, 7, 4, seed=0, dropout=0.5),
    )
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(plain.head.weight, dropping.head.weight)


def test_a_seed_means_the_same_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, two, other = (architectures.build("small-cnn", 1, 3, 4, seed=s).head.weight for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_model_is_the_users_error():
    with pytest.raises(UserError, match="small-cnn, resnet18"):
        architectures.build("alexnet", 3, 10, 64, seed=0)
