"""What one label does to every held-out image, and through which layers: by hand, kept, and refused where nothing is found."""

import functools
import json

import filelock
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import core.influence
import data
from core.__main__ import main
from core.engine import explain, loop
from core.engine.influence import HALVED
from core.engine.learner import seed_of
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.runs import attribution, live, run, settle
from core.runs.spec import Config
from data import votes
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 300, "model": "small-cnn", "width": 4, "epochs": 4, "batch_size": 32}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("explain")


@pytest.fixture(scope="module")
def trained(place, pool):
    """A finished run of two cycles, whose influence was measured."""
    config = Config("active-learning", method="entropy-gradnorm", budget=20, cycles=2, evidence="influence", **TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(place))
        one = run.create(settle.prepare(config, pool), settle.about(pool))
        loop.work(one, pool)
    return one


@pytest.fixture
def one(trained, place, monkeypatch):
    """The run, with nothing kept of what other tests found."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(place))
    for file in trained.path.glob(f"cycle-*/{attribution.FILES}"):
        file.unlink()
    return trained


def by_hand(one, pool, row):
    """⟨∇L(x_j), H⁻¹ ∇L(x)⟩ / n of all 500 test images of the half, and which they are."""
    model = architectures.build("small-cnn", 1, 10, 4, seed=0).eval()
    model.load_state_dict(load_file(one.cycle_path(1) / "weights.safetensors"))
    statistics = channel_statistics(pool.images)
    seen, tests = (Images(images, *statistics, torch.device("cpu")) for images in (pool.images, pool.test_images))
    learnt = np.sort([pool.ids.index(i) for i in one.log.labels()["sample_id"]])
    labels = torch.from_numpy(pool.labels)
    gradient = core.influence.loss_gradient(model, seen[np.array([row])], labels[[row]])
    solution = core.influence.inverse_hvp(
        model, seen[learnt], labels[learnt], gradient, damping=0.01, weight_decay=5e-4
    )
    half = np.flatnonzero(votes.random_order(1000, seed_of(one.config, 0, HALVED)) < 500)
    found = []
    for at in half:  # each by a backward pass of its own
        each = core.influence.loss_gradient(model, tests[np.array([at])], torch.from_numpy(pool.test_labels[[at]]))
        found.append(sum(float((each[name] * tensor).sum()) for name, tensor in solution.vector.items()) / 40)
    return half, np.array(found)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_effects_on_the_test_images_are_those_of_plain_gradients(one, pool, labelled):
    known = np.isin(pool.ids, one.log.labels()["sample_id"])
    row = int(np.flatnonzero(known == labelled)[7])
    (found,) = explain.influence(one, pool, 1, [pool.ids[row]])
    half, effects = by_hand(one, pool, row)
    order = np.argsort(effects)
    scale = np.abs(effects).max()
    assert [effect.row for effect in found.helps[:3]] == half[order[::-1][:3]].tolist()
    assert [effect.row for effect in found.harms[:3]] == half[order[:3]].tolist()
    np.testing.assert_allclose(
        [effect.influence for effect in found.helps], effects[order[::-1][:8]], atol=1e-3 * scale
    )
    np.testing.assert_allclose([effect.influence for effect in found.harms], effects[order[:8]], atol=1e-3 * scale)
    assert (found.n_held_out, found.n_labels, found.label) == (500, 40, pool.labels[row])
    assert abs(found.n_helped - (effects > 0).sum()) <= 2
    assert found.n_helped + found.n_harmed <= 500
    assert found.influence == pytest.approx(effects.sum(), abs=2e-3 * np.abs(effects).sum())


def test_the_layers_add_up_to_eq_2_of_the_ranking(one, pool):
    ranking = one.ranking(1)
    rows = np.flatnonzero(ranking["influence"].notna())[[3, 100]]
    for found, row in zip(explain.influence(one, pool, 1, [pool.ids[row] for row in rows]), rows, strict=True):
        assert sum(layer.influence for layer in found.layers) == pytest.approx(found.influence)
        assert found.influence == pytest.approx(ranking["influence"][row], rel=1e-3, abs=1e-6)
        model = architectures.build("small-cnn", 1, 10, 4, seed=0)
        assert [layer.name for layer in found.layers] == list(
            dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters())
        )
        assert [layer.kind for layer in found.layers][-2:] == ["BatchNorm2d", "Linear"]
        assert sum(layer.parameters for layer in found.layers) == sum(p.numel() for p in model.parameters())


def test_each_test_image_is_named_with_what_the_model_says(one, pool):
    (found,) = explain.influence(one, pool, 1, [pool.ids[0]])
    model = architectures.build("small-cnn", 1, 10, 4, seed=0).eval()
    model.load_state_dict(load_file(one.cycle_path(1) / "weights.safetensors"))
    tests = Images(pool.test_images, *channel_statistics(pool.images), torch.device("cpu"))
    for effect in (*found.helps, *found.harms):
        with torch.no_grad():
            probs = model(tests[np.array([effect.row])]).softmax(dim=1)[0]
        assert effect.label == pool.test_labels[effect.row]
        assert effect.suggested == int(probs.argmax())
        assert effect.confidence == pytest.approx(float(probs.max()), abs=1e-4)


def test_what_is_kept_is_taken_over_and_the_solution_of_the_cycle_is_shared(one, pool, monkeypatch):
    said = []
    first = explain.influence(one, pool, 1, [pool.ids[0]], said.append)
    assert len(said) == 1
    monkeypatch.setattr(explain, "s_test", lambda *_, **__: pytest.fail("it is there"))
    explain.influence(one, pool, 1, [pool.ids[1]])
    monkeypatch.setattr(explain, "inverse_hvp", lambda *_, **__: pytest.fail("it is there"))
    assert explain.influence(one, pool, 1, [pool.ids[0]]) == first
    now = attribution.worker(one)
    assert (now.running, now.phase, now.error) == (False, "", "")


def test_the_extremes_are_those_of_the_ranking(one):
    column = one.ranking(1).set_index("sample_id")["influence"].dropna()
    found = explain.extremes(one, 1, 2)
    assert found[:2] == column.nlargest(2).index.tolist()
    assert found[:1:-1] == column.nsmallest(2).index.tolist()
    assert len(explain.extremes(one, 1, 500)) == 280
    with pytest.raises(UserError, match=r"was not measured in cycle 0 of run .*: name a sample"):
        explain.extremes(one, 0, 2)


def test_what_does_not_converge_is_said_and_not_kept(one, pool, monkeypatch):
    solve = functools.partial(core.influence.inverse_hvp, max_iterations=1)
    monkeypatch.setattr(explain, "inverse_hvp", solve)
    with pytest.raises(UserError, match=r"did not converge: the relative residual is .*more --damping"):
        explain.influence(one, pool, 1, [pool.ids[2]])
    assert attribution.kept(one, pool, 1) == {}
    now = attribution.worker(one)
    assert "did not converge" in now.error
    assert (now.cycle, now.sample) == (1, pool.ids[2])


def test_a_curvature_that_cannot_be_inverted_is_one_sentence(one, pool, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("The curvature is singular: give a damping, such as 0.01.")

    monkeypatch.setattr(explain, "inverse_hvp", refuse)
    with pytest.raises(UserError, match="singular: give a damping"):
        explain.influence(one, pool, 1, [pool.ids[2]])


def test_one_process_at_a_time(one, pool, monkeypatch):
    monkeypatch.setattr(explain, "PATIENCE", 0)
    attribution.folder(one).mkdir(exist_ok=True)
    with (
        filelock.FileLock(attribution.folder(one) / live.LOCK, is_singleton=False),
        pytest.raises(UserError, match="being computed by another process: wait for it"),
    ):
        explain.influence(one, pool, 1, [pool.ids[2]])


def test_the_command_line_prints_and_exports_it(one, pool, tmp_path, capsys):
    sample = pool.ids[0]
    assert main(["explain", one.id, sample, "--influence", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["sample_id"] == sample
    assert len(found["helps"]) == len(found["harms"]) == 8
    assert main(["explain", one.id, "--influence", "--extremes", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count("held-out test images is") == 2
    for table, columns in (("attribution", "test_image"), ("attribution-layers", "layer")):
        assert main(["export", one.id, "--table", table, "--out", str(tmp_path / "t.csv")]) == 0
        assert columns in (tmp_path / "t.csv").read_text().splitlines()[0]
        assert sample in (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody", "--influence"], "has no sample 'nobody'"),
        (["--influence"], "Give the id of one sample"),
        (["x", "--influence", "--extremes", "2"], "Give the id of one sample"),
        (["--extremes", "2"], "give it with --influence"),
        (["--influence", "--extremes", "0"], "give a number of samples, 1 or more"),
        (["--influence", "--extremes", "2", "--cycle", "0"], "was not measured in cycle 0"),
    ],
)
def test_what_is_asked_in_vain_is_one_sentence(one, capsys, words, says):
    assert main(["explain", one.id, *words]) == 2
    assert says in capsys.readouterr().err
