"""The user's own images: every layout, every kind of pixel, and every mistake answered with a sentence."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data
from data.errors import UserError
from data.files import imagefile, preview
from data.lazy import LazyImages
from data.sources import folder
from tests.data.files.test_decode import VALUES, scan


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for decoded arrays."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NEXTLABEL_DATA", str(place))
    return place / "decoded"


def save(root: Path, name: str, pixels: np.ndarray | None = None, **options: object) -> None:
    """Write one image; without pixels, a grey 8 x 8 one that differs from name to name."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.full((8, 8), zlib.crc32(name.encode()) % 256, np.uint8)
    Image.fromarray(pixels).save(root / name, **options)  # type: ignore[arg-type]


def tree(root: Path, n: int = 10, prefix: str = "") -> Path:
    for kind in ("cat", "dog"):
        for i in range(n):
            save(root, f"{prefix}{kind}/{i:02d}.png")
    return root


def one(root: Path, **options: object) -> np.ndarray:
    """The pixels of cat/x.png, which must be in the pool."""
    dataset = data.load("folder", root, **options)
    return np.asarray(dataset.images[dataset.ids.index("cat/x.png")])


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_class_folders_hold_a_fifth_out(tmp_path: Path) -> None:
    pool = data.load("folder", tree(tmp_path))
    assert pool.class_names == ["cat", "dog"]
    assert len(pool) == 16
    assert pool.test_labels.tolist() == [0, 0, 1, 1]
    assert pool.images.shape == (16, 8, 8, 1)
    assert all(id in {f"{k}/{i:02d}.png" for k in ("cat", "dog") for i in range(10)} for id in pool.ids)
    assert [pool.class_names[label] for label in pool.labels] == [id.split("/")[0] for id in pool.ids]
    for id, image in zip(pool.ids, pool.images, strict=True):
        assert (image == zlib.crc32(id.encode()) % 256).all()
    assert pool.annotators == "none"
    assert pool.ids == data.load("folder", tmp_path).ids


def test_without_a_test_share_every_image_is_in_the_pool_and_decoded_once(tmp_path: Path, cache: Path) -> None:
    usual = data.load("folder", tree(tmp_path))
    decoded = sorted(file.stat().st_mtime_ns for file in cache.iterdir())
    whole = data.load("folder", tmp_path, test_share=0)
    assert len(whole) == 20
    assert len(whole.test_labels) == 0
    assert whole.ids[:16] == usual.ids
    for id, image in zip(whole.ids, whole.images, strict=True):
        assert (image == zlib.crc32(id.encode()) % 256).all()
    assert sorted(file.stat().st_mtime_ns for file in cache.iterdir()) == decoded


def test_the_test_share_is_held_out_of_each_class(tmp_path: Path) -> None:
    assert data.load("folder", tree(tmp_path), test_share=0.5).test_labels.tolist() == [0] * 5 + [1] * 5


def test_a_test_tree_stays_the_test_set_unless_every_image_is_to_be_in_the_pool(tmp_path: Path) -> None:
    tree(tmp_path, 4, "train/")
    save(tmp_path, "test/dog/a.png")
    assert len(data.load("folder", tmp_path, test_share=0.5)) == 8
    assert data.load("folder", tmp_path, test_share=0).ids[-1] == "test/dog/a.png"


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_a_test_share_that_leaves_no_pool_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(UserError, match=r"at least 0 .* and less than 1"):
        data.load("folder", tree(tmp_path), test_share=share)


@pytest.mark.parametrize("test", ["test", "val"])
def test_splits(tmp_path: Path, test: str) -> None:
    tree(tmp_path, 4, "train/")
    save(tmp_path, f"{test}/dog/a/deep.png")
    pool = data.load("folder", tmp_path)
    assert len(pool) == 8
    assert pool.ids[0] == "train/cat/00.png"
    assert pool.test_labels.tolist() == [1]


def test_test_goes_before_val(tmp_path: Path) -> None:
    for prefix, n in (("train/", 4), ("val/", 3), ("test/", 2)):
        tree(tmp_path, n, prefix)
    assert len(data.load("folder", tmp_path).test_labels) == 4


def test_a_class_named_train(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path, f"train/{i}.png")
        save(tmp_path, f"ship/{i}.png")
    assert data.load("folder", tmp_path).class_names == ["ship", "train"]


