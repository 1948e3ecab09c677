"""CamVid, from the layouts it comes in: classes, unlabelled pixels, videos; the published frames where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.errors import UserError

FRAMES = {
    "train": ["0001TP_006690", "0006R0_f00930", "0006R0_f00960", "0016E5_00390"],
    "val": ["0016E5_07959"],
    "test": ["0001TP_008550", "Seq05VD_f00000"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path_factory.mktemp("cache")))


def laid_out(root: Path, images: str, masks: str, size: tuple[int, int]) -> Path:
    random = np.random.default_rng(0)
    for split, frames in FRAMES.items():
        for frame in frames:
            for place, channels, high in ((images, 3, 256), (masks, 1, 12)):
                file = root / place.format(split) / f"{frame}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, high, (size[1] // 4, size[0] // 4, channels), np.uint8)
                Image.fromarray(pixels.squeeze()).resize(size, Image.Resampling.NEAREST).save(file)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    laid_out(tmp_path / "camvid", "{}/images", "{}/masks", (128, 96))
    return tmp_path


def test_frames_masks_and_videos(root: Path) -> None:
    pool = data.load("camvid", root)
    assert pool.ids == FRAMES["train"]
    assert pool.groups == ["0001TP", "0006R0", "0006R0", "0016E5"]
    assert (pool.images.shape, pool.labels.shape) == ((4, 96, 128, 3), (4, 96, 128))
    assert (pool.test_images.shape, pool.test_labels.shape) == ((2, 96, 128, 3), (2, 96, 128))
    written = np.asarray(Image.open(root / "camvid/train/masks/0006R0_f00930.png")).astype(int)
    np.testing.assert_array_equal(pool.labels[1], np.where(written == 11, -1, written))
    assert len(pool.class_names) == 11
    assert pool.labelled.all()


def test_the_layout_of_segnet_at_its_own_size(tmp_path: Path) -> None:
    laid_out(tmp_path / "CamVid", "{}", "{}annot", (480, 360))
    pool = data.load("camvid", tmp_path)
    assert (pool.ids, pool.labels.shape) == (FRAMES["train"], (4, 96, 128))
    assert pool.labels[0].min() == -1
    assert pool.labels[0].max() == 10


def test_a_limit_keeps_the_shares_of_the_videos(root: Path) -> None:
    assert data.load("camvid", root, limit=2).groups in (["0001TP", "0006R0"], ["0006R0", "0016E5"])


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (row,) = [row for row in data.available(tmp_path) if row.name == "camvid"]
    assert row.reason.startswith("put the folder CamVid (from https://")
    with pytest.raises(UserError, match="CamVid is not there: put the folder"):
        data.load("camvid", tmp_path)


def test_a_frame_with_an_unknown_value_is_left_out_and_named(root: Path) -> None:
    Image.new("L", (128, 96), 12).save(root / "camvid/train/masks/0006R0_f00930.png")
    pool = data.load("camvid", root)
    assert "0006R0_f00930" not in pool.ids
    ((frame, why),) = pool.skipped
    assert (frame, why[:28]) == ("0006R0_f00930", "its mask holds the value 12,")


def test_without_frames_to_train_on_it_says_so(root: Path) -> None:
    for file in (root / "camvid/train/images").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"there is no frame in .*; take the folder again"):
        data.load("camvid", root)


@pytest.mark.slow
def test_the_published_frames(real_data: Path) -> None:
    pool = data.load("camvid", real_data)
    assert (len(pool), len(pool.test_labels)) == (367, 233)
    assert {name: pool.groups.count(name) for name in sorted(set(pool.groups))} == {  # type: ignore[union-attr, arg-type]
        "0001TP": 62,
        "0006R0": 101,
        "0016E5": 204,
    }
    masks = np.asarray(pool.labels)
    share = np.bincount(masks[masks >= 0], minlength=11) / (masks >= 0).sum()
    assert share.argmax() in (1, 3)  # building or road
    assert share.min() > 0.001
    assert 0.01 < (masks == -1).mean() < 0.1
    assert len(data.load("camvid", real_data, limit=100).ids) == 100
