"""DataFrame → plotly Figure. Pure: the same builders serve pages, command line and export.

A figure says which data and definition made it; a curve shows its spread and names its seeds. Colours are those of
Okabe & Ito (2008), told apart with every common form of colour blindness, and a method has the same one everywhere.
"""

import textwrap
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import layout
from core.scores import REGISTRY

BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, YELLOW, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#F0E442",
    "#7F7F7F",
)
COLOURS = {  # oracle and random as in Fig. 3 of Bernhardt et al.: blue above, red below
    "oracle": BLUE,
    "random": VERMILLION,
    "minimal": GREY,
    "cleaning": GREEN,
    "vanilla": GREEN,
    "co-teaching": ORANGE,
    "elr": GREEN,
    "ssl": SKY,
    "pretrained": ORANGE,
    "clean": PURPLE,  # the paper's pink "model upper bound"
    "bald": GREY,
    "graph": GREY,
    "cross-entropy": ORANGE,
    "self-confidence": PURPLE,
    # Eleven strategies share seven colours (yellow and black are lost on one of the two backgrounds): a second one of a
    # colour is dashed with hollow symbols
    "expected-gradnorm": SKY,
    "entropy-gradnorm": GREEN,
    "egl": PURPLE,
    "badge": BLUE,
    "margin": ORANGE,
    "mc-dropout": GREY,
    "core-set": BLUE,
    "vaal": ORANGE,
    "ll4al": PURPLE,
    "sraal": GREY,
    "correct": SKY,
    "difficult": ORANGE,
    "clear noise": VERMILLION,
    "": GREY,
}
SYMBOLS = {
    "correct": "circle",
    "difficult": "diamond",
    "clear noise": "x",
    "": "circle",
    "random": "x",
    "expected-gradnorm": "square",
    "entropy-gradnorm": "circle",
    "egl": "diamond",
    "badge": "star",
    "margin": "triangle-up",
    "mc-dropout": "cross",
    "core-set": "triangle-down-open",
    "vaal": "pentagon-open",
    "ll4al": "diamond-open",
    "sraal": "square-open",
}
NOTE_WIDTH = 58  # characters: what a 390-pixel screen shows of the small print
PATTERNS = {
    "elr": "dash",
    "pretrained": "dash",
    "graph": "dash",
    "oracle": "dash",
    "random": "dot",
    "minimal": "dashdot",
    "core-set": "dash",
    "vaal": "dash",
    "ll4al": "dash",
    "sraal": "dash",
}
LEGEND_ROW = 19  # pixels
MATRIX = 25  # classes whose confusion is drawn as a matrix
PAIRS = 20  # that are shown of more classes


def learning_curves(curves: pd.DataFrame, cycle: int | None, note: str, title: str = "Test accuracy") -> go.Figure:
    """Test accuracy (%) against labels, one line a method: mean over seeds, band ± 1 s.d. `cycle` marks where we stand.

    title: what the accuracy is called.
    """
    figure = go.Figure()
    for method, part in curves.groupby("method", sort=True):
        table = _over_seeds(part, "accuracy")
        _band(figure, table, str(method), f"{method} · {_who(part)}", markers=True)
    if cycle is not None and len(curves):
        here = curves[curves["cycle"] == cycle]
        if len(here):
            figure.add_vline(x=float(here["n_labels"].iloc[0]), line={"color": GREY, "dash": "dot", "width": 1})
    return _layout(figure, "Labelled images", f"{title} (%)", note)


