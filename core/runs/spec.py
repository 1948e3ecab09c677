"""The specification of a run: every option once, with its type, bounds, description, level and identity.

From it follow the options of the command line and their help (`core.cli.options`), the form of New run, protocols, what a
configuration file or a bundle may hold, which runs can be compared (`core.runs.same`), and what Diff lists. An option is a
field of one of the groups below; `Config` is all groups together, with flat names. Needs no torch.
"""

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic import dataclasses as pydantic
from pydantic.fields import FieldInfo

import data
from core import methods
from data import masknoise
from data.dataset import Answer
from data.errors import UserError
from data.votes import NOISE_KINDS

# Data sets that are whatever images the user names
OWN = ("folder", "csv", "coco", "coco-masks", "masks", "parquet", "webdataset")
MASKS = ("garments", "camvid", "voc", "cityscapes")  # others whose labels are masks
VERSION = 2  # of configurations that are written; files of version 1 name none
LARGEST = 10**12  # of a whole number: more than anybody has of anything
STRICT = ConfigDict(strict=True, extra="forbid")

Task = Literal["active-learning", "label-cleaning"]
Level = Literal["basic", "advanced", "program"]
Identity = Literal["data", "labels", "arm", "method", "plan", "nuisance", "lineage"]
TASKS: tuple[Task, ...] = get_args(Task)
LEARNING, CLEANING = TASKS


@dataclass(frozen=True)
class Question:
    """What is asked of the data: one of the two axes of a run; the other is the answer (`core.runs.answers`).

    name: the task's, in configurations and links · asks, short: in words · checks: whether every sample has a label at the
    start, which may be wrong and is checked; else the pool is unlabelled.
    """

    name: Task
    title: str
    asks: str
    short: str
    checks: bool


QUESTIONS: dict[str, Question] = {
    LEARNING: Question(LEARNING, "Active learning", "Which image to label next", "Label next", checks=False),
    CLEANING: Question(CLEANING, "Label cleaning", "Which label to check next", "Check next", checks=True),
}


# The names that options can have: one function for each kind of thing.


def datasets() -> Sequence[str]:
    """Data sets that NextLabel knows."""
    return list(data.CATALOGUE)


def strategies() -> Sequence[str]:
    """Acquisition strategies."""
    return list(methods.strategies.CATALOGUE)


def scores() -> Sequence[str]:
    """Scores of label cleaning."""
    return [name for name, score in methods.label_scores.CATALOGUE.items() if score.ranks]


def selectors() -> Sequence[str]:
    """Selectors of label cleaning."""
    return list(methods.selectors.CATALOGUE)


def models() -> Sequence[str]:
    """Models that a list can offer; `methods.models.is_known` says which others there are."""
    elsewhere = [f"{methods.models.TORCHVISION}{name}" for name in methods.models.BACKBONES]
    return [*methods.models.CATALOGUE, *elsewhere]


def backbones() -> Sequence[str]:
    """Backbones of the selector `pretrained`."""
    return list(methods.models.BACKBONES)


def noise_kinds() -> Sequence[str]:
    """Ways of injecting noise."""
    return [*NOISE_KINDS, *masknoise.KINDS]


def answer_of(dataset: str) -> Answer:
    """What a label of a data set is; of one whose plug-in is not installed here, a class."""
    return data.CATALOGUE[dataset].answer if dataset in data.CATALOGUE else "class"


@dataclass(frozen=True)
class Flag:
    """What an option is called where one question is asked, its description, and the names it can have there.

    several: as of `Option`.
    """

    name: str
    task: Task
    title: str
    description: str
    choices: Callable[[], Sequence[str]]
    several: bool = False


