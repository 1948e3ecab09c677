"""Figures and tables with their exports, and the card of one image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from core import methods
from core.analysis import bounds, budget, curves, figures, measures, rankings, samples
from core.analysis.samples import Outline, Samples, history, neighbours, of_cycle
from core.files import bundle, export, printed
from core.files.printed import Layout
from core.plots import learn
from core.relabel import Labels
from core.runs import jobs
from core.runs.run import Run, find
from data.files import preview
from pages.ui import filters, layers
from pages.ui.frame import Here, errors, plain

Columns = dict[str, ColumnConfig | str | None]  # of a table: how each is shown, by a name alone, or not at all

# Caches of this module hold resources, not data: they hand out the object itself, where a copy of 50,000 rows a rerun would
# cost most of it. Pages read them and never write into them.


def figure(drawn: go.Figure, name: str, *, selectable: bool = False) -> list[Any]:
    """A figure with its export; returns the customdata of the points selected in it, such as pool rows, if `selectable`."""
    config, picked = {"displaylogo": False}, list[Any]()
    if selectable:
        event = st.plotly_chart(
            drawn,
            key=f"figure-{name}-{filters.turn()}",
            theme="streamlit",
            config=config,
            on_select="rerun",
            selection_mode=("points", "box", "lasso"),
        )
        picked = [point["customdata"] for point in event["selection"]["points"]]
    else:
        st.plotly_chart(drawn, key=f"figure-{name}", theme="streamlit", config=config)
    with st.popover("Export figure"):
        browser, layout = has_browser(), _layout(name)
        for file_format, mime in printed.FIGURE_FORMATS.items():
            st.download_button(
                file_format.upper() if file_format != "html" else "Interactive HTML",
                partial(printed.figure_bytes, drawn, file_format, layout),
                f"{name}.{file_format}",
                mime,
                key=f"export-{name}-{file_format}",
                on_click="ignore",
                width="stretch",
                disabled=not browser and file_format != "html",
            )
        if not browser:
            st.caption(
                "PNG, SVG and PDF are drawn by Chrome or Chromium, and none was found: install one (on Debian and "
                "Ubuntu: `apt install chromium`), then restart. HTML needs none."
            )
    return picked


SIZES = {"screen": "Screen"} | {
    name: f"{text}, {printed.COLUMNS[name]:g} mm" for name, text in {"single": "Column", "double": "Page"}.items()
}


def _layout(name: str) -> Layout | None:
    """How large the export of a figure is to be: as on the screen, or as a journal prints it."""
    size = st.segmented_control(
        "Size",
        list(SIZES),
        format_func=lambda one: SIZES[one],
        default="screen",
        required=True,
        key=f"size-{name}",
        help="For print, text and legend are laid out again for the width of a journal's column or page. Always on white.",
    )
    if size == "screen":
        return None
    left, right = st.columns(2)
    points = left.number_input("Text (pt)", 5.0, 14.0, 8.0, 0.5, format="%.1f", key=f"points-{name}")
    dpi = right.selectbox("PNG (dpi)", [300, 600], key=f"dpi-{name}")
    layout = Layout(printed.COLUMNS[size], points, dpi)
    st.caption(f"PNG: {layout.dots:,} pixels wide.")
    return layout


def outlines(name: str) -> list[Outline]:
    """The boxes and lassos that are drawn on a selectable figure, each by its corners."""
    drawn = st.session_state.get(f"figure-{name}-{filters.turn()}", {}).get("selection", {})
    boxes = [((box["x"][0], box["x"][1]), (box["y"][0], box["y"][1])) for box in drawn.get("box", [])]
    corners = [([left, right, right, left], [low, low, high, high]) for (left, right), (low, high) in boxes]
    return [*corners, *((list(lasso["x"]), list(lasso["y"])) for lasso in drawn.get("lasso", []))]


def brush(drawn: go.Figure, name: str) -> tuple[float, float] | None:
    """A histogram of `core.plots.maps.distribution` with its export; returns the range of the bars that a box selected."""
    ends = figure(drawn, name, selectable=True)
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


@st.cache_data(ttl=60)
def has_browser() -> bool:
    return printed.has_browser()


def table_export(load: Callable[[], pd.DataFrame], rows: int, name: str, label: str = "Export table") -> None:
    """Download buttons for a table of so many rows, which is loaded when one is clicked."""

    def content(file_format: str) -> bytes:
        return export.table_bytes(load(), file_format)

    with st.popover(label):
        for file_format, mime in export.TABLE_FORMATS.items():
            st.download_button(
                f"{file_format.upper() if file_format == 'csv' else 'Parquet'} · {rows:,} rows",
                partial(content, file_format),
                f"{name}.{file_format}",
                mime,
                key=f"export-{name}-{file_format}",
                on_click="ignore",
                width="stretch",
            )


def whole_run(here: Here) -> None:
    """A download button for the run as one file, which another installation opens."""
    run, dataset = here.run, here.dataset
    with st.popover("Whole run"):
        st.caption(
            "One file with labels, rankings and cycles. Another installation opens it on its Home page and draws every figure."
        )
        images = False
        if here.config.dataset not in bundle.EMBEDDED:
            size, most = dataset.images.nbytes + dataset.test_images.nbytes, bundle.MOST_IMAGES
            images = st.checkbox(
                f"With the images ({size / 1e6:,.0f} MB)",
                key=f"bundle-images-{run.id}",
                disabled=size > most,
                help="Without them the pages elsewhere show grey in their place, unless the data set is there."
                if size <= most
                else f"More than the {most >> 20:,} MB that a bundle holds.",
            )
        weights = st.checkbox(
            "With the models", key=f"bundle-weights-{run.id}", help="Gradient norms by layer, and influence, need them."
        )
        st.download_button(
            "Bundle",
            lambda: bundle.to_bytes(run, dataset, images=images, weights=weights),
            f"{run.id}.zip",
            "application/zip",
            key=f"bundle-{run.id}",
            on_click="ignore",
            width="stretch",
        )


@st.cache_resource(
    max_entries=64,
    show_spinner="Reading the cycle…",
    validate=lambda found: found.path.is_file(),  # it may be pruned
)
def cycle_samples(_here: Here, key: tuple[str, int, int]) -> Samples:
    """The samples of the cycle we stand at, on disk."""
    return of_cycle(_here.run, _here.dataset, _here.cycle)


@st.cache_resource(max_entries=16, show_spinner=False)
def run_figure(
    _here: Here, key: tuple[str, int, int], name: str, others: tuple[str, ...] | None = None, band: str = "sd"
) -> go.Figure:
    """A figure of the run we stand at."""
    chosen = None if others is None else [find(one) for one in others]
    return figures.figure(_here.run, _here.dataset, name, _here.cycle, chosen, band)


POLICY_COLUMNS: Columns = {
    "policy": "Policy",
    "seeds": st.column_config.NumberColumn("n", help="Simulations: training seeds × draws of annotations."),
    "n_labels": st.column_config.NumberColumn("Labels", format="localized"),
    "auc": st.column_config.NumberColumn("AUC", format="%.4f"),
    "auc_sd": st.column_config.NumberColumn("± s.d.", format="%.4f"),
    "auc_normalised": st.column_config.NumberColumn("Normalised", format="%.3f", help="0: random order, 1: oracle."),
    "correctness": st.column_config.NumberColumn("Correct labels", format="percent"),
    "clear_errors": st.column_config.NumberColumn("Clear errors left", format="%.1f"),
    "difficult_errors": st.column_config.NumberColumn("Difficult errors left", format="%.1f"),
    "total_variation": st.column_config.NumberColumn(
        "Total variation", format="%.4f", help="Mean distance between an image's labels and its true distribution."
    ),
    "labels_per_correction": st.column_config.NumberColumn("Labels per correction", format="%.2f"),
}


@st.cache_resource(max_entries=16, show_spinner="Simulating…")
def policy_statistics(_here: Here, key: tuple[str, int, int], others: tuple[str, ...]) -> pd.DataFrame:
    """Statistics of the policies of the run we stand at and others."""
    return curves.policy_statistics([_here.run, *(find(one) for one in others)], _here.dataset)


@st.cache_resource(max_entries=4, show_spinner="Simulating…")
def budget_curves(_here: Here, key: tuple[str, int, int], others: tuple[str, ...]) -> pd.DataFrame:
    """What labels buy by the run we stand at and others."""
    return budget.curves([_here.run, *(find(one) for one in others)], _here.dataset)


@st.cache_resource(max_entries=16, show_spinner=False)
def budget_figure(_here: Here, key: tuple[str, int, int], others: tuple[str, ...], at: int, target: float) -> go.Figure:
    """The curves of `budget_curves` with a budget and a target."""
    return figures.budget_figure(_here.run, budget_curves(_here, key, others), at, target)


@st.cache_resource(max_entries=16, show_spinner=False)
def disagreement(_here: Here, key: tuple[str, int, int], first: str, second: str) -> pd.DataFrame:
    """Images that two rankings place differently."""
    return rankings.disagreement(_here.run, _here.dataset, _here.cycle, first, second)


@st.cache_resource(max_entries=16, show_spinner=False)
def relabels(_here: Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """The relabels of the run up to the cycle we stand at."""
    return samples.relabels(_here.run, _here.dataset, _here.cycle)


def card(here: Here, row: pd.Series) -> None:
    """One image, large, with the reason for its place, its votes, posterior, scores, history and neighbours.

    `row` is a line of `core.analysis.samples.Samples`, its name the pool row.
    """
    position, sample_id = int(row.name), row["sample_id"]
    with st.container(border=True):
        st.markdown("**Image**")
        st.code(sample_id, language=None)
        st.image(preview.png(preview.shown(here.dataset, position, here.config.root, 448), 224), width=224)
        st.markdown(_sentence(here, row))
        if layers.offered(here):
            layers.card(here, row)
        else:
            _posterior(here, row)
        scores = [(one.title, row[name], one.meaning) for name, one in methods.scores().items() if name in row.index]
        st.dataframe(
            pd.DataFrame(scores, columns=["Score", "Value", "Meaning"]).dropna(subset="Value"),
            hide_index=True,
            column_config={"Value": st.column_config.NumberColumn(format="%.4f")},
        )
        if here.n_cycles > 1:
            _history(here, position)
        _neighbours(here, position)
        _layers(here, sample_id)


def _posterior(here: Here, row: pd.Series) -> None:
    """Probabilities and annotations of an image, class by class."""
    position = int(row.name)
    probs = np.asarray(here.run.posterior(here.cycle)[position], dtype=np.float64)
    votes = _labels(here, here.key).histogram[position]
    note = measures.note(here.run, f"{row['sample_id']}, cycle {here.cycle}; the given label in bold")
    drawn = learn.posterior_bars(here.dataset.class_names, probs, votes, int(row["label"]), note)
    figure(drawn, f"{here.run.id}-cycle{here.cycle}-image{position}")


def _history(here: Here, position: int) -> None:
    """What the cycles said of the image."""
    with st.expander("Through the cycles"):
        st.dataframe(
            history(here.run, position),
            hide_index=True,
            placeholder="—",
            column_config={
                "cycle": "Cycle",
                "rank": st.column_config.NumberColumn("Rank", format="localized"),
                "label": "Label",
                "suggested": here.run.answer.headings["suggested"].removesuffix(" label"),
                "iou": st.column_config.NumberColumn("IoU", format="%.3f"),
                "confidence": st.column_config.NumberColumn("Confidence", format="percent"),
                "status": "Status",
                "score": st.column_config.NumberColumn(
                    "Score" if here.config.earlier else methods.described(here.config.method).title, format="%.4f"
                ),
            },
        )


def _neighbours(here: Here, position: int) -> None:
    """The images that the model finds most alike, with their labels."""
    near = neighbours(here.run, here.cycle, position)
    if len(near) == 0:
        return
    labels = here.run.answer.written(_labels(here, here.key).majority[near])
    with st.expander("Nearest in the model's embedding"):
        captions = [plain(label) for label in labels]
        images = [preview.png(preview.shown(here.dataset, int(row), here.config.root, 144), 72) for row in near]
        st.image(images, caption=captions, width=72)


def _layers(here: Here, sample_id: str) -> None:
    """The gradient norm, layer by layer: computed when it is asked for, by a process that has torch."""
    with st.expander("Gradient norm by layer"):
        wanted = f"layers-{here.run.id}-{here.cycle}-{sample_id}"
        if st.session_state.get(wanted) or st.button("Compute (some seconds)", key=f"ask-{wanted}"):
            st.session_state[wanted] = True
            with errors():
                table = _layer_norms(here.run, here.run.id, here.cycle, sample_id)
                st.caption(
                    f"‖∇ H(p)‖ for each parameter tensor, their sum {table['norm'].sum():.4g} is the entropy gradient norm "
                    "(Wang et al. 2022, Eq. 7)."
                )
                columns: Columns = {
                    "parameter": "Parameter",
                    "shape": "Shape",
                    "norm": st.column_config.ProgressColumn(
                        "Norm", max_value=float(table["norm"].max()), format="%.4g"
                    ),
                }
                st.dataframe(table, hide_index=True, column_config=columns)


@st.cache_data(max_entries=64, show_spinner="One backward pass…")
def _layer_norms(_run: Run, run_id: str, cycle: int, sample_id: str) -> pd.DataFrame:
    return pd.DataFrame(jobs.explain(_run, cycle, sample_id))


@st.cache_resource(max_entries=4, show_spinner=False)
def _labels(_here: Here, key: tuple[str, int, int]) -> Labels:
    return _here.run.state(_here.dataset.ids, _here.cycle)[0]


def _sentence(here: Here, row: pd.Series) -> str:
    """Why the image stands where it stands."""
    rank = f"Rank **{int(row['rank']):,}**" if pd.notna(row["rank"]) else f"Not in the ranking ({row['status']})"
    text = f"{rank}: {plain(here.run.answer.reason(row))}."
    if row["reference"] != "—":
        whose = {"human": "human annotations", "simulated": "simulated annotations", "none": "the reference"}[
            here.dataset.annotators
        ]
        kind = f" — {row['kind']}" if row["kind"] else ""
        text += f" {here.run.answer.of_reference.format(whose)}: **{plain(row['reference'])}**{kind}."
    return text


@st.cache_resource(max_entries=16, show_spinner=False)
def score_distribution(_here: Here, key: tuple[str, int, int], score: str) -> go.Figure:
    """The histogram of any score of the cycle."""
    return figures.score_distribution(_here.run, _here.dataset, _here.cycle, score)


@st.cache_resource(max_entries=16, show_spinner=False)
def areas(_here: Here, key: tuple[str, int, int], others: tuple[str, ...]) -> pd.DataFrame:
    """Areas under the curves of the run we stand at and others."""
    return curves.areas([_here.run, *(find(one) for one in others)], _here.dataset)


@st.cache_resource(max_entries=16, show_spinner=False)
def ladder(_here: Here, key: tuple[str, int, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The bounds of the influence that the run we stand at measured, and how far they choose alike."""
    return bounds.ladder(_here.run), bounds.table(_here.run.cycles())


@st.cache_resource(max_entries=16, show_spinner=False)
def changes(_here: Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """What each cycle did and came to."""
    return curves.cycle_table(_here.run, _here.dataset)
