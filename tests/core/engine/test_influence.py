"""Influence in a run: as evidence, on images that no selection has seen, and as a score, on labels that its model has not."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import core.influence
import data
from core import strategies
from core.engine import influence, loop, scoring
from core.engine.influence import Terms
from core.engine.learner import SECOND, Learner, seed_of
from core.files import bundle
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.runs import questions, run, settle, spec
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


def model(one, cycle, file="weights.safetensors"):
    found = architectures.build("small-cnn", 1, 10, 4, seed=0).eval()
    found.load_state_dict(load_file(one.cycle_path(cycle) / file))
    return found


def test_the_columns_are_the_terms_of_the_paper(home, pool):
    """By hand: for the candidates of cycle 0, by the model of cycle 1, on the loss of 500 of the 1,000 test images."""
    one = worked(pool, damping=0.05)
    statistics = channel_statistics(pool.images)
    seen, held = (Images(images, *statistics, torch.device("cpu")) for images in (pool.images, pool.test_images))
    half = np.flatnonzero(votes.random_order(1000, seed_of(one.config, 0, influence.HALVED)) < 500)
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


CHOSEN_BY_IT = {"method": "expected-influence", "evidence": False}


def initial(one, pool):
    """Rows of the initial labels, and those of the validation split: a fifth."""
    rows = np.sort([pool.ids.index(i) for i in one.log.labels(0)["sample_id"]])
    held_out = votes.random_order(len(rows), seed_of(one.config, 0, 10)) < round(0.2 * len(rows))
    return rows, rows[held_out]


def scored(one, pool, cycle):
    """A cycle that is to be scored, by the weights that lie there."""
    task = questions.of(one.config, pool)
    learner = Learner(one.config, pool, one.path.parent)
    state, _, _ = one.state(pool.ids, cycle)
    rows = np.flatnonzero(task.candidates(state))
    return scoring.Scoring(one, task, learner, cycle, cycle, {}, state, None, one.log.labels(cycle), np.empty(0), rows)


def test_the_score_is_eq_3_averaged_over_the_predicted_labels(home, pool):
    """By hand: a label after the other, by the second model of cycle 1, on the loss of 4 of the 20 initial labels."""
    one = worked(pool, damping=0.05, **CHOSEN_BY_IT)
    second, seen = model(one, 1, SECOND), Images(pool.images, *channel_statistics(pool.images), torch.device("cpu"))
    _, held_out = initial(one, pool)
    known = np.sort([pool.ids.index(i) for i in one.log.labels()["sample_id"]])
    learnt, candidates = np.setdiff1d(known, held_out), np.flatnonzero(one.ranking(1)["rank"].notna())
    labels = torch.from_numpy(pool.labels)
    vector = core.influence.loss_gradient(second, seen[held_out], labels[held_out])
    solution = core.influence.inverse_hvp(second, seen[learnt], labels[learnt], vector, damping=0.05, weight_decay=5e-4)
    with torch.no_grad():
        p = second(seen[candidates]).softmax(dim=1)
    expected = torch.zeros(len(candidates))
    for label in range(10):
        targets = torch.full((len(candidates),), label)
        terms = core.influence.influence(second, seen[candidates], solution, n_labels=len(learnt), targets=targets)
        expected += p[:, label] * terms.approx_1
    assert (len(held_out), len(learnt), len(candidates)) == (4, 36, 260)
    found = one.ranking(1)["expected-influence"]
    np.testing.assert_allclose(found[candidates], expected, rtol=2e-3, atol=2e-3 * float(expected.max()))
    assert found.notna().sum() == 260


def test_a_second_model_has_not_learnt_the_validation_split_and_the_first_has_learnt_all(home, pool, monkeypatch):
    trained, fit = [], Learner._train_part

    def remember(self, folder, cycle, part, rows, *rest):
        trained.append(set(rows.tolist()))
        return fit(self, folder, cycle, part, rows, *rest)

    monkeypatch.setattr(Learner, "_train_part", remember)
    shares = []
    one = run.create(
        settle.prepare(Config("active-learning", budget=20, cycles=2, **TINY, **CHOSEN_BY_IT), pool), settle.about(pool)
    )
    monkeypatch.setattr(loop.live.Worker, "progress", lambda self, share: shares.append(share))
    loop.work(one, pool)
    rows, held_out = initial(one, pool)
    assert len(held_out) == 4
    later = {pool.ids.index(i) for i in one.log.labels()["sample_id"]}
    assert trained == [set(rows), set(rows) - set(held_out), later, later - set(held_out)]
    assert max(shares) <= 1
    plain = Learner(one.config, pool, home).train(
        home / "again", 1, np.array(sorted(later)), pool.labels[sorted(later)]
    )
    assert plain["shared"], "the model that is measured is that of a plain training on all labels"


def test_no_test_label_reaches_its_selection(home, pool):
    """Labels and scores are those of a run whose test images have other labels, and of one that measures the evidence too."""
    other = dataclasses.replace(pool, test_labels=pool.test_labels[::-1].copy())
    untested = dataclasses.replace(pool, test_images=pool.test_images[:0], test_labels=pool.test_labels[:0])
    one, measured = worked(pool, **CHOSEN_BY_IT), worked(pool, method="expected-influence")
    for compared in (worked(other, **CHOSEN_BY_IT), worked(untested, **CHOSEN_BY_IT), measured):
        pd.testing.assert_frame_equal(*(each.log.labels()[["cycle", "sample_id", "label"]] for each in (one, compared)))
        for cycle in (0, 1):
            wanted = ["rank", "expected-influence"]
            pd.testing.assert_frame_equal(*(each.ranking(cycle)[wanted] for each in (one, compared)))
    assert {"influence", "bound", "expected-influence"} <= set(measured.ranking(1))


@pytest.mark.parametrize(
    ("scale", "said"),
    [(1e4, "above 0, as where every softmax is saturated"), (1e30, "is not finite: .* in the weights")],
)
def test_a_saturated_or_diverged_second_model_is_named_and_chooses_nothing(home, pool, scale, said):
    one = worked(pool, cycles=1, **CHOSEN_BY_IT)
    file = one.cycle_path(0) / SECOND
    weights = load_file(file)
    save_file({name: scale * t if name.startswith("head") else t for name, t in weights.items()}, file)
    with pytest.raises(UserError, match=said):
        influence.expected(scored(one, pool, 0), initial(one, pool)[1])


def test_it_stops_where_conjugate_gradients_do_not_converge_and_goes_on_where_they_do(home, pool, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(influence, "inverse_hvp", functools.partial(core.influence.inverse_hvp, max_iterations=1))
        with pytest.raises(UserError, match=r"did not converge: the relative residual is .* more --damping"):
            worked(pool, cycles=1, **CHOSEN_BY_IT)
    (one,) = run.all_runs()
    assert one.status()[0] == "failed"
    loop.work(one, pool)
    assert one.ranking(0)["expected-influence"].notna().sum() == 280


def test_its_second_model_goes_on_from_its_own_weights_and_travels_with_them(home, pool, monkeypatch, tmp_path):
    """With a step too small to matter, the weights stay what they were."""
    there = worked(pool, warm_start=True, lr=1e-12, epochs=1, **CHOSEN_BY_IT)
    first, second = (load_file(there.cycle_path(c) / SECOND)["head.weight"] for c in (0, 1))
    assert torch.allclose(first, second, atol=1e-6)
    (tmp_path / "run.zip").write_bytes(bundle.to_bytes(there, pool, weights=True))
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "elsewhere"))
    here = bundle.opened(tmp_path / "run.zip")
    here.log.set_fact("target", 4)
    loop.work(here, pool, until=3)
    assert torch.allclose(load_file(here.cycle_path(2) / SECOND)["head.weight"], first, atol=1e-6)
    (here.cycle_path(2) / SECOND).unlink()
    with pytest.raises(UserError, match=r"second model .* not here: open a bundle .*--with-weights"):
        loop.work(here, pool)


def test_people_may_give_the_labels(home, pool):
    one = worked(pool, annotator="person", initial=20, **CHOSEN_BY_IT)
    assert one.ranking(0)["expected-influence"].notna().sum() == 280


def test_two_labels_are_one_to_learn_and_one_to_hold_out(home, pool):
    learner = Learner(Config("active-learning", method="expected-influence", budget=1, cycles=1, **TINY), pool, home)
    rows = np.array([3, 8])
    held_out = learner.validation(rows, 0.2)
    assert len(held_out) == 1
    home.mkdir()
    for left, said in (
        (held_out, "none is left to learn from"),
        (np.setdiff1d(rows, held_out), "none is left to hold out"),
    ):
        with pytest.raises(UserError, match=f"Of 1 labels {said}.*: start with more labels"):
            learner.train(home / "cycle", 0, left, pool.labels[left], validation=held_out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "torchvision:resnet18", "freeze": True}, "needs a network that the run trains: leave --freeze out"),
        ({"predictions": "/there.npy"}, "asks a model for more than its predictions"),
        ({"initial": 1}, "there is one alone: give --initial, at least 2"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(pool, changes, said):
    given = {"task": "active-learning", "method": "expected-influence", "budget": 20, "cycles": 2, **TINY, **changes}
    with pytest.raises(UserError, match=f"expected-influence.*{said}"):
        settle.settle(given, lambda config: pool)
    assert strategies.load("expected-influence").needs == "model"


def test_runs_of_another_damping_are_not_averaged(pool):
    found = [
        spec.deciding(Config("active-learning", method="margin", budget=1, cycles=1, damping=d, **TINY), "method")
        for d in (0.1, 1)
    ]
    assert found[0] != found[1]
