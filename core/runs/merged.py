"""The masks that stand in a run: what each annotator drew, newest last, and per pixel the majority of them all."""

import copy
import functools
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.relabel import Ints
from core.store.maskfiles import Codes, MaskFiles
from data.errors import UserError
from data.lazy import LazyMasks
from data.masks import VOID, widened

BASE = ("given", "initial")
"""Sources of masks that came with the data: they stand where no annotator has drawn, and where annotators tie."""
Layers = tuple[tuple[str, str], ...]  # (source, digest) of each mask of an image, in the order of the log


class Merged(LazyMasks):
    """The masks [N, H, W] of a pool as the events of a log say them, read from their files when they are asked for.

    An annotator's later mask covers the earlier one where it has a class. Of several annotators the majority of each pixel
    stands; where they tie, or nobody has drawn, what came with the data, and unknown where nothing did. Reading one raises
    `UserError` as `MaskFiles.read`.
    """

    def __init__(
        self, files: MaskFiles, rows: Ints, events: pd.DataFrame, shape: tuple[int, int, int], n_classes: int
    ) -> None:
        """rows: of the pool, int [T], one for each event · events: those of the log that give a mask, in order."""
        self.files, self.n_classes, self._sides = files, n_classes, shape[1:]
        self._layers: list[Layers] = [()] * shape[0]
        for row, source, name in zip(rows.tolist(), events["source"], events["digest"], strict=True):
            self._layers[row] += ((source, name),)

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self.view(np.arange(len(self))[key])
        rows = np.arange(len(self))[key]
        if rows.ndim == 0:
            return widened(self.codes(int(rows)))
        return np.asarray(self.view(rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = np.empty(self.shape, np.int64)
        for row in range(len(self)):
            found[row] = widened(self.codes(row))
        return found if dtype is None else found.astype(dtype)

    def view(self, rows: NDArray[np.int64]) -> Self:
        made = copy.copy(self)
        made._layers = [self._layers[row] for row in rows.tolist()]
        return made

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self._sides)

    @property
    def version(self) -> str:
        digest = hashlib.blake2b(repr((self.shape, self.n_classes)).encode(), digest_size=16)
        for layers in self._layers:
            digest.update(repr(layers).encode())
        return digest.hexdigest()

    @property
    def blank(self) -> NDArray[np.bool_]:
        return np.array([not layers for layers in self._layers], dtype=bool)

    def readable(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        return np.ones(len(self if rows is None else rows), np.bool_)

    @property
    def unreadable(self) -> dict[int, str]:
        return {}

    def codes(self, row: int) -> Codes:
        """The mask of an image in one byte a pixel, uint8 [H, W], `data.masks.VOID` for unknown."""
        base, drawn = self.layers(row)
        return _majority(base, list(drawn.values()))

    def layers(self, row: int) -> tuple[Codes, dict[str, Codes]]:
        """What came with the data, and what each annotator has drawn, by source; uint8 [H, W] each, unknown where nothing was."""
        base, drawn = np.full(self._sides, VOID, np.uint8), dict[str, Codes]()
        for source, name in self._layers[row]:
            below = base if source in BASE else drawn.get(source)
            codes = self.files.read(name)
            above = codes if below is None else np.where(codes == VOID, below, codes)
            if source in BASE:
                base = above
            else:
                drawn[source] = above
        return base, drawn

    def covered(self, row: int) -> NDArray[np.bool_]:
        """Which pixels of an image annotators have given a class, bool [H, W]."""
        found = np.zeros(self._sides, dtype=np.bool_)
        for source, name in self._layers[row]:
            if source not in BASE:
                found |= self.files.read(name) != VOID
        return found


def undecided(files: MaskFiles, rows: Ints, events: pd.DataFrame) -> Ints:
    """The images of which no pixel has a class, though several annotators drew them: they tie everywhere. As of `Merged`."""
    if len(set(events["source"].unique()) - set(BASE)) < 2:
        return np.empty(0, dtype=np.int64)
    table = pd.DataFrame({"row": rows, "source": events["source"].to_numpy(), "digest": events["digest"].to_numpy()})
    by = table.groupby("row")["source"]
    several = table[(by.transform("nunique") > 1) & ~table["source"].isin(BASE).groupby(table["row"]).transform("any")]
    layers = {row: tuple(zip(one["source"], one["digest"], strict=True)) for row, one in several.groupby("row")}
    found = []
    for row, one in layers.items():
        with suppress(UserError):  # of a file that is missing: whoever needs the mask itself says so
            found += [row] if _tie(files.folder, one) else []
    return np.array(found, dtype=np.int64)


@functools.lru_cache(maxsize=1 << 14)
def _tie(folder: Path, layers: Layers) -> bool:
    files, events = MaskFiles(folder), pd.DataFrame(layers, columns=["source", "digest"])
    height, width = files.read(layers[0][1]).shape
    for _, name in layers:
        files.read(name, (height, width))  # raises for one of another size
    merged = Merged(files, np.zeros(len(layers), np.int64), events, (1, height, width), VOID)
    return bool((merged.codes(0) == VOID).all())


def _majority(base: Codes, drawn: list[Codes]) -> Codes:
    """Per pixel the class that most annotators gave; `base` where they tie or none gave any."""
    if not drawn:
        return base
    if len(drawn) == 1:
        return np.where(drawn[0] == VOID, base, drawn[0])
    stack = np.stack(drawn)
    classes = np.unique(stack[stack != VOID])
    if not len(classes):
        return base
    counts = np.stack([(stack == code).sum(axis=0) for code in classes])
    most = counts.max(axis=0)
    clear = (counts == most).sum(axis=0) == 1
    return np.where(clear & (most > 0), classes[counts.argmax(axis=0)], base).astype(np.uint8)


def places(named: pd.Series, sample_ids: list[str]) -> NDArray[np.int64]:
    """The row in the pool of each sample that is named, −1 where it is not there; int [T]."""
    names = named.tolist()
    if names[: len(sample_ids)] == sample_ids:  # as a log of label cleaning begins: quicker than a million look-ups
        first = np.arange(len(sample_ids))
        rest = names[len(sample_ids) :]
    else:
        first, rest = np.empty(0, dtype=np.int64), names
    if not rest:
        return first
    wanted = set(rest)
    row_of = {name: row for row, name in enumerate(sample_ids) if name in wanted}
    return np.concatenate([first, np.array([row_of.get(name, -1) for name in rest], dtype=np.int64)])
