"""What a folder is found to be before anything runs on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import check
from data.files import look
from data.sources import folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "cache"))


def save(root: Path, name: str, seed: int, mode: str = "L", size: tuple[int, int] = (8, 8)) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def tree(root: Path, n: int = 10) -> Path:
    for k, label in enumerate(("cat", "dog")):
        for i in range(n):
            save(root, f"{label}/{i:02d}.png", 100 * k + i)
    return root


def texts(found: check.Check, severity: str = "look") -> str:
    return " ".join(one.text for one in found.findings if one.severity == severity)


def test_a_folder_as_it_should_be(tmp_path: Path) -> None:
    found = check.check(folder.find(tree(tmp_path / "images")))
    assert found.passed
    assert texts(found) == ""
    assert found.classes.to_dict("records") == [
        {"name": "cat", "pool": 8, "test": 2},
        {"name": "dog", "pool": 8, "test": 2},
    ]
    assert (found.n_pool, found.n_test, found.n_unlabelled) == (16, 4, 0)
    assert "4 images are held out" in texts(found, "fine")


def test_unreadable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    found = check.check(folder.find(root))
    assert found.unreadable["file"].tolist() == ["cat/broken.png"]
    assert found.unreadable["reason"].iloc[0]
    assert texts(found).startswith("1 file is left out: ")
    assert "(1: cat/broken.png)" in texts(found)


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    for i in range(2000):
        (root / "cat" / f"{i:04d}.txt").write_text("a note")
    found = check.check(folder.find(root))
    assert "2,000 files are left out: not an image that can be read (2,000: cat/" in texts(found)
    assert len(texts(found)) < 200
    assert len(found.unreadable) == 2000


def test_the_same_image_twice(tmp_path: Path) -> None:
    """By content, whatever the format; with other labels, and in pool and test set."""
    root = tmp_path / "images"
    for part in ("train", "test"):
        tree(root / part, 4)
    for part in ("train", "test"):  # every test image is one of the pool's
        Image.open(root / "train/cat/00.png").save(root / part / "dog/copy.bmp")
    found = check.check(folder.find(root))
    groups = found.duplicates.groupby("group")
    same = next(group for _, group in groups if "train/cat/00.png" in set(group["file"]))
    assert set(same["file"]) == {"train/cat/00.png", "test/cat/00.png", "train/dog/copy.bmp", "test/dog/copy.bmp"}
    assert groups.ngroups == 8
    assert "In 1 of these groups the labels contradict" in texts(found)
    assert "Pool and test set share images in 8 of these groups" in texts(found)


def test_a_class_with_one_image(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    save(root, "eel/0.png", 999)
    found = check.check(folder.find(root))
    assert "Class eel with only one image" in texts(found)
    assert found.passed


def test_odd_sizes(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    Image.new("RGB", (12, 400)).save(root / "cat/long.png")
    found = check.check(folder.find(root))
    assert "1 image is much larger, smaller or longer than is usual here, such as cat/long.png (12 × 400)" in texts(
        found
    )
    assert found.odd.to_dict("records") == [{"file": "cat/long.png", "width": 12, "height": 400}]


def test_uneven_classes(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for i in range(40):
        save(root, f"many/{i}.png", i)
    for i in range(3):
        save(root, f"few/{i}.png", 100 + i)
    assert "The classes are uneven: 40 images of many, 3 of few" in texts(check.check(folder.find(root)))


def test_sizes_and_kinds(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", 5)
    save(root, "cat/large.png", 7, "RGB", (200, 100))
    save(root, "dog/clear.png", 8, "RGBA")
    found = check.check(folder.find(root))
    assert found.sizes.iloc[0].tolist() == [8, 8, 11]
    assert found.sizes.iloc[1].tolist() == [200, 100, 1]
    assert dict(found.modes.itertuples(index=False)) == {"grey": 10, "colour": 1, "colour, transparent": 1}
    assert "10 images are grey and 2 not" in texts(found)
    assert "stretched to 64 × 64" in texts(found, "fine")
    assert "1 image with transparent parts" in texts(found, "fine")


def test_one_class_stops(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for i in range(5):
        save(root, f"cat/{i}.png", i)
    found = check.check(folder.find(root))
    assert not found.passed
    assert "There is only one class, cat" in texts(found, "stop")


def test_images_without_labels_wait_for_people(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for i in range(5):
        save(root, f"{i}.png", i)
    found = check.check(folder.find(root, class_names=["cat", "dog"]), ["cat", "dog"])
    assert found.passed
    assert found.n_unlabelled == 5
    assert "5 images are without a label" in texts(found)
    assert "no test set" in texts(found)
    votes = tmp_path / "votes.csv"
    votes.write_text("sample_id,annotator,label\n0.png,ann,cat\n1.png,ann,dog\n")
    assert check.check(folder.find(root, votes=votes), votes=True).passed


def test_on_demand_the_check_says_what_was_read_and_what_the_model_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "images", 5)
    save(root, "cat/large.png", 7, "RGB", (200, 100))
    said = texts(check.check(folder.find(root, on_demand=True)), "fine")
    assert "Only the headers were read" not in said
    said = texts(check.check(folder.find(root, size=50, fit="crop")), "fine")
    assert "scaled and cropped to 50 × 50 pixels; choose another image size or fit under Advanced" in said
    monkeypatch.setattr(look, "VERIFIED", 10)
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "other"))
    assert "Only the headers were read" in texts(check.check(folder.find(root, on_demand=True)), "fine")
    monkeypatch.setattr(look, "HEADERS", 4)
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "third"))
    looked = check.check(folder.find(root, on_demand=True))
    assert "The headers of 4 of 11 images were read" in texts(looked, "fine")
    assert looked.sizes["images"].sum() == 4
