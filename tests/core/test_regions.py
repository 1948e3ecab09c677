"""Curves of checked regions are those of masks that are really corrected, and the oracle is above every other order."""

from itertools import permutations

import numpy as np
import pytest

from core import masks, metrics, regions
from data.masknoise import inject


def scenes(n: int = 3, seed: int = 0) -> np.ndarray:
    """Right masks [n, 12, 16] of 4 classes, with a column of void."""
    rng = np.random.default_rng(seed)
    found = np.zeros((n, 12, 16), dtype=np.int64)
    for mask in found:
        for top, left in ((1, 1), (1, 9), (7, 2), (7, 10)):
            mask[top : top + 4, left : left + 4] = rng.integers(1, 4)
    found[:, :, 7] = -1
    return found


RIGHT = scenes()
NOISY = np.asarray(inject("mixed", RIGHT, 4, 0.7, seed=1))
IT = regions.tally(NOISY, RIGHT)
UNITS: list[regions.Unit] = ["labels", "pixels"]


def corrected(order, unit):
    """`regions.curve`, slowly: the masks are corrected region by region, and compared pixel by pixel."""
    now, known = NOISY.copy(), RIGHT >= 0
    x, y = [0], [(now == RIGHT)[known].mean()]
    for row in order:
        image = IT.image[row]
        inside = masks.number(NOISY[image]) == IT.number[row]
        now[image][inside] = np.where(RIGHT[image] >= 0, RIGHT[image], now[image])[inside]
        x.append(x[-1] + (1 if unit == "labels" else inside.sum()))
        y.append((now == RIGHT)[known].mean())
    return x, y


def test_a_tally_counts_what_is_wrong():
    assert IT.pixels.sum() == (NOISY >= 0).sum()
    assert IT.wrong.sum() == (NOISY != RIGHT)[RIGHT >= 0].sum()
    assert IT.correctness == (NOISY == RIGHT)[RIGHT >= 0].mean()
    none = regions.tally(NOISY, np.full_like(RIGHT, -1))
    assert np.isnan(none.correctness)
    assert none.wrong.sum() == 0
    assert len(regions.tally(NOISY[:0], RIGHT[:0])) == 0


@pytest.mark.parametrize("unit", UNITS)
def test_a_curve_is_that_of_masks_that_are_corrected(unit):
    order = np.random.default_rng(0).permutation(len(IT))
    for rows in (order, order[:4], order[:0], regions.oracle(IT, unit)):
        for fast, slow in zip(regions.curve(IT, rows, unit), corrected(rows, unit), strict=True):
            np.testing.assert_allclose(fast, slow)
    assert regions.curve(IT, order, unit)[1][-1] == 1.0


@pytest.mark.parametrize("unit", UNITS)
def test_no_order_is_above_the_oracle(unit):
    one = regions.tally(NOISY[:1], RIGHT[:1])
    few = np.argsort(-one.wrong, kind="stable")[:6]
    part = regions.Tally(one.image[few], one.number[few], one.pixels[few], one.wrong[few], one.right, one.known)
    best = regions.curve(part, regions.oracle(part, unit), unit)
    end = float(best[0][-1])
    areas = [regions.area(*regions.curve(part, order, unit), end, unit) for order in permutations(range(len(few)))]
    assert regions.area(*best, end, unit) == pytest.approx(max(areas), abs=1e-12)
    assert min(areas) < max(areas)


@pytest.mark.parametrize("unit", UNITS)
def test_normalised_the_random_order_is_0_and_the_oracle_1(unit):
    end = 5.0 if unit == "labels" else 200.0
    random, oracle = regions.bounds(IT, end, unit, range(5))
    assert IT.correctness < random < oracle < 1
    assert metrics.normalised_auc(oracle, random, oracle) == 1
    each = [regions.area(x, y, end, unit) for x, y in regions.random(IT, unit, range(5))]
    assert random == pytest.approx(np.mean(each))
    assert len(set(each)) == 5


def test_the_area_of_labels_is_the_mean_after_each_as_with_classes():
    x, y = regions.curve(IT, regions.oracle(IT, "labels"), "labels")
    assert regions.area(x, y, 6, "labels") == pytest.approx(y[:7].mean())
    assert regions.area(x, y, 1000, "labels") == pytest.approx((y.sum() + (1001 - len(y)) * y[-1]) / 1001)


def test_the_area_of_pixels_ends_within_a_region():
    x, y = np.array([0.0, 10, 30]), np.array([0.5, 0.7, 0.9])
    assert regions.area(x, y, 20, "pixels") == pytest.approx((10 * 0.6 + 10 * 0.75) / 20)
    assert regions.area(x, y, 40, "pixels") == pytest.approx((10 * 0.6 + 20 * 0.8 + 10 * 0.9) / 40)
    assert regions.area(x, y, 0, "pixels") == 0.5


def test_what_a_budget_pays_for():
    assert regions.affordable([5, 1, 7], 2, "labels") == 2
    assert regions.affordable([5, 1, 7], 9, "labels") == 3
    assert [regions.affordable([5, 1, 7], budget, "pixels") for budget in (0, 1, 5, 6, 12, 13, 99)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    assert regions.affordable([], 9, "pixels") == 0


def test_regions_are_taken_by_the_sum_where_each_costs_the_same():
    assert regions.priority([0.5, 0.1], [2, 20], "labels").tolist() == [1, 2]
    assert regions.priority([0.5, 0.1], [2, 20], "pixels").tolist() == [0.5, 0.1]
