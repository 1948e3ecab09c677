"""A run: its configuration, its folder, and what can be read from it. Needs no torch, so that a page can read runs."""

import dataclasses
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core import relabel
from core.runs import answers, live, spec
from core.runs.answers import Answer, ClassAnswer
from core.runs.live import Live
from core.runs.merged import places
from core.store.atomic import write_atomically, writing
from core.store.log import Log
from core.store.maskfiles import MaskFiles
from data.dataset import ImageDataset
from data.errors import UserError
from data.files import skipped

PERSON = "person: "  # how the source of a label begins that a person gave
GIVEN = "given"  # source of a label that came with the data and that nobody vouches for
ABOUT = ("class_names", "n_samples", "annotators", "annotators_source", "skipped")  # what a run remembers of its data
SKIPPED_COUNTS = "skipped_counts"  # beside them, since files are left out by the thousand: reason -> how many
EXAMPLES = Path(__file__).resolve().parents[2] / "data" / "example"  # runs that come with NextLabel
REGIONS = "regions.parquet"  # of a cycle in which masks are checked, beside its ranking
REGION = (
    "region",
    "label",
    "pixels",
    "top",
    "left",
    "bottom",
    "right",
)  # its columns that say which region one is, and where
UNREADABLE = "unreadable"  # the fact: images that were found not to be readable when they were first read, id -> why
CLASS_IOU = "class_iou"  # of what the phase "score" found: IoU of each class on the test images, None for one in none
TAKE = "take/"  # begins the facts: by the cycle that ranked them, labels to collect instead of the budget
LEFT_OUT = "left out"  # the fact "images" of a run that was opened from a bundle without them


def home() -> Path:
    """Where runs are kept: $NEXTLABEL_HOME, else `runs` in the working directory."""
    return Path(os.environ.get("NEXTLABEL_HOME", "runs")).resolve()


