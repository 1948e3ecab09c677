"""Masks that go to Label Studio and come back: brushes pixel for pixel, polygons, who drew what, and what does not fit."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data
from core.__main__ import main
from core.files import brushes, handout, maskexport
from core.runs import run
from core.runs.answers import PREDICTED
from core.store.atomic import write_array, write_table
from data.errors import UserError
from data.masks import VOID
from tests.core.files import drawn
from tests.core.files.drawn import CLASSES, HEIGHT, WIDTH

Made = tuple[run.Run, data.ImageDataset]
Tasks = list[dict[str, Any]]


@pytest.fixture
def made(home: Path, tmp_path: Path) -> Made:
    """A run that is ranked: the last image first, the first three not at all."""
    one, pool = drawn.a_run(drawn.folder(tmp_path / "own"))
    n = len(pool)
    one.cycle_path(0).mkdir()
    rank = pd.array([None] * 3 + list(range(n - 3, 0, -1)), dtype="Int64")
    write_table(one.cycle_path(0) / "ranking.parquet", pd.DataFrame({"sample_id": pool.ids, "rank": rank}))
    write_array(one.cycle_path(0) / PREDICTED, np.stack([drawn.mask(20 + row, void=0) for row in range(n)]))
    one.log.finish(0, "score", 0.0, {"n_labels": 3})
    return one, pool


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """One run for all tests that must leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("runs")))
        yield drawn.a_run(drawn.folder(tmp_path_factory.mktemp("own")))


def handed_out(made: Made, tmp_path: Path) -> Tasks:
    assert main(["export", made[0].id, "--label-studio", "--out", str(tmp_path / "out")]) == 0
    return json.loads((tmp_path / "out/tasks.json").read_text())


def saved(folder: Path, tasks: Any) -> Path:
    file = folder / "project.json"
    file.write_text(json.dumps(tasks))
    return file


def layer(made: Made, row: int, who: str) -> np.ndarray:
    return maskexport.standing(*made).layers(row)[1][f"person: {who}"]


def test_tasks_have_the_models_mask_as_prediction_and_what_people_drew_as_annotation(
    made: Made, tmp_path: Path
) -> None:
    one, pool = made
    tasks = handed_out(made, tmp_path)
    assert [task["data"]["sample_id"] for task in tasks] == pool.ids[:2:-1]
    assert {task["data"]["run"] for task in tasks} == {one.id}
    assert [task["predictions"][0]["score"] for task in tasks] == [0, 0.2, 0.4, 0.6, 0.8]
    assert [len(task["annotations"]) for task in tasks] == [0, 0, 0, 0, 1]
    for task in tasks:
        file = tmp_path / unquote(task["data"]["image"].partition("?d=")[2])
        row = pool.ids.index(task["data"]["sample_id"])
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(pool.images[row]))
        (prediction,) = task["predictions"]
        assert {result["original_width"] for result in prediction["result"]} == {WIDTH}


def test_what_comes_back_is_equal_pixel_for_pixel(made: Made, tmp_path: Path) -> None:
    """bea accepts the model's masks; what ann has drawn is still hers, and nothing new."""
    one, pool = made
    tasks = handed_out(made, tmp_path)
    for task in tasks:
        task["annotations"].append(
            {"id": 1, "completed_by": {"email": "bea"}, "result": task["predictions"][0]["result"]}
        )
    said = handout.bring_in(one, pool, str(saved(tmp_path, tasks)))
    assert said == "5 new masks of 6 in project.json."
    for row in range(3, 8):
        np.testing.assert_array_equal(layer(made, row, "bea"), one.predicted(0)[row])
    np.testing.assert_array_equal(layer(made, 3, "ann"), drawn.mask(11, 0.5))
    assert handout.bring_in(one, pool, str(saved(tmp_path, tasks))).startswith("0 new masks")


def test_what_somebody_changed_is_theirs(made: Made, tmp_path: Path) -> None:
    tasks = handed_out(made, tmp_path)
    (annotation,) = tasks[-1]["annotations"]
    added = tasks[-1]["predictions"][0]["result"][0]
    tasks[-1]["annotations"] = [{"completed_by": 7, "result": [*annotation["result"], added]}]
    handout.bring_in(*made, str(saved(tmp_path, tasks)))
    name = added["value"]["brushlabels"][0]
    expected = np.where(made[0].predicted(0)[3] == CLASSES.index(name), CLASSES.index(name), drawn.mask(11, 0.5))
    np.testing.assert_array_equal(layer(made, 3, "7"), expected)