def test_chest_xrays(real_data: Path, cache: Path) -> None:
    pool = data.load("folder", real_data / "chest_xray")
    assert pool.class_names == ["NORMAL", "PNEUMONIA"]
    assert len(pool) + len(pool.test_labels) == 5216
    assert pool.images.shape[1:] == (64, 64, 1)
    assert pool.skipped == []
    assert pool.test_labels.mean() == pytest.approx(pool.labels.mean(), abs=1e-3)
    again = data.load("folder", real_data / "chest_xray")
    assert isinstance(again.images, np.memmap)
    assert again.fingerprint == pool.fingerprint


# --- metadata.csv ----------------------------------------------------------------------------------------------------


def table(root: Path, text: str) -> Path:
    tree(root)
    (root / "metadata.csv").write_text(text, encoding="utf-8")
    return root


def lines(*columns: str) -> str:
    """Twenty rows file_name,label and `columns`, the last given for cats and dogs as "cat cell|dog cell"."""
    rows = [
        ",".join([f"{kind}/{i:02d}.png", kind, *(c.split("|")[k] for c in columns)])
        for k, kind in enumerate(("cat", "dog"))
        for i in range(10)
    ]
    return "\n".join(rows)


def test_metadata(tmp_path: Path) -> None:
    table(tmp_path, "file_name,label,patient\n" + lines("007|x").replace("cat/03.png,cat", "cat/03.png,"))
    pool = data.load("folder", tmp_path)
    assert pool.class_names == ["cat", "dog"]
    assert pool.label_counts is None
    assert pool.labels[pool.ids.index("cat/03.png")] == -1
    assert (pool.test_labels >= 0).all()
    named = data.load("folder", tmp_path, class_names=["dog", "cat", "cow"])
    assert named.class_names == ["dog", "cat", "cow"]
    assert {id[:3] for id, label in zip(named.ids, named.labels, strict=True) if label == 0} == {"dog"}


def test_images_need_no_label_where_the_classes_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "cat/c.png"):
        save(tmp_path, name)
    pool = data.load("folder", tmp_path, class_names=["cat", "dog"])
    assert (pool.ids, pool.labels.tolist(), pool.test_labels.tolist()) == (["a.png", "b.png"], [-1, -1], [0])
    assert pool.skipped == []


def test_votes_of_people(tmp_path: Path) -> None:
    table(tmp_path, "file_name,label,dog,cat,cow\n" + lines("1|4", "4.0|1", "|2"))
    pool = data.load("folder", tmp_path)
    assert pool.annotators == "human"
    assert pool.class_names == ["dog", "cat", "cow"]
    assert pool.label_counts is not None
    assert pool.label_counts[pool.labels == 1][0].tolist() == [1, 4, 0]
    assert pool.label_counts[pool.labels == 0][0].tolist() == [4, 1, 2]
    chosen = data.load("folder", tmp_path, class_names=["cat", "dog"])
    assert chosen.label_counts is not None
    assert chosen.label_counts.shape == (16, 2)


def test_columns_that_hold_no_votes_are_left_alone(tmp_path: Path) -> None:
    rows = [f"{label}/{i:02d}.png,{label},3,2,2020-01-01" for label in ("cat", "dog") for i in range(10)]
    table(tmp_path, "\n".join(["file_name,label,cat,dog,date", *rows]))
    assert data.load("folder", tmp_path).class_names == ["cat", "dog"]


