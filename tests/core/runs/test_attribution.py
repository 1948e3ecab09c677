"""The influence of one image as it is kept, read and refused, without a model."""

import dataclasses
import json

import numpy as np
import pytest

import data
from core.runs import attribution, jobs, run, settle
from core.runs.attribution import Attribution, Effect, Layer
from core.runs.run import EXAMPLES
from core.runs.spec import Config
from data.errors import UserError


def found(sample_id="a", label=1):
    helps = (Effect(5, 1, 1, 0.9, 0.25), Effect(3, 2, 1, 0.5, 0.125))
    harms = (Effect(4, 0, 1, 0.75, -0.5),)
    layers = (Layer("stem", "Conv2d", 9, 0.5), Layer("head", "Linear", 20, -0.625))
    return Attribution(sample_id, label, -0.125, 40, 500, 300, 199, helps, harms, layers, 0.01, 1e-4, 12)


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


@pytest.fixture
def one(home, pool):
    """A run whose first cycle has weights, whatever is in them."""
    config = Config("active-learning", "fashion", "margin", 20, 2, limit=300)
    made = run.create(settle.prepare(config, pool), settle.about(pool))
    made.cycle_path(0).mkdir()
    (made.cycle_path(0) / "weights.safetensors").touch()
    return made


def test_what_is_written_is_read_and_is_of_its_image(one, pool):
    attribution.write(one, 0, 7, found(pool.ids[7]))
    assert attribution.read(one, 0, 7, pool.ids[7]) == found(pool.ids[7])
    assert attribution.read(one, 0, 7, pool.ids[8]) is None
    assert attribution.read(one, 0, 8, pool.ids[8]) is None
    assert attribution.kept(one, pool, 0) == {7: found(pool.ids[7])}
    assert attribution.kept(one, pool, 1) == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sample_id": "a"}', b"\xff", b"NaN"])
def test_what_is_damaged_is_as_if_it_were_not_there(one, pool, content):
    attribution.file(one, 0, 7).write_bytes(content)
    (one.cycle_path(0) / "influence-old.json").write_bytes(attribution.to_json(found()))
    assert attribution.read(one, 0, 7, pool.ids[7]) is None
    assert attribution.kept(one, pool, 0) == {}


def test_only_finite_numbers_are_an_influence():
    content = json.loads(attribution.to_json(found()))
    for name, value in (("influence", "NaN"), ("label", -1), ("helps", [{"row": -1}])):
        with pytest.raises(ValueError, match="Attribution"):
            attribution.of_json(json.dumps({**content, name: value}).encode())


def test_tables_go_from_the_most_helpful_to_the_most_harmful():
    table = attribution.effect_table([found(), found("b")], ["x", "y", "z"])
    assert table["influence"].tolist() == [0.25, 0.125, -0.5] * 2
    assert table["test_image"].tolist() == [5, 3, 4] * 2
    assert table["test_reference"].tolist() == ["y", "z", "x"] * 2
    assert table["sample_id"].tolist() == ["a"] * 3 + ["b"] * 3
    assert set(table["reference"]) == {"y"}
    layers = attribution.layer_table([found()])
    assert layers[["layer", "influence"]].to_numpy().tolist() == [["stem", 0.5], ["head", -0.625]]
    for empty in (attribution.effect_table([], ["x"]), attribution.layer_table([])):
        assert len(empty) == 0
        assert "influence" in empty


def test_the_sentence_says_which_way():
    assert "500 held-out test images is 0.125 nats higher, to first order; it helps 300" in attribution.sentence(
        found()
    )
    assert "0.125 nats lower" in attribution.sentence(dataclasses.replace(found(), influence=0.125))


def test_an_image_with_all_that_it_takes_is_not_refused(one, pool):
    attribution.check(one, pool, 0, 7)


def test_what_is_missing_is_named(one, pool):
    labels = pool.labels.copy()
    labels[7] = -1
    with pytest.raises(UserError, match=r"has no reference label, .*: choose one that has"):
        attribution.check(one, dataclasses.replace(pool, labels=labels), 0, 7)
    untested = dataclasses.replace(pool, test_labels=np.full_like(pool.test_labels, -1))
    with pytest.raises(UserError, match="none with a label: start a run with --test-share"):
        attribution.check(one, untested, 0, 7)
    with pytest.raises(UserError, match=r"needs the weights of cycle 1 .*restore the file"):
        attribution.check(one, pool, 1, 7)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "label-cleaning", "method": "cleaning"}, "a question of active learning: choose another run"),
        ({"freeze": True}, "a frozen one has a head with a penalty of its own"),
        ({"imported": "0" * 40}, "imported predictions replace it"),
        ({"annotator": "person"}, "which people have yet to give"),
    ],
)
def test_runs_without_an_influence_say_why(one, pool, monkeypatch, changes, says):
    monkeypatch.setattr(run.Run, "config", dataclasses.replace(one.config, **changes))
    with pytest.raises(UserError, match=says):
        attribution.check(one, pool, 0, 7)


def test_an_example_stays_as_it_is(pool):
    example = run.Run(EXAMPLES / "example-active-learning")
    for refused in (
        lambda: attribution.check(example, pool, 0, 7),
        lambda: jobs.start_influence(example, 0, pool.ids[7]),
    ):
        with pytest.raises(UserError, match="is an example and stays as it is"):
            refused()
    assert not attribution.worker(example).running
    assert not attribution.folder(example).exists()


def test_a_worker_is_asked_for_once(one, pool, monkeypatch):
    commands = []

    class Child:
        pid = 1

        def poll(self):
            return 0

    def popen(words, **_):
        commands.append(words[3:])
        return Child()

    monkeypatch.setattr(jobs.subprocess, "Popen", popen)
    jobs.start_influence(one, 0, "--odd name")
    assert commands == [["explain", "--cycle", "0", "--influence", "--", one.id, "--odd name"]]
    now = attribution.worker(one)
    assert now.is_starting
    assert (now.cycle, now.sample) == (0, "--odd name")
    with pytest.raises(UserError, match="is being computed: wait for it"):
        jobs.start_influence(one, 0, pool.ids[7])
