"""Figures and tables with their exports, thumbnails, and the card of one image."""

import base64
import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from PIL import Image

from core import export, figures, views
from core.run import find
from core.scores import REGISTRY
from pages.ui.frame import Here, plain

# Caches of this module hold resources, not data: they hand out the object itself, where a copy of 50,000 rows a rerun would
# cost most of it. Pages read them and never write into them.

MAP_KINDS = {"clear noise": "✕ clear noise", "difficult": "◆ difficult", "correct": "● correct", "": ""}


def figure(drawn: go.Figure, name: str, *, selectable: bool = False) -> list[int]:
    """A figure with its export; returns the pool rows selected in it, if `selectable`."""
    event = st.plotly_chart(
        drawn,
        key=f"figure-{name}",
        theme="streamlit",
        config={"displaylogo": False},
        **({"on_select": "rerun", "selection_mode": ("points", "box", "lasso")} if selectable else {}),
    )
    with st.popover("Export figure"):
        browser = _has_browser()
        for file_format, mime in export.FIGURE_FORMATS.items():
            st.download_button(
                file_format.upper() if file_format != "html" else "Interactive HTML",
                lambda f=file_format: export.figure_bytes(drawn, f),
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
    if not selectable:
        return []
    return [int(point["customdata"]) for point in event["selection"]["points"]]


@st.cache_data(ttl=60)
def _has_browser() -> bool:
    return export.has_browser()


def table_export(load: Callable[[], pd.DataFrame], rows: int, name: str, label: str = "Export table") -> None:
    """Download buttons for a table of so many rows, which is loaded when one is clicked."""
    with st.popover(label):
        for file_format, mime in export.TABLE_FORMATS.items():
            st.download_button(
                f"{file_format.upper() if file_format == 'csv' else 'Parquet'} · {rows:,} rows",
                lambda f=file_format: export.table_bytes(load(), f),
                f"{name}.{file_format}",
                mime,
                key=f"export-{name}-{file_format}",
                on_click="ignore",
                width="stretch",
            )


@st.cache_resource(max_entries=16, show_spinner=False)
def samples(_here: Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """The ranking of the cycle we stand at, with names."""
    return views.samples(_here.run, _here.dataset, _here.cycle)


@st.cache_resource(max_entries=16, show_spinner=False)
def run_figure(
    _here: Here, key: tuple[str, int, int], name: str, others: tuple[str, ...] | None = None, band: str = "sd"
) -> go.Figure:
    """A figure of the run we stand at."""
    chosen = None if others is None else [find(one) for one in others]
    return views.figure(_here.run, _here.dataset, name, _here.cycle, chosen, band)


POLICY_COLUMNS = {
    "policy": "Policy",
    "seeds": st.column_config.NumberColumn("n", help="Simulations: training seeds × sets of votes."),
    "n_labels": st.column_config.NumberColumn("Labels", format="localized"),
    "auc": st.column_config.NumberColumn("AUC", format="%.4f"),
    "auc_sd": st.column_config.NumberColumn("± s.d.", format="%.4f"),
    "auc_normalised": st.column_config.NumberColumn("Normalised", format="%.3f", help="0: random order, 1: oracle."),
    "correctness": st.column_config.NumberColumn("Right labels", format="percent"),
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
    return views.policy_statistics([_here.run, *(find(one) for one in others)], _here.dataset)


@st.cache_resource(max_entries=16, show_spinner=False)
def disagreement(_here: Here, key: tuple[str, int, int], first: str, second: str) -> pd.DataFrame:
    """Images that two rankings place differently."""
    return views.disagreement(_here.run, _here.dataset, _here.cycle, first, second)


@st.cache_resource(max_entries=16, show_spinner=False)
def relabels(_here: Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """The relabels of the run up to the cycle we stand at."""
    return views.relabels(_here.run, _here.dataset, _here.cycle)


def png(image: np.ndarray, side: int | None = None) -> bytes:
    """A uint8 image [H, W, C] as PNG, enlarged to at least `side` pixels without smoothing."""
    picture = Image.fromarray(np.asarray(image)[:, :, 0] if image.shape[2] == 1 else np.asarray(image))
    if side is not None and max(picture.size) < side:
        factor = side // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    """PNG bytes as a URL that needs no request."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


_GRID = st.components.v2.component(
    "nextlabel.thumbnails",
    html='<div class="grid" role="list"></div>',
    css="""
    .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--tile, 104px), 1fr)); gap: 10px;
            align-items: start; }
    button { all: unset; cursor: pointer; border: 2px solid transparent; border-radius: 6px; padding: 4px; box-sizing: border-box;
             color: var(--st-text-color); font-family: var(--st-font); min-width: 0; }
    button:hover { border-color: var(--st-border-color); }
    button:focus-visible, button[aria-pressed="true"] { border-color: var(--st-primary-color); }
    .picture { width: 100%; aspect-ratio: 1; background-repeat: no-repeat; image-rendering: pixelated; border-radius: 3px; }
    .score { font-size: 12px; font-variant-numeric: tabular-nums; margin-top: 3px; opacity: .75; }
    .label { font-size: 12px; line-height: 1.3; overflow-wrap: anywhere; overflow: hidden;
             display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; }
    .suggested { color: var(--st-primary-color); font-weight: 600; }
    """,
    js="""
    export default function({ parentElement, data, setTriggerValue }) {
      const grid = parentElement.querySelector(".grid");
      grid.style.setProperty("--tile", data.tile + "px");
      const { columns, rows } = data.sprite;
      grid.replaceChildren(...data.tiles.map((tile, i) => {
        const make = (tag, name, text) => {
          const element = document.createElement(tag);
          element.className = name;
          if (text !== undefined) element.textContent = text;   // never HTML: names come from files
          return element;
        };
        const button = make("button", "tile");
        button.title = tile.id;
        button.setAttribute("aria-label", tile.id + ", " + tile.given + (tile.suggested ? ", suggested " + tile.suggested : ""));
        button.setAttribute("aria-pressed", String(tile.id === data.selected));
        const picture = make("div", "picture");
        picture.style.backgroundImage = "url(" + data.sprite.url + ")";
        picture.style.backgroundSize = columns * 100 + "% " + rows * 100 + "%";
        const step = (k, n) => n > 1 ? 100 * k / (n - 1) + "%" : "0%";
        picture.style.backgroundPosition = step(i % columns, columns) + " " + step(Math.floor(i / columns), rows);
        const label = make("div", "label");
        label.append(make("span", "given", tile.given));
        if (tile.suggested) label.append(" → ", make("span", "suggested", tile.suggested));
        button.append(picture, make("div", "score", tile.score), label);
        if (tile.note) button.append(make("div", "score", tile.note));
        button.onclick = () => setTriggerValue("picked", tile.id);
        return button;
      }));
    }
    """,
)


def thumbnails(here: Here, table: pd.DataFrame, score: str, key: str, tile: int = 104) -> str | None:
    """A grid of images in the order of `table`, each with its score and labels; returns the id that was clicked."""
    if len(table) == 0:
        return None
    images = np.asarray(here.dataset.images[table.index.to_numpy()])
    n, height, width, channels = images.shape
    columns = min(20, n)
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    sheet[:n] = images
    sheet = (
        sheet.reshape(rows, columns, height, width, channels)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, channels)
    )
    state = f"picked-{key}"
    tiles = [
        {
            "id": row.sample_id,
            "score": "" if pd.isna(value) else f"{value:.3f}".replace("-0.000", "0.000"),
            "given": row.given if row.given != "—" else row.reference,
            "suggested": row.suggested if row.suggested != (row.given if row.given != "—" else row.reference) else "",
            "note": MAP_KINDS.get(row.kind, ""),
        }
        for row, value in zip(table.itertuples(), table[score], strict=True)
    ]
    result = _GRID(
        key=key,
        data={
            "tiles": tiles,
            "tile": tile,
            "selected": st.session_state.get(state),
            "sprite": {"url": data_url(png(sheet)), "columns": columns, "rows": rows},
        },
        on_picked_change=lambda: None,
    )
    if result.picked:
        st.session_state[state] = result.picked
    return st.session_state.get(state)


def card(here: Here, row: pd.Series) -> None:
    """One image, large, with its labels, votes, posterior and scores. `row` is a line of `samples`, its name the pool row."""
    position = int(row.name)
    state = _histograms(here, here.key)
    with st.container(border=True):
        st.markdown("**Image**")
        st.code(row["sample_id"], language=None)
        st.image(png(here.dataset.images[position], 224), width=224)
        st.markdown(_sentence(here, row))
        probs = np.asarray(here.run.posterior(here.cycle)[position], dtype=np.float64)
        votes = state[position]
        drawn = figures.posterior_bars(here.dataset.class_names, probs, votes, int(row["label"]))
        st.plotly_chart(drawn, key=f"posterior-{row['sample_id']}", theme="streamlit", config={"displayModeBar": False})
        scores = [(REGISTRY[name].title, row[name], REGISTRY[name].meaning) for name in REGISTRY if name in row.index]
        st.dataframe(
            pd.DataFrame(scores, columns=["Score", "Value", "Meaning"]),
            hide_index=True,
            column_config={"Value": st.column_config.NumberColumn(format="%.4f")},
        )


@st.cache_resource(max_entries=8, show_spinner=False)
def _histograms(_here: Here, key: tuple[str, int, int]) -> np.ndarray:
    return _here.run.state(_here.dataset.ids, _here.cycle)[0].histogram


def _sentence(here: Here, row: pd.Series) -> str:
    """Why the image stands where it stands."""
    rank = f"Rank **{int(row['rank']):,}**" if pd.notna(row["rank"]) else f"Not in the ranking ({row['status']})"
    confidence = f"the model says **{plain(row['suggested'])}** with {100 * row['confidence']:.0f} %"
    given = (
        "no label yet"
        if row["given"] == "—"
        else f"labelled **{plain(row['given'])}** ({int(row['n_votes'])} vote{'' if row['n_votes'] == 1 else 's'})"
    )
    text = f"{rank}: {given}; {confidence}."
    if row["reference"] != "—":
        whose = {"human": "human votes", "simulated": "simulated votes", "none": "the reference"}[
            here.dataset.annotators
        ]
        text += f" Majority of {whose}: **{plain(row['reference'])}**{' — ' + row['kind'] if row['kind'] else ''}."
    return text


@st.cache_resource(max_entries=16, show_spinner=False)
def map_table(_here: Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """`samples` with the two scores of the map."""
    return views.with_noise_scores(_here.run, views.samples(_here.run, _here.dataset, _here.cycle), _here.cycle)


@st.cache_resource(max_entries=16, show_spinner=False)
def score_distribution(_here: Here, key: tuple[str, int, int], score: str) -> go.Figure:
    """The histogram of any score of the cycle."""
    return views.score_distribution(_here.run, _here.dataset, _here.cycle, score)


@st.cache_resource(max_entries=16, show_spinner=False)
def areas(_here: Here, key: tuple[str, int, int], others: tuple[str, ...]) -> pd.DataFrame:
    """Areas under the curves of the run we stand at and others."""
    return views.areas([_here.run, *(find(one) for one in others)], _here.dataset)


@st.cache_resource(max_entries=16, show_spinner=False)
def changes(_here: Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """What each cycle did."""
    return views.cycle_changes(_here.run, _here.dataset)
