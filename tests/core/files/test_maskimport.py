"""Masks that come into a run as somebody's annotations: PNGs and COCO; nothing is recorded of a file that does not fit."""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
from core.__main__ import main
from core.files import handout, maskexport
from core.runs import run
from core.store.maskfiles import encoded
from data.errors import UserError
from data.files import archive as archive_module
from data.files import cocomask
from data.masks import VOID
from tests.core.files import drawn
from tests.core.files.drawn import CLASSES, HEIGHT, WIDTH

Made = tuple[run.Run, data.ImageDataset]


@pytest.fixture
def made(home: Path, tmp_path: Path) -> Made:
    return drawn.a_run(drawn.folder(tmp_path / "own"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """One run for all tests that must leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("runs")))
        yield drawn.a_run(drawn.folder(tmp_path_factory.mktemp("own")))


def exported(made: Made, file: Path, form: str, **options: bool) -> Path:
    maskexport.write(file, made[1], maskexport.standing(*made), form, **options)
    return file


def import_of(one: run.Run, file: Path, who: str = "bea") -> int:
    return main(["import", one.id, str(file), "--annotator", who])


def row_of(made: Made, name: str) -> int:
    return made[1].ids.index(f"images/{name}.png")


def layer(made: Made, row: int, who: str = "bea") -> np.ndarray:
    """What an annotator has drawn of an image."""
    return maskexport.standing(*made).layers(row)[1][f"person: {who}"]


@pytest.mark.parametrize(
    ("name", "form", "options"),
    [
        ("masks.zip", "png", {}),
        ("coco.json", "coco", {}),
        ("coco.json", "coco", {"polygons": True}),
        ("masks.zip", "png", {"images": True}),
        ("coco.zip", "coco", {"images": True}),
        ("coco.zip", "coco", {"images": True, "polygons": True}),
    ],
)
def test_what_was_exported_comes_back_pixel_for_pixel(
    name: str,
    form: str,
    options: dict[str, bool],
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, pool = made
    before = drawn.codes(one, pool)
    file = exported(made, tmp_path / name, form, **options)
    assert import_of(one, file) == 0
    assert capsys.readouterr().out.startswith(f"4 new masks of 4 in {name}. `step")
    for row in range(4):
        np.testing.assert_array_equal(layer(made, row).astype(np.int64), np.where(before[row] < 0, VOID, before[row]))
    assert import_of(one, file) == 0  # twice is as once
    assert capsys.readouterr().out == f"0 new masks of 4 in {name}.\n"


def saved(folder: Path, **masks: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, codes in masks.items():
        Image.fromarray(codes).save(folder / f"{name}.png")
    return folder


def test_a_folder_without_a_table_holds_the_runs_classes_by_number(made: Made, tmp_path: Path) -> None:
    one, _ = made
    assert import_of(one, saved(tmp_path / "masks-of-bea", q=drawn.mask(7))) == 0
    np.testing.assert_array_equal(layer(made, row_of(made, "q")), drawn.mask(7))


def test_a_table_beside_the_masks_says_what_their_colours_mean(made: Made, tmp_path: Path) -> None:
    one, _ = made
    codes = drawn.mask(7, void=0)
    shades = np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0]], np.uint8)
    (tmp_path / "in/train/masks").mkdir(parents=True)
    saved(tmp_path / "in/train/masks", q=shades[codes])
    (tmp_path / "in/train/images").mkdir()
    saved(tmp_path / "in/train/images", q=shades[codes])
    (tmp_path / "in/classes.csv").write_text("name,r,g,b\ntree,0,9,0\nsky,0,0,9\nvoid,9,0,0\n")
    assert import_of(one, tmp_path / "in") == 0
    np.testing.assert_array_equal(layer(made, row_of(made, "q")), np.where(codes == 1, VOID, codes))


def zipped(file: Path, **masks: np.ndarray) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, codes in masks.items():
            archive.writestr(f"{name}.png", encoded(codes))
    return file


def test_what_macos_puts_beside_the_masks_is_none(made: Made, tmp_path: Path) -> None:
    file = zipped(tmp_path / "in.zip", **{"mine/masks/q": drawn.mask(7)})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("__MACOSX/mine/masks/._q.png", b"\x00\x05\x16\x07")
        archive.writestr("mine/masks/.q.png", b"")
    assert import_of(made[0], file) == 0
    np.testing.assert_array_equal(layer(made, row_of(made, "q")), drawn.mask(7))


def test_masks_that_come_while_a_worker_is_at_it_are_for_the_next_cycle(made: Made, tmp_path: Path) -> None:
    one, pool = made
    one.log.finish(0, "score", 0.0, {"n_labels": 3})
    with one.lock:
        said = handout.bring_in(one, pool, "in.zip", zipped(tmp_path / "in.zip", q=drawn.mask(7)).read_bytes(), "bea")
    assert said == "1 new masks of 1 in in.zip."
    last = one.log.events().iloc[-1]
    assert (last["source"], last["cycle"]) == ("person: bea", one.open_cycle())


def test_a_file_name_of_the_browser_leads_nowhere_else(made: Made, tmp_path: Path) -> None:
    content = zipped(tmp_path / "in.zip", q=drawn.mask(7)).read_bytes()
    assert handout.bring_in(*made, "../../in.zip", content, "bea").startswith("1 new masks of 1 in in.zip")
    for name in ("x" * 300 + ".zip", "a\0b.zip", ".."):
        with pytest.raises(UserError, match=r"cannot be read .*: give the file a short name"):
            handout.bring_in(*made, name, content, "bea")


def test_a_zip_file_may_hold_one_folder_with_everything(made: Made, tmp_path: Path) -> None:
    saved(tmp_path / "in", q=drawn.mask(7))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "in/q.png", "project/masks/q.png")
        archive.writestr("project/classes.csv", "tree\nsky\nvoid\n")
        archive.writestr("project/readme.txt", "drawn by bea")
    assert import_of(made[0], tmp_path / "in.zip") == 0
    expected = np.array([2, 0, VOID], np.uint8)[np.minimum(drawn.mask(7), 2)]
    np.testing.assert_array_equal(layer(made, row_of(made, "q")), np.where(drawn.mask(7) == VOID, VOID, expected))


def test_a_mask_as_large_as_the_images_file_comes_to_the_runs_size(home: Path, tmp_path: Path) -> None:
    made = drawn.a_run(drawn.folder(tmp_path / "own", (2 * HEIGHT, 2 * WIDTH)), size=12)
    large = np.kron(drawn.mask(7, void=0), np.ones((2, 2), np.uint8))
    said = handout.bring_in(*made, str(saved(tmp_path / "large", q=large)), annotator="bea")
    assert said.startswith("1 new masks of 1 in large")
    found = layer(made, row_of(made, "q"))
    assert found.shape == (12, 12)
    assert set(np.unique(found).tolist()) <= {0, 1, 2}


def test_an_empty_mask_is_no_label_and_is_counted(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = made
    folder = saved(tmp_path / "in", q=drawn.mask(7), r=np.full((HEIGHT, WIDTH), VOID, np.uint8))
    assert import_of(one, folder) == 0
    assert capsys.readouterr().out.startswith("1 new masks of 1 in in; 1 left out: no pixel has a class.")


def write_coco(file: Path, **changes: Any) -> Path:
    """A road over all of the image q, and a tree on it."""
    full = cocomask.compressed(np.ones((HEIGHT, WIDTH), np.bool_))
    tree = [[2, 2, 6, 2, 6, 6, 2, 6]]
    content = {
        "images": [{"id": 5, "file_name": "q.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [
            {"id": 1, "name": CLASSES[1]},
            {"id": 2, "name": "tree"},
            {"id": 3, "name": "of another project"},
        ],
        "annotations": [
            {"id": 8, "image_id": 5, "category_id": 1, "segmentation": full},
            {"id": 9, "image_id": 5, "category_id": 2, "segmentation": tree},
        ],
    }
    file.write_text(json.dumps(content | changes))
    return file


def test_coco_of_other_tools_is_read_by_names(made: Made, tmp_path: Path) -> None:
    assert import_of(made[0], write_coco(tmp_path / "coco.json")) == 0
    expected = np.full((HEIGHT, WIDTH), 1)
    expected[2:6, 2:6] = 2
    np.testing.assert_array_equal(layer(made, row_of(made, "q")), expected)


# --- bad input -------------------------------------------------------------------------------------------------------


def of_another_size(tmp_path: Path) -> Path:
    return saved(tmp_path / "in", q=np.zeros((5, 7), np.uint8))


def of_another_mode(tmp_path: Path) -> Path:
    return saved(tmp_path / "in", q=np.zeros((HEIGHT, WIDTH, 4), np.uint8))


def of_unknown_values(tmp_path: Path) -> Path:
    return saved(tmp_path / "in", q=np.full((HEIGHT, WIDTH), 3, np.uint8))


def of_unknown_colours(tmp_path: Path) -> Path:
    folder = saved(tmp_path / "in", q=np.full((HEIGHT, WIDTH, 3), 3, np.uint8))
    (folder / "classes.csv").write_text("name,r,g,b\nsky,0,0,0\ntree,1,1,1\n")
    return folder


def of_no_image(tmp_path: Path) -> Path:
    return saved(tmp_path / "in", nowhere=drawn.mask(7))


def two_of_one_image(tmp_path: Path) -> Path:
    folder = saved(tmp_path / "in", q=drawn.mask(7))
    saved(folder / "more", q=drawn.mask(8))
    return folder


def in_colours_without_a_table(tmp_path: Path) -> Path:
    return saved(tmp_path / "in", q=np.full((HEIGHT, WIDTH, 3), 3, np.uint8))


def photographs_alone(tmp_path: Path) -> Path:
    """A zip file with nothing but the folder images."""
    folder = saved(tmp_path / "images", q=drawn.mask(7))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(folder / "q.png", "images/q.png")
    return tmp_path / "in.zip"


def missing(tmp_path: Path) -> Path:
    saved(tmp_path / "in")
    saved(tmp_path / "in/images", q=drawn.mask(7))
    return tmp_path / "in"


def files(one: run.Run) -> set[Path]:
    """The masks that a run keeps."""
    return {path for path in one.masks.folder.rglob("*") if path.is_file()}


def of_another_kind(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("sample_id,annotator,label\nq,bea,tree\n")
    return tmp_path / "in.csv"


def gone(tmp_path: Path) -> Path:
    return tmp_path / "nowhere.zip"


def damaged(tmp_path: Path) -> Path:
    (saved(tmp_path / "in") / "q.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    return tmp_path / "in"


def no_zip(tmp_path: Path) -> Path:
    (tmp_path / "in.zip").write_bytes(b"PK nothing")
    return tmp_path / "in.zip"


def cut_short(tmp_path: Path) -> Path:
    whole = zipped(tmp_path / "in.zip", q=drawn.mask(7)).read_bytes()
    (tmp_path / "in.zip").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "in.zip"


def changed_on_the_way(tmp_path: Path) -> Path:
    whole = bytearray(zipped(tmp_path / "in.zip", q=drawn.mask(7)).read_bytes())
    whole[60] ^= 255  # in the middle of the mask
    (tmp_path / "in.zip").write_bytes(whole)
    return tmp_path / "in.zip"


def with_nothing(tmp_path: Path) -> Path:
    return zipped(tmp_path / "in.zip")


def a_bomb(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("q.png", bytes(archive_module.SMALL + 1))
    return tmp_path / "in.zip"


def a_picture_of_gigabytes(tmp_path: Path) -> Path:
    parts = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(999))
    chunks = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in parts]
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("q.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return tmp_path / "in.zip"


def the_second_of_another_size(tmp_path: Path) -> Path:
    return zipped(tmp_path / "in.zip", q=drawn.mask(77), r=np.zeros((5, 7), np.uint8))


def text(content: bytes, name: str = "in.json") -> Callable[[Path], Path]:
    def write(tmp_path: Path) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def that_leads_out(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("../q.png", b"")
    return tmp_path / "in.zip"


def of_other_classes(tmp_path: Path) -> Path:
    folder = saved(tmp_path / "in", q=drawn.mask(7))
    (folder / "classes.csv").write_text("sky\nsea\ntree\n")
    return folder


def of_thousands_of_classes(tmp_path: Path) -> Path:
    folder = saved(tmp_path / "in", q=drawn.mask(7))
    (folder / "classes.csv").write_text("\n".join(f"class {k}" for k in range(6000)))
    return folder


def coco(**changes: Any) -> Callable[[Path], Path]:
    return lambda tmp_path: write_coco(tmp_path / "in.json", **changes)


def with_segmentation(segmentation: Any, **more: Any) -> Callable[[Path], Path]:
    return coco(annotations=[{"id": 8, "image_id": 5, "category_id": 2, "segmentation": segmentation, **more}])


def image(**changes: Any) -> dict[str, Any]:
    return {"id": 5, "file_name": "q.png", "height": HEIGHT, "width": WIDTH} | changes


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (of_another_size, "q.png has 7 × 5 pixels, the run sees the image at 16 × 12: save the mask at that size"),
        (of_another_mode, "q.png: its mask has transparent parts; save it as PNG"),
        (of_unknown_values, "q.png: its mask holds the value 3, which the run does not name"),
        (of_unknown_colours, r"q.png: its mask holds the colour \(3, 3, 3\), which classes.csv does not name"),
        (of_no_image, "in has a mask of 'nowhere.png', which is no image of this run: rename it, or take it out"),
        (two_of_one_image, "in has two masks of 'images/q.png', more/q.png and q.png: keep one of them"),
        (in_colours_without_a_table, "q.png: its mask is in colours, and the run names none; put a classes.csv with the columns"),
        (photographs_alone, "There is no mask in in.zip: give PNG files, each with the name of its image"),
        (missing, "There is no mask in in: give PNG files, each with the name of its image"),
        (of_another_kind, "in.csv holds no masks: give a folder or .zip of PNG files"),
        (gone, "nowhere.zip cannot be unpacked"),
        (damaged, "q.png cannot be read"),
        (no_zip, "this zip file cannot be read"),
        (cut_short, "this zip file cannot be read"),
        (changed_on_the_way, "this zip file cannot be read: Bad CRC-32"),
        (with_nothing, "There is no mask in in.zip"),
        (a_bomb, "this zip file unpacks to 64 MB, more than 200 times its size"),
        (a_picture_of_gigabytes, r"q.png cannot be read \(it has more than 89,478,485 pixels; scale it down\)"),
        (the_second_of_another_size, "r.png has 7 × 5 pixels"),
        (text(b'{"images": [{"id": 5, "file_na'), "in.json cannot be read as JSON"),
        (text(b"\xff\xfe\x00"), "in.json cannot be read as JSON"),
        (text(b""), "in.json cannot be read as JSON"),
        (that_leads_out, "a name that leads out of its folder"),
        (of_other_classes, "classes.csv names the class 'sea'; this run has sky, road"),
        (of_thousands_of_classes, "classes.csv has 6,000 lines, and 5,000 are read"),
        (coco(images=[image(file_name="")]), "in.json has a mask of '', which is no image of this run"),
        (coco(images=[image(file_name="z.png")]), "in.json has a mask of 'z.png', which is no image of this run"),
        (coco(images=[image(height=5)]), "in.json: 'q.png' has 16 × 5 pixels|has an RLE of the size"),
        (coco(images=[image(), image(id=6)], annotations=[
            {"id": k, "image_id": k, "category_id": 2, "segmentation": [[2, 2, 6, 2, 6, 6]]} for k in (5, 6)
        ]), "in.json names 'images/q.png' a second time"),
        (with_segmentation([[2, 2, 6, 2]]), "in.json, image 'q.jpg': its annotation 8 has a polygon of 2 points"),
        (with_segmentation([[2, 2, 6, 2, 6, 6]], iscrowd=1), r"its annotation 8 draws a crowd \(iscrowd 1\) with polygons"),
        (with_segmentation({"size": [12, 16], "counts": [4]}), "has an RLE of 4 pixels, and the image has 192"),
        (coco(annotations=[{"image_id": 5, "category_id": 3, "segmentation": []}]), "of the category 'of another project'"),
        (coco(annotations=[{"image_id": 7, "category_id": 2}]), "an annotation of an image 7 that it does not list"),
        (coco(annotations=[{"image_id": 5, "category_id": 9}]), "an annotation of a category 9 that it does not list"),
        (coco(categories=None), "in.json is no file of COCO annotations: it has no list of categories"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_and_nothing_is_recorded(
    bad: Callable[[Path], Path], said: str, kept: Made, tmp_path: Path
) -> None:
    before = len(kept[0].log.events()), files(kept[0])
    with pytest.raises(UserError, match=said) as error:
        handout.bring_in(*kept, str(bad(tmp_path)), annotator="bea")
    assert "\n" not in str(error.value)
    assert (len(kept[0].log.events()), files(kept[0])) == before


def test_who_drew_the_masks_has_to_be_said(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", made[0].id, str(saved(tmp_path / "in", q=drawn.mask(7)))]) == 2
    assert "in does not say who drew its masks: name the annotator (--annotator)." in capsys.readouterr().err
