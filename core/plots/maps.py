"""Scores of the samples of a cycle, their confusion and their maps: DataFrame → plotly Figure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import methods, tsne
from core.plots import style

MATRIX = 25  # classes whose confusion is drawn as a matrix
PAIRS = 20  # that are shown of more classes


def distribution(bins: pd.DataFrame, score: str, cut: float | None, note: str) -> go.Figure:
    """Histogram of a score; `cut` marks the lowest score that the next budget takes.

    bins: low, high, everything and kept, numbers of images; what does not pass a filter is grey. A box drawn on it is a range.
    """
    colour, middle = methods.drawn(score).colour, (bins["low"] + bins["high"]) / 2
    figure = go.Figure()
    hidden = bins["everything"] - bins["kept"]
    ends = bins[["low", "high"]].to_numpy().tolist()  # as lists: an array would come back from the browser as a dict
    parts = [("kept", bins["kept"], colour)] + ([("filtered out", hidden, style.GREY)] if hidden.any() else [])
    for name, numbers, shade in parts:
        figure.add_bar(
            x=middle,
            y=numbers,
            width=bins["high"] - bins["low"],
            customdata=ends,
            name=name,
            showlegend=len(parts) > 1,
            marker={"color": shade, "line": {"width": 0}, "opacity": 1.0 if name == "kept" else 0.35},
            hovertemplate="%{customdata[0]:.4g} … %{customdata[1]:.4g}<br>%{y:,} images<extra></extra>",
        )
    if cut is not None:
        figure.add_vline(
            x=cut,
            line={"color": style.GREY, "dash": "dash"},
            annotation_text="taken next →",
            annotation_position="bottom right",
        )
        figure.update_yaxes(range=[0, 1.15 * max(1, bins["everything"].max())])  # room for the words
    figure.update_layout(barmode="stack", bargap=0, dragmode="select", selectdirection="h")
    return style.finish(figure, style.axis(score), "Images", note)


def confusion(table: pd.DataFrame, note: str) -> go.Figure:
    """Images by given (rows) and suggested (columns) label, the number in each cell; a cell can be clicked.

    table: numbers, index and columns are class names. Cells off the diagonal, where model and label differ, are coloured by
    their number; those on it, and those of images without a label, are not. Above `MATRIX` classes nobody could read the
    numbers: then it shows the most frequent pairs that differ, a bar each.
    """
    if max(table.shape) > MATRIX:
        return _confused(table, note)
    names = sorted(set(table.index) | set(table.columns), key=lambda name: (name == "—", name))
    table = table.reindex(
        index=[n for n in names if n in table.index], columns=[n for n in names if n in table.columns]
    )
    off = table.to_numpy(dtype=float)
    differ = np.array([[given not in (suggested, "—") for suggested in table.columns] for given in table.index])
    shown = [style.short(name) for name in table.columns], [style.short(name) for name in table.index]
    x, y = np.meshgrid(np.arange(table.shape[1]), np.arange(table.shape[0]))
    figure = go.Figure(
        go.Heatmap(
            z=np.where(differ, off, np.nan),
            colorscale=[[0, "rgba(213, 94, 0, 0.04)"], [1, "rgba(213, 94, 0, 0.5)"]],
            zmin=0,
            showscale=False,
            hoverinfo="skip",
            xgap=1,
            ygap=1,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=x.ravel(),
            y=y.ravel(),
            mode="markers+text",
            marker={"size": 30, "symbol": "square", "opacity": 0, "color": style.GREY},
            text=[style.compact(int(n)) if n else "" for n in off.ravel()],
            customdata=[[given, suggested] for given in table.index for suggested in table.columns],
            hovertext=[
                "<br>".join(
                    [*style.escape([f"given {given}", f"suggested {suggested}"]), f"{n:,} image{'' if n == 1 else 's'}"]
                )
                for (given, suggested), n in table.stack().items()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    style.finish(figure, "Suggested by the model", "Given label", note)
    side = {"tickmode": "array", "showgrid": False}
    figure.update_xaxes(tickvals=np.arange(table.shape[1]), ticktext=shown[0], side="top", **side)
    figure.update_yaxes(
        tickvals=np.arange(table.shape[0]), ticktext=shown[1], autorange="reversed", automargin=True, **side
    )
    bottom = int(figure.layout.margin.b) - 40
    figure.update_annotations(yshift=-18)
    return figure.update_layout(
        height=150 + bottom + 34 * max(3, len(table.index)), margin={"t": 110, "b": bottom}, dragmode=False
    )


def _confused(table: pd.DataFrame, note: str) -> go.Figure:
    """The pairs of given and suggested label that differ most often, a bar each that can be clicked."""
    pairs = table.stack()
    given, suggested = (pairs.index.get_level_values(level) for level in (0, 1))
    differ = pairs[(pairs > 0) & (given != suggested) & (given != "—")].sort_values(ascending=False, kind="stable")
    shown = differ.head(PAIRS)
    figure = go.Figure(
        go.Bar(
            x=shown.to_numpy(),
            y=np.arange(len(shown)),
            orientation="h",
            text=[f"{n:,}" for n in shown],
            textposition="auto",
            textangle=0,
            customdata=[list(pair) for pair in shown.index],
            hovertext=["<br>".join(style.escape([f"given {pair[0]}", f"suggested {pair[1]}"])) for pair in shown.index],
            hovertemplate="%{hovertext}<br>%{x:,} images<extra></extra>",
            marker={"color": "rgba(213, 94, 0, 0.5)"},
            showlegend=False,
        )
    )
    which = f"the {len(shown)} most frequent of {len(differ):,}" if len(shown) < len(differ) else f"all {len(differ):,}"
    text = f"given → suggested: {which} pairs that differ, {shown.sum():,} of {differ.sum():,} images"
    style.finish(figure, "Images", "", f"{note}\n{text}")
    figure.update_yaxes(
        tickmode="array",
        tickvals=np.arange(len(shown)),
        ticktext=[f"{style.short(one, 14)} → {style.short(other, 14)}" for one, other in shown.index],
        autorange="reversed",
        automargin=True,
        showgrid=False,
        ticklabelstandoff=4,
    )
    bottom = int(figure.layout.margin.b)
    return figure.update_layout(height=bottom + 16 + 26 * max(3, len(shown)), dragmode=False)


def scatter(table: pd.DataFrame, x: str, y: str, note: str) -> go.Figure:
    """Every image by two of its scores."""
    figure = _by_kind(table, table[x], table[y], table["sample_id"].tolist(), "%{x:.3g}, %{y:.3g}")
    figure.update_layout(dragmode="lasso")
    return style.finish(figure, style.axis(x), style.axis(y), note)


@dataclass(frozen=True)
class Plane:
    """Two columns that images are drawn over, x and y, what the axes are called, and what the pointer says."""

    x: str
    y: str
    across: str
    up: str
    hover: str


NOISE = Plane(
    "entropy", "cross-entropy", "Ambiguity H(p) (nats)", "Noisiness CE(l̂, p) (nats)", "H %{x:.2f}, CE %{y:.2f}"
)
EMBEDDING = Plane(*tsne.COLUMNS, "t-SNE 1 (no unit)", "t-SNE 2 (no unit)", "")


def noise_map(table: pd.DataFrame, note: str, selected: Collection[int] | None = None) -> go.Figure:
    """Every image by ambiguity H(p) (x) and noisiness CE(l̂, p) (y), both in nats: top left is clear label noise.

    selected: pool rows to stand out from the others; None: all are alike.
    """
    figure = _by_kind(table, table[NOISE.x], table[NOISE.y], _pairs(table), NOISE.hover)
    return _map_layout(figure, NOISE, note, selected)


def embedding_map(
    table: pd.DataFrame, colour: str, title: str, note: str, selected: Collection[int] | None = None
) -> go.Figure:
    """Every image where the model's embedding puts it: those that it finds alike lie close. Axes have no meaning.

    colour: a column of numbers, whose first (rank) or highest (else) lie on top; what is beyond the 2nd and 98th percentile has
    the colour of the end · title: what it is called · selected: as in `noise_map`.
    """
    figure, large = go.Figure(), len(table) > 10_000
    table = table.sort_values(colour, ascending=colour != "rank", kind="stable")
    values = pd.to_numeric(table[colour]).astype(float)
    low, high = values.quantile([0.02, 0.98])
    for known, name in ((False, "no value"), (True, "")):
        mine = (values.notna() == known).to_numpy()
        if not mine.any():
            continue
        figure.add_trace(
            (go.Scattergl if large else go.Scatter)(
                x=table.loc[mine, EMBEDDING.x],
                y=table.loc[mine, EMBEDDING.y],
                mode="markers",
                name=f"{name} ({mine.sum():,})" if name else None,
                showlegend=not known,
                customdata=table.index[mine].to_numpy(),
                text=None if large else style.escape(_pairs(table[mine])),
                marker={
                    "size": 6,
                    "opacity": 0.8 if known else 0.35,
                    "color": values[mine] if known else style.GREY,
                    "line": {"width": 0.5, "color": style.GREY},  # the darkest are lost on a dark page without
                    **(
                        {"colorscale": "Cividis", "cmin": low, "cmax": high, "colorbar": _colour_bar(title)}
                        if known
                        else {}
                    ),
                },
                hovertemplate="%{marker.color:.3g}<extra></extra>"
                if large
                else "%{text}<br>%{marker.color:.3g}<extra></extra>",
            )
        )
    return _map_layout(figure, EMBEDDING, note, selected)


def _colour_bar(title: str) -> dict[str, Any]:
    return {"title": {"text": title, "side": "right", "font": {"size": 12}}, "thickness": 12, "x": 1.01}


def _map_layout(figure: go.Figure, plane: Plane, note: str, selected: Collection[int] | None) -> go.Figure:
    if selected is not None:
        chosen = set(selected)
        for trace in figure.data:
            trace.selectedpoints = [i for i, row in enumerate(trace.customdata) if int(row) in chosen]
            trace.unselected = {"marker": {"opacity": 0.12}}
    figure.update_layout(dragmode="select")
    if plane is EMBEDDING:  # its axes mean nothing
        figure.update_xaxes(showticklabels=False, showgrid=False)
        figure.update_yaxes(showticklabels=False, showgrid=False)
    return style.finish(figure, plane.across, plane.up, note)


def picture_map(
    table: pd.DataFrame, plane: Plane, pictures: list[str], cell: tuple[float, float], note: str
) -> go.Figure:
    """Some images of the map of noise or of embeddings, each drawn where it stands; customdata is the pool row.

    table: of `core.analysis.samples.Samples.mosaic`, n is how many images the cell holds · pictures: a data URL a row · cell:
    width and height of a cell on the axes.
    """
    x, y = table[plane.x], table[plane.y]
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            showlegend=False,
            customdata=table.index.to_numpy(),
            text=[
                f"{name}<br>{n:,} like it here" for name, n in zip(style.escape(_pairs(table)), table["n"], strict=True)
            ],
            marker={
                "size": 26,
                "symbol": "square",
                "color": style.GREY,
                "opacity": 0,
            },  # for the pointer; the images lie above
            hovertemplate=f"%{{text}}<br>{plane.hover}<extra></extra>",
        )
    )
    size = {"sizex": 0.9 * cell[0], "sizey": 0.9 * cell[1], "sizing": "contain"}
    middle = {"xref": "x", "yref": "y", "xanchor": "center", "yanchor": "middle", "layer": "above"}
    figure.layout.images = [
        {"source": one, "x": across, "y": up, **size, **middle} for one, across, up in zip(pictures, x, y, strict=True)
    ]
    _map_layout(figure, plane, note, None)
    figure.update_xaxes(range=[x.min() - cell[0], x.max() + cell[0]])
    figure.update_yaxes(range=[y.min() - cell[1], y.max() + cell[1]])
    return figure.update_layout(height=560 + int(figure.layout.margin.b) - 62)


def _pairs(table: pd.DataFrame) -> list[str]:
    """What a point of the map says of its image."""
    return [f"{i}: {a} → {b}" for i, a, b in zip(table["sample_id"], table["given"], table["suggested"], strict=True)]


def places(table: pd.DataFrame, first: str, second: str, note: str) -> go.Figure:
    """Every image by its place in two rankings, in % from the first to be taken: off the diagonal they disagree.

    table: place_first, place_second in [0, 1], kind, sample_id.
    """
    x, y = 100 * table["place_first"], 100 * table["place_second"]
    figure = _by_kind(table, x, y, table["sample_id"].tolist(), "%{x:.1f} %, %{y:.1f} %")
    return style.finish(figure, f"Place by {first} (%)", f"Place by {second} (%)", note)


def _by_kind(table: pd.DataFrame, x: pd.Series, y: pd.Series, names: list[str], hover: str) -> go.Figure:
    """A point an image, coloured by its `kind`; customdata is the pool row, for selections.

    Above 10,000 images WebGL draws the points, and they lose their names on hover: 50,000 strings would be most of the page.
    """
    figure, large = go.Figure(), len(table) > 10_000
    labels = pd.Series(style.escape([str(name) for name in names]) if not large else "", index=table.index)
    for kind in ("correct", "", "difficult", "clear noise"):
        mine = (table["kind"] == kind).to_numpy()
        if not mine.any():
            continue
        figure.add_trace(
            (go.Scattergl if large else go.Scatter)(
                x=x[mine],
                y=y[mine],
                mode="markers",
                name=f"{kind or 'image'} ({mine.sum():,})",
                customdata=table.index[mine].to_numpy(),
                text=None if large else labels[mine].tolist(),
                marker={
                    "color": style.KINDS[kind][0],
                    "symbol": style.KINDS[kind][1],
                    "size": 6 if kind in ("correct", "") else 8,
                    "opacity": 0.45 if kind in ("correct", "") else 0.85,
                },
                hovertemplate=("" if large else "%{text}<br>") + hover + "<extra></extra>",
            )
        )
    return figure