def estimates(cycles: pd.DataFrame, cycle: int | None, note: str, accuracy: str) -> go.Figure:
    """What is known of labels that people check, in % after each cycle: the estimated share of right ones with its interval,
    the share that the model agrees with, and where there is a test set its accuracy, which is called `accuracy`.

    cycles: n_labels, and where they are known estimated_correctness, estimated_low, estimated_high, agreement, accuracy.
    """
    figure, x = go.Figure(), cycles["n_labels"]
    lines = {"agreement": ("labels that an out-of-fold model agrees with", "dot", "square-open")}
    lines["accuracy"] = (accuracy[0].lower() + accuracy[1:], "dash", "diamond-open")
    for name, (label, dash, symbol) in lines.items():
        if name in cycles and cycles[name].notna().any():
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=100 * cycles[name],
                    name=label,
                    mode="lines+markers",
                    line={"color": GREY, "dash": dash, "width": 1.5},
                    marker={"symbol": symbol, "size": 8},
                    hovertemplate="%{x:,} labels: %{y:.1f} %<extra>" + label + "</extra>",
                )
            )
    if "estimated_low" in cycles and cycles["estimated_low"].notna().any():
        known = cycles[cycles["estimated_low"].notna()]
        share, low, high = (100 * known[f"estimated_{name}"] for name in ("correctness", "low", "high"))
        figure.add_trace(
            go.Scatter(
                x=known["n_labels"],
                y=share,
                name="right labels, estimated; 95 % interval",
                mode="lines+markers",
                line={"color": BLUE, "width": 2},
                marker={"size": 9},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": high - share,
                    "arrayminus": share - low,
                    "width": 6,
                },
                customdata=np.stack([low, high, known["checked_at_random"]], axis=1),
                hovertemplate="%{x:,} labels: %{y:.1f} % (%{customdata[0]:.1f} to %{customdata[1]:.1f}), from "
                "%{customdata[2]:,} random images<extra></extra>",
            )
        )
    if cycle is not None and cycle < len(cycles):
        figure.add_vline(x=float(x.iloc[cycle]), line={"color": GREY, "dash": "dot", "width": 1})
    return _layout(figure, "Collected labels", "Share (%)", note)


