"""Networks from elsewhere: split into embedding and head, filled from a file, and refused in one sentence."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core import models
from core.gradnorm import gradient_norms
from core.models import architectures, forward, networks
from core.models.batches import Images
from data.errors import UserError
from data.torchvision_import import torchvision  # before timm, which imports it

import timm  # isort: skip
from tests.core.gradnorm import slow_loop

SMALL = "timm:test_resnet"  # of timm's own tests: a few thousand parameters
FAMILIES = ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "mobilenetv3_small_050", "resnet18"]


def build(name=SMALL, channels=3, n_classes=4, **options):
    options = {"weights": models.RANDOM, "side": (32, 32), **options}
    return architectures.build(name, channels, n_classes, 8, 0, **options)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("channels", "side"), [(1, (28, 28)), (3, (40, 60)), (4, (32, 32))])
def test_any_network_of_timm_is_an_embedding_and_our_head(name, channels, side):
    model = build(f"timm:{name}", channels, side=side).eval()
    x = torch.randn(2, channels, *side)
    embedding = model.embed(x)
    assert embedding.shape == (2, model.head.in_features)
    assert model.head.out_features == 4
    torch.testing.assert_close(model(x), model.head(embedding))


def test_the_embedding_is_what_timms_own_head_sees():
    whole = timm.create_model("test_resnet", num_classes=1000).eval()
    model = build()
    model.network.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(whole.fc(model.eval().embed(x)), whole(x))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("n_classes", [1000, 7])
def test_weights_come_from_a_file_whatever_its_class_head(ending, n_classes, tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("test_resnet", num_classes=n_classes).state_dict()
    file = tmp_path / f"w.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save({"epoch": 3, "state_dict": state}, file)
    model = build(weights=str(file))
    assert all(torch.equal(t, state[name]) for name, t in model.network.state_dict().items())


def test_grey_images_are_seen_as_three_equal_colours(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    grey, colour = (build(channels=n, weights=str(tmp_path / "w.pth")).eval() for n in (1, 3))
    x = torch.randn(2, 1, 128, 128)
    torch.testing.assert_close(grey.embed(x), colour.embed(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_small_images_are_enlarged_for_weights_that_have_seen_large_ones(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    model = build(weights=str(tmp_path / "w.pth")).eval()
    x = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(model.embed(x), model.embed(architectures.resized(x, (128, 192), 1)))
    assert architectures.resized(x, None, 128).shape == (2, 3, 128, 192)
    assert architectures.resized(x, (16, 16), 1).shape == (2, 3, 16, 16)


def test_images_are_normalised_as_the_weights_expect():
    mean, std = networks.statistics("timm:mobilenetv3_small_050", None, 3)
    cfg = timm.get_pretrained_cfg("mobilenetv3_small_050")
    assert mean.flatten().tolist() == pytest.approx(cfg.mean)
    assert std.flatten().tolist() == pytest.approx(cfg.std)
    grey, _ = networks.statistics("timm:mobilenetv3_small_050", None, 1)
    assert grey.shape == (1, 1, 1)
    assert networks.statistics("timm:mobilenetv3_small_050", models.RANDOM, 3) is None
    assert networks.statistics("small-cnn", None, 3) is None


def test_the_same_seed_gives_the_same_network():
    one, two = build(), build()
    assert all(torch.equal(t, two.state_dict()[name]) for name, t in one.state_dict().items())


def test_gradient_norms_of_it_are_those_of_the_slow_loop():
    model, x = build().double().eval(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(gradient_norms(model, x), slow_loop.loop(model, x, "entropy").sum(dim=1))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("timm:resnet19", {}, 'timm has no network "resnet19": did you mean timm:resnet1'),
        ("timm:resnet18.no_such", {}, 'timm has no network "resnet18.no_such"'),
        ("torchvision:resnet18", {"channels": 4}, "takes grey or colour images, and these have 4 channels"),
        ("timm:test_resnet", {"weights": "/no/such.pth"}, "There is no file /no/such.pth"),
    ],
)
def test_what_cannot_be_built_is_said(name, options, says):
    with pytest.raises(UserError, match=says):
        build(name, **options)


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth are not those of timm's test_resnet: give the file of that network"):
        build(weights=str(tmp_path / "w.pth"))


def test_a_failed_download_is_said(monkeypatch):
    def fail(*names, pretrained, **options):
        assert pretrained
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match=r"could not be downloaded \(no route to host\): fetch them .* --weights none"):
        build(weights=None)


def test_deep_networks_are_asked_about_few_images_at_a_time():
    """And say the same of them as of many."""
    deep, small = build(side=(128, 128), weights=models.RANDOM).eval(), architectures.build("small-cnn", 3, 4, 8, 0)

    def at_once(model, side):
        pixels = np.zeros((40, side, side, 3), dtype=np.uint8)
        images = Images(pixels, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), torch.device("cpu"))
        return forward.at_once(model, images, 512), images

    assert [at_once(deep, side)[0] for side in (32, 128, 1000)] == [256, 16, 8]
    assert at_once(small, 128)[0] == 512
    images = at_once(deep, 128)[1]
    np.testing.assert_allclose(forward.predict(deep, images), forward.predict(deep, images, batch_size=40), atol=1e-6)


# Functions of the user's own


class Ends(nn.Module):
    """Ends in a linear layer, which it calls by name."""

    def __init__(self, channels, n_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, n_classes)

    def forward(self, x):
        return self.last(self.first(self.body(x)).relu())


class EndsOtherwise(Ends):
    """Scales what its linear layer gives."""

    def forward(self, x):
        return 2 * super().forward(x)


class LooksInside(Ends):
    """Needs its last layer to be linear."""

    def forward(self, x):
        return self.last(self.first(self.body(x)).relu()) if self.last.in_features else x


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Imports a module of the user's, in which `make` is this."""
    monkeypatch.setattr(networks, "TRUSTED", set())
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text, name="my_nets"):
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        networks.TRUSTED.add(f"{name}:make")
        return f"{name}:make"

    yield write
    sys.modules.pop("my_nets", None)


