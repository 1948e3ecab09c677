"""PASCAL VOC from the layout of its archives: the files that torchvision lists, palette indices, void borders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.errors import UserError
from data.sources import voc

LISTS = {"train": ["2007_000032", "2007_000039", "2007_000063"], "val": ["2007_000033"]}
BASE = "VOCdevkit/VOC2012"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path_factory.mktemp("cache")))


def mask_of(name: str) -> np.ndarray:
    found = np.random.default_rng(int(name[-3:])).integers(0, 22, (50, 70), np.uint8)
    return np.where(found == 21, 255, found).astype(np.uint8)


def laid_out(root: Path, base: str = BASE) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / base / folder).mkdir(parents=True)
    for part, names in LISTS.items():
        (root / base / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.new("RGB", (70, 50), (int(name[-2:]), 0, 0)).save(root / base / f"JPEGImages/{name}.jpg")
            mask = Image.fromarray(mask_of(name)).convert("P")
            mask.putdata(mask_of(name).ravel().tolist())
            mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
            mask.save(root / base / f"SegmentationClass/{name}.png")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return laid_out(tmp_path)


def test_the_pool_is_train_and_the_test_set_val(root: Path) -> None:
    pool = data.load("voc", root)
    assert pool.ids == LISTS["train"]
    assert (pool.images.shape, pool.test_labels.shape) == ((3, 50, 70, 3), (1, 50, 70))
    assert (len(pool.class_names), pool.class_names[0], pool.class_names[15]) == (21, "background", "person")
    written = mask_of("2007_000039").astype(int)
    np.testing.assert_array_equal(pool.labels[1], np.where(written == 255, -1, written))
    assert data.load("voc", root, size=32, fit="pad").labels.shape == (3, 32, 32)


def test_files_are_those_that_torchvision_lists(root: Path) -> None:
    from data.torchvision_import import torchvision

    pool = data.load("voc", root)
    theirs = torchvision.datasets.VOCSegmentation(root, year="2012", image_set="train", download=False)
    assert [str(pool.images.original(row)) for row in range(3)] == theirs.images  # type: ignore[union-attr]
    for row in range(3):
        np.testing.assert_array_equal(
            pool.labels[row].astype(np.uint8) * (pool.labels[row] >= 0),
            np.asarray(theirs[row][1]) * (np.asarray(theirs[row][1]) < 255),
        )


def test_the_last_year_is_taken(root: Path) -> None:
    laid_out(root, "VOCdevkit/VOC2007")
    (root / "VOCdevkit/VOC2007/ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    assert len(data.load("voc", root)) == 3


def test_what_is_absent_is_named(root: Path) -> None:
    (root / BASE / "JPEGImages/2007_000032.jpg").unlink()
    (root / BASE / "SegmentationClass/2007_000039.png").unlink()
    (root / BASE / "SegmentationClass/2007_000033.png").unlink()
    pool = data.load("voc", root)
    assert pool.ids == ["2007_000039", "2007_000063"]
    assert pool.labelled.tolist() == [False, True]
    assert [name for name, _ in pool.skipped] == ["2007_000033", "2007_000032"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    assert voc.missing(tmp_path).startswith("unpack VOCtrainval_11-May-2012.tar (2 GB, from http")
    with pytest.raises(UserError, match="PASCAL VOC is not there: unpack"):
        data.load("voc", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train.txt is empty; unpack the archive again"),
        ("../../../secret\n", r"train.txt names '../../../secret', which is no image"),
        ("2007_000032\n2007_000032\n", "train.txt names an image twice"),
        (b"\xff\xfe", "train.txt cannot be read"),
    ],
)
def test_a_damaged_list_is_named(root: Path, text: str | bytes, message: str) -> None:
    (root / BASE / "ImageSets/Segmentation/train.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=message):
        data.load("voc", root)
