"""Cityscapes from the layout of its archives: the files that torchvision lists, train ids, cities."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.errors import UserError
from data.sources import cityscapes

SCENES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "ulm_000000_000019"],
    "val": ["frankfurt_000000_000294"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Scenes an eighth as large as the published ones."""
    for part, scenes in SCENES.items():
        for k, scene in enumerate(scenes):
            city = scene.partition("_")[0]
            image = tmp_path / f"leftImg8bit/{part}/{city}/{scene}_leftImg8bit.png"
            mask = tmp_path / f"gtFine/{part}/{city}/{scene}_gtFine_labelIds.png"
            for file in (image, mask):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (256, 128), (k, 0, 0)).save(image)
            Image.fromarray(np.random.default_rng(k).integers(0, 34, (128, 256), np.uint8)).save(mask)
    return tmp_path


def test_scenes_train_ids_and_cities(root: Path) -> None:
    from data.torchvision_import import torchvision

    pool = data.load("cityscapes", root)
    assert pool.ids == SCENES["train"]
    assert pool.groups == ["aachen", "aachen", "ulm"]
    assert (pool.images.shape, pool.test_labels.shape) == ((3, 112, 224, 3), (1, 112, 224))
    theirs = torchvision.datasets.Cityscapes.classes
    by_train_id = sorted((one for one in theirs if 0 <= one.train_id < 255), key=lambda one: one.train_id)
    assert pool.class_names == [one.name for one in by_train_id]
    train_id = np.array([one.train_id if one.train_id < 255 else -1 for one in theirs if one.id >= 0])
    written = np.asarray(Image.open(root / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png"))
    square = data.load("cityscapes", root, size=128, fit="crop")
    np.testing.assert_array_equal(square.labels[1], train_id[written[:, 64:192]])


def test_files_are_those_that_torchvision_lists(root: Path) -> None:
    from data.torchvision_import import torchvision

    theirs = torchvision.datasets.Cityscapes(root, split="train", mode="fine", target_type="semantic")
    pool = data.load("cityscapes", root)
    assert sorted(theirs.images) == [str(pool.images.original(row)) for row in range(3)]  # type: ignore[union-attr]
    assert all(Path(one).is_file() for (one,) in theirs.targets)


def test_what_is_missing_is_said_and_no_archive_is_unpacked(tmp_path: Path) -> None:
    for name in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"):
        (tmp_path / name).touch()
    assert cityscapes.missing(tmp_path).startswith(
        "unpack leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest"
    )
    with pytest.raises(UserError, match="Cityscapes is not there: unpack"):
        data.load("cityscapes", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_without_scenes_to_train_on_it_says_so(root: Path) -> None:
    for file in (root / "leftImg8bit/train").glob("*/*"):
        file.unlink()
    with pytest.raises(UserError, match=r"there is no scene in .*train; unpack leftImg8bit_trainvaltest.zip again"):
        data.load("cityscapes", root)


def test_an_id_that_is_none_is_named(root: Path) -> None:
    mask = root / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    Image.new("L", (256, 128), 34).save(mask)
    ((scene, why),) = data.load("cityscapes", root).skipped
    assert (scene, why[:27]) == ("ulm_000000_000019", "its mask holds the value 34")