def test_the_last_linear_layer_of_an_own_network_is_the_head():
    torch.manual_seed(0)
    network, x = Ends(3, 4).eval(), torch.randn(5, 3, 32, 32)
    before = network(x)
    model = networks.split(network, "mine:make", 3, 4, 0.5, (32, 32)).eval()
    assert isinstance(model, architectures.Headed)
    assert model.head.in_features == 5
    assert model.dropout.p == 0.5
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("kind", [EndsOtherwise, LooksInside])
def test_a_network_that_ends_otherwise_stays_whole_and_has_no_embedding(kind):
    network, x = kind(3, 4).eval(), torch.randn(5, 3, 32, 32)
    before = network(x)
    model = networks.split(network, "mine:make", 3, 4, 0.5, (32, 32)).eval()
    torch.testing.assert_close(model(x), before)
    with pytest.raises(UserError, match="Core-set needs a network that ends in a linear layer"):
        architectures.embedding(model, "Core-set")


def test_a_factory_is_called_with_channels_and_classes(own):
    name = own("from torch import nn\ndef make(c, k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(c * 64, k))\n")
    assert build(name, 2, 7, side=(8, 8), weights=None)(torch.zeros(3, 2, 8, 8)).shape == (3, 7)
    assert networks.code(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def make(c, k):\n    return 3\n", "made a int, and must return a torch.nn.Module"),
        ("def other(c, k):\n    pass\n", "my_nets has no function make"),
        ("def make(c, k):\n    raise RuntimeError('too big')\n", r"failed with 3 channels .*RuntimeError: too big"),
        ("import no_such_package\n", r"my_nets cannot be imported \(ModuleNotFoundError"),
        (
            "from torch import nn\ndef make(c, k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(c * 64, 9))\n",
            r"must give logits \[N, 4\], one for each class, and gave shape \[2, 9\]",
        ),
        (
            "from torch import nn\ndef make(c, k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(5, k))\n",
            "cannot take images of 8 × 8 pixels with 3 channels",
        ),
    ],
)
def test_a_factory_that_does_not_do_is_said(own, text, says):
    with pytest.raises(UserError, match=says):
        build(own(text), side=(8, 8), weights=None)


def test_a_factory_that_no_command_line_named_is_not_imported(own, tmp_path):
    own(f"open({str(tmp_path / 'imported')!r}, 'w')\ndef make(c, k):\n    pass\n")
    networks.TRUSTED.clear()
    with pytest.raises(UserError, match=r"only a command line may name: .* resume RUN --model my_nets:make"):
        build("my_nets:make", weights=None)
    assert not (tmp_path / "imported").exists()


def test_a_module_that_is_not_there_is_said(own):
    networks.TRUSTED.add("no_such_nets:make")
    with pytest.raises(UserError, match="There is no module no_such_nets to import: start where it lies"):
        build("no_such_nets:make", weights=None)


def test_names_of_models_are_told_apart():
    assert models.is_factory("package.module:make")
    assert not any(models.is_factory(name) for name in ("timm:resnet18", "torchvision:resnet18", "small-cnn", "a b:c"))
    assert models.is_known("timm:resnet18.a1_in1k")
    assert not any(
        models.is_known(name) for name in ("timm:", "timm:a/b", "torchvision:vgg", "os.path", "hf-hub:a/b:c")
    )


def test_the_files_that_torchvision_downloads_are_those_that_are_looked_for():

    for name, found in models.FILES.items():
        assert torchvision.models.get_model_weights(name).DEFAULT.url.endswith(f"/{name}-{found}.pth")
