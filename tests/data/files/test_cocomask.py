"""Masks as COCO writes them: RLE is exact both ways, polygons are drawn as COCO's tools draw them, and what is wrong is said."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy import ndimage

from data.files import cocomask


def masks(n: int = 40) -> list[np.ndarray]:
    """Blobs and noise of all sizes, some empty or full."""
    rng = np.random.default_rng(0)
    found = [np.zeros((3, 5), np.bool_), np.ones((4, 2), np.bool_), np.eye(6, dtype=np.bool_)]
    for k in range(n):
        soft = ndimage.gaussian_filter(rng.random(rng.integers(1, 30, 2)), (0.0, 0.7, 2.0)[k % 3])
        found.append(soft > np.median(soft))
    return found


def counts(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, counted pixel by pixel down the columns."""
    found, inside = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != inside:
            found.append(0)
            inside = pixel
        found[-1] += 1
    return found


def test_rle_holds_every_pixel() -> None:
    for mask in masks():
        height, width = mask.shape
        for rle in (cocomask.compressed(mask), {"size": [height, width], "counts": counts(mask)}):
            np.testing.assert_array_equal(cocomask.drawn(cocomask.read(rle, height, width), height, width), mask)


def test_compressed_rle_is_that_of_cocos_tools() -> None:
    for mask in masks():
        theirs = coco.encode(np.asfortranarray(mask, np.uint8))
        assert cocomask.compressed(mask) == {"size": list(mask.shape), "counts": theirs["counts"].decode()}


def test_an_outline_gives_its_region_again() -> None:
    n, holes = 0, 0
    for mask in masks():
        whole = np.zeros_like(mask)
        for box, region in cocomask.regions(mask):
            whole[box] |= region
            outline = cocomask.outline(region)
            filled = ndimage.binary_fill_holes(
                region, np.ones((3, 3))
            )  # what touches the outside at a corner is no hole here
            if outline is None:
                assert (ndimage.binary_fill_holes(region) != region).any() or (filled != region).any()
                holes += 1
                continue
            n += 1
            again = cocomask.drawn(cocomask.read([outline], *region.shape), *region.shape)
            np.testing.assert_array_equal(again, region)
        np.testing.assert_array_equal(whole, mask)
    assert n > 100
    assert holes > 5


def test_an_outline_has_a_point_at_every_corner_alone() -> None:
    region = np.zeros((4, 6), np.bool_)
    region[1:3, 2:5] = True
    assert cocomask.outline(region) == [2, 1, 5, 1, 5, 3, 2, 3]


def test_polygons_of_one_object_are_drawn_together() -> None:
    two = [[0.0, 0, 2, 0, 2, 2, 0, 2], [4.0, 1, 6, 1, 6, 3, 4, 3]]
    mask = cocomask.drawn(cocomask.read(two, 3, 6), 3, 6)
    assert mask.astype(int).tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]


def test_a_polygon_may_leave_the_image_by_less_than_a_pixel() -> None:
    mask = cocomask.drawn(cocomask.read([[-0.5, -0.5, 4.5, -0.5, 4.5, 3.5, -0.5, 3.5]], 3, 4), 3, 4)
    assert mask.all()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        (None, "has no segmentation; a box alone is no mask"),
        ([], "has no segmentation"),
        ([[0, 0, 3, 3]], "has a polygon of 2 points; it takes 3 at least"),
        ([[]], "has a polygon of 0 points"),
        ([[0, 0, 3, 0, 3, 3, 1]], "has a polygon of 7 numbers, an odd one"),
        ([[0, 0, 3, 0, 3, 40]], r"has a polygon with the point \(3, 40\), outside of the image of 7 × 5 pixels"),
        ([[0, 0, 3, 0, float("nan"), 2]], r"the point \(nan, 2\), outside"),
        ([[0, 0, 3, 0, 10**400, 2]], "has a polygon with a number that is too large"),
        ([[0, 0, 3, 0, "3", 2]], "has a polygon that is no list of numbers"),
        ([0, 0, 3, 0, 3, 2], "has a polygon that is no list of numbers"),
        ({"size": [5, 7], "counts": [30]}, "has an RLE of 30 pixels, and the image has 35"),
        ({"size": [5, 7], "counts": [0, 36]}, "has an RLE of 36 pixels"),
        ({"size": [5, 7], "counts": [-5, 40]}, "has an RLE whose counts are no run lengths"),
        ({"size": [5, 7], "counts": [1 << 70]}, "has an RLE of .* pixels"),
        ({"size": [5, 7], "counts": [3.5, 31.5]}, "has an RLE whose counts are no run lengths"),
        ({"size": [5, 7], "counts": ";230000"}, "has an RLE of 26 pixels, and the image has 35"),
        ({"size": [5, 7], "counts": ";2300000459"}, "has an RLE of 58 pixels"),
        ({"size": [5, 7], "counts": ""}, "has an RLE whose counts are no run lengths"),
        ({"size": [5, 7], "counts": "é7"}, "has an RLE whose counts are no run lengths"),
        ({"size": [5, 7], "counts": "ooooooooo0"}, "has an RLE whose counts are no run lengths"),
        ({"size": [7, 5], "counts": [35]}, r"has an RLE of the size \[7, 5\], and the image has 5 × 7 pixels"),
    ],
)
def test_what_is_no_mask_is_said(segmentation: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cocomask.read(segmentation, 5, 7)
