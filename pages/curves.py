"""Curves: what the budget bought, between the random order and the oracle."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.analysis import bounds, budget, curves, figures, labelling, peers
from core.runs import run as runs
from pages.ui import attribution, frame, widgets

KINDS = {
    "curves": "As the runs went",
    "policies": "By their first rankings (Figure 3)",
    "budget": "What a budget buys",
    "influence": "Influence and its bounds",
}


def policies(here: frame.Here, chosen: list[str]) -> None:
    """Figure 3: what the first rankings would buy, over several draws of annotations."""
    band = st.radio(
        "Band",
        list(figures.BANDS),
        format_func=lambda one: figures.BANDS[one],
        horizontal=True,
        key=f"band-{here.run.id}",
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


def bought(here: frame.Here, chosen: list[str]) -> None:
    """A budget and a target, what each policy makes of them, and what that costs."""
    learning = not here.config.question.checks
    found = widgets.budget_curves(here, here.key, tuple(chosen))
    if found.empty:
        return unknown(here)
    low, high = int(found["n_labels"].min()), int(found["n_labels"].max())
    if low == high:
        st.info("There is one cycle, and no line through one point: step, then come back.")
        return
    at = st.slider(
        "Budget (labelled images)" if learning else "Budget (collected labels)",
        low,
        high,
        (low + high) // 2,
        key="budget",
        bind="query-params",
    )
    columns = st.columns(3)
    target = columns[0].number_input(
        "Target: " + ("test accuracy (%)" if learning else "correct labels (%)"),
        1.0,
        100.0,
        95.0,
        0.5,
        key="target",
        bind="query-params",
    )
    price, unit = priced(*columns[1:])
    widgets.figure(widgets.budget_figure(here, here.key, tuple(chosen), at, target / 100), f"{here.run.id}-budget")
    table = budget.plan(found, at, target / 100, None if learning else len(here.dataset))
    st.markdown(f"**{at:,} labels**" + (f" cost **{frame.plain(budget.money(at * price, unit))}**" if price else ""))
    if text := labelling.untrained_text(here.run, here.n_cycles - 1, "not counted here"):
        st.caption(text)
    st.dataframe(
        budget.priced(table, price, unit, learning),
        hide_index=True,
        column_config={
            "policy": "Policy",
            "value": st.column_config.NumberColumn(
                "Test accuracy" if learning else "Correct labels", format="percent", help="At the budget."
            ),
            "per_correction": st.column_config.NumberColumn(
                "Labels per correction", format="%.2f", help="The budget divided by the correct labels that it gained."
            ),
            "cost_per_correction": "Cost per correction",
            "for_target": st.column_config.TextColumn(f"Labels for {target:g} %"),
            "cost_for_target": st.column_config.TextColumn(f"Cost for {target:g} %"),
            "saved": st.column_config.TextColumn(
                "Saved labels",
                help="Labels that the random order needs for the same, minus the budget. Negative: it needs fewer.",
            ),
            "cost_saved": "Saved",
        },
    )
    widgets.table_export(lambda: table, len(table), f"{here.run.id}-budget")
    if learning and budget.BASELINE not in set(found["policy"]):
        st.caption("For what is saved, choose a run of the strategy random to compare with.")


def priced(left: DeltaGenerator, right: DeltaGenerator) -> tuple[float, str]:
    """The fields for what a label costs, and their values. The address keeps them for every page, so that they are not bound."""
    price, unit = frame.price()
    st.session_state["price"], st.session_state["unit"] = price, unit  # the URL is the truth, the widgets show it

    def wrote() -> None:
        for name in frame.PRICE:
            st.query_params[name] = str(st.session_state[name])

    left.number_input(
        "Price of a label", 0.0, frame.MOST, step=0.05, key="price", on_change=wrote, help="0: count in labels."
    )
    right.selectbox("in", budget.UNITS, key="unit", on_change=wrote)
    return price, unit


def influence(here: frame.Here) -> None:
    """The ladder of bounds, and Table 2 of Wang et al. 2022, per cycle."""
    st.caption(
        "What labelling an image does to the loss on held-out images, to first order (Target), and what gradient-norm strategies "
        "replace it by: its absolute value (Approx-1), the product of two norms (Approx-2, a bound of it), and the same by the "
        "model that ranked the image, before it was learnt (Approx-3, which stands for it and is no bound)."
    )
    ladder, table = widgets.ladder(here, here.key)
    if len(ladder):
        widgets.figure(bounds.figure(here.run, ladder), f"{here.run.id}-influence")
    for row in table[table["failed"] != ""].itertuples():
        st.warning(f"Candidates of cycle {row.cycle}: {frame.plain(row.failed)}")
    st.subheader("Do bound and influence choose the same images?")
    st.caption(f"{frame.plain(bounds.DEFINITION)} {frame.plain(bounds.paper())}")
    st.dataframe(
        bounds.shares(table),
        hide_index=True,
        placeholder="—",
        column_config={
            "cycle": st.column_config.NumberColumn("Cycle", help="The cycle that ranked the candidates."),
            "n_labels": st.column_config.NumberColumn("Labels", format="localized"),
            "k": st.column_config.NumberColumn("K", format="localized"),
            "candidates": st.column_config.NumberColumn("Candidates", format="localized"),
            "eq3_eq5": st.column_config.NumberColumn("Eq. 3 and 5", format="percent", help="Table 2 of the paper."),
            "eq2_eq5": st.column_config.NumberColumn("Signed Eq. 2 and 5", format="percent"),
            "chance": st.column_config.NumberColumn("By chance", format="percent"),
            "eq2_eq3": st.column_config.NumberColumn("Signed Eq. 2 and 3", format="percent"),
            "step_3_4": st.column_config.NumberColumn(
                "Eq. 3 / Eq. 4", format="%.3f", help="Median over the candidates; 1 would be a tight bound."
            ),
            "step_4_5": st.column_config.NumberColumn(
                "Eq. 4 / Eq. 5", format="%.3f", help="Median over the candidates; above 1 it is no bound."
            ),
            "positive": st.column_config.NumberColumn(
                "Helpful", format="percent", help="Share of the candidates whose influence is above 0."
            ),
            "residual": st.column_config.NumberColumn(
                "CG residual", format="%.1e", help="Relative residual of the conjugate gradients."
            ),
            "iterations": st.column_config.NumberColumn("CG iterations", format="localized"),
        },
    )
    widgets.table_export(lambda: table, len(table), f"{here.run.id}-influence")
    attribution.examples(here)


def unknown(here: frame.Here) -> None:
    """What can be said where no ground truth is available: what was spent, and on what."""
    if here.config.parent is not None and here.config.annotator != "person":
        st.info(
            f"This is a branch: its first ranking is that of {frame.plain(here.config.parent)}. Plan its budget there."
        )
        return
    collected, changed = budget.spent(here.run, here.dataset, here.cycle)
    st.info(
        "No ground truth is available for these images, so it cannot be said what more labels would correct. So far "
        f"**{collected:,} labels** were collected, and they changed the labels of **{changed:,} images**. "
        + labelling.untrained_text(here.run, here.cycle, "not counted here")
    )
    price, unit = priced(*st.columns(2))
    if price and changed:
        spent, each = (frame.plain(budget.money(labels * price, unit)) for labels in (collected, collected / changed))
        st.markdown(f"**{spent}** in all, {each} for each changed label")


def show(here: frame.Here) -> None:
    """The curve, its areas, and the runs to compare it with."""
    comparable = peers.comparable(here.run)
    near = peers.of_study(here.run) if here.config.question.checks else peers.same_experiment(here.run)
    default = [run.id for run in near]
    chosen = st.multiselect(
        "Compare with",
        [run.id for run in comparable],
        default=[one for one in default if one in {r.id for r in comparable}],
        format_func=lambda one: frame.describe(runs.find(one)),
        placeholder="Other runs on the same data",
        key=f"beside-{here.run.id}",
        help="Runs of the same task on the same data and noise. Runs that differ only in their seed are averaged.",
    )
    simulable = here.config.question.checks and curves.simulable(here.run, here.dataset)
    kind = st.segmented_control(
        "Curves",
        [
            one
            for one in KINDS
            if {"policies": simulable, "influence": bounds.measured(here.run.cycles())}.get(one, True)
        ],
        default="policies" if simulable and here.config.static else "curves",
        required=True,
        format_func=lambda one: KINDS[one],
        key="kind",
        bind="query-params",
    )
    if kind == "policies":
        return policies(here, chosen)
    if kind == "budget":
        return bought(here, chosen)
    if kind == "influence":
        return influence(here)
    widgets.figure(widgets.run_figure(here, here.key, "curves", tuple(chosen)), f"{here.run.id}-curves")
    table = widgets.areas(here, here.key, tuple(chosen)).dropna(axis=1, how="all")
    if "auc" not in table:  # without ground truth there is no curve to measure
        return
    st.subheader("Area under the curve")
    if here.config.question.checks:
        st.caption(
            "AUC: mean share of correct majority labels over the collected labels. Normalised: 0 is the random order, 1 the "
            "oracle on the same initial labels. Minimal: the straight line that corrects one sample with every two labels."
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
