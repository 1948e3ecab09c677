"""Curves: what the budget bought, between the random order and the oracle."""

import streamlit as st

from core import run as runs
from core import views
from pages.ui import frame, widgets


def show(here: frame.Here) -> None:
    """The curve, its areas, and the runs to set beside it."""
    comparable = views.comparable(here.run)
    default = [run.id for run in views.same_experiment(here.run)]
    chosen = st.multiselect(
        "Beside it",
        [run.id for run in comparable],
        default=[one for one in default if one in {r.id for r in comparable}],
        format_func=lambda one: frame.describe(runs.find(one)),
        placeholder="Other runs on the same data",
        key=f"beside-{here.run.id}",
        help="Runs of the same task on the same data. Those that differ in their seed alone are averaged.",
    )
    widgets.figure(widgets.run_figure(here, here.key, "curves", tuple(chosen)), f"{here.run.id}-curves")
    table = widgets.areas(here, here.key, tuple(chosen)).dropna(axis=1, how="all")
    st.subheader("Area under the curve")
    if here.config.task == "label-cleaning":
        st.caption(
            "AUC: mean share of right majority labels over the collected labels. Normalised: 0 is the random order, 1 the oracle "
            "on the same initial labels. Minimal: the straight line that corrects one sample with every two labels."
        )
    else:
        st.caption(
            "AUC: mean test accuracy over the labelled images, by trapezoids. Compare runs over the same budget only."
        )
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "run": "Run",
            "method": "Method",
            "seed": "Seed",
            "n_labels": st.column_config.NumberColumn("Labels", format="localized"),
            "auc": st.column_config.NumberColumn("AUC", format="%.4f"),
            "auc_normalised": st.column_config.NumberColumn("Normalised", format="%.3f"),
            "last": st.column_config.NumberColumn("At the end", format="percent"),
        },
    )
    widgets.table_export(lambda: table, len(table), f"{here.run.id}-auc")


if (place := frame.here("Curves")) is not None:
    with frame.errors():
        show(place)
