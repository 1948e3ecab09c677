"""A folder of images with masks: pairs, classes by value or colour, sizes, and every bad input in one sentence."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.check import check
from data.errors import UserError
from data.lazy import FITS, Fit
from data.sources import masks

CLASSES = "road\nsky\ntree\n"
N = 10


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path_factory.mktemp("cache")))


def save(file: Path, pixels: np.ndarray, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


def codes(seed: int, height: int = 12, width: int = 16, high: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (height, width), np.uint8)


def pair(root: Path, name: str, seed: int) -> None:
    save(root / f"images/{name}.png", np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8))
    save(root / f"masks/{name}.png", codes(seed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten colour images of 16 × 12 pixels with masks of three classes."""
    for i in range(N):
        pair(tmp_path, f"{i:02d}", i)
    (tmp_path / "classes.txt").write_text(CLASSES)
    return tmp_path


def of(pool: data.ImageDataset, name: str) -> np.ndarray:
    """The mask of an image of the pool."""
    return np.asarray(pool.labels[pool.ids.index(name)])


def unlabelled(pool: data.ImageDataset) -> list[str]:
    return [id for id, known in zip(pool.ids, pool.labelled, strict=True) if not known]


def everything(root: Path, **options: object) -> data.ImageDataset:
    return data.load("masks", root, test_share=0, **options)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_images_and_masks_belong_together_by_name(root: Path) -> None:
    pair(root, "deeper/a.b", 20)
    save(root / "images/photo.jpg", np.zeros((12, 16, 3), np.uint8))
    save(root / "masks/photo.png", codes(21))
    pool = everything(root)
    assert sorted(pool.ids) == [*(f"images/{i:02d}.png" for i in range(N)), "images/deeper/a.b.png", "images/photo.jpg"]
    for name, seed in (("03.png", 3), ("deeper/a.b.png", 20), ("photo.jpg", 21)):
        np.testing.assert_array_equal(of(pool, f"images/{name}"), codes(seed))
    assert (pool.answer, pool.class_names, pool.skipped) == ("mask", ["road", "sky", "tree"], [])


def test_a_fifth_is_held_out_unless_somebody_says_otherwise(root: Path) -> None:
    pool = data.load("masks", root)
    assert (len(pool), pool.test_labels.shape) == (8, (2, 12, 16))
    assert len(data.load("masks", root, test_share=0.5)) == 5
    assert everything(root).test_labels.shape == (0, 12, 16)


def test_a_test_set_of_its_own(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.mktemp("split")
    for part, seeds in (("train", range(4)), ("test", range(4, 6)), ("val", range(6, 7))):
        for seed in seeds:
            pair(top / part, str(seed), seed)
    (top / "classes.csv").write_text(CLASSES)
    pool = data.load("masks", top)
    assert pool.ids == [f"train/images/{i}.png" for i in range(4)]
    np.testing.assert_array_equal(pool.test_labels, np.stack([codes(4), codes(5)]))
    assert pool.skipped == [("val/images/6.png", "it lies neither in train nor in test")]


def test_an_image_without_a_mask_is_unlabelled(root: Path) -> None:
    (root / "masks/04.png").unlink()
    pool = everything(root)
    assert unlabelled(pool) == ["images/04.png"]
    assert (of(pool, "images/04.png") == -1).all()
    assert pool.skipped == []
    assert "1 image is without a mask: people can give one" in said(root)


def test_people_can_begin_without_any_mask(root: Path) -> None:
    for file in (root / "masks").iterdir():
        file.unlink()
    pool = data.load("masks", root)
    assert (len(pool), pool.labelled.any(), pool.test_labels.shape) == (N, False, (0, 12, 16))


def test_an_empty_mask_counts_as_none_and_is_named(root: Path) -> None:
    save(root / "masks/04.png", np.full((12, 16), 255, np.uint8))
    pool = everything(root)
    assert unlabelled(pool) == ["images/04.png"]
    assert "1 mask is empty, without a pixel of any class, that of images/04.png: it counts as" in said(root)


def test_all_masks_may_be_empty(root: Path) -> None:
    for file in (root / "masks").iterdir():
        save(file, np.full((12, 16), 255, np.uint8))
    assert len(unlabelled(everything(root))) == N
    assert "10 masks are empty, without a pixel of any class, those of" in said(root)


def test_a_damaged_mask_of_a_large_pool_is_named_when_it_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.files.look.VERIFIED", 100)
    save(root / "masks/04.png", np.full((12, 16), 9, np.uint8))
    save(root / "masks/05.png", np.zeros((5, 5), np.uint8))  # the header tells
    found = masks.find(root, test_share=0)
    assert [name for name, _ in found.skipped] == ["images/05.png"]
    assert check(found).classes.columns.tolist() == ["name"]
    pool = everything(root)
    assert pool.unreadable == []
    assert (of(pool, "images/04.png") == -1).all()
    assert pool.readable(np.arange(9)).tolist() == [id != "images/04.png" for id in pool.ids]
    ((name, why),) = pool.unreadable
    assert (name, why[:26]) == ("images/04.png", "its mask holds the value 9")


# --- classes ---------------------------------------------------------------------------------------------------------

COLOURED = np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0], [9, 9, 9]], np.uint8)  # road, sky, tree, void


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("road\nsky\ntree\n", [0, 1, 2, 255]),
        ("name\nroad\nsky\ntree\nvoid\n", [0, 1, 2, 3]),
        ("\ufeffValue,Name\n40,road\n10,sky\n20,tree\n", [40, 10, 20, 255]),
        ("0, Void\n1, road\n2, sky\n3, tree\n", [1, 2, 3, 0]),
        ("name,value\nroad,1\nsky,2\ntree,3\nunlabelled,0\n", [1, 2, 3, 0]),
        ("255,road\n1,sky\n2,tree\n0,ignore\n", [255, 1, 2, 0]),
    ],
)
def test_masks_by_value(root: Path, table: str, values: list[int]) -> None:
    (root / "classes.txt").write_text(table, encoding="utf-8")
    for i in range(N):
        save(root / f"masks/{i:02d}.png", np.array(values, np.uint8)[codes(i, high=4)])
    pool = everything(root)
    assert pool.class_names == ["road", "sky", "tree"]
    np.testing.assert_array_equal(of(pool, "images/07.png"), np.array([0, 1, 2, -1])[codes(7, high=4)])


