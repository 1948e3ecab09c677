"""What is in the pool of a cycle: against what was put there."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data
from core.analysis import pool
from core.engine import loop
from core.runs import run, settle
from data.errors import UserError

N = 120


@pytest.fixture
def seen(tmp_path, home):
    """A run on embeddings with three pairs of copies and one outlier, and labels of which ten trousers are called dresses."""
    images = data.load("fashion", limit=N)
    rng = np.random.default_rng(0)
    probs = np.full((N, 10), 0.01)
    probs[np.arange(N), images.labels] = 0.91
    embedded = rng.normal(size=(N, 8)) * 0.3 + 3 * np.eye(8)[images.labels % 4]
    embedded[1::2][:3] = embedded[::2][:3]
    embedded[50] = 5 * np.eye(8)[7]
    for name, array in (("probs", probs), ("emb", embedded)):
        np.save(tmp_path / f"{name}.npy", array)
    files = {"predictions": str(tmp_path / "probs.npy"), "embeddings": str(tmp_path / "emb.npy")}
    given = {"task": "label-cleaning", "dataset": "fashion", "limit": N, "method": "cleaning", "cycles": 1}
    config, _ = settle.settle({**given, **files, "noise": 0.1}, lambda config: images)
    one = run.create(config, settle.about(images))
    loop.work(one, images)
    return one, images


def test_copies_and_what_lies_far_are_found(seen):
    found = pool.of_cycle(*seen, 0)
    assert found.duplicates.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.outliers.tolist()[0] == 50
    labels = found.given[found.duplicates]
    differs = np.repeat(labels[::2] != labels[1::2], 2)
    assert found.contradicting().tolist() == found.duplicates[differs].tolist()


def test_classes_are_ordered_by_their_doubtful_labels(seen):
    one, images = seen
    found = pool.of_cycle(one, images, 0)
    np.testing.assert_array_equal(found.doubtful, found.given != images.labels)
    shares = found.classes["doubtful_share"]
    assert shares.is_monotonic_decreasing
    assert found.classes["images"].sum() == N
    assert found.classes["doubtful"].sum() == (found.given != images.labels).sum()
    top = found.classes.iloc[0]
    wrong = found.doubtful & (found.given == images.class_names.index(top["class"]))
    assert top["mistaken_for"] == images.class_names[np.bincount(images.labels[wrong]).argmax()]


def test_a_class_without_a_label_has_no_share():
    table = pool.by_class(np.array([0, 0, -1]), np.array([[0.9, 0.1]] * 3), np.zeros(3, dtype=bool), ["cat", "dog"])
    assert table["class"].tolist() == ["cat", "dog"]
    assert table["images"].tolist() == [2, 0]
    assert table["mistaken_for"].tolist() == ["—", "—"]
    assert pd.isna(table["doubtful_share"].iloc[1])


def test_a_cycle_without_an_embedding_is_said(seen):
    one, images = seen
    (one.cycle_path(0) / "embedding.npy").unlink()
    with pytest.raises(UserError, match="has no readable embedding"):
        pool.of_cycle(one, images, 0)


def test_images_much_longer_or_smaller_than_the_others_are_odd(seen, tmp_path):
    one, images = seen
    assert pool.of_cycle(one, images, 0).shapes is None  # no files
    (tmp_path / "files").mkdir()
    for i in range(N):
        width, height = {7: (60, 20), 9: (5, 5)}.get(i, (20, 20))
        Image.new("L", (width, height), i).save(tmp_path / "files" / f"{i:03d}.png")
    files = data.load("folder", tmp_path / "files", class_names=images.class_names, size=20, on_demand=True)
    assert pool.of_cycle(one, files, 0).odd.tolist() == [7, 9]
