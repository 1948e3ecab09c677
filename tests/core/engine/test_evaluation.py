"""Classifiers before and after cleaning, and the choice among them."""

import dataclasses
import shutil

import numpy as np
import pytest

import data
from core import metrics
from core.analysis import policies
from core.engine import evaluation, loop
from core.runs import run, settle
from core.runs.spec import Config
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 200, "model": "small-cnn", "width": 4, "epochs": 3, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory, pool):
    """A home with a finished run; each test works on a copy."""
    folder = tmp_path_factory.mktemp("cleaned")
    config = Config(task="label-cleaning", method="cleaning", budget=80, cycles=2, noise=0.25, static=True, **TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(folder))
        loop.work(run.create(settle.prepare(config, pool), settle.about(pool)), pool)
    return folder


@pytest.fixture
def one(home, cleaned):
    shutil.copytree(cleaned, home)
    return run.all_runs()[0]


def plain_prefix(one, pool, relabelled):
    """Go through the log until the next sample would be one too many."""
    _, taken, events = one.state(pool.ids)
    majority = one.state(pool.ids, 0)[0].majority.copy()
    touched, count = set(), 0
    for i in np.flatnonzero((events["cycle"] > 0).to_numpy()):
        if taken.sample[i] not in touched and len(touched) == round(relabelled * len(pool)):
            break
        touched.add(taken.sample[i])
        majority[taken.sample[i]] = taken.majority[i]
        count += 1
    return majority, count


@pytest.mark.parametrize("relabelled", [0.0, 0.05, 0.1])
def test_labels_after_a_share_was_relabelled_are_those_of_the_log_so_far(one, pool, relabelled):
    labels, count = evaluation.labels_of(one, pool, "after", relabelled)
    plain, plain_count = plain_prefix(one, pool, relabelled)
    np.testing.assert_array_equal(labels, plain)
    assert count == plain_count


def test_before_all_and_clean_labels(one, pool):
    np.testing.assert_array_equal(evaluation.labels_of(one, pool, "before")[0], one.state(pool.ids, 0)[0].majority)
    labels, count = evaluation.labels_of(one, pool, "after")
    np.testing.assert_array_equal(labels, one.state(pool.ids)[0].majority)
    assert count == 80
    np.testing.assert_array_equal(evaluation.labels_of(one, pool, "clean")[0], pool.label_counts.argmax(axis=1))


def test_more_than_was_relabelled_cannot_be_asked_for(one, pool):
    with pytest.raises(UserError, match="less than the 90"):
        evaluation.labels_of(one, pool, "after", 0.9)


def test_a_classifier_is_trained_once_and_kept(one, pool):
    lines: list[str] = []
    found = evaluation.evaluate(one, pool, one.config, "after", seed=1, report=lines.append)
    assert found["correctness"] == metrics.correctness(one.state(pool.ids)[0].majority, pool.label_counts)
    assert 0 <= found["accuracy"] <= 1
    assert evaluation.evaluate(one, pool, one.config, "after", seed=1, report=lines.append) == found
    assert len(lines) == 1


def test_before_is_the_first_model_of_a_run_with_the_same_seed(one, pool):
    found = evaluation.evaluate(one, pool, one.config, "before", seed=one.config.seed)
    assert found["accuracy"] == one.cycles()["accuracy"][0]


def test_table_1_holds_what_was_measured_beside_the_paper(one, pool):
    elr = dataclasses.replace(one.config, selector="elr")
    for seed in (0, 1):
        for which in ("before", "after", "clean"):
            evaluation.evaluate(one, pool, one.config, which, seed=seed)
    evaluation.evaluate(one, pool, elr, "before", seed=0)
    table = policies.before_after([one]).set_index(["selector", "classifier"])
    row = table.loc["vanilla", "vanilla"]
    facts = one.log.facts("evaluation/vanilla/after")
    assert row["after"] == pytest.approx(100 * np.mean([fact["accuracy"] for fact in facts.values()]))
    assert row["gain"] == pytest.approx(row["after"] - row["before"])
    assert (row["n_seeds"], row["paper_before"], row["paper_after"]) == (2, 64.1, 68.4)
    assert np.isnan(table.loc["–", "elr"]["after"])
    assert table.loc["clean training", "vanilla"]["paper_after"] == 73.6
    assert ("ssl", "ssl") not in table.index


def test_models_are_ranked_on_a_part_that_they_have_not_seen(one, pool):
    found = evaluation.select_models(one, pool, seed=0)
    assert len(found) == len(evaluation.candidates(one.config))
    table = policies.model_selection([one])
    assert len(table) == len(found)
    assert table["accuracy"].between(0, 100).all()
    taus = policies.agreement(table)
    assert set(taus) == {"validation_noisy", "validation_cleaned", "validation_right"}
    assert evaluation.select_models(one, pool, seed=0) == found


def test_without_test_images_nothing_can_be_measured(one, pool):
    bare = dataclasses.replace(pool, test_images=pool.test_images[:0], test_labels=pool.test_labels[:0])
    with pytest.raises(UserError, match="no test images"):
        evaluation.evaluate(one, bare, one.config, "before", seed=0)
