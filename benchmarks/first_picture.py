"""Seconds from the click to the first cycle of the default runs: the worker as the dashboard starts it."""

import os
import tempfile
import time

import data
from core.runs import jobs, run, settle
from core.runs.spec import Config


def measure() -> None:
    """Start each default run on the embedded data and wait for its first ranking and for its end."""
    with tempfile.TemporaryDirectory() as home:
        before = os.environ.get("NEXTLABEL_HOME")
        os.environ["NEXTLABEL_HOME"] = home
        try:
            for task, method in (("active-learning", "entropy-gradnorm"), ("label-cleaning", "cleaning")):
                began = time.perf_counter()
                dataset = data.load("fashion")
                config = Config(
                    **{
                        "budget": 0,
                        **settle.defaults(task, "fashion"),
                        "task": task,
                        "dataset": "fashion",
                        "method": method,
                    }
                )
                made = run.create(settle.prepare(config, dataset), settle.about(dataset))
                jobs.start(made)
                while made.cycles().empty:
                    time.sleep(0.05)
                first = time.perf_counter() - began
                while made.status()[0] == "running":
                    time.sleep(0.05)
                print(
                    f"{task:16} first cycle {first:5.1f} s, all {len(made.cycles())} cycles {time.perf_counter() - began:5.1f} s"
                )
        finally:
            os.environ.pop("NEXTLABEL_HOME")
            if before is not None:
                os.environ["NEXTLABEL_HOME"] = before
