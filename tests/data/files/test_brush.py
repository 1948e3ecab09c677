"""Label Studio's brush: every pixel both ways, the bytes that its own tools write, and what is wrong is said."""

import numpy as np
import pytest

from data.files import brush

# label_studio_sdk 2.1.2, converter.brush.encode_rle, of the mask [[0, 1, 1], [0, 0, 1]]
THEIRS = [0, 0, 0, 24, 57, 27, 252, 96, 19, 255, 206, 1, 31, 248]
# as an annotator's browser may: literal values, of which those of the rim are softened
LITERAL = f"{24:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "".join(
    f"0{0b01:02b}{3:04b}" + 4 * f"{alpha:08b}" for alpha in (0, 255, 200, 3, 127, 128)
)


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_the_brush_holds_every_pixel(share: float) -> None:
    for sides in ((1, 1), (7, 5), (40, 50), (160, 120)):
        mask = np.random.default_rng(0).random(sides) < share
        rle = brush.encoded(mask)
        assert set(map(type, rle)) == {int}
        np.testing.assert_array_equal(brush.decoded(rle, *sides), mask)


def test_the_bytes_are_those_of_label_studios_own_tools() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.bool_)
    assert brush.encoded(mask) == THEIRS
    np.testing.assert_array_equal(brush.decoded(THEIRS, 2, 3), mask)


def test_values_that_are_not_alike_are_read_and_rims_are_halved() -> None:
    bits = LITERAL + "0" * (-len(LITERAL) % 8)
    rle = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    np.testing.assert_array_equal(brush.decoded(rle, 2, 3), [[False, True, True], [False, False, True]])


@pytest.mark.parametrize(
    ("rle", "said"),
    [
        (THEIRS[:-3], "ends too early"),
        (THEIRS[:3], "ends too early"),
        ([], "ends too early"),
        ([*THEIRS[:3], 28, *THEIRS[4:]], "a brush of 28 values, and an image of 2 × 3 pixels has 24"),
        ([300], "no list of bytes"),
        ("abc", "no list of bytes"),
        (None, "no list of bytes"),
        ([*THEIRS[:4], 0, *THEIRS[5:]], "values of 1 bits"),
        (
            [0, 0, 0, 24, 0b00111001, 0b00110111, 0b11110111] + [255] * 20,
            "runs are longer than the image|ends too early",
        ),
    ],
)
def test_what_is_no_brush_is_said(rle: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        brush.decoded(rle, 2, 3)
