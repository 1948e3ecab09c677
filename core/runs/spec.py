"""Everything that decides what a run does."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from data.errors import UserError

Task = Literal["active-learning", "label-cleaning"]


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run does. Equal configurations give equal label logs on one CPU."""

    task: Task
    dataset: str
    method: str  # the acquisition strategy, or the score that ranks labels to check
    budget: int  # labels to collect between two cycles
    cycles: int  # training rounds; cycle 0 trains on the initial labels
    seed: int = 0
    # data
    root: str | None = None  # where the data set lies; None: $NEXTLABEL_DATA
    limit: int | None = None  # use only so many of the pool's images
    test_share: float | None = None  # of a folder: share of the labelled images held out as test set; None: a fifth
    by_suffix: bool = (
        False  # of a folder: the usual suffixes alone, as runs took them that were started before SKIPPED_COUNTS
    )
    classes: list[str] | None = None  # of a folder whose labels do not name them all, in this order
    initial: int = 0  # active learning: labels at the start, drawn at random
    subset: int | None = (
        None  # active learning: rank so many of the unlabelled images, drawn anew each cycle; None: all
    )
    noise: float = 0.0  # label cleaning: share of wrong initial labels
    noise_kind: Literal["symmetric", "asymmetric", "instance"] = (
        "symmetric"  # where there are no votes to draw them from
    )
    temperature: float | None = None  # label cleaning: initial labels are drawn from counts^(1/T)
    labels: str | None = None  # a table of labels that lies elsewhere than a folder of images
    votes: str | None = None  # a table of annotators' votes, for a folder of images
    annotator: Literal["simulated", "person"] | None = (
        None  # who is asked; None: in label cleaning simulated where the truth is known, else the reference labels
    )
    relabel_seed: int | None = None  # of the votes that are collected; None: `seed`
    # selector
    selector: str = "vanilla"
    folds: int = 1  # posteriors of each sample by a model that has not seen it; 1: by one that has
    ensemble: int = 1  # models whose posteriors are averaged
    forget_rate: float | None = None  # of co-teaching; None: estimated
    pretrain_epochs: int = 30  # of the self-supervised selector
    head: Literal["linear", "fine-tuned"] = "linear"  # on embeddings that were there before the labels
    backbone: str = "mobilenet_v2"  # of the pretrained selector
    weights: str | None = None  # file of the backbone's weights; None: torchvision's, downloaded
    gamma: float = 0.0  # of the cleaning score, base-C scale
    model: str = "small-cnn"
    width: int = 32
    epochs: int = 20
    finetune_epochs: int = 0  # cycles after the first start from the last weights; 0: train anew
    warm_start: bool = False  # cycles after the first start from the last weights, and train as long as the first
    static: bool = False  # label cleaning: the first model ranks all cycles
    lr: float = 0.1
    nesterov: bool = True
    batch_size: int = 128
    schedule: Literal["one-cycle", "step"] = "one-cycle"
    # gradient norms
    reduction: Literal["sum", "l2"] = "sum"  # of the parameter tensors' norms: the paper's code, or its text
    evidence: bool = (
        False  # also measure what `core.studies.comparison` tabulates: true-label norms, and how norms fall
    )
    study: str | None = None  # the study that the run belongs to
    # a branch (`core.runs.branch`)
    parent: str | None = None  # the run it shares its first cycles with
    branched_at: int | None = None  # the first cycle that is its own
    earlier: list[dict[str, Any]] | None = None  # what ranked the cycles below "until", the first of them that fits

    @property
    def experiment(self) -> str:
        """Names what runs that differ only in their seed have in common."""
        return json.dumps(
            {**dataclasses.asdict(self), "seed": None, "relabel_seed": None, "root": None, "by_suffix": None},
            sort_keys=True,
        )

    @property
    def arm(self) -> str:
        """What a legend calls the run: its strategy; in label cleaning its selector, its score, or both."""
        if self.task == "label-cleaning" and self.method == "cleaning":
            return self.selector
        return self.method if self.selector == "vanilla" else f"{self.selector}, {self.method}"

    @property
    def doubtful_test(self) -> bool:
        """Whether the labels of the test set are as doubtful as those that people check: a folder's own."""
        return self.task == "label-cleaning" and self.annotator == "person" and self.dataset == "folder"

    @property
    def load_options(self) -> dict[str, Any]:
        """What `data.load` takes beside name and root."""
        options = {
            "limit": self.limit,
            "labels": self.labels,
            "votes": self.votes,
            "class_names": self.classes,
            "test_share": self.test_share,
            "by_suffix": self.by_suffix or None,
        }
        return {name: value for name, value in options.items() if value is not None}


LARGEST = 10**12  # of a whole number in a configuration: more than anybody has of anything
KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
}


def check_types(settings: dict[str, Any], name: str) -> None:
    """Raise `UserError` for a setting whose value `Config` cannot hold."""
    hints = _hints()

    def choices(hint: Any) -> list[Any]:
        several = get_origin(hint) in (Union, UnionType)
        return [part for one in get_args(hint) for part in choices(one)] if several else [hint]

    def fits(value: Any, hint: Any) -> bool:
        if get_origin(hint) is Literal:
            return value in get_args(hint)
        if get_origin(hint) is list:
            (item,) = get_args(hint)
            return isinstance(value, list) and all(fits(one, get_origin(item) or item) for one in value)
        if type(value) is int and abs(value) > LARGEST:
            return False
        return type(value) in ((int, float) if hint is float else (hint,))

    for key, value in settings.items():
        allowed = choices(hints[key])
        if not any(fits(value, hint) for hint in allowed):
            kinds = [get_origin(hint) if get_origin(hint) is list else hint for hint in allowed if hint is not NoneType]
            said = [KINDS.get(kind) or " or ".join(map(str, get_args(kind))) for kind in kinds]
            raise UserError(f"{name}: {key} is {repr(value)[:60]}, but must be {' or '.join(said)}.")


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Config)
