"""Cycles: run, step, pause, cancel; what each cycle did."""

from typing import Literal, NoReturn

import pandas as pd
import streamlit as st

from core import methods
from core.analysis import budget, labelling, layers, measures
from core.analysis.samples import Filter
from core.files import bundle, handout, maskexport, report
from core.runs import annotation, branch, imported, jobs, spec
from core.runs import run as runs
from core.runs.run import Run
from data.files import skipped, upload
from pages.ui import frame, tiles, widgets

METRIC = 171  # pixels: two side by side on a phone
WIDE = 226  # of a number with its interval
PREVIEW = 12  # images shown before they are taken
Colour = Literal["normal", "inverse", "off"]  # of a change: which way is better
FORMS, SHAPES = {"png": "PNG files", "coco": "COCO"}, {"rle": "RLE", "polygons": "Polygons"}  # of exported masks
PHASES = {"label": "collecting labels", "train": "training", "score": "scoring"}

frame.setup("Cycles")
run, cycle = frame.sidebar()
st.title("Cycles")


def controls(run: Run, state: str, done: int) -> None:
    """The buttons that start and stop work."""
    busy, target = state in ("running", "pausing"), run.target()
    if st.button(
        "▶ Run to the end" if done < target else "▶ Run",
        type="primary",
        disabled=busy or done >= target,
        key="run-on",
        help=f"Work until {target} cycles are done.",
    ):
        jobs.start(run)
        follow()
    if st.button(
        "Step: one cycle", disabled=busy, key="step", help="Collect the next labels, train and score once more."
    ):
        with frame.errors():
            annotation.check_step(run)
            jobs.start(run, until=done + 1)
            follow()
    if st.button(
        "Take the top …",
        disabled=busy or done == 0 or run.config.annotator == "person",
        key="take",
        help=f"Run one cycle with another number of {budget.unit(run).one}s than the budget; you see the images first.",
    ):
        take(run)
    if st.button(
        "Pause", disabled=state != "running", key="pause", help="Stop after the present step; nothing is lost."
    ):
        jobs.pause(run)
        st.rerun()
    if st.button(
        "Cancel",
        disabled=not busy,
        key="cancel",
        help="Stop now. The unfinished step is lost, finished ones are kept.",
    ):
        jobs.cancel(run)
        st.rerun()


@st.dialog("Take the top of the ranking", width="large")
def take(run: Run) -> None:
    """One cycle with as many labels as the user says, the images that it takes first shown before."""
    with frame.errors():
        last = len(run.cycles()) - 1
        here = frame.Here(run, run.config_at(last), frame.dataset(run.config), last, last + 1)
        samples, learning = widgets.cycle_samples(here, here.key), not run.config.question.checks
        unit, ranked = budget.unit(run), budget.offer(run, here.dataset, last)
        if ranked == 0:
            st.info("Nothing is left to take: every image has its label.")
            return
        left, right = st.columns(2, vertical_alignment="bottom")
        name = f"{unit.one}s".capitalize()
        counted = left.segmented_control(
            "Count in", ["labels", "%"], default="labels", required=True, key="take-unit",
            format_func=lambda one: {"labels": name, "%": f"% of the ranked {unit.offered}s"}[one],
        )  # fmt: skip
        if counted == "%":
            share = right.number_input("Share (%)", 0.1, 100.0, 5.0, 0.5, key="take-share", format="%.1f")
            labels = max(1, round(ranked * share / 100))
        else:
            usual = max(1, min(here.config.budget, ranked))
            labels = right.number_input(name, 1, ranked, usual, key="take-labels")
        first = samples.page(Filter(), "rank", True, 0, min(labels, PREVIEW))
        score = methods.described(here.config.method)
        asked = (
            ""
            if learning or not run.answer.counted
            else " An image is asked about until its label has a majority, so these are at most as many images."
        )
        st.markdown(f"**{labels:,}** of {ranked:,} ranked {unit.offered}s by {score.title}, the first of them:{asked}")
        captions = [
            frame.plain(
                f"{row.rank}: " + (f"{row.suggested}?" if row.given == "—" else f"{row.given} → {row.suggested}")
            )
            for row in first.itertuples()
        ]
        st.image(tiles.pictures(here, first, 88), caption=captions, width=88)
        if st.button(f"Take {labels:,} and train", type="primary", key="take-on"):
            jobs.start(run, until=last + 2, labels=int(labels))
            follow()


