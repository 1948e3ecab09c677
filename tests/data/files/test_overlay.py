"""Masks over images: which pixels take which colour, and that every eye can read the scale."""

import numpy as np
import pytest

from data.files import overlay
from data.masks import VOID, colours

GREY = np.full((1, 4, 4, 1), 100, dtype=np.uint8)
NAMES = ["background", "cat", "dog"]


def test_classes_are_coloured_and_background_is_the_image():
    masks = np.array([[[0, 1], [2, 1]]], dtype=np.uint8)
    found = overlay.overlay(np.full((1, 2, 2, 3), 40, dtype=np.uint8), masks, NAMES, 1.0)
    assert found[0, 0, 0].tolist() == [40, 40, 40]
    assert tuple(found[0, 0, 1]) == colours(3)[1]
    assert tuple(found[0, 1, 0]) == colours(3)[2]


@pytest.mark.parametrize(("opacity", "red"), [(0.0, 100), (0.5, (100 + 230) // 2), (1.0, 230)])
def test_opacity_goes_from_the_image_to_the_colour(opacity, red):
    found = overlay.overlay(GREY, np.ones((1, 4, 4), dtype=np.uint8), NAMES, opacity)
    assert found.shape == (1, 4, 4, 3)
    assert found[0, 0, 0, 0] == red


def test_unknown_pixels_of_a_mask_are_hatched_and_mostly_the_image():
    masks = np.full((2, 20, 20), VOID, np.uint8)
    masks[0, 0, 0] = 0  # all but one pixel are unknown; the other image has no mask at all
    found = overlay.overlay(np.zeros((2, 20, 20, 3), dtype=np.uint8), masks, NAMES, 1.0)
    marked = (found > 0).any(axis=3)
    assert 0.1 < marked[0].mean() < 0.3
    assert not marked[1].any()
    assert set(np.unique(found[marked])) == set(overlay.HATCHED)


def test_differing_pixels_are_marked_where_both_are_known():
    one = np.array([[[0, 1, VOID, 1]]], dtype=np.uint8)
    other = np.array([[[0, 2, 2, VOID]]], dtype=np.uint8)
    found = overlay.differing(np.full((1, 1, 4, 3), 100, dtype=np.uint8), one, other, 1.0)
    assert [tuple(pixel) == overlay.WRONG for pixel in found[0, 0]] == [False, True, False, False]
    assert (found[0, 0, [0, 2, 3]] == 60).all()  # without colours, and dimmed


def test_the_scale_of_heat_rises_evenly_in_lightness():
    found = overlay.heat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)).reshape(256, 3) / 255
    linear = np.where(found <= 0.04045, found / 12.92, ((found + 0.055) / 1.055) ** 2.4)
    light = 116 * np.cbrt(np.maximum(linear @ [0.2126, 0.7152, 0.0722], 0.008856)) - 16  # CIE L*
    steps = np.diff(light[::17])
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.mean()


def test_masks_are_resized_by_their_nearest_pixel():
    mask = np.array([[[0, 1], [2, 3]]], dtype=np.uint8)
    larger = overlay.resized(mask, 4, 6)
    assert larger[0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert overlay.resized(larger, 2, 2).tolist() == mask.tolist()
    assert overlay.resized(mask, 2, 2) is mask
