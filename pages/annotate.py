"""Annotate: label the next images by hand, one at a time; the next cycle trains on what was said."""

from typing import Any, NoReturn

import pandas as pd
import streamlit as st

from core.analysis import samples
from core.analysis.samples import Filter
from core.runs import annotation, jobs
from core.runs import run as runs
from core.runs.annotation import Desk
from core.runs.answers import ClassAnswer, MaskAnswer
from core.runs.run import Run
from data import ImageDataset
from data.errors import UserError
from data.words import count
from pages.ui import desk, frame, maskdesk, tiles, widgets

AHEAD, BACK = 8, 10  # images at hand in the browser: the next ones show at once, the last ones can be looked at again
SMOOTH = 200  # pixels a side, above which an enlarged image is smoothed
KEY = "desk"
DESKS = {ClassAnswer.kind: desk, MaskAnswer.kind: maskdesk}
LEFT = "Nothing is left for you here: you have answered every image of this ranking."
ALL = "Nothing is left to ask: every image of the pool has its label."

frame.setup("Annotate")
run, cycle = frame.sidebar()
st.title("Annotate")


def simulated(run: Run, cycle: int | None) -> None:
    """What to do where people are not asked, and whom they would be asked about."""
    text = "This run simulates its annotators and takes no answers: start one on the page New run with “People give the labels”"
    learning = not run.config.question.checks
    st.info(text + (", or branch this one on Cycles with “People give the labels from here on”." if learning else "."))
    with st.container(horizontal=True):
        st.page_link("pages/new.py", label="Start a run")
        if learning:
            st.page_link("pages/cycles.py", label="Branch this one", query_params={"run": run.id})
    if cycle is None:
        return
    here = frame.Here(run, run.config_at(cycle), frame.dataset(run.config), cycle, len(run.cycles()))
    samples = widgets.cycle_samples(here, here.key)
    first = samples.page(Filter(), "rank", True, 0, AHEAD).dropna(subset="rank")
    if len(first):
        st.subheader("First in its queue", anchor=False)
        captions = [frame.plain(f"{row.rank}: {row.given} → {row.suggested}") for row in first.itertuples()]
        st.image(tiles.pictures(here, first, 128), caption=captions, width=128)
        st.caption(f"Rank: {run.answer.beside.replace('≠', '→')}; — for none.")


def settings(run: Run) -> tuple[str | None, bool]:
    """The annotator, kept in session and address, and whether to show what the run knows before the answer."""
    wanted, name = frame.annotator(), None
    if wanted:
        with frame.errors():
            name = annotation.annotator_name(wanted)
    if name is not None:
        st.session_state["annotator-name"] = st.query_params["annotator"] = name
    st.session_state["annotator"] = name  # the URL is the truth, the widget shows it

    def chosen() -> None:
        st.session_state["annotator-name"] = st.query_params["annotator"] = st.session_state["annotator"] or ""

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Annotator",
            sorted({*annotation.annotators(run), *([name] if name is not None else [])}),
            key="annotator",
            placeholder="Type your name",
            accept_new_options=True,
            on_change=chosen,
            width=260,
        )
        shown = st.toggle(
            "Show guidance",
            DESKS[run.answer.kind].GUIDED,
            key="guidance",
            bind="query-params",
            help="Show given and suggested label, rank and score before you answer. Off: you answer blind and see them after; "
            "a mask is then drawn from nothing.",
        )
    return name, shown


def take() -> None:
    """Write down what was done at the desk, each thing once: the browser sends it until it sees that it was."""
    tab, actions = desk.actions(KEY)
    done = st.session_state.setdefault("desk-done", {"tab": tab, "number": 0})
    if done["tab"] != tab:
        done.update(tab=tab, number=0)
    for action in actions:
        if action["number"] <= done["number"]:
            continue
        done["number"] = action["number"]
        try:
            place = runs.find(action["place"][0])
            annotation.act(place, frame.dataset(place.config), action["place"][1], action)
        except UserError as error:
            st.session_state["desk-error"] = f"Something was not saved: {error}"


@st.fragment
def table(run: Run, ranking: pd.DataFrame, cycle: int | None, name: str, shown: bool) -> None:
    """The desk, how far the round is, and what follows it."""
    with frame.errors():
        if error := st.session_state.pop("desk-error", None):
            st.error(frame.plain(error))
        dataset, found, goal = (
            frame.dataset(run.config),
            annotation.desk(run, ranking, name),
            annotation.goal(run, ranking),
        )
        parts = [
            f"**{found.votes:,} of {goal:,}** annotations",
            f"{found.mine:,} of them yours",
            *([f"{found.skipped:,} skipped"] if found.skipped else []),
            *([f"{found.unsure:,} unsure"] if found.unsure else []),
            *([f"{found.pace:.0f} per minute"] if found.pace is not None else []),
            f"{count(len(found.queue), 'image')} left for you",
        ]
        st.progress(min(1.0, found.votes / goal), text=" · ".join(parts))
        if run.config.question.checks and run.answer.counted:
            st.caption("One image in ten is drawn at random, to estimate how many labels are correct.")
        kind = DESKS[run.answer.kind]
        data = desk_data(run, ranking, cycle, name, shown, dataset, found)
        kind.complete(data, run, dataset, found)
        kind.draw(KEY, data, take)
        round_(run, goal, found.votes)
        people(run)