def test_votes_without_any_label(tmp_path: Path) -> None:
    table(tmp_path, "file_name,label,cat,dog\n" + "\n".join(f"cat/{i:02d}.png,,3,2" for i in range(10)))
    pool = data.load("folder", tmp_path)
    assert (pool.labels == -1).all()
    assert pool.label_counts is not None
    assert pool.label_counts.tolist() == [[3, 2]] * 10
    assert len(pool.test_labels) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\ncat/00.png,cat", "no column file_name; its columns are name, label"),
        ("file_name,class\ncat/00.png,cat", "no column label"),
        ("", "no column file_name and no column label"),
        ("file_name,label\ncat/00.png,cat\ncat/99.png,cat", r"line 3 of .* names cat/99\.png, which is not in"),
        ("file_name,label\n../secret.png,cat", r"'\.\./secret\.png'; file_name must be a path inside"),
        ("file_name,label\n/etc/passwd,cat", "must be a path inside"),
        ("file_name,label\ncat/00.png,cat\ncat/00.png,dog", r"names cat/00\.png a second time"),
        ("file_name,label\ncat/00.png,cat,dog", "more cells than the header"),
        ("file_name,label,cat,dog\ncat/00.png,cat,1,0\ndog/00.png,cow,1,0", "label 'cow' of dog/00.png is not one of"),
        ("file_name,label,cat,dog\ncat/00.png,dog,1,often", "holds 'often' under 'dog', not a number of annotations"),
        ("file_name,label,cat,dog\ncat/00.png,cat,1,-1", "not a number of annotations"),
        ("file_name,label,cat,dog\ncat/00.png,cat,1,0.5", "not a number of annotations"),
        ("file_name,label,cat,dog\ncat/00.png,cat,0,0\ndog/00.png,dog,0,0", "no annotation for"),
        ("file_name,label\ncat/00.png,cat\ncat/01.png,cat", "only one class"),
        ("file_name,label\ncat/00.png,\n", "only one class|no class"),
        ("file_name,label\n", "there is no image in"),
    ],
)
def test_mistakes_in_metadata(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.load("folder", table(tmp_path, text))


def test_metadata_in_another_encoding(tmp_path: Path) -> None:
    table(tmp_path, "")
    (tmp_path / "metadata.csv").write_bytes("file_name,label\ncat/00.png,Kätzchen".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as a UTF-8 table"):
        data.load("folder", tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + lines(), encoding="utf-8-sig")  # as Excel writes it
    assert len(data.load("folder", tmp_path)) == 16


def test_a_label_outside_the_given_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"label 'dog' of dog/.* is not one of the classes cat, cow"):
        data.load("folder", tree(tmp_path), class_names=["cat", "cow"])


def test_a_table_of_labels_that_lies_elsewhere(tmp_path: Path) -> None:
    """CSV or Parquet, with paths from the folder or whole ones, instead of metadata.csv."""
    root = table(tmp_path / "images", "a metadata.csv that nobody asked for")
    rows = [(f"{kind}/{i:02d}.png", "ab"[i % 2]) for kind in ("cat", "dog") for i in range(10)]
    names, labels = zip(*rows, strict=True)
    pd.DataFrame({"file_name": names, "label": labels}).to_csv(tmp_path / "l.csv", index=False)
    whole = [str(root / name) for name in names]
    pd.DataFrame({"file_name": whole, "label": labels}).to_parquet(tmp_path / "l.parquet")
    pools = [data.load("folder", root, labels=tmp_path / name) for name in ("l.csv", "l.parquet")]
    for pool in pools:
        assert pool.class_names == ["a", "b"]
        assert [pool.class_names[k] for k in pool.labels] == [dict(rows)[id] for id in pool.ids]
    assert pools[0].fingerprint == pools[1].fingerprint
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be read as a Parquet table"):
        data.load("folder", root, labels=tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="there is no file"):
        data.load("folder", root, labels=tmp_path / "absent.csv")


def test_metadata_as_parquet(tmp_path: Path) -> None:
    root = tree(tmp_path)
    rows = {
        "file_name": [f"{kind}/{i:02d}.png" for kind in ("cat", "dog") for i in range(10)],
        "label": ["a", "b"] * 10,
    }
    pd.DataFrame(rows).to_parquet(root / "metadata.parquet")
    pool = data.load("folder", root)
    assert pool.class_names == ["a", "b"]
    assert pool.annotators_source == f"Only the labels in {root / 'metadata.parquet'}; no separate annotations."


def test_which_kind_of_table(tmp_path: Path) -> None:
    for name, header, votes in (("l.csv", "file_name,label", False), ("v.csv", "sample_id,annotator,label", True)):
        (tmp_path / name).write_text(f"{header}\n")
        assert folder.is_votes(tmp_path / name) is votes
    (tmp_path / "n.csv").write_text("path,class\n")
    with pytest.raises(
        UserError, match=r"neither a column file_name.* nor a column sample_id.*its columns are path, class"
    ):
        folder.is_votes(tmp_path / "n.csv")
    with pytest.raises(UserError, match=r"passwd is no table; give a file \.csv or \.parquet"):
        folder.is_votes(Path("/etc/passwd"))


def test_a_table_is_not_read_through_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("user,password\n")
    (tree(tmp_path / "images") / "metadata.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(UserError, match="is a link that leads out of the folder") as refused:
        data.load("folder", tmp_path / "images")
    assert "password" not in str(refused.value)


# --- tables of votes -------------------------------------------------------------------------------------------------


def votes(root: Path, *lines: str) -> Path:
    """A table of votes outside of the images' folder."""
    file = root.parent / f"{root.name}-votes.csv"
    file.write_text("\n".join(["sample_id,annotator,label", *lines]), encoding="utf-8")
    return file


def test_votes_stand_beside_the_labels_of_class_folders(tmp_path: Path) -> None:
    file = votes(tree(tmp_path), *(f"cat/{i:02d}.png,{who},dog" for i in range(10) for who in ("ann", "bob")))
    pool = data.load("folder", tmp_path, votes=file)
    assert pool.annotations is not None
    assert len(pool.annotations.rows) == 16  # not those on the two cats of the test set
    assert {pool.ids[row][:3] for row in pool.annotations.rows} == {"cat"}
    assert set(pool.annotations.labels) == {1}
    assert pool.labels.tolist() == [0] * 8 + [1] * 8
    assert pool.annotators == "human"
    assert pool.annotators_source == f"16 annotations by 2 people in {file.name}."


def test_votes_do_without_any_label(tmp_path: Path) -> None:
    table(tmp_path, "file_name\n" + "\n".join(f"cat/{i:02d}.png" for i in range(10)))
    pool = data.load("folder", tmp_path, votes=votes(tmp_path, "cat/00.png,ann,owl", "cat/03.png,ann,elk"))
    assert (pool.labels == -1).all()
    assert pool.class_names == ["elk", "owl"]
    assert len(pool) == 10
    assert pool.test_images.shape == (0, 8, 8, 1)
    assert pool.annotators_source.startswith("2 annotations by 1 person in")


def test_votes_on_images_in_no_class_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        save(tmp_path, f"{i}.png")
    votes(tmp_path, "0.png,ann,owl", "1.png,ann,elk").rename(tmp_path / "votes.csv")
    monkeypatch.chdir(tmp_path)
    pool = data.load("folder", tmp_path, votes="votes.csv")  # relative to the working directory
    assert pool.ids == ["0.png", "1.png", "2.png", "3.png"]
    assert pool.skipped == []
    assert pool.labels.tolist() == [-1] * 4
    assert (
        data.load("folder", tree(tmp_path), votes="votes.csv", class_names=["cat", "dog", "elk", "owl"]).skipped == []
    )


def test_votes_on_unreadable_images_are_left_out(tmp_path: Path) -> None:
    (tree(tmp_path) / "cat/broken.png").write_text("no image")
    file = votes(tmp_path, "cat/broken.png,ann,cat", "dog/00.png,ann,cat", "dog/01.png,ann,cat", "dog/02.png,ann,cat")
    pool = data.load("folder", tmp_path, votes=file)
    assert pool.annotations is not None
    assert len(pool.annotations.rows) == sum(f"dog/0{i}.png" in pool.ids for i in range(3))
    with pytest.raises(UserError, match=r"1 sample that the data do not hold, the first 'cat/99\.png'"):
        data.load("folder", tmp_path, votes=votes(tmp_path, "cat/99.png,ann,cat"))
    with pytest.raises(UserError, match="1 class that the data do not have, the first 'cow'; the classes are cat, dog"):
        data.load(
            "folder",
            tmp_path,
            votes=votes(tmp_path, "cat/00.png,ann,cat", *(f"dog/{i:02d}.png,ann,cow" for i in range(10))),
        )


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_default_size(tmp_path: Path) -> None:
    tree(tmp_path)
    assert data.load("folder", tmp_path).images.shape[1:3] == (8, 8)  # all alike and small: as they are
    assert data.load("folder", tmp_path, size=16).images.shape[1:3] == (16, 16)
    save(tmp_path, "cat/x.png", np.zeros((9, 8), np.uint8))
    assert data.load("folder", tmp_path).images.shape[1:3] == (64, 64)  # of different sizes
    for name in tmp_path.rglob("*.png"):
        save(tmp_path, str(name.relative_to(tmp_path)), np.zeros((80, 60), np.uint8))
    assert data.load("folder", tmp_path).images.shape[1:3] == (64, 64)  # all alike, but large
    with pytest.raises(UserError, match="at least 1 pixel"):
        data.load("folder", tmp_path, size=0)


def test_formats(tmp_path: Path) -> None:
    tree(tmp_path)
    for suffix in ("png", "jpg", "JPEG", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm"):
        save(tmp_path, f"cat/format.{suffix}")
    pool = data.load("folder", tmp_path)
    assert pool.skipped == []
    assert len(pool) + len(pool.test_labels) == 30


@pytest.mark.parametrize("name", ["x.jfif", "x.JPE", "x", "x.photo", "x.avif", "x.heic", "x.HIF", "x.jp2", "x.txt"])
def test_images_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    kinds = {".avif": "AVIF", ".heic": "HEIF", ".hif": "HEIF", ".jp2": "JPEG2000"}
    tree(tmp_path, 5)
    for i in range(5):
        path = tmp_path / f"owl{i}" / name
        path.parent.mkdir()
        picture = Image.fromarray(np.full((40, 40, 3), (200, 100, 30), np.uint8))
        picture.save(path, kinds.get(path.suffix.lower(), "JPEG"))
    pool = data.load("folder", tmp_path)
    assert pool.skipped == []
    assert len(pool) + len(pool.test_labels) == 15
    owl = next(k for k, id in enumerate(pool.ids) if id.startswith("owl"))
    np.testing.assert_allclose(pool.images[owl, 32, 32], (200, 100, 30), atol=6)


def test_a_run_of_an_earlier_version_keeps_its_images(tmp_path: Path) -> None:
    """Same ids, same split: what it did not see then is listed."""
    before = data.load("folder", tree(tmp_path))
    for i in range(20):
        Image.new("L", (8, 8), i).save(tmp_path / f"dog/more-{i}.jfif", "JPEG")
    pool = data.load("folder", tmp_path, by_suffix=True)
    assert pool.fingerprint == before.fingerprint
    assert len(pool.skipped) == 20
    assert len(data.load("folder", tmp_path)) == 32


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    """Telephones name HEIC files .jpg when they are asked for those."""
    tree(tmp_path, 2)
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "cat/x.jpg", "HEIF")
    assert data.load("folder", tmp_path).skipped == []


def test_raw_photographs_are_named_rather_than_taken_for_their_thumbnails(tmp_path: Path) -> None:
    tree(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "cat/x.nef", "TIFF")
    assert data.load("folder", tmp_path).skipped == [
        ("cat/x.nef", "a camera's raw file; export it as JPEG, PNG or TIFF")
    ]


@pytest.mark.parametrize("suffix", ["gif", "webp", "tiff", "png", "avif"])
def test_an_animation_counts_as_its_first_picture(tmp_path: Path, suffix: str) -> None:
    tree(tmp_path, 2)
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 240))
    first.save(tmp_path / f"cat/x.{suffix}", save_all=True, append_images=[second])
    pool = data.load("folder", tmp_path, test_share=0)
    np.testing.assert_allclose(pool.images[pool.ids.index(f"cat/x.{suffix}")], 40, atol=3)


