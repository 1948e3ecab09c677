"""The loop: what it records, that it repeats, and that a killed worker loses nothing."""

import dataclasses
import os
import random
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import data
from core import relabel, strategies
from core.__main__ import main
from core.analysis import curves
from core.engine import inference, loop
from core.engine.learner import Learner
from core.gradnorm import gradient_norms
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.runs import jobs, live, questions, reference, run, settle, spec
from core.runs.spec import Config
from data.errors import UserError
from data.files import look
from tests import forked, squares

OF_CLASSES = [name for name, one in strategies.CATALOGUE.items() if "class" in one.answers]
TINY = {"dataset": "fashion", "limit": 300, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


def config(task="active-learning", **changes):
    settings = {"method": "entropy-gradnorm", "budget": 20, "cycles": 3, **TINY}
    if task == "label-cleaning":
        settings |= {"method": "cleaning", "budget": 0, "finetune_epochs": 1}
    return Config(task=task, **{**settings, **changes})


def start(pool, **changes):
    return run.create(settle.prepare(config(**changes), pool), settle.about(pool))


def result(one):
    """Everything a run found that does not depend on the clock."""
    log = one.log.labels().drop(columns="time")
    return log, one.cycles().drop(columns="seconds"), one.ranking(one.target() - 1)


def forget(home):
    """What equal trainings and scores of earlier runs left, so that a run has to do its own work."""
    shutil.rmtree(home / ".cache")


def assert_same(one, other):
    for mine, theirs in zip(result(one), result(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.parametrize("method", OF_CLASSES)
def test_active_learning_labels_the_best_of_the_last_ranking(home, pool, method):
    one = start(pool, method=method)
    loop.work(one, pool)
    assert one.status()[0] == "finished"
    assert one.cycles()["n_labels"].tolist() == [20, 40, 60]
    log = one.log.labels()
    assert log["sample_id"].is_unique
    labels = dict(zip(pool.ids, pool.labels, strict=True))
    assert all(labels[i] == label for i, label in zip(log["sample_id"], log["label"], strict=True))
    ranking = one.ranking(0)
    best = ranking.nsmallest(20, "rank")
    assert set(best["sample_id"]) == set(log.loc[log["cycle"] == 1, "sample_id"])
    assert best[method].min() >= ranking.loc[ranking["rank"] > 20, method].max()
    assert ranking.loc[ranking["status"] == "labelled", method].isna().all() or method == "margin"


def test_strategies_share_the_first_labels_and_the_first_model(home, pool):
    """They differ in what they choose and, from the second cycle on, in what they ask of training."""
    runs = [start(pool, method=method) for method in ("random", "mc-dropout", "ll4al", "expected-influence")]
    for one in runs:
        loop.work(one, pool)
    first = [one.log.labels(0).drop(columns="time") for one in runs]
    weights = [(one.cycle_path(0) / "weights.safetensors").read_bytes() for one in runs]
    for one, labels, content in zip(runs, first, weights, strict=True):
        pd.testing.assert_frame_equal(labels, first[0])
        assert content == weights[0]
        assert one.cycles()["accuracy"][0] == runs[0].cycles()["accuracy"][0]
    shared = [one.log.phases().query("phase == 'train'")["result"].tolist() for one in runs]
    assert [[cycle["shared"] for cycle in each] for each in shared] == [
        [False, False, False],
        [True, False, False],
        [True, False, False],
        [True, False, False],
    ]
    assert (runs[2].cycle_path(2) / "companion.safetensors").is_file()


@pytest.mark.parametrize("method", OF_CLASSES)
def test_a_pool_that_is_labelled_to_the_last_image(home, method):
    few = data.load("fashion", limit=60)
    settings = {**TINY, "limit": 60, "epochs": 1}
    one = run.create(
        settle.prepare(Config("active-learning", method=method, budget=20, cycles=3, evidence=True, **settings), few),
        settle.about(few),
    )
    loop.work(one, few)
    assert one.status()[0] == "finished"
    assert one.cycles()["n_labels"].tolist() == [20, 40, 60]
    assert one.ranking(2)["rank"].isna().all()


def test_both_schemes_of_the_paper_are_one_computation(home, pool):
    expected, entropy = start(pool, method="expected-gradnorm"), start(pool, method="entropy-gradnorm")
    loop.work(expected, pool)
    loop.work(entropy, pool)
    pd.testing.assert_frame_equal(*(one.log.labels().drop(columns="time") for one in (expected, entropy)))
    assert all(row["shared"] for row in entropy.log.phases().query("phase == 'train'")["result"])


def test_a_shared_training_whose_file_is_damaged_or_gone_is_done_again(home, pool):
    one = start(pool, cycles=1)
    loop.work(one, pool)
    kept = (one.cycle_path(0) / "weights.safetensors").read_bytes()
    for spoil in (lambda path: path.write_bytes(kept[:-1] + b"\0"), lambda path: path.unlink()):
        spoil(one.cycle_path(0) / "weights.safetensors")
        two = start(pool, cycles=1)
        loop.work(two, pool)
        assert (two.cycle_path(0) / "weights.safetensors").read_bytes() == kept
        assert not two.log.phases().query("phase == 'train'")["result"].iloc[0]["shared"]
        one = two


def test_only_the_subset_is_ranked_and_chosen_from(home, pool):
    one = start(pool, method="margin", subset=50)
    loop.work(one, pool)
    for c in range(2):
        ranked = one.ranking(c).dropna(subset="rank")
        assert len(ranked) == 50
        assert (ranked["status"] == "unlabelled").all()
        chosen = one.log.labels().query(f"cycle == {c + 1}")["sample_id"]
        assert set(chosen) == set(ranked.nsmallest(20, "rank")["sample_id"])
    assert set(one.ranking(0).dropna(subset="rank")["sample_id"]) != set(
        one.ranking(1).dropna(subset="rank")["sample_id"]
    )


def test_a_warm_start_goes_on_from_the_last_weights(home, pool):
    """With a step too small to matter, the weights stay what they were; a fresh start draws others."""
    for warm in (True, False):
        one = start(pool, method="random", warm_start=warm, lr=1e-12, epochs=1, cycles=2)
        loop.work(one, pool)
        first, second = (load_file(one.cycle_path(c) / "weights.safetensors")["head.weight"] for c in range(2))
        assert torch.allclose(first, second, atol=1e-6) == warm


def test_the_control_of_how_norms_fall_is_all_that_was_ranked_in_whatever_subset(home, pool):
    """Half of those that are ranked once are not ranked again, so that they have to be scored for it."""
    one = start(pool, method="entropy-gradnorm", evidence=True, subset=100, cycles=2)
    loop.work(one, pool)
    assert one.cycles()[["selected", "pool"]].iloc[1].tolist() == [20, 100]
    ranking = one.ranking(0)
    ranked = np.flatnonzero(ranking["rank"].notna())
    scorer = Learner(one.config, pool, home).scorers(one.cycle_path(1), 1)[0, 0]
    after = scorer.gradient_norms(ranked, "entropy", "sum")
    assert one.cycles()["pool_fell"][1] == (after <= ranking["entropy-gradnorm"].to_numpy()[ranked]).sum()


@pytest.mark.parametrize("reduction", ["sum", "l2"])
def test_the_reduction_of_gradient_norms_is_a_setting(home, pool, reduction):
    one = start(pool, reduction=reduction, evidence=True)
    loop.work(one, pool)
    ranking = one.ranking(1).dropna(subset="rank")
    pd.testing.assert_series_equal(ranking["entropy-gradnorm"], ranking[f"{reduction}-gradnorm"], check_names=False)
    assert (ranking["l2-gradnorm"] < ranking["sum-gradnorm"]).all()
    assert (ranking["head-gradnorm"] < ranking["sum-gradnorm"]).all()


def test_evidence_measures_true_label_norms_and_how_norms_fall(home, pool):
    one = start(pool, method="entropy-gradnorm", evidence=True, epochs=6)
    loop.work(one, pool)
    table, cycles = one.ranking(1), one.cycles()
    assert table["label-gradnorm"].notna().equals(table["rank"].notna())
    assert cycles["selected"].tolist()[1:] == [20, 20]
    # By hand: the chosen ones under the next model, from its weights
    chosen = one.log.labels().query("cycle == 2")["sample_id"]
    before = table.set_index("sample_id").loc[chosen, "entropy-gradnorm"].to_numpy()
    model = architectures.build("small-cnn", 1, 10, 4, seed=0).eval()
    model.load_state_dict(load_file(one.cycle_path(2) / "weights.safetensors"))
    images = Images(pool.images, *channel_statistics(pool.images), torch.device("cpu"))
    rows = np.array([pool.ids.index(i) for i in chosen])
    after = gradient_norms(model, images[rows], loss="entropy").numpy()
    assert cycles["fell"][2] == (after <= before).sum()
    # The control: all that were ranked, those that were chosen among them
    ranked = np.flatnonzero(table["rank"].notna())
    after = gradient_norms(model, images[ranked], loss="entropy").numpy()
    assert cycles["pool"].tolist()[1:] == [280, 260]
    assert cycles["pool_fell"][2] == (after <= table["entropy-gradnorm"].to_numpy()[ranked]).sum()
    assert cycles["fell"][2] < cycles["pool_fell"][2] < 260
    egl = start(pool, method="egl", evidence=True, cycles=1)
    loop.work(egl, pool)
    assert egl.ranking(0)["entropy-gradnorm"].notna().sum() == 280


@pytest.mark.parametrize("method", spec.scores())
def test_label_cleaning_corrects_labels(home, pool, method):
    one = start(pool, task="label-cleaning", method=method)
    loop.work(one, pool)
    cycles = one.cycles()
    assert (cycles["correctness"].diff().dropna() > 0).all()
    assert (cycles["n_labels"].diff().dropna() == one.config.budget).all()
    log = one.log.labels()
    assert (log.loc[log["cycle"] == 0, "source"] == "initial").all()
    assert (log.loc[log["cycle"] > 0, "source"] == "votes (simulated)").all()
    assert one.posterior(0).shape == (300, 10)


def test_static_cleaning_in_the_engine_equals_the_simulation(home, pool):
    """The random order does not change between cycles, so that the engine's curve is that of `simulate`."""
    one = start(pool, task="label-cleaning", method="random", cycles=4, budget=37)
    loop.work(one, pool)
    curve = curves.cleaning_curve(one, pool)["correctness"].to_numpy()
    initial = reference.initial_labels(one.config, pool)
    expected = relabel.simulate(pool.label_counts, initial, "random", budget=3 * 37, seeds=[0]).correctness[0]
    np.testing.assert_array_equal(curve, expected)


@pytest.mark.parametrize("task", ["active-learning", "label-cleaning"])
def test_the_same_configuration_gives_the_same_run(home, pool, task):
    one, two = start(pool, task=task), start(pool, task=task)
    loop.work(one, pool)
    forget(home)
    loop.work(two, pool)
    assert_same(one, two)
    other = start(pool, task=task, seed=1)
    loop.work(other, pool)
    assert other.log.labels()["label"].tolist() != one.log.labels()["label"].tolist()


@pytest.mark.parametrize("task", ["active-learning", "label-cleaning"])
def test_a_run_killed_three_times_resumes_bit_for_bit(home, pool, task):
    whole = start(pool, task=task, epochs=8)
    loop.work(whole, pool)
    forget(home)
    killed = start(pool, task=task, epochs=8)
    moments = random.Random(0)
    for _ in range(3):
        worker = forked.command("resume", killed.id)
        forked.wait_until(lambda worker=worker: killed.is_running() or not worker.is_alive())
        time.sleep(moments.uniform(0.05, 1.5))
        worker.kill()
        worker.join()
        assert not killed.is_running()
    if killed.status()[0] != "finished":
        assert killed.status()[0] == "stopped"
        assert "nothing finished is lost" in killed.status()[1]
    loop.work(killed, pool)
    assert_same(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "said"), [
    (signal.SIGSEGV, "was killed by signal 11 (segmentation fault)"),
    (signal.SIGABRT, "was killed by signal 6 (aborted)"),
    (signal.SIGBUS, "was killed by signal 7 (bus error)"),
    (signal.SIGKILL, "was killed, most likely for lack of memory"),
])  # fmt: skip
def test_a_worker_that_the_system_ended_is_said_to_be(home, pool, capsys, sent, said):
    one = start(pool, epochs=400)
    for before, again in enumerate(("", ", for the second time in the same phase")):
        worker = forked.command("resume", one.id)
        while len((now := one.live()).deaths) < before or not (now.running and now.share):
            time.sleep(0.05)
        assert one.live().death == ""  # it is at work
        os.kill(worker.pid, sent)
        worker.join()
        state, sentence = one.status()
        assert state == "stopped"
        assert f"Its worker {said}" in sentence
        assert f"in cycle 0, phase train{again}" in sentence
        main(["list"])
        assert said in capsys.readouterr().out
        main(["show", one.id])
        assert said in capsys.readouterr().out


def test_a_worker_that_ends_by_itself_leaves_no_word_of_death(home, pool):
    one = start(pool, cycles=1)
    loop.work(one, pool)
    assert one.live().death == ""
    assert not (one.path / live.CRASH).exists()


def test_a_second_worker_is_refused(home, pool):
    one = start(pool)
    with one.lock, pytest.raises(UserError, match="another process"):
        loop.work(one, pool)
    assert one.live().error == ""  # the first worker's run is not marked by it


def test_a_pause_stops_after_the_phase_and_resume_goes_on(home, pool):
    one = start(pool)
    lines = []

    def pause_after_two(line):
        lines.append(line)
        if len(lines) == 2:
            jobs.pause(one)

    with pytest.raises(loop.Paused, match="cycle 0"):
        loop.work(one, pool, report=pause_after_two)
    assert one.log.phases()["phase"].tolist() == ["label", "train"]
    assert one.status()[0] == "stopped"
    loop.work(one, pool)
    assert one.status()[0] == "finished"


def test_a_failure_is_kept_for_the_dashboard_and_cleared_by_the_next_try(home, pool):
    one = start(pool, lr=1e25, schedule="step")
    with pytest.raises(UserError, match="diverged"):
        loop.work(one, pool)
    assert one.status() == ("failed", one.live().error)
    assert one.log.phases()["phase"].tolist() == ["label"]  # what was computed is kept


def test_nothing_left_to_clean_is_said(home, pool):
    one = start(pool, task="label-cleaning", method="random", cycles=3, budget=5000)
    with pytest.raises(UserError, match="nothing left"):
        loop.work(one, pool)
    assert len(one.cycles()) == 2


def test_scores_are_computed_once_for_the_same_content(home, pool, monkeypatch):
    loop.work(start(pool), pool)
    monkeypatch.setattr(inference, "gradient_norms", None)  # a second computation would fail
    loop.work(start(pool), pool)


def test_labels_without_annotators_are_ranked_once(home, pool):
    bare = dataclasses.replace(pool, label_counts=None, annotators="none")
    one = run.create(settle.prepare(config("label-cleaning", cycles=4), bare), settle.about(bare))
    loop.work(one, bare)
    assert len(one.cycles()) == 1
    assert "correctness" not in one.cycles()
    assert one.ranking(0)["cleaning"].notna().all()


def test_noise_can_be_injected_into_trusted_labels(home, pool):
    bare = dataclasses.replace(pool, label_counts=None, annotators="none")
    one = run.create(settle.prepare(config("label-cleaning", noise=0.3), bare), settle.about(bare))
    loop.work(one, bare)
    assert 0.6 < one.cycles()["correctness"][0] < 0.8


def test_the_worker_of_a_job_survives_its_starter_and_can_be_cancelled(home, pool):
    one = start(pool, epochs=200)
    jobs.start(one)
    forked.wait_until(lambda: one.live().phase == "train")
    assert one.status()[0] == "running"
    with pytest.raises(UserError, match="already"):
        jobs.start(one)
    assert os.getpgid(one.live().pid) != os.getpgid(0)
    jobs.cancel(one)
    forked.wait_until(lambda: not one.is_running())
    assert one.status()[0] == "stopped"
    assert one.log.phases()["phase"].tolist() == ["label"]
    assert "interrupted" in jobs.worker_log(one)


@pytest.mark.parametrize("task", questions.TASKS)
def test_one_step_can_take_another_number_of_labels(home, pool, task):
    """That step alone: the one after it takes the budget again, and the ranking says which number was taken from it."""
    one = start(pool, task=task, budget=20, cycles=2)
    one.log.set_fact("target", 4)
    loop.work(one, pool, until=1)
    jobs.take(one, 7)
    loop.work(one, pool)
    assert one.log.labels()["cycle"].value_counts()[[1, 2, 3]].tolist() == [7, 20, 20]
    assert [one.config_at(at).budget for at in range(4)] == [7, 20, 20, 20]
    best = one.ranking(0).nsmallest(7, "rank")["sample_id"]
    assert set(one.log.labels().query("cycle == 1")["sample_id"]) <= set(best)


def test_a_step_that_was_cancelled_leaves_the_next_one_its_budget(home, pool):
    one = start(pool, budget=20, cycles=3)
    loop.work(one, pool, until=1)
    jobs.take(one, 7)
    jobs.take(one, None)
    loop.work(one, pool, until=2)
    assert one.cycles()["n_labels"].tolist() == [20, 40]
    jobs.take(one, 5)
    loop.work(one, pool)
    jobs.take(one, None)  # it is done: nothing to take back
    assert [one.config_at(at).budget for at in range(3)] == [20, 5, 20]


def test_taking_half_twice_is_taking_the_whole_where_the_ranking_stays(home, pool):
    """Ten labels in one step, or five and five, of a static ranking: the same labels."""
    whole, halves = (start(pool, task="label-cleaning", budget=10, static=True, finetune_epochs=0) for _ in range(2))
    loop.work(whole, pool, until=2)
    loop.work(halves, pool, until=1)
    for at in (2, 3):
        jobs.take(halves, 5)
        loop.work(halves, pool, until=at)
    columns = ["sample_id", "label", "source"]
    pd.testing.assert_frame_equal(whole.log.labels()[columns], halves.log.labels()[columns])


def test_a_step_on_the_way_leaves_the_rest_to_come(home, pool):
    one = start(pool, cycles=3)
    loop.work(one, pool, until=1)
    assert one.status() == ("stopped", "Stopped after 1 of 3 cycles; nothing finished is lost, and it can go on.")
    loop.work(one, pool, until=99)  # no more than it is to have
    assert len(one.cycles()) == 3


@pytest.mark.parametrize(("labels", "sentence"), [
    (0, "0 labels cannot be taken from a ranking of 280 images: give 1 to 280"),
    (281, "281 labels cannot be taken from a ranking of 280 images"),
])  # fmt: skip
def test_no_more_is_taken_than_there_is(home, pool, labels, sentence):
    one = start(pool)
    loop.work(one, pool, until=1)
    with pytest.raises(UserError, match=sentence):
        jobs.take(one, labels)
    assert one.log.facts(run.TAKE) == {}


def test_more_pixels_are_taken_than_there_are_images(home):
    config = squares.config(task="active-learning", budget_unit="pixels")
    one = run.create(config, {**settle.about(squares.pool()), "answer": "mask"})
    one.cycle_path(0).mkdir()
    pd.DataFrame({"rank": [1.0, 2.0]}).to_parquet(one.cycle_path(0) / "ranking.parquet")
    one.log.finish(0, "score", 0.0, {})
    jobs.take(one, 300)
    assert one.config_at(0).budget == 300


def test_nothing_is_taken_before_a_ranking_or_after_the_labels(home, pool, monkeypatch):
    one = start(pool)
    with pytest.raises(UserError, match="has no ranking yet to take labels from"):
        jobs.take(one, 5)
    loop.work(one, pool, until=1)

    def fails(*_, **__):
        raise UserError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "train", fails)
        with pytest.raises(UserError, match="disk is full"):
            loop.work(one, pool)
    with pytest.raises(UserError, match="has collected the labels of cycle 1 already: resume it first"):
        jobs.take(one, 5)


def test_people_say_by_labelling_how_many_are_taken(home, pool):
    one = start(pool, annotator="person", initial=20)
    loop.work(one, pool, until=1)
    with pytest.raises(UserError, match="as many are taken as they label"):
        jobs.take(one, 5)


@pytest.mark.parametrize("task", ["active-learning", "label-cleaning"])
def test_images_that_turn_out_to_be_damaged_are_named_and_left_out(home, tmp_path, monkeypatch, task):
    """Of a pool that is too large to be decoded before the start, only headers were read."""
    monkeypatch.setattr(look, "VERIFIED", 0)
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "data"))
    random, root = np.random.default_rng(0), tmp_path / "images"
    for split, n in (("train", 30), ("test", 6)):
        for label, low in (("dark", 0), ("light", 128)):
            (root / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = random.integers(low, low + 128, (12, 12), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i:02d}.png")
    damaged = [f"train/{label}/{i:02d}.png" for label in ("dark", "light") for i in range(5)]
    for name in (*damaged, "test/dark/00.png"):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[:70] + b"no pixels" + content[79:])  # behind the header
    given = {"task": task, "dataset": "folder", "root": str(root), "cycles": 2, "epochs": 2, "width": 4}
    given |= {"method": "margin", "budget": 8} if task == "active-learning" else {"method": "cleaning", "noise": 0.2}
    given |= {} if task == "active-learning" else {"annotator": "simulated", "test_share": None}
    config, pool = settle.settle(given, settle.loader())
    assert len(pool) == 60
    lines, one = [], run.create(config, settle.about(pool))
    loop.work(one, pool, report=lines.append)
    assert one.status()[0] == "finished"
    assert any("10 files are left out" in line for line in lines)
    ranking = one.ranking(1).set_index("sample_id")
    assert ranking.loc[damaged, "rank"].isna().all()
    left_out = one.left_out()
    assert [group.n for group in left_out] == [10]
    events = one.log.labels()
    assert not set(damaged) & set(events.loc[events["cycle"] == 1, "sample_id"])
    assert np.isfinite(one.cycles()["accuracy"]).all()
