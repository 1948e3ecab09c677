"""Label cleaning of masks: which regions are ranked, what checking them changes, and that a killed run loses nothing."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from core import masks, metrics, regions
from core.analysis import figures
from core.engine import loop
from core.engine.maps import MaskLearner
from core.runs import branch, reference, settle
from core.runs.run import Run
from core.store.log import Log
from data.errors import UserError
from data.masks import VOID
from tests import squares
from tests.squares import N, made, worked


@pytest.fixture(scope="module")
def pool():
    return squares.pool()


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("regions")))
        yield worked(pool)


def result(one):
    """Everything a run found that does not depend on the clock."""
    cycles = range(len(one.cycles()))
    tables = [one.log.labels().drop(columns="time"), one.cycles().drop(columns="seconds")]
    return [*tables, *(one.ranking(cycle) for cycle in cycles), *(one.regions(cycle) for cycle in cycles)]


def assert_same(one, other):
    for mine, theirs in zip(result(one), result(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_the_run_starts_from_noisy_masks(finished, pool):
    initial = finished.log.labels(0)
    assert initial["source"].tolist() == ["initial"] * N
    assert initial["sample_id"].tolist() == pool.ids
    noisy = np.asarray(reference.initial_labels(finished.config, pool))
    np.testing.assert_array_equal(np.asarray(finished.standing(pool, 0)), noisy)
    assert (noisy != pool.labels).any()


def test_regions_are_those_of_the_masks_that_stand(finished, pool):
    for cycle in range(3):
        standing, table = np.asarray(finished.standing(pool, cycle)), finished.regions(cycle)
        assert [name for name, _ in table.groupby("sample_id", sort=False)] == pool.ids
        for row, part in enumerate(table.groupby("sample_id", sort=False)):
            for region in part[1].itertuples():
                inside = masks.number(standing[row]) == region.region
                y, x = np.nonzero(inside)
                assert region.pixels == inside.sum() > 0
                assert (standing[row][inside] == region.label).all()
                box = (region.top, region.left, region.bottom, region.right)
                assert box == (y.min(), x.min(), y.max() + 1, x.max() + 1)
            assert part[1]["pixels"].sum() == (standing[row] >= 0).sum()


def test_their_scores_are_means_over_their_pixels(finished, pool):
    learner = MaskLearner(finished.config, pool, finished.path.parent)
    (_, p), *rest = learner.combined_maps(learner.scorers(finished.cycle_path(1), 1))
    assert not rest
    found, table = masks.regions(finished.standing(pool, 1), p), finished.regions(1)
    np.testing.assert_allclose(table["cleaning"], found.score(4))
    np.testing.assert_allclose(table["cross-entropy"], found.cross_entropy)
    np.testing.assert_allclose(table["entropy"], found.entropy)
    ranking = finished.ranking(1)
    np.testing.assert_allclose(ranking["cleaning"], masks.cleaning_score(finished.standing(pool, 1), p))
    assert {"oracle", "random"}.isdisjoint(table.columns)


def test_where_each_costs_the_same_they_are_ranked_by_the_sum_over_their_pixels(finished):
    table = finished.regions(1)
    ranked = table[table["rank"].notna()].sort_values("rank")
    assert (np.diff(ranked["cleaning"] * ranked["pixels"]) <= 1e-12).all()
    assert ranked["rank"].tolist() == list(range(1, len(ranked) + 1))


def test_an_image_is_ranked_as_its_best_region_is(finished, pool):
    ranking, table = finished.ranking(1).set_index("sample_id"), finished.regions(1)
    best = table.groupby("sample_id")["rank"].min().dropna()
    assert ranking["rank"].dropna().sort_values().index.tolist() == best.sort_values().index.tolist()
    assert ranking["rank"].dropna().sort_values().tolist() == list(range(1, len(best) + 1))


def test_the_best_regions_are_checked_and_answered_by_the_reference(finished, pool):
    for cycle in (1, 2):
        events, table = finished.log.labels().query("cycle == @cycle"), finished.regions(cycle - 1)
        best = table[table["rank"].notna()].sort_values("rank")[:5]
        assert events["sample_id"].tolist() == best["sample_id"].tolist()
        assert set(events["source"]) == {"reference (regions)"}
        before = np.asarray(finished.standing(pool, cycle - 1))
        for event, number in zip(events.itertuples(), best["region"], strict=True):
            row = pool.ids.index(event.sample_id)
            inside = masks.number(before[row]) == number
            np.testing.assert_array_equal(finished.masks.read(event.digest), np.where(inside, pool.labels[row], VOID))
            assert event.pixels == inside.sum()


def test_what_annotators_have_covered_is_cleaned_and_not_ranked_again(finished, pool):
    events, table = finished.log.labels().query("cycle > 0"), finished.regions(2)
    standing = np.asarray(finished.standing(pool))
    covered = np.zeros(standing.shape, dtype=bool)
    for event in events.itertuples():
        covered[pool.ids.index(event.sample_id)] |= finished.masks.read(event.digest) != VOID
    cleaned = []
    for region in table.itertuples():
        row = pool.ids.index(region.sample_id)
        cleaned.append(covered[row][masks.number(standing[row]) == region.region].all())
    assert (table["status"] == np.where(cleaned, "cleaned", "labelled")).all()
    assert table["rank"].isna().equals(table["status"] == "cleaned")
    assert any(cleaned)
    np.testing.assert_array_equal(standing[covered], pool.labels[covered])


def test_each_cycle_measures_the_masks_that_stand(finished, pool):
    cycles, known = finished.cycles(), pool.labels >= 0
    assert cycles["n_labels"].tolist() == [0, 5, 10]
    for cycle in range(3):
        standing = np.asarray(finished.standing(pool, cycle))
        assert cycles["correctness"][cycle] == pytest.approx((standing == pool.labels)[known].mean())
        whole = metrics.confusion(pool.labels, standing, 4).sum(axis=0)
        assert cycles["label_miou"][cycle] == pytest.approx(float(metrics.mean_iou(whole)))
        events = finished.log.labels(cycle)
        assert cycles["n_pixels"][cycle] == events.loc[events["cycle"] > 0, "pixels"].sum()
    assert cycles["correctness"].is_monotonic_increasing


def test_a_budget_in_pixels_is_not_exceeded(pool, home):
    one = worked(pool, budget_unit="pixels", budget=100)
    for cycle in (1, 2):
        taken = one.log.labels().query("cycle == @cycle")
        assert 0 < taken["pixels"].sum() <= 100
        ranked = one.regions(cycle - 1).dropna(subset="rank").sort_values("rank")
        assert (np.diff(ranked["cleaning"]) <= 0).all()
        assert ranked["pixels"].cumsum().iloc[len(taken)] > 100


def test_a_first_region_beyond_the_budget_is_taken_all_the_same(pool, home):
    one = worked(pool, budget_unit="pixels", budget=1, cycles=2)
    assert one.cycles()["n_labels"].tolist() == [0, 1]


def test_the_oracle_takes_the_regions_with_the_most_wrong_pixels(pool, home):
    one = worked(pool, method="oracle", cycles=2, budget=4)
    standing, table = np.asarray(one.standing(pool, 0)), one.regions(0)
    found = regions.tally(standing, pool.labels)
    np.testing.assert_allclose(table["oracle"], found.wrong / found.pixels)
    gained = (np.asarray(one.standing(pool, 1)) == pool.labels).sum() - (standing == pool.labels).sum()
    assert gained == np.sort(found.wrong)[-4:].sum()


def test_a_random_order_does_not_look_at_how_large_a_region_is(pool, home):
    one = worked(pool, method="random", cycles=1)
    table = one.regions(0)
    assert (np.diff(table.sort_values("rank")["random"]) <= 0).all()
    assert table["random"].between(0, 1).all()


def test_each_fold_is_scored_by_models_that_have_not_learnt_it(pool, home):
    one = worked(pool, folds=3, cycles=2)
    learner = MaskLearner(one.config, pool, one.path.parent)
    whole = np.empty((N, 4, 12, 16), dtype=np.float32)
    for at, p in learner.combined_maps(learner.scorers(one.cycle_path(1), 1)):
        whole[at] = p
    found = masks.regions(one.standing(pool, 1), whole)
    np.testing.assert_allclose(one.regions(1)["cleaning"], found.score(4), rtol=1e-6)


def test_a_selector_that_knows_the_truth_learns_from_the_right_masks(pool, home):
    one = worked(pool, selector="clean", cycles=1)
    (trained,) = one.log.phases().query("phase == 'train'")["result"]
    clean = dataclasses.replace(pool, noisy_labels=pool.labels)
    other = worked(clean, noise=0.0, cycles=1)
    (same,) = other.log.phases().query("phase == 'train'")["result"]
    assert trained["train_miou"] == same["train_miou"]


def test_masks_as_they_were_found_are_held_against_the_clean_ones(pool, home):
    found = np.where(pool.labels == 3, 1, pool.labels)
    one = worked(dataclasses.replace(pool, noisy_labels=found), noise=0.0, cycles=1)
    np.testing.assert_array_equal(np.asarray(one.standing(pool, 0)), found)
    assert one.cycles()["correctness"][0] == pytest.approx((found == pool.labels)[pool.labels >= 0].mean())


class Killed(BaseException):
    """Nothing catches it, and nothing is written after it: what a SIGKILL leaves."""


@pytest.mark.parametrize("phase", ["label", "train", "score"])
def test_a_run_that_dies_before_any_phase_is_recorded_resumes_bit_for_bit(phase, finished, pool, home, monkeypatch):
    one, last = made(pool), "append" if phase == "label" else "finish"
    recorded = getattr(Log, last)

    def die(log, cycle, *arguments, **named):
        if cycle == 1 and (phase == "label" or arguments[0] == phase):
            raise Killed
        return recorded(log, cycle, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Log, last, die)
        with pytest.raises(Killed):
            loop.work(one, pool)
    shutil.rmtree(one.path.parent / ".cache")
    loop.work(one, pool)
    assert_same(one, finished)


def test_people_check_masks_that_came_with_the_data(pool, home):
    """One draws over a region, another one a whole image; what they cover is cleaned, and what they say stands."""
    one = made(pool, noise=0.0, annotator="person", budget=0, folds=2)
    loop.work(one, pool)
    assert one.log.labels()["source"].unique().tolist() == ["given"]
    assert one.cycles().columns.intersection(["correctness", "label_miou"]).empty
    assert "agreement" in one.cycles()
    table = one.regions(0)
    assert table["rank"].notna().all()
    region = table.iloc[1]
    drawn = np.full((2, 12, 16), VOID, dtype=np.uint8)
    drawn[0][masks.number(pool.labels[0]) == region["region"]] = 3
    drawn[1] = 2
    with one.log.answering(["person: Ann", "person: Bo"]) as answers:
        for row, (codes, who) in enumerate(zip(drawn, ("Ann", "Bo"), strict=True)):
            answers.new.append((pool.ids[row], 0, f"person: {who}", one.masks.add(codes)))
    one.log.set_fact("target", 2)
    loop.work(one, pool)
    assert one.cycles()["n_labels"].tolist() == [0, 2]
    assert one.cycles()["n_pixels"].tolist() == [0, region["pixels"] + 12 * 16]
    table = one.regions(1)
    cleaned = table[table["status"] == "cleaned"]
    assert cleaned.groupby("sample_id").size().tolist() == [1, 1]
    assert cleaned["label"].tolist() == [3, 2]
    ranking = one.ranking(1).set_index("sample_id")
    assert ranking.loc[pool.ids[1], "status"] == "cleaned"
    assert pd.isna(ranking.loc[pool.ids[1], "rank"])
    assert ranking.loc[pool.ids[0], "status"] == "labelled"
    assert ranking["rank"].notna().sum() == N - 1
    curve = figures.figure(one, pool, "curves", 1)
    assert [line.name for line in curve.data] == ["labels that an out-of-fold model agrees with", "test mean IoU"]
    assert "random order" not in curve.to_json()  # nothing is estimated


def test_a_pool_that_is_checked_to_the_last_region(pool, home):
    one = made(pool, method="oracle", budget=1000, cycles=3)
    with pytest.raises(UserError, match="nothing left to label"):
        loop.work(one, pool)
    assert one.cycles()["correctness"].iloc[1] == 1.0
    assert one.ranking(1)["rank"].isna().all()
    assert one.regions(1)["rank"].isna().all()
    assert (one.ranking(1)["status"] == "cleaned").all()


def test_active_learning_buys_masks_in_rank_order_while_their_pixels_fit(pool, home):
    some = pool.labels.copy()
    some[::2, :6] = -1  # half of the masks have half of the pixels
    partly = dataclasses.replace(pool, labels=some)
    settings = {"task": "active-learning", "method": "margin", "noise": 0.0, "noise_kind": "symmetric", "initial": 3}
    one = worked(partly, budget_unit="pixels", budget=500, cycles=2, **settings)
    pixels = dict(zip(pool.ids, (some >= 0).sum(axis=(1, 2)), strict=True))
    ranked = one.ranking(0).dropna(subset="rank").sort_values("rank")["sample_id"]
    costs, bought = ranked.map(pixels).cumsum(), one.log.labels().query("cycle == 1")
    assert set(bought["sample_id"]) == set(ranked[costs <= 500])
    assert bought["pixels"].sum() <= 500
    assert one.cycles()["n_pixels"].iloc[1] == one.log.labels()["pixels"].sum()


def test_a_branch_goes_on_from_the_masks_of_the_shared_cycles(finished, pool, home):
    shutil.copytree(finished.path, home / finished.id)
    one = branch.branch(Run(home / finished.id), pool, 1, method="oracle", cycles=3)
    loop.work(one, pool)
    shared = one.log.labels(1)
    pd.testing.assert_frame_equal(shared, finished.log.labels(1))
    assert one.regions(0).equals(finished.regions(0))
    assert one.cycles()["correctness"][2] > finished.cycles()["correctness"][2]


@pytest.mark.parametrize("cycles", [2, 4])
def test_by_default_all_cycles_together_pay_for_the_regions_that_hold_a_wrong_pixel(pool, cycles):
    asked = squares.config(budget=0, cycles=cycles)
    found = regions.tally(reference.initial_labels(asked, pool), pool.labels)
    wrong = found.wrong > 0
    assert settle.prepare(asked, pool).budget == -(-wrong.sum() // (cycles - 1))
    pixels = settle.prepare(dataclasses.replace(asked, budget_unit="pixels"), pool)
    assert pixels.budget == -(-found.pixels[wrong].sum() // (cycles - 1))
    assert settle.prepare(pixels, pool) == pixels


def test_a_budget_in_pixels_is_as_many_whole_images_as_it_pays_for(pool):
    asked = squares.config(task="active-learning", method="margin", noise=0.0, noise_kind="symmetric", cycles=2)
    some = dataclasses.replace(asked, budget_unit="pixels", budget=12 * 16 * 3 + 5)
    assert settle.prepare(some, pool).initial == 3
    with pytest.raises(UserError, match="asks for 14 labels"):
        settle.prepare(dataclasses.replace(some, budget=12 * 16 * 7), pool)
