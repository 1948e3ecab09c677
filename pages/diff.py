"""Diff: two cycles, of one run or of two, side by side."""

import pandas as pd
import streamlit as st

from core.analysis import diff, measures
from core.analysis import layers as analysed
from core.runs import run as runs
from core.runs.run import Run
from pages.ui import frame, layers, tiles, widgets

POINTS = 5_000  # on the plane of ranks
SHOWN = 24  # thumbnails of a group
ROWS = 200  # of a table
THUMBNAIL = 96  # pixels a side of the picture in its rows
GROUPS = {
    "labelled by the first alone": "Labelled only by the first",
    "labelled by the second alone": "Labelled only by the second",
    "next by the first alone": "Next only by the first",
    "next by the second alone": "Next only by the second",
}
MEASURES = {
    "n_labels": "Labels",
    "correctness": "Correct labels",
    "estimated_correctness": "Correct labels, estimated",
    "estimated_low": "… 95 % interval from",
    "estimated_high": "… to",
    "agreement": "Labels that the model agrees with",
    "accuracy": "Test accuracy",
    "miou": "Test mean IoU",
    "pixel_accuracy": "Test pixel accuracy",
    "clear_errors": "Clear errors left",
    "difficult_errors": "Difficult errors left",
    "gap": "Generalisation gap",
}
SHARES = (
    "correctness",
    "estimated_correctness",
    "estimated_low",
    "estimated_high",
    "agreement",
    "accuracy",
    "miou",
    "pixel_accuracy",
    "gap",
)
MASKS: widgets.Columns = {
    "image": st.column_config.ImageColumn("Image", width="small"),
    "sample_id": "Sample",
    "same": st.column_config.NumberColumn("Same class", format="percent", help="Share of the pixels"),
    "iou_first": st.column_config.NumberColumn("IoU, first", format="%.3f"),
    "iou_second": st.column_config.NumberColumn("IoU, second", format="%.3f"),
    "change": st.column_config.NumberColumn("Change", format="%+.3f"),
}
COLUMNS: widgets.Columns = {
    "image": st.column_config.ImageColumn("Image", width="small"),
    "sample_id": "Sample",
    "given_first": "Label, first",
    "given_second": "Label, second",
    "rank_first": st.column_config.NumberColumn("Rank, first", format="localized"),
    "rank_second": st.column_config.NumberColumn("Rank, second", format="localized"),
    "moved": st.column_config.NumberColumn(
        "Moved", format="%+d", help="Places by which the second takes it earlier (+) or later (−)."
    ),
}


def other_side(here: frame.Here) -> diff.Side | None:
    """What stands against the run and cycle of the sidebar; both in the address. None where there is nothing."""
    candidates = {run.id: run for run in diff.comparable(here.run)}
    if len(candidates) == 1 and here.n_cycles == 1:
        st.info("There is only one cycle of these images: step on Cycles, or branch there, then compare.")
        return None
    default = here.config.parent if here.config.parent in candidates else None
    others = sorted(  # what asks the same question first
        (run for run in candidates.values() if run.id != here.run.id),
        key=lambda run: run.config.task != here.config.task,
    )
    default = default or (others[0].id if others else here.run.id)
    if here.n_cycles > 1 and here.config.parent is None:
        default = here.run.id
    wanted = st.query_params.get("other", default)
    if wanted not in candidates:
        st.warning("The link names a second run that is not here, or not of these images; showing another.")
        wanted = default
    left, right = st.columns([3, 1])
    names = list(candidates)
    picked = left.selectbox(
        "Compare with run", names, index=names.index(wanted), format_func=name_of, key=f"other-{here.run.id}-{wanted}"
    )
    n = len(candidates[picked].cycles())
    last = min(here.cycle, n - 1) if picked != here.run.id else (here.cycle - 1 if here.cycle else 1)
    given = st.query_params.get("other_cycle", "") if picked == wanted else ""
    cycle = int(given) if given.isdecimal() and int(given[:8]) < n else last
    cycle = right.selectbox("at cycle", range(n), index=cycle, key=f"other-cycle-{here.key}-{picked}-{cycle}")
    st.query_params.update({"other": picked, "other_cycle": str(cycle)})
    return diff.Side(candidates[picked], cycle)


def name_of(name: str) -> str:
    """A run in a few words."""
    return frame.describe(runs.find(name))


def written(value: float, measure: str, sign: str) -> str:
    """A measure, or with a sign its change: that of a share in points."""
    if measure not in SHARES:
        return format(value, f"{sign},.0f")
    return f"{100 * value:{sign}.1f} {'points' if sign else '%'}"


def show(here: frame.Here) -> None:
    """First: the run and cycle of the sidebar. Second: what is chosen here."""
    second = other_side(here)
    if second is None:
        return
    st.caption(f"**First**: {title(here.run, here.cycle)} · **second**: {title(second.run, second.cycle)}")
    found = difference(here, here.key, second.run.id, second.cycle, len(second.run.cycles()))
    st.markdown(diff.sentence(found))
    left, right = st.columns(2)
    with left:
        st.subheader("Measures")
        table = found.measures.copy()
        for name in ("first", "second", "change"):
            sign = "+" if name == "change" else ""
            table[name] = [
                "—" if value != value else written(value, measure, sign)
                for measure, value in zip(table["measure"], found.measures[name], strict=True)
            ]
        titles = MEASURES | {"accuracy": measures.measure_title("accuracy", here.config)}
        table["measure"] = table["measure"].map(titles)
        st.table(table.set_index("measure"))
    with right:
        st.subheader("Settings that differ")
        if found.settings.empty:
            st.caption("None: what differs comes from the labels.")
        else:
            st.table(found.settings.set_index("setting"))
    if here.run.answer.layers:
        masks(here, second)
    chosen(here, found)
    ranks(here, found, second)
    samples = found.samples
    tables(here, "Moved furthest", diff.moved(samples), "moved")
    tables(here, "Other label", diff.relabelled(samples), "relabelled")


