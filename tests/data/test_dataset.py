"""The data set checks its parts, names what is wrong, and its fingerprint follows its content."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.annotations import Annotations
from data.dataset import ImageDataset, stratified
from data.errors import UserError
from data.masks import ByteMasks, narrowed


def dataset(**changes: Any) -> ImageDataset:
    """Six images of two classes, with five votes each."""
    rng = np.random.default_rng(0)
    parts: dict[str, Any] = {
        "name": "toy",
        "ids": [f"toy-{i}" for i in range(6)],
        "images": rng.integers(0, 256, (6, 4, 4, 1), np.uint8),
        "labels": np.array([0, 1, 0, 1, -1, 1]),
        "label_counts": np.array([[5, 0], [1, 4], [3, 2], [0, 5], [2, 3], [0, 5]]),
        "class_names": ["cat", "dog"],
        "test_images": rng.integers(0, 256, (2, 4, 4, 1), np.uint8),
        "test_labels": np.array([0, 1]),
        "annotators": "human",
        "annotators_source": "Five friends.",
    }
    return ImageDataset(**(parts | changes))


NOISY = np.array([0, 0, -1, 1, 1, 1])
VOTES = Annotations(np.array([4, 1, 4, 0]), np.array([1, 0, 0, 1]), ["ann", "ann", "bob", "bob"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 0, 1, 2, 1])}, "label 2 is outside the 2 classes"),
        ({"labels": np.array([0, 1, 0, 1, -2, 1])}, "label -2 is outside"),
        ({"labels": np.zeros(5, np.int64)}, r"must be int64 \[6\]"),
        ({"labels": np.zeros(6, np.float32)}, "must be int64"),
        ({"test_labels": np.array([0, 7])}, "test label 7 is outside"),
        ({"noisy_labels": np.array([0, 1, 0, 1, 2, 1])}, "noisy label 2 is outside the 2 classes"),
        ({"noisy_labels": np.zeros(5, np.int64)}, r"the noisy labels must be int64 \[6\]"),
        ({"annotations": replace(VOTES, rows=np.array([4, 1, 6, 0]))}, "must be of the 6 images and the 2 classes"),
        ({"annotations": replace(VOTES, labels=np.array([1, 0, 2, 1]))}, "must be of the 6 images"),
        ({"annotations": replace(VOTES, annotators=["ann"])}, "an image, a label and an annotator"),
        ({"label_counts": np.ones((5, 2), np.int64)}, r"int64 \[6,2\].*got int64 with shape \(5, 2\)"),
        ({"label_counts": np.ones((6, 3), np.int64)}, r"int64 \[6,2\]"),
        ({"label_counts": np.ones((6, 2))}, "got float64"),
        ({"label_counts": np.array([[5, 0], [0, 0], [3, 2], [0, 5], [2, 3], [0, 5]])}, "no annotation for 'toy-1'"),
        ({"label_counts": np.array([[5, 0], [1, 4], [3, -2], [0, 5], [2, 3], [0, 5]])}, "'toy-2' are negative"),
        ({"ids": [*"abcde", "a"]}, "'a' appears 2 times"),
        ({"images": np.zeros((6, 4, 4), np.uint8)}, r"uint8 \[N,H,W,C\]"),
        ({"images": np.zeros((6, 4, 4, 1))}, "got float64"),
        ({"images": np.zeros((5, 4, 4, 1), np.uint8)}, "5 images for 6"),
        ({"test_images": np.zeros((2, 5, 5, 1), np.uint8)}, "bring them to one size"),
        ({"class_names": ["cat"]}, "only one class"),
        ({"class_names": ["cat", "cat"]}, "same name"),
        ({"ids": [], "images": np.zeros((0, 4, 4, 1), np.uint8), "labels": np.zeros(0, np.int64)}, "no image"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataset(**changes)


def test_subset_keeps_ids_and_the_test_set() -> None:
    whole = dataset()
    part = whole.subset(np.array([4, 1]))
    assert part.ids == ["toy-4", "toy-1"]
    np.testing.assert_array_equal(part.images, whole.images[[4, 1]])
    np.testing.assert_array_equal(part.labels, [-1, 1])
    assert part.label_counts is not None
    np.testing.assert_array_equal(part.label_counts, [[2, 3], [1, 4]])
    assert part.test_images is whole.test_images
    assert len(part) == 2


def test_subset_keeps_noisy_labels_and_renumbers_annotations() -> None:
    part = dataset(noisy_labels=NOISY, annotations=VOTES).subset(np.array([4, 2, 0]))
    assert part.noisy_labels is not None
    np.testing.assert_array_equal(part.noisy_labels, [1, -1, 0])
    assert part.annotations is not None
    assert part.annotations.rows.tolist() == [0, 0, 2]
    assert part.annotations.labels.tolist() == [1, 0, 1]
    assert part.annotations.annotators == ["ann", "bob", "bob"]


def test_the_fingerprint_of_a_set_without_noisy_labels_and_annotations_stays() -> None:
    """Recorded runs find their data by it."""
    assert dataset(
        images=np.zeros((6, 4, 4, 1), np.uint8), test_images=np.zeros((2, 4, 4, 1), np.uint8)
    ).fingerprint == ("ce8384791559ede29bf8d07a9b979147")


def test_fingerprint_is_that_of_the_content(tmp_path: Any) -> None:
    whole = dataset()
    assert whole.fingerprint == dataset().fingerprint
    np.save(tmp_path / "images.npy", whole.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert dataset(images=mapped).fingerprint == whole.fingerprint
    turned = whole.images.copy()
    turned[5, 3, 3, 0] ^= 1
    changed = [
        dataset(images=turned),
        dataset(labels=np.array([1, 1, 0, 1, -1, 1])),
        dataset(label_counts=None),
        dataset(class_names=["cat", "cow"]),
        dataset(test_labels=np.array([1, 1])),
        dataset(noisy_labels=NOISY),
        dataset(annotations=VOTES),
        dataset(annotations=replace(VOTES, annotators=["ann", "ann", "bob", "eve"])),
        dataset(noisy_labels=NOISY, annotations=VOTES),
        replace(whole, ids=[f"other-{i}" for i in range(6)]),
        whole.subset(np.arange(5)),
        whole.subset(np.array([1, 0, 2, 3, 4, 5])),
    ]
    assert len({d.fingerprint for d in [whole, *changed]}) == 1 + len(changed)


def test_stratified_keeps_the_balance_and_the_order() -> None:
    labels = np.repeat([0, 1, 2, -1], [500, 300, 150, 50])
    chosen = stratified(labels, 100, seed=0)
    np.testing.assert_array_equal(chosen, np.sort(chosen))
    assert len(set(chosen)) == 100
    np.testing.assert_array_equal(np.unique(labels[chosen], return_counts=True)[1], [5, 50, 30, 15])
    np.testing.assert_array_equal(chosen, stratified(labels, 100, seed=0))
    assert set(chosen) != set(stratified(labels, 100, seed=1))
    assert [len(stratified(labels, n, seed=0)) for n in (1, 7, 999, 1000)] == [1, 7, 999, 1000]


MASKS = np.random.default_rng(1).integers(-1, 2, (6, 4, 4))
TEST_MASKS = np.random.default_rng(2).integers(-1, 2, (2, 4, 4))


def masked(**changes: Any) -> ImageDataset:
    """Six images whose every pixel is one of two classes, or unknown."""
    parts = {"labels": MASKS, "test_labels": TEST_MASKS, "label_counts": None, "annotators": "none"}
    return dataset(**(parts | changes))


def in_bytes(masks: np.ndarray) -> ByteMasks:
    return ByteMasks(narrowed(masks), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": MASKS[:, :3]}, r"the labels must be int64 \[6,4,4\], got int64 with shape \(6, 3, 4\)"),
        ({"labels": MASKS[:5]}, r"int64 \[6,4,4\]"),
        ({"labels": MASKS.astype(np.int8)}, "got int8"),
        ({"labels": np.where(MASKS == 1, 2, MASKS)}, "label 2 is outside the 2 classes"),
        ({"labels": ByteMasks(narrowed(MASKS), 3)}, "label 2 is outside the 2 classes"),
        ({"test_labels": np.array([0, 1])}, r"the test labels must be int64 \[2,4,4\]"),
        ({"noisy_labels": MASKS[:, :, :2]}, r"the noisy labels must be int64 \[6,4,4\]"),
        ({"label_counts": np.ones((6, 2), np.int64)}, "annotations are of whole images"),
        ({"annotations": VOTES}, "annotations are of whole images"),
        ({"groups": ["a"] * 5}, "every image needs a group"),
    ],
)
def test_masks_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        masked(**changes)


def test_a_label_is_a_class_or_a_mask() -> None:
    assert dataset().answer == "class"
    assert dataset().labelled.tolist() == [True, True, True, True, False, True]
    void = np.where(np.arange(6)[:, None, None] == 3, -1, np.abs(MASKS))
    for labels in (void, in_bytes(void)):
        assert masked(labels=labels).answer == "mask"
        assert masked(labels=labels).labelled.tolist() == [True, True, True, False, True, True]


def test_a_subset_keeps_masks_and_groups() -> None:
    for labels in (MASKS, in_bytes(MASKS)):
        part = masked(labels=labels, noisy_labels=labels, groups=list("aabbcc")).subset(np.array([4, 1]))
        np.testing.assert_array_equal(part.labels, MASKS[[4, 1]])
        np.testing.assert_array_equal(part.noisy_labels, MASKS[[4, 1]])  # type: ignore[arg-type]
        np.testing.assert_array_equal(part.test_labels, TEST_MASKS)
        assert part.groups == ["c", "a"]


def test_the_fingerprint_follows_masks_and_groups() -> None:
    turned = MASKS.copy()
    turned[5, 3, 3] = (turned[5, 3, 3] + 2) % 3 - 1
    for kind in (np.asarray, in_bytes):
        whole = masked(labels=kind(MASKS), test_labels=kind(TEST_MASKS))
        same = masked(labels=kind(MASKS.copy()), test_labels=kind(TEST_MASKS))
        assert same.fingerprint == whole.fingerprint
        changed = [
            replace(whole, labels=kind(turned)),
            replace(whole, test_labels=kind(TEST_MASKS[::-1])),
            replace(whole, noisy_labels=kind(MASKS)),
            replace(whole, noisy_labels=kind(turned)),
            replace(whole, groups=list("aabbcc")),
            replace(whole, groups=list("aabbcd")),
            whole.subset(np.array([1, 0, 2, 3, 4, 5])),
        ]
        assert len({d.fingerprint for d in [whole, *changed]}) == 1 + len(changed)


def test_what_a_sample_keeps_the_shares_of() -> None:
    np.testing.assert_array_equal(dataset().strata, dataset().labels)
    void = np.where(np.arange(6)[:, None, None] == 3, -1, np.abs(MASKS))
    assert masked(labels=void).strata.tolist() == [0, 0, 0, -1, 0, 0]
    assert masked(labels=void, groups=list("aabbcc")).strata.tolist() == [0, 0, 1, -1, 2, 2]


def test_all_that_is_in_memory_is_readable() -> None:
    whole = masked(labels=in_bytes(MASKS))
    assert whole.readable(np.array([2, 0])).tolist() == [True, True]
    assert whole.readable_test().tolist() == [True, True]
    assert whole.unreadable == []