def like_it(run: Run) -> None:
    """For an example, instead of controls: a run of one's own with its settings."""
    if st.button(
        "▶ Run it yourself",
        type="primary",
        key="like-it",
        help="Start a new run with the same settings; it takes a few minutes.",
    ):
        with frame.errors():
            made = runs.create(run.config, run.about)
            jobs.start(made)
            st.query_params.from_dict({"run": made.id})
            st.rerun()


def branch_off(run: Run, cycle: int) -> None:
    """Another way on from the cycle we stand at, as a run of its own."""
    config, learning = run.config, not run.config.question.checks
    with st.popover(f"Branch from cycle {cycle}", icon=":material/call_split:"):
        st.caption(
            f"A new run with the labels and rankings up to here. Cycle {cycle} is ranked again by what you choose, and the next "
            "labels follow that. This run stays as it is."
        )
        changes: dict[str, str | int | None] = {}
        names = list(methods.strategies.CATALOGUE if learning else spec.scores())
        names = [name for name in names if run.answer.kind in methods.drawn(name).answers]
        if not config.trains:
            names = [name for name in names if imported.needs_of(name, config.task) != "model"]
        changes["method"] = st.selectbox(
            "Strategy" if learning else "Score: which labels first",
            names,
            index=names.index(config.method) if config.method in names else 0,
            format_func=lambda one: methods.described(one).title,
            key=f"branch-method-{run.id}",
        )
        if not learning:
            ways = [
                name
                for name, way in methods.selectors.CATALOGUE.items()
                if (way.trains or name == config.selector) and run.answer.kind in way.answers
            ]
            changes["selector"] = st.selectbox(
                "Selector: how the model learns",
                ways,
                index=ways.index(config.selector) if config.selector in ways else 0,
                key=f"branch-selector-{run.id}",
            )
        people = config.annotator == "person"
        if learning and not people:
            people = st.toggle(
                "People give the labels from here on",
                key=f"branch-people-{run.id}",
                help="Label on the page Annotate from here on; the labels up to here stay as they are.",
            )
            changes["annotator"] = "person" if people else config.annotator
        if not people:
            changes["budget"] = st.number_input(
                f"{budget.unit(run).one}s per cycle".capitalize(),
                1,
                max(1_000_000, config.budget),
                max(1, config.budget),
                50,
                key=f"branch-budget-{run.id}",
            )
            cycles = st.number_input(
                "Cycles in all",
                cycle + 1,
                1000,
                max(run.target(), cycle + 2),
                key=f"branch-cycles-{run.id}-{cycle}",
            )
        else:
            cycles = None
        if st.button("Branch and go on", type="primary", key="branch"):
            with frame.errors():
                made = branch.branch(run, frame.dataset(config), cycle, cycles=cycles, **changes)
                jobs.start(made)
                st.query_params.from_dict({"run": made.id})
                st.rerun()


def follow() -> NoReturn:
    """Draw again at the newest cycle."""
    st.query_params.pop("cycle", None)
    st.rerun()


@st.fragment(run_every=1.0)
def watch(run_id: str, state: str, done: int) -> None:
    """Progress of the worker; redraws the page when a cycle or the work is finished."""
    with frame.errors():
        run = runs.find(run_id)
        now, _ = run.status()
        worker = run.live()
        if now != state or len(run.cycles()) != done:
            st.rerun()
        if not worker.phase:
            st.progress(0.0, text="Starting the worker…")
            return
        text = f"Cycle {worker.cycle}: {PHASES[worker.phase]}"
        if worker.seconds_left is not None:
            text += f" · about {worker.seconds_left:.0f} s left"
        if now == "pausing":
            text += " · pausing after this step"
        st.progress(min(1.0, worker.share), text=text)