@dataclass(frozen=True)
class Option:
    """What is said of a field besides its type, bounds and description.

    level: basic options are in sight in the form of New run, advanced ones below "Advanced"; nobody gives what the program
    sets · identity: what the field decides; of `deciding` · only: the question it belongs to, by default its group's ·
    choices: the names it can have · also: whether a text that is no choice is a name all the same, and how these are written ·
    unset: what 0 or no value means, for the user · flags: names of its own for each question · several: the command line takes
    several values and makes a run for each · path: a path on this machine · words: texts that are no path there ·
    branch: a branch may change it · loads: the option of `data.load` that it is · sets: the data sets it is for, by default
    all · people: the questions in which it means something where people give the labels · compared: its value as runs are
    compared by.
    """

    level: Level = "advanced"
    identity: Identity = "method"
    only: Task | None = None
    choices: Callable[[], Sequence[str]] | None = None
    also: tuple[Callable[[str], bool], str] | None = None
    unset: str = ""
    flags: tuple[Flag, ...] = ()
    several: bool = False
    path: bool = False
    words: tuple[str, ...] = ()
    branch: bool = False
    loads: str = ""
    sets: tuple[str, ...] = ()
    people: tuple[Task, ...] = TASKS
    compared: Callable[[Any], Any] = lambda value: value


Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


@pydantic.dataclass(frozen=True, config=STRICT)
class Asked:
    """The question, and what is asked of which data set."""

    title: ClassVar = "Run"

    task: Annotated[Task, Field(description="question asked of the data"), Option("basic", "labels")]
    dataset: Annotated[
        str,
        Field(title="Data set", description="data set, see `datasets`"),
        Option("basic", "data", choices=datasets, unset="fashion"),
    ]
    method: Annotated[
        str,
        Field(description="what ranks the samples"),
        Option(
            "basic",
            "arm",
            branch=True,
            flags=(
                Flag(
                    "strategy",
                    LEARNING,
                    "Strategy",
                    "acquisition strategy: which images to label next",
                    strategies,
                    several=True,
                ),
                Flag("score", CLEANING, "Score", "score: which labels to check first; ties come first by any", scores),
            ),
        ),
    ]
    budget: Annotated[
        Whole,
        Field(
            title="Labels per cycle",
            description="labels, or pixels if the budget counts those, to collect between two cycles",
        ),
        Option(
            "basic",
            branch=True,
            unset="by data set; label cleaning: three for each wrong label, over all cycles together",
            people=(LEARNING,),
        ),
    ]
    cycles: Annotated[
        int,
        Field(ge=1, le=LARGEST, description="training rounds; cycle 0 trains on the initial labels"),
        Option("basic", "plan", people=()),
    ]
    budget_unit: Annotated[
        Literal["labels", "pixels"],
        Field(
            title="Budget counts",
            description="what the budget counts of masks: labels (images, or regions where masks are checked), or the "
            "pixels of these",
        ),
        Option(people=(LEARNING,)),
    ] = "labels"
    seed: Annotated[
        Seed,
        Field(description="random seed; runs that differ in their seed alone are averaged in the curves"),
        Option("basic", "nuisance", several=True),
    ] = 0


