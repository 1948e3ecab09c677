"""Archives that somebody uploads: images pass, everything else is refused and leaves nothing behind."""

import io
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.errors import UserError
from data.files import upload
from data.sources import folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "uploads"


def picture(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def packed(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer


GOOD = [(f"{label}/{i}.png", picture(i + 10 * k)) for k, label in enumerate(("cat", "dog")) for i in range(5)]


def test_images_come_out_as_they_went_in() -> None:
    root = upload.unpack(packed(*GOOD))
    assert {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")} == dict(GOOD)
    assert data.load("folder", root).class_names == ["cat", "dog"]


def test_one_folder_that_holds_everything_is_left_out_and_so_is_clutter(cache: Path) -> None:
    clutter = [("my pets/.DS_Store", b"x"), ("__MACOSX/my pets/._0.png", b"x"), ("my pets/Thumbs.db", b"x")]
    root = upload.unpack(packed(*((f"my pets/{name}", content) for name, content in GOOD), *clutter))
    assert {path.name for path in root.iterdir()} == {"cat", "dog"}
    assert len([path for path in root.rglob("*") if path.is_file()]) == len(GOOD)


@pytest.mark.parametrize("top", ["", "my pets/"])
def test_a_table_beside_the_images(top: str) -> None:
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10))
    images = [(f"{top}{i}.png", picture(i)) for i in range(10)]
    root = upload.unpack(packed(*images, (f"{top}metadata.csv", f"file_name,label\n{rows}".encode())))
    assert data.load("folder", root).class_names == ["cat", "dog"]


@pytest.mark.parametrize("top", ["", "my scenes/"])
@pytest.mark.parametrize("table", ["classes.csv", "classes.txt"])
def test_images_with_masks_and_the_table_of_their_classes(top: str, table: str) -> None:
    mask = io.BytesIO()
    Image.fromarray(np.repeat([[0, 1]], 8, axis=0).repeat(4, axis=1).astype(np.uint8)).save(mask, "PNG")
    files = [(f"{top}{part}/{i}.png", content(i)) for i in range(5) for part, content in
             (("images", picture), ("masks", lambda _: mask.getvalue()))]  # fmt: skip
    root = upload.unpack(packed(*files, (f"{top}{table}", b"road\nsky\n"), (f"{top}readme.txt", b"Look!")))
    assert [name for name, one in data.CATALOGUE.items() if one.fits and one.fits(root)] == ["masks"]
    pool = data.load("masks", root)
    assert (pool.class_names, len(pool), int(pool.labelled.sum())) == (["road", "sky"], 4, 4)
    assert pool.skipped == [(f"{top}readme.txt", "not an image that can be read")]


def test_coco_annotations_beside_their_images() -> None:
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in range(5)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]} for i in range(5)
        ],
    }
    images = [(f"set/images/{i}.png", picture(i)) for i in range(5)]
    root = upload.unpack(packed(*images, ("set/annotations/instances.json", json.dumps(content).encode())))
    assert [name for name, one in data.CATALOGUE.items() if one.fits and one.fits(root)] == ["coco-masks"]
    assert data.load("coco-masks", root).class_names == ["background", "car"]


def test_class_folders_fit_no_other_layout_whatever_lies_beside_them() -> None:
    root = upload.unpack(packed(*GOOD, ("dataset-metadata.json", b'{"title": "Pets"}')))
    assert not [name for name, one in data.CATALOGUE.items() if one.fits and one.fits(root)]
    pool = data.load("folder", root)
    assert (pool.class_names, [name for name, _ in pool.skipped]) == (["cat", "dog"], ["dataset-metadata.json"])


