"""Rankings: every score of a cycle as a column, sorted and filtered; one image in detail."""

import dataclasses

import pandas as pd
import streamlit as st

from core import methods
from core.analysis import figures, measures, rankings
from core.analysis.samples import Filter, Samples
from core.plots import maps
from pages.ui import filters, frame, tiles, widgets

PAGE = 100  # images per page
THUMBNAIL = 96  # pixels a side of the picture in a row, which enlarges where it is clicked
POINTS = 5_000  # of the scatter: what a browser draws in no time
VIEWS = {"table": "Table", "confusion": "Confusion", "scatter": "Two scores", "disagreement": "Two rankings"}
COLUMNS: widgets.Columns = {
    # Pinned: the scores scroll beside the image that they are of
    "image": st.column_config.ImageColumn("Image", width="small", pinned=True),
    "rank": st.column_config.NumberColumn("Rank", format="localized", pinned=True),
    "labelled": st.column_config.NumberColumn(
        "Labelled", format="percent", help="Share of the image's pixels that have a label"
    ),
    "confidence": st.column_config.NumberColumn("Confidence", format="percent"),
    "status": "Status",
    "kind": "Kind",
    "outcome": "Outcome",
    "n_votes": "Annotations",
    "sample_id": "Sample",
    **{
        name: st.column_config.NumberColumn(score.title, format="%.4f", help=f"{score.formula} — {score.meaning}")
        for name, score in methods.scores().items()
    },
}


def show(here: frame.Here) -> None:
    """The filters, and the view that the address names."""
    samples = widgets.cycle_samples(here, here.key)
    kept = filters.bar(here, samples)
    wanted = st.query_params.get("view", "")
    views = [name for name in VIEWS if name != "confusion" or here.run.answer.crossed]
    st.session_state["view"] = wanted if wanted in views else "table"  # the URL is the truth, the widget shows it

    def go() -> None:
        st.query_params["view"] = st.session_state["view"]

    view = st.segmented_control(
        "View",
        views,
        format_func=lambda one: VIEWS[one],
        key="view",
        on_change=go,
        required=True,
        label_visibility="collapsed",
    )
    assert view is not None  # required, and set above
    {"table": table, "confusion": confusion, "scatter": scatter, "disagreement": disagreement}[view](
        here, samples, kept
    )