@pydantic.dataclass(frozen=True, config=STRICT)
class Data:
    """Which images, and which labels came with them."""

    title: ClassVar = "Data"

    root: Annotated[
        str | None,
        Field(description="folder or file that holds the data set"),
        Option("basic", "data", path=True, unset="$NEXTLABEL_DATA"),
    ] = None
    limit: Annotated[
        int | None,
        Field(title="Use at most (images)", ge=1, le=LARGEST, description="use at most so many images of the pool"),
        Option(identity="data", unset="all", loads="limit"),
    ] = None
    image_size: Annotated[
        int | None,
        Field(
            title="Image size (pixels)",
            ge=1,
            le=4096,
            description="height and width in pixels at which the model sees images of one's own",
        ),
        Option(
            identity="data",
            unset="that of the images where they agree and it is at most 64, else the median of their sides, at most 224",
            loads="size",
            sets=(*OWN, "noisycxr"),
        ),
    ] = None
    fit: Annotated[
        Literal["resize", "crop", "pad"],
        Field(
            description="how an image of another shape is brought to the image size: resize stretches it, crop cuts what stands "
            "out, pad puts it on black",
        ),
        Option(identity="data", loads="fit", sets=OWN),
    ] = "resize"
    on_demand: Annotated[
        bool,
        Field(
            description="decode a folder's images when they are read; runs did so all at once before, and to 64 × 64 pixels"
        ),
        Option("program", "data", loads="on_demand"),
    ] = False
    test_share: Annotated[
        float | None,
        Field(
            ge=0,
            lt=1,
            description="share of a folder's labelled images held out as test set and not ranked; a test tree is taken as it is",
        ),
        Option(
            identity="data",
            unset="0.2; where people check the labels 0: every image is ranked, those of a test tree too",
            loads="test_share",
            sets=OWN,
        ),
    ] = None
    by_suffix: Annotated[
        bool,
        Field(
            description="take a folder's files by their usual suffixes alone, as runs did before their content was read"
        ),
        Option("program", "nuisance", loads="by_suffix"),
    ] = False
    classes: Annotated[
        list[str] | None,
        Field(description="classes of a folder whose labels do not name them all, for people to choose from"),
        Option("basic", "data", unset="those of the labels", loads="class_names", sets=OWN),
    ] = None
    unannotated: Annotated[
        Literal["background", "void"] | None,
        Field(
            title="Pixels without annotation",
            description="class of the pixels that no COCO annotation covers: background, or void, whose class is unknown",
        ),
        Option(
            identity="data",
            unset="void where a category is marked as stuff (isthing 0), else background",
            loads="unannotated",
            sets=("coco-masks",),
        ),
    ] = None
    labels: Annotated[
        str | None,
        Field(description="table of labels of a folder's images, used instead of its metadata.csv"),
        Option("basic", "labels", path=True, loads="labels", sets=("folder",)),
    ] = None
    votes: Annotated[
        str | None,
        Field(description="table of several people's annotations of a folder's images, CSV or Parquet"),
        Option("basic", "labels", only=CLEANING, path=True, loads="votes", sets=("folder",)),
    ] = None


@pydantic.dataclass(frozen=True, config=STRICT)
class Noise:
    """How wrong the initial labels are."""

    title: ClassVar = "Noise"
    only: ClassVar = CLEANING

    noise: Annotated[
        float,
        Field(
            title="Noise rate",
            ge=0,
            lt=1,
            description="share of wrong initial labels, such as 0.15; drawn from the annotations where there are some; of masks "
            "the share of their regions that are affected",
        ),
        Option("basic", "labels", unset="0.15 where there are annotations to draw from", people=()),
    ] = 0.0
    noise_kind: Annotated[
        str,
        Field(
            title="Kind of noise",
            description="how wrong labels are injected where there are no annotations to draw them from",
        ),
        Option("basic", "labels", choices=noise_kinds, sets=("cifar10", *MASKS, *OWN), people=()),
    ] = "symmetric"
    temperature: Annotated[
        float | None,
        Field(
            gt=0, allow_inf_nan=False, description="draw initial labels from counts^(1/T), instead of by a noise rate"
        ),
        Option(identity="labels", unset="that which gives the noise rate", people=()),
    ] = None


def _person(annotator: str | None) -> str | None:
    """The annotator as runs are compared by: who is simulated gives the answers that nobody's choice would give too."""
    return annotator if annotator == "person" else None


@pydantic.dataclass(frozen=True, config=STRICT)
class Annotator:
    """Who gives the labels."""

    title: ClassVar = "Annotator"

    annotator: Annotated[
        Literal["simulated", "person"] | None,
        Field(description="who is asked for labels"),
        Option(
            "basic",
            "labels",
            branch=True,
            compared=_person,
            unset="label cleaning: simulated where annotations or clean labels are known; active learning: the reference labels",
        ),
    ] = None
    relabel_seed: Annotated[
        Seed | None,
        Field(title="Annotation seed", description="random seed of the annotations that are collected"),
        Option(identity="nuisance", only=CLEANING, several=True, unset="the seed", people=()),
    ] = None


