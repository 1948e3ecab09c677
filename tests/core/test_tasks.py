"""Checking and completing a configuration."""

import dataclasses

import numpy as np
import pytest

import data
from core import tasks
from core.run import Config
from data import votes
from data.errors import UserError


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=400)


@pytest.fixture(scope="module")
def bare(pool):
    return dataclasses.replace(pool, label_counts=None, annotators="none")


LEARN = Config("active-learning", "fashion", "margin", 40, 3)
CLEAN = Config("label-cleaning", "fashion", "cleaning", 0, 3)


def test_learning_starts_with_a_budget_of_labels(pool):
    assert tasks.prepare(LEARN, pool).initial == 40
    assert tasks.prepare(dataclasses.replace(LEARN, initial=10), pool).initial == 10


def test_cleaning_expects_three_labels_for_each_wrong_one(pool):
    found = tasks.prepare(CLEAN, pool)
    assert found.noise == 0.15
    assert votes.expected_noise(pool.label_counts, found.temperature) == pytest.approx(0.15)
    assert found.budget == np.ceil(round(3 * 0.15 * 400) / 2)


def test_a_nominal_noise_rate_means_its_published_temperature(pool):
    nominal = dataclasses.replace(pool, noise_temperatures={0.15: 2.0})
    assert tasks.prepare(CLEAN, nominal).temperature == 2.0


def test_labels_without_votes_are_ranked_as_they_are(bare):
    found = tasks.prepare(CLEAN, bare)
    assert (found.cycles, found.budget) == (1, 0)
    assert tasks.reference_counts(found, bare) is None
    np.testing.assert_array_equal(tasks.initial_labels(found, bare), bare.labels)


def test_injected_noise_takes_the_labels_for_the_truth(bare):
    found = tasks.prepare(dataclasses.replace(CLEAN, noise=0.2), bare)
    noisy = tasks.initial_labels(found, bare)
    assert 0.12 < (noisy != bare.labels).mean() < 0.28
    np.testing.assert_array_equal(tasks.reference_counts(found, bare).argmax(axis=1), bare.labels)


def test_initial_labels_depend_on_the_seed_alone(pool):
    found = tasks.prepare(CLEAN, pool)
    np.testing.assert_array_equal(tasks.initial_labels(found, pool), tasks.initial_labels(found, pool))
    assert (tasks.initial_labels(dataclasses.replace(found, seed=1), pool) != tasks.initial_labels(found, pool)).any()


def test_unknown_data_sets_have_defaults_too():
    assert tasks.defaults("active-learning", "fashion")["model"] == "small-cnn"
    assert tasks.defaults("label-cleaning", "folder") == tasks.PRESETS["label-cleaning", ""]


@pytest.mark.parametrize(("config", "change", "message"), [
    (LEARN, {"method": "best"}, "no strategy"), (LEARN, {"budget": 0}, "--budget is 0"), (LEARN, {"budget": -1}, "at least 0"),
    (LEARN, {"budget": 200}, "asks for 600 labels"), (LEARN, {"lr": 0.0}, "--lr"), (LEARN, {"lr": float("nan")}, "--lr"),
    (LEARN, {"cycles": 0}, "--cycles is 0"), (LEARN, {"batch_size": 1}, "--batch-size is 1"),
    (CLEAN, {"method": "best"}, "no score"), (CLEAN, {"gamma": 2.0}, "--gamma"), (CLEAN, {"noise": 1.0}, "--noise"),
    (CLEAN, {"temperature": 0.0}, "--temperature"), (CLEAN, {"selector": "magic"}, "no selector"),
])  # fmt: skip
def test_says_what_cannot_run(pool, config, change, message):
    with pytest.raises(UserError, match=message):
        tasks.prepare(dataclasses.replace(config, **change), pool)


def test_says_what_needs_votes_or_labels(bare):
    for change, message in (({"method": "oracle"}, "true labels"), ({"temperature": 2.0}, "no votes")):
        with pytest.raises(UserError, match=message):
            tasks.prepare(dataclasses.replace(CLEAN, **change), bare)
    unlabelled = dataclasses.replace(bare, labels=np.where(np.arange(400) < 3, -1, bare.labels))
    with pytest.raises(UserError, match="3 images have no label"):
        tasks.prepare(CLEAN, unlabelled)
