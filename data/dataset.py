"""What every source loads into: images, labels and votes under stable sample ids."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from data.annotations import Annotations
from data.errors import UserError
from data.lazy import Lazy, LazyImages, LazyMasks
from data.votes import random_order

UNKNOWN = -1
Answer = Literal["class", "mask"]
"""What a label is: one of the classes, or one of them a pixel."""
Pixels = np.ndarray | LazyImages
"""Images uint8 [N,H,W,C]: an array, a memory map, or files that are decoded when they are read."""
Labels = Any
"""int64 [N], a class a sample: an array; or [N,H,W], a class a pixel: an array or `LazyMasks`, whose rows become arrays when they
are read. Not typed: what asks for classes, as most of the product does, would have to say at every step that it has no masks."""
CHUNK = 4096  # images hashed at a time, so that a memory map is never copied whole


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A pool of images to label or to check, and a test set with known labels.

    ids: N unique strings, the same in every subset and session · images: uint8 [N,H,W,C], an array, a memory map, or files
    that are decoded when they are read (`data.lazy`) · labels: int64 [N], -1 for unknown; or masks int64 [N,H,W], as high and
    wide as the images, -1 for a pixel whose class is unknown (void), an array or read on demand · label_counts: int64 [N,K] votes
    for each class, or None, as it is with masks · class_names: K names · test_images: uint8 [M,H,W,C] · test_labels: int64 [M]
    or [M,H,W] · annotators: who voted; annotators_source: where the votes come from, one sentence · noise_temperatures: nominal
    noise rate -> temperature of the published set-up, if there is one · skipped: (id, reason) of the files that could not be
    read · noisy_labels: as `labels`, the labels as they were found, which a cleaning run starts from, where `labels` are the
    clean reference · annotations: who gave which label to which of the N images; people who may be wrong; None with masks ·
    groups: N names, alike of images that are nearly the same (frames of one video), or None where that is not known.

    Raises UserError when the parts do not fit together.
    """

    name: str
    ids: list[str]
    images: Pixels
    labels: Labels
    label_counts: np.ndarray | None
    class_names: list[str]
    test_images: Pixels
    test_labels: Labels
    annotators: Literal["human", "simulated", "none"]
    annotators_source: str
    noise_temperatures: dict[float, float] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    noisy_labels: Labels | None = None
    annotations: Annotations | None = None
    groups: list[str] | None = None

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise UserError(f"data set {self.name!r}: {message}")

        n, n_classes = len(self.ids), len(self.class_names)
        require(n > 0, "there is no image in the pool; add images")
        require(n_classes >= 2, "there is only one class; a classifier needs at least two, add images of another class")
        require(len(set(self.class_names)) == n_classes, "two classes have the same name; rename one")
        for what, images, length in (
            ("", self.images, n),
            ("test ", self.test_images, len(self.test_labels)),
        ):
            require(
                images.dtype == np.uint8 and images.ndim == 4,
                f"the {what}images must be uint8 [N,H,W,C], got {images.dtype} with shape {images.shape}",
            )
            require(len(images) == length, f"{len(images)} {what}images for {length} {what or 'ids or '}labels")
        sides = self.images.shape[1:3] if self.answer == "mask" else ()
        for what, labels, length in (
            ("", self.labels, n),
            ("test ", self.test_labels, len(self.test_labels)),
            ("noisy ", self.noisy_labels, n),
        ):
            if labels is None:
                continue
            wanted = (length, *sides)
            require(
                labels.dtype == np.int64 and labels.shape == wanted,
                f"the {what}labels must be int64 [{','.join(map(str, wanted))}], got {labels.dtype} with shape {labels.shape}",
            )
            outside = _outside(labels, n_classes)
            require(
                outside is None,
                f"{what}label {outside} is outside the {n_classes} classes; "
                f"labels run from 0 to {n_classes - 1}, or {UNKNOWN} for unknown",
            )
        require(
            self.answer == "class" or (self.label_counts is None and self.annotations is None),
            "its labels are masks, and annotations are of whole images; leave the annotations out",
        )
        require(
            self.groups is None or len(self.groups) == n, "every image needs a group; name as many groups as images"
        )
        require(
            self.test_images.shape[1:] == self.images.shape[1:],
            f"test images of shape {self.test_images.shape[1:]}, but a pool of images of shape {self.images.shape[1:]}; "
            "bring them to one size",
        )
        if len(set(self.ids)) < n:
            commonest, times = Counter(self.ids).most_common(1)[0]
            require(False, f"the id {commonest!r} appears {times} times; every image needs its own")
        if self.label_counts is not None:
            counts = self.label_counts
            require(
                counts.dtype == np.int64 and counts.shape == (n, n_classes),
                f"the label counts must be int64 [{n},{n_classes}], one row per image and one column per class, "
                f"got {counts.dtype} with shape {counts.shape}",
            )
            negative = (counts < 0).any(axis=1)
            require(
                not negative.any(),
                f"the annotations of {self.ids[negative.argmax()]!r} are negative; correct the counts",
            )
            empty = counts.sum(axis=1) == 0
            require(
                not empty.any(),
                f"there is no annotation for {self.ids[empty.argmax()]!r}; every image needs at least one, or leave it out",
            )
        if self.annotations is not None:
            rows, given = self.annotations.rows, self.annotations.labels
            require(
                len(rows) == len(given) == len(self.annotations.annotators),
                "every annotation needs an image, a label and an annotator",
            )
            require(
                bool(((rows >= 0) & (rows < n)).all() and ((given >= 0) & (given < n_classes)).all()),
                f"the annotations must be of the {n} images and the {n_classes} classes",
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer(self) -> Answer:
        """What a label is."""
        return "mask" if self.labels.ndim == 3 else "class"

    @property
    def labelled(self) -> np.ndarray:
        """Which images of the pool have a label, bool [N]; a mask needs one known pixel, as far as that is known undecoded."""
        return has_label(self.labels)

    @property
    def strata(self) -> np.ndarray:
        """What a sample of the pool keeps the shares of, int64 [N]: labels, or of masks groups and whether there is any label."""
        if self.answer == "class":
            return np.asarray(self.labels)
        groups = np.unique(self.groups, return_inverse=True)[1] if self.groups is not None else np.zeros(len(self), int)
        return np.where(self.labelled, groups, UNKNOWN)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of everything that a score can depend on.

        Reads every image of an array once; of files that are decoded on demand, length and time count instead.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.ids, self.class_names)).encode())
        for array in (self.images, self.labels, self.label_counts, self.test_images, self.test_labels):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            if isinstance(array, Lazy):
                digest.update(array.version.encode())
                continue
            for start in range(0, len(array), CHUNK):
                digest.update(array[start : start + CHUNK].tobytes())
        # Nothing is added where there is none: runs that were recorded before these fields keep their fingerprint.
        if isinstance(self.noisy_labels, LazyMasks):
            digest.update(b"noisy labels" + self.noisy_labels.version.encode())
        elif self.noisy_labels is not None:
            digest.update(b"noisy labels" + self.noisy_labels.tobytes())
        if self.annotations is not None:
            votes = self.annotations
            digest.update(b"annotations" + votes.rows.tobytes() + votes.labels.tobytes())
            digest.update(repr(votes.annotators).encode())
        if self.groups is not None:
            digest.update(b"groups" + repr(self.groups).encode())
        return digest.hexdigest()

    def readable(self, rows: np.ndarray) -> np.ndarray:
        """Whether the images of these pool rows, and their masks, can be read, bool [n] from int [n]; decodes those that never
        were."""
        return _readable(self.images, rows) & _readable(self.labels, rows)

    def readable_test(self) -> np.ndarray:
        """Whether each test image, and its mask, can be read, bool [M]; decodes those that never were."""
        rows = np.arange(len(self.test_images))
        return _readable(self.test_images, rows) & _readable(self.test_labels, rows)

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(id, reason) of the images of the pool that turned out not to be readable so far, or whose masks did."""
        found: dict[int, str] = {}
        for part in (self.labels, self.images):
            found |= part.unreadable if isinstance(part, Lazy) else {}
        return [(self.ids[row], why) for row, why in found.items()]

    def subset(self, indices: np.ndarray) -> "ImageDataset":
        """The same data set with these pool rows only, in this order; ids and test set are kept. indices: int [n]."""
        annotations = self.annotations
        if annotations is not None:
            place = np.full(len(self), -1, np.int64)
            place[indices] = np.arange(len(indices))
            rows = place[annotations.rows]
            kept = np.flatnonzero(rows >= 0)
            names = [annotations.annotators[i] for i in kept]
            annotations = Annotations(rows[kept], annotations.labels[kept], names)
        return replace(
            self,
            ids=[self.ids[i] for i in indices],
            images=_taken(self.images, indices),
            labels=_taken(self.labels, indices),
            label_counts=None if self.label_counts is None else self.label_counts[indices],
            noisy_labels=None if self.noisy_labels is None else _taken(self.noisy_labels, indices),
            annotations=annotations,
            groups=None if self.groups is None else [self.groups[i] for i in indices],
        )


def has_label(labels: Labels) -> np.ndarray:
    """Which labels [N, …] are known, bool [N]; a mask needs one known pixel, as far as that is known undecoded."""
    if isinstance(labels, LazyMasks):
        return ~labels.blank
    parts = (labels[start : start + CHUNK] for start in range(0, len(labels), CHUNK))
    return np.concatenate([(part != UNKNOWN).reshape(len(part), -1).any(axis=1) for part in parts])


def _outside(labels: Labels, n_classes: int) -> int | None:
    """The first label that is none of so many classes, nor unknown; of masks that are not in memory, how many there are."""
    if isinstance(labels, LazyMasks):
        return None if labels.n_classes == n_classes else labels.n_classes - 1
    for start in range(0, len(labels), CHUNK):
        part = labels[start : start + CHUNK]
        outside = (part < UNKNOWN) | (part >= n_classes)
        if outside.any():
            return int(part[outside][0])
    return None


def _readable(part: Pixels | Labels, rows: np.ndarray) -> np.ndarray:
    return part.readable(rows) if isinstance(part, Lazy) else np.ones(len(rows), dtype=bool)


def _taken(part: Any, indices: np.ndarray) -> Any:
    return part.view(indices) if isinstance(part, Lazy) else part[indices]


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Sorted random positions that keep the share of every class to within one sample: int64 [size].

    labels: int64 [N], any values; size: at most N. What rounding down leaves over goes to the classes that
    lose most by it.
    """
    order = random_order(len(labels), seed)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * size / len(labels)
    take = np.floor(exact).astype(np.int64)
    take[np.argsort(take - exact, kind="stable")[: size - take.sum()]] += 1
    chosen = [order[labels[order] == k][:n] for k, n in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen))
