"""Frozen networks: embeddings made once, a head on them, and gradient norms of the head alone; recipes and own networks."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch

import data
from core import models
from core.__main__ import main
from core.analysis import measures
from core.engine import estimate, loop
from core.engine.learner import Learner, weights
from core.files import bundle
from core.gradnorm import gradient_norms
from core.models import architectures, networks
from core.models.batches import Images
from core.runs import run, settle
from core.runs.spec import CLEANING, LEARNING, Config
from core.selectors import linear
from data.errors import UserError
from data.torchvision_import import torchvision  # noqa: F401  # before timm, which imports it

import timm  # isort: skip


TINY = {"dataset": "fashion", "limit": 120, "width": 4, "epochs": 1, "batch_size": 32, "cycles": 2}
STRATEGIES = ["entropy-gradnorm", "egl", "badge", "core-set", "margin", "mc-dropout", "random"]


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=120)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of a tiny network; that they are random makes no difference to how they are used."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return str(path)


@pytest.fixture
def frozen(file, monkeypatch):
    monkeypatch.setattr(networks, "SIDE", 32)  # a sixteenth of the time
    monkeypatch.setattr(linear, "PENALTIES", (0.3,))
    return {"model": "timm:test_resnet", "weights": file, "freeze": True}


def config(task=LEARNING, **changes):
    asked = {"method": "margin", "budget": 20} if task == LEARNING else {"method": "cleaning", "budget": 0}
    return Config(task=task, **{**asked, **TINY, **changes})


def finished(pool, **changes):
    one = run.create(settle.prepare(config(**changes), pool), settle.about(pool))
    loop.work(one, pool)
    return one


@pytest.fixture
def looked(monkeypatch):
    """How many images networks have seen."""
    seen, embed = [], architectures.Backbone.embed

    def count(self, x):
        seen.append(len(x))
        return embed(self, x)

    monkeypatch.setattr(architectures.Backbone, "embed", count)
    return seen


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_active_learning_on_frozen_features(home, pool, frozen, strategy):
    one = finished(pool, method=strategy, evidence=strategy == "entropy-gradnorm", **frozen)
    cycles = one.cycles()
    assert cycles["n_labels"].tolist() == [20, 40]
    assert cycles["accuracy"].between(0, 1).all()
    assert np.isfinite(one.ranking(1)[strategy].dropna()).all()


@pytest.mark.parametrize("selector", ["vanilla", "clean"])
def test_label_cleaning_on_frozen_features(home, pool, frozen, selector):
    one = finished(pool, task=CLEANING, selector=selector, noise=0.2, folds=2, **frozen)
    assert one.cycles()["correctness"].iloc[1] > one.cycles()["correctness"].iloc[0]


def test_every_image_is_seen_once_for_all_cycles_folds_and_runs(home, pool, frozen, looked):
    finished(pool, task=CLEANING, noise=0.2, folds=3, ensemble=2, **frozen)
    probe = 2  # images by which a network's size is found, whenever it is built
    assert sum(n for n in looked if n > probe) == len(pool) + len(pool.test_labels)
    looked.clear()
    finished(pool, method="entropy-gradnorm", **frozen)
    assert max(looked) <= probe


def test_only_the_head_is_kept_of_a_cycle(home, pool, frozen):
    one = finished(pool, **frozen)
    assert weights(one.cycle_path(0)).stat().st_size < 50_000


def test_gradient_norms_are_those_of_the_head_with_the_whole_network_in_sight(home, pool, frozen):
    one = finished(pool, method="entropy-gradnorm", cycles=1, **frozen)
    learner = Learner(one.config, pool, home)
    (scorer,) = learner.scorers(one.cycle_path(0), 0).values()
    rows = np.arange(10, 30)
    for loss, reduction in (("entropy", "sum"), ("entropy", "l2"), ("egl", "sum")):
        plain = gradient_norms(scorer.model, learner.pool[rows], loss=loss, reduction=reduction, scope="head")
        found = scorer.gradient_norms(rows, loss, reduction)
        np.testing.assert_allclose(found, plain.double().numpy(), rtol=1e-3, atol=1e-6)


def test_explain_names_the_head_alone(home, pool, frozen, capsys):
    one = finished(pool, cycles=1, **frozen)
    capsys.readouterr()
    assert main(["explain", one.id, pool.ids[0], "--json"]) == 0
    assert [row["parameter"] for row in json.loads(capsys.readouterr().out)] == ["head.weight", "head.bias"]


def test_a_head_comes_to_no_other_network(home, pool, frozen, tmp_path):
    one = finished(pool, cycles=1, **frozen)
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    other = dataclasses.replace(one.config, weights=str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="a head on the embedding of other weights"):
        Learner(other, pool, home).scorers(one.cycle_path(0), 0)


def test_a_network_that_is_fine_tuned_changes(home, pool, frozen):
    one = finished(pool, **{**frozen, "freeze": False}, method="entropy-gradnorm", cycles=1, reduction="l2")
    learner = Learner(one.config, pool, home)
    (scorer,) = learner.scorers(one.cycle_path(0), 0).values()
    began, ended = learner.build(0).state_dict(), scorer.model.state_dict()
    changed = [not torch.equal(began[name], ended[name]) for name, _ in scorer.model.named_parameters()]
    assert sum(changed) > len(changed) / 2
    norms = one.ranking(0)["entropy-gradnorm"].dropna()
    assert (norms >= 0).all()
    assert norms.nunique() > 10


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        (
            LEARNING,
            {"model": "small-cnn", "weights": None},
            "--freeze keeps the network as it is, and small-cnn begins",
        ),
        (LEARNING, {"weights": "none"}, "begins from random weights"),
        (LEARNING, {"method": "ll4al"}, "ll4al learns from the stages of small-cnn and resnet18"),
        (LEARNING, {"method": "vaal"}, "vaal needs a network that the run trains: leave --freeze out"),
        (LEARNING, {"method": "sraal"}, "sraal needs a network that the run trains"),
        (
            CLEANING,
            {"selector": "elr"},
            "the selector elr learns in its own way: leave --freeze out, or choose vanilla or clean",
        ),
        (LEARNING, {"model": "small-cnn", "freeze": False}, "--weights is for the networks of timm and torchvision"),
    ],
)
def test_what_does_not_go_together_is_said(pool, task, changes, says):
    with pytest.raises(UserError, match=says):
        settle.prepare(
            config(task, **{"model": "timm:test_resnet", "weights": "w.pth", "freeze": True, **changes}), pool
        )


# How long, how varied, and when to stop


def test_few_labels_are_trained_on_for_as_many_steps_as_asked(home, pool):
    one = finished(pool, model="small-cnn", cycles=1, steps=10)
    epochs = (one.cycle_path(0) / "weights.jsonl").read_text().splitlines()
    assert len(epochs) == 10  # 20 labels are a batch an epoch


def test_a_training_stops_early_by_held_out_labels_and_says_the_same_again(home, pool):
    found = []
    for seed in (0, 0):
        one = finished(
            pool, task=CLEANING, noise=0.1, model="small-cnn", cycles=1, epochs=40, patience=2, lr=0.2, seed=seed
        )
        found.append(one.ranking(0)["cleaning"].to_numpy())
        assert len((one.cycle_path(0) / "weights.jsonl").read_text().splitlines()) < 40
        shutil.rmtree(home / ".cache")  # or the second would take the first one's training over
    np.testing.assert_array_equal(*found)


def test_a_model_that_learnt_too_little_is_named(home, pool, capsys):
    one = finished(pool, task=CLEANING, noise=0.1, model="small-cnn", cycles=1, lr=1e-4)
    assert one.cycles()["fitted"].iloc[0] < 0.5
    capsys.readouterr()
    assert main(["show", one.id]) == 0
    assert "so it is underfitting: train for more steps" in capsys.readouterr().out
    cycle = one.cycles().iloc[0].copy()
    cycle["fitted"] = 0.9
    assert measures.underfit(one.config, cycle) == ""
    assert measures.underfit(dataclasses.replace(one.config, selector="pretrained"), one.cycles().iloc[0]) == ""


# How long it will take


@pytest.mark.parametrize(("task", "freeze"), [(LEARNING, True), (LEARNING, False), (CLEANING, False)])
def test_the_time_is_estimated_from_measured_steps(home, pool, frozen, task, freeze):
    asked = settle.prepare(config(task, method="entropy-gradnorm" if task == LEARNING else "cleaning", **frozen), pool)
    found = estimate.estimate(dataclasses.replace(asked, freeze=freeze), pool)
    assert (found.step == 0) == freeze
    assert 0 < found.first < found.total
    assert str(found).startswith("about ")


def test_a_dry_run_starts_nothing(home, capsys):
    tiny = ["--limit", "120", "--budget", "20", "--cycles", "2", "--width", "4", "--epochs", "1"]
    words = ["run", "--task", "active-learning", *tiny, "--dry-run"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "small-cnn, width 4, 1 epoch; 2 cycles" in said
    assert "measured: " in said
    assert not list(home.glob("*/config.json"))
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["width"] == 4
    assert main([*words, "--strategy", "random", "margin"]) == 2


# A network of the user's own

OWN = """
from torch import nn

