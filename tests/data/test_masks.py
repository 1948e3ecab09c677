"""Masks of one byte a pixel are read as int64, with -1 for unknown."""

from pathlib import Path

import numpy as np
import pytest

from data.masks import VOID, ByteMasks, MadeMasks, narrowed, numbered, widened

MASKS = np.random.default_rng(0).integers(-1, 12, (9, 5, 7))
MASKS[4] = -1


@pytest.mark.parametrize(
    "masks",
    [
        ByteMasks(narrowed(MASKS), 12),
        MadeMasks(lambda row: narrowed(MASKS[row : row + 1])[0], MASKS.shape, 12, "name", np.arange(9) == 4),
    ],
    ids=["bytes", "made"],
)
def test_they_are_indexed_like_an_array(masks: ByteMasks | MadeMasks) -> None:
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


def test_those_that_are_made_are_named_by_what_they_follow_from() -> None:
    masks = MadeMasks(lambda row: narrowed(MASKS[row : row + 1])[0], MASKS.shape, 12, "name", np.arange(9) == 4)
    assert masks[3:6].blank.tolist() == [False, True, False]
    assert masks[1:].readable().all()
    other = MadeMasks(lambda row: np.zeros(MASKS.shape[1:], np.uint8), MASKS.shape, 12, "other")
    assert len({masks.version, other.version, masks[1:].version, masks[:8].version}) == 4
    assert masks.version == masks[:].version


def test_regions_are_numbered_by_class() -> None:
    numbers, classes = numbered(np.array([[5, 5, 2], [-1, 2, 5], [5, -1, -1]]))
    assert numbers.tolist() == [[2, 2, 1], [0, 1, 2], [3, 0, 0]]
    assert classes.tolist() == [2, 5, 5]
    assert numbered(np.full((2, 2), -1))[1].tolist() == []


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
