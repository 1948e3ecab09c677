"""Images as a browser shows them, and the files behind them: as they were taken, and nothing outside of their folder."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

import data
from data.files import preview


def folder_of(path, on_demand=False):
    """Three wide photographs and a tall one of each class, which the model sees as squares."""
    for label in ("cat", "dog"):
        (path / label).mkdir(parents=True)
        for i in range(4):
            size = (300, 100) if i else (100, 300)
            Image.new("RGB", size, (200, 10 * i, 0)).save(path / label / f"{i}.png")
    return data.load("folder", path, on_demand=on_demand)


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_file_keeps_its_shape(tmp_path, on_demand):
    root = tmp_path / "pets"
    pool = folder_of(root, on_demand)
    assert pool.images.shape[1:3] == ((200, 200) if on_demand else (64, 64))
    assert {preview.file_shape(pool, row, root) for row in range(len(pool))} == {(100, 300), (300, 100)}
    one = next(row for row, id in enumerate(pool.ids) if not id.endswith("0.png"))
    assert preview.file_pixels(pool, one, root, 1000).shape == (100, 300, 3)
    assert preview.shown(pool, one, root, 30).shape == (10, 30, 3)
    np.testing.assert_array_equal(preview.shown(pool, one, root, 1000)[0, 0, [0, 2]], [200, 0])


def test_cells_of_a_sheet_come_from_the_files_in_one_shape(tmp_path):
    pool = folder_of(tmp_path / "pets", True)
    assert preview.cells(pool, range(len(pool)), None, 150).shape == (len(pool), 150, 150, 3)
    fashion = data.load("fashion", limit=20)
    np.testing.assert_array_equal(preview.cells(fashion, [4, 2], None, 42), fashion.images[[4, 2]])


def test_there_is_none_outside_of_the_folder_nor_for_other_data_sets(tmp_path):
    root = tmp_path / "pets"
    pool = folder_of(root)
    Image.new("RGB", (5, 5)).save(tmp_path / "secret.png")
    (root / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "cat" / "broken.png").write_bytes(b"no image")
    for one in ("../secret.png", "cat/link.png", "cat/gone.png", "cat/broken.png", "x" * 5000, "a\0b"):
        odd = dataclasses.replace(pool, ids=[one, *pool.ids[1:]])
        assert preview.file_shape(odd, 0, root) is None
        assert preview.file_pixels(odd, 0, root, 100) is None
        assert preview.original(odd, 0, root) is None
        np.testing.assert_array_equal(preview.shown(odd, 0, root, 100), pool.images[0])
    assert preview.file_pixels(data.load("fashion", limit=20), 0, None, 100) is None


@pytest.mark.parametrize("on_demand", [False, True])
def test_the_file_is_handed_out_where_a_browser_shows_it(tmp_path, on_demand):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
    Image.new("RGB", (90, 70)).save(tmp_path / "cat/a.png", "JPEG")  # whatever its name
    Image.new("RGB", (90, 70)).save(tmp_path / "cat/b.tif")
    Image.fromarray(np.full((70, 90), 4000, np.uint16)).save(tmp_path / "dog/c.png")
    Image.new("L", (90, 70)).save(tmp_path / "dog/d.png")
    pool = data.load("folder", tmp_path, test_share=0, on_demand=on_demand)
    found = {id: preview.original(pool, row, tmp_path) for row, id in enumerate(pool.ids)}
    kinds = {id: one and one.suffix for id, one in found.items()}
    assert kinds == {"cat/a.png": ".jpg", "cat/b.tif": None, "dog/c.png": None, "dog/d.png": ".png"}
    assert found["cat/a.png"].read() == (tmp_path / "cat/a.png").read_bytes()


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
