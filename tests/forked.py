"""Processes of the project that start at once: forked from one that has imported the packages, which takes most of a start."""

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType

from core import tsne
from core.runs.jobs import ROOT

_context = multiprocessing.get_context("forkserver")
# `pages` is left out: a server that is started without its gate must be one
_context.set_forkserver_preload(
    ["streamlit.web.cli", "streamlit.starlette", "core.__main__", "core.engine.loop", "torch._dynamo", "data.check"]
)


def process(main: str, arguments: list[str], environment: dict[str, str], output: Path) -> ForkServerProcess:
    """`python -m MAIN ARGUMENTS` in the folder of the project, its output in a file; dies with the tests at the latest."""
    options = (main, arguments, environment, output, tsne.LANDMARKS)
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


def _run(main: str, arguments: list[str], environment: dict[str, str], output: Path, landmarks: int) -> None:
    tsne.LANDMARKS = landmarks
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [main, *arguments]
    runpy.run_module(main, run_name="__main__", alter_sys=True)
