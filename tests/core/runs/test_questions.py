"""Checking and completing a configuration."""

import dataclasses

import numpy as np
import pytest

import data
from core.runs import questions, reference, settle
from core.runs.spec import Config
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
    assert settle.prepare(LEARN, pool).initial == 40
    assert settle.prepare(dataclasses.replace(LEARN, initial=10), pool).initial == 10


def test_cleaning_expects_three_labels_for_each_wrong_one(pool):
    found = settle.prepare(CLEAN, pool)
    assert found.noise == 0.15
    assert votes.expected_noise(pool.label_counts, found.temperature) == pytest.approx(0.15)
    assert found.budget == np.ceil(round(3 * 0.15 * 400) / 2)


@pytest.mark.parametrize("config", [LEARN, CLEAN, dataclasses.replace(CLEAN, temperature=4.0)])
def test_what_is_prepared_may_be_prepared_again(pool, config):
    """A branch does so, with other settings: noise and the temperature that was found for it are then both there."""
    once = settle.prepare(config, pool)
    assert settle.prepare(once, pool) == once
    assert settle.prepare(dataclasses.replace(once, budget=7), pool) == dataclasses.replace(once, budget=7)


def test_noise_and_another_temperature_are_refused(pool):
    with pytest.raises(UserError, match="two ways to say the same"):
        settle.prepare(dataclasses.replace(CLEAN, noise=0.15, temperature=9.0), pool)


def test_a_nominal_noise_rate_means_its_published_temperature(pool):
    nominal = dataclasses.replace(pool, noise_temperatures={0.15: 2.0})
    assert settle.prepare(CLEAN, nominal).temperature == 2.0


def test_labels_without_votes_are_ranked_as_they_are(bare):
    found = settle.prepare(CLEAN, bare)
    assert (found.cycles, found.budget) == (1, 0)
    assert reference.reference_counts(found, bare) is None
    np.testing.assert_array_equal(reference.initial_labels(found, bare), bare.labels)


def test_injected_noise_takes_the_labels_for_the_truth(bare):
    found = settle.prepare(dataclasses.replace(CLEAN, noise=0.2), bare)
    noisy = reference.initial_labels(found, bare)
    assert 0.12 < (noisy != bare.labels).mean() < 0.28
    np.testing.assert_array_equal(reference.reference_counts(found, bare).argmax(axis=1), bare.labels)


def test_initial_labels_depend_on_the_seed_alone(pool):
    found = settle.prepare(CLEAN, pool)
    np.testing.assert_array_equal(reference.initial_labels(found, pool), reference.initial_labels(found, pool))
    assert (
        reference.initial_labels(dataclasses.replace(found, seed=1), pool) != reference.initial_labels(found, pool)
    ).any()


def test_unknown_data_sets_have_defaults_too():
    assert settle.defaults("active-learning", "fashion")["model"] == "small-cnn"
    assert settle.defaults("label-cleaning", "folder") == settle.PRESETS["label-cleaning", ""]


@pytest.mark.parametrize(("config", "change", "message"), [
    (LEARN, {"method": "best"}, '--strategy is "best": choose one of random'), (LEARN, {"budget": 0}, "--budget is 0"),
    (LEARN, {"budget": -1}, "at least 0"),
    (LEARN, {"budget": 200}, "asks for 600 labels"), (LEARN, {"lr": 0.0}, "--lr"), (LEARN, {"lr": float("nan")}, "--lr"),
    (LEARN, {"cycles": 0}, "--cycles is 0"), (LEARN, {"batch_size": 1}, "--batch-size is 1"),
    (CLEAN, {"method": "best"}, '--score is "best": choose one of cleaning'), (CLEAN, {"gamma": 2.0}, "--gamma"),
    (CLEAN, {"noise": 1.0}, "--noise"), (CLEAN, {"temperature": 0.0}, "--temperature"),
    (CLEAN, {"selector": "magic"}, '--selector is "magic": choose one of vanilla'),
])  # fmt: skip
def test_says_what_cannot_run(pool, config, change, message):
    with pytest.raises(UserError, match=message):
        settle.prepare(dataclasses.replace(config, **change), pool)