@dataclass(frozen=True)
class Run:
    """A run's folder. Reading takes no lock; one worker at a time writes."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def log(self) -> Log:
        """The label log and finished phases."""
        return Log(self.path / "run.sqlite", frozen=self.is_example)

    @property
    def is_example(self) -> bool:
        """Whether the run came with NextLabel: it is read, and never written to."""
        return self.path.parent == EXAMPLES

    @property
    def answer(self) -> Answer:
        """What a label is. Raises as `about`."""
        about = self.about
        return answers.of(about["class_names"], about.get("answer", ClassAnswer.kind))

    @property
    def masks(self) -> MaskFiles:
        """The masks that the log names, where labels are masks."""
        return MaskFiles(self.path / "masks")

    @property
    def lock(self) -> filelock.FileLock:
        """Held by the worker for as long as it lives; the system releases it when the process dies.

        Raises as `check_work`.
        """
        self.check_work()
        return filelock.FileLock(self.path / live.LOCK, timeout=3, is_singleton=False)

    @property
    def config(self) -> spec.Config:
        """The configuration the run was started with.

        Raises `UserError` where the file is damaged, or a later version wrote it.
        """
        brought = self.path / "data"  # by the bundle that the run came in
        content = self._start()
        try:
            config = spec.of_file(content)
        except (TypeError, KeyError) as error:
            raise self._damaged() from error
        except spec.LaterVersionError as error:
            raise UserError(f"Run {self.id} cannot be read: {error}.") from error
        except UserError as error:
            raise self._damaged(str(error)) from error
        if config.dataset == "folder" and SKIPPED_COUNTS not in content["about"]:
            config = dataclasses.replace(config, by_suffix=True)
        return dataclasses.replace(config, root=str(brought)) if brought.is_dir() else config

    def config_at(self, cycle: int) -> spec.Config:
        """The configuration by which a cycle was ranked, and the budget that was or will be taken from that ranking.

        Of a branch's shared cycles it is that of the run they came from.
        """
        config = self.config
        past = next((one for one in config.earlier or [] if cycle < one["until"]), {})
        changes = {name: value for name, value in past.items() if name != "until"}
        if (taken := self.log.fact(f"{TAKE}{cycle}")) is not None:
            changes["budget"] = taken
        return dataclasses.replace(config, **changes)

    @property
    def about(self) -> dict[str, Any]:
        """Facts about the data at the start: class_names, n_samples, annotators, annotators_source, skipped.

        skipped: [name, reason] of a few files for each reason; how many there are is said by `left_out`. Raises `UserError`
        where the file is damaged.
        """
        return dict(self._start()["about"])

    def left_out(self) -> list[skipped.Group]:
        """The files that were left out, at the start or when they were first read, by reason. Raises as `about`."""
        about = self.about
        pairs = [(name, reason) for name, reason in about["skipped"]]
        later = self.log.fact(UNREADABLE, {})
        at_start = Counter(reason for _, reason in pairs) | Counter(about.get(SKIPPED_COUNTS, {}))
        return skipped.groups([*pairs, *later.items()], at_start + Counter(later.values()))

    def _start(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / "config.json").read_text())
            if not isinstance(content["config"], dict) or not set(ABOUT) <= set(content["about"]):
                raise ValueError
        except (OSError, ValueError, TypeError, KeyError) as error:
            if not self.path.is_dir():
                raise UserError(f"Run {self.id} is no longer there: choose another one.") from error
            raise self._damaged() from error
        return dict(content)

    def _damaged(self, reason: str = "") -> UserError:
        why = f" ({reason.rstrip('.')})" if reason else ""
        return UserError(
            f"Run {self.id} cannot be read, its config.json is damaged{why}: restore it or delete {self.path}."
        )

    def cycle_path(self, cycle: int) -> Path:
        """Where the files of a cycle lie: ranking.parquet, posterior.npy, weights.safetensors."""
        return self.path / f"cycle-{cycle:03d}"

    def cycles(self) -> pd.DataFrame:
        """One row for every cycle whose scores are there: cycle, n_labels, its metrics, seconds.

        IoU of each class, a list, is left to `class_iou`.
        """
        phases = self.log.phases()
        rows = [
            {
                "cycle": int(row.cycle),
                **{name: value for name, value in row.result.items() if name != CLASS_IOU},
                "seconds": float(phases.loc[phases["cycle"] == row.cycle, "seconds"].sum()),
            }
            for row in phases.itertuples()
            if row.phase == "score"
        ]
        return pd.DataFrame(rows)

    def class_iou(self) -> pd.DataFrame:
        """IoU of each class on the test images, a row a cycle, columns the classes, NaN for one that is in no image and not
        predicted; empty where labels are no masks, or there are no test images."""
        phases = self.log.phases()
        scored = phases[phases["phase"] == "score"]
        found = {row.cycle: row.result[CLASS_IOU] for row in scored.itertuples() if CLASS_IOU in row.result}
        names = self.about["class_names"]
        return pd.DataFrame.from_dict(found, orient="index", columns=names, dtype=np.float64).rename_axis("cycle")

    def ranking(self, cycle: int, columns: list[str] | None = None) -> pd.DataFrame:
        """The scores of a cycle, one row a sample in pool order; columns: these alone. Raises `UserError` without any."""
        path = self.cycle_path(cycle) / "ranking.parquet"
        try:
            return pd.read_parquet(path, columns=columns)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Cycle {cycle} of run {self.id} has no readable ranking ({path.name}): it has not been "
                "scored yet, or the file is damaged; choose another cycle, or restore the file."
            ) from error

    def regions(self, cycle: int) -> pd.DataFrame:
        """The regions of the masks that stood in a cycle in which masks are checked, one row each, by image and region.

        sample_id, region (number as of `core.masks.number`), label (class), pixels, top, left, bottom, right, the scores (means
        over the pixels), rank (1 = next, missing where it cannot be chosen), status ("labelled" or "cleaned"). Raises `UserError`
        without any.
        """
        path = self.cycle_path(cycle) / REGIONS
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Cycle {cycle} of run {self.id} has no readable regions ({path.name}): it has not been scored yet, no masks are "
                "checked in it, or the file is damaged; choose another cycle, or restore the file."
            ) from error

    def posterior(self, cycle: int) -> NDArray[np.float32]:
        """Posterior of a cycle, float32 [N, C], memory-mapped. Raises `UserError` where it cannot be read, or none is kept."""
        if self.answer.images:
            raise UserError(
                f"Run {self.id} keeps no probabilities of whole images, as its labels are {self.answer.kind}s: take its ranking."
            )
        try:
            return np.asanyarray(np.load(self.cycle_path(cycle) / "posterior.npy", mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"Cycle {cycle} of run {self.id} has no readable predicted probabilities: choose another cycle, or restore "
                "the file."
            ) from error

    def predicted(self, cycle: int) -> NDArray[np.uint8]:
        """Predicted masks of a cycle, a class a pixel, uint8 [N, H, W], memory-mapped."""
        try:
            path = self.cycle_path(cycle) / answers.PREDICTED
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"Cycle {cycle} of run {self.id} has no readable predicted masks: choose another cycle, or restore the file."
            ) from error

    def state(
        self, sample_ids: list[str], up_to_cycle: int | None = None
    ) -> tuple[relabel.Labels, relabel.Votes, pd.DataFrame]:
        """Replay the label log: where the labels stand, the majority after each event, and the events themselves.

        Where people's votes tie there is no majority label, and none is taken for one: neither the first-listed nor the first.
        """
        events = self.log.labels(up_to_cycle)
        shape = (len(sample_ids), self.answer.n_labels)
        sample, label = places(events["sample_id"], sample_ids), events["label"].to_numpy(np.int64)
        if (sample < 0).any():
            raise UserError(
                f"Run {self.id} has labels for samples that its data set no longer holds (first: "
                f"{events['sample_id'].iloc[int((sample < 0).argmax())]}): restore the data it was made with."
            )
        relabels = (events["cycle"] > 0).to_numpy()
        people = self.config.annotator == "person"
        state, taken = relabel.replay(
            sample, label, shape, replaced=replaced(events), relabels=relabels, ties_keep=not people
        )
        return self.answer.decided(state, events, sample, self.masks), taken, events

    def standing(self, dataset: ImageDataset, up_to_cycle: int | None = None) -> Any:
        """The labels that stand, [N, …]: classes, −1 for none, or masks that are read when asked for. Raises as `state`."""
        state, _, events = self.state(dataset.ids, up_to_cycle)
        height, width = dataset.images.shape[1:3]
        return self.answer.standing(state, events, dataset.ids, self.masks, (height, width))

    def open_cycle(self) -> int:
        """The cycle that takes the labels that people give now: the number of those that were begun."""
        phases = self.log.phases()
        return int((phases["phase"] == "label").sum())

    def check_work(self) -> None:
        """Raise `UserError` where the run cannot go on: it is an example, or its images are not here."""
        if self.is_example:
            raise UserError(f"Run {self.id} is an example and stays as it is: start a run of your own.")
        if self.log.fact("images") == LEFT_OUT:
            raise UserError(
                f"Run {self.id} was opened from a bundle without its images, so it cannot go on: open one that was made with "
                "them (`python -m core bundle RUN --with-images`)."
            )

    def check_data(self, n: int) -> None:
        """Raise `UserError` where the pool, of n images now, is not as large as when the run was started."""
        if n != self.about["n_samples"]:
            raise UserError(
                f"The data of run {self.id} no longer holds the {self.about['n_samples']:,} images that it was started with, but "
                f"{n:,}: restore the data, or start a new run."
            )

    def target(self) -> int:
        """Number of cycles asked for so far: the configuration's, and one more for every step beyond."""
        return int(self.log.fact("target", self.config.cycles))

    def live(self) -> Live:
        """What its worker is doing, or how the last one ended."""
        return live.read(self.path, self.log)

    def status(self) -> tuple[str, str]:
        """("running" | "pausing" | "finished" | "failed" | "stopped", one sentence)."""
        now, done = self.live(), len(self.cycles())
        if now.running and now.asked_to_pause:
            return "pausing", "Stops after the present step."
        if now.running:
            return "running", f"Working on cycle {done}."
        if now.is_starting:
            return "running", "Starting the worker…"
        if now.waiting:
            return "stopped", now.waiting
        if now.error:
            return "failed", now.error
        if done >= self.target():
            people = ": people label next, then step" if self.config.annotator == "person" else ""
            return "finished", f"{done} cycle{'' if done == 1 else 's'} done{people}."
        return "stopped", (
            f"Stopped after {done} of {self.target()} cycles; nothing finished is lost, and it can go on. {now.death}".rstrip()
        )

    def waits_for_labels(self, state: str) -> bool:
        """Whether the next cycle waits for labels from people. state: the first of `status`."""
        people = self.config.annotator == "person"
        return people and (state == "finished" or (state == "stopped" and bool(self.live().waiting)))

    def is_running(self) -> bool:
        """Whether a worker holds the run."""
        return self.live().running


