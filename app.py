"""Home: what the product is, start a run, recent runs."""

import pandas as pd
import streamlit as st

import data
from core import jobs, tasks
from core import run as runs
from core.run import Config
from core.scores import REGISTRY
from core.strategies import STRATEGIES
from data.errors import UserError
from pages.ui import doors, frame

TASKS = {"active-learning": "Label next — active learning", "label-cleaning": "Check next — label cleaning"}
NOISE = {
    "symmetric": "any other class, each as likely",
    "asymmetric": "a similar class",
    "instance": "by what the image looks like",
}
SELECTORS = {
    "vanilla": "plain training",
    "co-teaching": "two networks, each learns what the other finds easy",
    "elr": "held to what it learnt early",
    "ssl": "self-supervised embedding, linear head",
    "pretrained": "ImageNet embedding, linear head",
    "clean": "knows the right labels: upper bound",
}

frame.setup("Home")
frame.sidebar()
st.title("NextLabel")
st.markdown(
    "NextLabel decides **which image to label next** (active learning by gradient norm, Wang et al. 2022) and **which label "
    "to check next** (active label cleaning, Bernhardt et al. 2022). It trains a model, ranks every image, collects labels, "
    "and shows after each cycle what your budget bought."
)
doors.show()


def start_form() -> None:
    """Choose data, method and budget, and start a run."""
    task = st.segmented_control(
        "Task", list(TASKS), format_func=TASKS.get, default="active-learning", required=True, key="task"
    )
    learning = task == "active-learning"
    sources = {source.name: source for source in data.available()}
    name = st.selectbox(
        "Data set",
        list(sources),
        key="dataset",
        format_func=lambda one: (
            f"{one} — {sources[one].title}" + ("" if sources[one].available or one == "folder" else " (not here yet)")
        ),
    )
    source, root, votes = sources[name], None, None
    if name == "folder":
        root = (
            st.text_input(
                "Folder on this computer",
                placeholder="/path/to/images",
                key="root",
                help="One sub-folder a class, or a metadata.csv with file_name and label.",
            ).strip()
            or None
        )
        if not learning:
            votes = (
                st.text_input(
                    "Table of votes (optional)",
                    placeholder="/path/to/votes.csv",
                    key="votes",
                    help="What several annotators said: sample_id, annotator, label; or sample_id and one column an annotator. "
                    "These are then the labels to check.",
                ).strip()
                or None
            )
    elif not source.available:
        st.info(source.reason)
    people = st.toggle(
        "People give the labels",
        key="people",
        help="You and others label in the browser, on the page Annotate, and say when the next cycle is to train. Off: what "
        "the data set knows answers.",
    )
    classes, initial = None, 0
    if people and learning and name == "folder":
        text = st.text_input(
            "Classes (optional)",
            placeholder="cat, dog",
            key="classes",
            help="For images in no class folders: the names to choose from, with commas between them.",
        )
        classes = [one.strip() for one in text.split(",") if one.strip()] or None
    preset = tasks.defaults(task, name)
    left, right = st.columns(2)
    if learning:
        method = left.selectbox(
            "Strategy",
            list(STRATEGIES),
            index=list(STRATEGIES).index("entropy-gradnorm"),
            key="strategy",
            format_func=lambda one: REGISTRY[one].title,
        )
        budget = right.number_input("Labels a cycle", 1, 1_000_000, preset["budget"], 50, key=f"budget-{name}")
        noise, selector, noise_kind = 0.0, "vanilla", "symmetric"
        if people:
            initial = left.number_input(
                "Labels to start from",
                0,
                1_000_000,
                0 if name == "folder" else preset["budget"],
                50,
                key=f"initial-{name}",
                help="Of those that the data set has, drawn at random. 0: all of them; where there are none, people label the "
                "first images.",
            )
    else:
        selector = left.selectbox(
            "Selector: how the model learns",
            list(SELECTORS),
            key="selector",
            format_func=lambda one: f"{one} — {SELECTORS[one]}",
        )
        method = right.selectbox(
            "Score: which labels first",
            list(tasks.CLEANING_SCORES),
            key="score",
            format_func=lambda one: REGISTRY[one].title,
        )
        noise = left.number_input(
            "Noise rate",
            0.0,
            0.95,
            tasks.DEFAULT_NOISE if name != "folder" and not people else 0.0,
            0.05,
            key=f"noise-{name}-{people}",
            disabled=people,
            help="Share of wrong initial labels, drawn from the votes where there are some. The images that nobody disagrees on "
            "limit it: fashion reaches 0.31. 0 for a folder: take its labels as they are, rank them, and ask people.",
        )
        noise_kind = "symmetric"
        if name in ("cifar10", "folder"):
            noise_kind = left.selectbox(
                "Kind of noise",
                list(NOISE),
                key=f"noise-kind-{name}",
                format_func=lambda one: f"{one} — {NOISE[one]}",
                help="How wrong labels are put among the right ones, where there are no votes to draw them from.",
            )
        budget = right.number_input(
            "Labels a cycle",
            0,
            1_000_000,
            0,
            50,
            key=f"collect-{name}",
            disabled=people,
            help="0: three for each wrong label, over all cycles together, as in the paper.",
        )
    st.caption(REGISTRY[method].formula + " — " + REGISTRY[method].meaning)
    cycles = left.number_input(
        "Cycles",
        1,
        1000,
        preset["cycles"],
        key=f"cycles-{task}-{name}",
        disabled=people,
        help="Training rounds. You can stop, go back and add more at any time.",
    )
    seed = right.number_input(
        "Seed", 0, 2**31 - 1, 0, key="seed", help="Runs that differ in their seed alone are averaged in the curves."
    )
    with st.expander("Model and training"):
        columns = st.columns(4)
        model = columns[0].selectbox(
            "Model",
            ["small-cnn", "resnet18"],
            index=["small-cnn", "resnet18"].index(preset["model"]),
            key=f"model-{name}",
        )
        width = columns[1].number_input("Width", 4, 256, preset["width"], 4, key=f"width-{name}")
        epochs = columns[2].number_input("Epochs", 1, 1000, preset["epochs"], key=f"epochs-{task}-{name}")
        limit = (
            columns[3].number_input(
                "Use at most (images)", 0, 10_000_000, 0, 1000, key="limit", help="0: all of the pool."
            )
            or None
        )
        folds = ensemble = 1
        if not learning:
            columns = st.columns(4)
            folds = columns[0].number_input(
                "Folds",
                1,
                20,
                1,
                key="folds",
                help="1: the model ranks images it has learnt from (in-sample), which hides noise it has memorised. 5: each "
                "image is ranked by a model that has not seen it (out of fold), at five times the cost.",
            )
            ensemble = columns[1].number_input(
                "Ensemble", 1, 20, 1, key="ensemble", help="Average the posteriors of so many models."
            )
    if st.button("Start run", type="primary", key="start", disabled=name == "folder" and root is None):
        config = Config(
            **{
                **preset,
                "task": task,
                "dataset": name,
                "root": root,
                "method": method,
                "noise": noise,
                "limit": limit,
                "budget": budget,
                "cycles": int(cycles),
                "seed": int(seed),
                "model": model,
                "width": int(width),
                "epochs": int(epochs),
                "selector": selector,
                "noise_kind": noise_kind,
                "votes": votes,
                "annotator": "person" if people else None,
                "classes": classes,
                "initial": int(initial),
                "folds": int(folds),
                "ensemble": int(ensemble),
            }
        )
        with frame.errors():
            dataset = frame.dataset(config)
            run = runs.create(tasks.prepare(config, dataset), tasks.about(dataset))
            jobs.start(run)
            page = "pages/annotate.py" if people else "pages/cycles.py"
            st.switch_page(page, query_params={"run": run.id})


