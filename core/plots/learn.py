"""What the page Learn draws: DataFrame → plotly Figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

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


def at_logits(table: pd.DataFrame, note: str) -> go.Figure:
    """Norm of the entropy's gradient by the logits against the largest probability, a line for each way the rest is spread.

    table: rest (name), highest in [0, 1], norm.
    """
    figure = go.Figure()
    for (rest, part), colour, dash in zip(
        table.groupby("rest", sort=False), (style.GREEN, style.GREY), ("solid", "dash"), strict=True
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
    return style.finish(figure, "Largest probability p_max", "‖∂H/∂z‖", note)


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
