"""Files behind images: as they were taken, and nothing outside of their folder."""

import numpy as np
from PIL import Image

import data
from data.files import original


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
    shapes = {original.shape("folder", tmp_path / "pets", one) for one in pool.ids}
    assert shapes == {(100, 300), (300, 100)}
    one = next(id for id in pool.ids if not id.endswith("0.png"))
    assert original.picture("folder", tmp_path / "pets", one, 1000).shape == (100, 300, 3)
    assert original.picture("folder", tmp_path / "pets", one, 30).shape == (10, 30, 3)
    np.testing.assert_array_equal(original.picture("folder", tmp_path / "pets", one, 1000)[0, 0, [0, 2]], [200, 0])


def test_there_is_none_outside_of_the_folder_nor_for_other_data_sets(tmp_path):
    folder_of(tmp_path / "pets")
    Image.new("RGB", (5, 5)).save(tmp_path / "secret.png")
    (tmp_path / "pets" / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"no image")
    for one in ("../secret.png", "cat/link.png", "cat/gone.png", "cat/broken.png", "x" * 5000, "a\0b"):
        assert original.shape("folder", tmp_path / "pets", one) is None
        assert original.picture("folder", tmp_path / "pets", one, 100) is None
    assert original.picture("fashion", None, "fashion-train-00001", 100) is None