def make(channels, n_classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, n_classes))

class Scaled(nn.Module):
    def __init__(self, channels, n_classes):
        super().__init__()
        self.inside = make(channels, n_classes)

    def forward(self, x):
        return 2 * self.inside(x)

def scaled(channels, n_classes):
    return Scaled(channels, n_classes)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "TRUSTED", models.TRUSTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_nets.py").write_text(OWN)
    yield
    models.TRUSTED.clear()
    sys.modules.pop("my_nets", None)


RUN = ["run", "--task", "active-learning", "--limit", "120", "--budget", "20", "--cycles", "1", "--epochs", "1"]


def test_an_own_network_is_run_and_goes_on_where_the_command_line_names_it_again(home, own, capsys):
    assert main([*RUN, "--model", "my_nets:make", "--strategy", "badge"]) == 0
    (one,) = run.all_runs()
    models.TRUSTED.clear()  # another process, such as the dashboard's worker
    assert main(["step", one.id]) == 2
    assert "go on with `python -m core resume RUN --model my_nets:make`" in capsys.readouterr().err
    assert main(["step", one.id, "--model", "my_nets:scaled"]) == 2
    assert "is my_nets:make: give it as it is" in capsys.readouterr().err
    assert main(["resume", one.id, "--model", "my_nets:make"]) == 0
    assert len(one.cycles()) == 2