def table(here: frame.Here, samples: Samples, kept: Filter) -> None:
    """The sorted table, the distribution of what it is sorted by, and the card of one image."""
    # The table takes the room of the card until one is opened
    left, right = st.columns([3, 2] if st.session_state.get("card-open") else [4, 1])
    with left:
        measured = [name for name in samples.scores if name in methods.MEASURED]
        numbers = [*(name for name in samples.columns if name == "labelled"), *measured]
        scores = [name for name in samples.scores if name not in measured]
        orders = ["rank", *scores, *numbers, "confidence", "n_votes"]
        first, second = st.columns([3, 2], vertical_alignment="bottom")
        order = first.selectbox("Sort by", orders, format_func=title, key="sort")
        direction = f"ascending-{order}"
        st.session_state.setdefault(direction, order == "rank")
        ascending = second.segmented_control(
            "Direction", [True, False], format_func=lambda low: "Low first" if low else "High first", key=direction,
            required=True, label_visibility="collapsed",
        )  # fmt: skip
        assert ascending is not None  # required, and set above
        n = samples.count(kept)
        if n == 0:
            st.info("No image passes these filters: widen a range or remove a filter.")
            return
        by = order if order in methods.scores() else here.config.method
        said = "" if not here.config.question.checks else f" · {frame.posterior(here.config)}"
        st.caption(f"{filters.count(samples, kept, n)} · {methods.described(by).meaning}{said}")
        # The widget stands below the table but decides what the table shows
        place = st.container()
        pages = -(-n // PAGE)
        page = st.pagination(pages, key=f"page-{here.run.id}-{n}") if pages > 1 else 1
        shown = samples.page(kept, order, ascending, (page - 1) * PAGE, PAGE)
        columns = [
            "image",
            "rank",
            "given",
            "suggested",
            *numbers,
            *scores,
            "confidence",
            "status",
            "kind",
            "outcome",
        ]
        columns = [name for name in columns if name not in ("kind", "outcome") or shown[name].any()]
        key = f"table-{here.run.id}-{here.cycle}-{page}-{order}-{ascending}"

        def chosen() -> None:
            """A click on a header sorts all images, not only those of the page; a second one the other way round."""
            st.session_state["card-open"] = bool(st.session_state[key]["selection"]["rows"])
            header = next(iter(st.session_state[key]["selection"]["columns"]), None)
            if header == order:
                st.session_state[direction] = not ascending
            elif header in orders:
                st.session_state["sort"] = header

        with place:
            st.caption(f"Click the header of a column of numbers to sort all {n:,} images by it, or use **Sort by**.")
            event = st.dataframe(
                with_images(here, shown)[[*columns, "n_votes", "reference", "sample_id"]],
                hide_index=True,
                placeholder="—",
                on_select=chosen,
                selection_mode=["single-row", "single-column"],  # with which the headers do not sort the page alone
                height=560,
                row_height=40,
                key=key,
                column_config=COLUMNS | headings(here),
            )
        name = f"{here.run.id}-cycle{here.cycle}-ranking"
        widgets.table_export(lambda: samples.page(kept, order, ascending).drop(columns="label"), n, name)
        distribution(here, samples, kept, by)
    with right:
        rows = event["selection"]["rows"]
        if rows and rows[0] < len(shown):
            widgets.card(here, shown.iloc[rows[0]])
        else:
            st.session_state["card-open"] = False  # a card that another page, order or filter has closed
            st.info(
                "Click the box left of a row to see the image with its annotations, what the model predicts, and scores."
            )


def distribution(here: frame.Here, samples: Samples, kept: Filter, score: str) -> None:
    """The histogram of a score; a box drawn on it becomes a range of the filter."""
    cut = samples.cut(score, here.config.budget) if score == here.config.method else None
    text = f"cycle {here.cycle}; {samples.count():,} images"
    drawn = maps.distribution(samples.histogram(score, kept), score, cut, measures.note(here.run, text))
    name = f"{here.run.id}-cycle{here.cycle}-distribution-{score}"
    brush = widgets.brush(drawn, name)
    st.caption("Draw a box on the histogram to keep what lies inside.")
    if brush is not None:
        filters.narrow(score, *brush)
        filters.forget_drawn()
        st.rerun()


def confusion(here: frame.Here, samples: Samples, kept: Filter) -> None:
    """How often which given label meets which suggestion; a cell filters."""
    counts = samples.confusion(kept)
    if counts.empty:
        st.info("No image passes these filters: widen a range or remove a filter.")
        return
    st.caption(
        f"{filters.count(samples, kept)} · off the diagonal label and model differ. Click a number, or a bar, to keep its "
        "images, here and in the gallery."
    )
    drawn = figures.confusion(here.run, counts, here.cycle)
    picked = widgets.figure(drawn, f"{here.run.id}-cycle{here.cycle}-confusion", selectable=True)
    if picked:
        given, suggested = picked[0]
        filters.choose(given=given, suggested=suggested)
        filters.forget_drawn()
        st.rerun()
    widgets.table_export(counts.reset_index, len(counts), f"{here.run.id}-cycle{here.cycle}-confusion")
    st.page_link("pages/gallery.py", label="See them in the gallery", query_params=frame.link(filtered=True))


def scatter(here: frame.Here, samples: Samples, kept: Filter) -> None:
    """Two scores against one another; a lasso selects images, whatever the filters become."""
    scores = list(samples.scores)
    if len(scores) < 2:
        st.info("This cycle has only one score: two are needed to compare them.")
        return
    left, right = st.columns(2)
    x = left.selectbox("Across", scores, format_func=title, index=len(scores) - 1, key="scatter-x")
    y = right.selectbox("Up", scores, format_func=title, index=0, key="scatter-y")
    visible = dataclasses.replace(kept, rows=None)  # the selection is made among all that pass the filters
    points = samples.points(x, y, visible, POINTS)
    if points.empty:
        st.info("No image passes these filters with both scores: remove a filter, or choose other scores.")
        return
    n = samples.count(visible)
    some = "" if len(points) == n else f" · {len(points):,} of them drawn, always the same ones"
    st.caption(f"{filters.count(samples, visible, n)}{some} · draw a lasso to select images")
    drawn = figures.scatter(here.run, points, x, y, here.cycle)
    selected = widgets.figure(drawn, f"{here.run.id}-cycle{here.cycle}-{x}-{y}", selectable=True)
    if selected:
        filters.select(here, selected)
        st.rerun()
    if kept.rows is not None:
        st.markdown(f"**Selected:** {samples.count(kept):,} images that pass the filters too")
        shown = samples.page(kept, "rank", True, 0, PAGE)
        columns = ["image", "rank", "given", "suggested", x, y, "kind", "sample_id"]
        st.dataframe(
            with_images(here, shown)[columns],
            hide_index=True,
            placeholder="—",
            row_height=40,
            column_config=COLUMNS | headings(here),
        )


def disagreement(here: frame.Here, samples: Samples, kept: Filter) -> None:
    """Two rankings of the same images side by side, and what they differ on most."""
    titles = rankings.rankings_beside(here.run, here.cycle)
    if len(titles) < 2:
        st.info(
            "There is only one ranking of these images: run another strategy or selector on the same data and seed."
        )
        return
    left, right = st.columns(2)
    keys = list(titles)
    own = keys.index(here.config.method)

    def named(key: str) -> str:
        return titles.get(key, key)  # one that an earlier cycle had is still asked for

    first = left.selectbox("First", keys, index=own, format_func=named, key=f"first-{here.run.id}")
    second = right.selectbox("Second", keys, index=0 if own else 1, format_func=named, key=f"second-{here.run.id}")
    both_ranked = widgets.disagreement(here, here.key, first, second)
    if first == second or len(both_ranked) < 2:
        st.info("Choose two different rankings of images that may still be chosen.")
        return
    found = rankings.agreement(both_ranked)
    st.caption(
        f"{len(both_ranked):,} images that both rank · rank correlation (Spearman) **{found.correlation:.2f}** · of the first "
        f"{found.first:,} of each, **{found.shared:,}** are the same"
    )
    points = rankings.some(both_ranked, POINTS)
    some = "" if len(points) == len(both_ranked) else f"; {len(points):,} of them drawn"
    text = measures.note(here.run, f"cycle {here.cycle}; {len(both_ranked):,} images that both rank; 0 %: first{some}")
    picture, most = st.columns([3, 2])
    with picture:
        drawn = maps.places(points, titles[first], titles[second], text)
        widgets.figure(drawn, f"{here.run.id}-cycle{here.cycle}-places")
    with most:
        columns = ["image", "given", "suggested", "place_first", "place_second", "kind", "sample_id"]
        places = {
            "place_first": st.column_config.NumberColumn("First", format="percent"),
            "place_second": st.column_config.NumberColumn("Second", format="percent"),
        }
        st.dataframe(
            with_images(here, both_ranked.head(50))[columns],
            hide_index=True,
            height=440,
            row_height=40,
            column_config={**COLUMNS, **headings(here), **places},
        )
        widgets.table_export(lambda: both_ranked, len(both_ranked), f"{here.run.id}-disagreement", "Export both places")


def title(name: str) -> str:
    """What a column is called."""
    others = {
        "rank": "Rank (taken next first)",
        "labelled": "Share of labelled pixels",
        "confidence": "Confidence of the suggestion",
        "n_votes": "Number of annotations",
    }
    return others[name] if name in others else methods.described(name).title


def headings(here: frame.Here) -> widgets.Columns:
    """What the columns of labels are called in this run."""
    return {name: text.removesuffix(" label") for name, text in here.run.answer.headings.items()}


def with_images(here: frame.Here, shown: pd.DataFrame) -> pd.DataFrame:
    """The table with a small picture a row."""
    return shown.assign(image=tiles.pictures(here, shown, THUMBNAIL))


if (place := frame.here("Rankings")) is not None:
    with frame.errors():
        show(place)