def test_the_same_archive_is_unpacked_once(cache: Path) -> None:
    archive = packed(*GOOD)
    first = upload.unpack(archive)
    assert upload.unpack(archive) == first
    assert list(cache.iterdir()) == [first]


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (("../evil.png", picture()), "leads out of its folder"),
        (("cat/../../evil.png", picture()), "leads out of its folder"),
        (("/etc/evil.png", picture()), "leads out of its folder"),
        (("C:/evil.png", picture()), "leads out of its folder"),
        ((link("cat/link.png"), b"/etc/passwd"), "is a link"),
        (("CAT/0.PNG", picture()), "two files of one name"),
        (("cat/0.png/1.png", picture()), "two files of one name, or a file and a folder"),
        (("x" * 300 + ".png", picture()), "too long a name"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(cache: Path, entry: tuple[str, bytes], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        upload.unpack(packed(*GOOD, entry))
    assert not cache.exists() or list(cache.iterdir()) == []


def test_what_is_no_image_is_left_out_and_listed(cache: Path) -> None:
    others = [("pets/notes.txt", b"hello"), ("readme", b"hi"), ("pets/model.pkl", b"\x80\x04.")]
    others += [("more.zip", packed(*GOOD).getvalue()), ("pets/cat/photo.nef", picture())]
    root = upload.unpack(packed(*((f"pets/{name}", content) for name, content in GOOD), *others))
    assert {path.name for path in root.iterdir()} == {"cat", "dog", folder.LEFT_OUT}
    for _ in range(2):  # unpacked, and found unpacked
        skipped = dict(data.load("folder", upload.unpack(packed(*GOOD, *others))).skipped)
        assert set(skipped) == {name for name, _ in others}
        assert skipped["pets/model.pkl"] == "not an image that can be read"
        assert "raw file" in skipped["pets/cat/photo.nef"]


def test_images_are_known_by_their_content() -> None:
    renamed = [(f"{name.removesuffix('.png')}", content) for name, content in GOOD]
    root = upload.unpack(packed(*renamed))
    pool = data.load("folder", root)
    assert (len(pool) + len(pool.test_labels), pool.skipped) == (10, [])


def test_a_list_of_what_was_left_out_that_is_damaged(cache: Path) -> None:
    root = upload.unpack(packed(*GOOD, ("notes.txt", b"hello")))
    (root / folder.LEFT_OUT).write_text('[["notes')
    with pytest.raises(UserError, match=r"is damaged; delete it, or upload the images again"):
        data.load("folder", root)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_few_bytes_that_would_unpack_to_gigabytes_at_once(cache: Path, method: int) -> None:
    """Python reads such an entry whole pieces at a time, however little of it is asked for."""
    with pytest.raises(UserError, match="packed in an unusual way; pack the files again"):
        upload.unpack(packed(*GOOD, ("cat/zeros", bytes(1000)), method=method))
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_backslash_does_not_lead_out(cache: Path) -> None:
    """Python's own writer would turn it into a slash on Windows; a hostile one keeps it."""
    content = packed(*GOOD, ("cat/evil_x.png", picture())).getvalue().replace(b"cat/evil_x", b"..\\..\\evil")
    with pytest.raises(UserError, match="leads out of its folder"):
        upload.unpack(io.BytesIO(content))


def test_bombs_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes in ([80 << 20], [30 << 20] * 3):  # one large entry, or several of which none is
        zeros = [(f"{i}.bmp", bytes(size)) for i, size in enumerate(sizes)]
        with pytest.raises(UserError, match="more than 200 times its size"):
            upload.unpack(packed(*GOOD, *zeros, method=zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(upload, "MOST_FILES", 5)
    with pytest.raises(UserError, match="holds 10 entries"):
        upload.unpack(packed(*GOOD))
    monkeypatch.setattr(upload, "MOST_FILES", 100)
    monkeypatch.setattr(upload, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="unpacks to more than"):
        upload.unpack(packed(*GOOD))


def test_an_entry_that_says_it_is_smaller_than_it_is(cache: Path) -> None:
    big = bytes(5_000_000)
    content = bytearray(packed(*GOOD, ("big.bmp", big), method=zipfile.ZIP_DEFLATED).getvalue())
    said = len(big).to_bytes(4, "little")
    for _ in range(2):  # in the entry's own header, and in the directory
        at = content.index(said)
        content[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(UserError, match=r"holds more than it says|cannot be read"):
        upload.unpack(io.BytesIO(bytes(content)))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive at all", packed(*GOOD).getvalue()[:-200]])
def test_what_is_no_archive(cache: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="this zip file cannot be read"):
        upload.unpack(io.BytesIO(content))


def test_an_archive_without_images() -> None:
    with pytest.raises(UserError, match="holds no image"):
        upload.unpack(packed(("labels.csv", b"file_name,label\n")))


def test_a_full_disk_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upload, "_write", full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        upload.unpack(packed(*GOOD))
    assert list(cache.iterdir()) == []


def test_an_uploaded_table_is_kept(cache: Path) -> None:
    path = upload.keep_table("my labels.CSV", b"file_name,label\n")
    assert path.read_bytes() == b"file_name,label\n"
    assert path.parent == cache
    with pytest.raises(UserError, match="is no table"):
        upload.keep_table("labels.xlsx", b"")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("probs.npy", "probs.npy"), ("../../étage 2.CSV", "étage_2.csv"), ("a\\b:c.parquet", "a_b_c.parquet")],
)
def test_uploaded_predictions_are_kept_under_a_name_that_leads_nowhere(cache: Path, name: str, kept: str) -> None:
    path = upload.keep_predictions(name, b"content")
    assert path.read_bytes() == b"content"
    assert path.name == kept
    assert path.resolve().is_relative_to(cache / "predictions")
    with pytest.raises(UserError, match=r"holds no predictions; give a file .npy, .csv, .parquet"):
        upload.keep_predictions("probs.pkl", b"content")