@pydantic.dataclass(frozen=True, config=STRICT)
class LabelNext:
    """Active learning: the pool is unlabelled."""

    title: ClassVar = "Active learning"
    only: ClassVar = LEARNING

    initial: Annotated[
        Whole,
        Field(title="Initial labels", description="labels at the start, drawn at random"),
        Option("basic", unset="the budget; where people label, all that are there"),
    ] = 0
    subset: Annotated[
        int | None,
        Field(
            title="Rank at most (images)",
            ge=1,
            le=LARGEST,
            description="rank so many of the unlabelled images, drawn again every cycle",
        ),
        Option(unset="all"),
    ] = None
    per_group: Annotated[
        int | None,
        Field(
            title="At most per sequence (images)",
            ge=1,
            le=LARGEST,
            description="label at most so many images of each sequence (frames of one video) per cycle",
        ),
        Option(unset="no limit", branch=True),
    ] = None
    skip_duplicates: Annotated[
        bool,
        Field(
            title="Skip near duplicates",
            description="rank one image of each group of near duplicates, and none where one of the group has a label",
        ),
        Option(branch=True),
    ] = False


@pydantic.dataclass(frozen=True, config=STRICT)
class CheckNext:
    """Label cleaning: every image has a label that may be wrong."""

    title: ClassVar = "Label cleaning"
    only: ClassVar = CLEANING

    selector: Annotated[
        str,
        Field(description="how the model learns from noisy labels"),
        Option("basic", "arm", choices=selectors, branch=True),
    ] = "vanilla"
    gamma: Annotated[
        float,
        Field(
            title="γ of the cleaning score",
            ge=0,
            le=1,
            description="exponent of the cleaning score on the base-C scale: 0 in the paper, 0.30 in its code",
        ),
        Option(branch=True),
    ] = 0.0
    folds: Annotated[
        int,
        Field(
            ge=1,
            le=LARGEST,
            description="models of cross-validation: 1 ranks images in-sample, which hides noise that was memorised; 5 ranks "
            "each image out of fold, at five times the cost",
        ),
        Option(unset="1; 5 where people check the labels"),
    ] = 1
    ensemble: Annotated[
        int, Field(ge=1, le=LARGEST, description="models whose predicted probabilities are averaged"), Option()
    ] = 1
    static: Annotated[
        bool, Field(title="One model for all cycles", description="rank all cycles by the first model"), Option()
    ] = False
    forget_rate: Annotated[
        float | None, Field(ge=0, lt=1, description="co-teaching: share of wrong labels"), Option(unset="estimated")
    ] = None
    pretrain_epochs: Annotated[
        int,
        Field(title="Pretraining epochs", ge=1, le=LARGEST, description="ssl: epochs on the images alone"),
        Option(),
    ] = 30
    head: Annotated[
        Literal["linear", "fine-tuned"],
        Field(description="ssl and pretrained: what is trained on the embedding"),
        Option(),
    ] = "linear"
    backbone: Annotated[
        str, Field(description="pretrained: network with ImageNet weights"), Option(choices=backbones)
    ] = "mobilenet_v2"


@pydantic.dataclass(frozen=True, config=STRICT)
class Predictions:
    """What a model of the user's own says, instead of one that is trained here."""

    title: ClassVar = "Predictions of your own model"

    predictions: Annotated[
        str | None,
        Field(
            description="file of predicted probabilities: .npy float [samples, classes], its rows in the order of the table of "
            "labels or else of the sorted ids; or CSV or Parquet with sample_id (or file_name) and one column for each class"
        ),
        Option("basic", "nuisance", path=True, unset="a model is trained"),
    ] = None
    embeddings: Annotated[
        str | None,
        Field(description="file of embeddings, in the forms of the predictions"),
        Option("basic", "nuisance", path=True, unset="none"),
    ] = None
    predicted: Annotated[
        Literal["out-of-sample", "in-sample"] | None,
        Field(
            description="whether the predictions are of a model that was not trained on the sample it predicts "
            "(cross-validation), or of one that was"
        ),
        Option("basic", "arm", unset="not known"),
    ] = None
    imported: Annotated[
        str | None,
        Field(description="digest of the first predictions and embeddings"),
        Option("program", "arm"),
    ] = None


