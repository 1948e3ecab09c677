"""Pool: near duplicates, outliers, odd sizes and doubtful classes, each a selection for the gallery."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from core.analysis import measures, pool
from core.analysis.pool import Pool
from core.analysis.samples import Filter
from data.words import count
from pages.ui import filters, frame, layers, tiles, widgets

Ints = NDArray[np.int64]
SHOWN, SIDE = 16, 88  # images of a section, pixels
METRIC = 171  # pixels: two side by side on a phone


def show(here: frame.Here) -> None:
    """The numbers, then each finding with its images."""
    found = looked(here, here.key)
    duplicates, outliers, contradicting = found.duplicates, found.outliers, found.contradicting()
    with st.container(horizontal=True):
        st.metric("Images", f"{len(found.group):,}", border=True, width=METRIC)
        st.metric("Near duplicates", f"{len(duplicates):,}", border=True, width=METRIC)
        st.metric("Outliers", f"{len(outliers):,}", border=True, width=METRIC)
        if found.doubtful is not None:
            st.metric("Labels likely wrong", f"{found.doubtful.sum():,}", border=True, width=METRIC)
    if warned := measures.underfit(here.config, here.run.cycles().iloc[here.cycle]):
        st.warning(frame.plain(f"{warned} Until then, what follows says little."))
    st.caption(
        f"Cycle {here.cycle}, by the embedding of its model and {frame.posterior(here.config)}. Thresholds are relative to what "
        "is usual in this pool."
    )
    groups = int(found.group.max(initial=0))
    section(
        here,
        "duplicates",
        "Near duplicates",
        duplicates,
        f"{count(len(duplicates), 'image')} in {count(groups, 'group')}: closer to one another than {pool.DUPLICATE:.0%} of the "
        "usual distance to the nearest neighbour. Each costs a label: “Skip near duplicates” on New run ranks one of each group.",
    )
    if len(contradicting):
        section(
            here,
            "contradicting",
            "Near duplicates with different labels",
            contradicting,
            "At least one label of each group is wrong, or these images differ in what the embedding does not see.",
        )
    section(
        here,
        "outliers",
        "Outliers",
        outliers,
        f"More than {pool.OUTLIER:g} times as far from their ten nearest neighbours as is usual: images of something else, "
        "damaged ones, or a kind that the pool has few of. The farthest first.",
    )
    sizes(here, found)
    if found.doubtful is None:
        masks(here, found)
    else:
        classes(here, found, np.flatnonzero(found.doubtful))


@st.cache_resource(max_entries=4, show_spinner="Comparing each image with its neighbours…")
def looked(_here: frame.Here, key: tuple[str, int, int]) -> Pool:
    """The pool of a cycle."""
    return pool.of_cycle(_here.run, _here.dataset, _here.cycle)


def section(here: frame.Here, name: str, title: str, rows: Ints, text: str) -> None:
    """The first images of a finding, and the way to all of them."""
    st.subheader(title, anchor=False)
    if not len(rows):
        st.caption("None.")
        return
    st.caption(text)
    samples = widgets.cycle_samples(here, here.key)
    first = rows[:SHOWN]
    table = samples.page(Filter(rows=tuple(int(row) for row in first)), "row", True).loc[first]
    captions = [frame.plain(row.given if row.given != "—" else "no label") for row in table.itertuples()]
    st.image(tiles.pictures(here, table, SIDE), caption=captions, width=SIDE)
    to_gallery(here, name, rows)


def sizes(here: frame.Here, found: Pool) -> None:
    """Images whose files are of an odd size."""
    if found.shapes is not None:
        section(
            here,
            "sizes",
            "Odd sizes",
            found.odd,
            f"The sides are more than {pool.LARGE:g} times as long, or as short, as is usual in this pool, or their ratio is "
            f"more than {pool.LONG:g} times the usual one.",
        )
    elif len(found.group) > pool.MOST_FILES:
        st.caption(f"Sizes of files are compared in pools of at most {pool.MOST_FILES:,} images.")


def to_gallery(here: frame.Here, name: str, rows: Ints) -> None:
    """A button that selects these images and shows them."""
    if st.button(f"Show {count(len(rows), 'image')} in Gallery", key=f"pool-{name}"):
        filters.select(here, [int(row) for row in rows])
        st.switch_page("pages/gallery.py", query_params={"run": here.run.id, "cycle": str(here.cycle)})


def classes(here: frame.Here, found: Pool, doubtful: Ints) -> None:
    """How many images each class has, and how doubtful its labels are."""
    st.subheader("Classes", anchor=False)
    st.caption(
        "A label is likely wrong where the model is at least as sure of another class as it is, on average, of the images that "
        "are labelled so (confident learning, Northcutt et al. 2021). Predictions of a model that has learnt these labels hide "
        "wrong ones."
    )
    table = found.classes
    st.dataframe(
        table,
        hide_index=True,
        height="auto" if len(table) < 12 else 420,
        column_config={
            "class": "Class",
            "images": st.column_config.NumberColumn("Images", format="localized"),
            "share": st.column_config.NumberColumn("Share", format="percent"),
            "doubtful": st.column_config.NumberColumn("Likely wrong", format="localized"),
            "doubtful_share": st.column_config.NumberColumn("of the class", format="percent"),
            "mistaken_for": "Mostly look like",
            "self_confidence": st.column_config.NumberColumn("Mean p[label]", format="%.2f"),
        },
        placeholder="—",
    )
    with st.container(horizontal=True):
        if len(doubtful):
            to_gallery(here, "doubtful", doubtful)
        widgets.table_export(lambda: table, len(table), f"{here.run.id}-classes")
        widgets.table_export(lambda: per_image(found), len(found.group), f"{here.run.id}-pool", "Export all images")


def masks(here: frame.Here, found: Pool) -> None:
    """How many images and pixels each class has, of the masks and of the predictions."""
    st.subheader("Classes", anchor=False)
    known = found.classes["iou"].notna().any()
    st.caption(
        "Masks: those that stand in this cycle, and the share of their known pixels that a class has. Predicted: the same of all "
        "images of the pool."
        + (" IoU: of the predictions for the whole pool with the reference, which no strategy sees." if known else "")
    )
    swatches = layers.swatches(len(found.classes))
    st.dataframe(
        found.classes.assign(colour=swatches)[["colour", *found.classes.columns[: None if known else -1]]],
        hide_index=True,
        height="content" if len(found.classes) < 25 else 420,
        column_config={
            "colour": st.column_config.ImageColumn("", width=28),
            "class": "Class",
            "images": st.column_config.NumberColumn("Masks with it", format="localized"),
            "share": st.column_config.NumberColumn("Labelled pixels", format="percent"),
            "predicted_images": st.column_config.NumberColumn("Predicted in", format="localized", help="Images"),
            "predicted_share": st.column_config.NumberColumn("Predicted pixels", format="percent"),
            "iou": st.column_config.NumberColumn("IoU", format="%.3f"),
        },
        placeholder="—",
    )
    with st.container(horizontal=True):
        widgets.table_export(lambda: found.classes, len(found.classes), f"{here.run.id}-classes")
        widgets.table_export(lambda: per_image(found), len(found.group), f"{here.run.id}-pool", "Export all images")


def per_image(found: Pool) -> pd.DataFrame:
    """One row per image: sample_id, near_duplicate_group (0: none), outlier_score, likely_wrong but of masks; width, height of a
    file."""
    columns: dict[str, NDArray[Any]] = {"near_duplicate_group": found.group, "outlier_score": found.outlier}
    if found.doubtful is not None:
        columns["likely_wrong"] = found.doubtful
    if found.shapes is not None:
        columns |= {"width": found.shapes[:, 1], "height": found.shapes[:, 0]}
    return pd.DataFrame({"sample_id": found.sample_ids, **columns})


if (place := frame.here("Pool")) is not None:
    with frame.errors():
        show(place)
