"""What a run measures of influence: the numbers of `core.influence`, on images that no selection has seen."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import core.influence
import data
from core.engine import influence, loop
from core.engine.influence import Terms
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.runs import run, settle
from core.runs.spec import Config
from data import votes
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 300, "model": "small-cnn", "width": 4, "epochs": 4, "batch_size": 32}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


def worked(pool, **changes):
    settings = {"method": "entropy-gradnorm", "budget": 20, "cycles": 2, "evidence": "influence", **TINY, **changes}
    one = run.create(settle.prepare(Config("active-learning", **settings), pool), settle.about(pool))
    loop.work(one, pool)
    return one


def model(one, cycle):
    found = architectures.build("small-cnn", 1, 10, 4, seed=0).eval()
    found.load_state_dict(load_file(one.cycle_path(cycle) / "weights.safetensors"))
    return found


def test_the_columns_are_the_terms_of_the_paper(home, pool):
    """By hand: for the candidates of cycle 0, by the model of cycle 1, on the loss of 500 of the 1,000 test images."""
    one = worked(pool, damping=0.05)
    statistics = channel_statistics(pool.images)
    seen, held = (Images(images, *statistics, torch.device("cpu")) for images in (pool.images, pool.test_images))
    half = np.flatnonzero(votes.random_order(1000, _seed(one)) < 500)
    ids = pool.ids
    learnt = np.sort([ids.index(i) for i in one.log.labels()["sample_id"]])
    candidates = np.flatnonzero(one.ranking(0)["rank"].notna())
    labels = torch.from_numpy(pool.labels)
    vector = core.influence.loss_gradient(model(one, 1), held[half], torch.from_numpy(pool.test_labels[half]))
    solution = core.influence.inverse_hvp(
        model(one, 1), seen[learnt], labels[learnt], vector, damping=0.05, weight_decay=5e-4
    )
    terms = core.influence.influence(
        model(one, 1), seen[candidates], solution, n_labels=40, targets=labels[candidates], before=model(one, 0)
    )
    found = one.ranking(1)
    for name, expected in (("influence", terms.target), ("bound", terms.approx_2), ("earlier-bound", terms.approx_3)):
        np.testing.assert_allclose(found[name][candidates], expected, rtol=2e-3, atol=2e-3 * expected.abs().max())
        assert found[name].notna().sum() == len(candidates) == 280
    last = one.cycles().iloc[1]
    assert last["influence_residual"] <= 1e-3
    assert (last["influence_n"], last["influence_k"]) == (280, 20)
    assert "influence_n" not in one.log.phases().query("phase == 'score'")["result"].iloc[0]


def _seed(one):
    from core.engine.learner import seed_of

    return seed_of(one.config, 0, influence.HALVED)


def test_no_selection_sees_it_or_the_test_labels(home, pool):
    """Labels and ranks are those of a run without it, and of one whose test images have other labels."""
    other = dataclasses.replace(pool, test_labels=pool.test_labels[::-1].copy())
    plain, one, swapped = worked(pool, evidence=False), worked(pool), worked(other)
    for compared in (plain, swapped):
        pd.testing.assert_frame_equal(*(each.log.labels()[["cycle", "sample_id", "label"]] for each in (one, compared)))
        for cycle in (0, 1):
            pd.testing.assert_series_equal(*(each.ranking(cycle)["rank"] for each in (one, compared)))
    assert not one.ranking(1)["influence"].equals(swapped.ranking(1)["influence"])
    assert "influence" not in plain.ranking(1)


def test_it_is_computed_once_for_equal_content(home, pool, monkeypatch):
    one = worked(pool)
    monkeypatch.setattr(influence, "inverse_hvp", lambda *_, **__: pytest.fail("it is there"))
    again = worked(pool)
    pd.testing.assert_series_equal(one.ranking(1)["influence"], again.ranking(1)["influence"])
    with pytest.raises(pytest.fail.Exception):
        worked(pool, damping=0.3)


def test_what_does_not_converge_is_named_and_not_used(home, pool, monkeypatch):
    solve = functools.partial(core.influence.inverse_hvp, max_iterations=1)
    monkeypatch.setattr(influence, "inverse_hvp", solve)
    one = worked(pool)
    last = one.cycles().iloc[1]
    assert last["influence_failed"].startswith("Conjugate gradients did not converge: the relative residual is ")
    assert last["influence_iterations"] == 1
    assert "influence_eq3_eq5" not in last
    assert "influence" not in one.ranking(1)
    assert one.status()[0] == "finished"


def test_what_cannot_be_computed_is_named(home, pool, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("The curvature is singular: give a damping, such as 0.01.")

    monkeypatch.setattr(influence, "inverse_hvp", refuse)
    one = worked(pool)
    assert one.cycles()["influence_failed"][1] == "The curvature is singular: give a damping, such as 0.01."
    assert one.status()[0] == "finished"


def test_without_the_weights_of_the_cycle_before_eq_5_alone_is_not_known(home, pool):
    one = worked(pool, cycles=1)
    (one.cycle_path(0) / "weights.safetensors").unlink()
    one.log.set_fact("target", 2)
    loop.work(one, pool)
    assert "weights of cycle 0 are not here" in one.cycles()["influence_failed"][1]
    assert one.cycles()["influence_eq2_eq3"][1] > 0
    assert {"influence", "bound"} <= set(one.ranking(1))
    assert "earlier-bound" not in one.ranking(1)


def test_with_early_stopping_the_curvature_is_that_of_what_was_learnt_from(home, pool, monkeypatch):
    sizes = []

    def solve(model, images, *rest, **settings):
        sizes.append(len(images))
        return core.influence.inverse_hvp(model, images, *rest, **settings)

    monkeypatch.setattr(influence, "inverse_hvp", solve)
    worked(pool, patience=2)
    assert sizes == [36]  # a tenth of 40 is held out


def test_the_measures_by_hand():
    terms = Terms(
        rows=np.arange(6),
        k=2,
        target=np.array([-9.0, 3, 2, 1, 0, -1]),
        bound=np.array([18.0, 12, 4, 4, 0, 2]),
        before=np.array([9.0, 24, 5, 4, 3, 1]),
        residual=1e-4,
        iterations=7,
    )
    found = terms.measures()
    assert found == {
        "influence_n": 6,
        "influence_k": 2,
        "influence_eq3_eq5": 2,  # images 0 and 1 by both
        "influence_eq2_eq5": 1,  # the first by Eq. 2 are 1 and 2
        "influence_eq2_eq3": 1,
        "influence_step_3_4": 0.5,  # of 1/2, 1/4, 1/2, 1/4, 1/2; 0/0 is none
        "influence_step_4_5": 0.9,  # of 2, 1/2, 4/5, 1, 0, 2
        "influence_positive": 0.5,
        "influence_residual": 1e-4,
        "influence_iterations": 7,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "label-cleaning", "method": "cleaning"}, "which is a question of active learning"),
        ({"task": "label-cleaning", "method": "cleaning", "folds": 5}, "which is a question of active learning"),
        ({"task": "label-cleaning", "method": "cleaning", "ensemble": 2}, "which is a question of active learning"),
        ({"model": "torchvision:resnet18", "freeze": True}, "leave --freeze out"),
        ({"predictions": "/there.npy"}, "leave --predictions out"),
        ({"annotator": "person"}, "which people have yet to give"),
    ],
)
def test_what_has_no_influence_is_refused_in_a_sentence(pool, changes, said):
    settings = {"method": "margin", "budget": 20, "cycles": 2, "task": "active-learning", **TINY, **changes}
    with pytest.raises(UserError, match=f"^--evidence influence .*{said}.*[.]$"):
        settle.check({**settings, "evidence": "influence"})
    settle.check({**settings, "evidence": False})


def test_without_labelled_test_images_it_is_refused(pool):
    untested = dataclasses.replace(pool, test_images=pool.test_images[:0], test_labels=pool.test_labels[:0])
    config = Config("active-learning", method="margin", budget=20, cycles=2, evidence="influence", **TINY)
    with pytest.raises(UserError, match="this data set has none with a label: hold some out with --test-share"):
        settle.prepare(config, untested)
    settle.prepare(dataclasses.replace(config, evidence=True), untested)