@pydantic.dataclass(frozen=True, config=STRICT)
class Model:
    """The network."""

    title: ClassVar = "Model"

    model: Annotated[
        str,
        Field(description="architecture; those that are not our own begin from weights learnt elsewhere"),
        Option(choices=models, also=(methods.models.is_named, methods.models.OTHERS)),
    ] = "small-cnn"
    width: Annotated[
        int,
        Field(ge=1, le=LARGEST, description="channels of the first layer, of architectures that let it be chosen"),
        Option(),
    ] = 32
    weights: Annotated[
        str | None,
        Field(
            description="file of the weights that a network of timm, torchvision or the selector pretrained begins from, "
            ".safetensors or .pth; none: random weights"
        ),
        Option(path=True, words=(methods.models.RANDOM,), unset="downloaded"),
    ] = None
    freeze: Annotated[
        bool,
        Field(
            title="Frozen network",
            description="keep the network as it is and train a linear head on its embedding, which is computed once",
        ),
        Option("basic"),
    ] = False


@pydantic.dataclass(frozen=True, config=STRICT)
class Training:
    """How the network is trained."""

    title: ClassVar = "Training"

    epochs: Annotated[int, Field(ge=1, le=LARGEST, description="training epochs per cycle"), Option()] = 20
    steps: Annotated[
        int | None,
        Field(
            title="Training steps, at least",
            ge=1,
            le=LARGEST,
            description="gradient steps that a training takes at least, and where labels are masks exactly: few labels are gone "
            "through in more epochs",
        ),
        Option(unset="by data set; as many as the epochs give where these are given"),
    ] = None
    finetune_epochs: Annotated[
        Whole,
        Field(
            title="Fine-tuning epochs",
            description="fine-tuning epochs of cycles after the first, from the last weights",
        ),
        Option(unset="retrain from scratch"),
    ] = 0
    warm_start: Annotated[
        bool,
        Field(description="start cycles after the first from the last weights, and train as long as the first"),
        Option(),
    ] = False
    lr: Annotated[
        float,
        Field(title="Learning rate", gt=0, allow_inf_nan=False, description="learning rate, such as 0.1"),
        Option(),
    ] = 0.1
    nesterov: Annotated[bool, Field(title="Nesterov momentum", description="SGD with Nesterov momentum"), Option()] = (
        True
    )
    batch_size: Annotated[int, Field(ge=2, le=LARGEST, description="images in a training batch"), Option()] = 128
    schedule: Annotated[Literal["one-cycle", "step"], Field(description="learning-rate schedule"), Option()] = (
        "one-cycle"
    )
    augment: Annotated[
        Literal["flip-crop", "flip", "crop", "none"],
        Field(
            title="Augmentation",
            description="random variation of training images: flips, crops of the padded image, both or none; flip only what "
            "keeps its class",
        ),
        Option(),
    ] = "flip-crop"
    class_weights: Annotated[
        Literal["none", "inverse-frequency", "median-frequency"],
        Field(
            description="weight of each class in the loss of masks, by its share of the labelled pixels, so that rare ones count"
        ),
        Option(),
    ] = "none"
    patience: Annotated[
        int | None,
        Field(
            title="Early stopping (epochs)",
            ge=1,
            le=LARGEST,
            description="stop a training whose loss on a held-out tenth of its labels has not fallen for so many epochs, with "
            "the best weights",
        ),
        Option(unset="train to the end"),
    ] = None


@pydantic.dataclass(frozen=True, config=STRICT)
class Scoring:
    """How gradient norms and influence are scored, and what is measured as well."""

    title: ClassVar = "Gradient norms"

    reduction: Annotated[
        Literal["sum", "l2"],
        Field(
            title="Gradient norm",
            description="gradient norm: sum of the parameter tensors' norms, as in the paper's code, or one global L2 norm",
        ),
        Option(),
    ] = "sum"
    evidence: Annotated[
        bool | Literal["influence"],
        Field(
            title="Evidence for Compare",
            description="also measure what `compare` tabulates: true-label norms, and how norms fall; influence: beside these "
            "the influence of each candidate on the loss of half of the test images, and the paper's bounds of it",
        ),
        Option(identity="nuisance", people=(CLEANING,)),
    ] = False
    damping: Annotated[
        float,
        Field(
            title="Damping of the curvature",
            ge=0,
            allow_inf_nan=False,
            description="number added to every eigenvalue of the curvature that influence inverts, beside the weight decay",
        ),
        Option(only=LEARNING, people=(LEARNING,)),
    ] = 0.01


