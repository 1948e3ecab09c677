"""The loop where labels are masks: what it records, that it repeats, and what its columns mean."""

import dataclasses

import numpy as np
import pytest
import torch

import data
from core import masks, metrics, strategies
from core.engine import loop
from core.engine.maps import MaskLearner
from core.gradnorm import gradient_norms
from core.models.forward import predict
from core.runs import annotation, run, settle
from core.runs.answers import ENTROPIES, PREDICTED
from core.runs.spec import Config
from data.errors import UserError
from data.masks import narrowed
from tests import forked

TINY = {"dataset": "garments", "limit": 24, "model": "small-unet", "width": 4, "steps": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def pool():
    return data.load("garments", limit=24)


def config(**changes):
    settings = {"task": "active-learning", "method": "entropy-gradnorm", "budget": 4, "initial": 6, "cycles": 2}
    return Config(**{**TINY, **settings, **changes})


def made(pool, **changes):
    return run.create(settle.prepare(config(**changes), pool), settle.about(pool))


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory):
    """A run of two cycles with evidence, and its learner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("masks")))
        one = made(pool, evidence=True)
        loop.work(one, pool)
    return one


def scorer(one, pool, cycle=1):
    learner = MaskLearner(one.config, pool, one.path.parent)
    return learner, learner.scorers(one.cycle_path(cycle), cycle)


def posterior(learner, found):
    """All posteriors at once, float64 [N, C, H, W], in the order of the pool."""
    whole = np.empty((len(learner.dataset), 11, *learner.dataset.labels.shape[1:]))
    for at, p in learner.combined_maps(found):
        whole[at] = p
    return whole


def test_the_log_names_masks_which_lie_beside_it(finished, pool):
    events = finished.log.labels()
    assert (events["label"] == 0).all()
    assert len(events) == 6 + 4
    row_of = {name: row for row, name in enumerate(pool.ids)}
    for event in events.itertuples():
        reference = pool.labels[row_of[event.sample_id]]
        np.testing.assert_array_equal(finished.masks.read(event.digest), np.where(reference < 0, 255, reference))
        assert event.pixels == (reference >= 0).sum()
    standing = finished.standing(pool)
    assert (~standing.blank).sum() == 10


def test_what_is_kept_of_the_posterior_is_its_means(finished, pool):
    learner, found = scorer(finished, pool)
    p, ranking, here = posterior(learner, found), finished.ranking(1), finished.cycle_path(1)
    np.testing.assert_array_equal(np.load(here / PREDICTED), p.argmax(axis=1))
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1)
    np.testing.assert_allclose(np.load(here / ENTROPIES) / 255, entropy / np.log(11), atol=0.003)
    np.testing.assert_allclose(ranking["entropy"], masks.entropy(p), rtol=1e-5)
    np.testing.assert_allclose(ranking["margin"], masks.margin(p), rtol=1e-5)
    np.testing.assert_allclose(ranking["confidence"], p.max(axis=1).mean(axis=(1, 2)), rtol=1e-5)
    each = metrics.confusion(pool.labels, p.argmax(axis=1), 11)
    np.testing.assert_allclose(ranking["iou"], metrics.mean_iou(each))
    np.testing.assert_allclose(ranking["pixel-accuracy"], metrics.pixel_accuracy(each))
    assert not (here / "posterior.npy").exists()


def test_test_images_are_measured_as_one_matrix(finished, pool):
    learner, found = scorer(finished, pool)
    whole = predict(found[0, 0].model, learner.test)
    total = metrics.confusion(pool.test_labels, whole.argmax(axis=1), 11).sum(axis=0)
    last = finished.cycles().iloc[-1]
    assert last["miou"] == pytest.approx(float(metrics.mean_iou(total)))
    assert last["pixel_accuracy"] == pytest.approx(float(metrics.pixel_accuracy(total)))
    np.testing.assert_allclose(finished.class_iou().loc[1], metrics.iou(total))


def test_gradient_norms_are_those_of_the_mean_entropy_and_of_the_mask(finished, pool):
    learner, found = scorer(finished, pool)
    ranking = finished.ranking(1)
    rows = np.flatnonzero(ranking["rank"].notna())
    model, x = found[0, 0].model.double(), learner.pool[rows].double()
    np.testing.assert_allclose(ranking["entropy-gradnorm"][rows], gradient_norms(model, x).detach().numpy(), rtol=1e-3)
    by_label = gradient_norms(model, x, loss="label", targets=torch.from_numpy(pool.labels[rows]))
    np.testing.assert_allclose(ranking["label-gradnorm"][rows], by_label.detach().numpy(), rtol=1e-3)
    assert finished.cycles()["fell"].iloc[1] <= 4


@pytest.mark.parametrize("method", [name for name, one in strategies.CATALOGUE.items() if "mask" in one.answers])
def test_every_strategy_of_masks_ranks(method, pool, home):
    one = made(pool, method=method)
    loop.work(one, pool)
    assert one.ranking(1)[method].notna().sum() == 24 - 10
    assert one.log.labels(1)["sample_id"].nunique() == 10


def test_equal_runs_are_equal_and_a_killed_one_goes_on_to_the_same(finished, pool, home):
    one = made(pool, evidence=True)
    worker = forked.command("resume", one.id)
    forked.wait_until(lambda: (one.cycle_path(0) / "weights.safetensors").exists() or not worker.is_alive())
    worker.kill()
    worker.join()
    loop.work(one, pool)
    columns = ["cycle", "sample_id", "label", "source", "digest", "pixels"]
    assert one.log.labels()[columns].equals(finished.log.labels()[columns])
    for cycle in range(2):
        assert one.ranking(cycle).equals(finished.ranking(cycle))
        assert (one.cycle_path(cycle) / PREDICTED).read_bytes() == (finished.cycle_path(cycle) / PREDICTED).read_bytes()


def test_at_most_so_many_of_a_sequence_are_labelled(pool, home):
    grouped = dataclasses.replace(pool, groups=["a"] * 20 + ["b"] * 4)
    one = made(grouped, per_group=2)
    loop.work(one, grouped)
    chosen = one.log.labels(1).query("cycle == 1")["sample_id"]
    assert sorted(grouped.groups[pool.ids.index(name)] for name in chosen) == ["a", "a", "b", "b"] or len(chosen) < 4
    assert max(sum(grouped.groups[pool.ids.index(name)] == which for name in chosen) for which in "ab") <= 2


def test_people_may_draw_before_the_first_training(pool, home):
    unlabelled = dataclasses.replace(pool, labels=np.full(pool.labels.shape, -1))
    one = made(unlabelled, annotator="person", initial=0)
    with pytest.raises(loop.Waiting, match="its labels are of 0 classes, and the first training takes two"):
        loop.work(one, unlabelled)
    with pytest.raises(UserError, match="has no labels of two classes yet"):
        annotation.check_step(one)
    for row in range(4):
        annotation.record_mask(one, pool.ids[row], narrowed(pool.labels[row : row + 1])[0], "ann")
    annotation.check_step(one)
    loop.work(one, unlabelled)
    assert one.cycles()["n_labels"].tolist() == [4]
    assert one.ranking(0)["entropy-gradnorm"].notna().sum() == 20
