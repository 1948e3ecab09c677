"""Gallery: the images themselves, from clear noise to ambiguous."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core import methods
from core.analysis import figures, measures
from core.analysis.samples import Filter, Samples
from core.plots import maps
from pages.ui import assets, attribution, filters, frame, layers, tiles, widgets
from pages.ui.layers import Look

POINTS = 4_000  # of the map: what a browser draws in no time
CELLS = 16, 12  # of the map of images, across and up: fewer than 200 of them
CELL = 64  # pixels of an image on the map
BESIDE = 2  # images on either side of an enlarged one that are at hand
PLANES = {"noise": maps.NOISE, "embedding": maps.EMBEDDING}
PLANE_NAMES = {"noise": "Noise map", "embedding": "Embedding map"}
MAPS = ("points", "images")
QUICK = ("corrected", "missed", "wrongly flagged", "still wrong")
GAMMAS = tuple(round(step / 20, 2) for step in range(21))
NAMES = {
    "cleaning": "Clear noise to ambiguous: Φ",
    "rank": "Rank: taken next first",
    "confidence": "Confidence of the suggestion",
    "n_votes": "Number of annotations",
}
NOTHING = "No image passes these filters: widen a range, or remove a filter or the selection above."


@dataclass(frozen=True)
class Wish:
    """How the images are to be shown."""

    order: str
    ascending: bool
    grouped: bool
    gamma: float
    size: int  # images a page
    top: int  # images of a group
    tile: int  # pixels
    look: Look = layers.PLAIN  # what of an image is drawn


def show(here: frame.Here) -> None:
    """The filters, the map, and the ordered grid of what passes."""
    samples = widgets.cycle_samples(here, here.key)
    kept = filters.bar(here, samples)
    outcomes(here, samples, kept)
    gallery(here, samples, kept)


def outcomes(here: frame.Here, samples: Samples, kept: Filter) -> None:
    """What cleaning has corrected, missed and wrongly flagged, each a button that filters; nothing without ground truth."""
    if not filters.values(samples, here.key, "outcome"):
        return
    counts = samples.counts("outcome", dataclasses.replace(kept, outcome=()))
    st.session_state["gallery-outcome"] = [name for name in QUICK if name in kept.outcome]

    def wrote() -> None:
        others = [name for name in kept.outcome if name not in QUICK]
        st.query_params["outcome"] = [*others, *st.session_state["gallery-outcome"]]

    st.pills(
        "What became of the labels",
        QUICK,
        selection_mode="multi",
        key="gallery-outcome",
        on_change=wrote,
        format_func=lambda name: f"{name.capitalize()} · {counts.get(name, 0):,}",
        label_visibility="collapsed",
    )


@st.fragment
def gallery(here: frame.Here, samples: Samples, kept: Filter) -> None:
    """Everything below the filters; a click in it redraws nothing else."""
    with frame.errors():
        assets.style("gallery")
        wish = wishes(here, samples)
        if wish.gamma != here.config.gamma:
            samples = samples.at_gamma(wish.gamma)
        large = recalled("map", MAPS, "points") == "images"
        if large:
            image_map(here, samples, kept, wish)
        if large and picked(here) is None:  # the map stands above, and there is no card: the grid takes the whole width
            grid(here, samples, kept, wish)
            return
        side, main = st.columns([2, 3], gap="medium")
        with main:
            grid(here, samples, kept, wish)
        with side, st.container(key="gallery-side"):
            sample_id = picked(here)
            row = None if sample_id is None else samples.sample(sample_id)
            if row is None:
                image_map(here, samples, kept, wish)
            else:
                card(here, samples, kept, wish, row)


def wishes(here: frame.Here, samples: Samples) -> Wish:
    """The row of controls."""
    scores = [name for name in dict.fromkeys(("cleaning", *samples.scores)) if samples.bounds(name) is not None]
    orders = [*scores[:1], "rank", *scores[1:], "confidence", "n_votes"]
    cleaning = here.config.question.checks
    own = min(GAMMAS, key=lambda one: abs(one - here.config.gamma))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = choice(
            st.selectbox,
            "Order",
            "order",
            orders,
            "cleaning" if cleaning else "rank",
            format_func=order_title,
            width=250,
        )
        direction = choice(
            st.segmented_control, "Direction", "direction", ("high", "low"), "low" if order == "rank" else "high",
            format_func=lambda one: f"{one.capitalize()} first", required=True,
        )  # fmt: skip
        shown = choice(
            st.segmented_control, "Show as", "show", ("list", "groups"), "list",
            format_func=str.capitalize, required=True, help="Groups: by given → suggested label, those that differ first",
        )  # fmt: skip
        look = looked(here)
        gamma = own if "cleaning" not in orders or here.run.answer.layers else choice(
            st.select_slider, "γ of Φ", "gamma", GAMMAS, own, disabled=order != "cleaning", width=170,
            help="Φ = CE − max(H − γ·ln C, 0): the larger γ, the less ambiguity lowers Φ. 0 in the paper, 0.30 in "
            "its public code. Order by Φ to use it.",
        )  # fmt: skip
        with st.popover("Display"):
            size = choice(st.segmented_control, "Images per page", "size", (50, 100, 200), 100, required=True)
            tile = choice(
                st.select_slider, "Size of an image", "tile", (72, 104, 144, 200), 104,
                format_func=lambda one: f"{one} px",
            )  # fmt: skip
            top = choice(st.segmented_control, "Images per group", "top", (5, 10, 20), 5, required=True)
    gamma = gamma if order == "cleaning" and gamma != own else here.config.gamma
    return Wish(order, direction == "low", shown == "groups", gamma, size, top, tile, look)


def looked(here: frame.Here) -> Look:
    """What of the images is drawn, where there is more than the images."""
    names = layers.offered(here)
    if not names:
        return layers.PLAIN
    layer = choice(st.selectbox, "Layer", "layer", names, "prediction", format_func=names.get, width=135)
    if layer not in layers.MIXED:
        return Look(layer)
    usual = layers.PLAIN.opacity
    shown = choice(
        st.select_slider, "Opacity", "opacity", layers.OPACITIES, usual, format_func="{:.0%}".format, width=110
    )
    return Look(layer, shown)


def choice(widget: Callable[..., Any], label: str, name: str, options: Any, default: Any, **more: Any) -> Any:
    """A widget whose value the address keeps, and the session for the next visit."""
    value = recalled(name, options, default)
    if st.session_state.get(f"gallery-{name}") != value:  # writing what is there would undo what was done meanwhile
        st.session_state[f"gallery-{name}"] = value
    return widget(label, options, key=f"gallery-{name}", on_change=wrote, args=(name,), **more)


def recalled(name: str, options: Any, default: Any) -> Any:
    """What the address says, else what was chosen before in this session, else the default."""
    wanted = st.query_params.get(name, st.session_state.get(f"kept-{name}"))
    return next((one for one in options if str(one) == wanted), default)


def wrote(name: str) -> None:
    """Keep what was chosen; another order begins at its own end, and most changes on the first page."""
    st.query_params[name] = st.session_state[f"kept-{name}"] = str(st.session_state[f"gallery-{name}"])
    if name == "order":
        st.query_params.pop("direction", None)
        st.session_state.pop("kept-direction", None)
    if name not in ("map", "plane", "tile", "page", "layer", "opacity"):
        st.query_params.pop("page", None)


def image_map(here: frame.Here, samples: Samples, kept: Filter, wish: Wish) -> None:
    """Images on the CE × H plane or where the embedding has them: what a box or a lasso is drawn around is selected."""
    visible = dataclasses.replace(kept, rows=None)  # a selection is made among all that pass the filters
    known = filters.bounds(samples, str(samples.path), maps.NOISE.y) is not None
    with st.container(horizontal=True):
        planes = here.run.answer.maps
        which = planes[0]
        if samples.mapped:
            which = choice(
                st.segmented_control, "Map", "plane", planes, planes[0] if known else planes[-1], format_func=PLANE_NAMES.get,
                required=True, label_visibility="collapsed",
            )  # fmt: skip
        drawn = choice(
            st.segmented_control, "Draw", "map", MAPS, "points", format_func=str.capitalize, required=True,
            label_visibility="collapsed",
        )  # fmt: skip
    plane = PLANES[which]
    figure = drawn_map(here, samples, visible, kept.rows, plane, drawn == "images", wish)
    if figure is None:
        some = plane is maps.EMBEDDING or known
        unlabelled = "This map needs labels or reference labels, and no image here has one: the grid needs none."
        st.info(NOTHING if some else unlabelled)
        return
    name = f"{here.run.id}-cycle{here.cycle}-{which}-map-of-{drawn}"
    widgets.figure(figure, name, selectable=True)
    st.caption(f"{meaning(here, plane)}. Draw a box or a lasso to see the images inside.")
    if outlines := widgets.outlines(name):
        filters.select(here, samples.inside(plane.x, plane.y, outlines, visible).tolist())
        st.query_params.pop("page", None)
        st.rerun()


def drawn_map(
    here: frame.Here, samples: Samples, visible: Filter, selected: tuple[int, ...] | None, plane: maps.Plane,
    large: bool, wish: Wish,
) -> go.Figure | None:  # fmt: skip
    """A map of points, or a large one of images; None where no image that is visible has a place on it."""
    if large:
        cells = samples.mosaic(plane.x, plane.y, visible, *CELLS)
        if cells is None:
            return None
        table, cell = cells
        some = (
            f"{len(table):,} of {samples.count(visible):,} images drawn, one for each of {CELLS[0]} × {CELLS[1]} cells"
        )
        return maps.picture_map(table, plane, tiles.pictures(here, table, CELL), cell, small_print(here, plane, some))
    found, n = samples.points(plane.x, plane.y, visible, POINTS), samples.count(visible)
    if found.empty:
        return None
    some = f"{n:,} images" if len(found) == n else f"{len(found):,} of {n:,} images drawn, a box selects all inside"
    if plane is maps.NOISE:
        return maps.noise_map(found, small_print(here, plane, some), selected)
    return figures.embedding_map(here.run, found, wish.order, order_title(wish.order), here.cycle, some, selected)


def meaning(here: frame.Here, plane: maps.Plane) -> str:
    """What it says of an image where it lies on a map."""
    if plane is maps.EMBEDDING:
        return (
            "Images that the model finds **alike** lie close together; the axes and large distances mean nothing. Colour: what "
            "the images are ordered by"
        )
    if here.config.question.checks:
        text = "High: the model disagrees with the label. Right: it is unsure. So top left is most likely **clear label noise**"
    else:
        text = (
            "High: the model disagrees with the reference label, which the strategy does not see. Right: it is unsure. So top "
            "left is what it gets wrong and is sure of"
        )
    return f"{text}, and right is **ambiguous**"


def small_print(here: frame.Here, plane: maps.Plane, some: str) -> str:
    said = figures.map_text(here.config, here.dataset) if plane is maps.NOISE else figures.EMBEDDING_TEXT
    return measures.note(here.run, f"cycle {here.cycle}; {some}; {said}")


def grid(here: frame.Here, samples: Samples, kept: Filter, wish: Wish) -> None:
    """The ordered images, page by page, or the first of each group."""
    n = samples.count(kept)
    if n == 0:
        st.info(NOTHING)
        return
    score = here.config.method if wish.order == "rank" else wish.order
    title = methods.described(score).title if score in methods.scores() else order_title(score)
    said = [
        filters.count(samples, kept, n),
        f"below each: {title}, {here.run.answer.beside}",
    ]
    if not here.config.question.checks:
        said.append("in italics *ref.*: the reference label, which the strategy does not see")
    st.caption(" · ".join(said))
    layers.legend(here, wish.look, f"gallery-legend-{here.run.id}")
    place = st.container()
    if wish.grouped:
        pairs, size = samples.pairs(kept), max(1, wish.size // wish.top)
        page = pager(here, kept, wish, -(-len(pairs) // size))
        pairs = pairs.iloc[(page - 1) * size : page * size].reset_index(drop=True)
        shown = samples.of_pairs(pairs, kept, wish.order, wish.ascending, wish.top)
        parts = shown.groupby(["given", "suggested"])
        groups = [
            tiles.Group(row.given, row.suggested, row.n, parts.get_group((row.given, row.suggested)))
            for row in pairs.itertuples()
        ]
    else:
        page = pager(here, kept, wish, -(-n // wish.size))
        shown = samples.page(kept, wish.order, wish.ascending, (page - 1) * wish.size, wish.size)
        groups = [tiles.Group("", "", n, shown)]
    with place:
        done = tiles.grid(
            here,
            groups,
            score,
            f"gallery-{here.run.id}",
            wish.tile,
            picked(here),
            functools.partial(pick, here),
            wish.look,
        )
    if done.group is not None and done.group < len(groups):
        filters.choose(given=groups[done.group].given, suggested=groups[done.group].suggested)
        st.query_params["show"] = st.session_state["kept-show"] = "list"
        st.rerun()
    if done.opened is not None:
        open_large(here, samples, kept, wish, done.opened)


def pager(here: frame.Here, kept: Filter, wish: Wish, pages: int) -> int:
    """Draw the page numbers, where there are several; returns the page. What changes the list begins at its first page."""
    view = (here.run.id, kept, dataclasses.replace(wish, tile=0, look=layers.PLAIN))
    if st.session_state.get("gallery-view", view) != view:
        st.query_params.pop("page", None)
    st.session_state["gallery-view"] = view
    if pages < 2:
        return 1
    wanted = st.query_params.get("page", "1")
    page = min(max(1, int(wanted)), pages) if wanted.isdecimal() and len(wanted) < 9 else 1
    key = f"gallery-page-{page}"  # a new widget a page: it takes no value from the session

    def turned() -> None:
        st.query_params["page"] = str(st.session_state[key])

    st.pagination(pages, default=page, key=key, on_change=turned)
    return page


def pick(here: frame.Here, sample_id: str | None) -> None:
    """Show the card of this image next to the grid, in all cycles of the run; None: of no image."""
    st.session_state.setdefault("gallery-picked", {})[here.run.id] = sample_id


def picked(here: frame.Here) -> str | None:
    """The image whose card is shown."""
    return st.session_state.get("gallery-picked", {}).get(here.run.id)


def card(here: frame.Here, samples: Samples, kept: Filter, wish: Wish, row: pd.Series) -> None:
    """What is known of the image that was picked."""
    with st.container(horizontal=True):
        st.button("← Close", key="gallery-close", on_click=pick, args=(here, None), help="Back to the map")
        if st.button("Enlarge", key="gallery-enlarge", help="A double click on an image does the same"):
            open_large(here, samples, kept, wish, row["sample_id"])
    image, influence = st.tabs(["Image", "Influence"])
    with image:
        widgets.card(here, row)
    with influence:
        attribution.card(here, row)


def open_large(here: frame.Here, samples: Samples, kept: Filter, wish: Wish, sample_id: str) -> None:
    """Enlarge an image among those that are shown; alone where it is none of them."""
    row = samples.sample(sample_id)
    if wish.grouped and row is not None:
        kept = dataclasses.replace(kept, given=(row["given"],), suggested=(row["suggested"],))
    at = samples.place(sample_id, kept, wish.order, wish.ascending)
    if at is None and row is not None:
        kept, at = Filter(rows=(int(row.name),)), 0
    opened = st.session_state["gallery-opened"] = st.session_state.get("gallery-opened", 0) + 1
    pick(here, sample_id)
    enlarged(here, samples, kept, wish, at or 0, f"gallery-zoom-{opened}")


@st.dialog("Enlarged", width="large", on_dismiss="rerun")
def enlarged(here: frame.Here, samples: Samples, kept: Filter, wish: Wish, start: int, key: str) -> None:
    """One image, and with the arrow keys the others of the list, in its order."""
    with frame.errors():
        at, total = tiles.zoom_at(key, start), samples.count(kept)
        first = max(0, at - BESIDE)
        table = samples.page(kept, wish.order, wish.ascending, first, at + BESIDE + 1 - first)
        images = {first + i: row for i, (_, row) in enumerate(table.iterrows())}
        score = here.config.method if wish.order == "rank" else wish.order

        def turned(to: int) -> None:
            # Not where the image is drawn: who closes the dialog at once would find the card of another
            with frame.errors():
                pick(here, samples.page(kept, wish.order, wish.ascending, to, 1)["sample_id"].iloc[0])

        tiles.zoom(here, images, at, total, score, key, turned, wish.look)
        if layers.offered(here):
            layers.panels(here, int(images[at].name), wish.look)


def order_title(name: str) -> str:
    """What an order, or the score on a tile, is called."""
    return NAMES.get(name) or methods.described(name).title


if (place := frame.here("Gallery")) is not None:
    with frame.errors():
        show(place)
