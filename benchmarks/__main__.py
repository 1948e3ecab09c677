"""Run the measurements that are named, or all of them, and say on which machine."""

import argparse
import platform
import subprocess

import torch

from benchmarks import dashboard, first_picture, gradient_norms, simulate

MEASUREMENTS = {
    "simulate": simulate.measure,
    "gradient-norms": gradient_norms.measure,
    "first-picture": first_picture.measure,
    "dashboard": dashboard.measure,
}


def machine() -> str:
    """The machine, its processor count and the commit, in one line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    processor = f"{platform.machine()}, {torch.get_num_threads()} CPU threads, {gpu}"
    return f"{processor}, torch {torch.__version__}, commit {commit or '?'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(MEASUREMENTS)} (default: all)")
    chosen = parser.parse_args().name or list(MEASUREMENTS)
    if unknown := set(chosen) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}: choose from {', '.join(MEASUREMENTS)}")
    print(machine())
    for name in chosen:
        print(f"\n## {name}")
        MEASUREMENTS[name]()
