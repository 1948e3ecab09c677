"""Processes of the project that start at once: forked from one that has imported the packages, which takes most of a start."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any

from core import tsne
from core.runs import jobs
from core.runs.jobs import ROOT

_context = multiprocessing.get_context("forkserver")
# `pages` is left out: a server that is started without its gate must be one
_context.set_forkserver_preload(
    ["streamlit.web.cli", "streamlit.starlette", "core.__main__", "core.engine.loop", "torch._dynamo", "data.check"]
)


def process(
    main: str, arguments: list[str], environment: dict[str, str], output: Path, errors: Path | None = None
) -> ForkServerProcess:
    """`python -m MAIN ARGUMENTS` in the folder of the project, its output in a file; dies with the tests at the latest."""
    options = (main, arguments, environment, output, errors or output, tsne.LANDMARKS)
    started = _context.Process(target=_run, args=options, daemon=True)
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # AppTest leaves a page there, which the child would run
    try:
        started.start()
    finally:
        sys.modules["__main__"] = script
    return started


def command(*arguments: str) -> ForkServerProcess:
    """`python -m core ARGUMENTS`, silent."""
    return process("core", list(arguments), dict(os.environ), Path(os.devnull))


def wait_until(condition: Callable[[], object]) -> None:
    """Ask again and again, however slow the machine; fails where nothing can be on its way any more."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Worker:
    """What `core.runs.jobs` needs of `subprocess.Popen`. It lives on when the dashboard that started it stops."""

    def __init__(self, line: list[str], *, env: dict[str, str], stdout: IO[bytes], **_: Any) -> None:
        self._process = process("core", _words(line), env, Path(stdout.name))
        multiprocessing.process._children.discard(self._process)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode


def answer(line: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
    """What `core.runs.jobs` needs of `subprocess.run`."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        started = process("core", _words(line), env, output, errors)
        started.join()
        assert started.exitcode is not None
        return subprocess.CompletedProcess(line, started.exitcode, output.read_text(), errors.read_text())


def _words(line: list[str]) -> list[str]:
    assert line[:3] == [sys.executable, "-m", "core"]
    return line[3:]


def _run(
    main: str, arguments: list[str], environment: dict[str, str], output: Path, errors: Path, landmarks: int
) -> None:
    tsne.LANDMARKS = landmarks
    if main == "core":
        os.setsid()  # a signal to the tests' terminal does not reach a worker
    else:  # a dashboard, whose workers start at once as well
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        jobs.subprocess = SimpleNamespace(Popen=Worker, run=answer, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((output, 1), (errors, 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    sys.argv = [main, *arguments]
    runpy.run_module(main, run_name="__main__", alter_sys=True)
