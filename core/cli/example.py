"""Make the example runs that come with NextLabel, by the command line: `make example`.

They are as small as a run can be that every page still shows: a part of the embedded images, a narrow network, scores as
float32 and posteriors as float16. On one kind of processor it makes the same labels and rankings every time, and says so.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from core.runs import attribution, removal
from core.runs.run import EXAMPLES, Run
from core.store.atomic import write_array

ROOT = Path(__file__).resolve().parents[2]
DATA = ["--dataset", "fashion", "--limit", "1500", "--width", "8", "--seed", "0"]
LEARNING = ["--task", "active-learning", *DATA, "--initial", "100", "--budget", "100", "--cycles", "4"]
LEARNING += ["--epochs", "40"]
COMMANDS = {  # what follows `python -m core run`
    "example-active-learning": [*LEARNING, "--strategy", "entropy-gradnorm", "--evidence", "influence"],
    "example-label-cleaning": ["--task", "label-cleaning", *DATA, "--noise", "0.15", "--epochs", "15", "--cycles", "4"],
    "example-random": [*LEARNING, "--strategy", "random", "--evidence"],
}
AFTERWARDS = {  # what follows `python -m core`, the run being named after the first word
    "example-active-learning": [
        ["explain", "--influence", "--extremes", "3", "--cycle", "3"],
        ["influence", "--trainings", "3", "--dampings", "0.1", "1"],
    ],
}
WHOLE = ("example-active-learning", "example-label-cleaning")  # with weights and embeddings; the other is for its curve
LIMIT = 3_000_000  # bytes of all of them
THREADS = {"OMP_NUM_THREADS": "2"}  # sums depend on how many share them


def make(name: str, folder: Path) -> Run:
    """Run the commands of an example, and put what pages show of it at `folder / name`."""
    with tempfile.TemporaryDirectory() as home:
        core = partial(subprocess.run, cwd=ROOT, env={**os.environ, **THREADS, "NEXTLABEL_HOME": home}, check=True)
        core([sys.executable, "-m", "core", "run", *COMMANDS[name]])
        (made,) = (Run(path.parent) for path in Path(home).glob("*/config.json"))
        for word, *options in AFTERWARDS.get(name, ()):
            core([sys.executable, "-m", "core", word, made.id, *options])
        target = folder / name
        target.mkdir(parents=True)
        for cycle in range(len(made.cycles())):
            _thin(made, cycle, target / made.cycle_path(cycle).name, whole=name in WHOLE)
        with closing(sqlite3.connect(made.path / "run.sqlite")) as db:
            db.execute("VACUUM INTO ?", (str(target / "run.sqlite"),))
        with closing(sqlite3.connect(target / "run.sqlite")) as db:
            db.execute("PRAGMA journal_mode = DELETE")  # a file that is read where nothing can be written beside it
        shutil.copyfile(made.path / "config.json", target / "config.json")
    return Run(target)


def _thin(run: Run, cycle: int, target: Path, *, whole: bool) -> None:
    target.mkdir()
    ranking = run.ranking(cycle)
    ranking = ranking.astype(dict.fromkeys(ranking.select_dtypes("float64"), "float32"))
    ranking.to_parquet(target / "ranking.parquet", index=False, compression="zstd")
    posterior = np.maximum(run.posterior(cycle), np.finfo(np.float16).smallest_subnormal)  # a 0 would have no logarithm
    write_array(target / "posterior.npy", posterior.astype(np.float16))
    for file in ("embedding.npy", "weights.safetensors") if whole else ():
        shutil.copyfile(run.cycle_path(cycle) / file, target / file)
    for path in (*run.cycle_path(cycle).glob(attribution.FILES), *run.cycle_path(cycle).glob(removal.FILE)):
        shutil.copyfile(path, target / path.name)


def digest(run: Run) -> str:
    """Names the labels and rankings of a run, whatever it took to make them."""
    found = hashlib.sha256(run.log.labels()[["cycle", "sample_id", "label", "source"]].to_csv(index=False).encode())
    for cycle in range(len(run.cycles())):
        found.update(run.ranking(cycle)[["sample_id", "rank", "suggested"]].to_csv(index=False).encode())
    return found.hexdigest()


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Make all examples again, and say whether they are what they were."""
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in COMMANDS:
            found, old = make(name, Path(folder)), Run(EXAMPLES / name)
            there = (old.path / "config.json").is_file()
            same = there and digest(found) == digest(old)
            rows.append({"example": name, "digest": digest(found)[:16], "as before": same if there else "new"})
        if size(Path(folder)) >= LIMIT:
            print(f"The examples take {size(Path(folder)):,} bytes, which is too much: {LIMIT:,}.", file=sys.stderr)
            return 1
        shutil.rmtree(EXAMPLES, ignore_errors=True)
        shutil.copytree(folder, EXAMPLES)
    print(f"{pd.DataFrame(rows).to_string(index=False)}\n{size(EXAMPLES):,} bytes in {EXAMPLES.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
