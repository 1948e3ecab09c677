"""The three doors of the page Home, and the place to bring a bundle in."""

import streamlit as st

from core.files import bundle
from core.runs import run as runs
from core.runs import spec, study
from pages.ui import frame


def show() -> None:
    """What to do first: look, start, or reproduce."""
    look, start, reproduce = st.columns(3)
    with look.container(border=True, height="stretch"):
        st.subheader("Look at the example", anchor=False)
        _look()
    with start.container(border=True, height="stretch"):
        st.subheader("Start on your own images", anchor=False)
        st.markdown(
            "A folder of images, with labels or without. The model ranks them; you or others label in the browser, or in Label "
            "Studio, and each cycle learns from it."
        )
        st.page_link("pages/new.py", label="Start a run →")
    with reproduce.container(border=True, height="stretch"):
        st.subheader("Reproduce the papers", anchor=False)
        _reproduce()


def _look() -> None:
    examples = {run.config.task: run for run in reversed(runs.examples())}
    if not examples:
        st.markdown("The example runs are not here: `make example` makes them, in a few minutes.")
        return
    n = next(iter(examples.values())).about["n_samples"]
    st.markdown(
        f"Finished runs on {n:,} embedded images of clothes: every page shows them, and nothing has to be computed."
    )
    if (one := examples.get(spec.LEARNING)) is not None:
        st.page_link("pages/rankings.py", label=f"{one.config.question.asks} →", query_params={"run": one.id})
    if (one := examples.get(spec.CLEANING)) is not None:
        st.page_link("pages/gallery.py", label=f"{one.config.question.asks} →", query_params={"run": one.id})
    st.page_link("pages/learn.py", label="How it works, in seven steps →")


def _reproduce() -> None:
    st.markdown("Protocols with the papers' data and budgets, each in as many runs as strategies and seeds:")
    lines = []
    for name in study.protocols():
        protocol = study.read(name)
        lines.append(f"- **{name}**: {frame.plain(protocol.reproduces)}. One run: {frame.plain(protocol.takes)}.")
    st.caption("\n".join(lines))
    st.page_link("pages/compare.py", label="Choose one on Compare →")


def open_bundle() -> None:
    """A place for the bundle of a run; one that is opened is shown at once."""
    with st.expander("Open a bundle"):
        turn = st.session_state.setdefault("bundle-turn", 0)  # another key is another, empty uploader
        file = st.file_uploader("A whole run as one file, as the page Cycles makes it", ["zip"], key=f"bundle-{turn}")
        if file is None:
            return
        with frame.errors():
            with st.spinner("Checking the bundle…"):
                opened = bundle.opened(file)
            st.session_state["bundle-turn"] = turn + 1
            st.switch_page("pages/cycles.py", query_params={"run": opened.id})
