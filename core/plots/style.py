"""DataFrame → plotly Figure. Pure: the same builders serve pages, command line and export.

A figure says which data and definition made it; a curve shows its spread and names its seeds. A method describes its own
colour, symbol and dash (`core.described`), and has the same ones everywhere.
"""

import textwrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import methods
from core.described import BLUE as BLUE
from core.described import GREEN as GREEN
from core.described import GREY as GREY
from core.described import ORANGE as ORANGE
from core.described import PURPLE as PURPLE
from core.described import SKY as SKY
from core.described import VERMILLION as VERMILLION

KINDS = {  # of samples: colour and symbol
    "correct": (SKY, "circle"),
    "difficult": (ORANGE, "diamond"),
    "clear noise": (VERMILLION, "x"),
    "": (GREY, "circle"),
}
NOTE_WIDTH = 58  # characters: what a 390-pixel screen shows of the small print
LEGEND_ROW = 19  # pixels


def compact(n: int) -> str:
    """A number as a cell has room for it: 950, 1.6k, 25k."""
    return f"{n}" if n < 1000 else f"{n / 1000:.1f}k" if n < 10_000 else f"{n / 1000:.0f}k"


def axis(score: str) -> str:
    """Title of a score's axis: name, formula, unit."""
    meant = methods.described(score)
    return f"{meant.title}: {meant.formula}" + (f" ({meant.unit})" if meant.unit else "")


def short(name: str, length: int = 18) -> str:
    return escape([name if len(name) <= length else f"{name[: length - 1]}…"])[0]


def over_seeds(part: pd.DataFrame, measure: str) -> pd.DataFrame:
    """n_labels, mean and standard deviation over runs, as far as all of them go: no mean over fewer seeds at the end."""
    common = part.groupby("run")["n_labels"].max().min()
    by = part[part["n_labels"] <= common].groupby("n_labels")[measure]
    return pd.DataFrame({"mean": by.mean(), "sd": by.std(ddof=1).fillna(0)}).reset_index()


def band(
    figure: go.Figure,
    table: pd.DataFrame,
    method: str,
    label: str,
    *,
    width: int = 2,
    markers: bool = False,
    scale: float = 100.0,
    unit: str = "%",
    opacity: float = 0.18,
) -> None:
    """A mean line over its ± 1 s.d. band, drawn times `scale`: by default values in [0, 1] as percent."""
    look = methods.drawn(method)
    dash = (
        "dashdot" if method == "minimal" else look.dash
    )  # the straight line that correcting everything in order would be
    x, mean, sd = table["n_labels"], scale * table["mean"], scale * table["sd"]
    if (sd > 0).any():
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([mean + sd, (mean - sd)[::-1]]),
                mode="lines",
                fill="toself",
                fillcolor=look.colour,
                opacity=opacity,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=label,
            )
        )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            name=label,
            legendgroup=label,
            mode="lines+markers" if markers else "lines",
            line={"color": look.colour, "width": width, "dash": dash},
            marker={"symbol": look.symbol, "size": 8},
            hovertemplate="%{x:,} labels: %{y:.2f} " + unit + "<extra>" + method + "</extra>",
        )
    )


def thin(table: pd.DataFrame, points: int = 800) -> pd.DataFrame:
    """At most `points` rows, the last kept: a curve has one point a label, a screen has not."""
    if len(table) <= points:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, points).round().astype(int))]


def finish(
    figure: go.Figure, x: str, y: str, note: str, legend_rows: int = 1, note_width: int = NOTE_WIDTH
) -> go.Figure:
    lines = [line for part in note.split("\n") for line in textwrap.wrap(part, note_width)]
    figure.update_layout(
        template="plotly_white",
        margin={"l": 64, "r": 44, "t": 16, "b": 62 + 15 * len(lines)},
        height=420 + 15 * len(lines) + LEGEND_ROW * (legend_rows - 1),
        font={"size": 13},
        showlegend=any(trace.name for trace in figure.data),
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hovermode="closest",
        modebar={"orientation": "v"},  # at the right edge, where it covers no legend
        meta={"note": "\n".join(escape(note.split("\n")))},  # `core.files.printed` wraps it to another width
    )
    figure.update_xaxes(title=x, zeroline=False)
    figure.update_yaxes(title=y, zeroline=False)
    if lines:  # below the axis title, so that an exported figure still says what it shows
        figure.add_annotation(
            name="note",
            text="<br>".join(escape(lines)),
            xref="paper",
            yref="paper",
            x=0,
            y=0,
            yshift=-58,
            yanchor="top",
            showarrow=False,
            align="left",
            font={"size": 11, "color": GREY},
        )
    return figure


def who(part: pd.DataFrame) -> str:
    """How many runs a curve is made of, and their seeds."""
    seeds = ", ".join(str(seed) for seed in sorted(part["seed"].unique()))
    return f"n = {part['run'].nunique()}, seed {seeds}"


def escape(names: list[str]) -> list[str]:
    """Class names come from users; plotly reads a few HTML tags in text."""
    return [name.replace("&", "&amp;").replace("<", "&lt;") for name in names]