def change(by: float, text: str) -> str:
    """How much a number changed that is written as `text`; shares in points."""
    return f"{100 * by:+.1f} points" if text.endswith("%}") else f"{by:+,.0f}"


def metric(title: str, text: str, before: pd.Series | None, row: pd.Series, name: str, colour: Colour) -> None:
    """A number of a cycle, and its change since the one before."""
    delta = (
        None
        if before is None or pd.isna(before.get(name))
        else change(row[name] - before[name], "{:.1%}" if "%" in text else "{:,.0f}")
    )
    st.metric(title, text, delta, border=True, delta_color=colour, width=METRIC)


def history(run: Run, cycle: int) -> None:
    """Metrics of the cycle we stand at, and what each cycle did."""
    here = frame.Here(run, run.config_at(cycle), frame.dataset(run.config), cycle, len(run.cycles()))
    table = run.cycles()
    row, before = table.iloc[cycle], table.iloc[cycle - 1] if cycle > 0 else None
    counts = {
        "tied": ("Tied images", "{:,.0f}"),
        "gap": ("Generalisation gap", "{:.1%}"),
        "clear_errors": ("Clear errors left", "{:,.0f}"),
    }
    with st.container(horizontal=True):
        unit = budget.unit(run)
        metric(f"{unit.one}s".capitalize(), f"{row[unit.column]:,.0f}", before, row, unit.column, "off")
        for name, shown in measures.measures(run.config, row).items():
            if shown.certain:
                metric(shown.title, shown.text, before, row, name, "normal")
            else:
                frame.hint(shown, shown.title, border=True, width=WIDE if shown.interval else METRIC)
        for name, (title, text) in counts.items():
            if pd.notna(row.get(name)) and (name != "tied" or table["tied"].any()):
                metric(title, text.format(row[name]).replace("%", " %"), before, row, name, "inverse")
    for note in dict.fromkeys(one.note for one in measures.measures(run.config, row).values() if one.note):
        st.caption(note)
    if warned := measures.underfit(run.config, row):
        st.warning(frame.plain(warned))
    if row.get("tied", 0) > 0:
        st.caption(
            "Tied: people gave several classes equally often, so that no label stands. Tied images are left out of the "
            "training and come first in the ranking, until one more annotation decides."
        )
    widgets.figure(widgets.run_figure(here, here.key, "curves"), f"{run.id}-curves")
    by_class(here)
    st.subheader("What each cycle did")
    changes = widgets.changes(here, here.key)
    st.dataframe(
        changes,
        hide_index=True,
        column_config={
            "cycle": "Cycle",
            "labels": "Labels added",
            "samples": "Images touched",
            "changed": "Majority changed" if run.answer.tabular else None,
            "n_labels": "Labels so far",
            "n_pixels": st.column_config.NumberColumn("Pixels so far", format="localized"),
            "training_s": st.column_config.NumberColumn("Training", format="%.1f s"),
            "scoring_s": st.column_config.NumberColumn("Scoring", format="%.1f s"),
            **{
                name: st.column_config.NumberColumn(measures.measure_title(name, run.config), format="percent")
                for name in run.answer.measured
            },
            "correctness": st.column_config.NumberColumn(
                measures.measure_title("correctness", run.config), format="percent"
            ),
            "label_miou": st.column_config.NumberColumn(
                "Mean IoU of the labels", format="percent", help="Of the masks that stand, against the reference."
            ),
            "fitted": st.column_config.NumberColumn(
                "Labels fitted", format="percent", help="Labels that the model predicts after it was trained on them."
            ),
            "estimated_correctness": st.column_config.NumberColumn(
                "Correct labels, estimated" if "estimated_low" in table else "Correct labels, in-sample estimate",
                format="percent",
                help="An in-sample estimate, by a model that has learnt the labels, is too high.",
            ),
            "estimated_low": st.column_config.NumberColumn("from", format="percent", help="95 % interval."),
            "estimated_high": st.column_config.NumberColumn("to", format="percent", help="95 % interval."),
            "checked_at_random": st.column_config.NumberColumn(
                "Random images", help="Images drawn at random that people have answered: what the estimate rests on."
            ),
            "agreement": st.column_config.NumberColumn("Model agrees, out of fold", format="percent"),
            "tied": "Tied images",
            "clear_errors": "Clear errors left",
            "difficult_errors": "Difficult errors left",
            "train_accuracy": st.column_config.NumberColumn("Train accuracy", format="percent"),
            "train_miou": st.column_config.NumberColumn("Train mean IoU", format="percent"),
            "train_pixel_accuracy": st.column_config.NumberColumn("Train pixel accuracy", format="percent"),
            "gap": st.column_config.NumberColumn("Gap", format="percent"),
            "selected": st.column_config.NumberColumn("Chosen before", help="Images that the previous ranking chose."),
            "fell": st.column_config.NumberColumn(
                "Norm fell", help="Images chosen before whose gradient norm is no larger now that they are learnt."
            ),
            "pool": st.column_config.NumberColumn(
                "Ranked before", help="All candidates of the previous ranking, chosen or not."
            ),
            "pool_fell": st.column_config.NumberColumn(
                "Norm fell, all ranked",
                help="The control: of all candidates of the previous ranking, those whose gradient norm is no larger now.",
            ),
            **{name: None for name in changes if name.startswith("influence_")},  # Curves shows these
        },
        placeholder="—",
    )
    with st.container(horizontal=True):
        widgets.table_export(lambda: changes, len(changes), f"{run.id}-cycles")
        widgets.table_export(run.log.labels, int(changes["labels"].sum()), f"{run.id}-labels", "Export label log")
        report_export(here)
        widgets.whole_run(here)
        if not run.answer.tabular:
            masks_export(here)
        elif run.config.question.checks:
            n = len(here.dataset)
            widgets.table_export(
                lambda: labelling.cleaned(run, here.dataset, cycle), n, f"{run.id}-cleaned", "Export cleaned labels"
            )
            widgets.table_export(
                lambda: labelling.issues(run, here.dataset, cycle), n, f"{run.id}-issues", "Export suspected errors"
            )
    if text := labelling.untrained_text(run, cycle):
        st.caption(text)
    if run.config.question.checks and cycle > 0:
        relabels(here)


