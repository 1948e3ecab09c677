"""Images as a browser shows them, and the files behind them: as they were taken, and nothing outside of their folder."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import data
from data.files import preview


def folder_of(path):
    """Three wide photographs and a tall one of each class, which the model sees as squares."""
    for label in ("cat", "dog"):
        (path / label).mkdir(parents=True)
        for i in range(4):
            size = (300, 100) if i else (100, 300)
            Image.new("RGB", size, (200, 10 * i, 0)).save(path / label / f"{i}.png")
    return data.load("folder", path)


def test_a_file_keeps_its_shape(tmp_path):
    pool = folder_of(tmp_path / "pets")
    assert pool.images.shape[1:3] == (64, 64)
    shapes = {preview.file_shape("folder", tmp_path / "pets", one) for one in pool.ids}
    assert shapes == {(100, 300), (300, 100)}
    one = next(id for id in pool.ids if not id.endswith("0.png"))
    assert preview.file_pixels("folder", tmp_path / "pets", one, 1000).shape == (100, 300, 3)
    assert preview.file_pixels("folder", tmp_path / "pets", one, 30).shape == (10, 30, 3)
    np.testing.assert_array_equal(preview.file_pixels("folder", tmp_path / "pets", one, 1000)[0, 0, [0, 2]], [200, 0])


def test_there_is_none_outside_of_the_folder_nor_for_other_data_sets(tmp_path):
    folder_of(tmp_path / "pets")
    Image.new("RGB", (5, 5)).save(tmp_path / "secret.png")
    (tmp_path / "pets" / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"no image")
    for one in ("../secret.png", "cat/link.png", "cat/gone.png", "cat/broken.png", "x" * 5000, "a\0b"):
        assert preview.file_shape("folder", tmp_path / "pets", one) is None
        assert preview.file_pixels("folder", tmp_path / "pets", one, 100) is None
    assert preview.file_pixels("fashion", None, "fashion-train-00001", 100) is None


def opened(url):
    """The pixels behind a URL, and the format they came in."""
    head, content = url.split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == f"data:image/{picture.format.lower()};base64"
    return np.asarray(picture), picture.format


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_is_shown_as_it_is_and_a_large_one_as_a_photograph(channels):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    pixels, kind = opened(preview.url(image))
    assert kind == "PNG"
    np.testing.assert_array_equal(pixels.reshape(image.shape), image)
    pixels, kind = opened(preview.url(np.full((1000, 1001, channels), 90, dtype=np.uint8)))
    assert kind == "JPEG"
    assert pixels.shape[:2] == (1000, 1001)


def test_thumbnails_are_never_larger_than_the_images_and_keep_their_shape():
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 20, 1), dtype=np.uint8)
    np.testing.assert_array_equal(preview.small(images, (3, 1), 100), images[[3, 1]])
    assert preview.small(images, (3, 1), 10).shape == (2, 10, 5, 1)
    assert preview.shaped(images[0], 2.0, 30).shape == (15, 30, 1)


def test_a_sheet_holds_images_line_by_line():
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), dtype=np.uint8)
    sheet = preview.sheet(images, 3)
    assert sheet.shape == (4, 9, 1)
    np.testing.assert_array_equal(sheet[::2, ::3, 0], [[1, 2, 3], [4, 5, 0]])


def test_enlarging_does_not_smooth():
    image = np.array([[0, 255], [255, 0]], dtype=np.uint8)[:, :, None]
    pixels = np.asarray(Image.open(io.BytesIO(preview.png(image, 9))))
    assert pixels.shape == (8, 8)
    assert set(np.unique(pixels)) == {0, 255}
