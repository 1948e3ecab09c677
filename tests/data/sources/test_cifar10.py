"""CIFAR-10 and CIFAR-10H: the official files and nothing else, mapped after the first load, clear words when damaged."""

import io
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

import data
from data.errors import UserError
from data.sources import cifar10, cifar10h
from data.votes import ambiguous, expected_noise


@pytest.fixture
def root(real_data: Path, tmp_path: Path) -> Path:
    """A folder with links to the real files: a test may replace one, or leave one out, and harms nothing."""
    (tmp_path / cifar10.FOLDER).mkdir()
    for batch in cifar10.BATCHES:
        (tmp_path / cifar10.FOLDER / batch).symlink_to(real_data / cifar10.FOLDER / batch)
    (tmp_path / cifar10h.FILE).symlink_to(real_data / cifar10h.FILE)
    return tmp_path


@pytest.fixture(scope="module")
def decoded(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, decoded once for all tests that only read."""
    folder = tmp_path_factory.mktemp("cifar")
    (folder / cifar10.FOLDER).symlink_to(real_data / cifar10.FOLDER)
    (folder / cifar10h.FILE).symlink_to(real_data / cifar10h.FILE)
    data.load("cifar10", folder)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network; the addresses that were asked for."""
    asked: list[str] = []

    def refuse(url: str, timeout: float) -> Any:
        asked.append(url)
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def test_cifar10(decoded: Path) -> None:
    pool = data.load("cifar10", decoded)
    assert pool.images.shape == (50000, 32, 32, 3)
    assert isinstance(pool.images, np.memmap)
    assert pool.test_images.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(pool.labels), np.full(10, 5000))
    assert pool.ids[49999] == "cifar10-train-49999"
    assert pool.label_counts is None
    assert pool.class_names[6] == "frog"
    assert pool.labels[0] == 6
    assert pool.images[0, 0, 0].tolist() == [59, 62, 63]  # the frog that opens the set, known from many notebooks


def test_a_later_load_imports_no_torch(decoded: Path) -> None:
    code = "import data, sys; data.load('cifar10', sys.argv[1]); data.available(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(decoded)], check=True, cwd=Path(data.__file__).parents[1])


def test_decoded_arrays_follow_the_source(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        f"{split}-{part}": array
        for split in ("train", "test")
        for part, array in (("images", np.zeros((4, 32, 32, 3), np.uint8)), ("labels", np.arange(4)))
    }
    made: list[Path] = []

    def decode(folder: Path) -> dict[str, np.ndarray]:
        made.append(folder)
        return small

    monkeypatch.setattr(cifar10, "_decode", decode)
    for _ in range(2):
        cifar10.arrays(root)
    assert len(made) == 1

    cut = next((root / "decoded").glob("*train-images.npy"))
    os.truncate(cut, 1000)
    np.testing.assert_array_equal(cifar10.arrays(root)["train-images"], small["train-images"])
    assert len(made) == 2

    batch = root / cifar10.FOLDER / "batches.meta"
    content = batch.read_bytes()
    batch.unlink()
    batch.write_bytes(content)
    cifar10.arrays(root)
    assert len(made) == 3
    assert len(list((root / "decoded").iterdir())) == 4  # the arrays of the old batches are gone


def test_a_folder_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "decoded").write_text("in the way")
    arrays = {f"{split}-{part}": np.zeros(1) for split in ("train", "test") for part in ("images", "labels")}
    monkeypatch.setattr(cifar10, "_decode", lambda root: arrays)
    assert cifar10.arrays(root) is arrays


def test_a_damaged_batch_is_named_and_never_unpickled(root: Path) -> None:
    batch = root / cifar10.FOLDER / "data_batch_3"
    content = batch.read_bytes()
    batch.unlink()
    batch.write_bytes(content[:-1000])
    with pytest.raises(UserError, match=r"data_batch_3 is damaged .*unpack cifar-10-python\.tar\.gz again"):
        data.load("cifar10", root)
    opened = root / "opened"
    batch.write_bytes(b"cbuiltins\nopen\n(V" + str(opened).encode() + b"\nVw\ntR.")  # a pickle that writes a file
    with pytest.raises(UserError, match="data_batch_3 is damaged"):
        data.load("cifar10", root)
    assert not opened.exists()


