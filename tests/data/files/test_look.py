"""What is found out of a pool before it is decoded: its size, what is damaged, what is there twice."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import decode, look
from data.files.encoded import Paths


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NEXTLABEL_DATA", str(place))
    return place / "decoded"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(28, 28)] * 3, (28, 28)),  # small ones that agree stay as they are
        ([(48, 64)] * 3, (48, 64)),
        ([(20, 30), (28, 28), (28, 28)], (28, 28)),
        ([(100, 150), (100, 150)], (125, 125)),
        ([(65, 65)] * 2, (65, 65)),
        ([(480, 640)] * 5, (224, 224)),
        ([(1, 1), (3000, 4000), (3000, 4000)], (224, 224)),
    ],
)
def test_the_size_follows_from_the_data(shapes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    assert look.usual(np.array(shapes, np.int32)) == expected


def pool(root: Path, n: int = 10) -> Paths:
    random = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(root / f"{i}.png")
    return Paths(root.resolve(), [f"{i}.png" for i in range(n)], [root.resolve()])


def looked(files: Paths, size: int | None = None) -> look.Look:
    return look.look(files, "folder", files.root, size, "resize")


def damage(root: Path) -> None:
    """One without a header, one with a header alone, and one that is the same as another."""
    (root / "2.png").write_bytes(b"no image")
    content = (root / "5.png").read_bytes()
    (root / "5.png").write_bytes(content[:900] + b"no pixels" + content[909:])
    (root / "7.png").write_bytes((root / "1.png").read_bytes())


def test_few_images_are_all_decoded_once(tmp_path: Path) -> None:
    files = pool(tmp_path)
    damage(tmp_path)
    found = looked(files)
    assert found.verified
    assert dict(found.reasons) == {2: "not an image that can be read", 5: "broken data stream when reading image file"}
    assert found.images.shape == (8, 30, 40, 3)
    assert (found.digests[1] == found.digests[5]).all()  # rows 1 and 7 of ten
    assert len(np.unique(found.digests, axis=0)) == 7


def test_of_more_the_headers_count_and_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "VERIFIED", 1000)
    files = pool(tmp_path)
    damage(tmp_path)
    found = looked(files)
    assert not found.verified
    assert [row for row, _ in found.reasons] == [2]
    assert (found.digests[1] == found.digests[6]).all()
    assert len(np.unique(found.digests, axis=0)) == 8
    assert found.images.unreadable == {}
    assert found.images.readable().sum() == 8  # the damaged one is known when it is read


def test_of_a_million_a_sample_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "HEADERS", 4)
    files = pool(tmp_path)
    damage(tmp_path)
    heads: list[object] = []
    original = decode.head
    monkeypatch.setattr(decode, "head", lambda file: heads.append(file) or original(file))
    found = looked(files)
    assert len(heads) == found.looked == 4
    assert len(found.images) == 10
    assert (found.shapes[:, 0] > 0).sum() == 4
    assert found.images.readable().tolist() == [row not in (2, 5) for row in range(10)]


def test_the_look_is_kept_until_a_file_changes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pool(tmp_path)
    first = looked(files)
    with monkeypatch.context() as never:
        never.setattr(decode, "head", None)
        again = looked(files, size=5)  # of which it is independent
    assert again.images.shape == (10, 5, 5, 3)
    np.testing.assert_array_equal(again.digests, first.digests)
    damage(tmp_path)
    assert len(looked(files).reasons) == 2
    assert len(list(cache.iterdir())) == len(look.PARTS)
    assert sum(file.stat().st_size for file in cache.iterdir()) < 5000  # and nothing that was decoded