@pydantic.dataclass(frozen=True, config=STRICT)
class Lineage:
    """Where the run comes from; set by the program."""

    title: ClassVar = "Lineage"

    study: Annotated[str | None, Field(description="study that the run belongs to"), Option("program", "plan")] = None
    parent: Annotated[
        str | None, Field(description="run that a branch shares its first cycles with"), Option("program", "lineage")
    ] = None
    branched_at: Annotated[
        Whole | None, Field(description="first cycle of a branch that is its own"), Option("program", "lineage")
    ] = None
    earlier: Annotated[
        list[dict[str, Any]] | None,
        Field(description='what ranked the cycles below "until", the first of them that fits'),
        Option("program", "lineage"),
    ] = None


@pydantic.dataclass(frozen=True, config=STRICT)
class Config(Lineage, Scoring, Training, Model, Predictions, CheckNext, LabelNext, Annotator, Noise, Data, Asked):
    """Everything that decides what a run does. Equal configurations give equal label logs on one CPU.

    Raises `UserError` for a value that an option cannot have, here and where one is replaced.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _one_sentence(cls, value: Any, handler: Callable[[Any], "Config"]) -> "Config":
        try:
            return handler(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            if name not in OPTIONS or first["type"] == "missing":
                raise TypeError(f"{name}: {first['msg']}") from error  # of who wrote the call, not of who runs it
            whole = (value.kwargs or {}).get(name, first["input"])  # of a list, not the item alone
            raise UserError(_sentence(flag(name), name, whole, first["type"])) from None

    @property
    def question(self) -> Question:
        """What the run asks."""
        return QUESTIONS[self.task]

    @property
    def arm(self) -> str:
        """What a legend calls the run: its strategy; in label cleaning its selector, its score, or both."""
        if self.question.checks and self.method == "cleaning":
            return self.selector
        return self.method if self.selector == "vanilla" else f"{self.selector}, {self.method}"

    @property
    def trains(self) -> bool:
        """Whether a model is trained here; else its predicted probabilities are imported."""
        return self.predictions is None and self.imported is None

    @property
    def out_of_sample(self) -> bool:
        """Whether each sample's predicted probabilities are those of a model that has not learnt its label."""
        return self.folds > 1 if self.trains else self.predicted == "out-of-sample"

    @property
    def linear_head(self) -> bool:
        """Whether the embedding is there before the labels, and a linear head on it is all that is trained."""
        selector = methods.selectors.CATALOGUE.get(self.selector)
        return self.freeze or (selector is not None and selector.prepared and self.head == "linear")

    @property
    def network(self) -> str:
        """The network and whether it is trained, in words."""
        sized = not methods.models.is_elsewhere(self.model)
        return f"{self.model}{f', width {self.width}' * sized}{', frozen, with a linear head' * self.freeze}"

    @property
    def duration(self) -> str:
        """How long a training is, in words."""
        if self.freeze:
            return "until the head converges"
        if self.steps and answer_of(self.dataset) == "mask":
            return f"{self.steps:,} steps"
        least = f", at least {self.steps:,} steps" if self.steps else ""
        return f"{self.epochs:,} epoch{'s' * (self.epochs != 1)}{least}"

    @property
    def doubtful_test(self) -> bool:
        """Whether the labels of the test set are as doubtful as those that people check: a folder's own."""
        return self.question.checks and self.annotator == "person" and self.dataset in OWN

    @property
    def load_options(self) -> dict[str, Any]:
        """What `data.load` takes beside name and root."""
        return {
            one.option.loads: getattr(self, name)
            for name, one in OPTIONS.items()
            if one.option.loads and getattr(self, name) != one.default
        }


