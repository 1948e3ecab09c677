"""A user's own images in other layouts than folders: each loads to the same, and each mistake is answered with a sentence."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import data
from core.runs.spec import OWN
from data import check
from data.errors import UserError
from data.sources import own


@pytest.fixture(autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty place for what is kept of a look, and no other folder that may be read."""
    place = str(tmp_path_factory.mktemp("cache"))
    monkeypatch.setenv("NEXTLABEL_DATA", place)
    monkeypatch.setenv("NEXTLABEL_ROOTS", place)


def picture(i: int, kind: str = "PNG") -> bytes:
    """A small image in one grey, which tells it from the others."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), i).save(buffer, kind)
    return buffer.getvalue()


LABELS = ["cat", "dog"] * 10


def of_csv(root: Path) -> Path:
    rows = ["path,label"]
    for i, label in enumerate(LABELS):
        (root / "deep").mkdir(exist_ok=True)
        (root / f"deep/{i}.png").write_bytes(picture(i))
        rows.append(f"deep/{i}.png,{label}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root / "labels.csv"


def of_coco(root: Path) -> Path:
    (root / "images").mkdir()
    for i in range(len(LABELS)):
        (root / f"images/{i}.png").write_bytes(picture(i))
    write_coco(root / "annotations.json", LABELS)
    return root


def write_coco(file: Path, labels: list[str], **changes: Any) -> None:
    """Two boxes of its class an image."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(labels))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"image_id": i, "category_id": {"cat": 1, "dog": 18}[one]} for i, one in enumerate(labels) for _ in "ab"
        ],
    }
    file.write_text(json.dumps(content | changes))


def of_parquet(root: Path) -> Path:
    for shard in range(2):
        rows = range(10 * shard, 10 * shard + 10)
        write_parquet(root / f"train-{shard}.parquet", rows, [0, 1] * 5, names=["cat", "dog"])
    return root