def polygon(name: str, *points: tuple[float, float], **changes: Any) -> dict[str, Any]:
    value = {"points": [list(point) for point in points], "closed": True, "polygonlabels": [name]}
    return {"type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT, "value": value} | changes


def task(made: Made, *results: dict[str, Any], **more: Any) -> Tasks:
    one, pool = made
    annotation = {"completed_by": 7, "result": list(results)} | more
    return [{"data": {"sample_id": pool.ids[4], "run": one.id}, "annotations": [annotation]}]


def test_polygons_are_drawn_in_percent_and_the_later_ones_on_top(made: Made, tmp_path: Path) -> None:
    results = [
        polygon("sky", (0, 0), (100, 0), (100, 50), (0, 50)),
        polygon("tree", (25, 25), (75, 25), (75, 75), (25, 75)),
    ]
    handout.bring_in(*made, str(saved(tmp_path, task(made, *results))))
    expected = np.full((HEIGHT, WIDTH), VOID)
    expected[:6] = 0
    expected[3:9, 4:12] = 2
    np.testing.assert_array_equal(layer(made, 4, "7"), expected)


def test_json_min_is_read_too(made: Made, tmp_path: Path) -> None:
    one, pool = made
    codes = drawn.mask(5)
    sides = {"original_width": WIDTH, "original_height": HEIGHT}
    flat = [{**result["value"], **sides} for result in brushes.results(codes, CLASSES)]
    content = [{"sample_id": pool.ids[4], "run": one.id, "label": flat, "annotator": 3, "annotation_id": 1}]
    assert handout.bring_in(one, pool, str(saved(tmp_path, content))).startswith("1 new masks of 1")
    np.testing.assert_array_equal(layer(made, 4, "3"), codes)


def test_what_is_empty_or_cancelled_is_left_out_and_counted(made: Made, tmp_path: Path) -> None:
    empty = brushes.results(np.zeros((HEIGHT, WIDTH), np.uint8), CLASSES)[0]
    empty["value"]["rle"] = brushes.brush.encoded(np.zeros((HEIGHT, WIDTH), np.bool_))
    note = {"type": "textarea", "from_name": "note", "value": {"text": ["?"]}}
    tasks = [*task(made, note), *task(made, note, was_cancelled=True), *task(made, empty, completed_by=8)]
    said = handout.bring_in(*made, str(saved(tmp_path, tasks)))
    assert said == (
        "0 new masks of 0 in project.json; 1 left out: nothing drawn; 1 left out: cancelled; 1 left out: no pixel has a class."
    )


def test_the_configuration_names_every_class_with_its_colour() -> None:
    root = ElementTree.fromstring(brushes.config(CLASSES))
    for control in ("BrushLabels", "PolygonLabels"):
        labels = root.findall(f"./{control}/Label")
        assert [label.get("value") for label in labels] == CLASSES
        assert labels[0].get("background") == "#0072b2"
    assert [label.get("hotkey") for label in root.findall("./BrushLabels/Label")] == ["1", "2", "3"]


# --- bad input -------------------------------------------------------------------------------------------------------


def changed(**changes: Any) -> dict[str, Any]:
    """A brush over the whole image, with changes of its result."""
    (result,) = brushes.results(np.zeros((HEIGHT, WIDTH), np.uint8), CLASSES)
    value = result["value"] | {name: changes.pop(name) for name in ("rle", "brushlabels") if name in changes}
    return result | {"value": value} | changes


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (
            changed(original_width=20),
            "has 20 × 12 pixels, the run sees the image at 16 × 12: save the mask at that size",
        ),
        (changed(original_width=None), "a result has no original_width and original_height"),
        (changed(image_rotation=90), "the image was turned in Label Studio: turn it back"),
        (changed(rle=[1, 2, 3]), "a brush whose rle ends too early: draw it again, or take it out"),
        (
            changed(rle=brushes.brush.encoded(np.ones((3, 3), np.bool_))),
            "a brush of 36 values, and an image of 12 × 16",
        ),
        (changed(rle=None), "a brush whose rle is no list of bytes"),
        (changed(rle=10**12), "a brush whose rle is no list of bytes"),
        (changed(rle=[10**30]), "a brush whose rle is no list of bytes"),
        (changed(brushlabels=1), "a brush or polygon has no classes: give it one"),
        (changed(brushlabels=["sea"]), "there is no class 'sea' in this run; its classes are sky"),
        (changed(brushlabels=["sky", "tree"]), "a brush or polygon has 2 classes: give it one"),
        (changed(value="x"), "has a result of another form than Label Studio's"),
        (polygon("sky", (0, 0), (100, 0)), "the annotation has a polygon of 2 points"),
        (polygon("sky", (0, 0), (100, 0), (300, 50)), r"a polygon with the point \(48, 6\), outside of the image"),
        (polygon("sky", value={"points": [1, 2], "polygonlabels": ["sky"]}), "whose points are no pairs of numbers"),
        (
            {"type": "rectanglelabels", "value": {"x": 1}},
            "holds rectanglelabels: draw masks with the brush or as polygons",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_recorded(
    result: dict[str, Any], said: str, kept: Made, tmp_path: Path
) -> None:
    before = len(kept[0].log.events())
    with pytest.raises(UserError, match=said) as error:
        handout.bring_in(*kept, str(saved(tmp_path, task(kept, result))))
    assert "\n" not in str(error.value)
    assert len(kept[0].log.events()) == before


def test_annotators_are_named_once(kept: Made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"project.json names its annotators itself: name none\."):
        handout.bring_in(*kept, str(saved(tmp_path, task(kept, changed()))), annotator="bea")


def test_the_images_of_masks_go_with_them(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--label-studio", "--image-prefix", "https://x/", "--out", str(tmp_path / "out")]
    assert main(["export", made[0].id, *options]) == 2
    assert "leave --image-prefix out" in capsys.readouterr().err
