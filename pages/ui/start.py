"""The form that starts a run: task, method, budget and training, for images that were chosen before."""

from dataclasses import dataclass, field

import streamlit as st

from core import methods
from core.runs import jobs, questions, settle
from core.runs import run as runs
from core.runs.spec import Config
from core.strategies import STRATEGIES
from pages.ui import frame

TASKS = {"active-learning": "Label next — active learning", "label-cleaning": "Check next — label cleaning"}
NOISE = {
    "symmetric": "any other class, each as likely",
    "asymmetric": "a similar class",
    "instance": "by what the image looks like",
}
WITH_VOTES = (
    "Ties come first, whatever the score. After them 1 − p[label] is the default: Φ also looks at the votes of the minority, and "
    "so puts images on top whose majority is right."
)


@dataclass(frozen=True)
class Images:
    """What a run is started on; the paths are those of a folder of one's own.

    classes: for people to choose from, where the labels do not name them all · pool: how many images there are to label or
    check, 0 where it is not known yet · unlabelled: how many have no label.
    """

    name: str
    root: str | None = None
    labels: str | None = None
    votes: str | None = None
    classes: list[str] | None = field(default=None)
    pool: int = 0
    unlabelled: int = 0


def form(images: Images) -> None:
    """Choose task, method and budget, and start the run."""
    name, own = images.name, images.name == "folder"
    task = st.segmented_control(
        "Task", list(TASKS), format_func=TASKS.get, default="active-learning", required=True, key="task"
    )
    learning = task == "active-learning"
    people = st.toggle(
        "People give the labels",
        value=own and (images.unlabelled > 0 or not learning),
        key=f"people-{name}-{images.root}-{task}",
        help="You and others label in the browser, on the page Annotate, and say when the next cycle is to train. Off: what "
        "the data set knows answers.",
    )
    if learning and images.votes is not None:
        st.info("Votes of several people are for label cleaning: choose “Check next”, or give a table of labels.")
        return
    initial = 0
    preset = settle.defaults(task, name)
    left, right = st.columns(2)
    if learning:
        method = left.selectbox(
            "Strategy",
            list(STRATEGIES),
            index=list(STRATEGIES).index("entropy-gradnorm"),
            key="strategy",
            format_func=lambda one: methods.described(one).title,
        )
        share = min(preset["budget"], max(1, images.pool // 10)) if own else preset["budget"]  # of a few images, a few
        budget = right.number_input("Labels a cycle", 1, 1_000_000, share, 50, key=f"budget-{name}-{images.root}")
        noise, selector, noise_kind = 0.0, "vanilla", "symmetric"
        if people:
            initial = left.number_input(
                "Labels to start from",
                0,
                1_000_000,
                0 if own else preset["budget"],
                50,
                key=f"initial-{name}",
                help="Of those that the data set has, drawn at random. 0: all of them; where there are none, people label the "
                "first images.",
            )
    else:
        selector = left.selectbox(
            "Selector: how the model learns",
            list(questions.SELECTORS),
            key="selector",
            format_func=lambda one: f"{one} — {methods.selectors.CATALOGUE[one].title}",
        )
        usual = settle.default_score(images.votes is not None)
        method = right.selectbox(
            "Score: which labels first",
            list(questions.CLEANING_SCORES),
            index=questions.CLEANING_SCORES.index(usual),
            key="score" if images.votes is None else "score-votes",
            format_func=lambda one: methods.described(one).title,
        )
        if images.votes is not None:
            right.caption(WITH_VOTES)
        noise, noise_kind, budget = 0.0, "symmetric", 0
        if not people:
            noise = left.number_input(
                "Noise rate",
                0.0,
                0.95,
                0.0 if own else settle.DEFAULT_NOISE,
                0.05,
                key=f"noise-{name}",
                help="Share of wrong initial labels, drawn from the votes where there are some. Images that nobody disagrees on "
                "limit it: fashion reaches 0.31. 0 for a folder: take its labels as they are, rank them, and ask people.",
            )
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
                help="0: three for each wrong label, over all cycles together, as in the paper.",
            )
    st.caption(methods.described(method).formula + " — " + methods.described(method).meaning)
    test_share = None
    if own and people and not learning:
        everything = st.toggle(
            "Check every image",
            value=True,
            key="everything",
            help="Off: the test set, which is a fifth where the folder has none, is held out to measure accuracy. Its images are "
            "then neither ranked nor checked, and its labels may be as wrong as the others.",
        )
        test_share = 0.0 if everything else None
    cycles = 1  # people say when the next one is to train
    if not people:
        cycles = left.number_input(
            "Cycles",
            1,
            1000,
            preset["cycles"],
            key=f"cycles-{task}-{name}",
            help="Training rounds. You can stop, go back and add more at any time.",
        )
    seed = right.number_input(
        "Seed", 0, 2**31 - 1, 0, key="seed", help="Runs that differ in their seed alone are averaged in the curves."
    )
    with st.expander("Model and training"):
        columns = st.columns(4)
        model = columns[0].selectbox(
            "Model",
            list(methods.models.CATALOGUE),
            index=list(methods.models.CATALOGUE).index(preset["model"]),
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
                min(settle.PEOPLES_FOLDS, images.pool or settle.PEOPLES_FOLDS) if people else 1,
                key=f"folds-{people}",
                help="1: the model ranks images it has learnt from (in-sample), which hides noise it has memorised. 5: each "
                "image is ranked by a model that has not seen it (out of fold), at five times the cost.",
            )
            ensemble = columns[1].number_input(
                "Ensemble", 1, 20, 1, key="ensemble", help="Average the posteriors of so many models."
            )
    if st.button("Start run", type="primary", key="start"):
        config = Config(
            **{
                **preset,
                "task": task,
                "dataset": name,
                "root": images.root,
                "labels": images.labels,
                "method": method,
                "noise": noise,
                "limit": limit,
                "test_share": test_share,
                "budget": budget,
                "cycles": int(cycles),
                "seed": int(seed),
                "model": model,
                "width": int(width),
                "epochs": int(epochs),
                "selector": selector,
                "noise_kind": noise_kind,
                "votes": images.votes,
                "annotator": "person" if people else None,
                "classes": images.classes,
                "initial": int(initial),
                "folds": int(folds),
                "ensemble": int(ensemble),
            }
        )
        with frame.errors():
            dataset = frame.dataset(config)
            run = runs.create(settle.prepare(config, dataset), settle.about(dataset))
            jobs.start(run)
            page = "pages/annotate.py" if people else "pages/cycles.py"
            st.switch_page(page, query_params={"run": run.id})