@dataclass(frozen=True)
class Described:
    """A field of `Config`, with all that follows from its declaration.

    title: what a form calls it · group: the title of its group · only: the question it belongs to, None for both · kind: the
    type of its value where it is not None · literals: the texts it can be, empty where its type names none; of a bool, those
    beside true and false · low, high: the bounds of a number, None where there is none · default: None where it must be given.
    """

    name: str
    title: str
    group: str
    description: str
    option: Option
    only: Task | None
    kind: type
    literals: tuple[str, ...]
    low: float | None
    high: float | None
    optional: bool
    default: Any

    def named(self, task: str | None) -> str:
        """What it is called where a question is asked."""
        flag = self._flag(task)
        return flag.name if flag else self.name

    def headed(self, task: str | None) -> str:
        """What a form calls it where a question is asked."""
        flag = self._flag(task)
        return flag.title if flag else self.title

    def describe(self, task: str | None) -> str:
        """Its description where a question is asked."""
        flag = self._flag(task)
        return flag.description if flag else self.description

    def several(self, task: str | None) -> bool:
        """Whether the command line takes several values of it, where a question is asked."""
        flag = self._flag(task)
        return flag.several if flag else self.option.several

    def choices(self, task: str | None = None) -> Sequence[str]:
        """The names it can have where a question is asked; empty where any text will do."""
        flag = self._flag(task)
        found = flag.choices if flag else self.option.choices
        return self.literals if found is None else found()

    def _flag(self, task: str | None) -> Flag | None:
        return next((one for one in self.option.flags if one.task == task), None)

    def applies(self, task: str, dataset: str, people: bool) -> bool:
        """Whether a user may give it where this is asked of this data set, and people or nobody in particular answer."""
        asked = self.only in (None, task) and (not people or task in self.option.people)
        return asked and self.option.level != "program" and dataset in (self.option.sets or [dataset])


def _described() -> dict[str, Described]:
    hints, found = get_type_hints(Config, include_extras=True), {}
    groups = {name: group for group in Config.__bases__ for name in group.__annotations__}
    for field in fields(Config):
        group, metadata = vars(groups[field.name]), list(_metadata(hints[field.name]))
        (option,) = (one for one in metadata if isinstance(one, Option))
        (info,) = (one for one in metadata if isinstance(one, FieldInfo) and one.description)
        optional, kind, literals = _kind(hints[field.name])
        found[field.name] = Described(
            name=field.name,
            title=info.title or field.name.replace("_", " ").capitalize(),
            group=group["title"],
            description=str(info.description),
            option=option,
            only=option.only or group.get("only"),
            kind=kind,
            literals=literals,
            low=next(
                (getattr(one, "ge", getattr(one, "gt", None)) for one in metadata if isinstance(one, Ge | Gt)), None
            ),
            high=next(
                (getattr(one, "le", getattr(one, "lt", None)) for one in metadata if isinstance(one, Le | Lt)), None
            ),
            optional=optional,
            default=None if field.default is MISSING else field.default,
        )
    return found


def _metadata(hint: Any) -> Iterator[Any]:
    """All that annotates a type hint, or a part of it."""
    for one in getattr(hint, "__metadata__", ()):
        yield one
        yield from one.metadata if isinstance(one, FieldInfo) else ()
    for part in get_args(hint):
        yield from _metadata(part)


def _kind(hint: Any) -> tuple[bool, type, tuple[str, ...]]:
    """(whether None is allowed, type of any other value, the texts that it can be) of a type hint."""
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return False, str, parts
    if NoneType in parts:
        ((_, kind, literals),) = (_kind(part) for part in parts if part is not NoneType)
        return True, kind, literals
    if bool in parts:
        return False, bool, tuple(text for part in parts for text in get_args(part))
    return False, get_origin(hint) or hint, ()


OPTIONS: dict[str, Described] = _described()
"""All options by name, group by group."""


def flag(name: str, task: str | None = None) -> str:
    """An option as it is written on the command line."""
    return f"--{OPTIONS[name].named(task).replace('_', '-')}"


def parsed(name: str, text: str, task: str | None = None) -> Any:
    """The value that a text on the command line stands for; of a list, one of its items. Raises as `check`."""
    kind = OPTIONS[name].kind
    value: Any = text
    if kind in (int, float):
        with suppress(ValueError):  # `check` says what to give instead
            value = kind(text)
    if kind is bool:
        value = SWITCH.get(text, text)
    check({name: [value] if kind is list else value}, lambda name: flag(name, task), task=task or "")
    return value


