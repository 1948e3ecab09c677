"""The form that starts a run: task, method, budget and training, for images that were chosen before."""

from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core import methods
from core.described import Method
from core.runs import answers, imported, jobs, settle, spec
from core.runs import run as runs
from core.runs.spec import OPTIONS, Described
from data.errors import UserError
from pages.ui import fields, frame

TRAINED = (
    spec.CheckNext.title,
    spec.Model.title,
    spec.Training.title,
    spec.Scoring.title,
)  # options of a model that is trained
UNTRAINED = ("gamma",)  # the one among them that is of the score
WITH_VOTES = (
    "Ties come first, whatever the score. After them 1 − p[label] is the default: Φ also looks at the minority's annotations, "
    "and so puts images on top whose majority is right."
)
NO_GROUND_TRUTH = (
    "No ground truth is available for these labels, so people will still be asked. To try the scores without people, give a "
    "noise rate: the labels then count as ground truth, and that share of them is made wrong."
)


def takes(dataset: str, method: Method) -> bool:
    """Whether a method takes the labels of a data set."""
    return spec.answer_of(dataset) in method.answers


@dataclass(frozen=True)
class Images:
    """What a run is started on; the paths are those of a folder of one's own.

    classes: for people to choose from, where the labels do not name them all · pool: how many images there are to label or
    check, 0 where it is not known yet · unlabelled: how many have no label · side: pixels of the longer side of most of them,
    None where it is not known yet · network: model and weights, once they are chosen.
    """

    name: str
    root: str | None = None
    labels: str | None = None
    votes: str | None = None
    classes: list[str] | None = field(default=None)
    pool: int = 0
    unlabelled: int = 0
    side: int | None = None
    network: dict[str, Any] = field(default_factory=dict)
    predictions: str | None = None
    embeddings: str | None = None
    predicted: str | None = None

    @property
    def untrained(self) -> bool:
        """Whether a model of the user's own takes the place of one that is trained."""
        return self.predictions is not None


def form(images: Images) -> dict[str, Any] | None:
    """Choose task, method and budget; the options as `begin` takes them, None where nothing can be started."""
    own = images.name in spec.OWN
    task = st.segmented_control(
        "Task",
        list(spec.QUESTIONS),
        format_func=lambda name: f"{spec.QUESTIONS[name].short} — {spec.QUESTIONS[name].title.lower()}",
        default=spec.LEARNING,
        required=True,
        key="task",
    )
    learning = not spec.QUESTIONS[task].checks
    people = st.toggle(
        "People give the labels",
        value=own and (images.unlabelled > 0 or not learning),
        key=f"people-{images.name}-{images.root}-{task}",
        help="You and others label in the browser, on the page Annotate, and say when the next cycle is to train. Off: what "
        "the data set knows answers.",
    )
    if learning and images.votes is not None:
        st.info("Votes of several people are for label cleaning: choose “Check next”, or give a table of labels.")
        return None
    given: dict[str, Any] = {"task": task, "dataset": images.name, "annotator": "person" if people else None}
    given |= {name: value for name, value in vars(images).items() if name in OPTIONS}
    shown = [one for name, one in OPTIONS.items() if name not in given and one.applies(task, images.name, people)]
    refused = settle.not_for(images.name)
    shown = [one for one in shown if one.name not in refused]
    if images.untrained:
        given |= {"test_share": 0.0} if own else {}  # the model's own test set is elsewhere
        shown = [one for one in shown if (one.group not in TRAINED or one.name in UNTRAINED) and one.name not in given]
    basic = sorted((one for one in shown if one.option.level == "basic"), key=lambda one: one.option.identity != "arm")
    given |= _fields(basic, 2, images, task, people)
    score = methods.described(given["method"])
    st.caption(f"{score.formula} — {score.meaning}")
    if images.votes is not None:
        st.caption(WITH_VOTES)
    if not images.untrained:
        st.caption(
            f":material/memory: Suggested model. {frame.plain(settle.suggest(task, images.name, images.side).why)}"
        )
    if own and people and not learning:
        everything = st.toggle(
            "Check every image",
            value=True,
            key="everything",
            help="Off: the test set, which is a fifth where the folder has none, is held out to measure accuracy. Its images are "
            "then neither ranked nor checked, and its labels may be as wrong as the others.",
        )
        if everything:
            given["test_share"] = 0.0
    if own and not (learning or people or images.votes or given.get("noise")):
        st.info(NO_GROUND_TRUTH)
    advanced = [one for one in shown if one.name not in given]
    with st.expander("Advanced"):
        for group in dict.fromkeys(one.group for one in advanced):
            st.caption(group)
            network: dict[str, Any] = {name: given[name] for name in ("model", "weights") if name in given}
            so_far = replace(images, network=network)
            given |= _fields([one for one in advanced if one.group == group], 4, so_far, task, people)
    if not images.untrained and st.button(
        "Estimate the time", icon=":material/timer:", key="estimate", help="Measures a few steps on this machine."
    ):
        with frame.errors(), st.spinner("Measuring a few steps on this machine…"):
            _check(given)
            takes = _estimated(tuple(sorted(given.items(), key=str)))
            st.info(frame.plain(frame.sentence(f"{takes}.")))
    return given


