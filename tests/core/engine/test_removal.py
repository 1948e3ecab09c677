"""A removal study: its influences, its choices and its retrainings are those that one makes by hand."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import core.influence
import data
from core.__main__ import main
from core.engine import influence, loop, removal
from core.engine.learner import Learner
from core.files import export
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.runs import removal as removals
from core.runs import run, settle
from core.runs.spec import Config
from core.selectors import vanilla
from data import votes
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 300, "model": "small-cnn", "width": 4, "epochs": 3, "batch_size": 32}
CONFIG = Config("active-learning", method="margin", budget=30, cycles=2, damping=0.05, **TINY)
ASKED = {"share": 0.1, "trainings": 2, "dampings": (0.1,)}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


def worked(pool, **changes):
    one = run.create(settle.prepare(dataclasses.replace(CONFIG, **changes), pool), settle.about(pool))
    loop.work(one, pool)
    return one


@pytest.fixture(scope="module")
def studied(tmp_path_factory, pool):
    """A home with a run and its study; each test works on a copy."""
    folder = tmp_path_factory.mktemp("studied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(folder))
        removal.study(worked(pool), pool, 1, **ASKED)
    return folder


@pytest.fixture
def one(home, studied):
    shutil.copytree(studied, home)
    (found,) = run.all_runs()
    return found


def loss_of(path, pool):
    """The mean cross-entropy of 500 of the 1,000 test images, by a file of weights."""
    model = architectures.build("small-cnn", 1, 10, 4, seed=0).eval()
    model.load_state_dict(load_file(path))
    test = Images(pool.test_images, *channel_statistics(pool.images), torch.device("cpu"))
    half = np.flatnonzero(votes.random_order(1000, Learner(CONFIG, pool, path.parent).seed(0, influence.HALVED)) < 500)
    with torch.no_grad():
        return float(F.cross_entropy(model(test[half]), torch.from_numpy(pool.test_labels[half])))


def test_each_label_has_the_influence_of_core_influence(one, pool):
    found = removals.read(one, 1)
    learner = Learner(one.config, pool, one.path.parent)
    held = influence.half_of_test(learner)
    labels = torch.from_numpy(pool.labels)
    rows = np.array([pool.ids.index(name) for name in found.sample_ids])
    assert sorted(found.sample_ids) == sorted(one.log.labels(1)["sample_id"])
    model = learner.scorers(one.cycle_path(1), 1)[(0, 0)].model
    vector = core.influence.loss_gradient(model, learner.test[held.rows], torch.from_numpy(pool.test_labels[held.rows]))
    images = learner.pool[rows]
    solution = core.influence.inverse_hvp(model, images, labels[rows], vector, damping=0.05, weight_decay=5e-4)
    terms = core.influence.influence(model, images, solution, n_labels=60, targets=labels[rows])
    for values, expected in ((found.influence, terms.target), (found.bound, terms.approx_2)):
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    assert (found.n_held_out, found.damping, found.weight_decay) == (500, 0.05, 5e-4)


def test_the_choices_are_the_ends_of_the_ranking_and_a_random_set(one):
    found = removals.read(one, 1)
    top, bottom, random = found.removed
    values = np.array(found.influence)
    assert len(top.at) == found.n_removed == 6
    assert values[top.at].min() >= np.delete(values, top.at).max()
    assert values[bottom.at].max() <= np.delete(values, bottom.at).min()
    assert set(random.at) not in (set(top.at), set(bottom.at))
    assert found.predicted(top) > found.predicted(random) > found.predicted(bottom)


def test_the_realised_losses_are_those_of_trainings_without_these_labels(one, pool):
    found = removals.read(one, 1)
    assert found.losses[0] == pytest.approx(loss_of(one.cycle_path(1) / "weights.safetensors", pool), rel=1e-5)
    top = found.removed[0]
    left = {name for at, name in enumerate(found.sample_ids) if at not in top.at}
    rows = np.array([row for row, name in enumerate(pool.ids) if name in left])
    other = Learner(dataclasses.replace(one.config, seed=found.seeds[1]), pool, one.path.parent / "elsewhere")
    model = other.build(1)
    settings = other.settings(1, len(rows))
    vanilla.fit(model, other.pool, rows, pool.labels[rows], settings, seed=other.seed(1, 1))
    held = influence.half_of_test(Learner(one.config, pool, one.path.parent))
    with torch.no_grad():
        loss = F.cross_entropy(model.eval()(other.test[held.rows]), torch.from_numpy(pool.test_labels[held.rows]))
    assert top.losses[1] == pytest.approx(float(loss), rel=1e-5)
    assert len(set(found.seeds)) == 2
    assert found.seeds[0] == one.config.seed


def test_finished_trainings_are_taken_over(one, pool, monkeypatch):
    before = removals.read(one, 1)
    (one.cycle_path(1) / removals.FILE).unlink()
    monkeypatch.setattr(Learner, "_callbacks", lambda *_: pytest.fail("nothing is trained again"))
    assert removal.study(one, pool, 1, **ASKED) == before
    assert removals.read(one, 1) == before


def test_an_interrupted_study_goes_on_where_it_was(one, pool, monkeypatch):
    """A third training of each choice is asked for, and Ctrl-C comes in the second of the four."""
    before, begun = removals.read(one, 1), []
    callbacks = Learner._callbacks

    def interrupted(self, file):
        begun.append(file.parent.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return callbacks(self, file)

    monkeypatch.setattr(Learner, "_callbacks", interrupted)
    command = ["influence", one.id, "--share", "0.1", "--trainings", "3", "--dampings", "0.1", "--json"]
    assert main(command) == 130
    assert removals.read(one, 1) == before
    assert main(command) == 0
    assert [name.split("-")[1] for name in begun] == ["none", "top", "top", "bottom", "random"]
    found = removals.read(one, 1)
    assert (found.seeds[:2], found.losses[:2]) == (before.seeds, before.losses)
    assert len(found.removed[2].losses) == 3


def test_the_command_prints_and_writes_what_was_found(one, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "has_browser", lambda: False)  # a figure as PNG takes a browser, and seconds
    asked = ["--share", "0.1", "--trainings", "2", "--dampings", "0.1"]
    assert main(["influence", one.id, *asked, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run"], printed["cycle"], printed["share"]) == (one.id, 1, 0.1)
    top = printed["removed"][0]
    assert top["realised"] == pytest.approx(np.subtract(top["losses"], printed["losses"]).tolist())
    assert main(["influence", one.id, *asked, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "# Predicted and realised change of the held-out loss" in shown
    assert "# Rank stability over damping" in shown
    names = {path.name.split(".")[0] for path in (tmp_path / "out").iterdir()}
    assert names == {"removal", "dampings", "labels", "about"}
    for table in ("removal", "dampings", "influence"):
        assert main(["export", one.id, "--table", table, "--out", str(tmp_path / f"{table}.csv")]) == 0
    assert main(["show", one.id]) == 0
    assert "Removing 6 of the 60 labels of cycle 1 changed the held-out loss by" in capsys.readouterr().out


def test_what_does_not_converge_is_said_and_not_used(one, pool, monkeypatch):
    monkeypatch.setattr(influence, "inverse_hvp", functools.partial(core.influence.inverse_hvp, max_iterations=1))
    found = removal.study(one, pool, 1, **{**ASKED, "dampings": (0.2,)})  # the run's own is in the cache
    (other,) = found.dampings
    assert other.failed.startswith("Conjugate gradients did not converge: the relative residual is ")
    assert (other.signed, other.signed_top, other.iterations) == (None, None, 1)


def test_without_convergence_at_the_runs_own_damping_there_is_no_study(home, pool, monkeypatch):
    monkeypatch.setattr(influence, "inverse_hvp", functools.partial(core.influence.inverse_hvp, max_iterations=1))
    one = worked(pool, cycles=1, epochs=1)
    with pytest.raises(
        UserError, match=r"^Conjugate gradients did not converge: .* start a run with more --damping\.$"
    ):
        removal.study(one, pool, 0, **ASKED)
    assert not removals.there(one)


def test_a_strategy_that_trains_along_is_retrained_along(home, pool):
    one = worked(pool, method="ll4al", epochs=1)
    found = removal.study(one, pool, 1, **{**ASKED, "trainings": 1, "dampings": ()})
    assert found.losses[0] == pytest.approx(loss_of(one.cycle_path(1) / "weights.safetensors", pool), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "label-cleaning", "method": "cleaning"}, "cleans labels, .*: name such a run"),
        ({"predictions": "/there.npy", "imported": "x"}, "has imported predictions, .*: name a run that trains one"),
        ({"freeze": True}, "a head on a frozen network, .*: name a run without --freeze"),
        ({"warm_start": True}, "goes on from the weights of the cycle before, .*: give --cycle 0, or name a run"),
        ({"finetune_epochs": 2}, "goes on from the weights of the cycle before"),
        ({}, r"The weights of cycle 1 of run .* are not here: open a bundle that was made with them"),
    ],
)
def test_a_run_that_has_no_influence_is_refused_in_a_sentence(home, pool, changes, said):
    one = run.create(dataclasses.replace(CONFIG, **changes), settle.about(pool))
    with pytest.raises(UserError, match=said):
        removal.study(one, pool, 1, **ASKED)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"share": 0.001}, "--share is 0.001, which removes no label of the 60 that cycle 1 learnt from: give a share"),
        ({"share": 0.99}, "--share is 0.99, which removes every label of the 60"),
        ({"share": -1.0}, "removes no label"),
        ({"trainings": 0}, "--trainings is 0: give 1 or more"),
        ({"dampings": [-0.1]}, "--dampings has -0.1: give numbers of 0 or more"),
        ({"dampings": [float("nan")]}, "--dampings has nan"),
    ],
)
def test_what_cannot_be_removed_is_said(one, pool, asked, said):
    with pytest.raises(UserError, match=said):
        removal.study(one, pool, 1, **{**ASKED, **asked})


def test_without_a_labelled_test_image_there_is_no_loss(one, pool):
    untested = dataclasses.replace(pool, test_labels=np.full(1000, -1))
    with pytest.raises(UserError, match="have none with a label: start a run with --test-share"):
        removal.study(one, untested, 1, **ASKED)


def test_a_damping_that_cannot_be_inverted_is_said_and_the_others_are_compared_with_the_runs(one, pool, monkeypatch):
    def refuse(*_, damping, **__):
        raise ValueError("The curvature is singular: give a damping.")

    monkeypatch.setattr(influence, "inverse_hvp", refuse)
    found = removal.study(one, pool, 1, **{**ASKED, "dampings": (0.1, 0.05, 0.0)})
    assert [(other.damping, other.failed) for other in found.dampings] == [
        (0.1, ""),
        (0.0, "There is no influence at damping 0: The curvature is singular: give a damping."),
    ]
    assert found.dampings[0].signed == removals.read(one, 1).dampings[0].signed