def check(
    settings: Mapping[str, Any], spell: Callable[[str], str] = flag, *, where: str = "", task: str | None = None
) -> None:
    """Raise `UserError` for an option that does not exist, a value that it cannot have, or a name that is not there.

    spell: how the user wrote an option of this name · where: the file it was written in · task: of which question the names
    must be; where it is None, names are not looked up, so that a run can be read whose strategy is not installed here.
    """
    before = f"{where}: " if where else ""
    for name, value in settings.items():
        if name not in OPTIONS:
            raise UserError(f'{before}there is no option "{name}"{nearest(name, list(OPTIONS))}')
        try:
            _adapter(name).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(before + _sentence(spell(name), name, value, first["type"])) from None
        one = OPTIONS[name]
        named = task is not None and value is not None and not isinstance(value, bool)
        if named and (names := one.choices(task)) and value not in names:
            also, others = one.option.also or (lambda text: False, "")
            if not also(value):
                raise UserError(
                    f"{before}{spell(name)} is {_shown(value)}: {_choose([*names, *filter(None, [others])])}"
                )


def nearest(name: str, names: Sequence[str]) -> str:
    """The rest of a sentence about a name that is not among others: which of them is meant, as far as one can tell."""
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f": did you mean {close[0]}?" if close else ": remove or rename it."


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(Config, include_extras=True)[name], config=STRICT)


SWITCH = {"true": True, "false": False}
KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
}


def _sentence(spelled: str, name: str, value: Any, fault: str) -> str:
    """What is wrong with a value and what to give instead; fault: the type of pydantic's error."""
    about = OPTIONS[name]
    said = {
        "greater_than_equal": f"give at least {about.low}",
        "greater_than": f"give a number above {about.low}",
        "less_than_equal": f"give at most {about.high}",
        "less_than": f"give a number below {about.high}",
        "finite_number": "give a finite number",
        "literal_error": _choose(about.literals)[:-1],
    }
    if about.kind is bool and about.literals:
        said[fault] = _choose([*SWITCH, *about.literals])[:-1]
    return f"{spelled} is {_shown(value)}: {said.get(fault, f'give {KINDS[about.kind]}')}."


def _choose(names: Sequence[str]) -> str:
    return f"choose one of {', '.join(names)}."


def _shown(value: Any) -> str:
    return f'"{value[:60]}"' if isinstance(value, str) else repr(value)[:60]


def deciding(config: Config, *identities: Identity) -> dict[str, Any]:
    """The options that decide something, as they are compared, by name.

    data: which images · labels: which labels at the start, and who gives the others · method: how a run works · arm: what a
    comparison compares · plan: how far it goes, and in which study · lineage: what it branched from · nuisance: what changes
    nothing that is compared, or is averaged over.
    """
    return {
        name: one.option.compared(getattr(config, name))
        for name, one in OPTIONS.items()
        if one.option.identity in identities
    }


class LaterVersionError(UserError):
    """A configuration that a later version of NextLabel wrote."""


def for_file(config: Config) -> dict[str, Any]:
    """A configuration as `of_file` reads it, for JSON."""
    return {"version": VERSION, "config": asdict(config)}


def without_paths(config: Config) -> Config:
    """A configuration without the paths of the machine it was made on."""
    changes: dict[str, Any] = {
        name: None for name, one in OPTIONS.items() if one.option.path and getattr(config, name) not in one.option.words
    }
    return replace(config, **changes)


def of_file(content: Mapping[str, Any]) -> Config:
    """The configuration that a file holds: its table "config", of the version it names.

    Files of version 1 name none; options of the other question, which had no effect, are dropped from them. Raises
    `LaterVersionError`, `UserError` for an option that does not exist or a value that it cannot have, `TypeError` or `KeyError`
    for what is no configuration.
    """
    version, settings = content.get("version", 1), dict(content["config"])
    if type(version) is not int or version < 1:
        raise TypeError(f"version {version!r}")
    if version > VERSION:
        raise LaterVersionError(
            f"its configuration has version {version}, and this NextLabel reads up to {VERSION}: install a later one"
        )
    check(settings, str)
    if version == 1:
        settings = {name: value for name, value in settings.items() if OPTIONS[name].only in (None, settings["task"])}
    return Config(**settings)
