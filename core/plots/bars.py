"""Bars of what adds up, signed: DataFrame → plotly Figure."""

import pandas as pd
import plotly.graph_objects as go

from core.plots import style

MOST = 40  # bars that are drawn; of a deeper network those of least weight are one bar
NAME = 22  # characters beside a bar
LEFT = 152  # pixels that these take


def layers(table: pd.DataFrame, note: str) -> go.Figure:
    """What each layer adds to an influence, from the first above to the last below: to the right what helps, in blue, to the left
    what harms, in orange and hatched.

    table: name, kind, parameters, influence (nats).
    """
    if len(table) > MOST:
        least = table["influence"].abs().nsmallest(len(table) - MOST + 1).index
        others = table.loc[least, ["influence", "parameters"]].sum()
        table = pd.concat([table.drop(least), pd.DataFrame([{"name": f"{len(least)} others", "kind": "", **others}])])
    figure = go.Figure()
    for name, part, colour, pattern in (
        ("helps", table[table["influence"] >= 0], style.BLUE, ""),
        ("harms", table[table["influence"] < 0], style.ORANGE, "/"),
    ):
        figure.add_bar(
            x=part["influence"],
            y=style.escape(part["name"].tolist()),
            name=name,
            orientation="h",
            marker={"color": colour, "pattern": {"shape": pattern}},
            customdata=part[["kind", "parameters"]],
            hovertemplate="%{x:+.3g} nats, %{customdata[1]:,} parameters<extra>%{y} %{customdata[0]}</extra>",
        )
    names = style.escape(table["name"].tolist())
    figure.update_yaxes(
        autorange="reversed",
        categoryorder="array",
        categoryarray=names,
        tickmode="array",
        tickvals=names,
        ticktext=[style.short(f"{row.name} {row.kind}".rstrip(), NAME) for row in table.itertuples(index=False)],
    )
    style.finish(
        figure, "Influence (nats)", "", note, note_width=style.NOTE_WIDTH * 2 // 3
    )  # beside the names is less room
    figure.add_vline(x=0, line={"color": style.GREY, "width": 1})
    figure.update_yaxes(automargin=False, tickfont={"size": 12})
    figure.update_annotations(xshift=8 - LEFT)  # the small print needs the whole width
    height = 68 + int(figure.layout.margin.b) + 22 * max(3, len(table))
    return figure.update_layout(height=height, barmode="relative", margin={"l": LEFT})
