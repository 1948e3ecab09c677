"""Images of one's own with masks on New run: what is there, how a zip file is known, and what is wrong in one sentence."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import data
from core.runs import jobs, run
from core.runs.spec import Config
from data.errors import UserError
from data.sources import coco as coco_source
from pages.ui import frame

ROOT = Path(__file__).resolve().parents[2]
N = 10


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NEXTLABEL_ROOTS", str(tmp_path))
    monkeypatch.setattr(run, "EXAMPLES", tmp_path / "no-examples")


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def codes(seed: int, high: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (12, 16), np.uint8)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Ten images with masks of three classes, the first row of each unknown."""
    root = tmp_path / "scenes"
    for i in range(N):
        save(root / f"images/{i}.png", np.random.default_rng(i).integers(0, 256, (12, 16, 3), np.uint8))
        save(root / f"masks/{i}.png", np.where(np.arange(12)[:, None] < 3, 255, codes(i)).astype(np.uint8))
    (root / "classes.csv").write_text("background\nroad\nsky\n")
    return root


def coco(root: Path, annotations: list[dict[str, object]]) -> Path:
    """The images under `root` with COCO annotations, a car in the corner of each that has none of its own."""
    taken = {one["image_id"] for one in annotations}
    car = [[0, 0, 4, 0, 4, 4, 0, 4]]
    others = [{"image_id": i, "category_id": 1, "segmentation": car} for i in range(N) if i not in taken]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 12, "width": 16} for i in range(N)],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}],
        "annotations": [{"id": 100 + k, **one} for k, one in enumerate([*annotations, *others])],
    }
    for name in ("classes.csv", "masks"):
        (root / name).rename(root.parent / name)
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def packed(root: Path) -> bytes:
    """A folder as a system's “Compress” packs it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(root.parent))
    return buffer.getvalue()


def visit(way: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.switch_page("pages/new.py")
    app.session_state["way"] = way
    return shown(app.run())


def shown(app: AppTest) -> AppTest:
    assert not app.exception
    return app


def named(root: Path | str, layout: str = "masks") -> AppTest:
    """The page with a folder on the server."""
    app = visit("folder")
    app.selectbox(key="kind").select(layout).run()
    return shown(app.text_input(key="root").input(str(root)).run())


def uploaded(content: bytes) -> AppTest:
    app = visit("zip")
    return shown(app.file_uploader(key="zip").upload("scenes.zip", content).run())


def checked(app: AppTest) -> AppTest:
    return shown(app.button(key="check").click().run())


def layout(app: AppTest) -> str:
    """What an uploaded zip file is taken for."""
    return str(next(box for box in app.selectbox if box.label == "Layout of the zip file").value)


def numbers(app: AppTest) -> dict[str, str]:
    return {one.label: one.value for one in app.metric}


def said(app: AppTest) -> str:
    return "\n".join(str(one.value) for one in [*app.markdown, *app.caption]).replace("\\", "")


def errors(app: AppTest) -> list[str]:
    return [one.value.replace("\\", "") for one in app.error]


# --- what is there ---------------------------------------------------------------------------------------------------


def test_a_folder_of_masks_that_is_taken_for_class_folders_is_pointed_out(scenes: Path) -> None:
    app = named(scenes, "folder")
    assert [one.value for one in app.warning] == [
        f"This looks like “{data.CATALOGUE['masks'].title}”: choose that layout above."
    ]


def test_a_folder_of_masks_shows_its_masks_and_classes_before_anything_runs(scenes: Path) -> None:
    app = checked(named(scenes))
    assert errors(app) == []
    assert numbers(app) == {"Images to work on": "8", "Test images": "2", "Classes": "3", "Left out": "0"}
    assert "25.0% of the masks' pixels are unknown" in said(app)
    assert "10 of 10 images with a mask. Hatched: unknown." in said(app)
    assert len(app.get("image")[0].proto.imgs) == N
    (table,) = (one.value for one in app.dataframe if "pixels" in one.value)
    assert table["name"].tolist() == ["background", "road", "sky"]
    assert app.button(key="start")


@pytest.mark.parametrize(
    ("kind", "table", "classes"),
    [("folder", True, True), ("csv", False, True), ("masks", False, True), ("coco-masks", False, False)],
)
def test_a_layout_asks_for_what_it_can_use(kind: str, table: bool, classes: bool) -> None:
    app = visit("folder")
    app.selectbox(key="kind").select(kind).run()
    labels = [one.label for one in app.text_input]
    assert ("Table on the server (optional)" in labels, "Classes (optional)" in labels) == (table, classes)


def test_names_can_stand_for_the_table_of_classes(scenes: Path) -> None:
    (scenes / "classes.csv").unlink()
    app = named(scenes)
    app.text_input(key="classes").input("ground, road, sky").run()
    assert numbers(checked(app))["Classes"] == "3"


def test_coco_masks_are_looked_at_again_where_the_run_reads_them_otherwise(scenes: Path) -> None:
    app = checked(named(coco(scenes, []), "coco-masks"))
    assert numbers(app)["Classes"] == "3"
    assert "Hatched" not in said(app)
    box = next(one for one in app.selectbox if one.label == "Pixels without annotation")
    app = shown(box.select("void").run())
    assert numbers(app)["Classes"] == "2"
    assert "Hatched: unknown." in said(app)


# --- a zip file ------------------------------------------------------------------------------------------------------


def test_a_zip_file_is_taken_for_what_it_holds(scenes: Path, tmp_path: Path) -> None:
    app = uploaded(packed(scenes))
    assert layout(app) == "masks"
    assert numbers(checked(app))["Images to work on"] == "8"
    assert layout(uploaded(packed(coco(scenes, [])))) == "coco-masks"
    for i in range(4):
        save(tmp_path / f"pets/{'cat' if i % 2 else 'dog'}/{i}.png", codes(i))
    app = uploaded(packed(tmp_path / "pets"))
    assert layout(app) == "folder"
    assert "Table on the server (optional)" in [one.label for one in app.text_input]


def test_what_a_zip_file_is_taken_for_can_be_changed(scenes: Path) -> None:
    """Two classes of images, called images and masks."""
    (scenes / "classes.csv").unlink()
    app = uploaded(packed(scenes))
    assert layout(app) == "masks"
    box = next(one for one in app.selectbox if one.label == "Layout of the zip file")
    app = checked(shown(box.select("folder").run()))
    assert errors(app) == []
    assert numbers(app)["Classes"] == "2"


# --- people draw -----------------------------------------------------------------------------------------------------


def started(app: AppTest, monkeypatch: pytest.MonkeyPatch, title: str = "Annotate") -> run.Run:
    """The run of a click on Start run, whose worker is not started."""
    monkeypatch.setattr(jobs, "start", lambda one: None)
    app = shown(app.button(key="start").click().run())
    assert errors(app) == []
    assert app.title[0].value == title
    (one,) = run.all_runs()
    return one


def test_images_that_nobody_has_drawn_yet_are_started_with_people(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scenes / "masks").rename(scenes.parent / "elsewhere")
    app = checked(uploaded(packed(scenes)))
    assert "10 images are without a mask: people can give one" in said(app)
    assert "10 of 10 images, none of which has a mask yet." in said(app)
    assert next(one for one in app.toggle if one.label == "People give the labels").value
    one = started(app, monkeypatch)
    assert (one.config.dataset, one.config.annotator, one.config.initial) == ("masks", "person", 0)


def test_without_people_nobody_answers_for_images_that_nobody_has_drawn(scenes: Path) -> None:
    (scenes / "masks").rename(scenes.parent / "elsewhere")
    app = checked(named(scenes))
    next(one for one in app.toggle if one.label == "People give the labels").set_value(False).run()
    (error,) = errors(shown(app.button(key="start").click().run()))
    assert error.startswith("No image of the pool has a label that could answer for the annotator: choose “People give")


def test_people_check_masks(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = checked(named(scenes))
    app.segmented_control(key="task").set_value("label-cleaning").run()
    assert next(one for one in app.toggle if one.label == "People give the labels").value
    assert numbers(app)["Images to work on"] == "10"
    one = started(app, monkeypatch)
    assert (one.config.task, one.config.annotator, one.config.test_share) == ("label-cleaning", "person", 0)


def test_checking_labels_of_your_own_without_people_needs_noise(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = checked(named(scenes))
    app.segmented_control(key="task").set_value("label-cleaning").run()
    next(one for one in app.toggle if one.label == "People give the labels").set_value(False).run()
    assert any("people will still be asked" in one.value for one in app.info)
    next(one for one in app.number_input if one.label.startswith("Noise")).set_value(0.2).run()
    assert not any("people will still be asked" in one.value for one in app.info)
    one = started(app, monkeypatch, title="Cycles")
    assert (one.config.noise, one.config.annotator) == (0.2, None)


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_some_masks_is_said_and_they_are_left_out(scenes: Path) -> None:
    save(scenes / "masks/0.png", codes(0)[:6])
    save(scenes / "masks/1.png", codes(1, high=4).clip(3))
    save(scenes / "masks/2.png", codes(2).astype(np.uint16))
    save(scenes / "masks/3.png", np.zeros((12, 16, 3), np.uint8))
    save(scenes / "masks/4.tif", codes(4))
    save(scenes / "masks/other.png", codes(5))
    (scenes / "masks/5.png").unlink()
    save(scenes / "masks/6.png", np.full((12, 16), 255, np.uint8))
    app = checked(named(scenes))
    assert errors(app) == []
    assert numbers(app)["Left out"] == "6"
    for sentence in (
        "6 files are left out: ",
        "its mask has 16 × 6 pixels, and the image, as it is shown, 16 × 12; save the mask at that size (1: images/0.png)",
        "its mask holds the value 3, which classes.csv does not name; add it there, or correct the mask (1: images/1.png)",
        "its mask has 16 bits a pixel; save it as PNG with 8 bits a pixel, indexed, grey or RGB (1: images/2.png)",
        "its mask is in colours, and classes.csv names none; add the columns r, g, b there (1: images/3.png)",
        "it has 2 masks, 4.png and 4.tif; keep one (1: images/4.png)",
        "there is no image of its name; add it, or delete the mask (1: masks/other.png)",
        "1 image is without a mask: people can give one, image by image.",
        "1 mask is empty, without a pixel of any class, that of images/6.png: it counts as an image without a label",
    ):
        assert sentence in said(app)


def test_an_unknown_colour_is_named(scenes: Path) -> None:
    (scenes / "classes.csv").write_text("name,r,g,b\nroad,0,0,0\nsky,9,9,9\nvoid,5,5,5\n")
    for i in range(N):
        save(scenes / f"masks/{i}.png", np.array([[0] * 3, [9] * 3, [8, 0, 0]], np.uint8)[codes(i, 2 + (i == 3))])
    app = checked(named(scenes))
    assert "its mask holds the colour (8, 0, 0), which classes.csv does not name" in said(app)


def test_what_is_wrong_with_some_annotations_is_said_and_their_images_are_left_out(scenes: Path) -> None:
    bad = [
        {"image_id": 0, "category_id": 1, "iscrowd": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]},
        {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0]]},
        {"image_id": 2, "category_id": 1, "segmentation": {"size": [12, 16], "counts": [60]}},
        {"image_id": 3, "category_id": 1, "segmentation": [[0, 0, 99, 0, 4, 4]]},
    ]
    app = checked(named(coco(scenes, bad), "coco-masks"))
    assert errors(app) == []
    for sentence in (
        "4 files are left out: ",
        "its annotation 100 draws a crowd (iscrowd 1) with polygons; a crowd is an RLE, and any other object has iscrowd 0",
        "its annotation 101 has a polygon of",
        "its annotation 102 has an RLE of",
        "its annotation 103 has a polygon with the point (99, 0), outside of the image of 16 × 12 pixels (1: images/3.png)",
    ):
        assert sentence in said(app)


def without_table(root: Path) -> None:
    (root / "classes.csv").unlink()


def masks_elsewhere(root: Path) -> None:
    (root / "masks").rename(root / "labels")


def all_too_small(root: Path) -> None:
    for i in range(N):
        save(root / f"masks/{i}.png", codes(i)[:6])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without_table, "There is no classes.csv or classes.txt in "),
        (masks_elsewhere, "There is no folder "),
        (all_too_small, "No image in "),
    ],
)
def test_what_is_wrong_with_all_is_one_sentence(scenes: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(scenes)
    app = checked(named(scenes))
    (error,) = errors(app)
    assert error.startswith(sentence)
    assert not [one for one in app.button if one.key == "start"]


def test_what_is_wrong_with_a_zip_file_is_said_of_that_file(scenes: Path) -> None:
    without_table(scenes)
    (error,) = errors(checked(uploaded(packed(scenes))))
    assert error.startswith("There is no classes.csv or classes.txt in scenes.zip; write one class per line: ")


def test_a_folder_outside_of_the_roots_is_refused(tmp_path: Path) -> None:
    (error,) = errors(named("/etc"))
    assert error.startswith("/etc lies outside of what this dashboard may read")


def test_a_truncated_zip_file_is_refused(scenes: Path) -> None:
    (error,) = errors(uploaded(packed(scenes)[:-200]))
    assert (
        error
        == "This zip file cannot be read: File is not a zip file; pack the files again, as zip, without a password"
    )


def test_a_truncated_file_of_annotations_is_known_and_refused(scenes: Path) -> None:
    file = coco(scenes, []) / "annotations.json"
    file.write_bytes(file.read_bytes()[:-9])
    app = uploaded(packed(scenes))
    assert layout(app) == "coco-masks"
    (error,) = errors(checked(app))
    assert error.startswith("annotations.json cannot be read as JSON")


def test_a_folder_that_cannot_be_read_is_no_traceback(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(top: Path, given: Path) -> None:
        raise PermissionError(13, "Permission denied", str(top))

    monkeypatch.setattr(coco_source, "annotation_files", refused)
    assert not named(scenes, "folder").warning


def test_a_run_whose_folder_is_gone_says_where_it_was(scenes: Path, tmp_path: Path) -> None:
    config = Config("active-learning", "masks", "entropy", 2, 1, root=str(scenes))
    assert len(frame.dataset(config)) > 0
    with pytest.raises(UserError, match=f"The images were in {tmp_path / 'gone'}, and are gone: put them back there"):
        frame.dataset(replace(config, root=str(tmp_path / "gone")))
