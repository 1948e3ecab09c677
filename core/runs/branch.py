"""Branch a run: a new one that shares the past of another up to a cycle, and goes on by another method or budget.

The new run holds the rankings and labels of all cycles before, and the labels of the cycle it branches at. That cycle is trained
and scored again, by the new method, so that the branch decides what the next one labels; a training that was the same is
taken over, not repeated. Needs no torch.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from core.runs import imported, settle
from core.runs.run import TAKE, Run, home, new_folder, write_start
from core.runs.spec import OPTIONS
from core.store.atomic import writing
from data import ImageDataset
from data.errors import UserError

CHANGES = tuple(
    name for name, one in OPTIONS.items() if one.option.branch
)  # what may differ, beside the number of cycles


def branch(run: Run, dataset: ImageDataset, cycle: int, *, cycles: int | None = None, **changes: Any) -> Run:
    """A new run that goes on from cycle `cycle` of `run`; a worker has yet to do that cycle's training and scores.

    cycles: training rounds in all, by default as many as `run` was to have, and at least one more than it branches at ·
    changes: of `CHANGES`. Where a model cannot go on from the weights of another selector or strategy, every cycle of the branch
    retrains from scratch. Raises `UserError` for a cycle that is not finished, or settings that do not go together; nothing
    is left behind then.
    """
    done = len(run.cycles())
    if not 0 <= cycle < done:
        raise UserError(f"Run {run.id} has no finished cycle {cycle}: it has {done}, counted from 0.")
    if not run.is_example:
        run.check_work()  # the images have to be there
    config = run.config
    changes = {name: value for name, value in changes.items() if value != getattr(config, name)}
    if config.annotator == "person" and "annotator" in changes:
        raise UserError(f"People label run {run.id}, and go on to do so in its branches.")
    if cycle > 0 and config.static and "selector" in changes:
        raise UserError(
            f"The first model of run {run.id} ranks all its cycles: branch from cycle 0 for another selector."
        )
    if "selector" in changes and not config.trains:  # a model is trained from here on
        changes |= {"predictions": None, "embeddings": None, "predicted": None, "imported": None}
    if "selector" in changes or (not config.question.checks and "method" in changes):
        changes |= {"finetune_epochs": 0, "warm_start": False}
    wanted = max(run.target(), cycle + 2) if cycles is None else cycles
    if wanted <= cycle:
        raise UserError(f"A branch at cycle {cycle} has at least {cycle + 1} cycles in all: give as many, or more.")
    made = settle.prepare(dataclasses.replace(config, **changes, cycles=wanted), dataset)
    people = made.annotator == "person"
    before = [*(config.earlier or []), {"until": cycle, **{name: getattr(config, name) for name in CHANGES}}]
    made = dataclasses.replace(
        made,
        cycles=cycle + 1 if people else wanted,  # people say when the next one is to train
        parent=run.id,
        branched_at=cycle,
        earlier=before if cycle > 0 else None,
        study=None,
        root=None if (run.path / "data").is_dir() else config.root,
    )
    return _write(run, cycle, made)


def _copy_predictions(run: Run, cycle: int, path: Path) -> None:
    """Those that were imported for the cycle that is scored again."""
    here = run.cycle_path(cycle)
    for file in (here / imported.PROBS, here / imported.EMBEDDINGS):
        if file.is_file():
            (path / here.name).mkdir(exist_ok=True)
            shutil.copyfile(file, path / here.name / file.name)


def _write(run: Run, cycle: int, config: Any) -> Run:
    path = new_folder(home(), f"{config.dataset}-{config.arm.replace(', ', '-')}-s{config.seed}")
    try:
        with writing(path):
            for past in range(cycle):
                shutil.copytree(run.cycle_path(past), path / run.cycle_path(past).name)
            if run.masks.folder.is_dir():
                shutil.copytree(run.masks.folder, path / run.masks.folder.name)
            if not config.trains:
                _copy_predictions(run, cycle, path)
            if (run.path / "data").is_dir():  # brought by the bundle that the run came in
                shutil.copytree(run.path / "data", path / "data")
        phases = run.log.phases()
        kept = phases[(phases["cycle"] < cycle) | ((phases["cycle"] == cycle) & (phases["phase"] == "label"))]
        made = Run(path)
        made.log.create()
        taken = {key: value for key, value in run.log.facts(TAKE).items() if int(key.removeprefix(TAKE)) < cycle}
        made.log.restore(run.log.events(cycle), kept.to_dict("records"), taken)
        return write_start(path, config, run.about)  # last: it marks a whole run
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
