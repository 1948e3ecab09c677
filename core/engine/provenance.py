"""On which machine and at which state of the code a figure was measured."""

import platform
import subprocess
from pathlib import Path

import torch

from data.words import count


def describe() -> str:
    """Processor, threads, GPU, torch version and commit, in one line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{_processor()}, {count(torch.get_num_threads(), 'CPU thread')}, {gpu}, torch {torch.__version__}, commit {_commit()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """Of the checkout this file lies in; "+" where it holds changes that are not committed, "?" without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return commit.strip() + ("+" if changed.strip() else "")