def write_parquet(
    file: Path, rows: Any, labels: list[Any], names: list[str] | None = None, column: str = "image"
) -> None:
    """As Hugging Face's datasets writes it."""
    images = pa.array(
        [{"bytes": picture(i), "path": None} for i in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    features: dict[str, Any] = {column: {"_type": "Image"}}
    if names:
        features["label"] = {"names": names, "_type": "ClassLabel"}
    table = pa.table({column: images, "label": labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=3)


def of_webdataset(root: Path) -> Path:
    for shard in range(2):
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for i in range(10 * shard, 10 * shard + 10):
                add(archive, f"set/{i:03}.png", picture(i))
                if i % 4 < 2:
                    add(archive, f"set/{i:03}.cls", LABELS[i].encode())
                else:
                    add(archive, f"set/{i:03}.json", json.dumps({"label": LABELS[i], "more": 1}).encode())
    return root


def add(archive: tarfile.TarFile, name: str, content: bytes, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, target
    archive.addfile(member, io.BytesIO(content))


SOURCES = {"csv": of_csv, "coco": of_coco, "parquet": of_parquet, "webdataset": of_webdataset}


def test_they_are_all_the_sources_of_ones_own_images() -> None:
    assert sorted(OWN) == sorted(["folder", *SOURCES, "masks", "coco-masks"])
    assert {name for name, source in data.CATALOGUE.items() if source.needs_root} == set(OWN)
    assert all(data.CATALOGUE[name].find is not None for name in OWN)


@pytest.mark.parametrize("name", SOURCES)
def test_every_layout_loads_to_the_same(name: str, tmp_path: Path) -> None:
    root = SOURCES[name](tmp_path)
    pool = data.load(name, root)
    assert (pool.name, pool.class_names, len(pool), len(pool.test_labels)) == (name, ["cat", "dog"], 16, 4)
    for images, labels in ((pool.images, pool.labels), (pool.test_images, pool.test_labels)):
        greys = np.asarray(images)
        assert greys.shape[1:] == (8, 8, 1)
        assert (greys == greys[:, :1, :1]).all()
        assert [LABELS[grey] for grey in greys[:, 0, 0, 0]] == [pool.class_names[k] for k in labels]
    again = data.load(name, root)
    assert again.ids == pool.ids
    assert again.fingerprint == pool.fingerprint
    assert len(data.load(name, root, test_share=0)) == 20
    assert data.load(name, root, size=5, fit="pad").images.shape == (16, 5, 5, 1)
    assert data.load(name, root, limit=6).images.shape[0] == 6


@pytest.mark.parametrize("name", SOURCES)
def test_every_layout_passes_the_check_and_shows_its_files(name: str, tmp_path: Path) -> None:
    find = data.CATALOGUE[name].find
    assert find is not None
    found = find(SOURCES[name](tmp_path))
    assert check.check(found).passed
    pool = own.assemble(found)
    assert pool.images.file_shape(0) == (8, 8)
    assert pool.images.whole(0, 100).shape == (8, 8, 3)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("what", ["absent", "empty"])
def test_nothing_there_is_one_sentence(name: str, what: str, tmp_path: Path) -> None:
    if what == "empty":
        (tmp_path / "x").mkdir()
    with pytest.raises(UserError) as said:
        data.load(name, tmp_path / "x")
    assert "\n" not in str(said.value)
    assert "; " in str(said.value)  # and what to do


# --- a CSV file ------------------------------------------------------------------------------------------------------


def csv(root: Path, text: str) -> Path:
    of_csv(root)
    (root / "labels.csv").write_text(text)
    return root / "labels.csv"


def test_paths_lie_anywhere_that_may_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "far/x.png").write_bytes(picture(7))
    file = of_csv(tmp_path / "table")
    file.write_text(file.read_text() + f"\n{tmp_path}/far/x.png,dog\n")
    assert [why.split(";")[0] for _, why in data.load("csv", file).skipped] == ["it lies outside of what may be read"]
    monkeypatch.setenv("NEXTLABEL_ROOTS", str(tmp_path / "far"))
    whole = data.load("csv", file, test_share=0)
    assert (whole.images[whole.ids.index(f"{tmp_path}/far/x.png")] == 7).all()


def test_a_split_column_divides_and_blank_labels_are_unknown(tmp_path: Path) -> None:
    text = "file_name,label,split\n" + "\n".join(
        f"deep/{i}.png,{'' if i == 0 else label},{'test' if i > 15 else 'train'}" for i, label in enumerate(LABELS)
    )
    pool = data.load("csv", csv(tmp_path, text))
    assert (len(pool), len(pool.test_labels), pool.labels[0]) == (16, 4, -1)


def test_lines_without_a_file_are_left_out(tmp_path: Path) -> None:
    of_csv(tmp_path)
    (tmp_path / "labels.csv").write_text(
        (tmp_path / "labels.csv").read_text() + "\ngone.png,cat\n../../etc/passwd,dog\n"
    )
    skipped = dict(data.load("csv", tmp_path / "labels.csv").skipped)
    assert skipped["gone.png"] == "there is no such file"
    assert "outside" in skipped["../../etc/passwd"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\nx,cat\n", r"has no column path; its columns are file, label"),
        ("path,class\nx,cat\n", r"has no column label; its columns are"),
        ("path,label\ndeep/1.png,cat\ndeep/1.png,dog\n", r"line 3 .* a second time; keep one line"),
        ("path,label\n", r"no image that labels.csv names can be read"),
        ("path,label\n\0,cat\n", r"labels.csv"),
        ('path,label\n"x,cat\n', r"labels.csv.* save it again|no such file"),
        ("path,label\na,b,c\nd\n", r"labels.csv"),
    ],
)
def test_a_table_that_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        data.load("csv", csv(tmp_path, text))


# --- COCO ------------------------------------------------------------------------------------------------------------


def test_images_with_several_classes_are_left_out_and_those_with_none_unlabelled(tmp_path: Path) -> None:
    of_coco(tmp_path)
    write_coco(tmp_path / "annotations.json", LABELS)
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 4]
    content["annotations"].append({"image_id": 2, "category_id": 18})
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    pool = data.load("coco", tmp_path, test_share=0)
    assert len(pool.skipped) == 1
    assert "several classes" in pool.skipped[0][1]
    assert pool.labels[pool.ids.index("images/4.png")] == -1
    assert len(pool) == 19


def test_the_usual_layout_of_coco(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for i in range(20):
            (tmp_path / split / f"{i}.png").write_bytes(picture(i))
        write_coco(tmp_path / f"annotations/instances_{split}.json", LABELS)
    pool = data.load("coco", tmp_path)
    assert (len(pool), len(pool.test_labels)) == (20, 20)
    assert pool.ids[0] == "train2017/0.png"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "has no list of images"),
        ('{"images": []}', "has no list of annotations"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "its images lacks id or file_name"),
        (
            '{"images": [], "annotations": [{"image_id": 1, "category_id": 9}], "categories": []}',
            "category 9 that it does not list",
        ),
        (
            '{"images": [{"id": 1, "file_name": "../x.png"}, {"id": 2, "file_name": "/etc/passwd"}], "annotations": [], '
            '"categories": []}',
            "leads out of the folder",
        ),
    ],
)
def test_annotations_that_are_wrong(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(UserError, match=says) as said:
        data.load("coco", tmp_path)
    assert "\n" not in str(said.value)


# --- Parquet ---------------------------------------------------------------------------------------------------------


def test_shards_of_a_test_set(tmp_path: Path) -> None:
    of_parquet(tmp_path)
    write_parquet(tmp_path / "test-0.parquet", range(4), [0, 1, 0, 1], names=["cat", "dog"])
    write_parquet(tmp_path / "validation-0.parquet", range(4), [0, 1, 0, 1], names=["cat", "dog"])
    pool = data.load("parquet", tmp_path)
    assert (len(pool), pool.test_labels.tolist()) == (20, [0, 1, 0, 1])


def test_labels_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    write_parquet(file, range(4), ["b", "a", None, "b"])
    assert labels_of(file) == {"x/0": "b", "x/1": "a", "x/2": None, "x/3": "b"}
    write_parquet(file, range(4), [1, 0, -1, 1])
    assert labels_of(file) == {"x/0": "1", "x/1": "0", "x/2": None, "x/3": "1"}
    assert labels_of(file, class_names=["cat", "dog"]) == {"x/0": "dog", "x/1": "cat", "x/2": None, "x/3": "dog"}


def labels_of(file: Path, **options: Any) -> dict[str, str | None]:
    pool = data.load("parquet", file, test_share=0, **options)
    return {id: None if k < 0 else pool.class_names[k] for id, k in zip(pool.ids, pool.labels, strict=True)}


def test_a_row_without_an_image_is_left_out(tmp_path: Path) -> None:
    images = pa.array([picture(1), None, picture(2), b"no image"], pa.large_binary())
    pq.write_table(pa.table({"photo": images, "label": ["a", "b", "b", "a"]}), tmp_path / "x.parquet")
    pool = data.load("parquet", tmp_path, test_share=0)
    assert set(pool.ids) == {"x/0", "x/2"}
    assert dict(pool.skipped) == {"x/1": "its row holds no image", "x/3": "not an image that can be read"}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            lambda file: pq.write_table(pa.table({"label": [0, 1]}), file),
            r"holds no images: none of its columns \(label\)",
        ),
        (lambda file: file.write_bytes(b"PAR1 and no more"), "cannot be read as a Parquet file"),
        (
            lambda file: write_parquet(file, range(2), [0, 5], names=["cat", "dog"]),
            "a label 5, but only 2 classes have names",
        ),
        (lambda file: write_parquet(file, range(2), [0.5, 1.0]), "a label 0.5; labels are whole numbers or texts"),
        (
            lambda file: pq.write_table(pa.table({"image": pa.array([picture(1)])}), file),
            "has no column label; name the classes",
        ),
    ],
)
def test_parquet_that_is_wrong(made: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    made(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=says) as said:
        data.load("parquet", tmp_path)
    assert "\n" not in str(said.value)


# --- WebDataset ------------------------------------------------------------------------------------------------------


def test_nothing_but_plain_files_is_read_and_none_is_unpacked(tmp_path: Path) -> None:
    of_webdataset(tmp_path)
    with tarfile.open(tmp_path / "2.tar", "w") as archive:
        add(archive, "../../evil.png", picture(1))
        add(archive, "../../evil.cls", b"cat")
        add(archive, "link.png", b"", tarfile.SYMTYPE, "/etc/passwd")
        add(archive, "link.cls", b"cat")
        add(archive, "hard.png", b"", tarfile.LNKTYPE, "set/000.png")
        add(archive, "set/._000.png", b"what macOS puts beside images")
        add(archive, "none.png", picture(3))
        add(archive, "odd.png", picture(3))
        add(archive, "odd.json", b"{")
        add(archive, "two.png", picture(3))
        add(archive, "two.jpg", picture(3, "JPEG"))
        add(archive, "two.cls", b"dog")
    before = sorted(tmp_path.rglob("*"))
    pool = data.load("webdataset", tmp_path, test_share=0)
    assert sorted(tmp_path.rglob("*")) == before
    assert [id for id in pool.ids if id.startswith("2/")] == ["2/../../evil", "2/two"]  # an id, and no path
    assert dict(pool.skipped) == {
        "2/none": "it has no label",
        "2/odd": "its label cannot be read",
        "2/two.jpg": "its key has another image",
    }


def test_numbers_are_classes_by_their_place(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(4):
            add(archive, f"{i}.png", picture(i))
            add(archive, f"{i}.cls", str(i % 2).encode())
    assert data.load("webdataset", tmp_path).class_names == ["0", "1"]
    assert data.load("webdataset", tmp_path, class_names=["cat", "dog"]).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no tar file at all" * 100, "cannot be read as an uncompressed tar file"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 600, "cannot be read as an uncompressed tar file"),
        (b"\0" * 10240, "there is no image with a label"),
    ],
)
def test_shards_that_are_wrong(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=says):
        data.load("webdataset", tmp_path)


@pytest.mark.parametrize("length", [2100, 1536])
def test_a_shard_that_was_cut_is_named(length: int, tmp_path: Path) -> None:
    of_webdataset(tmp_path)
    os.truncate(tmp_path / "1.tar", length)
    with pytest.raises(UserError, match=r"1\.tar cannot be read"):
        data.load("webdataset", tmp_path)
