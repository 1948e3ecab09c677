"""Masks that leave a run: as PNG pairs and as COCO, and each comes back as a data set, pixel for pixel."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from core.__main__ import main
from core.analysis import labelling
from core.files import maskexport
from core.runs import run, settle
from core.runs.run import GIVEN
from core.runs.spec import Config
from data.errors import UserError
from tests.core.files import drawn
from tests.core.files.drawn import NAMES

Made = tuple[run.Run, data.ImageDataset]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("runs")))
        yield drawn.a_run(drawn.folder(tmp_path_factory.mktemp("own")))


def unpacked(file: Path) -> Path:
    folder = file.with_suffix("")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def same(found: data.ImageDataset, one: run.Run, pool: data.ImageDataset) -> None:
    """Whether a data set has the images of a run's pool, in any order, and the masks that stand there."""
    places = maskexport.places(pool.ids)
    order = [found.ids.index(f"images/{place}.png") for place in places]
    assert found.class_names == pool.class_names
    np.testing.assert_array_equal(np.asarray(found.labels)[order], drawn.codes(one, pool))
    np.testing.assert_array_equal(np.asarray(found.images)[order], np.asarray(pool.images))


def test_pngs_come_back_as_a_folder_of_masks(made: Made, tmp_path: Path) -> None:
    one, pool = made
    assert main(["export", one.id, "--masks", "png", "--with-images", "--out", str(tmp_path / "masks.zip")]) == 0
    folder = unpacked(tmp_path / "masks.zip")
    files = list((folder / "masks").rglob("*.png"))
    assert len(files) == 4  # the others have no mask
    with Image.open(files[0]) as image:
        assert image.mode == "P"
    same(data.load("masks", folder, test_share=0), one, pool)


def test_pngs_go_without_images_unless_these_are_wanted(made: Made, tmp_path: Path) -> None:
    one, _ = made
    assert main(["export", one.id, "--masks", "png", "--out", str(tmp_path / "masks.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        assert not any(name.startswith("images/") for name in archive.namelist())


@pytest.mark.parametrize("polygons", [[], ["--polygons"]])
def test_coco_comes_back_as_coco_masks(polygons: list[str], made: Made, tmp_path: Path) -> None:
    one, pool = made
    file = tmp_path / "coco.zip"
    assert main(["export", one.id, "--masks", "coco", "--with-images", *polygons, "--out", str(file)]) == 0
    folder = unpacked(file)
    same(data.load("coco-masks", folder, test_share=0), one, pool)
    written = json.loads((folder / "annotations.json").read_text())["annotations"]
    kinds = {type(annotation["segmentation"]) for annotation in written}
    assert kinds == ({dict, list} if polygons else {dict})  # holes stay exact
    one_of = written[0]
    width, height = one_of["bbox"][2:]
    assert one_of["area"] <= width * height <= drawn.HEIGHT * drawn.WIDTH


def test_coco_without_images_names_the_samples(made: Made, tmp_path: Path) -> None:
    """So that it is read beside the user's own images, where these have the size of the masks."""
    one, pool = made
    file = Path(one.config.root or "") / "coco.json"
    assert main(["export", one.id, "--masks", "coco", "--out", str(file)]) == 0
    found = data.load("coco-masks", file, test_share=0)
    order = [found.ids.index(sample_id) for sample_id in pool.ids]
    np.testing.assert_array_equal(np.asarray(found.labels)[order], drawn.codes(one, pool))


def test_the_masks_of_an_earlier_cycle(made: Made, tmp_path: Path) -> None:
    one, pool = made
    masks = maskexport.standing(one, pool, 0)
    maskexport.write(tmp_path / "coco.json", pool, masks, "coco")
    written = json.loads((tmp_path / "coco.json").read_text())
    assert {annotation["image_id"] for annotation in written["annotations"]} == {1, 2, 3}


def test_places_are_safe_and_apart() -> None:
    ids = ["images/a.png", "train/images/a.jpg", "A.png", "b:*.c", "../x", "/x.png", "0001", "images"]
    found = maskexport.places(ids)
    assert found[1:] == ["train/a", found[2], "b%3A%2A.c", "%2E%2E/x", "x", "0001", "images"]
    assert found[0].startswith("a-")
    assert found[2].startswith("A-")  # which would be one file where case does not count


@pytest.mark.slow
def test_masks_of_real_scenes_come_back(real_data: Path, home: Path, tmp_path: Path) -> None:
    if not (real_data / "camvid").is_dir():
        pytest.skip("needs camvid/ in NEXTLABEL_TEST_DATA")
    pool = data.load("camvid", real_data, limit=3)
    config = Config("active-learning", "camvid", "margin", 2, 1, root=str(real_data), limit=3)
    one = run.create(config, settle.about(pool) | {"answer": "mask"})
    labels, masks = one.answer.kept(pool.labels, one.masks)
    one.log.append(0, pool.ids, labels, [GIVEN] * 3, 0.0, masks)
    for form, name in (("png", "masks"), ("coco", "coco-masks")):
        file = tmp_path / f"{name}.zip"
        maskexport.write(file, pool, maskexport.standing(one, pool), form, images=True, polygons=form == "coco")
        same(data.load(name, unpacked(file), test_share=0), one, pool)
    np.testing.assert_array_equal(drawn.codes(one, pool), np.asarray(pool.labels))


@pytest.mark.parametrize(
    ("form", "options", "name", "said"),
    [
        ("png", {}, "m.json", "Masks as png are a file .zip, not .json: name one"),
        ("coco", {}, "m.zip", "Masks as coco are a file .json, not .zip: name one"),
        ("coco", {"images": True}, "m", "Masks as coco with images are a file .zip, not one without ending"),
        ("png", {"polygons": True}, "m.zip", "Polygons are for masks as coco: leave --polygons out"),
        ("png", {}, "nowhere/m.zip", "There is no folder .*nowhere: make it"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    form: str, options: dict[str, bool], name: str, said: str, made: Made, tmp_path: Path
) -> None:
    one, pool = made
    with pytest.raises(UserError, match=said):
        maskexport.write(tmp_path / name, pool, maskexport.standing(one, pool), form, **options)


@pytest.mark.parametrize("form", maskexport.FORMS)
@pytest.mark.parametrize("images", [False, True])
def test_the_browser_is_handed_what_the_command_line_writes(
    form: str, images: bool, made: Made, tmp_path: Path
) -> None:
    one, pool = made
    masks, file = maskexport.standing(one, pool), tmp_path / f"m{maskexport.ending(form, images)}"
    maskexport.write(file, pool, masks, form, images=images)
    assert maskexport.to_bytes(pool, masks, form, images=images) == file.read_bytes()


def test_no_table_of_cleaned_labels_or_suspected_errors_is_made_of_masks(made: Made) -> None:
    for table in (labelling.cleaned, labelling.issues):
        with pytest.raises(UserError, match=r"are masks, which no table holds: export them as files"):
            table(*made, 0)


def test_classes_are_no_masks(home: Path) -> None:
    pool = data.load("fashion", limit=20)
    one = run.create(Config("active-learning", "fashion", "margin", 2, 1, limit=20), settle.about(pool))
    with pytest.raises(UserError, match="are classes, not masks: export them as a table"):
        maskexport.standing(one, pool)


def test_every_name_has_a_place_of_its_own(made: Made) -> None:
    assert sorted(maskexport.places(made[1].ids)) == sorted(NAMES)
