"""Curves: what the budget bought, between the random order and the oracle."""

import streamlit as st

from core import run as runs
from core import views
from pages.ui import frame, widgets

KINDS = {
    "curves": "As the runs went",
    "policies": "By their first rankings (Figure 3)",
}


def policies(here: frame.Here, chosen: list[str]) -> None:
    """Figure 3: what the first rankings would buy, over several sets of votes."""
    band = st.radio(
        "Band", list(views.BANDS), format_func=lambda one: views.BANDS[one], horizontal=True, key=f"band-{here.run.id}"
    )
    st.caption(
        "Each run's first ranking, relabelled by Algorithm 1 in simulation on the same initial labels: between the oracle, which "
        "knows the true label distributions, and a random order."
    )
    widgets.figure(
        widgets.run_figure(here, here.key, "policies", tuple(chosen), band), f"{here.run.id}-policies-{band}"
    )
    table = widgets.policy_statistics(here, here.key, tuple(chosen))
    st.subheader("At the end of the budget")
    st.dataframe(table, hide_index=True, column_config=widgets.POLICY_COLUMNS)
    widgets.table_export(lambda: table, len(table), f"{here.run.id}-policies")


def show(here: frame.Here) -> None:
    """The curve, its areas, and the runs to set beside it."""
    comparable = views.comparable(here.run)
    near = views.of_study(here.run) if here.config.task == "label-cleaning" else views.same_experiment(here.run)
    default = [run.id for run in near]
    chosen = st.multiselect(
        "Beside it",
        [run.id for run in comparable],
        default=[one for one in default if one in {r.id for r in comparable}],
        format_func=lambda one: frame.describe(runs.find(one)),
        placeholder="Other runs on the same data",
        key=f"beside-{here.run.id}",
        help="Runs of the same task on the same data. Those that differ in their seed alone are averaged.",
    )
    if here.config.task == "label-cleaning" and views.simulable(here.run, here.dataset):
        kind = st.segmented_control(
            "Curves",
            list(KINDS),
            default="policies" if here.config.static else "curves",
            required=True,
            format_func=KINDS.get,
            key=f"kind-{here.run.id}",
        )
        if kind == "policies":
            return policies(here, chosen)
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