def test_says_what_needs_votes_or_labels(bare):
    for change, message in (({"method": "oracle"}, "true labels"), ({"temperature": 2.0}, "no annotations")):
        with pytest.raises(UserError, match=message):
            settle.prepare(dataclasses.replace(CLEAN, **change), bare)
    unlabelled = dataclasses.replace(bare, labels=np.where(np.arange(400) < 3, -1, bare.labels))
    with pytest.raises(UserError, match="3 images have no label"):
        settle.prepare(CLEAN, unlabelled)


def test_a_cleaning_budget_is_shared_out_among_the_cycles_after_the_first(pool):
    """Three labels for each of 60 wrong ones."""
    budgets = {
        cycles: settle.prepare(dataclasses.replace(CLEAN, cycles=cycles), pool).budget for cycles in (1, 2, 4, 8)
    }
    assert budgets == {1: 180, 2: 180, 4: 60, 8: 26}  # rounded up
    assert settle.prepare(dataclasses.replace(CLEAN, budget=7), pool).budget == 7


def test_the_budget_at_a_given_temperature_follows_its_expected_noise(pool):
    found = settle.prepare(dataclasses.replace(CLEAN, temperature=2.0, cycles=2), pool)
    shares = pool.label_counts**0.5 / (pool.label_counts**0.5).sum(axis=1, keepdims=True)
    assert found.budget == round(3 * (1 - shares.max(axis=1)).sum())
    assert found.temperature == 2.0


def test_noise_and_temperature_are_not_given_both(pool):
    with pytest.raises(UserError, match="--noise and --temperature"):
        settle.prepare(dataclasses.replace(CLEAN, noise=0.15, temperature=2.0), pool)


def test_the_truth_is_what_people_said_also_where_noise_is_injected(pool):
    assert reference.reference_counts(dataclasses.replace(CLEAN, noise=0.2), pool) is pool.label_counts


def test_images_without_a_reference_label_are_never_drawn_nor_counted(pool):
    known = np.arange(400) % 4 == 0
    few = dataclasses.replace(pool, labels=np.where(known, pool.labels, -1))
    with pytest.raises(UserError, match="pool holds 100 images"):
        settle.prepare(LEARN, few)
    rows, labels, source = questions.ActiveLearning(
        settle.prepare(dataclasses.replace(LEARN, budget=30), few), few
    ).initial()
    assert len(rows) == 30
    assert known[rows].all()
    assert labels.tolist() == pool.labels[rows].tolist()
    assert set(source) == {"reference"}


@pytest.mark.parametrize("task", questions.TASKS)
@pytest.mark.parametrize("name", ["seed", "budget", "initial", "finetune_epochs", "epochs", "width"])
def test_numbers_below_their_range_are_refused_by_their_option(pool, task, name):
    config = LEARN if task == "active-learning" else CLEAN
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is -1: give at least [01]"):
        settle.prepare(dataclasses.replace(config, **{name: -1}), pool)


def test_noise_that_the_votes_cannot_give_is_refused(pool):
    with pytest.raises(UserError, match="choose between"):
        settle.prepare(dataclasses.replace(CLEAN, noise=0.99), pool)


def test_every_preset_runs_on_a_data_set_of_its_kind(pool):
    for (task, dataset), settings in settle.PRESETS.items():
        if settings["model"] == "small-unet":
            continue  # of masks: tests/core/engine/test_maps.py runs them
        assert settle.defaults(task, dataset) == settings
        method = "margin" if task == "active-learning" else "cleaning"
        config = Config(**{"budget": 0, **settings, "task": task, "dataset": dataset or "folder", "method": method})
        settle.prepare(dataclasses.replace(config, budget=min(config.budget, 80)), pool)  # the pool here is small
