"""One mask file: what its pixels mean, how it lies, and why it cannot be taken."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import decode, maskfile
from data.files.maskfile import Legend
from data.lazy import FITS, Fit
from data.masks import VOID

VALUES = Legend({0: 0, 7: 1, 9: 2, 255: VOID}, 3, "classes.csv")
COLOURS = Legend({(0, 0, 0): 0, (128, 0, 0): 1, (9, 9, 9): 2, (224, 224, 192): VOID}, 3, "classes.csv")
CODES = np.array([[0, 1, 2, VOID], [2, 2, 1, 0]], np.uint8)
BYTES = np.array([0, 7, 9] + [255] * 253, np.uint8)[CODES]  # the value of each code
SHOWN = np.array([[0, 0, 0], [128, 0, 0], [9, 9, 9]] + [[224, 224, 192]] * 253, np.uint8)[CODES]


def saved(picture: Image.Image, folder: Path, **options: object) -> Path:
    picture.save(folder / "mask.png", **options)
    return folder / "mask.png"


def indexed(values: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(values).convert("P")
    picture.putdata(values.ravel().tolist())
    palette = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        palette[value] = colour
    picture.putpalette(palette.ravel().tolist())
    return picture


def test_values_of_grey_and_indexed_masks(tmp_path: Path) -> None:
    np.testing.assert_array_equal(maskfile.read(saved(Image.fromarray(BYTES), tmp_path), VALUES, (2, 4)), CODES)
    palette = indexed(BYTES, {0: (255, 0, 0), 7: (255, 0, 0)})  # equal colours, other classes
    np.testing.assert_array_equal(maskfile.read(saved(palette, tmp_path), VALUES, (2, 4)), CODES)
    clear = saved(palette, tmp_path, transparency=0)  # many tools have the background transparent
    np.testing.assert_array_equal(maskfile.read(clear, VALUES, (2, 4)), CODES)


def test_a_mask_of_two_values(tmp_path: Path) -> None:
    legend = Legend({0: 0, 1: 1}, 2, "classes.csv")
    bits = Image.fromarray(CODES % 2 == 1)
    assert bits.mode == "1"
    np.testing.assert_array_equal(maskfile.read(saved(bits, tmp_path), legend, (2, 4)), CODES % 2)


def test_colours_of_rgb_indexed_and_grey_masks(tmp_path: Path) -> None:
    np.testing.assert_array_equal(maskfile.read(saved(Image.fromarray(SHOWN), tmp_path), COLOURS, (2, 4)), CODES)
    palette = indexed(CODES, {1: (128, 0, 0), 2: (9, 9, 9), VOID: (224, 224, 192)})
    np.testing.assert_array_equal(maskfile.read(saved(palette, tmp_path), COLOURS, (2, 4)), CODES)
    np.testing.assert_array_equal(maskfile.read(saved(palette, tmp_path, transparency=b"\0"), COLOURS, (2, 4)), CODES)
    grey = Image.fromarray(np.full((2, 4), 9, np.uint8))
    np.testing.assert_array_equal(maskfile.read(saved(grey, tmp_path), COLOURS, (2, 4)), np.full((2, 4), 2))


def test_a_large_mask_is_read_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.files.imagefile.STRIP", 3)
    np.testing.assert_array_equal(maskfile.read(saved(Image.fromarray(SHOWN), tmp_path), COLOURS, (2, 4)), CODES)


def test_a_mask_is_set_upright_by_its_own_notes(tmp_path: Path) -> None:
    notes = Image.Exif()
    notes[0x0112] = 6  # the camera was turned: the first row is the right column
    mask = saved(Image.fromarray(BYTES), tmp_path, exif=notes)
    np.testing.assert_array_equal(maskfile.read(mask, VALUES, (4, 2)), np.rot90(CODES, -1))
    assert maskfile.head(mask, VALUES, (4, 2)) == ""
    for said in (maskfile.read(mask, VALUES, (2, 4)), maskfile.head(mask, VALUES, (2, 4))):
        assert said == "its mask has 2 × 4 pixels, and the image, as it is shown, 4 × 2; save the mask at that size"


@pytest.mark.parametrize(
    ("picture", "legend", "said", "by_header"),
    [
        (Image.new("L", (5, 2)), VALUES, "its mask has 5 × 2 pixels, and the image, as it is shown, 4 × 2; save", True),
        (Image.new("L", (4, 2), 8), VALUES, "its mask holds the value 8, which classes.csv does not name; add it", False),
        (Image.new("RGB", (4, 2), (1, 2, 3)), COLOURS, r"its mask holds the colour \(1, 2, 3\), which classes", False),
        (Image.new("RGB", (4, 2)), VALUES, "its mask is in colours, and classes.csv names none; add the columns r", True),
        (Image.new("I;16", (4, 2)), VALUES, "its mask has 16 bits a pixel; save it as PNG with 8 bits", True),
        (Image.new("RGBA", (4, 2)), COLOURS, "its mask has transparent parts; save it as PNG with 8 bits", True),
        (Image.new("LA", (4, 2)), VALUES, "its mask has transparent parts; save it", True),
    ],
)  # fmt: skip
def test_a_mask_that_cannot_be_taken_says_what_to_do(
    tmp_path: Path, picture: Image.Image, legend: Legend, said: str, by_header: bool
) -> None:
    mask = saved(picture, tmp_path)
    found = maskfile.read(mask, legend, (2, 4))
    assert isinstance(found, str)
    assert re.match(said, found)
    assert (maskfile.head(mask, legend, (2, 4)) == found) == by_header


def test_a_lossy_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(BYTES).save(tmp_path / "mask.jpg")
    said = "its mask is JPEG, whose pixels may not be what was drawn; save it as PNG"
    assert maskfile.read(tmp_path / "mask.jpg", VALUES, (2, 4)) == said


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    mask = saved(Image.fromarray(np.tile(BYTES, (40, 40))), tmp_path)
    mask.write_bytes(mask.read_bytes()[:90])
    found = maskfile.read(mask, VALUES, (80, 160))
    assert isinstance(found, str)
    assert found.startswith("its mask: ")
    (tmp_path / "text.png").write_text("no picture")
    assert maskfile.head(tmp_path / "text.png", VALUES, (2, 4)) == "its mask: not an image that can be read"


@pytest.mark.parametrize("fit", FITS)
def test_a_mask_comes_to_a_size_as_its_image_does(tmp_path: Path, fit: Fit) -> None:
    """A grey image of its own codes, large areas of each: away from their borders, scaling smooths nothing."""
    codes = np.repeat(np.repeat(np.array([[0, 1, 2], [2, 0, 1]], np.uint8), 60, axis=0), 50, axis=1)  # [120, 150]
    Image.fromarray(100 * codes).save(tmp_path / "image.png")
    image = decode.decode(tmp_path / "image.png", 40, 64, True, fit=fit)
    mask = maskfile.sized(codes, 40, 64, fit)
    assert isinstance(image, np.ndarray)
    assert mask.shape == (40, 64)
    around = mask == VOID
    assert around.any() == (fit == "pad")
    assert (image[around] == 0).all()
    inside = ~around & np.isin(image[..., 0], (0, 100, 200))
    assert inside.sum() > 0.6 * (~around).sum()
    agrees = 100 * mask[inside].astype(int) == image[..., 0][inside]
    assert agrees.mean() > 0.98
    assert set(np.unique(mask[~around])) == {0, 1, 2}
