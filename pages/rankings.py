"""Rankings: every score of a cycle as a column, sorted and filtered; one image in detail."""

import streamlit as st

from core import figures, views
from core.scores import REGISTRY
from pages.ui import frame, widgets

PAGE = 100  # images a page


def show(here: frame.Here) -> None:
    """Filters, distribution, table and card."""
    table = widgets.samples(here, here.key)
    scores = [name for name in REGISTRY if name in table]
    everything = "All"

    first, second, third, fourth = st.columns(4)
    score = first.selectbox(
        "Sort by",
        ["rank", *scores],
        format_func=lambda one: "Rank (taken next first)" if one == "rank" else REGISTRY[one].title,
        key="sort",
    )
    given = second.selectbox(
        "Given label",
        [everything, *here.dataset.class_names, *(["—"] if (table["given"] == "—").any() else [])],
        key="given",
    )
    suggested = third.selectbox("Suggested label", [everything, *here.dataset.class_names], key="suggested")
    statuses = sorted(set(table["status"]))
    kinds = sorted(set(table["kind"]) - {""})
    status = fourth.multiselect("Status", [*statuses, *kinds], key="status", placeholder="All")

    kept = table
    if given != everything:
        kept = kept[kept["given"] == given]
    if suggested != everything:
        kept = kept[kept["suggested"] == suggested]
    if chosen := [one for one in status if one in statuses]:
        kept = kept[kept["status"].isin(chosen)]
    if chosen := [one for one in status if one in kinds]:
        kept = kept[kept["kind"].isin(chosen)]
    by = here.config.method if score == "rank" else score
    low, high = float(table[by].min()), float(table[by].max())
    if low < high:
        narrow = st.slider(
            f"{REGISTRY[by].title}: from … to",
            low,
            high,
            (low, high),
            key=f"range-{here.run.id}-{here.cycle}-{by}",
            format="%.3f",
        )
        if narrow != (low, high):
            kept = kept[kept[by].between(*narrow)]
    kept = kept.sort_values(score, ascending=score == "rank", na_position="last", kind="stable")

    left, right = st.columns([3, 2])
    with left:
        said = "" if here.config.task == "active-learning" else f" · {frame.posterior(here.config)}"
        st.caption(f"**{len(kept):,}** of {len(table):,} images · {REGISTRY[by].meaning}{said}")
        pages = max(1, -(-len(kept) // PAGE))
        # The widget stands below the table but decides what the table shows
        place = st.container()
        page = st.pagination(pages, key=f"page-{here.run.id}") if pages > 1 else 1
        shown = kept.iloc[(page - 1) * PAGE : page * PAGE]
        if len(shown) == 0:
            place.info("No image passes these filters: widen the range or clear a filter.")
            return
        with place:
            event = st.dataframe(
                shown.assign(image=[widgets.data_url(widgets.png(here.dataset.images[row])) for row in shown.index])[
                    [
                        "image",
                        "rank",
                        "given",
                        "suggested",
                        *scores,
                        "confidence",
                        "status",
                        "kind",
                        "n_votes",
                        "reference",
                        "sample_id",
                    ]
                ],
                hide_index=True,
                placeholder="—",
                on_select="rerun",
                selection_mode="single-row",
                height=560,
                row_height=40,
                key=f"table-{here.run.id}-{here.cycle}-{page}",
                column_config={
                    "image": st.column_config.ImageColumn("Image", width="small"),
                    "rank": "Rank",
                    "given": "Given",
                    "suggested": "Suggested",
                    "confidence": st.column_config.NumberColumn("Confidence", format="percent"),
                    "status": "Status",
                    "kind": "Kind",
                    "n_votes": "Votes",
                    "reference": "Reference",
                    "sample_id": "Sample",
                    **{
                        name: st.column_config.NumberColumn(
                            REGISTRY[name].title,
                            format="%.4f",
                            help=REGISTRY[name].formula + " — " + REGISTRY[name].meaning,
                        )
                        for name in scores
                    },
                },
            )
        widgets.table_export(lambda: kept, len(kept), f"{here.run.id}-cycle{here.cycle}-ranking")
    with right:
        rows = event["selection"]["rows"]
        if rows and rows[0] < len(shown):
            widgets.card(here, shown.iloc[rows[0]])
        else:
            st.info("Click the box at the left of a row to see the image with its votes, posterior and scores.")
    st.subheader("Distribution")
    name = by if by == here.config.method else None
    drawn = (
        widgets.run_figure(here, here.key, "distribution") if name else widgets.score_distribution(here, here.key, by)
    )
    widgets.figure(drawn, f"{here.run.id}-cycle{here.cycle}-distribution-{by}")
    disagreement(here)


def disagreement(here: frame.Here) -> None:
    """Two rankings of the same images side by side, and what they differ on most."""
    titles = views.rankings_beside(here.run, here.cycle)
    if len(titles) < 2:
        return
    st.subheader("Where two rankings disagree")
    left, right = st.columns(2)
    keys = list(titles)
    own = keys.index(here.config.method)
    first = left.selectbox("First", keys, index=own, format_func=titles.get, key=f"first-{here.run.id}")
    second = right.selectbox("Second", keys, index=0 if own else 1, format_func=titles.get, key=f"second-{here.run.id}")
    table = widgets.disagreement(here, here.key, first, second)
    if first == second or len(table) < 2:
        st.info("Choose two different rankings of images that may still be chosen.")
        return
    agreed = table["place_first"].corr(table["place_second"])
    k = max(1, min(100, len(table) // 10))
    both = len(set(table.nsmallest(k, "place_first").index) & set(table.nsmallest(k, "place_second").index))
    st.caption(
        f"{len(table):,} images that both rank · rank correlation (Spearman) **{agreed:.2f}** · of the first {k:,} of each, "
        f"**{both:,}** are the same"
    )
    drawn = figures.places(
        table, titles[first], titles[second], views.note(here.run, f"cycle {here.cycle}; 0 %: first")
    )
    picture, list_ = st.columns([3, 2])
    with picture:
        widgets.figure(drawn, f"{here.run.id}-cycle{here.cycle}-places")
    with list_:
        most = table.head(50)
        st.dataframe(
            most.assign(image=[widgets.data_url(widgets.png(here.dataset.images[row])) for row in most.index])[
                ["image", "given", "suggested", "place_first", "place_second", "kind", "sample_id"]
            ],
            hide_index=True,
            height=440,
            row_height=40,
            column_config={
                "image": st.column_config.ImageColumn("Image", width="small"),
                "given": "Given",
                "suggested": "Suggested",
                "place_first": st.column_config.NumberColumn("First", format="percent"),
                "place_second": st.column_config.NumberColumn("Second", format="percent"),
                "kind": "Kind",
                "sample_id": "Sample",
            },
        )
        widgets.table_export(lambda: table, len(table), f"{here.run.id}-disagreement", "Export both places")


if (place := frame.here("Rankings")) is not None:
    with frame.errors():
        show(place)
