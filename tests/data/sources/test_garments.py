"""The embedded scenes: the same on every machine, with masks that follow from what lies on top, and not trivial."""

import hashlib

import numpy as np
import pytest

import data
from data.masks import VOID
from data.sources import garments


@pytest.fixture(scope="module")
def pool() -> data.ImageDataset:
    return data.load("garments")


def test_shapes(pool: data.ImageDataset) -> None:
    assert pool.answer == "mask"
    assert (pool.images.shape, pool.images.dtype) == ((400, 64, 64, 3), "uint8")
    assert (pool.labels.shape, pool.labels.dtype) == ((400, 64, 64), "int64")
    assert (pool.test_images.shape, pool.test_labels.shape) == ((200, 64, 64, 3), (200, 64, 64))
    assert pool.class_names[:2] == ["background", "T-shirt"]
    assert len(pool.class_names) == 11
    assert pool.labelled.all()


def test_the_scenes_are_the_recorded_ones(pool: data.ImageDataset) -> None:
    """Runs find their data by the fingerprint: it must be the same in every version of numpy, and on every machine."""
    assert pool.fingerprint == "77008f9e31011b7484dfd93d715dd046"
    assert hashlib.sha256(np.asarray(pool.test_images).tobytes()).hexdigest()[:16] == "3b68a4b7656d4a41"


def test_every_class_is_there_in_pool_and_test_set(pool: data.ImageDataset) -> None:
    for masks in (np.asarray(pool.labels), np.asarray(pool.test_labels)):
        share = np.bincount(masks[masks >= 0], minlength=11) / (masks >= 0).sum()
        assert 0.6 < share[0] < 0.8
        assert share[1:].min() > 0.01
        assert 0.005 < (masks == -1).mean() < 0.05


def test_a_limit_takes_some_of_the_scenes(pool: data.ImageDataset) -> None:
    part = data.load("garments", limit=30)
    rows = [pool.ids.index(id) for id in part.ids]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(part.labels, pool.labels[rows])
    assert len(part.test_labels) == 200


def test_what_lies_on_top_is_the_class_and_its_border_on_another_is_unknown() -> None:
    squares = np.full((16, 28, 28), 255, np.uint8)
    images, masks = garments.compose(squares, np.arange(16) % 10, 4, seed=3)
    assert images.shape == (4, 64, 64, 3)
    for mask in masks:
        assert 2 <= len(np.unique(mask[(mask > 0) & (mask < VOID)])) <= 4
        for one, other in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):  # no two garments touch
            assert not ((one != other) & (one > 0) & (other > 0) & (one < VOID) & (other < VOID)).any()


def test_garments_stand_out_from_what_lies_below_but_not_by_much(pool: data.ImageDataset) -> None:
    masks, grey = np.asarray(pool.labels), np.asarray(pool.images).mean(axis=3)
    contrast = [abs(one[mask > 0].mean() - one[mask == 0].mean()) for one, mask in zip(grey, masks, strict=True)]
    assert 10 < np.quantile(contrast, 0.1) < np.quantile(contrast, 0.5) < 60  # of 255
