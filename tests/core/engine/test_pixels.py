"""Which pixels the entropy of a prediction depends on: against differences, kept with the cycle."""

import numpy as np
import pytest
import torch

import data
from core.__main__ import main
from core.engine import explain
from core.engine.learner import Learner
from core.runs import run, saliency
from data.errors import UserError


@pytest.fixture(scope="module")
def scenes():
    return data.load("garments", limit=24)


@pytest.fixture
def one(masked, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(masked))
    return next(each for each in run.all_runs() if each.config.method == "entropy-gradnorm")


def test_it_is_how_the_mean_entropy_changes_with_a_pixel(one, scenes):
    found = explain.pixel_gradient(one, scenes, 1, scenes.ids[5])
    learner = Learner(one.config, scenes, one.path.parent)
    model = next(iter(learner.scorers(one.cycle_path(1), 1).values())).model.eval().double()
    _, x = next(iter(learner.pool.batches(np.array([5]), 1)))

    def entropy(image):
        with torch.no_grad():
            log_p = model(image).log_softmax(dim=1)
            return float(-(log_p.exp() * log_p).sum(dim=1).mean())

    row, column = np.unravel_index(found.argmax(), found.shape)
    slopes = []
    for channel in range(x.shape[1]):
        step = torch.zeros_like(x, dtype=torch.float64)
        step[0, channel, row, column] = 1e-5
        slopes.append((entropy(x.double() + step) - entropy(x.double() - step)) / 2e-5)
    assert found[row, column] == pytest.approx(np.linalg.norm(slopes), rel=1e-3)


def test_the_command_keeps_it_where_pages_read_it(one, scenes, capsys):
    assert main(["explain", one.id, scenes.ids[2], "--cycle", "1", "--pixels"]) == 0
    assert "pixels" in capsys.readouterr().out
    found = saliency.read(one, scenes, 1, 2)
    assert found.shape == scenes.labels.shape[1:]
    assert found.max() > 0


def test_what_is_no_map_of_the_image_is_computed_again(one, scenes):
    saliency.write(one, 0, 1, np.zeros((3, 3), dtype=np.float32))
    assert saliency.read(one, scenes, 0, 1) is None
    saliency.file(one, 0, 1).write_bytes(b"not an array")
    assert saliency.read(one, scenes, 0, 1) is None


def test_an_unknown_sample_is_refused(one, scenes):
    with pytest.raises(UserError, match="has no sample"):
        explain.pixel_gradient(one, scenes, 1, "nobody")