def test_absent_and_offline(tmp_path: Path, offline: list[str]) -> None:
    with pytest.raises(UserError) as error:
        data.load("cifar10", tmp_path)
    message = str(error.value)
    assert "no network" in message
    assert f"put cifar-10-python.tar.gz (170 MB, from {cifar10.URL}) or the folder cifar-10-batches-py into" in message
    assert str(tmp_path) in message
    assert offline == [cifar10.URL]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_is_named(tmp_path: Path, offline: list[str]) -> None:
    (tmp_path / cifar10.ARCHIVE).write_bytes(b"half of it")
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is damaged .*delete it"):
        data.load("cifar10", tmp_path)
    assert offline == []


def test_cifar10h(decoded: Path) -> None:
    pool = data.load("cifar10h", decoded)
    assert pool.images.shape == (5000, 32, 32, 3)
    assert pool.test_images.shape == (50000, 32, 32, 3)
    assert pool.label_counts is not None
    assert ambiguous(pool.label_counts).sum() == 454
    assert pool.annotators == "human"
    assert (pool.label_counts.argmax(axis=1) == pool.labels).mean() > 0.98
    for noise, temperature in pool.noise_temperatures.items():
        assert expected_noise(pool.label_counts, temperature) == pytest.approx(noise, abs=0.012)
    assert pool.ids == data.load("cifar10h", decoded).ids

    whole = data.load("cifar10h", decoded, size=10000)
    assert whole.ids == [f"cifar10-test-{i:05d}" for i in range(10000)]
    place = [int(id[-5:]) for id in pool.ids]
    assert place == sorted(place)
    np.testing.assert_array_equal(pool.images, whole.images[place])
    np.testing.assert_array_equal(pool.label_counts, whole.label_counts[place])  # type: ignore[index]
    with pytest.raises(UserError, match="choose from 454"):
        data.load("cifar10h", decoded, size=453)
    with pytest.raises(UserError, match="to 10000"):
        data.load("cifar10h", decoded, size=10001)


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((9999, 10), np.int64),
        np.zeros((10000, 9), np.int64),
        np.zeros((10000, 10)),
        np.array([{"a": "pickle"}], dtype=object),
    ],
)
def test_another_array_for_the_votes(tmp_path: Path, counts: np.ndarray) -> None:
    np.save(tmp_path / cifar10h.FILE, counts, allow_pickle=True)
    with pytest.raises(UserError, match=r"cifar10h-counts\.npy (should hold int64 \[10000, 10\]|is damaged)"):
        cifar10h.read_counts(tmp_path)


def test_votes_cut_short_or_in_another_order(root: Path, real_data: Path, decoded: Path) -> None:
    file = root / cifar10h.FILE
    file.unlink()
    file.write_bytes((real_data / cifar10h.FILE).read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"cifar10h-counts\.npy is damaged"):
        cifar10h.read_counts(root)
    np.save(file, np.load(real_data / cifar10h.FILE)[::-1])
    (root / "decoded").symlink_to(decoded / "decoded")
    with pytest.raises(UserError, match="another order"):
        data.load("cifar10h", root)


def test_votes_absent_and_offline(root: Path, offline: list[str]) -> None:
    (root / cifar10h.FILE).unlink()
    with pytest.raises(UserError, match=r"could not be downloaded .*put cifar10h-counts\.npy"):
        data.load("cifar10h", root)
    assert offline == [cifar10h.URL]


def test_votes_downloaded(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = real_data / cifar10h.FILE
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: published.open("rb"))
    np.testing.assert_array_equal(cifar10h.read_counts(tmp_path), np.load(published))
    (tmp_path / cifar10h.FILE).unlink()
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"<html>not found</html>"))
    with pytest.raises(UserError, match="not the published file"):
        cifar10h.read_counts(tmp_path)
    assert list(tmp_path.iterdir()) == []