def masks_export(here: frame.Here) -> None:
    """A download button for the masks that stand at the cycle."""
    run, dataset, cycle = here.run, here.dataset, here.cycle
    with st.popover("Export masks"):
        st.caption("The masks that stand at this cycle, as large as the run sees the images.")
        form = st.segmented_control(
            "Format",
            list(FORMS),
            default="png",
            format_func=lambda one: FORMS[one],
            required=True,
            key=f"masks-form-{run.id}",
        )
        shape = "rle"
        if form == "coco":
            shape = st.segmented_control(
                "Annotations",
                list(SHAPES),
                default="rle",
                format_func=lambda one: SHAPES[one],
                required=True,
                key=f"masks-shape-{run.id}",
                help="RLE: one annotation for each class of an image. Polygons: one for each connected region, as RLE where it "
                "has a hole.",
            )
        size, most = dataset.images.nbytes, bundle.MOST_IMAGES
        images = st.checkbox(
            f"With the images ({size / 1e6:,.1f} MB)",
            key=f"masks-images-{run.id}",
            disabled=size > most,
            help="All images of the pool, at the size of the masks."
            if size <= most
            else f"More than the {most >> 20:,} MB that the browser is handed: the command line writes them.",
        )

        def content() -> bytes:
            masks = maskexport.standing(run, dataset, labelling.through(run, cycle))
            return maskexport.to_bytes(dataset, masks, form, images=images, polygons=shape == "polygons")

        ending = maskexport.ending(form, images)
        st.download_button(
            "ZIP" if ending == ".zip" else "JSON",
            content,
            f"{run.id}-cycle{cycle}-masks{ending}",
            "application/zip" if ending == ".zip" else "application/json",
            key=f"masks-{run.id}",
            on_click="ignore",
            width="stretch",
        )


