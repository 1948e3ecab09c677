"""Start, watch and stop runs. Each is a child process of the command line, so that no browser or server holds one."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runs import attribution, live, spec
from core.runs.live import Live
from core.runs.run import TAKE, Run, home
from core.runs.study import Study
from core.store.atomic import writing
from data.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def start(run: Run, *, until: int | None = None, labels: int | None = None) -> None:
    """Let a worker bring the run to `until` cycles (default: as many as it is to have).

    labels: with `until`, how many the next cycle collects (default: the budget). Raises `UserError` if a worker is at it, and
    as `take`.
    """
    run.check_work()
    now = run.live()
    if now.running:
        raise UserError(f"Run {run.id} is being worked on already: wait for it, or pause it first.")
    if until is not None:
        take(run, labels)
        run.log.set_fact("target", max(run.target(), until))
    _resume(run.path, now, *([] if until is None else ["--until", str(until)]))


def take(run: Run, labels: int | None) -> None:
    """Let the next cycle, and no other, collect so many labels instead of the budget; None: the budget, as ever.

    Raises `UserError` where people label, where there is no ranking to take them from or they are collected already, and for
    more images than active learning ranks where these are counted. Raises as `Run.check_work` too.
    """
    run.check_work()
    ranked = len(run.cycles()) - 1
    if labels is None:
        cancelled = run.open_cycle() == ranked + 1 and run.log.fact(f"{TAKE}{ranked}") is not None
        if cancelled:  # a step that had asked for another number
            run.log.set_fact(f"{TAKE}{ranked}", None)
        return
    if run.config.annotator == "person":
        raise UserError(f"People label run {run.id}: as many are taken as they label before the next step.")
    if ranked < 0:
        raise UserError(f"Run {run.id} has no ranking yet to take labels from: wait for its first cycle.")
    if run.open_cycle() > ranked + 1:
        raise UserError(f"Run {run.id} has collected the labels of cycle {ranked + 1} already: resume it first.")
    there = int(run.ranking(ranked)["rank"].notna().sum())
    counted = not run.config.question.checks and run.config.budget_unit == "labels"
    if labels < 1 or (counted and labels > there):
        raise UserError(f"{labels:,} labels cannot be taken from a ranking of {there:,} images: give 1 to {there:,}.")
    run.log.set_fact(f"{TAKE}{ranked}", labels)


def start_study(study: Study) -> None:
    """Let a worker go through the unfinished runs of a study. Raises `UserError` if one is at it."""
    now = study.live()
    if now.running:
        raise UserError(f"Study {study.id} is being worked on already: wait for it, or pause it first.")
    _resume(study.path, now)


def start_influence(run: Run, cycle: int, sample_id: str) -> None:
    """Let a worker compute what `core.engine.explain.influence` finds of a sample; `core.runs.attribution` reads it.

    Raises `UserError` if one is at it for this run, and as `Run.check_work`.
    """
    run.check_work()
    now = attribution.worker(run)
    if now.running or now.is_starting:
        raise UserError(f"The influence of an image of run {run.id} is being computed: wait for it.")
    starting = Live(starting=time.time(), cycle=cycle, sample=sample_id)
    _spawn(attribution.folder(run), starting, "explain", "--cycle", str(cycle), "--influence", "--", run.id, sample_id)


def _resume(path: Path, last: Live, *options: str) -> None:
    """Let a worker go on with the run or study in this folder."""
    (path / live.PAUSE).unlink(missing_ok=True)
    _spawn(path, Live(starting=time.time(), deaths=last.deaths), "resume", path.name, *options)


def _spawn(path: Path, starting: Live, *words: str) -> None:
    """Start a command whose live state is in this folder; what it prints goes to `worker.log` there."""
    live.write(path, starting)  # before there is a worker, which has the last word from then on
    with writing(path), (path / "worker.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "core", *words],
            cwd=ROOT,
            env={**os.environ, "NEXTLABEL_HOME": str(home())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # signals to the server's terminal do not reach the worker
        )
    live.write(path, dataclasses.replace(starting, pid=child.pid, pid_start=live.started(child.pid)))
    _children.append(child)
    _children[:] = [c for c in _children if c.poll() is None]  # a finished child stays a zombie until it is asked


_children: list["subprocess.Popen[bytes]"] = []


def explain(run: Run, cycle: int, sample_id: str) -> list[dict[str, Any]]:
    """What `core.engine.explain.layer_norms` finds, computed in a process of its own: a dashboard without torch stays small."""
    return list(json.loads(_asked("explain", run.id, sample_id, "--cycle", str(cycle), "--json")))


def explain_pixels(run: Run, cycle: int, sample_id: str) -> None:
    """Let a process of its own keep what `core.engine.explain.pixel_gradient` finds; `core.runs.saliency` reads it.

    Raises `UserError` as that does, and as `Run.check_work`.
    """
    run.check_work()
    _asked("explain", "--cycle", str(cycle), "--pixels", "--", run.id, sample_id)


def estimate(given: Mapping[str, Any]) -> str:
    """What `run --dry-run` says of how long a run with these options takes, measured in a process of its own.

    Raises `UserError` as that command does.
    """
    said = json.loads(_asked("run", *_words(given), "--dry-run", "--json"))
    return str(said["takes"])


def _words(given: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them."""
    words = []
    for name, value in given.items():
        flag = spec.flag(name, given["task"])
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            words += [flag, *map(str, value)] if isinstance(value, list) else [f"{flag}={value}"]
    return words


def _asked(*words: str) -> str:
    """What a command prints, run in a process of its own. Raises `UserError` with what it says is wrong."""
    environment = {**os.environ, "NEXTLABEL_HOME": str(home())}
    command = [sys.executable, "-m", "core", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise UserError(said[-1].removeprefix("nextlabel: ") if said else "The worker died: try again.")
    return done.stdout


def pause(run: Run) -> None:
    """Ask the worker to stop after the phase it is in."""
    with writing(run.path):
        (run.path / live.PAUSE).touch()


def cancel(run: Run) -> None:
    """Stop the worker at once. The unfinished phase is lost, all finished ones are kept; the run can be resumed."""
    _terminate(run.path, run.live(), f"run {run.id}")


def pause_study(study: Study) -> None:
    """Ask the worker to stop after the phase it is in."""
    with writing(study.path):
        (study.path / live.PAUSE).touch()
    for run in study.runs:
        if run.is_running():
            pause(run)


def cancel_study(study: Study) -> None:
    """Stop the worker at once. The unfinished phase is lost, all finished ones are kept; the study can be resumed."""
    _terminate(study.path, study.live(), f"study {study.id}")


def _terminate(path: Path, now: Live, what: str) -> None:
    if not now.running and not now.is_starting:
        return
    if now.is_starting:
        live.write(path, dataclasses.replace(now, starting=0.0))
    live.terminate(now, what)


def worker_log(work: Run | Study, lines: int = 40) -> str:
    """The last lines that the worker printed."""
    try:
        return "\n".join((work.path / "worker.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
