"""What is measured of each class, cycle by cycle: DataFrame → plotly Figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.plots import style

WRITTEN = 16  # cycles, up to which each cell has its number


def iou(table: pd.DataFrame, at: int, note: str) -> go.Figure:
    """IoU of each class (rows) in each cycle (columns), from 0 to 1; the cycle `at` is framed. NaN cells are left empty."""
    values = table.to_numpy(dtype=np.float64)
    names = table.index.tolist()
    written = len(table.columns) <= WRITTEN
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=table.columns.tolist(),
            y=list(range(len(names))),
            zmin=0,
            zmax=1,
            colorscale="Cividis",
            colorbar={"title": {"text": "IoU"}, "thickness": 12, "tickformat": ".0%"},
            text=[[f"{100 * one:.0f}" if np.isfinite(one) else "" for one in row] for row in values]
            if written
            else None,
            texttemplate="%{text}" if written else None,
            customdata=[[style.escape([name])[0]] * len(table.columns) for name in names],
            hovertemplate="%{customdata}, cycle %{x}: %{z:.3f}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    if at in table.columns:
        figure.add_shape(
            type="rect", x0=at - 0.5, x1=at + 0.5, y0=-0.5, y1=len(names) - 0.5, line={"color": style.GREY, "width": 2}
        )
    figure.update_xaxes(tickmode="array" if written else "auto", tickvals=table.columns.tolist() if written else None)
    style.finish(figure, "Cycle", "", note, note_width=style.NOTE_WIDTH * 2 // 3)  # beside the names is less room
    figure.update_yaxes(
        autorange="reversed",
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=[style.short(one) for one in names],
    )
    return figure.update_layout(height=120 + int(figure.layout.margin.b) + 22 * max(3, len(names)))
