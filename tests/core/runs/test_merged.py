"""Which mask stands: each annotator's newest pixels, the majority of annotators, and what came with the data."""

import numpy as np
import pandas as pd
import pytest

from core.runs.merged import Merged, undecided
from core.store.maskfiles import MaskFiles
from data.masks import VOID

V = VOID


@pytest.fixture
def standing(tmp_path):
    """Merges events (row, source, codes of four pixels) of two images of 1 × 4."""
    files = MaskFiles(tmp_path / "masks")

    def of(*events):
        drawn = [files.add(np.array([codes], np.uint8)) for _, _, codes in events]
        table = pd.DataFrame({"source": [source for _, source, _ in events], "digest": [one.digest for one in drawn]})
        return Merged(files, np.array([row for row, _, _ in events], dtype=np.int64), table, (2, 1, 4), 3)

    return of


def test_what_came_with_the_data_stands_until_somebody_draws(standing):
    found = standing((0, "given", [0, 1, 2, V]))
    np.testing.assert_array_equal(found[0], [[0, 1, 2, -1]])
    np.testing.assert_array_equal(found[1], [[-1] * 4])
    assert found.blank.tolist() == [False, True]


def test_a_later_mask_of_an_annotator_covers_what_it_draws(standing):
    found = standing((0, "initial", [0, 0, 0, 0]), (0, "person: ann", [1, 1, V, V]), (0, "person: ann", [V, 2, V, V]))
    np.testing.assert_array_equal(found[0], [[1, 2, 0, 0]])


def test_the_majority_of_annotators_stands_and_ties_keep_what_came_with_the_data(standing):
    drawn = [("person: a", [1, 1, 2, V]), ("person: b", [1, 2, 1, V]), ("person: c", [0, V, 2, V])]
    found = standing((0, "given", [0, 0, 0, 2]), *[(0, who, codes) for who, codes in drawn])
    np.testing.assert_array_equal(found[0], [[1, 0, 2, 2]])
    without = standing(*[(0, who, codes) for who, codes in drawn])
    np.testing.assert_array_equal(without[0], [[1, -1, 2, -1]])


def test_the_order_of_annotators_changes_nothing(standing):
    events = [(0, f"person: {k}", np.random.default_rng(k).integers(0, 3, 4).tolist()) for k in range(4)]
    np.testing.assert_array_equal(standing(*events)[0], standing(*events[::-1])[0])


def test_rows_are_read_like_those_of_an_array_and_named_by_what_they_hold(standing):
    found = standing((0, "given", [0, 1, 2, V]), (1, "given", [2, 2, 2, 2]))
    np.testing.assert_array_equal(found[np.array([1, 0])], [[[2, 2, 2, 2]], [[0, 1, 2, -1]]])
    np.testing.assert_array_equal(found[np.array([False, True])], [[[2, 2, 2, 2]]])
    assert (found.shape, found.dtype, found[1:].shape) == ((2, 1, 4), np.int64, (1, 1, 4))
    assert found.version == standing((0, "given", [0, 1, 2, V]), (1, "given", [2, 2, 2, 2])).version
    assert found.version != found.view(np.array([1, 0])).version
    with pytest.raises(IndexError):
        found[2]


def test_masks_that_differ_in_every_pixel_decide_nothing(tmp_path):
    files = MaskFiles(tmp_path / "masks")
    events = [
        (0, "person: a", [0, 1, V, 2]), (0, "person: b", [1, 0, V, 0]),  # a tie in all that they cover
        (1, "person: a", [0, 1, 1, 1]), (1, "person: b", [1, 1, 0, 0]),  # one pixel is the same
        (2, "given", [0, 0, V, V]), (2, "person: a", [1, 1, 1, 1]), (2, "person: b", [2, 2, 2, 2]),
        (3, "person: a", [0, 0, 0, 0]), (3, "person: a", [1, 1, 1, 1]),  # who has thought again
    ]  # fmt: skip
    drawn = [files.add(np.array([codes], np.uint8)) for _, _, codes in events]
    table = pd.DataFrame({"source": [source for _, source, _ in events], "digest": [one.digest for one in drawn]})
    rows = np.array([row for row, _, _ in events], dtype=np.int64)
    assert undecided(files, rows, table).tolist() == [0]
    assert undecided(files, rows[-2:], table[-2:]).tolist() == []
