"""The one place where files become pixels: shape, depth, windows and colours."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import decode, dicom, imagefile


def wide(tmp_path: Path) -> Path:
    """20 × 40: red on the left, green in the middle, blue on the right."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_resize_stretches(tmp_path: Path) -> None:
    found = decode.decode(wide(tmp_path), 8, 8, False)
    assert found[4, [0, 4, 7]].argmax(axis=1).tolist() == [0, 1, 2]


def test_crop_cuts_what_stands_out(tmp_path: Path) -> None:
    found = decode.decode(wide(tmp_path), 8, 8, False, fit="crop")
    assert (found[:, 1:7].argmax(axis=2) == 1).all()


def test_pad_keeps_the_shape_on_black(tmp_path: Path) -> None:
    found = decode.decode(wide(tmp_path), 8, 8, False, fit="pad")
    assert (found[[0, 1, 6, 7]] == 0).all()
    assert found[4, [0, 4, 7]].argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
def test_a_large_jpeg_is_nearly_the_same_decoded_at_a_part_of_its_size(tmp_path: Path, fit: str) -> None:
    y, x = np.mgrid[:900, :1200]
    pixels = np.stack([x % 256, y % 256, (x + y) // 10 % 256], axis=2).astype(np.uint8)
    Image.fromarray(pixels).resize((1200, 900)).save(tmp_path / "x.jpg", quality=95)
    whole = decode.decode(tmp_path / "x.jpg", 64, 64, False, fit=fit)
    quick = decode.decode(tmp_path / "x.jpg", 64, 64, False, fit=fit, quick=True)
    assert np.abs(whole.astype(int) - quick).mean() < 4


def test_a_turned_jpeg_is_upright_when_it_is_decoded_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((400, 800), np.uint8)
    pixels[:, :400] = 255  # left in the file, which is above when shown
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif)
    assert decode.head(tmp_path / "x.jpg")[:2] == (800, 400)
    found = decode.decode(tmp_path / "x.jpg", 16, 8, True, quick=True)
    assert found[:7].min() > 200
    assert found[9:].max() < 50


def test_content_that_was_read_already_decodes_as_its_file(tmp_path: Path) -> None:
    path = wide(tmp_path)
    np.testing.assert_array_equal(decode.decode(path.read_bytes(), 9, 9, False), decode.decode(path, 9, 9, False))
    assert decode.head(path.read_bytes()) == decode.head(path)


def test_print_colours_become_screen_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    np.testing.assert_allclose(decode.decode(tmp_path / "x.jpg", 8, 8, False)[4, 4], (255, 0, 0), atol=12)


def test_whole_keeps_the_shape_and_never_enlarges(tmp_path: Path) -> None:
    path = wide(tmp_path)
    assert decode.whole(path, most=10).shape == (5, 10, 3)
    assert decode.whole(path, most=100).shape == (20, 40, 3)


def test_equal_pixels_have_one_digest_in_any_format(tmp_path: Path) -> None:
    image = Image.open(wide(tmp_path))
    image.save(tmp_path / "same.bmp")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    digests = {name: decode.digest(tmp_path / name, 16) for name in ("wide.png", "same.bmp", "other.png")}
    assert digests["wide.png"] == digests["same.bmp"] != digests["other.png"]


# --- DICOM -----------------------------------------------------------------------------------------------------------


def scan(pixels: np.ndarray, **elements: object) -> bytes:
    """A DICOM file, uncompressed."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored, data.HighBit, data.PixelRepresentation = data.BitsAllocated, data.BitsAllocated - 1, 0
    data.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


VALUES = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)


def test_a_scan_is_shown_through_its_window() -> None:
    content = scan(VALUES, WindowCenter=1024.5, WindowWidth=1025)
    assert decode.head(content) == (8, 8, dicom.GREY, False)
    found = decode.decode(content, 8, 8, True)[..., 0]
    np.testing.assert_array_equal(found, np.round(np.clip((VALUES - 512.0) / 1024, 0, 1) * 255))


def test_the_first_window_counts_after_the_modality_was_rescaled() -> None:
    content = scan(VALUES, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[0.5, 40], WindowWidth=[1025, 400])
    found = decode.decode(content, 8, 8, True)[..., 0]
    np.testing.assert_array_equal(found, np.round(np.clip((VALUES - 1024.0 + 512) / 1024, 0, 1) * 255))


def test_without_a_window_the_range_is_spread_and_monochrome1_is_inverted() -> None:
    plain = decode.decode(scan(VALUES), 8, 8, True)[..., 0]
    assert (plain.min(), plain.max()) == (0, 255)
    inverted = decode.decode(scan(VALUES, PhotometricInterpretation="MONOCHROME1"), 8, 8, True)[..., 0]
    np.testing.assert_allclose(plain.astype(int) + inverted, 255, atol=1)


def test_a_scan_in_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    content = scan(pixels)
    assert decode.head(content)[2] == dicom.COLOUR
    np.testing.assert_array_equal(decode.decode(content, 8, 8, False), pixels)


def test_scans_that_cannot_be_read_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    content = scan(VALUES)
    assert "cannot be read" in decode.decode(content[:-20], 8, 8, True)
    assert decode.head(b"\0" * 128 + b"DICM" + b"\xff" * 50) in (
        "a DICOM file that is damaged",
        "a DICOM file without an image",
    )
    assert decode.head(scan(VALUES, Rows=40_000, Columns=40_000)) == imagefile.TOO_LARGE
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert decode.head(content) == dicom.MISSING
