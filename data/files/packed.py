"""A data set as plain arrays in one folder, as the bundle of a run brings it: `dataset.json` and .npy files, no pickle.

Masks are bytes, `data.masks.VOID` where they are unknown.

Where the images were left out, the pool shows an even grey in their place: labels, curves and rankings need none.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data.annotations import Annotations
from data.dataset import ImageDataset, Labels, Pixels
from data.errors import UserError
from data.masks import ByteMasks, narrowed

MARK = "dataset.json"
ARRAYS = ("labels", "test_labels", "label_counts", "noisy_labels", "vote_rows", "vote_labels", "vote_annotators")
IMAGES = ("images", "test_images")
GREY = 200
PLACEHOLDER, LARGEST_SIDE = 64, 1 << 14  # pixels of a side


def is_packed(root: Path) -> bool:
    """Whether a folder is one of ours."""
    return (root / MARK).is_file()


def describe(dataset: ImageDataset, *, images: bool) -> dict[str, Any]:
    """What `dataset.json` says: all but the arrays."""
    return {
        "name": dataset.name,
        "ids": dataset.ids,
        "class_names": dataset.class_names,
        "annotators": dataset.annotators,
        "annotators_source": dataset.annotators_source,
        "noise_temperatures": sorted(dataset.noise_temperatures.items()),
        "skipped": [list(pair) for pair in dataset.skipped],
        "voters": [] if dataset.annotations is None else sorted(set(dataset.annotations.annotators)),
        "shape": list(dataset.images.shape[1:]),
        "images": images,
        **({} if dataset.groups is None else {"groups": dataset.groups}),
    }


def arrays(dataset: ImageDataset, *, images: bool) -> dict[str, Pixels]:
    """The arrays beside it, by the names of their files; images that are not decoded yet are so when they are written."""
    found: dict[str, Pixels | None] = {
        "labels": _narrow(dataset.labels),
        "label_counts": dataset.label_counts,
        "noisy_labels": _narrow(dataset.noisy_labels),
    }
    if dataset.annotations is not None:
        codes = {name: code for code, name in enumerate(sorted(set(dataset.annotations.annotators)))}
        found["vote_rows"], found["vote_labels"] = dataset.annotations.rows, dataset.annotations.labels
        found["vote_annotators"] = np.array([codes[name] for name in dataset.annotations.annotators], dtype=np.int64)
    if images:
        found |= {"images": dataset.images, "test_images": dataset.test_images}
        found["test_labels"] = _narrow(dataset.test_labels)
    return {name: array for name, array in found.items() if array is not None}


def load(root: Path) -> ImageDataset:
    """The data set in a folder. Raises `UserError` where something in it is missing or damaged."""
    try:
        about = json.loads((root / MARK).read_text())
        found = {
            name: np.load(root / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in (*ARRAYS, *IMAGES)
            if (root / f"{name}.npy").is_file()
        }
        n, shape = len(about["ids"]), tuple(int(side) for side in about["shape"])
        if len(shape) != 3 or not all(1 <= side <= LARGEST_SIDE for side in shape) or shape[2] > 4:
            raise ValueError
        if any(array.shape[1:] != shape for name, array in found.items() if name in IMAGES):
            raise ValueError
        n_classes, masks = len(about["class_names"]), found["labels"].ndim == 3
        if "images" not in found and not masks:  # a small one stands for large ones: pages draw it for every image
            shape = (min(shape[0], PLACEHOLDER), min(shape[1], PLACEHOLDER), shape[2])
        voters = [str(name) for name in about["voters"]]
        annotations = None
        if "vote_rows" in found:
            names = [voters[code] for code in found["vote_annotators"]]
            annotations = Annotations(np.asarray(found["vote_rows"]), np.asarray(found["vote_labels"]), names)
        none = np.broadcast_to(np.uint8(GREY), (0, *shape))
        return ImageDataset(
            name=str(about["name"]),
            ids=[str(one) for one in about["ids"]],
            images=found.get("images", np.broadcast_to(np.uint8(GREY), (n, *shape))),
            labels=_wide(found["labels"], n_classes),
            label_counts=_plain(found.get("label_counts")),
            class_names=[str(name) for name in about["class_names"]],
            test_images=found.get("test_images", none),
            test_labels=_wide(found.get("test_labels", _no_labels(shape if masks else ())), n_classes),
            annotators=about["annotators"],
            annotators_source=str(about["annotators_source"]),
            noise_temperatures={float(rate): float(t) for rate, t in about["noise_temperatures"]},
            skipped=[(str(name), str(reason)) for name, reason in about["skipped"]],
            noisy_labels=None if "noisy_labels" not in found else _wide(found["noisy_labels"], n_classes),
            annotations=annotations,
            groups=[str(name) for name in about["groups"]] if "groups" in about else None,
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError) as error:
        raise UserError(f"the data in {root} are damaged: open the bundle that they came in once more") from error


def _no_labels(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty((0, *shape[:2]), np.uint8 if shape else np.int64)


def _narrow(labels: Labels | None) -> np.ndarray | None:
    """Labels as they are, masks as bytes."""
    return labels if labels is None or labels.ndim == 1 else narrowed(labels)


def _wide(labels: np.ndarray, n_classes: int) -> Labels:
    """What `_narrow` was given; masks stay a memory map."""
    if labels.ndim == 3 and labels.dtype != np.uint8:
        raise ValueError
    return ByteMasks(labels, n_classes) if labels.ndim == 3 else np.asarray(labels)


def _plain(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.asarray(array)
