"""Images as a grid of buttons, in groups or not, and one of them enlarged."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core import methods
from data import ImageDataset
from data.files import preview
from data.words import count
from pages.ui import assets, layers
from pages.ui.frame import Here
from pages.ui.layers import PLAIN, Look

KINDS = {"clear noise": "✕ clear noise", "difficult": "◆ difficult", "correct": "● correct"}
CRISP = 48  # pixels a side, up to which an enlarged image shows its pixels; a larger one is smoothed
SHARP = 1.5  # pixels of a thumbnail for each of the screen's: half-way to a screen of double density
LARGEST = 2048  # pixels a side of an enlarged image: more than screens show
ACROSS = 20  # thumbnails side by side in a sheet


@dataclass(frozen=True)
class Group:
    """Images under one heading, or under none where `given` is empty. number: of all, of which `table` holds the first."""

    given: str
    suggested: str
    number: int
    table: pd.DataFrame


@dataclass(frozen=True)
class Done:
    """What was done on a grid just now: the id of an image that was opened, or the place of a group."""

    opened: str | None
    group: int | None


_GRID = assets.component("tiles")


def grid(
    here: Here,
    groups: list[Group],
    score: str,
    key: str,
    side: int,
    picked: str | None,
    pick: Callable[[str], None],
    look: Look = PLAIN,
) -> Done:
    """Images group by group, each with a score and its labels below; one group without a name is a plain grid.

    score: column that stands on the tiles · side: of a tile, in the screen's pixels · picked: id of the image that is outlined ·
    pick: called with the id of one that is clicked, before anything is drawn · look: what of the images is drawn.
    """
    table = pd.concat([group.table for group in groups])
    rows = tuple(int(row) for row in table.index)
    sheet = _sheet(here, here.config.root, here.key, rows, round(SHARP * side), look)
    shapes = _shapes(here.dataset, here.config.root, here.run.id, rows, look == PLAIN)
    tiles = [
        {**labels(row), "score": number(row[score]), "ratio": shape[1] / shape[0]}
        for (_, row), shape in zip(table.iterrows(), shapes, strict=True)
    ]
    left = iter(tiles)
    parts = [
        {
            "given": "not labelled" if group.given == "—" else group.given,
            "suggested": group.suggested,
            "number": group.number if group.given else None,
            "numbers": count(group.number, "image"),
            "tiles": list(itertools.islice(left, len(group.table))),
        }
        for group in groups
    ]
    data = {
        "groups": parts,
        "tile": side,
        "smooth": max(map(max, shapes), default=0) > CRISP,
        "sheet": sheet,
        "picked": picked,
        "version": f"{hash((rows, score, side, here.key, look, str(parts)))}",
    }

    def clicked() -> None:
        pick(st.session_state[key].picked)

    done = _GRID(key=key, data=data, on_picked_change=clicked, on_opened_change=_nothing, on_group_change=_nothing)
    return Done(done.opened, done.group)


def labels(row: pd.Series) -> dict[str, str]:
    """What a tile says of an image: id, given, whose ("ref." where the label is the reference), suggested, kind."""
    unlabelled = row["given"] == "—"
    reference = unlabelled and row["reference"] != "—"
    nothing = "tied" if row["status"] == "tied" else "not labelled"
    return {
        "id": row["sample_id"],
        "given": row["reference"] if reference else nothing if unlabelled else row["given"],
        "whose": "ref." if reference else "",
        "suggested": row["suggested"],
        "kind": KINDS.get(row["kind"], ""),
    }


def number(value: Any) -> str:
    """A score as a tile shows it."""
    if pd.isna(value):
        return "—"
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3f}".replace("-0.000", "0.000")


def _nothing() -> None:
    """A component tells what was done only where somebody listens."""


@st.cache_data(max_entries=16, show_spinner=False)
def _sheet(
    _here: Here, root: str | None, key: tuple[str, int, int], rows: tuple[int, ...], side: int, look: Look
) -> dict[str, Any]:
    """All thumbnails of a page as one picture: url, columns, rows, and the shape [H, W] of each."""
    plain = look == PLAIN
    images = preview.cells(_here.dataset, rows, root, side) if plain else layers.drawn(_here, rows, look, side)
    columns = min(ACROSS, len(images))
    url = preview.url(preview.sheet(images, columns))
    return {"url": url, "columns": columns, "rows": -(-len(images) // columns), "shape": list(images.shape[1:3])}


def pictures(here: Here, table: pd.DataFrame, side: int) -> list[str]:
    """Each image as a URL of its own, at most `side` pixels high and wide, in the shape of its file."""
    return [preview.url(preview.shown(here.dataset, int(row), here.config.root, side)) for row in table.index]


@st.cache_data(max_entries=16, show_spinner=False)
def _shapes(
    _dataset: ImageDataset, root: str | None, run_id: str, rows: tuple[int, ...], files: bool
) -> list[tuple[int, int]]:
    """Height and width of the images, with `files` of those that they come from, where there are any."""
    own = _dataset.images.shape[1:3]
    return [(preview.file_shape(_dataset, row, root) if files else None) or own for row in rows]


_ZOOM = assets.component("zoom")


def zoom_at(key: str, start: int) -> int:
    """Which image of its list a `zoom` of this key shows, given where it began."""
    at = (st.session_state.get(key) or {}).get("at")
    return start if at is None else int(at)


def zoom(
    here: Here,
    images: dict[int, pd.Series],
    at: int,
    total: int,
    score: str,
    key: str,
    turned: Callable[[int], None],
    look: Look = PLAIN,
) -> None:
    """One image as large as its file, with the keys ← and → to the ones beside it.

    images: by their place in the whole list of `total`, the one at `at` and some beside it, which then show at once · turned:
    called with the place of one that is turned to, before anything is drawn · look: what of them is drawn.
    """
    _ZOOM(
        key=key,
        data={
            "at": at,
            "total": total,
            "score": methods.described(score).title if score in methods.scores() else score.replace("_", " "),
            "images": {
                place: {**labels(row), "score": number(row[score]), **_large(here, row, look)}
                for place, row in images.items()
            },
        },
        on_at_change=lambda: turned(zoom_at(key, at)),
    )


def _large(here: Here, row: pd.Series, look: Look) -> dict[str, Any]:
    if look == PLAIN:
        address, shape = _enlarged(here.dataset, here.config.root, here.run.id, int(row.name))
    else:
        address, shape = _looked(here, here.key, int(row.name), look)
    return {"url": address, "size": f"{shape[1]} × {shape[0]} pixels", "smooth": look == PLAIN and max(shape) > CRISP}


@st.cache_data(max_entries=32, show_spinner=False)
def _enlarged(_dataset: ImageDataset, root: str | None, run_id: str, row: int) -> tuple[str, tuple[int, int]]:
    """An image as its file has it, else as the pool has it, and height and width of that."""
    image = preview.shown(_dataset, row, root, LARGEST)
    return preview.url(image), preview.file_shape(_dataset, row, root) or image.shape[:2]


@st.cache_data(max_entries=32, show_spinner=False)
def _looked(_here: Here, key: tuple[str, int, int], row: int, look: Look) -> tuple[str, tuple[int, int]]:
    """The same of one of its layers, as large as the pool has it."""
    image = layers.drawn(_here, (row,), look, LARGEST)[0]
    return preview.url(image), image.shape[:2]