def test_sixteen_bits(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    save(tmp_path, "cat/x.png", np.full((8, 8), 65535, np.uint16) - np.arange(8, dtype=np.uint16) * 257)
    assert one(tmp_path)[0, :, 0].tolist() == list(range(255, 247, -1))


def test_twelve_bits_in_sixteen_are_spread_alike_over_the_folder(tmp_path: Path) -> None:
    """A scanner's 4095 is white, and a dark image of the same folder stays dark."""
    tree(tmp_path, 1)
    save(tmp_path, "dog/bright.png", np.full((8, 8), 4095, np.uint16))
    save(tmp_path, "cat/x.png", np.full((8, 8), 1024, np.uint16))
    assert one(tmp_path)[0, 0].tolist() == [64]
    pool = data.load("folder", tmp_path, test_share=0)
    seen = preview.file_pixels(pool, pool.ids.index("cat/x.png"), tmp_path, 8)
    assert seen is not None
    assert seen[0, 0].tolist() == [64, 64, 64]  # as the model sees it
    save(tmp_path, "dog/bright.png", np.full((8, 8), 65535, np.uint16))
    assert one(tmp_path)[0, 0].tolist() == [4]


def test_sixteen_bits_with_a_transparent_grey(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    pixels = np.full((8, 8), 65535, np.uint16)
    pixels[0], pixels[1] = 300, 257
    Image.fromarray(pixels).save(tmp_path / "cat/x.png", transparency=300)
    assert one(tmp_path)[:2, 0].tolist() == [[255], [1]]


def test_colour_makes_all_colour(tmp_path: Path) -> None:
    tree(tmp_path, 2)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    save(tmp_path, "cat/x.png", red)
    pool = data.load("folder", tmp_path)
    assert pool.images.shape[1:] == (8, 8, 3)
    assert (np.ptp(pool.images[pool.ids.index("dog/00.png")], axis=2) == 0).all()
    assert one(tmp_path)[0, 0].tolist() == [200, 0, 0]


def test_transparency_and_palettes_lie_on_white(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    half = np.zeros((8, 8, 4), np.uint8)
    half[:, 4:] = [10, 20, 30, 255]
    save(tmp_path, "cat/x.png", half)
    assert one(tmp_path)[0, [0, 7]].tolist() == [[255, 255, 255], [10, 20, 30]]
    palette = Image.fromarray(half[..., 0] // 10).convert("P")
    palette.putpalette([1, 2, 3, 9, 8, 7])
    palette.save(tmp_path / "cat/x.png", transparency=0)
    assert one(tmp_path)[0, 0].tolist() == [255, 255, 255]
    palette.save(tmp_path / "cat/x.png")
    assert one(tmp_path)[0, 0].tolist() == [1, 2, 3]
    save(tmp_path, "cat/x.png", np.stack([half[..., 0] + 50, half[..., 3]], axis=2))  # grey with alpha stays grey
    assert one(tmp_path)[0, [0, 7]].tolist() == [[255], [60]]


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 4), np.uint8)
    pixels[:4] = 255  # bright above, lying on its side in the file
    for name in ("cat/x.png", "dog/y.png", "dog/z.png"):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
        save(tmp_path, name, np.rot90(pixels), exif=exif)
    assert one(tmp_path)[:, :, 0].tolist() == pixels.tolist()


# --- what cannot be read ---------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_unreadable_images_are_left_out_and_listed(tmp_path: Path) -> None:
    tree(tmp_path)
    outside = tmp_path.parent / "outside.png"
    Image.new("L", (8, 8)).save(outside)
    (tmp_path / "cat/a-text.png").write_text("no image")
    (tmp_path / "cat/b-empty.png").touch()
    (tmp_path / "dog/c-cut.png").write_bytes((tmp_path / "dog/00.png").read_bytes()[:50])
    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    (tmp_path / "dog/d-bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    large = chunk(b"IHDR", struct.pack(">IIBBBBB", 10000, 10000, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    (tmp_path / "dog/e-large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + large)  # of which Pillow only warns
    (tmp_path / "dog/f-script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "dog/g-float.tif")
    (tmp_path / "dog/h-link.png").symlink_to(outside)
    (tmp_path / "dog/i-gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "dog/k-ring.png").symlink_to(tmp_path / "dog/k-ring.png")
    (tmp_path / "owl").symlink_to(tmp_path.parent)
    save(tmp_path, "j-loose.png")
    (tmp_path / "cat/notes.txt").write_text("not an image, and not said to be one")
    for clutter in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "cat" / clutter).write_text("what systems put beside images")
    (tmp_path / "cat/.hidden.png").write_text("hidden")
    for _ in range(2):  # decoded, and from the cache
        pool = data.load("folder", tmp_path)
        assert pool.class_names == ["cat", "dog"]
        assert len(pool) + len(pool.test_labels) == 20
        reasons = {Path(id).name[0]: reason for id, reason in pool.skipped}
        assert sorted(reasons) == [*"abcdefghijk", "n", "o"]
        assert "not an image" in reasons["a"]
        assert "more than 89,478,485 pixels; scale it down" in reasons["d"]
        assert "more than 89,478,485 pixels; scale it down" in reasons["e"]
        assert "floating-point" in reasons["g"]
        assert "leads out" in reasons["h"]
        assert "link to nothing" in reasons["i"]
        assert "no class folder" in reasons["j"]
        assert "not an image" in reasons["n"]
        assert str(tmp_path) not in " ".join(reasons.values())


def test_what_lies_beside_train_and_test_is_named(tmp_path: Path) -> None:
    for prefix in ("train/", "test/", "val/", "more/"):
        tree(tmp_path, 3, prefix)
    (tmp_path / "README.txt").write_text("about")
    pool = data.load("folder", tmp_path)
    assert (len(pool), len(pool.test_labels)) == (6, 6)
    reasons = dict(pool.skipped)
    assert reasons.pop("README.txt") == "not an image that can be read"
    assert len(reasons) == 12
    assert set(reasons.values()) == {"it lies neither in train nor in test"}
    assert {name.split("/")[0] for name in reasons} == {"val", "more"}


def test_a_link_out_is_not_followed_wherever_it_stands(tmp_path: Path) -> None:
    elsewhere = tree(tmp_path / "elsewhere", 4)
    for name in ("train", "test", "val"):
        root = tmp_path / f"{name}-out"
        for inside in ({"train", "test", "val"} - {name}) - ({"test"} if name == "val" else set()):
            tree(root, 4, f"{inside}/")
        (root / name).symlink_to(elsewhere)
        with pytest.raises(UserError, match=rf"{name} is a link that leads out of the folder and is not followed; put"):
            data.load("folder", root)
    root = tree(tmp_path / "deep", 4, "train/")
    (root / "train/owl").symlink_to(elsewhere / "cat")
    assert ("train/owl", "a link to a folder is not followed") in data.load("folder", root).skipped


def test_a_link_to_train_inside_is_followed(tmp_path: Path) -> None:
    tree(tmp_path, 4, "version-2/")
    tree(tmp_path, 2, "test/")
    (tmp_path / "train").symlink_to("version-2")
    pool = data.load("folder", tmp_path)
    assert pool.ids[0] == "train/cat/00.png"
    assert (len(pool), len(pool.test_labels), pool.skipped) == (8, 4, [])


def test_a_table_does_not_lead_out_through_a_linked_folder(tmp_path: Path) -> None:
    """Nor does it tell what is there."""
    tree(tmp_path / "elsewhere", 1)
    (tree(tmp_path / "images") / "out").symlink_to(tmp_path / "elsewhere")
    for row in ("out/cat/00.png,cat", "out/cat/99.png,cat"):
        (tmp_path / "images/metadata.csv").write_text(f"file_name,label\n{lines()}\n{row}\n")
        pool = data.load("folder", tmp_path / "images")
        assert pool.skipped == [(row.split(",")[0], "it is a link that leads out of the folder")]


def test_a_link_inside_is_followed(tmp_path: Path) -> None:
    tree(tmp_path, 3)
    (tmp_path / "dog/link.png").symlink_to(tmp_path / "dog/00.png")
    assert len(data.load("folder", tmp_path)) + 1 == 7


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    tree(tmp_path)
    os.rename(os.fsencode(tmp_path / "cat/00.png"), os.fsencode(tmp_path / "cat") + b"/caf\xe9.png")
    pool = data.load("folder", tmp_path)
    assert pool.skipped == [("cat/caf�.png", "its name is not valid UTF-8; rename it")]
    assert pool.fingerprint


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        data.load("folder", tmp_path / "absent")
    with pytest.raises(UserError, match="there is no image in"):
        data.load("folder", tmp_path)
    save(tmp_path, "loose.png")
    with pytest.raises(UserError, match=r"no image in .* lies in a class folder; sort them .*, or name the classes"):
        data.load("folder", tmp_path)
    for i in range(5):
        save(tmp_path, f"cat/{i}.png")
    with pytest.raises(UserError, match="only one class"):
        data.load("folder", tmp_path)
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir(exist_ok=True)
        for i in range(5):
            (tmp_path / kind / f"{i}.png").write_text("no image")
    with pytest.raises(UserError, match=r"no image in .* can be read; the first one: cat/"):
        data.load("folder", tmp_path)


# --- on demand -------------------------------------------------------------------------------------------------------


def test_on_demand_gives_the_pixels_of_the_array(tmp_path: Path) -> None:
    tree(tmp_path, 6)
    save(tmp_path, "cat/wide.png", np.arange(100 * 200, dtype=np.uint32).astype(np.uint8).reshape(100, 200))
    (tmp_path / "dog/broken.png").write_bytes(b"no image")
    one = data.load("folder", tmp_path, size=24)
    other = data.load("folder", tmp_path, size=24, on_demand=True)
    assert isinstance(other.images, LazyImages)
    assert (other.ids, other.class_names, other.skipped) == (one.ids, one.class_names, one.skipped)
    np.testing.assert_array_equal(other.labels, one.labels)
    np.testing.assert_array_equal(other.images, one.images)
    np.testing.assert_array_equal(other.test_images, one.test_images)
    np.testing.assert_array_equal(other.subset(np.array([5, 2])).images, one.images[[5, 2]])


def test_on_demand_the_size_follows_from_the_images(tmp_path: Path) -> None:
    tree(tmp_path)
    assert data.load("folder", tmp_path, on_demand=True).images.shape[1:] == (8, 8, 1)
    for kind in ("cat", "dog"):
        for i in range(20):
            save(tmp_path, f"{kind}/photograph-{i}.jpg", np.zeros((300, 400, 3), np.uint8))
    assert data.load("folder", tmp_path, on_demand=True).images.shape[1:] == (224, 224, 3)
    assert data.load("folder", tmp_path, fit="crop").images.fit == "crop"  # which implies it
    with pytest.raises(UserError, match="no fit 'squeeze'; choose from resize, crop, pad"):
        data.load("folder", tmp_path, fit="squeeze")


def test_on_demand_scans_are_images(tmp_path: Path) -> None:
    """A run of an earlier version keeps its images."""
    tree(tmp_path)
    pytest.importorskip("pydicom")
    (tmp_path / "cat/scan").write_bytes(scan(VALUES))
    assert ("cat/scan", "not an image that can be read") in data.load("folder", tmp_path).skipped
    rows = "".join(f"{path.relative_to(tmp_path)},{path.parent.name}\n" for path in sorted(tmp_path.glob("*/*")))
    (tmp_path / "labels.txt").write_text("file_name,label\n" + rows)
    named = data.load("folder", tmp_path, labels=tmp_path / "labels.txt")
    assert ("cat/scan", "not an image that can be read") in named.skipped
    (tmp_path / "labels.txt").unlink()
    pool = data.load("folder", tmp_path, on_demand=True, test_share=0)
    assert pool.skipped == []
    assert "cat/scan" in pool.ids


def test_on_demand_no_pixel_is_written_to_disk(tmp_path: Path, cache: Path) -> None:
    np.asarray(data.load("folder", tree(tmp_path, 50), size=64, on_demand=True).images)
    assert sum(file.stat().st_size for file in cache.iterdir()) < 20_000


# --- the cache -------------------------------------------------------------------------------------------------------


def test_decoded_once_until_a_file_changes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    decode_all = folder._decode_all

    def counted(root: Path, ids: list[str], *rest: Any) -> dict[str, np.ndarray]:
        runs.append(len(ids))
        return decode_all(root, ids, *rest)

    monkeypatch.setattr(folder, "_decode_all", counted)
    tree(tmp_path)
    first = data.load("folder", tmp_path)
    again = data.load("folder", tmp_path)
    assert runs == [20]
    assert isinstance(again.images, np.memmap)
    assert isinstance(again.test_images, np.memmap)
    assert again.fingerprint == first.fingerprint

    save(tmp_path, first.ids[0], np.full((8, 8), 77, np.uint8))
    assert (data.load("folder", tmp_path).images[0] == 77).all()
    assert len(list(cache.iterdir())) == len(folder.PARTS)  # the arrays before the change are gone
    data.load("folder", tmp_path, size=4)
    assert len(list(cache.iterdir())) == 2 * len(folder.PARTS)
    assert len(runs) == 3

    for file in cache.iterdir():
        os.truncate(file, 130)
    assert (data.load("folder", tmp_path).images[0] == 77).all()


def test_what_an_earlier_version_could_not_read_is_read_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, 3)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "cat/x.png", "AVIF")
    with monkeypatch.context() as earlier:
        earlier.setattr(folder, "DECODING", "")
        earlier.setattr(imagefile, "FORMATS", ("PNG",))
        assert data.load("folder", tmp_path).skipped == [("cat/x.png", "not an image that can be read")]
    assert data.load("folder", tmp_path).skipped == []


def test_a_test_share_of_nearly_everything_is_named_as_the_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a test share of 0\.999 leaves no image in the pool; give a smaller one"):
        data.load("folder", tree(tmp_path), test_share=0.999)
