"""What the page Learn draws: DataFrame → plotly Figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from core.plots import style


def posterior_bars(
    class_names: list[str], probs: np.ndarray, votes: np.ndarray, given: int, note: str = ""
) -> go.Figure:
    """Posterior of one image beside the share of its votes for each class, in %; the given label in bold."""
    names = [f"<b>{name}</b>" if c == given else name for c, name in enumerate(style.escape(class_names))]
    figure = go.Figure()
    figure.add_bar(y=names, x=100 * probs, name="model", orientation="h", marker={"color": style.BLUE})
    if votes.sum() > 0:
        figure.add_bar(
            y=names,
            x=100 * votes / votes.sum(),
            name=f"annotations (n = {int(votes.sum())})",
            orientation="h",
            marker={"color": style.ORANGE},
        )
    shown = [f"<b>{style.short(name)}</b>" if c == given else style.short(name) for c, name in enumerate(class_names)]
    figure.update_yaxes(autorange="reversed", tickmode="array", tickvals=names, ticktext=shown)
    style.finish(
        figure, "Share (%)", "", note, note_width=style.NOTE_WIDTH * 2 // 3
    )  # beside the names there is less room
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
                text=style.escape(part["sample_id"].tolist()),
                marker={"color": style.GREEN if chosen else style.GREY, "size": 6, "opacity": 0.8 if chosen else 0.35},
                hovertemplate="%{text}<br>%{x:.1f}, %{y:.1f}<extra></extra>",
            )
        )
    return style.finish(figure, "‖∇θ H(p)‖, without the label", "‖∇θ L(x, y)‖, with the true label", note)


def simplex(
    across: NDArray[np.float64], up: NDArray[np.float64], norms: NDArray[np.float64], marks: pd.DataFrame, note: str
) -> go.Figure:
    """‖∂H/∂z‖ for three classes as colour over the triangle of all predicted probabilities; a corner is one class alone.

    across [n], up [m]: coordinates, the triangle's sides being 1, so that equal areas are equal volumes of the simplex ·
    norms: [m, n], NaN outside of it · marks: points to mark: name, which has a symbol of its own, x, y and norm.
    """
    height = float(up[-1])
    figure = go.Figure(
        go.Heatmap(
            x=across,
            y=up,
            z=norms.astype(np.float32),
            colorscale="Cividis",
            zmin=0,
            colorbar={"title": {"text": "‖∂H/∂z‖", "side": "right", "font": {"size": 12}}, "thickness": 12, "x": 1.01},
            hovertemplate="%{z:.2f}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[0, 1, 0.5, 0],
            y=[0, 0, height, 0],
            mode="lines",
            line={"color": style.GREY, "width": 3},  # covers the steps of the cells at the edge
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for (name, part), symbol in zip(marks.groupby("name", sort=False), ("circle", "diamond", "square"), strict=True):
        figure.add_trace(
            go.Scatter(
                x=part["x"],
                y=part["y"],
                customdata=part["norm"],
                mode="markers",
                name=str(name),
                marker={
                    "symbol": symbol,
                    "size": 11,
                    "color": "white",
                    "line": {"color": style.VERMILLION, "width": 2.5},
                },
                hovertemplate=f"{name}: %{{customdata:.2f}}<extra></extra>",
            )
        )
    style.finish(figure, "", "", note)
    for x, y, text, where in (
        (0, 0, "p₁ = 1", {"yanchor": "top", "yshift": -8}),
        (1, 0, "p₂ = 1", {"yanchor": "top", "yshift": -8}),
        (0.5, height, "p₃ = 1", {"xanchor": "left", "xshift": 12}),
    ):
        figure.add_annotation(x=x, y=y, text=text, showarrow=False, **where)
    hidden = {"showticklabels": False, "showgrid": False}
    figure.update_xaxes(range=[-0.08, 1.08], constrain="domain", **hidden)
    figure.update_yaxes(range=[-0.1, height + 0.06], scaleanchor="x", constrain="domain", **hidden)
    return figure


def profile(table: pd.DataFrame, note: str) -> go.Figure:
    """Functions of the largest probability, each in % of its largest value, which is marked.

    table: name, highest in [0, 1], value, share (of the largest value).
    """
    figure = go.Figure()
    for (name, part), colour, dash in zip(
        table.groupby("name", sort=False), (style.GREEN, style.GREY), ("solid", "dash"), strict=True
    ):
        top = part["share"].idxmax()
        figure.add_trace(
            go.Scatter(
                x=part["highest"],
                y=100 * part["share"],
                customdata=part["value"],
                name=str(name),
                mode="lines",
                line={"color": colour, "width": 3, "dash": dash},
                hovertemplate="p_max = %{x:.2f}: %{customdata:.2f}<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[part.loc[top, "highest"]],
                y=[100.0],
                mode="markers+text",
                text=f"{part.loc[top, 'highest']:.2f}",
                textposition="top center",
                marker={"color": colour, "size": 9},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[0, 112])
    return style.finish(figure, "Largest probability p_max", "Of the largest value (%)", note)


def vote_steps(table: pd.DataFrame, given: str, note: str) -> go.Figure:
    """The labels of one image as they come in: bars of a class side by side, a group a label.

    table: step (0 is the label it came with), name, votes (so many of this class so far) · given: the class it came with.
    """
    figure = go.Figure()
    others = [style.SKY, style.GREEN, style.PURPLE, style.BLUE, style.VERMILLION, style.GREY]
    for k, name in enumerate(dict.fromkeys([given, *table["name"]])):
        part = table[table["name"] == name]
        figure.add_bar(
            x=part["step"],
            y=part["votes"],
            name=style.escape([name])[0],
            marker={"color": style.ORANGE if name == given else others[(k - 1) % len(others)]},
            hovertemplate="after label %{x}: %{y}<extra>" + style.escape([name])[0] + "</extra>",
        )
    figure.update_xaxes(dtick=1)
    figure.update_yaxes(dtick=1)
    style.finish(figure, "Labels drawn", "Labels of each class", note)
    return figure.update_layout(barmode="group")
