"""What the label of one image does to the held-out test images: whom it helps and harms, and through which layers."""

import pandas as pd
import streamlit as st

from core.analysis import measures
from core.plots import bars
from core.runs import attribution, jobs
from core.runs import run as runs
from core.runs.attribution import Attribution, Effect
from data.errors import UserError
from data.files import preview
from data.words import count
from pages.ui import filters, widgets
from pages.ui.frame import Here, errors, plain, sentence

SIDE = 80  # pixels of a thumbnail: four in a row of the card, three on a phone


def card(here: Here, row: pd.Series) -> None:
    """The influence of an image: as it was computed, else a button that computes it, or why it cannot be.

    `row` is a line of `core.analysis.samples.Samples`, its name the pool row.
    """
    position, sample_id = int(row.name), row["sample_id"]
    with st.container(border=True):
        left, right = st.columns([1, 3], vertical_alignment="center")
        left.image(preview.png(preview.shown(here.dataset, position, here.config.root, 2 * SIDE), SIDE), width=SIDE)
        right.markdown("**Influence on the test images**")
        found = attribution.read(here.run, here.cycle, position, sample_id)
        if found is None:
            _compute(here, position, sample_id)
        else:
            _show(here, found, f"{here.run.id}-cycle{here.cycle}-influence{position}")


def _show(here: Here, found: Attribution, name: str) -> None:
    names = here.dataset.class_names
    st.markdown(f"Reference label **{plain(names[found.label])}**: {plain(attribution.sentence(found))}")
    _images(here, "It helps most", "blue", found.helps)
    _images(here, "It harms most", "orange", found.harms)
    st.caption(
        "In nats: how much lower the loss of a test image is for this label. Reference label → what the model says, where it "
        "differs."
    )
    st.markdown("**By layer**")
    note = (
        f"{found.sample_id}, cycle {here.cycle}, {found.n_labels:,} labels; ⟨∇L(x), H⁻¹ Σ ∇L(x_j)⟩ / n by module, which add up "
        f"to the influence; damping {found.damping:g}, relative residual {found.residual:.1g} after {found.iterations:,} "
        "iterations"
    )
    widgets.figure(bars.layers(found.by_layer, measures.note(here.run, note)), name)
    effects = len(found.helps) + len(found.harms)
    widgets.table_export(lambda: attribution.effect_table([found], names), effects, name)


def _images(here: Here, title: str, colour: str, effects: tuple[Effect, ...]) -> None:
    """Test images side by side, each with the effect on it."""
    st.markdown(f"**{title}**" if effects else f"**{title}:** none")
    names, captions = here.dataset.class_names, []
    for one in effects:
        label, suggested = (plain(names[each]) for each in (one.label, one.suggested))
        said = label if one.label == one.suggested else f"{label} → {suggested}"
        captions.append(f":{colour}[**{_signed(one.influence)}**] {said} {one.confidence:.0%}")
    images = [preview.png(preview.test_image(here.dataset, one.row, 2 * SIDE), SIDE) for one in effects]
    if images:
        st.image(images, caption=captions, width=SIDE)


def _signed(nats: float) -> str:
    """A number of nats, with its sign as print has it."""
    return f"{nats:+.2g}".replace("-", "−")


def _compute(here: Here, position: int, sample_id: str) -> None:
    """A button that computes it, or why it cannot be computed; where a worker is at it, how far it is."""
    now = attribution.worker(here.run)
    if now.running or now.is_starting:
        _watch(here.run.id, sample_id)
        return
    try:
        attribution.check(here.run, here.dataset, here.cycle, position)
    except UserError as error:
        st.info(plain(sentence(str(error))))
    else:
        if (failed := now.error or now.death) and (now.cycle, now.sample) == (here.cycle, sample_id):
            st.error(plain(sentence(failed)))
        st.caption(
            "Which held-out test images its reference label helps and harms most, and through which layers, to first order. It "
            "takes some hundred passes over the labelled images."
        )
        if st.button("Compute", key=f"influence-{here.run.id}-{here.cycle}-{position}"):
            with errors():
                jobs.start_influence(here.run, here.cycle, sample_id)
                st.rerun()
    examples(here)


def examples(here: Here) -> None:
    """A button that opens the images of the cycle whose influence is there in the gallery; nothing where there are none."""
    there = attribution.kept(here.run, here.dataset, here.cycle)
    label = f"See the influence of {count(len(there), 'image')}"
    if there and st.button(label, key="influence-there", help="Those of this cycle for which it is computed"):
        filters.select(here, list(there))
        first = max(there.values(), key=lambda one: one.influence)
        st.session_state.setdefault("gallery-picked", {})[here.run.id] = first.sample_id
        st.switch_page("pages/gallery.py", query_params={"run": here.run.id, "cycle": str(here.cycle)})


@st.fragment(run_every=1.0)
def _watch(run_id: str, sample_id: str) -> None:
    """Progress of the worker; redraws the page when it has finished."""
    with errors():
        now = attribution.worker(runs.find(run_id))
        if not (now.running or now.is_starting):
            st.rerun()
        if not now.phase:
            st.progress(0.0, text="Starting the worker…")
            return
        whose = "" if now.sample == sample_id else f" of {plain(now.sample)}"
        st.progress(min(1.0, now.share), text=f"Computing the influence{whose}…")