def recent() -> None:
    """The newest runs."""
    rows = []
    try:
        newest = runs.all_runs()[:20]
    except UserError:
        return  # the sidebar says why
    for run in newest:
        try:
            config, (state, _), cycles = run.config, run.status(), run.cycles()
        except UserError:
            continue  # the sidebar names it
        last = cycles.iloc[-1] if len(cycles) else pd.Series(dtype=float)
        rows.append(
            {
                "open": f"/cycles?run={run.id}",
                "task": TASKS[config.task].split(" — ")[0],
                "data": config.dataset,
                "method": config.arm,
                "seed": config.seed,
                "state": "example" if run.is_example else frame.STATES[state],
                "cycles": f"{len(cycles)} of {run.target()}",
                "labels": last.get("n_labels"),
                "right labels": last.get("correctness"),
                "test accuracy": last.get("accuracy"),
                "run": run.id,
            }
        )
    if not rows:
        st.caption("None yet.")
        return
    percent = st.column_config.NumberColumn(format="percent")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="—",
        column_config={
            "open": st.column_config.LinkColumn("", display_text="open", width="small"),
            "right labels": percent,
            "test accuracy": percent,
            "labels": st.column_config.NumberColumn(format="localized"),
        },
    )


with st.container(border=True):
    st.subheader("Start a run")
    start_form()
st.subheader("Recent runs")
recent()
doors.open_bundle()