def desk_data(
    run: Run, ranking: pd.DataFrame, cycle: int | None, name: str, shown: bool, dataset: ImageDataset, found: Desk
) -> dict[str, Any]:
    """What the browser needs of the next and the last images."""
    sides = list(dataset.images.shape[1:3])

    def image(row: int, guided: bool) -> dict[str, Any]:
        guide = annotation.guidance(ranking, row, run.config) if guided and cycle is not None else None
        url, side = desk.picture(run.id, row, dataset, run.config.root)
        sides.append(side)
        return {"id": dataset.ids[row], "url": url, "guide": guide}

    return {
        "place": [run.id, name, cycle],
        **run.answer.desk(),
        "queue": [image(int(row), shown) for row in found.queue[:AHEAD]],
        # What was skipped comes back, and stays blind until then
        "said": [
            {**image(one.row, shown or not one.skipped), "seq": one.seq, "label": one.label}
            for one in found.said[-BACK:]
        ],
        "left": len(found.queue),
        "empty": LEFT if ranking["rank"].notna().any() else ALL,
        "large": max(sides) > SMOOTH,
        "done": st.session_state.get("desk-done", {"tab": "", "number": 0}),
    }


def round_(run: Run, goal: int, votes: int) -> None:
    """The annotations to aim for, and the button that trains on them."""
    with st.container(horizontal=True, vertical_alignment="bottom"):

        def aim() -> None:
            annotation.set_goal(run, int(st.session_state["goal"]))

        st.session_state["goal"] = goal
        st.number_input("Annotations to aim for, this cycle", 1, 10_000_000, key="goal", on_change=aim, width=200)
        pressed = st.button(
            "Next cycle: train on these labels",
            type="primary",
            key="next-cycle",
            disabled=votes == 0 or run.status()[0] in ("running", "pausing"),
            help="Train on all labels so far and rank again, once there is an annotation. You can go on labelling meanwhile.",
        )
        st.page_link("pages/cycles.py", label="See it on Cycles", query_params={"run": run.id})
    if pressed:
        annotation.check_step(run)
        jobs.start(run, until=len(run.cycles()) + 1)
        follow()


def people(run: Run) -> None:
    """How far the annotators agree, once there are two."""
    table = annotation.agreement(run)
    if len(table) < 2:
        return
    st.subheader("Agreement between annotators")
    st.dataframe(
        table,
        hide_index=True,
        placeholder="—",
        column_config={
            "annotator": "Annotator",
            "votes": "Annotations",
            "unsure": "Unsure",
            "shared": st.column_config.NumberColumn("Shared images", help="Images that others annotated, too."),
            "compared": st.column_config.NumberColumn(
                "Compared", help="Shared images on which one class leads among the others."
            ),
            "share": st.column_config.NumberColumn("Agrees with the others", format="percent"),
        },
    )
    widgets.table_export(lambda: table, len(table), f"{run.id}-agreement", "Export agreement")
    pairs = annotation.kappas(run)
    if len(pairs):
        st.dataframe(
            pairs,
            hide_index=True,
            placeholder="—",
            column_config={
                "first": "Annotator",
                "second": "and",
                "shared": "Shared images",
                "agree": st.column_config.NumberColumn(run.answer.agrees, format="percent"),
                "kappa": st.column_config.NumberColumn(
                    "Cohen's κ", format="%.2f", help="Agreement beyond chance: 1 at best, 0 at chance level."
                ),
            },
        )
        widgets.table_export(lambda: pairs, len(pairs), f"{run.id}-kappas", "Export pairs")


@st.cache_resource(max_entries=4, show_spinner=False)
def ranked(_here: frame.Here, key: tuple[str, int, int]) -> pd.DataFrame:
    """The ranking of the cycle we stand at; pages read it and never write into it."""
    return samples.table(_here.run, _here.dataset, _here.cycle)


def follow() -> NoReturn:
    """Draw again at the newest cycle."""
    st.query_params.pop("cycle", None)
    st.rerun()


@st.fragment(run_every=1.0)
def watch(run_id: str, done: int) -> None:
    """Progress of the worker; redraws the page when a cycle or the work is finished."""
    with frame.errors():
        run = runs.find(run_id)
        if run.status()[0] not in ("running", "pausing") or len(run.cycles()) != done:
            follow()
        st.progress(
            min(1.0, run.live().share),
            text=f"Cycle {done} is on its way: annotations given now count towards the one after it.",
        )


def show(run: Run, cycle: int | None) -> None:
    """Everything below the title."""
    if run.config.annotator != "person":
        return simulated(run, cycle)
    done, (state, sentence) = len(run.cycles()), run.status()
    if cycle is not None and cycle < done - 1:
        st.info(f"Annotations go to the newest ranking, that of cycle {done - 1}.")
        st.page_link("pages/annotate.py", label=f"Go to cycle {done - 1}", query_params={"run": run.id})
        return None
    busy = state in ("running", "pausing")
    if state == "failed":
        st.error(frame.plain(sentence))
    if busy:
        watch(run.id, done)
    if cycle is None and run.config.question.checks:
        if not busy:
            st.info("This run has no ranking yet: start it on Cycles.")
            st.page_link("pages/cycles.py", label="Go to Cycles", query_params={"run": run.id})
        return None
    if cycle is None and not busy:
        st.info("Nothing is ranked yet. Label some images, drawn at random, of at least two classes; then train.")
    dataset = frame.dataset(run.config)
    if cycle is None:
        ranking = annotation.unranked(run, dataset)
    else:
        place = frame.Here(run, run.config, dataset, cycle, done)
        ranking = ranked(place, place.key)
    name, shown = settings(run)
    if name is None:
        st.info("Say who you are, so that your annotations have a name.")
        return None
    return table(run, ranking, cycle, name, shown)


if run is None:
    frame.nothing_yet()
else:
    with frame.errors():
        show(run, cycle)
