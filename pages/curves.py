"""Curves: what the budget bought, between the random order and the oracle."""

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.elements.lib.column_types import ColumnConfig

from core.analysis import bounds, budget, curves, figures, labelling, peers, removal
from core.runs import removal as removals
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
        "Target: " + (f"test {here.run.answer.measure} (%)" if learning else "correct labels (%)"),
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
                f"Test {here.run.answer.measure}" if learning else "Correct labels",
                format="percent",
                help="At the budget.",
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


def _change(title: str, help: str | None = None) -> ColumnConfig:
    return st.column_config.NumberColumn(title, format="%+.4f", help=help)


PLACE: widgets.Columns = {
    "run": "Run",
    "seed": "Seed",
    "cycle": "Cycle",
    "n_labels": st.column_config.NumberColumn("Labels", format="localized"),
}
CHANGES: widgets.Columns = {
    **PLACE,
    "choice": "Removed",
    "n_removed": st.column_config.NumberColumn("Labels removed", format="localized"),
    "predicted": _change("Predicted", "Nats, by Eq. 2: the mean of the training loss divides by n."),
    "predicted_rest": _change("Predicted, rest", "Nats: the mean divides by the labels that are left."),
    "realised": _change("Realised", "Nats, mean over trainings; above 0 the removed labels helped."),
    "low": _change("from"),
    "high": _change("to", "95 % t-interval."),
    "sd": st.column_config.NumberColumn("s.d.", format="%.4f"),
    "detectable": st.column_config.NumberColumn("Detectable", format="%.4f", help="Nats."),
    "trainings": "Trainings",
    "runs": "Runs",
    "seeds": "Seeds",
}
DAMPINGS: widgets.Columns = {
    **PLACE,
    "damping": st.column_config.NumberColumn("Damping", format="%g"),
    "own": st.column_config.NumberColumn("Run's damping", format="%g"),
    "signed": st.column_config.NumberColumn("ρ, Eq. 2", format="%.3f", help="Spearman's correlation, signed."),
    "absolute": st.column_config.NumberColumn("ρ, Eq. 3", format="%.3f", help="Of the absolute values."),
    "k": "k",
    "signed_top": st.column_config.NumberColumn("Same top, Eq. 2", help="Of k labels."),
    "absolute_top": st.column_config.NumberColumn("Same top, Eq. 3", help="Of k labels."),
    "chance": st.column_config.NumberColumn("By chance", format="%.1f"),
    "iterations": st.column_config.NumberColumn("CG iterations", format="localized"),
    "residual": st.column_config.NumberColumn("CG residual", format="%.1e"),
    "failed": "Not known, because",
}


def influence(here: frame.Here, chosen: list[str]) -> None:
    """The ladder of bounds, and Table 2 of Wang et al. 2022, per cycle; and whether the influence comes true."""
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
    if len(table):
        table_2(here, table)
    removed(here, chosen)


def table_2(here: frame.Here, table: pd.DataFrame) -> None:
    """Table 2 of Wang et al. 2022 per cycle, with its controls."""
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


def removed(here: frame.Here, chosen: list[str]) -> None:
    """What removing labels did to the held-out loss, against what influence predicted."""
    st.subheader("Is the prediction true?")
    near = [run for run in peers.same_experiment(here.run) if run.id in chosen]
    found = removal.studies([here.run, *near])
    if all(run.id != here.run.id for run, _ in found):
        whose = "a run of your own" if here.run.is_example else "this run"
        st.caption(f"Not measured. This removes labels of the last cycle of {whose}, retrains and compares:")
        st.code(removals.command(here.run), language=None)
        return
    st.caption(frame.plain(removal.DEFINITIONS["removal"]))
    widgets.figure(removal.figure(found), f"{here.run.id}-removal")
    changes = removal.table(found)
    st.dataframe(changes, hide_index=True, placeholder="—", column_config=CHANGES)
    widgets.table_export(lambda: changes, len(changes), f"{here.run.id}-removal")
    if len(found) > 1:
        over = removal.pooled(found)
        st.caption(f"Over the runs. {frame.plain(removal.DEFINITIONS['removal-pooled'])}")
        st.dataframe(over, hide_index=True, placeholder="—", column_config=CHANGES)
        widgets.table_export(lambda: over, len(over), f"{here.run.id}-removal-pooled")
    dampings = removal.dampings(found)
    if len(dampings):
        st.subheader("Do the ranks depend on the damping?")
        st.caption(frame.plain(removal.DEFINITIONS["dampings"]))
        st.dataframe(dampings, hide_index=True, placeholder="—", column_config=DAMPINGS)
        widgets.table_export(lambda: dampings, len(dampings), f"{here.run.id}-dampings")


def unknown(here: frame.Here) -> None:
    """What can be said where nothing can be simulated: what was spent, and on what."""
    if here.config.parent is not None and here.config.annotator != "person":
        st.info(
            f"This is a branch: its first ranking is that of {frame.plain(here.config.parent)}. Plan its budget there."
        )
        return
    if not here.run.answer.tabular:
        of, so_far = budget.unit(here.run), budget.progress(here.run, here.cycle)[0]
        st.info(
            "What more labels would correct is simulated only where the label of an image is one class. So far "
            f"**{so_far:,} {of.one}s** were {of.done}. "
            + labelling.untrained_text(here.run, here.cycle, "not counted here")
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
    influenced = bounds.measured(here.run.cycles()) or removals.there(here.run)
    kind = st.segmented_control(
        "Curves",
        [one for one in KINDS if {"policies": simulable, "influence": influenced}.get(one, True)],
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
        return influence(here, chosen)
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
            f"AUC: mean test {here.run.answer.measure} over the labelled images, by trapezoids. Compare runs over the same "
            "budget only."
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
