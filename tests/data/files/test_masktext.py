"""Masks as text: every mask comes back, the text is short, and whatever is none is refused in a sentence."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import data
from data.errors import UserError
from data.files import masktext
from data.masks import VOID, narrowed

CODES = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 1, 6, VOID])
)


@given(CODES)
def test_every_mask_comes_back(codes):
    np.testing.assert_array_equal(masktext.decode(masktext.encode(codes), *codes.shape, 7), codes)


@pytest.mark.parametrize("length", [1, 255, 256, 257, 511, 512, 513])
def test_a_run_is_split_after_256_pixels(length):
    codes = np.array([[3] * length + [0]], np.uint8)
    content = base64.b64decode(masktext.encode(codes))
    assert len(content) == 2 * (-(-length // 256) + 1)
    np.testing.assert_array_equal(masktext.decode(masktext.encode(codes), 1, length + 1, 4), codes)


def test_what_the_text_says():
    """Three pixels of class 2, one unknown: (3 − 1, 2), (1 − 1, 255)."""
    text = masktext.encode(np.array([[2, 2], [2, VOID]], np.uint8))
    assert base64.b64decode(text) == bytes([2, 2, 0, 255])


def test_masks_of_scenes_are_short():
    codes = narrowed(data.load("garments").labels[:20])
    assert max(len(masktext.encode(one)) for one in codes) < codes[0].size / 3


def text(*content):
    return base64.b64encode(bytes(content)).decode()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "not a text"),
        (["AwA="], "not a text"),
        (b"AwA=", "not a text"),
        ("", "has 0 pixels"),
        (text(2, 0), "has 3 pixels, and those of this data set 2 × 2, which is 4"),
        (text(4, 0), "has 5 pixels"),
        (text(0, 0, 0, 0, 0, 0, 0, 0, 0, 0), "longer than one of 2 × 2"),
        ("A" * 10_000_000, "longer than one of 2 × 2"),
        (text(3, 0, 0), "its last run is cut off"),
        ("AwA", "no base64"),
        ("Aw A=", "no base64"),
        ("Aw!A", "no base64"),
        ("Ä" * 4, "no base64"),
        (text(3, 5), "has the class 5, and there are 5, counted from 0"),
        (text(1, 0, 1, 254), "has the class 254"),
    ],
)
def test_what_is_no_mask_is_refused(given, says):
    with pytest.raises(UserError, match=says) as error:
        masktext.decode(given, 2, 2, 5)
    assert str(error.value).endswith("nothing of it was saved; load the page again, and draw it once more.")