def report_export(here: frame.Here) -> None:
    """Download buttons for the run on one page."""
    run, name = here.run, f"{here.run.id}-cycle{here.cycle}-report"
    with st.popover("Report"):
        st.caption(
            "The run on one page: what was run, its curve and key figures, its cycles, and images before and after."
        )
        st.download_button(
            "HTML",
            lambda: report.html(run, here.dataset, here.cycle).encode(),
            f"{name}.html",
            "text/html",
            key=f"{name}-html",
            on_click="ignore",
            width="stretch",
        )
        st.download_button(
            "PDF",
            lambda: report.pdf(run, here.dataset, here.cycle),
            f"{name}.pdf",
            "application/pdf",
            key=f"{name}-pdf",
            on_click="ignore",
            width="stretch",
            disabled=not widgets.has_browser(),
            help=None if widgets.has_browser() else "PDF is printed by Chrome or Chromium, and none was found.",
        )


def by_class(here: frame.Here) -> None:
    """The IoU of each class on the test set, where labels are masks."""
    drawn = layers.class_figure(here.run, here.cycle)
    if drawn is None:
        return
    st.subheader("IoU of each class")
    name = f"{here.run.id}-cycle{here.cycle}-class-iou"
    widgets.figure(drawn, name)
    table = here.run.class_iou().reset_index()
    widgets.table_export(lambda: table, len(table), name, "Export IoU")


def relabels(here: frame.Here) -> None:
    """What each relabel did; of labels that no table holds, what was checked."""
    table = widgets.relabels(here, here.key)
    label = "Export relabels"
    if not here.run.answer.tabular:
        label = "Export checks"
        st.subheader("What was checked")
        table = table.drop(columns=["votes", "n_votes", "before", "after", "formed", "kind"])
    else:
        st.subheader("What each relabel did")
        counts = table["kind"][table["kind"] != ""].value_counts()
        if len(counts):
            st.caption(" · ".join(f"{kind}: **{count:,}**" for kind, count in counts.items()))
    st.dataframe(
        table,
        hide_index=True,
        height=320,
        column_config={
            "relabel": "No.",
            "cycle": "Cycle",
            "sample_id": "Image",
            "votes": "Labels drawn",
            "n_votes": "Number",
            "before": "Before",
            "after": "After",
            "formed": st.column_config.CheckboxColumn(
                "Majority", help="Says whether one class has more labels than any other."
            ),
            "score": st.column_config.NumberColumn("Score when chosen", format="%.3f"),
            "kind": "Kind of case",
            "source": "From",
            "pixels": st.column_config.NumberColumn("Pixels", format="localized"),
        },
    )
    widgets.table_export(lambda: table, len(table), f"{here.run.id}-relabels", label)


def bring_in(run: Run, cycle: int | None) -> None:
    """Labels that people gave: what to hand out, and a place to bring them back."""
    with st.container(border=True):
        how = "import labels" if cycle is None else "hand the ranking out and import the labels"
        text = f"**People label this run.** Label on the page Annotate, or {how}; then step: the next cycle trains on them."
        if run.config.question.checks:
            text += " There is no ground truth here."
        if run.config.question.checks and run.answer.counted:
            text += (
                " How many labels are correct is estimated from images drawn at random, which are one in ten on the page "
                "Annotate and in a Label Studio file."
            )
        st.markdown(text)
        dataset = frame.dataset(run.config)
        if cycle is not None:
            st.download_button(
                "Label Studio file",
                lambda: handout.label_studio_bundle(run, dataset, cycle),
                f"{run.id}-label-studio.zip",
                "application/zip",
                key="label-studio",
                on_click="ignore",
                help="Tasks in the order of the ranking, with images and the labelling configuration.",
            )
        # Another key is another, empty uploader: what was brought in is not offered a second time
        turn, taken = st.session_state.setdefault("turn", 0), handout.taken(run)
        file = st.file_uploader("Labels to import", taken.endings, key=f"labels-{run.id}-{turn}", help=taken.what)
        if file is not None:
            who = None
            if taken.unnamed(file.name, file.getvalue()[: handout.HEAD]):
                who = st.text_input(
                    "Annotator",
                    st.session_state.get("brought-by") or frame.annotator() or "",
                    key=f"brought-by-{run.id}-{turn}",
                    placeholder="Type a name",
                    help="Who gave these labels, which the file does not say.",
                    width=260,
                )
            if st.button("Bring in", type="primary", key="bring-in"):
                with frame.errors():
                    with st.spinner("Reading the file…"):
                        said = handout.bring_in(run, dataset, file.name, file.getvalue(), who)
                    st.session_state.update({"brought": (run.id, said), "turn": turn + 1})
                    st.session_state["brought-by"] = who or st.session_state.get("brought-by")
                    st.rerun()
        of, said = st.session_state.get("brought", ("", ""))
        if of == run.id:
            st.success(frame.plain(said))