def compared(table: pd.DataFrame, y: str, unit: str, note: str, level: pd.DataFrame | None = None) -> go.Figure:
    """A measure of several strategies against labels, one line a strategy, band ± 1 s.d.

    The note names the seeds; the legend their number only where strategies differ in it.
    table: method, n_labels, mean, sd, n_seeds, in the unit that `y` names and the hover shows.
    level: n_labels, random, a line for what a random choice would reach.
    """
    figure = go.Figure()
    if level is not None:
        figure.add_trace(
            go.Scatter(
                x=level["n_labels"],
                y=level["random"],
                name="a random choice",
                mode="lines",
                line={"color": GREY, "width": 1.5, "dash": "dashdot"},
                hovertemplate="%{x:,} labels: %{y:.1f} " + unit + "<extra>a random choice</extra>",
            )
        )
    methods = list(table["method"].unique())
    for method in methods:
        part = table[table["method"] == method].sort_values("n_labels").fillna({"sd": 0.0})
        label = f"{method} (n = {part['n_seeds'].iloc[0]})" if table["n_seeds"].nunique() > 1 else str(method)
        # Bands of many strategies lie over one another: lighter, that the lines stay readable
        _band(
            figure,
            part,
            str(method),
            label,
            markers=True,
            scale=1.0,
            unit=unit,
            opacity=0.18 if len(methods) < 4 else 0.07,
        )
    return _layout(figure, "Labelled images", y, note, legend_rows=-(-len(methods) // 2))


def differences(table: pd.DataFrame, note: str) -> go.Figure:
    """Difference to the baseline in points, a dot a strategy with its 95 % interval; a ring without one: too few seeds.

    table: method, baseline, difference, low, high, n_seeds, said (the verdict, for the pointer).
    """
    figure = go.Figure()
    for row in table[table["n_seeds"] > 0].itertuples():
        colour, known = COLOURS.get(row.method, GREY), row.n_seeds > 1
        between = f" [{row.low:+.2f}, {row.high:+.2f}]" if known else ""
        figure.add_trace(
            go.Scatter(
                x=[row.difference],
                y=[f"{row.method} (n = {row.n_seeds})"],
                mode="markers",
                name=row.method,
                showlegend=False,
                marker={
                    "color": colour,
                    "size": 11,
                    "symbol": SYMBOLS.get(row.method, "circle") if known else "circle-open",
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [row.high - row.difference],
                    "arrayminus": [row.difference - row.low],
                    "color": colour,
                    "thickness": 2,
                    "width": 6,
                    "visible": known,
                },
                hovertemplate=f"{row.difference:+.2f} points{between}<br>{row.said}<extra>{row.method}</extra>",
            )
        )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot", "width": 1.5})
    baseline = table["baseline"].iloc[0] if len(table) else "random"
    _layout(figure, f"Accuracy above {baseline} (points)", "", note)
    left = 158  # pixels: the longest name of a strategy
    figure.update_yaxes(autorange="reversed", automargin=False, tickfont={"size": 12})
    figure.update_annotations(xshift=8 - left)  # the small print needs the whole width
    bottom = int(figure.layout.margin.b)
    return figure.update_layout(height=bottom + 40 + 34 * max(3, len(table)), margin={"l": left}, showlegend=False)


def cleaning_curves(curves: pd.DataFrame, bounds: pd.DataFrame, at: int | None, note: str) -> go.Figure:
    """Share of right labels (%) against collected labels: runs (mean ± 1 s.d. over seeds) between random and oracle."""
    figure = go.Figure()
    for policy, part in bounds.groupby("policy", sort=False):
        seeds = "" if policy == "minimal" else ", 5 sets of votes"
        _band(figure, _thin(part), str(policy), f"{policy} · AUC {part['mean'].mean():.3f}{seeds}")
    for method, part in curves.groupby("method", sort=True):
        table = _over_seeds(part, "correctness")
        label = f"{method} (run) · AUC {table['mean'].mean():.3f}, {_who(part)}"
        _band(figure, _thin(table), str(method), label, width=3)
    if at is not None:
        figure.add_vline(x=at, line={"color": GREY, "dash": "dot", "width": 1})
    return _layout(figure, "Collected labels", "Right majority labels (%)", note)


def policy_curves(curves: pd.DataFrame, areas: pd.DataFrame, band: str, note: str) -> go.Figure:
    """Share of right labels (%) against collected labels, one line a policy, AUC in the legend: Fig. 3 of Bernhardt et al.

    curves: policy, n_labels, mean, sd, low, high · areas: policy, auc · band: "sd" (± 1 s.d.) or "interval" (low to high).
    """
    figure, auc = go.Figure(), areas.set_index("policy")["auc"]
    policies = list(curves["policy"].unique())
    for policy in policies:
        part = _thin(curves[curves["policy"] == policy])
        if band == "interval":
            part = part.assign(sd=(part["high"] - part["low"]) / 2)
        bound = policy in ("oracle", "random", "minimal")
        label = {
            "oracle": "oracle (upper bound)",
            "random": "random (lower bound)",
            "clean": "clean (trained on the reference labels)",
        }
        name = f"{label.get(policy, policy)} · AUC {auc[policy]:.3f}"
        _band(figure, part, policy, name, width=2 if bound else 3, opacity=0.12)
    return _layout(figure, "Collected labels", "Right majority labels (%)", note, legend_rows=-(-len(policies) // 2))


def budget(curves: pd.DataFrame, learning: bool, at: int, target: float, note: str) -> go.Figure:
    """What labels buy (%), one line a policy, and where a budget and a target lie.

    curves: policy, n_labels, mean · learning: test accuracy against labelled images, else right labels against collected ones.
    """
    figure = go.Figure()
    names = list(curves["policy"].unique())
    for policy in names:
        part = _thin(curves[curves["policy"] == policy]).assign(sd=0.0)
        width = 2 if policy in ("oracle", "random", "minimal") else 3
        _band(figure, part, str(policy), str(policy), width=width, markers=learning)
    figure.add_vline(
        x=at,
        line={"color": GREY, "dash": "dot", "width": 2},
        annotation_text=f"{at:,} labels",
        annotation_position="bottom right",
    )
    figure.add_hline(
        y=100 * target,
        line={"color": GREY, "dash": "dot", "width": 2},
        annotation_text=f"{100 * target:g} %",
        annotation_position="top left",
    )
    x = "Labelled images" if learning else "Collected labels"
    y = "Test accuracy (%)" if learning else "Right majority labels (%)"
    return _layout(figure, x, y, note, legend_rows=-(-len(names) // 3))


def distribution(bins: pd.DataFrame, score: str, cut: float | None, note: str) -> go.Figure:
    """Histogram of a score; `cut` marks the lowest score that the next budget takes.

    bins: low, high, everything and kept, numbers of images; what does not pass a filter is grey. A box drawn on it is a range.
    """
    colour, middle = COLOURS.get(score, SKY), (bins["low"] + bins["high"]) / 2
    figure = go.Figure()
    hidden = bins["everything"] - bins["kept"]
    ends = bins[["low", "high"]].to_numpy().tolist()  # as lists: an array would come back from the browser as a dict
    parts = [("kept", bins["kept"], colour)] + ([("filtered out", hidden, GREY)] if hidden.any() else [])
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
            line={"color": GREY, "dash": "dash"},
            annotation_text="taken next →",
            annotation_position="bottom right",
        )
        figure.update_yaxes(range=[0, 1.15 * max(1, bins["everything"].max())])  # room for the words
    figure.update_layout(barmode="stack", bargap=0, dragmode="select", selectdirection="h")
    return _layout(figure, _axis(score), "Images", note)


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
    shown = [_short(name) for name in table.columns], [_short(name) for name in table.index]
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
            marker={"size": 30, "symbol": "square", "opacity": 0, "color": GREY},
            text=[_compact(int(n)) if n else "" for n in off.ravel()],
            customdata=[[given, suggested] for given in table.index for suggested in table.columns],
            hovertext=[
                "<br>".join(
                    [*_escape([f"given {given}", f"suggested {suggested}"]), f"{n:,} image{'' if n == 1 else 's'}"]
                )
                for (given, suggested), n in table.stack().items()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    _layout(figure, "Suggested by the model", "Given label", note)
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
            hovertext=["<br>".join(_escape([f"given {pair[0]}", f"suggested {pair[1]}"])) for pair in shown.index],
            hovertemplate="%{hovertext}<br>%{x:,} images<extra></extra>",
            marker={"color": "rgba(213, 94, 0, 0.5)"},
            showlegend=False,
        )
    )
    which = f"the {len(shown)} most frequent of {len(differ):,}" if len(shown) < len(differ) else f"all {len(differ):,}"
    text = f"given → suggested: {which} pairs that differ, {shown.sum():,} of {differ.sum():,} images"
    _layout(figure, "Images", "", f"{note}\n{text}")
    figure.update_yaxes(
        tickmode="array",
        tickvals=np.arange(len(shown)),
        ticktext=[f"{_short(one, 14)} → {_short(other, 14)}" for one, other in shown.index],
        autorange="reversed",
        automargin=True,
        showgrid=False,
        ticklabelstandoff=4,
    )
    bottom = int(figure.layout.margin.b)
    return figure.update_layout(height=bottom + 16 + 26 * max(3, len(shown)), dragmode=False)


def _compact(n: int) -> str:
    """A number as a cell has room for it: 950, 1.6k, 25k."""
    return f"{n}" if n < 1000 else f"{n / 1000:.1f}k" if n < 10_000 else f"{n / 1000:.0f}k"


def scatter(table: pd.DataFrame, x: str, y: str, note: str) -> go.Figure:
    """Every image by two of its scores."""
    figure = _by_kind(table, table[x], table[y], table["sample_id"].tolist(), "%{x:.3g}, %{y:.3g}")
    figure.update_layout(dragmode="lasso")
    return _layout(figure, _axis(x), _axis(y), note)


def _axis(score: str) -> str:
    """Title of a score's axis: name, formula, unit."""
    meant = REGISTRY[score]
    return f"{meant.title}: {meant.formula}" + (f" ({meant.unit})" if meant.unit else "")


def _short(name: str, length: int = 18) -> str:
    return _escape([name if len(name) <= length else f"{name[: length - 1]}…"])[0]


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
EMBEDDING = Plane(*layout.COLUMNS, "t-SNE 1 (no unit)", "t-SNE 2 (no unit)", "")


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
                text=None if large else _escape(_pairs(table[mine])),
                marker={
                    "size": 6,
                    "opacity": 0.8 if known else 0.35,
                    "color": values[mine] if known else GREY,
                    "line": {"width": 0.5, "color": GREY},  # the darkest are lost on a dark page without
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
    return _layout(figure, plane.across, plane.up, note)


def picture_map(
    table: pd.DataFrame, plane: Plane, pictures: list[str], cell: tuple[float, float], note: str
) -> go.Figure:
    """Some images of the map of noise or of embeddings, each drawn where it stands; customdata is the pool row.

    table: of `core.query.Samples.mosaic`, n is how many images the cell holds · pictures: a data URL a row · cell: width and
    height of a cell on the axes.
    """
    x, y = table[plane.x], table[plane.y]
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            showlegend=False,
            customdata=table.index.to_numpy(),
            text=[f"{name}<br>{n:,} like it here" for name, n in zip(_escape(_pairs(table)), table["n"], strict=True)],
            marker={
                "size": 26,
                "symbol": "square",
                "color": GREY,
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
    return _layout(figure, f"Place by {first} (%)", f"Place by {second} (%)", note)


def _by_kind(table: pd.DataFrame, x: pd.Series, y: pd.Series, names: list[str], hover: str) -> go.Figure:
    """A point an image, coloured by its `kind`; customdata is the pool row, for selections.

    Above 10,000 images WebGL draws the points, and they lose their names on hover: 50,000 strings would be most of the page.
    """
    figure, large = go.Figure(), len(table) > 10_000
    labels = pd.Series(_escape([str(name) for name in names]) if not large else "", index=table.index)
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
                    "color": COLOURS[kind],
                    "symbol": SYMBOLS[kind],
                    "size": 6 if kind in ("correct", "") else 8,
                    "opacity": 0.45 if kind in ("correct", "") else 0.85,
                },
                hovertemplate=("" if large else "%{text}<br>") + hover + "<extra></extra>",
            )
        )
    return figure


def posterior_bars(
    class_names: list[str], probs: np.ndarray, votes: np.ndarray, given: int, note: str = ""
) -> go.Figure:
    """Posterior of one image beside the share of its votes for each class, in %; the given label in bold."""
    names = [f"<b>{name}</b>" if c == given else name for c, name in enumerate(_escape(class_names))]
    figure = go.Figure()
    figure.add_bar(y=names, x=100 * probs, name="model", orientation="h", marker={"color": BLUE})
    if votes.sum() > 0:
        figure.add_bar(
            y=names,
            x=100 * votes / votes.sum(),
            name=f"votes (n = {int(votes.sum())})",
            orientation="h",
            marker={"color": ORANGE},
        )
    shown = [f"<b>{_short(name)}</b>" if c == given else _short(name) for c, name in enumerate(class_names)]
    figure.update_yaxes(autorange="reversed", tickmode="array", tickvals=names, ticktext=shown)
    _layout(figure, "Share (%)", "", note, note_width=NOTE_WIDTH * 2 // 3)  # beside the names there is less room
    height = 68 + int(figure.layout.margin.b) + 26 * len(class_names)
    return figure.update_layout(height=height, barmode="group", hovermode="y unified")


def norms(table: pd.DataFrame, note: str) -> go.Figure:
    """Every image by the gradient norm of its entropy (x) and of the loss against its true label (y).

    table: entropy-gradnorm, label-gradnorm, chosen (bool: taken by the budget), sample_id.
    """
    figure = go.Figure()
    for chosen, name in ((False, "not chosen"), (True, "chosen")):
        part = table[table["chosen"] == chosen]
        figure.add_trace(
            go.Scatter(
                x=part["entropy-gradnorm"],
                y=part["label-gradnorm"],
                mode="markers",
                name=f"{name} ({len(part):,})",
                text=_escape(part["sample_id"].tolist()),
                marker={"color": GREEN if chosen else GREY, "size": 6, "opacity": 0.8 if chosen else 0.35},
                hovertemplate="%{text}<br>%{x:.1f}, %{y:.1f}<extra></extra>",
            )
        )
    return _layout(figure, "‖∇θ H(p)‖, without the label", "‖∇θ L(x, y)‖, with the true label", note)


def at_logits(table: pd.DataFrame, note: str) -> go.Figure:
    """Norm of the entropy's gradient by the logits against the largest probability, a line for each way the rest is spread.

    table: rest (name), highest in [0, 1], norm.
    """
    figure = go.Figure()
    for (rest, part), colour, dash in zip(
        table.groupby("rest", sort=False), (GREEN, GREY), ("solid", "dash"), strict=True
    ):
        figure.add_trace(
            go.Scatter(
                x=part["highest"],
                y=part["norm"],
                name=str(rest),
                mode="lines",
                line={"color": colour, "width": 3, "dash": dash},
                hovertemplate="%{x:.2f}: %{y:.2f}<extra>" + str(rest) + "</extra>",
            )
        )
    figure.update_xaxes(range=[0, 1.02])
    return _layout(figure, "Largest probability p_max", "‖∂H/∂z‖", note)


def vote_steps(table: pd.DataFrame, given: str, note: str) -> go.Figure:
    """The labels of one image as they come in: bars of a class side by side, a group a label.

    table: step (0 is the label it came with), name, votes (so many of this class so far) · given: the class it came with.
    """
    figure = go.Figure()
    others = [SKY, GREEN, PURPLE, BLUE, VERMILLION, GREY]
    for k, name in enumerate(dict.fromkeys([given, *table["name"]])):
        part = table[table["name"] == name]
        figure.add_bar(
            x=part["step"],
            y=part["votes"],
            name=_escape([name])[0],
            marker={"color": ORANGE if name == given else others[(k - 1) % len(others)]},
            hovertemplate="after label %{x}: %{y}<extra>" + _escape([name])[0] + "</extra>",
        )
    figure.update_xaxes(dtick=1)
    figure.update_yaxes(dtick=1)
    _layout(figure, "Labels drawn", "Labels of each class", note)
    return figure.update_layout(barmode="group")


def _over_seeds(part: pd.DataFrame, measure: str) -> pd.DataFrame:
    """n_labels, mean and standard deviation over runs, as far as all of them go: no mean over fewer seeds at the end."""
    common = part.groupby("run")["n_labels"].max().min()
    by = part[part["n_labels"] <= common].groupby("n_labels")[measure]
    return pd.DataFrame({"mean": by.mean(), "sd": by.std(ddof=1).fillna(0)}).reset_index()


def _band(
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
    colour = COLOURS.get(method, GREY)
    x, mean, sd = table["n_labels"], scale * table["mean"], scale * table["sd"]
    if (sd > 0).any():
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([mean + sd, (mean - sd)[::-1]]),
                mode="lines",
                fill="toself",
                fillcolor=colour,
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
            line={"color": colour, "width": width, "dash": PATTERNS.get(method, "solid")},
            marker={"symbol": SYMBOLS.get(method, "circle"), "size": 8},
            hovertemplate="%{x:,} labels: %{y:.2f} " + unit + "<extra>" + method + "</extra>",
        )
    )


def _thin(table: pd.DataFrame, points: int = 800) -> pd.DataFrame:
    """At most `points` rows, the last kept: a curve has one point a label, a screen has not."""
    if len(table) <= points:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, points).round().astype(int))]


def _layout(
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
        meta={"note": "\n".join(_escape(note.split("\n")))},  # `core.printed` wraps it to another width
    )
    figure.update_xaxes(title=x, zeroline=False)
    figure.update_yaxes(title=y, zeroline=False)
    if lines:  # below the axis title, so that an exported figure still says what it shows
        figure.add_annotation(
            name="note",
            text="<br>".join(_escape(lines)),
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


def _who(part: pd.DataFrame) -> str:
    """How many runs a curve is made of, and their seeds."""
    seeds = ", ".join(str(seed) for seed in sorted(part["seed"].unique()))
    return f"n = {part['run'].nunique()}, seed {seeds}"


def _escape(names: list[str]) -> list[str]:
    """Class names come from users; plotly reads a few HTML tags in text."""
    return [name.replace("&", "&amp;").replace("<", "&lt;") for name in names]
