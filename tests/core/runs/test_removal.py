"""The file of a removal study: what it predicts, against a loss that is solved by hand, and what is no such file."""

import dataclasses
import json

import numpy as np
import pytest

from core.runs import removal, run
from core.runs.removal import CHOICES, Damped, Removal, Removed
from core.runs.spec import Config
from data.errors import UserError

ABOUT = {"class_names": ["cat", "dog"], "n_samples": 6, "annotators": "none", "annotators_source": "", "skipped": []}


def of_values(influence, at, *, n_held_out=10):
    """A study of labels of these influences, whose choices all remove those at the same places."""
    n = len(influence)
    return Removal(
        cycle=0,
        share=0.25,
        damping=0.01,
        weight_decay=5e-4,
        iterations=9,
        residual=1e-4,
        n_held_out=n_held_out,
        sample_ids=[f"image {i}" for i in range(n)],
        influence=[float(value) for value in influence],
        bound=[abs(float(value)) for value in influence],
        seeds=[0, 7],
        losses=[1.0, 1.5],
        removed=[Removed(choice, list(at), [1.25, 1.25]) for choice in CHOICES],
        dampings=[Damped(0.1, 0.9, 0.8, 1, 1, 5, 1e-4), Damped(0.0, failed="It is singular.")],
    )


@pytest.fixture
def one(home):
    home.mkdir()
    made = run.create(Config("active-learning", "fashion", "margin", budget=2, cycles=1), ABOUT)
    made.log.finish(0, "score", 1.0, {"n_labels": 6})
    return made


def test_both_predictions_are_those_of_a_loss_that_can_be_solved():
    """Loss ½(θ − a)² of each label a: θ is their mean, H is 1; the held-out loss is gθ. Removal with 1/n, and with 1/(n − m)."""
    labels, at, g = np.array([4.0, -1, 2, 0.5, -3, 6]), [0, 5], 3.0
    theta, n = labels.mean(), len(labels)
    found = of_values(g * (theta - labels) / n, at, n_held_out=1)
    rest = np.delete(labels, at)
    removed = theta + (theta - labels[at]).sum() / n  # one Newton step: the removed no longer count, and n stays
    assert found.predicted(found.removed[0]) == pytest.approx(g * (removed - theta))
    assert found.predicted_rest(found.removed[0]) == pytest.approx(g * (rest.mean() - theta))


def test_the_realised_change_is_paired_by_seed():
    found = of_values([1, 2, 3, 4], [0])
    np.testing.assert_allclose(found.realised(found.removed[0]), [0.25, -0.25])


def test_it_is_read_as_it_was_written(one):
    found = of_values([1, -2, 3, 4], [1])
    assert removal.read(one, 0) is None
    assert not removal.there(one)
    removal.write(one, found)
    assert removal.read(one, 0) == found
    assert removal.of_run(one) == [found]
    assert removal.there(one)
    printed = removal.as_object(one, found)
    assert (printed["run"], printed["removed"][0]["predicted"]) == (one.id, pytest.approx(-0.2))


@pytest.mark.parametrize("change", [
    {"losses": [1.0]},
    {"influence": [1.0, float("nan"), 3.0, 4.0]},
    {"influence": [1.0]},
    {"removed": []},
    {"sample_ids": ["a", "a", "b", "c"]},
    {"seeds": [0.5, 7]},
    {"more": 1},
])  # fmt: skip
def test_what_does_not_fit_together_is_named(one, change):
    content = dataclasses.asdict(of_values([1, -2, 3, 4], [1])) | change
    path = one.cycle_path(0) / removal.FILE
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"^Cycle 0 of run .* has no readable removal.json: make it again with .*{one.id}"
    ):
        removal.read(one, 0)


@pytest.mark.parametrize("at", [[9], [1, 1], [0, 1, 2, 3], []])
def test_what_is_removed_are_some_of_the_labels(at):
    with pytest.raises(ValueError, match="do not fit together"):
        of_values([1, -2, 3, 4], at)