@pytest.mark.parametrize(
    "table",
    [
        "road,255,0,0\nsky,0,0,255\ntree,0,255,0\nvoid,9,9,9\n",
        "Class,R,G,B\nroad,255,0,0\nsky,0,0,255\ntree,0,255,0\nvoid,9,9,9\n",
        "r,g,b,name\n255,0,0,road\n0,0,255,sky\n0,255,0,tree\n9,9,9,unknown\n",
    ],
)
def test_masks_by_colour(root: Path, table: str) -> None:
    (root / "classes.csv").write_text(table)  # which goes before classes.txt
    for i in range(N):
        save(root / f"masks/{i:02d}.png", COLOURED[codes(i, high=4)])
    pool = everything(root)
    np.testing.assert_array_equal(of(pool, "images/07.png"), np.array([0, 1, 2, -1])[codes(7, high=4)])


def test_several_values_can_be_one_class(root: Path) -> None:
    (root / "classes.txt").write_text("0,ground\n1,sky\n2,ground\n")
    pool = everything(root)
    assert pool.class_names == ["ground", "sky"]
    np.testing.assert_array_equal(of(pool, "images/02.png"), codes(2) == 1)


def test_named_classes_need_no_table(root: Path) -> None:
    (root / "classes.txt").unlink()
    assert everything(root, class_names=["a", "b", "c"]).class_names == ["a", "b", "c"]


# --- nothing is labelled yet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("emptied", [False, True])
def test_images_alone_are_a_pool_for_people_to_label(root: Path, emptied: bool) -> None:
    shutil.rmtree(root / "masks")
    if emptied:
        (root / "masks").mkdir()
    pool = data.load("masks", root)
    assert (len(pool), len(pool.test_labels), unlabelled(pool)) == (N, 0, pool.ids)
    assert pool.class_names == ["road", "sky", "tree"]
    assert (np.asarray(pool.labels) == -1).all()
    found = check(masks.find(root))
    assert (found.passed, found.n_unlabelled) == (True, N)
    assert found.findings[0].text == "10 images are without a mask: people can give one, image by image."


def test_an_image_that_cannot_be_read_does_not_keep_the_others_from_being_labelled(root: Path) -> None:
    shutil.rmtree(root / "masks")
    damaged_image(root)
    pool = data.load("masks", root)
    assert len(unlabelled(pool)) == len(pool) == N - 1
    assert [name for name, _ in pool.skipped] == ["images/03.png"]


def test_people_can_label_the_training_images_of_a_test_set_with_masks(tmp_path: Path) -> None:
    for part, seeds in (("train", range(4)), ("test", range(4, 6))):
        for seed in seeds:
            pair(tmp_path / part, str(seed), seed)
    (tmp_path / "classes.csv").write_text(CLASSES)
    shutil.rmtree(tmp_path / "train/masks")
    pool = data.load("masks", tmp_path)
    assert (len(unlabelled(pool)), pool.test_labels.shape) == (4, (2, 12, 16))


