"""The shares that stand for a cycle, as they are shown: with their interval, and with what to know of them."""

from dataclasses import dataclass

import pandas as pd

from core.runs import answers, settle, spec
from core.runs.run import Run
from core.runs.spec import OWN, Config
from data.dataset import ImageDataset
from data.lazy import LazyImages

MEASURES = {
    "correctness": "Correct labels",
    "estimated_correctness": "Correct labels, estimated",
    "agreement": "Model agrees",
    "accuracy": "Test accuracy",
    "miou": "Test mean IoU",
    "pixel_accuracy": "Test pixel accuracy",
}
NOTES = {
    "estimated_correctness": "95 % interval, from the first {:,.0f} images of a random order that people have answered; what "
    "they say is taken as correct, and a tie is no correct label.",
    "agreement": "Labels that are also the prediction of a model that has not learnt them (out of fold). This is not the share "
    "of correct labels, for the model errs as well.",
}
ESTIMATED = (
    " That share is estimated, with its interval, once people have answered images drawn at random, which are one in ten on the "
    "page Annotate."
)
UNDERFIT = (
    0.75  # share of its own training labels, of those that can be learnt, below which a network has not learnt them
)
FEWEST = 10  # random images that an estimate rests on
NOISY_TEST = (
    "The test set has the same doubtful labels as the pool; wrong ones count as errors of a model that is right."
)


@dataclass(frozen=True)
class Measure:
    """One share of a cycle as it is shown. interval: "55.4 to 100.0 %" of an estimate, else "" · certain: whether it is a fact
    rather than an estimate or a hint, so that a change may be drawn as better or worse · note: what to know of it, "" for
    nothing."""

    title: str
    text: str
    interval: str
    certain: bool
    note: str

    def __str__(self) -> str:
        return f"{self.text} ({self.interval})" if self.interval else self.text


def cycles(run: Run) -> pd.DataFrame:
    """`Run.cycles`, in which what the test images are measured by first is called accuracy, whatever a label is."""
    return run.cycles().rename(columns={run.answer.measured[0]: "accuracy"})


def test_title(run: Run) -> str:
    """What that measure is called."""
    return measure_title(run.answer.measured[0], run.config)


def measure_title(name: str, config: Config) -> str:
    """What a share of `Run.cycles` is called; that of a test set with doubtful labels says so."""
    if name == "accuracy" and config.doubtful_test:
        return "Test accuracy, noisy labels"
    if name == "correctness" and not answers.KINDS[spec.answer_of(config.dataset)].counted:
        return "Correct pixels"
    return MEASURES[name]


def measures(config: Config, cycle: pd.Series) -> dict[str, Measure]:
    """The shares that may stand for a cycle, a row of `Run.cycles`, by their names, the most telling first.

    An estimate from fewer than `FEWEST` random images is none of them, nor is one without an interval, which earlier versions
    made of labels that the model had learnt.
    """
    shown = {name: float(cycle[name]) for name in MEASURES if pd.notna(cycle.get(name))}
    if not cycle.get("checked_at_random", 0) >= FEWEST:
        shown.pop("estimated_correctness", None)
    found = {}
    for name, value in shown.items():
        interval, note = "", NOTES.get(name, "")
        if name == "agreement" and answers.KINDS[spec.answer_of(config.dataset)].counted:
            note += ESTIMATED
        if name == "estimated_correctness":
            interval = f"{100 * cycle['estimated_low']:.1f} to {100 * cycle['estimated_high']:.1f} %"
            note = note.format(cycle["checked_at_random"])
        if name == "accuracy" and config.doubtful_test:
            note = NOISY_TEST
        found[name] = Measure(measure_title(name, config), f"{100 * value:.1f} %", interval, not note, note)
    return found


def underfit(config: Config, cycle: pd.Series) -> str:
    """One sentence where a network does not even predict the labels that it was trained on, else ""; cycle: as of `measures`.

    A linear head is left out, whose penalty keeps it from learning labels by heart.
    """
    found = cycle.get("train_accuracy")
    found = cycle.get("fitted") if pd.isna(found) else found
    if config.linear_head or "miou" in cycle or pd.isna(found) or found >= UNDERFIT * (1 - config.noise):
        return ""
    return (
        f"The model correctly predicts only {found:.1%} of the labels that it was trained on, so it is underfitting: train for "
        "more steps, with a lower learning rate, or with a wider or pretrained network."
    )


def split_text(config: Config, dataset: ImageDataset) -> str:
    """How the images are divided, in one sentence."""
    n, held_out = len(dataset), len(dataset.test_labels)
    if config.dataset not in OWN or not held_out:
        test = f", {held_out:,} to test on" if held_out else ", none set aside to test on"
        return f"{n:,} images in the pool{test}.{_size_text(config, dataset)}"
    return (
        f"{n:,} images in the pool, {held_out:,} held out to test on: these are neither ranked nor checked "
        f"(--test-share 0 puts them into the pool).{_size_text(config, dataset)}"
    )


def _size_text(config: Config, dataset: ImageDataset) -> str:
    """At which size a model that is trained sees images that are decoded for it."""
    if config.selector == settle.IMPORTED or not isinstance(dataset.images, LazyImages):
        return ""
    height, width = dataset.images.shape[1:3]
    return (
        f" The model sees {width} × {height} pixels of each ({dataset.images.fit}; --image-size and --fit change that)."
    )


def note(run: Run, definition: str) -> str:
    """The small print of a figure: data, annotators, run and definition."""
    about, config = run.about, run.config
    kind = about["annotators"] if config.question.checks else "none"  # learning asks for the label, not for votes
    labels = {"human": "human annotations", "simulated": "simulated annotators", "none": "reference labels"}[kind]
    if config.annotator == "person":
        labels = "labels by people"
    return (
        f"{config.dataset}, N = {about['n_samples']:,}, {labels} · run {run.id}, seed\u00a0{config.seed}\n{definition}"
    )
