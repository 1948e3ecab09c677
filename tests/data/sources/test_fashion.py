"""The embedded set is the published images, its sum is the recorded one, and its votes are what the page says."""

import hashlib
import io
import re
import time

import numpy as np
import pytest

import data
from data.sources.fashion import FILE
from data.sources.make_fashion import DEBIAN, read_idx, vote
from data.votes import ambiguous, expected_noise


@pytest.fixture(scope="module")
def fashion() -> data.ImageDataset:
    return data.load("fashion")


def test_shapes(fashion: data.ImageDataset) -> None:
    assert fashion.images.shape == (4000, 28, 28, 1)
    assert fashion.test_images.shape == (1000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(fashion.labels), np.full(10, 400))
    np.testing.assert_array_equal(np.bincount(fashion.test_labels), np.full(10, 100))
    assert fashion.annotators == "simulated"
    assert "imulated" in fashion.annotators_source


def test_file_is_the_recorded_one() -> None:
    recorded, name = (FILE.parent / "SHA256SUMS").read_text().split()
    assert name == FILE.name
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == recorded


def test_file_is_written_the_same_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's compressed archives carry no time stamp; if that changes, the sum above changes with every making."""

    def written() -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, a=np.arange(10))
        return buffer.getvalue()

    first = written()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert written() == first


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_images_and_labels_are_the_published_ones(fashion: data.ImageDataset) -> None:
    images, labels = (read_idx(DEBIAN / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
    place = np.array([int(re.fullmatch(r"fashion-train-(\d{5})", id)[1]) for id in fashion.ids])  # type: ignore[index]
    np.testing.assert_array_equal(fashion.images[..., 0], images[place])
    np.testing.assert_array_equal(fashion.labels, labels[place])
    with np.load(FILE, allow_pickle=False) as file:
        test = file["test_index"]
    images, labels = (read_idx(DEBIAN / f"t10k-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
    np.testing.assert_array_equal(fashion.test_images[..., 0], images[test])
    np.testing.assert_array_equal(fashion.test_labels, labels[test])


def test_votes_are_many_graded_and_mostly_right(fashion: data.ImageDataset) -> None:
    counts = fashion.label_counts
    assert counts is not None
    assert set(counts.sum(axis=1)) == {51}
    right = counts.argmax(axis=1) == fashion.labels
    assert 0.88 < right.mean() < 0.95
    assert 0.3 < (counts.max(axis=1) == 51).mean() < 0.7  # many images are clear …
    hard = {name: ambiguous(counts)[fashion.labels == k].mean() for k, name in enumerate(fashion.class_names)}
    assert min(hard[name] for name in ("shirt", "pullover", "coat", "T-shirt")) > 0.15  # … and some are really not
    assert max(hard[name] for name in ("trouser", "sneaker", "ankle boot")) < 0.06
    assert expected_noise(counts, 1e6) > 0.30  # so that noise rates of 15% and 30% can be drawn from them


def test_an_annotator_votes_alike_when_asked_again_and_never_trains_on_the_pool() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(9000).astype(np.uint8) % 10
    images = rng.integers(0, 100, (9000, 28, 28), np.uint8)
    for k in range(10):
        images[labels == k, 2 * k : 2 * k + 4] = 255  # a bright bar says the class
    pool = np.arange(0, 9000, 90)
    votes = vote(2, 2, images, labels, pool)
    np.testing.assert_array_equal(votes, vote(2, 2, images, labels, pool))
    assert (votes == labels[pool]).mean() > 0.9
    lies = labels.copy()
    lies[pool] = (lies[pool] + 1) % 10
    np.testing.assert_array_equal(vote(2, 2, images, lies, pool), votes)