@st.cache_data(max_entries=64, show_spinner=False)
def _estimated(given: tuple[tuple[str, Any], ...]) -> str:
    return jobs.estimate(dict(given))


def _fields(some: list[Described], across: int, images: Images, task: str, people: bool) -> dict[str, Any]:
    """Draw fields in rows, so that a narrow screen has them in the same order; returns their values by name."""
    found = {}
    for first in range(0, len(some), across):
        columns = st.columns(across, vertical_alignment="bottom")
        for place, one in zip(columns, some[first : first + across], strict=False):
            found[one.name] = _field(place, one, images, task, people)
    return found


def _field(place: DeltaGenerator, one: Described, images: Images, task: str, people: bool) -> Any:
    noise_kinds = answers.KINDS[spec.answer_of(images.name)].noise_kinds

    def name(choice: str) -> str:
        if one.name == "method":
            return methods.described(choice).title
        if one.name == "selector":
            return f"{choice} — {methods.selectors.CATALOGUE[choice].title}"
        about = noise_kinds.get(choice, "") if one.name == "noise_kind" else ""
        return f"{choice} — {about}" if about else choice

    def offered(choice: str) -> bool:
        if one.name in ("method", "selector") and not takes(images.name, methods.drawn(choice)):
            return False
        if one.name == "noise_kind" and choice not in noise_kinds:
            return False
        if one.name == "model":
            return methods.models.is_known(choice, spec.answer_of(images.name))
        if one.name == "method" and images.untrained:
            needs = imported.needs_of(choice, task)
            return needs != "model" and (needs != "embeddings" or images.embeddings is not None)
        if one.name == "evidence":
            no_influence = settle.no_influence({"task": task, "dataset": images.name})[0]
            return not spec.QUESTIONS[task].checks and not (choice == "influence" and no_influence)
        return one.name != "selector" or methods.selectors.CATALOGUE[choice].trains

    return fields.field(place, one, task, _default(one, images, task, people), name, offered)


def _default(one: Described, images: Images, task: str, people: bool) -> Any:
    """What a newcomer gets, on these images."""
    own, preset = images.name in spec.OWN, settle.defaults(task, images.name, images.network)
    if not images.untrained:
        preset |= settle.suggest(task, images.name, images.side).settings
    budget = preset.get("budget", 0)
    found = {
        "method": settle.default_method(task, images.votes is not None, images.untrained),
        "budget": settle.of_few(budget, images.pool) if own else budget,
        "initial": budget if people and not own else 0,
        "noise": 0.0 if own else settle.DEFAULT_NOISE,
        "folds": min(settle.PEOPLES_FOLDS, images.pool or settle.PEOPLES_FOLDS) if people else one.default,
    }
    return found.get(one.name, preset.get(one.name, one.default))


def begin(given: dict[str, Any]) -> None:
    """Start a run, and go to the page that shows it. Raises `UserError` for options that cannot run."""
    _check(given)
    config, dataset = settle.settle(given, frame.dataset)
    run = runs.create(config, settle.about(dataset))
    jobs.start(run)
    page = "pages/annotate.py" if config.annotator == "person" else "pages/cycles.py"
    st.switch_page(page, query_params={"run": run.id})


def _check(given: dict[str, Any]) -> None:
    """Raise `UserError` for what an option cannot be, and for a model that is code: only a command line may name that."""
    spec.check(given, lambda name: OPTIONS[name].headed(given["task"]), task=given["task"])
    if "model" in given and methods.models.is_factory(given["model"]):
        raise UserError(
            f"The model {given['model']} is code, which no browser may start: use `python -m core run --model …`."
        )
