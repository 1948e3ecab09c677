"""Home: what the product is, three doors, recent runs; and what `streamlit run app.py` serves.

The server imports this file for its `app`; Streamlit runs it as a script for every visit of Home.
"""

import gc
from urllib.parse import quote

import pandas as pd
import streamlit as st
from starlette.middleware import Middleware

from core.runs import run as runs
from data.errors import UserError
from pages.ui import doors, frame
from pages.ui.gate import Gate


def home() -> None:
    """The page."""
    frame.setup("Home")
    frame.sidebar()
    st.title("NextLabel")
    st.markdown(
        "NextLabel decides **which image to label next** (active learning by gradient norm, Wang et al. 2022) and **which label "
        "to check next** (active label cleaning, Bernhardt et al. 2022). It trains a model, ranks every image, collects labels, "
        "and shows after each cycle what your budget bought."
    )
    doors.show()
    st.subheader("Recent runs")
    recent()
    doors.open_bundle()


def standing(run: runs.Run, state: str) -> str:
    """Where a run stands, for the table. state: the first of its status."""
    if run.is_example:
        return "example"
    if death := run.live().death:
        return f"✕ {death}"
    return frame.WAITS if run.waits_for_labels(state) else frame.STATES[state]


def recent() -> None:
    """The newest runs."""
    rows = []
    try:
        newest = runs.all_runs()[:20]
    except UserError:
        return  # the sidebar says why
    for run in newest:
        try:
            config, (state, _), cycles = run.config, run.status(), run.cycles()
        except UserError:
            continue  # the sidebar names it
        last = cycles.iloc[-1] if len(cycles) else pd.Series(dtype=float)
        rows.append(
            {
                "open": f"/cycles?run={quote(run.id)}",
                "task": config.question.short,
                "data": config.dataset,
                "method": config.arm,
                "seed": config.seed,
                "state": standing(run, state),
                "cycles": f"{len(cycles)} of {run.target()}",
                "labels": last.get("n_labels"),
                "correct labels": last.get("correctness"),
                "test accuracy": last.get("accuracy"),
                "test mean IoU": last.get("miou"),
                "run": run.id,
            }
        )
    if not rows:
        st.caption("None yet.")
        return
    percent = st.column_config.NumberColumn(format="percent")
    table = pd.DataFrame(rows)
    table = table.drop(columns=[name for name in ("test accuracy", "test mean IoU") if table[name].isna().all()])
    st.dataframe(
        table,
        hide_index=True,
        placeholder="—",
        column_config={
            "open": st.column_config.LinkColumn("", display_text="open", width="small"),
            "correct labels": percent,
            "test accuracy": percent,
            "test mean IoU": percent,
            "labels": st.column_config.NumberColumn(format="localized"),
        },
    )


if __name__ == "__main__":
    home()
else:
    app = st.App(__file__, middleware=[Middleware(Gate)])
    # Streamlit collects garbage after every rerun; the libraries, which stay, would take most of a tenth of a second each time
    gc.collect()
    gc.freeze()
