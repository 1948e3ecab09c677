"""Curves against labels: DataFrame → plotly Figure."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import methods
from core.plots import style


def learning_curves(curves: pd.DataFrame, cycle: int | None, note: str, title: str = "Test accuracy") -> go.Figure:
    """Test accuracy (%) against labels, one line a method: mean over seeds, band ± 1 s.d. `cycle` marks where we stand.

    title: what the accuracy is called.
    """
    figure = go.Figure()
    for method, part in curves.groupby("method", sort=True):
        table = style.over_seeds(part, "accuracy")
        style.band(figure, table, str(method), f"{method} · {style.who(part)}", markers=True)
    if cycle is not None and len(curves):
        here = curves[curves["cycle"] == cycle]
        if len(here):
            figure.add_vline(x=float(here["n_labels"].iloc[0]), line={"color": style.GREY, "dash": "dot", "width": 1})
    return style.finish(figure, "Labelled images", f"{title} (%)", note)


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
                    line={"color": style.GREY, "dash": dash, "width": 1.5},
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
                name="correct labels, estimated; 95 % interval",
                mode="lines+markers",
                line={"color": style.BLUE, "width": 2},
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
        figure.add_vline(x=float(x.iloc[cycle]), line={"color": style.GREY, "dash": "dot", "width": 1})
    return style.finish(figure, "Collected labels", "Share (%)", note)


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
                line={"color": style.GREY, "width": 1.5, "dash": "dashdot"},
                hovertemplate="%{x:,} labels: %{y:.1f} " + unit + "<extra>a random choice</extra>",
            )
        )
    methods = list(table["method"].unique())
    for method in methods:
        part = table[table["method"] == method].sort_values("n_labels").fillna({"sd": 0.0})
        label = f"{method} (n = {part['n_seeds'].iloc[0]})" if table["n_seeds"].nunique() > 1 else str(method)
        # Bands of many strategies lie over one another: lighter, that the lines stay readable
        style.band(
            figure,
            part,
            str(method),
            label,
            markers=True,
            scale=1.0,
            unit=unit,
            opacity=0.18 if len(methods) < 4 else 0.07,
        )
    return style.finish(figure, "Labelled images", y, note, legend_rows=-(-len(methods) // 2))


LADDER = {  # of bounds, lowest first: colour, symbol and dash
    "target": (style.GREEN, "circle", "dot"),
    "approx-1": (style.BLUE, "square", "solid"),
    "approx-2": (style.ORANGE, "diamond", "solid"),
    "approx-3": (style.VERMILLION, "triangle-up", "dash"),
}


def ladder(table: pd.DataFrame, note: str) -> go.Figure:
    """Terms of a chain of bounds against labels on a logarithmic scale: medians with their quartiles, side by side.

    table: n_labels, term (of `LADDER`), title, low, median, high. What is not above 0 is not drawn; a bar goes down to the edge
    where its lower end is not.
    """
    figure = go.Figure()
    drawn = table[["low", "median", "high"]].to_numpy(float)
    positive = drawn[np.isfinite(drawn) & (drawn > 0)]
    bottom, top = (positive.min() / 2, positive.max() * 2) if len(positive) else (0.1, 10.0)
    for term, (colour, symbol, dash) in LADDER.items():
        part = table[(table["term"] == term) & (table["median"] > 0)].sort_values("n_labels")
        if part.empty:
            continue
        title = str(part["title"].iloc[0])
        figure.add_trace(
            go.Scatter(
                x=part["n_labels"],
                y=part["median"],
                name=title,
                offsetgroup=term,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"symbol": symbol, "size": 9},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": part["high"] - part["median"],
                    "arrayminus": part["median"] - part["low"].clip(lower=bottom),
                    "width": 5,
                },
                customdata=part[["low", "high"]],
                hovertemplate="%{x:,} labels: %{y:.3g} (%{customdata[0]:.3g} to %{customdata[1]:.3g})<extra>"
                + title
                + "</extra>",
            )
        )
    style.finish(figure, "Labelled images", "Change of the held-out loss (nats)", note, legend_rows=2)
    ticks = sorted(table["n_labels"].unique())
    figure.update_xaxes(tickvals=ticks, tickformat=",")
    figure.update_yaxes(type="log", range=[np.log10(bottom), np.log10(top)], exponentformat="power")
    return figure.update_layout(scattermode="group", scattergap=0.6)


def differences(table: pd.DataFrame, note: str) -> go.Figure:
    """Difference to the baseline in points, a dot a strategy with its 95 % interval; a ring without one: too few seeds.

    table: method, baseline, difference, low, high, n_seeds, said (the verdict, for the pointer).
    """
    figure = go.Figure()
    for row in table[table["n_seeds"] > 0].itertuples():
        look, known = methods.drawn(row.method), row.n_seeds > 1
        between = f" [{row.low:+.2f}, {row.high:+.2f}]" if known else ""
        figure.add_trace(
            go.Scatter(
                x=[row.difference],
                y=[f"{row.method} (n = {row.n_seeds})"],
                mode="markers",
                name=row.method,
                showlegend=False,
                marker={
                    "color": look.colour,
                    "size": 11,
                    "symbol": look.symbol if known else "circle-open",
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [row.high - row.difference],
                    "arrayminus": [row.difference - row.low],
                    "color": look.colour,
                    "thickness": 2,
                    "width": 6,
                    "visible": known,
                },
                hovertemplate=f"{row.difference:+.2f} points{between}<br>{row.said}<extra>{row.method}</extra>",
            )
        )
    figure.add_vline(x=0, line={"color": style.GREY, "dash": "dot", "width": 1.5})
    baseline = table["baseline"].iloc[0] if len(table) else "random"
    style.finish(figure, f"Accuracy above {baseline} (points)", "", note)
    left = 158  # pixels: the longest name of a strategy
    figure.update_yaxes(autorange="reversed", automargin=False, tickfont={"size": 12})
    figure.update_annotations(xshift=8 - left)  # the small print needs the whole width
    bottom = int(figure.layout.margin.b)
    return figure.update_layout(height=bottom + 40 + 34 * max(3, len(table)), margin={"l": left}, showlegend=False)


CHOICES = {  # of labels that are removed: colour and symbol
    "top": (style.BLUE, "triangle-up"),
    "bottom": (style.VERMILLION, "triangle-down"),
    "random": (style.GREY, "circle"),
}


def realised(table: pd.DataFrame, note: str) -> go.Figure:
    """Predicted against realised change of a loss, a point a run and choice of labels with its 95 % interval, and y = x.

    table: choice (of `CHOICES`), run, seed, n_removed, predicted, realised, low, high, in nats; low and high may be missing.
    """
    figure = go.Figure()
    ends = table["predicted"].min(), table["predicted"].max()
    pad = 0.08 * (ends[1] - ends[0]) or abs(ends[0]) or 1.0
    line = [ends[0] - pad, ends[1] + pad]
    figure.add_trace(
        go.Scatter(
            x=line,
            y=line,
            name="as predicted (y = x)",
            mode="lines",
            line={"color": style.GREY, "dash": "dash", "width": 1.5},
            hoverinfo="skip",
        )
    )
    for choice, (colour, symbol) in CHOICES.items():
        part = table[table["choice"] == choice]
        between = ["" if np.isnan(row.low) else f" [{row.low:+.4f}, {row.high:+.4f}]" for row in part.itertuples()]
        figure.add_trace(
            go.Scatter(
                x=part["predicted"],
                y=part["realised"],
                name=choice,
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 11},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": part["high"] - part["realised"],
                    "arrayminus": part["realised"] - part["low"],
                    "width": 6,
                    "thickness": 2,
                },
                customdata=np.stack([between, part["seed"], part["n_removed"]], axis=1),
                hovertemplate="predicted %{x:+.4f}, realised %{y:+.4f}%{customdata[0]}<br>%{customdata[2]} labels removed, seed "
                "%{customdata[1]}<extra>" + choice + "</extra>",
            )
        )
    figure.add_hline(y=0, line={"color": style.GREY, "dash": "dot", "width": 1})
    style.finish(figure, "Predicted change of the held-out loss (nats)", "Realised change (nats)", note, legend_rows=2)
    return figure


SIMULATED = dict.fromkeys(("oracle", "random"), "draws of annotations")


def cleaning_curves(
    curves: pd.DataFrame,
    bounds: pd.DataFrame,
    at: int | None,
    note: str,
    x: str = "Collected labels",
    y: str = "Correct majority labels",
    simulated: Mapping[str, str] = SIMULATED,
) -> go.Figure:
    """Share of correct labels (%) against collected labels: runs (mean ± 1 s.d. over seeds) between random and oracle.

    x, y: what n_labels counts, and what is correct · simulated: the policies that are means over five simulations, and what
    differs from one to the next.
    """
    figure = go.Figure()
    for policy, part in bounds.groupby("policy", sort=False):
        seeds = f", 5 {simulated[str(policy)]}" if policy in simulated else ""
        style.band(figure, style.thin(part), str(policy), f"{policy} · AUC {part['mean'].mean():.3f}{seeds}")
    for method, part in curves.groupby("method", sort=True):
        table = style.over_seeds(part, "correctness")
        label = f"{method} (run) · AUC {table['mean'].mean():.3f}, {style.who(part)}"
        style.band(figure, style.thin(table), str(method), label, width=3)
    if at is not None:
        figure.add_vline(x=at, line={"color": style.GREY, "dash": "dot", "width": 1})
    return style.finish(figure, x, f"{y} (%)", note)


def policy_curves(curves: pd.DataFrame, areas: pd.DataFrame, band: str, note: str) -> go.Figure:
    """Share of correct labels (%) against collected labels, one line a policy, AUC in the legend: Fig. 3 of Bernhardt et al.

    curves: policy, n_labels, mean, sd, low, high · areas: policy, auc · band: "sd" (± 1 s.d.) or "interval" (low to high).
    """
    figure, auc = go.Figure(), areas.set_index("policy")["auc"]
    policies = list(curves["policy"].unique())
    for policy in policies:
        part = style.thin(curves[curves["policy"] == policy])
        if band == "interval":
            part = part.assign(sd=(part["high"] - part["low"]) / 2)
        bound = policy in ("oracle", "random", "minimal")
        label = {
            "oracle": "oracle (upper bound)",
            "random": "random (lower bound)",
            "clean": "clean (trained on the reference labels)",
        }
        name = f"{label.get(policy, policy)} · AUC {auc[policy]:.3f}"
        style.band(figure, part, policy, name, width=2 if bound else 3, opacity=0.12)
    return style.finish(
        figure, "Collected labels", "Correct majority labels (%)", note, legend_rows=-(-len(policies) // 2)
    )


def budget(curves: pd.DataFrame, learning: bool, at: int, target: float, note: str) -> go.Figure:
    """What labels buy (%), one line a policy, and where a budget and a target lie.

    curves: policy, n_labels, mean · learning: test accuracy against labelled images, else correct labels against collected ones.
    """
    figure = go.Figure()
    names = list(curves["policy"].unique())
    for policy in names:
        part = style.thin(curves[curves["policy"] == policy]).assign(sd=0.0)
        width = 2 if policy in ("oracle", "random", "minimal") else 3
        style.band(figure, part, str(policy), str(policy), width=width, markers=learning)
    figure.add_vline(
        x=at,
        line={"color": style.GREY, "dash": "dot", "width": 2},
        annotation_text=f"{at:,} labels",
        annotation_position="bottom right",
    )
    figure.add_hline(
        y=100 * target,
        line={"color": style.GREY, "dash": "dot", "width": 2},
        annotation_text=f"{100 * target:g} %",
        annotation_position="top left",
    )
    x = "Labelled images" if learning else "Collected labels"
    y = "Test accuracy (%)" if learning else "Correct majority labels (%)"
    return style.finish(figure, x, y, note, legend_rows=-(-len(names) // 3))