def test_a_bundle_with_an_own_network_opens_without_importing_it(home, own, tmp_path, monkeypatch):
    assert main([*RUN, "--model", "my_nets:make"]) == 0
    (one,) = run.all_runs()
    with (tmp_path / "run.zip").open("wb") as out:
        bundle.write(one, data.load("fashion", limit=120), out)
    models.TRUSTED.clear()
    sys.modules.pop("my_nets")
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "of somebody else"))
    bundle.opened(tmp_path / "run.zip")
    assert "my_nets" not in sys.modules


def test_an_own_network_without_a_head_works_where_no_embedding_is_needed(home, own, capsys):
    assert main([*RUN, "--model", "my_nets:scaled", "--strategy", "entropy-gradnorm"]) == 0
    capsys.readouterr()
    assert main([*RUN, "--model", "my_nets:scaled", "--strategy", "badge"]) == 2
    assert "BADGE needs a network that ends in a linear layer" in capsys.readouterr().err
    assert main([*RUN, "--model", "my_nets:scaled", "--freeze"]) == 2
    assert "A frozen network needs a network that ends in a linear layer" in capsys.readouterr().err


def test_native_sizes_and_colours(home, frozen):
    images = np.random.default_rng(0).integers(0, 255, (8, 60, 90, 3), dtype=np.uint8)
    model = architectures.build("timm:test_resnet", 3, 5, 4, 0, weights=frozen["weights"], side=(60, 90))
    mean, std = networks.statistics("timm:test_resnet", frozen["weights"], 3)
    assert model(Images(images, mean, std, torch.device("cpu"))[np.arange(8)]).shape == (8, 5)
