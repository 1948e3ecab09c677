"""Which images a page shows: one set of filters for Rankings and Gallery, kept in the URL, each a chip to click away."""

import dataclasses
import math
from typing import Any

import streamlit as st

from core import methods
from core.analysis.samples import LISTS, OUTCOMES, Filter, Samples
from pages.ui.frame import FILTERS, Here

WIDTH = 171  # pixels of a filter: two side by side on a phone


def bar(here: Here, samples: Samples) -> Filter:
    """Draw the filters of a page; returns what passes, as the URL says it, and of that what is selected on a figure."""
    kept = dataclasses.replace(from_link(samples), rows=selection(here))
    options = {name: _options(here, samples, name) for name in LISTS}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        _follow("q", kept.text)
        st.text_input(
            "Name contains",
            key="filter-q",
            placeholder="part of the name",
            on_change=_wrote,
            args=("q",),
            width=WIDTH,
        )
        for name in ("given", "suggested"):
            _choice(name, here.run.answer.headings[name], options[name], getattr(kept, name))
        _follow("states", [(name, one) for name in LISTS[2:] for one in getattr(kept, name)])
        states = [(name, one) for name in LISTS[2:] for one in options[name]]
        only = {name for name, _ in states} <= {"status"}  # labels whose errors are not known have no kind
        st.multiselect(
            "Status" if only else "Status, kind, outcome",
            states,
            key="filter-states",
            format_func=lambda pair: pair[1],
            placeholder="All",
            on_change=_wrote_states,
            width=WIDTH,
            help=None
            if only
            else "\n".join(
                ["Outcome, in label cleaning:", *(f"* **{name}**: {text}" for name, text in OUTCOMES.items())]
            ),
        )
        with st.popover("Scores", help="From … to, for each score"):
            for score in samples.scores:
                _range(samples, score, kept)
    _chips(here, kept)
    return kept


def from_link(samples: Samples) -> Filter:
    """The filter that the address names; what it names in vain is left out."""
    found: dict[str, Any] = {name: tuple(st.query_params.get_all(name)) for name in LISTS}
    ranges = []
    for text in st.query_params.get_all("range"):
        score, _, ends = text.partition(":")
        low, _, high = ends.partition(":")
        try:
            limits = float(low), float(high)
        except ValueError:
            continue
        if score in samples.scores and not any(map(math.isnan, limits)):
            ranges.append((score, *limits))
    return Filter(text=st.query_params.get("q", ""), ranges=tuple(ranges), **found)


def narrow(score: str, low: float, high: float) -> None:
    """Let the address keep the images whose score lies between these, and no other range of it."""
    others = [text for text in st.query_params.get_all("range") if not text.startswith(f"{score}:")]
    st.query_params["range"] = [*others, f"{score}:{low:.6g}:{high:.6g}"]


def choose(**names: str) -> None:
    """Let the address keep the images with these given and suggested labels alone."""
    for name, value in names.items():
        st.query_params[name] = [value]


def count(samples: Samples, kept: Filter, shown: int | None = None) -> str:
    """ "119 of 1,000 images", in bold."""
    return f"**{samples.count(kept) if shown is None else shown:,}** of {samples.count():,} images"


def _options(here: Here, samples: Samples, name: str) -> list[str]:
    return values(samples, here.key, name)


@st.cache_data(max_entries=64, show_spinner=False)
def values(_samples: Samples, key: tuple[str, int, int], name: str) -> list[str]:
    """The names that occur in a column."""
    return _samples.values(name)


@st.cache_data(max_entries=64, show_spinner=False)
def bounds(_samples: Samples, path: str, score: str) -> tuple[float, float] | None:
    """Least and most value of a score."""
    return _samples.bounds(score)


def _follow(name: str, value: object) -> None:
    """The URL is the truth, the widget shows it."""
    st.session_state[f"filter-{name}"] = value


def _wrote(name: str) -> None:
    value = st.session_state[f"filter-{name}"]
    if value:
        st.query_params[name] = value
    else:
        st.query_params.pop(name, None)


def _wrote_states() -> None:
    pairs = st.session_state["filter-states"]
    for name in LISTS[2:]:
        st.query_params[name] = [one for of, one in pairs if of == name]


def _choice(name: str, title: str, options: list[str], chosen: tuple[str, ...]) -> None:
    _follow(name, [one for one in chosen if one in options])
    st.multiselect(title, options, key=f"filter-{name}", placeholder="All", on_change=_wrote, args=(name,), width=WIDTH)


def _range(samples: Samples, score: str, kept: Filter) -> None:
    ends = bounds(samples, str(samples.path), score)
    if ends is None or not ends[0] < ends[1]:
        return
    least, most = ends
    set_to = next(((low, high) for name, low, high in kept.ranges if name == score), ends)
    _follow(f"range-{score}", (min(max(set_to[0], least), most), max(min(set_to[1], most), least)))

    def wrote() -> None:
        low, high = st.session_state[f"filter-range-{score}"]
        if (low, high) == (least, most):
            _drop("range", next((t for t in st.query_params.get_all("range") if t.startswith(f"{score}:")), ""))
        else:
            narrow(score, low, high)

    st.slider(methods.described(score).title, least, most, key=f"filter-range-{score}", on_change=wrote, format="%.3f")


def _chips(here: Here, kept: Filter) -> None:
    """What is set and stands in no box above, each with a cross."""
    texts = {text.split(":")[0]: text for text in st.query_params.get_all("range")}
    if kept == Filter():
        return
    with st.container(horizontal=True):
        for score, low, high in kept.ranges:
            text = f"{methods.described(score).title} {low:.3g} … {high:.3g} ✕"
            st.button(
                text, key=f"chip-{score}", on_click=_drop, args=("range", texts[score]), help="Remove this filter"
            )
        if kept.rows is not None:
            text = f"Selected on a figure: {len(kept.rows):,} ✕"
            st.button(text, key="chip-rows", on_click=select, args=(here, None), help="Remove the selection")
        st.button("Clear all filters", key="chip-all", type="tertiary", on_click=clear, args=(here,))


def _drop(name: str, value: str) -> None:
    rest = [one for one in st.query_params.get_all(name) if one != value]
    if rest:
        st.query_params[name] = rest
    else:
        st.query_params.pop(name, None)


def clear(here: Here) -> None:
    """Take all filters out of the address, and the selection away."""
    for name in FILTERS:
        st.query_params.pop(name, None)
    select(here, None)


def selection(here: Here) -> tuple[int, ...] | None:
    """The pool rows that are selected on a figure of this cycle; None without a selection."""
    return st.session_state.get("selections", {}).get((here.run.id, here.cycle))


def select(here: Here, rows: list[int] | None) -> None:
    """Select these rows on all pages, whatever filters do; None: nothing is selected. Figures forget what was drawn on them."""
    selections = st.session_state.setdefault("selections", {})
    if rows is None:
        selections.pop((here.run.id, here.cycle), None)
    else:
        selections[here.run.id, here.cycle] = tuple(sorted(int(row) for row in rows))
    forget_drawn()


def forget_drawn() -> None:
    """Take boxes and lassos off the figures: what they said has been done."""
    st.session_state["drawn"] = turn() + 1


def turn() -> int:
    """Part of a selectable figure's key: it changes whenever what was drawn on figures is done with."""
    return int(st.session_state.get("drawn", 0))
