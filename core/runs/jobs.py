"""Start, watch and stop runs. Each is a child process of the command line, so that no browser or server holds one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from core.runs.run import Run, home
from core.runs.study import Study
from core.store.atomic import writing
from data.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def start(run: Run, *, until: int | None = None, labels: int | None = None) -> None:
    """Let a worker bring the run to `until` cycles (default: as many as it is to have).

    labels: with `until`, how many the next cycle collects (default: the budget). Raises `UserError` if a worker is at it, and
    as `Run.take`.
    """
    run.check_work()
    if run.is_running():
        raise UserError(f"Run {run.id} is being worked on already: wait for it, or pause it first.")
    if until is not None:
        run.take(labels)
        run.log.set_fact("target", max(run.target(), until))
    (run.path / "pause").unlink(missing_ok=True)
    run.log.set_fact("error", None)
    run.log.set_fact("waiting", None)
    run.log.set_fact("starting", time.time())
    _spawn(run.path, *([] if until is None else ["--until", str(until)]))


def start_study(study: Study) -> None:
    """Let a worker go through the unfinished runs of a study. Raises `UserError` if one is at it."""
    if study.is_running():
        raise UserError(f"Study {study.id} is being worked on already: wait for it, or pause it first.")
    (study.path / "pause").unlink(missing_ok=True)
    with writing(study.path):
        (study.path / "starting").touch()
    _spawn(study.path)


def _spawn(path: Path, *options: str) -> None:
    """Resume the run or study in this folder in a process of its own; what it prints goes to `worker.log` there."""
    with writing(path), (path / "worker.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "core", "resume", path.name, *options],
            cwd=ROOT,
            env={**os.environ, "NEXTLABEL_HOME": str(home())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # signals to the server's terminal do not reach the worker
        )
        (path / "worker.pid").write_text(str(child.pid))
    _children.append(child)
    _children[:] = [c for c in _children if c.poll() is None]  # a finished child stays a zombie until it is asked


_children: list["subprocess.Popen[bytes]"] = []


def explain(run: Run, cycle: int, sample_id: str) -> list[dict[str, Any]]:
    """What `core.engine.explain.layer_norms` finds, computed in a process of its own: a dashboard without torch stays small."""
    command = [sys.executable, "-m", "core", "explain", run.id, sample_id, "--cycle", str(cycle), "--json"]
    environment = {**os.environ, "NEXTLABEL_HOME": str(home())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise UserError(said[-1].removeprefix("nextlabel: ") if said else "The worker died: try again.")
    return list(json.loads(done.stdout))


def pause(run: Run) -> None:
    """Ask the worker to stop after the phase it is in."""
    with writing(run.path):
        (run.path / "pause").touch()


def cancel(run: Run) -> None:
    """Stop the worker at once. The unfinished phase is lost, all finished ones are kept; the run can be resumed."""
    if run.status()[0] not in ("running", "pausing"):
        return
    run.log.set_fact("starting", 0.0)
    _terminate(run.path, f"run {run.id}")


def pause_study(study: Study) -> None:
    """Ask the worker to stop after the phase it is in."""
    with writing(study.path):
        (study.path / "pause").touch()
    for run in study.runs:
        if run.is_running():
            pause(run)


def cancel_study(study: Study) -> None:
    """Stop the worker at once. The unfinished phase is lost, all finished ones are kept; the study can be resumed."""
    if study.status()[0] not in ("running", "pausing"):
        return
    (study.path / "starting").unlink(missing_ok=True)
    _terminate(study.path, f"study {study.id}")


def _terminate(path: Path, what: str) -> None:
    try:
        os.kill(int((path / "worker.pid").read_text()), signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The worker of {what} cannot be stopped ({error}): it was probably started by another user; stop "
            "it there with Ctrl-C."
        ) from error


def worker_log(work: Run | Study, lines: int = 40) -> str:
    """The last lines that the worker printed."""
    try:
        return "\n".join((work.path / "worker.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