def title(run: Run, cycle: int) -> str:
    """A cycle of a run in a few words."""
    return f"{frame.plain(frame.describe(run))}, cycle {cycle}"


@st.cache_resource(max_entries=8, show_spinner="Comparing…")
def difference(_here: frame.Here, key: tuple[str, int, int], other: str, cycle: int, n_cycles: int) -> diff.Diff:
    """How this cycle differs from a cycle of another run."""
    return diff.diff(diff.Side(_here.run, _here.cycle), diff.Side(runs.find(other), cycle))


@st.cache_resource(max_entries=4, show_spinner="Comparing the masks…")
def differing(_here: frame.Here, key: tuple[str, int, int], other: str, cycle: int, n_cycles: int) -> pd.DataFrame:
    """How the predicted masks of this cycle differ from those of a cycle of another run."""
    second = analysed.of_cycle(runs.find(other), _here.dataset, cycle)
    return analysed.between(layers.of_cycle(_here, _here.key), second, _here.dataset.ids)


def masks(here: frame.Here, second: diff.Side) -> None:
    """The predicted masks of an image side by side, and all images by how far theirs are alike."""
    st.subheader("Predicted masks")
    table = differing(here, here.key, second.run.id, second.cycle, len(second.run.cycles()))
    known = table["change"].notna().any()
    st.caption(
        f"On average both give **{table['same'].mean():.1%}** of an image's pixels the same class; those that differ most first."
        + (" IoU: of each with the reference, which no strategy sees." if known else "")
        + " Click the box left of a row to see its masks."
    )
    shown = table.head(ROWS)
    left, right = st.columns([3, 2])
    with left:
        key = f"masks-{here.key}-{second.run.id}-{second.cycle}"
        event = st.dataframe(
            shown.assign(image=tiles.pictures(here, shown, THUMBNAIL))[
                ["image", *shown.columns[: None if known else 2]]
            ],
            hide_index=True,
            height=360,
            row_height=40,
            placeholder="—",
            column_config=MASKS,
            on_select="rerun",
            selection_mode="single-row",
            key=key,
        )
        widgets.table_export(lambda: table, len(table), f"{here.run.id}-masks")
    with right:
        picked = event["selection"]["rows"]
        row = int(shown.index[picked[0] if picked and picked[0] < len(shown) else 0])
        there = frame.Here(second.run, second.config, here.dataset, second.cycle, len(second.run.cycles()))
        layers.beside(here, there, row)


def chosen(here: frame.Here, found: diff.Diff) -> None:
    """Thumbnails of what one chose and the other did not."""
    st.subheader("Images selected by only one run")
    masks = diff.groups(found.samples)
    filled = [name for name in GROUPS if masks[name].any()]
    if not filled:
        st.caption("None: both selected the same images.")
        return
    name = st.segmented_control(
        "Group",
        filled,
        default=filled[0],
        required=True,
        format_func=lambda one: f"{GROUPS[one]} ({int(masks[one].sum()):,})",
        key=f"group-{here.key}",
        label_visibility="collapsed",
    )
    by = "rank_first" if "first" in name else "rank_second"
    mine = found.samples[masks[name]].sort_values(by, kind="stable")
    table = diff.named(mine.head(SHOWN), here.dataset)
    labels = table["given_first" if "first" in name else "given_second"]
    st.image(tiles.pictures(here, table, 96), caption=[frame.plain(one) for one in labels], width=88)
    if len(mine) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(mine):,}.")
    widgets.table_export(lambda: diff.named(mine, here.dataset), len(mine), f"{here.run.id}-{name.replace(' ', '-')}")


def ranks(here: frame.Here, found: diff.Diff, second: diff.Side) -> None:
    """Every image by its two ranks; a lasso lists what lies in it."""
    both = found.samples[(found.samples["rank_first"] > 0) & (found.samples["rank_second"] > 0)]
    if len(both) < 2:
        return
    st.subheader("Ranks")
    drawn = diff.drawn(both, here.dataset, here.run, here.cycle, second.run, second.cycle, POINTS)
    picked = widgets.figure(drawn, f"{here.run.id}-cycle{here.cycle}-ranks", selectable=True)
    if picked:
        tables(here, "Selected on the figure", both.loc[sorted({int(row) for row in picked})], "selected")
    else:
        st.caption("Draw a lasso on the figure to list the images in it.")


def tables(here: frame.Here, heading: str, samples: pd.DataFrame, name: str) -> None:
    """The first rows of a table of images, and all of it as a file."""
    st.subheader(f"{heading} ({len(samples):,})")
    if samples.empty:
        st.caption("None.")
        return
    table = diff.named(samples.head(ROWS), here.dataset)
    st.dataframe(
        table.assign(image=tiles.pictures(here, table, THUMBNAIL))[["image", *table.columns]],
        hide_index=True,
        height=320,
        row_height=40,
        placeholder="—",
        column_config=COLUMNS,
    )
    widgets.table_export(lambda: diff.named(samples, here.dataset), len(samples), f"{here.run.id}-{name}")


if (place := frame.here("Diff")) is not None:
    with frame.errors():
        show(place)