def new_predictions(run: Run, state: str, done: int) -> None:
    """A place for the predictions that rank the next cycle."""
    with st.expander("Predictions for the next cycle"):
        st.caption(
            "Train your model on the labels collected so far, predict every image again, and upload the result. Without new "
            "predictions, Step ranks by the last ones."
        )
        turn = st.session_state.setdefault("predictions-turn", 0)  # another key is another, empty uploader
        files = [
            st.file_uploader(title, ["npy", "csv", "parquet"], key=f"{kind}-{run.id}-{turn}")
            for kind, title in (("predictions", "Predicted probabilities"), ("embeddings", "Embeddings (optional)"))
        ]
        if files[0] is None or state in ("running", "pausing"):
            return
        if st.button("Step by these predictions", type="primary", key="step-predictions"):
            with frame.errors():
                annotation.check_step(run)
                kept = [upload.keep_predictions(one.name, one.getvalue()) if one else None for one in files]
                imported.bring(run, frame.dataset(run.config), str(kept[0]), str(kept[1]) if kept[1] else None)
                jobs.start(run, until=done + 1)
                st.session_state["predictions-turn"] = turn + 1
                follow()


if run is None:
    frame.nothing_yet()
else:
    with frame.errors():
        state, sentence = run.status()
        done = len(run.cycles())
        learning = not run.config.question.checks
        source = "the reference labels of the data set" if learning else run.about["annotators_source"].rstrip(".")
        if run.config.annotator == "person":
            source = "people" if learning else f"{source}; people check them"
        st.caption(
            f"Run {frame.plain(run.id)} · {run.config.task} · data: {run.config.dataset}, {run.about['n_samples']:,} images · "
            f"labels: {frame.plain(source)}" + ("" if learning else f" · {frame.posterior(run.config)}")
        )
        frame.mark(run)
        if run.config.parent is not None:
            st.caption(
                f":material/call_split: Branched from {frame.plain(run.config.parent)} at cycle {run.config.branched_at}; "
                "what came before is shared."
            )
        with st.container(horizontal=True):
            if run.is_example:
                like_it(run)
            else:
                controls(run, state, done)
            if cycle is not None:
                branch_off(run, cycle)
        if state in ("running", "pausing"):
            watch(run.id, state, done)
        elif state == "failed" or run.live().death:
            st.error(frame.plain(sentence))
        elif state == "stopped":
            st.info(frame.plain(sentence))
        if left_out := run.left_out():
            st.warning(frame.plain(skipped.sentence(left_out)))
        if run.config.annotator == "person":
            st.page_link("pages/annotate.py", label="Label on the page Annotate", query_params={"run": run.id})
        if annotation.asks(run):
            bring_in(run, cycle)
        if cycle is not None and not run.config.trains:
            new_predictions(run, state, done)
        if cycle is not None:
            history(run, cycle)
        elif state in ("running", "pausing"):
            st.caption("The first curve and ranking appear when cycle 0 is done.")
