"""Masks of one byte a pixel are read as int64, with -1 for unknown."""

from pathlib import Path

import numpy as np
import pytest

from data.masks import VOID, ByteMasks, narrowed, widened

MASKS = np.random.default_rng(0).integers(-1, 12, (9, 5, 7))
MASKS[4] = -1


def test_they_are_indexed_like_an_array() -> None:
    masks = ByteMasks(narrowed(MASKS), 12)
    assert (masks.shape, masks.dtype, masks.ndim, len(masks), masks.nbytes) == ((9, 5, 7), "int64", 3, 9, MASKS.nbytes)
    for key in (3, np.int64(5), -1, np.array([4, 4, 0]), [2, 1], MASKS[:, 0, 0] > 3):
        np.testing.assert_array_equal(masks[key], MASKS[key])
        assert masks[key].dtype == np.int64
    for key in (slice(2, 7), slice(None, None, 3), slice(0, 0)):
        np.testing.assert_array_equal(np.asarray(masks[key]), MASKS[key])
    np.testing.assert_array_equal(masks.view(np.array([7, 1]))[1:][0], MASKS[1])
    np.testing.assert_array_equal(masks[2:].view(np.array([2, 1])), MASKS[[4, 3]])


def test_bytes_and_back() -> None:
    assert narrowed(MASKS).max() == VOID
    np.testing.assert_array_equal(widened(narrowed(MASKS)), MASKS)
    np.testing.assert_array_equal(narrowed(ByteMasks(narrowed(MASKS), 12)), narrowed(MASKS))


def test_those_without_a_known_pixel_are_known() -> None:
    assert np.flatnonzero(ByteMasks(narrowed(MASKS), 12).blank).tolist() == [4]
    assert ByteMasks(narrowed(MASKS), 12)[3:6].blank.tolist() == [False, True, False]


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    whole = ByteMasks(narrowed(MASKS), 12)
    np.save(tmp_path / "masks.npy", narrowed(MASKS))
    mapped = ByteMasks(np.load(tmp_path / "masks.npy", mmap_mode="r"), 12)
    assert mapped.version == whole.version
    assert mapped[1:].version == ByteMasks(narrowed(MASKS[1:]), 12).version
    assert len({whole.version, whole[1:].version, whole[::-1].version}) == 3


def test_a_code_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="outside of the 11"):
        ByteMasks(narrowed(MASKS), 11)
