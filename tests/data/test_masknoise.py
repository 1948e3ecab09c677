"""Noise in masks: what each kind does to a region, at which rate, and the same for every part of a pool."""

import numpy as np
import pytest

from data import masknoise
from data.errors import UserError
from data.masks import ByteMasks, narrowed, numbered

KINDS = list(masknoise.KINDS)


def scenes(n: int, seed: int = 0) -> np.ndarray:
    """Masks [n, 36, 36] of 5 classes: nine squares on background 0, each with an unknown pixel beside it."""
    masks = np.zeros((n, 36, 36), np.int64)
    classes = 1 + np.random.default_rng(seed).integers(0, 4, (n, 3, 3))
    for i, j in np.ndindex(3, 3):
        masks[:, 12 * i + 3 : 12 * i + 8, 12 * j + 3 : 12 * j + 8] = classes[:, i, j, None, None]
        masks[:, 12 * i + 3, 12 * j + 8] = -1
    return masks


def one_square() -> np.ndarray:
    mask = np.zeros((12, 16), np.int64)
    mask[4:9, 6:11] = 2
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_is_the_share_of_affected_regions(kind: str) -> None:
    masks = scenes(60)
    for rate in (0.0, 0.2, 1.0):
        found = np.asarray(masknoise.inject(kind, masks, 5, rate, seed=0))
        affected = []
        for before, after in zip(masks, found, strict=True):
            numbers, classes = numbered(before)
            near = [
                masknoise._grown(numbers == k, 3) for k in range(2, len(classes) + 1)
            ]  # the squares, and around them
            affected += [(before != after)[one].any() for one in near]
        assert len(affected) == 540
        assert abs(np.mean(affected) - rate) <= 4 * np.sqrt(rate * (1 - rate) / 540)
        np.testing.assert_array_equal(found < 0, masks < 0)  # void stays void, and nothing becomes so
        assert found.max() < 5


def test_a_swapped_region_has_each_other_class_as_likely() -> None:
    masks = np.stack([one_square()] * 400)
    found = np.asarray(masknoise.inject("swapped-classes", masks, 5, 1.0, seed=0))
    assert (found[masks == 0] == 0).all()  # the largest region is not affected
    now = found[:, 4:9, 6:11].reshape(400, -1)
    assert (now == now[:, :1]).all()
    assert np.bincount(now[:, 0], minlength=5)[2] == 0
    assert (np.abs(np.bincount(now[:, 0], minlength=5)[[0, 1, 3, 4]] - 100) < 40).all()


def test_a_dropped_object_has_the_class_around_it() -> None:
    mask = one_square()
    mask[:, 12:] = 3
    mask[6, 8] = 1  # an object on the object: what surrounds it is the object's class, before that is dropped
    found = np.asarray(masknoise.inject("dropped-objects", mask[None], 5, 1.0, seed=0))[0]
    assert found[6, 8] == 2
    assert (found[4:9, 6:11] == 0).sum() == 24
    mask[3:10, 5:12] = np.where(mask[3:10, 5:12] == 2, 2, -1)
    found = np.asarray(masknoise.inject("dropped-objects", mask[None], 5, 1.0, seed=0))[0]
    assert (found[4:9, 6:11] == 0).sum() == 24  # across a border that nobody labelled


def test_shifted_borders_are_at_most_three_pixels_off() -> None:
    masks = np.stack([one_square()] * 60)
    found = np.asarray(masknoise.inject("shifted-borders", masks, 5, 1.0, seed=0))
    sizes = (found == 2).sum(axis=(1, 2))
    far = masknoise._grown(one_square() == 2, 3)
    assert (found[:, ~far] == 0).all()
    assert set(np.unique(found).tolist()) == {0, 2}
    assert (sizes > 25).any()  # grown
    assert (sizes < 25).any()  # shrunk
    assert (sizes == 25).any()  # moved
    assert (sizes > 0).all()
    assert ((found != masks).any(axis=(1, 2))).all()


def test_growing_takes_in_what_lies_within_a_square_window() -> None:
    one = np.random.default_rng(0).random((7, 5)) < 0.1
    slow = [[one[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].any() for x in range(5)] for y in range(7)]
    np.testing.assert_array_equal(masknoise._grown(one, 2), slow)
    assert masknoise._grown(one, 9).all()


def test_any_part_of_a_pool_is_the_same_by_itself() -> None:
    masks = scenes(8)
    whole = np.asarray(masknoise.inject("mixed", masks, 5, 0.5, seed=3))
    lazily = masknoise.inject("mixed", ByteMasks(narrowed(masks), 5), 5, 0.5, seed=3)
    np.testing.assert_array_equal(lazily[5], whole[5])
    np.testing.assert_array_equal(lazily[[6, 1]], whole[[6, 1]])
    np.testing.assert_array_equal(np.asarray(lazily[2:5]), whole[2:5])
    np.testing.assert_array_equal(np.asarray(masknoise.inject("mixed", masks[:3], 5, 0.5, seed=3)), whole[:3])
    assert (np.asarray(masknoise.inject("mixed", masks, 5, 0.5, seed=4)) != whole).any()
    versions = {masknoise.inject("mixed", masks, 5, rate, seed=s).version for rate in (0.5, 0.6) for s in (3, 4)}
    assert len(versions) == 4
    assert masknoise.inject("mixed", masks, 5, 0.5, seed=3).version in versions


def test_the_same_noise_in_every_version() -> None:
    """Runs that were recorded must resume years later: the noise is part of the format."""
    found = np.asarray(masknoise.inject("mixed", scenes(4), 5, 0.5, seed=0))
    assert [int((one != two).sum()) for one, two in zip(found, scenes(4), strict=True)] == PINNED


PINNED = [169, 98, 135, 132]


def test_an_image_without_a_known_pixel_or_of_one_region_stays() -> None:
    masks = np.full((2, 6, 6), -1)
    masks[1] = 3
    for kind in KINDS:
        np.testing.assert_array_equal(np.asarray(masknoise.inject(kind, masks, 5, 1.0, seed=0)), masks)


def test_what_cannot_be_is_the_users_error() -> None:
    with pytest.raises(UserError, match="choose from mixed, shifted-borders"):
        masknoise.inject("symmetric", scenes(1), 5, 0.1, 0)
    with pytest.raises(UserError, match="between 0 and 1"):
        masknoise.inject("mixed", scenes(1), 5, 1.5, 0)
