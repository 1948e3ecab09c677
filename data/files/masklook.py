"""What is found out of the masks of a pool before anything runs on it: those that cannot be taken, and what the others show.

As with images (`data.files.look`): every header is read, of up to `HEADERS` masks, and where their images hold no more than
`VERIFIED` pixels in all, every mask is decoded once. Of larger pools, a mask that is damaged or holds an unknown value is named
when it is read, and is unknown in whole then.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.files import cache, look, maskfile
from data.files.encoded import Encoded
from data.files.look import Progress
from data.files.maskfile import Legend
from data.masks import VOID

BLOCK = 512
VERSION = "1"  # changes where the same files give another look
PARTS = ("codes", "texts", "pixels", "digests")


@dataclass(frozen=True, eq=False)
class MaskLook:
    """What was found of N images and their masks.

    reasons: N, why the mask of an image cannot be taken, empty where it can or there is none · pixels: int64 [N, K + 1], those of
    each class in the file, the last of none; zeros where there is no mask; None where not all masks were decoded · digests: uint8
    [N, 16], alike where masks are the same; None as before.
    """

    reasons: list[str]
    pixels: NDArray[np.int64] | None
    digests: NDArray[np.uint8] | None

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which masks are there, and show no class at all, bool [N], as far as they were decoded."""
        if self.pixels is None:
            return np.zeros(len(self.reasons), np.bool_)
        return (self.pixels[:, :-1].sum(axis=1) == 0) & (self.pixels[:, -1] > 0)

    def take(self, rows: NDArray[np.int64]) -> "MaskLook":
        """The same of these images only."""
        return MaskLook(
            [self.reasons[row] for row in rows],
            None if self.pixels is None else self.pixels[rows],
            None if self.digests is None else self.digests[rows],
        )


def look_at_masks(
    files: Encoded,
    place: NDArray[np.int64],
    shapes: NDArray[np.int32],
    legend: Legend,
    source: str,
    root: Path,
    progress: Progress | None = None,
) -> MaskLook:
    """Look at the masks of N images, or take what was found before from $NEXTLABEL_DATA/decoded.

    files, place: of the masks, as of `data.files.ondemand.OnDemandMasks` · shapes: height and width of the N images, 0 where
    their headers were not read · source, root: what they belong to · progress: told how many of how many were looked at.
    """
    whose = hashlib.blake2b(str(root).encode(), digest_size=8).hexdigest()
    version = hashlib.blake2b(repr((VERSION, legend)).encode(), digest_size=8)
    for part in (files.stamps(), place, shapes):
        version.update(part.tobytes())
    for row in range(len(files)):
        version.update(files.name(row).encode() + b"\0")
    parts = cache.cached(
        cache.home() / "decoded",
        f"masklook-{source}-{whose}",
        version.hexdigest(),
        PARTS,
        lambda: _look(files, place, shapes, legend, progress),
    )
    texts = parts["texts"].tolist()
    reasons = [texts[code] for code in parts["codes"].tolist()]
    if not _few(shapes):
        return MaskLook(reasons, None, None)
    return MaskLook(reasons, parts["pixels"].astype(np.int64), np.asarray(parts["digests"]))


def _few(shapes: NDArray[np.int32]) -> bool:
    return len(shapes) <= look.HEADERS and int(shapes.astype(np.int64).prod(axis=1).sum()) <= look.VERIFIED


def _look(
    files: Encoded,
    place: NDArray[np.int64],
    shapes: NDArray[np.int32],
    legend: Legend,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    n, few = len(place), _few(shapes)
    rows = np.flatnonzero((place >= 0) & (shapes[:, 0] > 0))
    codes, texts = np.zeros(n, np.int32), {"": 0}
    counted = n if few else 0
    pixels, digests = np.zeros((counted, legend.n_classes + 1), np.int32), np.zeros((counted, 16), np.uint8)

    def one(row: int) -> str:
        shape = int(shapes[row, 0]), int(shapes[row, 1])
        try:
            file = files.file(int(place[row]))
        except (OSError, ValueError) as error:
            return maskfile.reason(error)
        if not few:
            return maskfile.head(file, legend, shape)
        found = maskfile.read(file, legend, shape)
        if isinstance(found, str):
            return found
        number = np.bincount(found.ravel(), minlength=VOID + 1)
        pixels[row, :-1], pixels[row, -1] = number[: legend.n_classes], number[VOID]
        digests[row] = np.frombuffer(hashlib.blake2b(found.tobytes(), digest_size=16).digest(), np.uint8)
        return ""

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            for row, why in zip(block, threads.map(one, block.tolist()), strict=True):
                codes[row] = texts.setdefault(why, len(texts))
            if progress is not None:
                progress(start + len(block), len(rows))
    return {"codes": codes, "texts": np.array(list(texts)), "pixels": pixels, "digests": digests}
