"""The desk of the page Annotate: one image large, its classes as buttons with keys, what was said before at the arrows.

What the annotator does shows at once and waits in the browser until the server has it in the log. So keys may be struck
faster than the server answers: all that waits is sent again with each of them, numbered, and each is done once.
"""

from collections.abc import Callable
from typing import Any

import streamlit as st

from core.runs.annotation import Desk
from core.runs.run import Run
from data import ImageDataset
from data.files import preview
from pages.ui import assets

GUIDED = False  # whether an image comes with what the run knows of it, until the annotator says otherwise
LARGEST = 1024  # pixels a side of an image: what the desk shows on a screen of double density

_DESK = assets.component("desk")


def draw(key: str, data: dict[str, Any], done: Callable[[], None]) -> None:
    """Draw the desk; `done` is called before the script runs again, when there is something new in `actions`.

    data: place [run id, annotator, cycle] · classes: names · queue: images {id, url, guide}, the next
    first · said: images {id, url, guide, seq, label}, the newest last · left: images in the whole queue · empty: what to say
    at its end · large: smooth the picture · done: {tab, number} of the last action.
    """
    _DESK(key=key, data=data, on_actions_change=done)


def complete(data: dict[str, Any], run: Run, dataset: ImageDataset, found: Desk) -> None:
    """Add to the data what this desk needs besides images: of classes, nothing."""


def actions(key: str) -> tuple[str, list[dict[str, Any]]]:
    """What the browser last sent: its tab, and what was done there, oldest first, some of it perhaps sent before."""
    sent = st.session_state.get(key, {}).get("actions") or {}
    return str(sent.get("tab", "")), list(sent.get("list", []))


@st.cache_data(max_entries=200, show_spinner=False)
def picture(run_id: str, row: int, _dataset: ImageDataset, root: str | None) -> tuple[str, int]:
    """An image of a run's pool as a URL that needs no request, from its file where there is one; and its longer side."""
    image = preview.shown(_dataset, row, root, LARGEST)
    return preview.url(image), max(image.shape[:2])
