"""Masks as content-addressed files: what is written is read again, and what is damaged is named."""

import numpy as np
import pytest
from PIL import Image

from core.store.maskfiles import MaskFiles
from data.errors import UserError
from data.masks import VOID, colours


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a-run").mkdir()
    return MaskFiles(tmp_path / "a-run" / "masks")


def mask(seed=0, height=5, width=7):
    codes = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint8)
    codes[0, :3] = VOID
    return codes


def test_a_mask_is_read_as_it_was_added(files):
    drawn = files.add(mask())
    assert drawn.pixels == 5 * 7 - 3
    np.testing.assert_array_equal(files.read(drawn.digest), mask())


def test_equal_masks_are_one_file_and_the_shape_counts(files):
    first = files.add(mask())
    assert files.add(mask()) == first
    assert files.add(np.zeros((2, 6), np.uint8)).digest != files.add(np.zeros((3, 4), np.uint8)).digest
    assert len(list(files.folder.rglob("*.png"))) == 3


def test_a_viewer_sees_the_colours_of_the_classes(files):
    drawn = files.add(np.array([[0, 1], [2, VOID]], np.uint8))
    (path,) = files.folder.rglob("*.png")
    assert path.stem == drawn.digest
    with Image.open(path) as image:
        shown = np.asarray(image.convert("RGB"))
    assert [tuple(pixel) for pixel in shown.reshape(-1, 3).tolist()] == [*colours(3), (0, 0, 0)]


def swapped(path):
    Image.fromarray(mask(1), mode="P").save(path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "is damaged"),
        (lambda path: Image.new("RGB", (7, 5)).save(path), "is damaged"),
        (swapped, "is damaged"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(files, harm, said):
    drawn = files.add(mask())
    (path,) = files.folder.rglob("*.png")
    harm(path)
    with pytest.raises(UserError, match=f"of run a-run {said}: restore .* from a backup"):
        files.read(drawn.digest)
