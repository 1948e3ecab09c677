"""A data set as a bundle brings it: all of it comes back, masks as bytes and pixel for pixel."""

import json
from pathlib import Path

import numpy as np
import pytest

from data import load
from data.dataset import ImageDataset
from data.errors import UserError
from data.files import packed
from data.lazy import LazyMasks
from data.masks import ByteMasks, narrowed

MASKS = np.random.default_rng(0).integers(-1, 3, (6, 80, 70))


def pool(labels: object) -> ImageDataset:
    random = np.random.default_rng(1)
    return ImageDataset(
        name="scenes",
        ids=list("abcdef"),
        images=random.integers(0, 256, (6, 80, 70, 3), np.uint8),
        labels=labels,  # type: ignore[arg-type]
        label_counts=None,
        class_names=["road", "sky", "tree"],
        test_images=random.integers(0, 256, (2, 80, 70, 3), np.uint8),
        test_labels=MASKS[4:],
        annotators="none",
        annotators_source="Nobody.",
        noisy_labels=MASKS[::-1].copy(),
        groups=list("xxyyzz"),
    )


def written(dataset: ImageDataset, folder: Path, *, images: bool) -> Path:
    (folder / packed.MARK).write_text(json.dumps(packed.describe(dataset, images=images)))
    for name, array in packed.arrays(dataset, images=images).items():
        np.save(folder / f"{name}.npy", np.asarray(array), allow_pickle=False)
    return folder


@pytest.mark.parametrize("labels", [MASKS, ByteMasks(narrowed(MASKS), 3)])
def test_masks_come_back(tmp_path: Path, labels: object) -> None:
    there = pool(labels)
    here = packed.load(written(there, tmp_path, images=True))
    assert isinstance(here.labels, LazyMasks)
    np.testing.assert_array_equal(here.labels, MASKS)
    np.testing.assert_array_equal(here.test_labels, MASKS[4:])
    np.testing.assert_array_equal(here.noisy_labels, MASKS[::-1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(here.images, there.images)
    assert (here.groups, here.class_names, here.ids) == (there.groups, there.class_names, there.ids)
    assert np.load(tmp_path / "labels.npy").dtype == np.uint8


def test_masks_come_back_without_their_images(tmp_path: Path) -> None:
    here = packed.load(written(pool(MASKS), tmp_path, images=False))
    np.testing.assert_array_equal(here.labels, MASKS)
    assert here.images.shape == (6, 80, 70, 3)
    assert here.test_labels.shape == (0, 80, 70)


def test_classes_come_back_as_before(tmp_path: Path) -> None:
    there = load("fashion", limit=20)
    assert "groups" not in packed.describe(there, images=True)
    here = packed.load(written(there, tmp_path, images=True))
    assert here.fingerprint == there.fingerprint


@pytest.mark.parametrize("masks", [MASKS, np.full(MASKS.shape, 3, np.uint8)])
def test_damaged_masks_are_refused(tmp_path: Path, masks: np.ndarray) -> None:
    written(pool(MASKS), tmp_path, images=True)
    np.save(tmp_path / "labels.npy", masks)
    with pytest.raises(UserError, match="are damaged: open the bundle"):
        packed.load(tmp_path)
