"""Gallery: the images themselves, from clear noise to ambiguous."""

import streamlit as st

from core.scores import REGISTRY
from pages.ui import frame, widgets

ORDERS = {"cleaning": "From clear noise to ambiguous: Φ = CE − H, high first", "rank": "Rank: taken next first"}


def show(here: frame.Here) -> None:
    """The map, and the ordered grid of what is selected on it."""
    table = widgets.map_table(here, here.key)
    if here.config.task == "label-cleaning":
        st.markdown(
            "High on the map the model disagrees with the label; to the right it is unsure. So top left is most likely **clear "
            "label noise**, and right is **ambiguous**. Draw a box or a lasso to see the images inside."
        )
    else:
        st.markdown(
            "High on the map the model disagrees with the reference label, which the strategy does not see; to the right it is "
            "unsure. Draw a box or a lasso to see the images inside."
        )
    selected = widgets.figure(
        widgets.run_figure(here, here.key, "map"), f"{here.run.id}-cycle{here.cycle}-map", selectable=True
    )
    scores = [name for name in REGISTRY if name in table]
    orders = [name for name in ("cleaning", "rank", *scores) if name in table.columns]
    first, second, third, fourth = st.columns(4)
    order = first.selectbox(
        "Order",
        list(dict.fromkeys(orders)),
        format_func=lambda one: ORDERS.get(one, one if one not in REGISTRY else REGISTRY[one].title),
        key="order",
    )
    kinds = [kind for kind in ("clear noise", "difficult", "correct") if (table["kind"] == kind).any()]
    kind = second.selectbox("Kind", ["All", *kinds], key="kind")
    given = third.selectbox("Given label", ["All", *here.dataset.class_names], key="gallery-given")
    size = fourth.select_slider(
        "Thumbnails", [72, 104, 144, 200], 104, format_func=lambda side: f"{side} px", key="tile"
    )
    kept = table if not selected else table.loc[table.index.intersection(selected)]
    if kind != "All":
        kept = kept[kept["kind"] == kind]
    if given != "All":
        kept = kept[kept["given"] == given]
    kept = kept.sort_values(order, ascending=order == "rank", na_position="last", kind="stable")
    if len(kept) == 0:
        st.info("No image passes these filters: clear one of them, or the selection on the map (double click).")
        return
    page_size = 100
    pages = -(-len(kept) // page_size)
    st.caption(
        f"**{len(kept):,}** of {len(table):,} images"
        + (" · selected on the map" if selected else "")
        + " · below each: score, given → suggested label"
    )
    grid, side = st.columns([3, 1])
    with grid:
        place = st.container()
        page = st.pagination(pages, key=f"gallery-page-{here.run.id}") if pages > 1 else 1
        with place:
            shown = kept.iloc[(page - 1) * page_size : page * page_size]
            score = here.config.method if order == "rank" else order
            picked = widgets.thumbnails(here, shown, score, f"gallery-{here.run.id}", size)
    with side:
        match = table[table["sample_id"] == picked]
        if len(match):
            widgets.card(here, match.iloc[0])
        else:
            st.info("Click an image to see its votes, posterior and scores.")


if (place := frame.here("Gallery")) is not None:
    with frame.errors():
        show(place)
