"""Start, watch and stop runs. Each is a child process of the command line, so that no browser or server holds one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from core.run import Run, home
from core.store import writing
from data.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def start(run: Run, *, target: int | None = None) -> None:
    """Let a worker bring the run to `target` cycles (default: the target it has). Raises `UserError` if one is at it."""
    if run.is_running():
        raise UserError(f"Run {run.id} is being worked on already: wait for it, or pause it first.")
    if target is not None:
        run.log.set_fact("target", target)
    (run.path / "pause").unlink(missing_ok=True)
    run.log.set_fact("error", None)
    run.log.set_fact("starting", time.time())
    with writing(run.path), (run.path / "worker.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "core", "resume", run.id],
            cwd=ROOT,
            env={**os.environ, "NEXTLABEL_HOME": str(home())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # signals to the server's terminal do not reach the worker
        )
        (run.path / "worker.pid").write_text(str(child.pid))
    _children.append(child)
    _children[:] = [c for c in _children if c.poll() is None]  # a finished child stays a zombie until it is asked


_children: list["subprocess.Popen[bytes]"] = []


def pause(run: Run) -> None:
    """Ask the worker to stop after the phase it is in."""
    with writing(run.path):
        (run.path / "pause").touch()


def cancel(run: Run) -> None:
    """Stop the worker at once. The unfinished phase is lost, all finished ones are kept; the run can be resumed."""
    if run.status()[0] not in ("running", "pausing"):
        return
    run.log.set_fact("starting", 0.0)
    try:
        os.kill(int((run.path / "worker.pid").read_text()), signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The worker of run {run.id} cannot be stopped ({error}): it was probably started by another user; stop "
            "it there with Ctrl-C."
        ) from error


def worker_log(run: Run, lines: int = 40) -> str:
    """The last lines that the worker printed."""
    try:
        return "\n".join((run.path / "worker.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
