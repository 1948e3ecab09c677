"""COCO annotations as masks: polygons, RLE and crowds, what nobody annotated, and every bad input in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
from core.runs.spec import Config
from data.check import check
from data.errors import UserError
from data.files import cocomask
from data.sources import coco, coco_masks

HEIGHT, WIDTH = 6, 8
N = 5
CATEGORIES = [{"id": 7, "name": "car"}, {"id": 2, "name": "person"}]
CLASSES = ["background", "person", "car"]
BACKGROUND, PERSON, CAR = range(3)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path_factory.mktemp("cache")))


def box(top: int, left: int, bottom: int, right: int) -> list[list[int]]:
    """The polygon around these pixels; bottom and right are the first row and column outside."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def rle(*where: slice) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[where] = True
    return cocomask.compressed(mask)


def annotation(image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": 100 + image, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def write(root: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    """Images 0 … 4, and the file of their annotations; of each that has none of its own, a car in the first column."""
    (root / "images").mkdir(exist_ok=True)
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/{i}.png")
    taken = {one["image_id"] for one in annotations}
    others = [annotation(i, 7, box(0, 0, HEIGHT, 1)) for i in range(N) if i not in taken]
    images = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(N)]
    content = {"images": images, "categories": CATEGORIES, "annotations": [*annotations, *others], **changes}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def everything(root: Path, **options: Any) -> data.ImageDataset:
    return data.load("coco-masks", root, test_share=0, **options)


def mask_of(pool: data.ImageDataset, i: int) -> np.ndarray:
    return np.asarray(pool.labels[pool.ids.index(f"images/{i}.png")])


# --- how a folder is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segmentation", "name"),
    [
        (box(0, 0, 2, 2), "coco-masks"),
        (rle(slice(2, 6)), "coco-masks"),
        ({"size": [HEIGHT, WIDTH], "counts": [0, 2, HEIGHT * WIDTH - 2]}, "coco-masks"),
        ([], "coco"),
        (None, "coco"),
    ],
)
def test_a_folder_is_known_by_what_its_annotations_draw(tmp_path: Path, segmentation: Any, name: str) -> None:
    file = write(tmp_path, [annotation(i, 7, segmentation) for i in range(N)]) / "annotations.json"
    assert [one.SOURCE.name for one in (coco, coco_masks) if one.SOURCE.fits(tmp_path)] == [name]
    file.write_bytes(file.read_bytes()[:-9])  # a damaged file is still one of these
    assert [one.SOURCE.name for one in (coco, coco_masks) if one.SOURCE.fits(tmp_path)] == [name]
    (tmp_path / "metadata.csv").write_text("file_name,label\n")  # a table says that the images have classes
    assert not any(one.SOURCE.fits(tmp_path) for one in (coco, coco_masks))


@pytest.mark.parametrize("content", ["", "{}", '{"title": "Cats", "licenses": []}'])
def test_any_other_json_file_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset-metadata.json").write_text(content)
    assert not any(one.SOURCE.fits(tmp_path) for one in (coco, coco_masks))


def test_a_hidden_file_is_no_file_of_annotations(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "._annotations.json").write_text("what macOS leaves")
    assert len(everything(tmp_path)) == N


def test_images_without_any_annotation_are_for_people_to_label(tmp_path: Path) -> None:
    file = write(tmp_path, []) / "annotations.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    pool = data.load("coco-masks", tmp_path)
    assert (len(pool), int(pool.labelled.sum()), pool.class_names) == (N, 0, CLASSES)


# --- what the annotations draw ---------------------------------------------------------------------------------------


def test_classes_are_the_categories_by_their_ids_and_the_background_is_first(tmp_path: Path) -> None:
    pool = everything(write(tmp_path, []))
    assert (pool.class_names, len(pool), pool.answer) == (CLASSES, N, "mask")
    expected = np.full((HEIGHT, WIDTH), BACKGROUND)
    expected[:, 0] = CAR
    np.testing.assert_array_equal(np.asarray(pool.labels), np.stack([expected] * N))


def test_polygons_and_rle_are_drawn_the_later_ones_on_top(tmp_path: Path) -> None:
    uncompressed = {"size": [HEIGHT, WIDTH], "counts": [0, 2, HEIGHT * WIDTH - 2]}
    drawn = [
        annotation(0, 7, [*box(0, 0, 4, 4), *box(4, 6, 6, 8)]),
        annotation(0, 2, rle(slice(2, 6), slice(2, 6))),
        annotation(0, 2, uncompressed),
    ]
    expected = np.full((HEIGHT, WIDTH), BACKGROUND)
    expected[:4, :4] = expected[4:, 6:] = CAR
    expected[2:6, 2:6] = expected[:2, 0] = PERSON
    np.testing.assert_array_equal(mask_of(everything(write(tmp_path, drawn)), 0), expected)


def test_the_pixels_of_a_crowd_are_unknown(tmp_path: Path) -> None:
    drawn = [annotation(0, 7, box(0, 0, 6, 8)), annotation(0, 2, rle(slice(3), slice(3)), iscrowd=1)]
    expected = np.full((HEIGHT, WIDTH), CAR)
    expected[:3, :3] = -1
    np.testing.assert_array_equal(mask_of(everything(write(tmp_path, drawn)), 0), expected)


def test_what_nobody_annotated_is_void_where_there_is_stuff_or_somebody_says_so(tmp_path: Path) -> None:
    stuff = [{**one, "isthing": 0} for one in CATEGORIES]
    for k, (changes, options) in enumerate([({"categories": stuff}, {}), ({}, {"unannotated": "void"})]):
        root = tmp_path / str(k)
        root.mkdir()
        pool = everything(write(root, [], **changes), **options)
        assert pool.class_names == ["person", "car"]
        assert set(np.unique(mask_of(pool, 0)).tolist()) == {-1, 1}
    assert everything(root, unannotated="background").class_names == CLASSES


def test_an_option_of_a_run_says_what_nobody_annotated(tmp_path: Path) -> None:
    config = Config("active-learning", "coco-masks", "margin", 2, 1, unannotated="void", test_share=0.0)
    pool = data.load("coco-masks", write(tmp_path, []), **config.load_options)
    assert pool.class_names == ["person", "car"]


def test_a_category_may_be_the_background_or_void(tmp_path: Path) -> None:
    named = [*CATEGORIES, {"id": 9, "name": "background"}, {"id": 10, "name": "Void"}]
    drawn = [annotation(0, 10, box(0, 0, 1, 8)), annotation(0, 9, box(1, 0, 2, 8))]
    pool = everything(write(tmp_path, drawn, categories=named))
    assert pool.class_names == ["person", "car", "background"]
    assert mask_of(pool, 0)[:, 0].tolist() == [-1, 2, 2, 2, 2, 2]


def test_an_image_without_annotations_is_unlabelled(tmp_path: Path) -> None:
    root = write(tmp_path, [])
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"] = content["annotations"][1:]
    (root / "annotations.json").write_text(json.dumps(content))
    pool = everything(root)
    assert (pool.labelled.tolist(), pool.skipped) == ([False, True, True, True, True], [])
    assert (mask_of(pool, 0) == -1).all()


def test_classes_can_be_put_in_another_order(tmp_path: Path) -> None:
    pool = everything(write(tmp_path, []), class_names=["car", "background", "person"])
    assert set(np.unique(mask_of(pool, 0)).tolist()) == {0, 1}
    with pytest.raises(UserError, match="--classes names car, and the file has the classes background, person, car"):
        everything(tmp_path, class_names=["car"])


def test_a_test_file_of_its_own(tmp_path: Path) -> None:
    root = write(tmp_path, [])
    content = json.loads((root / "annotations.json").read_text())
    (root / "annotations").mkdir()
    for split, part in (("train", slice(3)), ("val", slice(3, 5))):
        images = content["images"][part]
        ids = {one["id"] for one in images}
        of_split = [one for one in content["annotations"] if one["image_id"] in ids]
        file = root / f"annotations/instances_{split}.json"
        file.write_text(json.dumps(content | {"images": images, "annotations": of_split}))
    (root / "annotations.json").unlink()
    pool = data.load("coco-masks", root)
    assert (len(pool), pool.test_labels.shape) == (3, (2, HEIGHT, WIDTH))


def test_images_and_masks_come_to_one_size_together(tmp_path: Path) -> None:
    pool = everything(write(tmp_path, [annotation(0, 2, box(0, 0, 6, 4))]), size=4)
    assert mask_of(pool, 0).tolist() == [[PERSON, PERSON, BACKGROUND, BACKGROUND]] * 4


def test_the_version_of_the_masks_follows_what_is_drawn(tmp_path: Path) -> None:
    first = everything(write(tmp_path, [])).labels.version
    assert everything(write(tmp_path, [])).labels.version == first
    for other in (annotation(0, 2, box(0, 0, HEIGHT, 1)), annotation(0, 7, box(0, 0, HEIGHT, 2))):
        assert everything(write(tmp_path, [other])).labels.version != first


def test_it_passes_the_check_and_shows_what_is_there(tmp_path: Path) -> None:
    looked = check(coco_masks.find(write(tmp_path, [])))
    assert looked.passed
    assert looked.classes["name"].tolist() == CLASSES


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"iscrowd": 1}, r"its annotation 100 draws a crowd \(iscrowd 1\) with polygons"),
        ({"segmentation": [[0, 0, 3, 3]]}, "its annotation 100 has a polygon of 2 points; it takes 3 at least"),
        ({"segmentation": [[0, 0, 3, 0, 3]]}, "its annotation 100 has a polygon of 5 numbers, an odd one"),
        ({"segmentation": box(0, 0, 6, 20)}, r"has a polygon with the point \(20, 0\), outside of the image of 8 × 6"),
        ({"segmentation": {"size": [6, 8], "counts": [40, 3]}}, "has an RLE of 43 pixels, and the image has 48"),
        ({"segmentation": {"size": [6, 8], "counts": "x"}}, "has an RLE whose counts are no run lengths"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, r"has an RLE of the size \[8, 6\]"),
        ({"segmentation": []}, "has no segmentation; a box alone is no mask"),
    ],
)
def test_an_image_whose_annotation_cannot_be_drawn_is_left_out(bad: dict[str, Any], said: str, tmp_path: Path) -> None:
    pool = everything(write(tmp_path, [annotation(0, 7, box(0, 0, 2, 2)) | bad]))
    ((name, why),) = pool.skipped
    assert (name, len(pool)) == ("images/0.png", N - 1)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(why)


def test_an_image_of_another_size_than_the_file_says_is_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, [])
    Image.new("RGB", (10, 5)).save(root / "images/3.png")
    pool = everything(root)
    assert pool.skipped == [
        (
            "images/3.png",
            "its mask has 8 × 6 pixels, and the image, as it is shown, 10 × 5; correct its height and width in annotations.json",
        )
    ]


@pytest.mark.parametrize(
    "size", [{}, {"height": 0, "width": 8}, {"height": "6", "width": 8}, {"height": True, "width": 8}]
)
def test_an_entry_without_a_size_is_left_out(size: dict[str, Any], tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(1, N)]
    pool = everything(write(tmp_path, [], images=[{"id": 0, "file_name": "0.png", **size}, *images]))
    assert pool.skipped == [("images/0.png", "its entry has no height and width; export the file again")]


def test_an_entry_of_a_picture_too_large_to_hold_is_left_out(tmp_path: Path) -> None:
    images = [
        {"id": i, "file_name": f"{i}.png", "height": 10**9 if i == 0 else HEIGHT, "width": WIDTH} for i in range(N)
    ]
    ((_, why),) = everything(write(tmp_path, [], images=images)).skipped
    assert why.startswith("it has more than")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"annotations": [annotation(99, 7, box(0, 0, 2, 2))]},
            "annotations.json has an annotation of an image 99 that it does",
        ),
        (
            {"annotations": [annotation(0, 99, box(0, 0, 2, 2))]},
            "has an annotation of a category 99 that it does not list",
        ),
        ({"annotations": None}, "annotations.json is no file of COCO annotations: it has no list of annotations"),
        ({"annotations": [{"id": 1}]}, "one of its annotations lacks image_id or category_id; export it again"),
        ({"categories": []}, "the file names 1 class, and masks have 2 to 255; add or merge some"),
        ({"categories": [{"id": 7, "name": "void"}]}, "the file names 1 class, and masks have 2 to 255"),
        (
            {"categories": [*CATEGORIES, *({"id": k, "name": f"c{k}"} for k in range(9, 300))]},
            "names 294 classes, and masks have",
        ),
        (
            {"images": [{"id": i, "file_name": "0.png", "height": 6, "width": 8} for i in range(N)]},
            "names images/0.png a second",
        ),
        (
            {"images": [{"id": i, "file_name": f"../{i}.png", "height": 6, "width": 8} for i in range(N)]},
            "leads out of the folder",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_one_sentence(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = write(tmp_path, []) / "annotations.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=said):
        everything(tmp_path)


def test_pixels_without_annotation_are_background_or_void(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be 'sky'; choose from background, void"):
        everything(write(tmp_path, []), unannotated="sky")