def replaced(events: pd.DataFrame) -> NDArray[np.int64]:
    """The label that each event of a log takes the place of, int [T], −1 for none.

    A person's vote takes the place of the same person's earlier one; the first person's, that of a label that came with
    the data.
    """
    by_person = events["source"].str.startswith(PERSON)
    if not by_person.any():
        return np.full(len(events), -1)
    own = events.groupby(["sample_id", "source"])["label"].shift().where(by_person)
    given = events.loc[events["source"] == GIVEN].drop_duplicates("sample_id").set_index("sample_id")["label"]
    first = by_person & ~events.loc[by_person].duplicated("sample_id").reindex(events.index, fill_value=True)
    return own.where(~first, events["sample_id"].map(given)).fillna(-1).to_numpy(np.int64)


def create(config: spec.Config, about: dict[str, Any]) -> Run:
    """A new, empty run. Raises `UserError` where the home folder cannot be written."""
    name = f"{config.dataset}-{config.arm.replace(', ', '-')}-s{config.seed}"
    return write_start(new_folder(home(), name), config, about)


def new_folder(base: Path, name: str) -> Path:
    """Make a folder below `base` that is named by the time and `name`. Raises `UserError` where it cannot be written."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    with writing(base):
        base.mkdir(parents=True, exist_ok=True)
        for attempt in range(1000):
            path = base / (stem if attempt == 0 else f"{stem}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
        raise OSError(f"{base} holds a thousand folders that were made in this second")


def write_start(path: Path, config: spec.Config, about: dict[str, Any]) -> Run:
    """Make the run of this configuration in the folder `path`, whose parent is there."""
    run = Run(path)
    with writing(path):
        path.mkdir(exist_ok=True)
    run.log.create()
    content = {**spec.for_file(config), "about": about}
    write_atomically(path / "config.json", json.dumps(content, indent=1).encode())  # last: it marks a whole run
    return run


def find(run_id: str) -> Run:
    """The run of this id below `home()`, or the example of this name. Raises `UserError` where there is none."""
    for folder in (home(), EXAMPLES):
        path = folder / run_id
        try:
            if path.parent == folder and not run_id.startswith(".") and (path / "config.json").is_file():
                return Run(path)
        except (OSError, ValueError):  # a name longer than the system allows, or with a null byte
            continue
    raise UserError(
        f'There is no run "{run_id[:100]}" under {home()}: `python -m core list` shows those that are there.'
    )


def all_runs() -> list[Run]:
    """All runs below `home()`, the newest first, then the examples. Raises `UserError` where that is no folder."""
    if home().exists() and not home().is_dir():
        raise UserError(f"{home()} is no folder: set NEXTLABEL_HOME to the folder where runs are kept.")
    own = sorted((Run(path.parent) for path in home().glob("*/config.json")), key=lambda run: run.id, reverse=True)
    return own + examples()


def examples() -> list[Run]:
    """The runs that come with NextLabel, by name."""
    return [Run(path.parent) for path in sorted(EXAMPLES.glob("*/config.json"))]
