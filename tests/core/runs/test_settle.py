"""Which model is suggested for which images, and that what users chose stays."""

import numpy as np
import pytest
from PIL import Image

from core import models
from core.runs import settle
from core.runs.spec import CLEANING, LEARNING


@pytest.fixture
def weights_there(tmp_path, monkeypatch):
    """ImageNet weights of ResNet-18 in torch's cache."""
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "resnet18-f37072fd.pth").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def photographs(tmp_path):
    """A folder of six pictures of 72 pixels in two classes."""
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photographs" / label).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(random.integers(0, 255, (72, 72, 3), dtype=np.uint8))
            picture.save(tmp_path / "photographs" / label / f"{i}.png")
    return str(tmp_path / "photographs")


def settled(task, root, **given):
    method = (
        {"method": "margin", "budget": 1, "cycles": 2} if task == LEARNING else {"method": "cleaning", "noise": 0.2}
    )
    return settle.settle({"task": task, "dataset": "folder", "root": root, **method, **given}, settle.loader())[0]


@pytest.mark.parametrize(
    ("task", "dataset", "side", "settings", "why"),
    [
        (LEARNING, "folder", 224, {"model": "torchvision:resnet18", "freeze": True}, "Photographs: a linear head"),
        (CLEANING, "folder", 224, {"selector": "pretrained", "backbone": "resnet18"}, "63% of the way"),
        (CLEANING, "cifar10h", 32, {"selector": "pretrained", "backbone": "resnet18"}, "plain training 46%"),
        (LEARNING, "cifar10", 32, {}, "Small images: resnet18 of width 16 is trained from scratch"),
        (LEARNING, "fashion", 28, {}, "Small images: small-cnn of width 16 is trained from scratch"),
        (CLEANING, "fashion", 28, {}, "Small images: small-cnn"),
    ],
)
def test_a_frozen_network_is_suggested_where_its_weights_are(weights_there, task, dataset, side, settings, why):
    found = settle.suggest(task, dataset, side)
    assert found.settings == settings
    assert why in found.why


@pytest.mark.parametrize("task", [LEARNING, CLEANING])
def test_weights_that_are_not_here_are_downloaded_for_photographs_alone(task):
    assert models.weights_there() is None
    assert "are downloaded at the start" in settle.suggest(task, "folder", 224).why
    assert settle.suggest(task, "folder", 224).settings
    assert settle.suggest(task, "folder", 64) == settle.Suggestion(
        {}, "Small images: resnet18 of width 16 is trained from scratch."
    )


def test_weights_that_were_given_are_used():
    assert settle.suggest(CLEANING, "cifar10h", 32, "w.pth").settings["selector"] == "pretrained"
    assert "were given" in settle.suggest(LEARNING, "folder", 224, "w.pth").why


def test_a_run_takes_the_suggestion_unless_the_model_or_its_training_was_chosen(weights_there, photographs):
    assert settled(LEARNING, photographs).freeze
    assert settled(CLEANING, photographs).selector == "pretrained"
    for chosen in ({"epochs": 3}, {"model": "small-cnn"}, {"lr": 0.01}):
        assert not settled(LEARNING, photographs, **chosen).freeze
        assert settled(CLEANING, photographs, **chosen).selector == "vanilla"


def test_of_a_few_images_a_tenth_is_labelled_per_cycle(photographs):
    given = {
        "task": LEARNING,
        "dataset": "folder",
        "root": photographs,
        "method": "margin",
        "model": "small-cnn",
        "cycles": 2,
    }
    config, dataset = settle.settle(given, settle.loader())
    assert config.budget == config.initial == max(1, len(dataset) // 10)
    assert settle.settle({**given, "budget": 2}, settle.loader())[0].budget == 2


def test_a_strategy_that_trains_a_network_gets_no_frozen_one(weights_there, photographs):
    assert not settled(LEARNING, photographs, method="vaal").freeze


def test_few_labels_get_enough_steps_unless_the_user_counts_epochs(photographs):
    assert settled(LEARNING, photographs).steps == settle.STEPS
    assert settled(LEARNING, photographs, epochs=20).steps is None
    assert settled(LEARNING, photographs, epochs=20, steps=7).steps == 7


def test_weights_learnt_elsewhere_are_fine_tuned_gently(photographs):
    assert settled(LEARNING, photographs, model="timm:resnet18").lr == settle.FINE_TUNING
    assert settled(LEARNING, photographs, model="timm:resnet18", weights=models.RANDOM).lr > settle.FINE_TUNING
    assert settled(LEARNING, photographs, model="timm:resnet18", lr=0.3).lr == 0.3