def test_a_folder_is_known_by_its_names(root: Path) -> None:
    assert masks.fits(root)
    shutil.rmtree(root / "masks")
    assert masks.fits(root)
    (root / "classes.txt").unlink()
    assert not masks.fits(root)
    (root / "train").mkdir()
    (root / "images").rename(root / "train/images")
    (root / "train/masks").mkdir()
    assert masks.fits(root)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_images_of_one_shape_keep_it_and_a_size_is_a_square(root: Path) -> None:
    assert everything(root).images.shape == (N, 12, 16, 3)
    pool = everything(root, size=6)
    assert (pool.images.shape, pool.labels.shape) == ((N, 6, 6, 3), (N, 6, 6))


def test_large_images_are_scaled_with_their_masks(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"images/{i}.png", np.zeros((300, 448, 3), np.uint8))
        save(tmp_path / f"masks/{i}.png", np.repeat(np.repeat(codes(i, 75, 112), 4, axis=0), 4, axis=1))
    (tmp_path / "classes.txt").write_text(CLASSES)
    pool = everything(tmp_path)
    assert pool.images.shape == (5, 150, 224, 3)
    np.testing.assert_array_equal(of(pool, "images/3.png")[::2, ::2], codes(3, 75, 112))


@pytest.mark.parametrize("fit", FITS)
def test_mask_and_image_are_brought_to_a_size_alike(tmp_path: Path, fit: Fit) -> None:
    """The image shows its own mask: at any size and fit, it must still."""
    shown = np.array([[0, 0, 0], [255, 255, 255], [128, 128, 128]], np.uint8)
    for i, (height, width) in enumerate([(60, 90), (90, 60), (80, 80)]):
        mask = np.repeat(np.repeat(codes(i, height // 10, width // 10), 10, axis=0), 10, axis=1)
        save(tmp_path / f"images/{i}.png", shown[mask])
        save(tmp_path / f"masks/{i}.png", mask)
    (tmp_path / "classes.txt").write_text(CLASSES)
    pool = everything(tmp_path, size=40, fit=fit)
    for image, mask in zip(pool.images, np.asarray(pool.labels), strict=True):
        known, grey = mask >= 0, image[..., 0]
        exact = known & np.isin(grey, (0, 128, 255))
        assert (shown[mask[exact], 0] == grey[exact]).mean() > 0.97
    filled = [(of(pool, f"images/{i}.png") < 0).mean() for i in range(3)]
    assert filled == pytest.approx([1 / 3, 1 / 3, 0] if fit == "pad" else [0, 0, 0], abs=0.02)


def test_a_turned_photograph_and_its_mask_are_set_upright(root: Path) -> None:
    notes = Image.Exif()
    notes[0x0112] = 6
    upright = codes(30, 16, 12)
    sideways = np.rot90(upright)  # as the camera stored it
    save(root / "images/stored.jpg", np.repeat(100 * sideways[..., None], 3, axis=2), exif=notes, quality=95)
    save(root / "masks/stored.png", sideways, exif=notes)
    save(root / "images/shown.jpg", np.repeat(100 * sideways[..., None], 3, axis=2), exif=notes, quality=95)
    save(root / "masks/shown.png", upright)
    save(root / "images/astray.jpg", np.repeat(100 * sideways[..., None], 3, axis=2), exif=notes, quality=95)
    save(root / "masks/astray.png", sideways)
    pool = everything(root, size=12, fit="pad")
    np.testing.assert_array_equal(of(pool, "images/stored.jpg"), of(pool, "images/shown.jpg"))
    ((name, why),) = pool.skipped
    assert name == "images/astray.jpg"
    assert why == "its mask has 16 × 12 pixels, and the image, as it is shown, 12 × 16; save the mask at that size"


# --- what is wrong with one image or mask: it is left out, and named --------------------------------------------------


def another_size(root: Path) -> None:
    save(root / "masks/03.png", codes(3, 10, 16))


def unknown_value(root: Path) -> None:
    save(root / "masks/03.png", codes(3, high=8))


def in_colour(root: Path) -> None:
    save(root / "masks/03.png", COLOURED[codes(3)])


def deep(root: Path) -> None:
    save(root / "masks/03.png", codes(3).astype(np.uint16))


def clear(root: Path) -> None:
    save(root / "masks/03.png", np.zeros((12, 16, 4), np.uint8))


def lossy(root: Path) -> None:
    (root / "masks/03.png").unlink()
    save(root / "masks/03.jpg", codes(3))


def damaged(root: Path) -> None:
    (root / "masks/03.png").write_bytes((root / "masks/03.png").read_bytes()[:50])


def two_masks(root: Path) -> None:
    save(root / "masks/03.tif", codes(3))


def damaged_image(root: Path) -> None:
    (root / "images/03.png").write_bytes((root / "images/03.png").read_bytes()[:50])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (another_size, r"its mask has 16 × 10 pixels, and the image, as it is shown, 16 × 12; save the mask at that size"),
        (unknown_value, r"its mask holds the value [3-7], which classes.txt does not name; add it there, or correct the mask"),
        (in_colour, r"its mask is in colours, and classes.txt names none; add the columns r, g, b there"),
        (deep, r"its mask has 16 bits a pixel; save it as PNG with 8 bits a pixel, indexed, grey or RGB"),
        (clear, r"its mask has transparent parts; save it as PNG with 8 bits a pixel, indexed, grey or RGB"),
        (lossy, r"its mask is JPEG, whose pixels may not be what was drawn; save it as PNG"),
        (damaged, r"its mask: .+"),
        (two_masks, r"it has 2 masks, 03.png and 03.tif; keep one"),
        (damaged_image, r".+"),
    ],
)  # fmt: skip
def test_an_image_whose_mask_cannot_be_taken_is_left_out_and_named(
    root: Path, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(root)
    pool = everything(root)
    assert sorted(pool.ids) == [f"images/{i:02d}.png" for i in range(N) if i != 3]
    ((name, reason),) = pool.skipped
    assert name == "images/03.png"
    assert re.fullmatch(why, reason)
    np.testing.assert_array_equal(of(pool, "images/04.png"), codes(4))


def test_an_unknown_colour_is_named(root: Path) -> None:
    (root / "classes.txt").write_text("road,255,0,0\nsky,0,0,255\ntree,0,255,0\n")
    for i in range(N):
        save(root / f"masks/{i:02d}.png", COLOURED[codes(i, high=3 + (i == 3))])
    ((name, why),) = everything(root).skipped
    assert name == "images/03.png"
    assert (
        why == "its mask holds the colour (9, 9, 9), which classes.txt does not name; add it there, or correct the mask"
    )


def test_a_mask_of_no_image_is_named(root: Path) -> None:
    save(root / "masks/other.png", codes(3))
    pool = everything(root)
    assert len(pool) == N
    assert pool.skipped == [("masks/other.png", "there is no image of its name; add it, or delete the mask")]


def test_two_images_of_one_name_are_left_out(root: Path) -> None:
    save(root / "images/03.jpg", np.zeros((12, 16, 3), np.uint8))
    pool = everything(root)
    assert [name for name, _ in pool.skipped] == ["images/03.jpg", "images/03.png"]
    assert "one mask cannot serve both; rename one" in pool.skipped[0][1]


def test_a_test_image_needs_a_mask(tmp_path: Path) -> None:
    for part, seeds in (("train", range(4)), ("test", range(4, 6))):
        for seed in seeds:
            pair(tmp_path / part, str(seed), seed)
    (tmp_path / "classes.csv").write_text(CLASSES)
    (tmp_path / "test/masks/5.png").unlink()
    pool = data.load("masks", tmp_path)
    assert pool.test_labels.shape == (1, 12, 16)
    assert pool.skipped == [
        ("test/images/5.png", "it is to be tested on, and has no mask; add one, or take the image out")
    ]


# --- what is wrong with all of it -------------------------------------------------------------------------------------


def no_masks_folder(root: Path) -> None:
    (root / "masks").rename(root / "labels")


def no_images(root: Path) -> None:
    for file in (root / "images").iterdir():
        file.unlink()


def other_names(root: Path) -> None:
    for file in (root / "masks").iterdir():
        file.rename(file.with_name(f"mask-{file.name}"))


def all_of_another_size(root: Path) -> None:
    for file in (root / "masks").iterdir():
        save(file, codes(0, 6, 8))


def of_255_and_0(root: Path) -> None:
    (root / "classes.txt").write_text("background\npolyp\n")
    for file in (root / "masks").iterdir():
        save(file, 255 * codes(0, high=2))


def table(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "classes.txt").write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_masks_folder, "there is no folder .*masks; there is labels; put images into images and their masks into masks"),
        (no_images, "there is no image in the folders images .*; the first file: masks/00.png: there is no image of its"),
        (other_names, "no image in .* has a mask that can be used; the first one: masks/mask-00.png: there is no image"),
        (all_of_another_size, "no image in .* has a mask that can be used; the first one: images/0.*its mask has 8 × 6"),
        (of_255_and_0, "hold no class but 'background', and 255.*; if 255 is a class, write .* 0,background and 255,polyp"),
        (lambda root: (root / "classes.txt").unlink(), "there is no classes.csv or classes.txt in .*; write one class per"),
        (table(""), "classes.txt names no class; write one class per line: name"),
        (table("name\nroad\nvoid\n"), "classes.txt names 1 class, void left out"),
        (table("\n".join(f"class {i}" for i in range(256))), "classes.txt names 256 classes"),
        (table("road\nsky\nroad\n"), "line 3 of classes.txt names 'road' a second time"),
        (table("0,road\n1,sky\n1,tree\n"), "classes.txt names 1 a second time, 'tree'; give every value or colour one class"),
        (table("0,road\nsky\n"), "line 2 of classes.txt reads 'sky'; expected the lines name, or value,name, or name,r,g,b"),
        (table("road,0\nsky,1\n"), "line 1 of classes.txt holds 'road' where a whole number from 0 to 255 is wanted"),
        (table("0,road\n256,sky\n"), "line 2 of classes.txt holds '256'"),
        (table("road,0,0\nsky,1,1\n"), "line 1 of classes.txt reads 'road,0,0'; expected"),
        (table("name,value,r\nroad,1,1\n"), "the columns of the table of classes are name, value, r; expected"),
        (table("0,road\n1,\n"), "classes.txt has a class without a name; name it, or call it void"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_all_is_one_sentence(root: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(root)
    with pytest.raises(UserError, match=message):
        everything(root)


def test_places_and_options_that_cannot_be(root: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; give the path"):
        data.load("masks", root / "nowhere")
    with pytest.raises(UserError, match="the image size must be at least 1 pixel, got 0"):
        data.load("masks", root, size=0)
    with pytest.raises(UserError, match="needs the path of your images"):
        data.load("masks")
    (root / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"classes.txt cannot be read as a UTF-8 table"):
        data.load("masks", root)


def test_links_out_of_the_folder_are_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (root / "masks/03.png").rename(outside / "03.png")
    (root / "masks/03.png").symlink_to(outside / "03.png")
    pool = everything(root)
    assert [name for name, _ in pool.skipped] == ["masks/03.png"]
    assert unlabelled(pool) == ["images/03.png"]
    (root / "masks").rename(outside / "masks")
    (root / "masks").symlink_to(outside / "masks")
    with pytest.raises(UserError, match="masks is a link that leads out of the folder"):
        everything(root)


# --- what is said before anything runs --------------------------------------------------------------------------------


def said(root: Path) -> str:
    return " ".join(finding.text for finding in check(masks.find(root, test_share=0)).findings)


def test_a_look_counts_classes_in_images_and_pixels(root: Path) -> None:
    for i in range(N):
        save(root / f"masks/{i:02d}.png", np.zeros((12, 16), np.uint8))
    save(root / "masks/03.png", np.repeat(np.array([[0], [1]], np.uint8), [11, 1], axis=0).repeat(16, axis=1))
    found = check(masks.find(root))
    assert found.passed
    assert found.classes["name"].tolist() == ["road", "sky", "tree"]
    assert (found.classes["pool"] + found.classes["test"]).tolist() == [10, 1, 0]
    assert found.classes["pixels"].tolist() == pytest.approx([1 - 1 / 120, 1 / 120, 0])
    assert (found.n_pool, found.n_test, found.n_unlabelled) == (8, 2, 0)
    text = " ".join(finding.text for finding in found.findings)
    assert "Class tree without a pixel so far." in text
    assert "99.2% of the known pixels are road, 0.8% sky" in text
    assert "2 images are held out to test the model" in text


def test_a_look_says_how_many_pixels_of_the_masks_are_unknown(root: Path) -> None:
    assert "unknown" not in said(root)
    for i in range(N - 2):
        save(root / f"masks/{i:02d}.png", np.where(np.arange(16) < 4, 255, codes(i)).astype(np.uint8))
    (root / "masks/08.png").unlink()  # an image without a mask does not count
    (root / "masks/09.png").unlink()
    assert "25.0% of the masks' pixels are unknown: they are neither trained on nor measured." in said(root)


def test_equal_images_with_other_masks_contradict(root: Path) -> None:
    (root / "images/04.png").write_bytes((root / "images/03.png").read_bytes())
    assert "In 1 of these groups the labels contradict" in said(root)
    (root / "masks/04.png").write_bytes((root / "masks/03.png").read_bytes())
    assert "contradict" not in said(root)


def test_a_second_look_reads_no_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = everything(root)
    monkeypatch.setattr("data.files.maskfile.read", None)
    assert everything(root).fingerprint == first.fingerprint
