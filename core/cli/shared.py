"""What several commands do: find a cycle, load its data, report progress, print and write what was found."""

import dataclasses
import json
import os
import sys

import pandas as pd

import data
from core.analysis import curves, measures
from core.runs import run, study
from core.runs.run import Run
from core.runs.study import Study
from data.errors import UserError
from data.files import skipped

INTERRUPTED = 130  # exit code of a command that was interrupted, or paused


def load(found: Run) -> data.ImageDataset:
    """The data set a run was made with."""
    config = found.config
    return data.load(config.dataset, config.root, **config.load_options)


def finished_cycle(found: run.Run, wanted: int | None) -> int:
    """The cycle that is asked for, by default the last. Raises `UserError` where it is not finished."""
    done = len(found.cycles())
    if done == 0:
        raise UserError(f"Run {found.id} has no finished cycle yet: resume it, then ask again.")
    cycle = done - 1 if wanted is None else wanted
    if not 0 <= cycle < done:
        raise UserError(f"Run {found.id} has no finished cycle {cycle}: it has {done}, counted from 0.")
    return cycle


def named(what: list[str]) -> tuple[list[Study], list[Run]]:
    """The studies among some names, and all their runs with those that are named alone."""
    studies = [study.find(name) for name in what if study.exists(name)]
    members = [member for one in studies for member in one.runs]
    return studies, members + [run.find(name) for name in what if not study.exists(name)]


def tell(line: str) -> None:
    """Print a line of progress. Where its reader, `head` for one, had enough, the work goes on without it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives


def print_left_out(dataset: data.ImageDataset) -> None:
    """How many files of the data set were left out, and why."""
    if dataset.skipped:
        tell(skipped.sentence(skipped.groups(dataset.skipped)))


def print_summary(found: Run, dataset: data.ImageDataset, as_json: bool) -> None:
    """What a run found, as one JSON object or as lines."""
    summary = curves.summary(found, dataset)
    if as_json:
        summary["skipped"] = [dataclasses.asdict(group) for group in skipped.groups(dataset.skipped)]
        print(json.dumps(summary), flush=True)
        return
    notes: dict[str, None] = {}
    for cycle in summary["cycles"]:
        shown = measures.measures(found.config, pd.Series(cycle)).values()
        parts = [f"{one.title[0].lower()}{one.title[1:]} {one}" for one in shown]
        print(", ".join([f"cycle {cycle['cycle']}: {cycle['n_labels']:,} labels", *parts]))
        if warned := measures.underfit(found.config, pd.Series(cycle)):
            notes[f"Cycle {cycle['cycle']}: {warned[0].lower()}{warned[1:]}"] = None
        notes |= dict.fromkeys(f"{one.title}: {one.note[0].lower()}{one.note[1:]}" for one in shown if one.note)
    for note in notes:
        print(note)
    if summary["auc"] is not None:
        normalised = summary["auc_normalised"]
        scale = "" if normalised is None else f" ({normalised:.2f} of the way from random to oracle)"
        print(f"AUC {summary['auc']:.4f}{scale}")
