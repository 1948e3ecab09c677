"""The command line: everything that the dashboard starts can be started here. `python -m core --help`."""

import argparse
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import data
from core import export, jobs, run, tasks, views
from core.run import Config, Run
from core.strategies import STRATEGIES
from data.errors import UserError

INTERRUPTED = 130

# Threads that wait for each other sleep in place of spinning, before torch reads it: beside a second process on the same
# two cores, spinning made a forward pass five times slower; alone it made no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the user can mend it, 1 a defect of ours, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except UserError as error:
        print(f"nextlabel: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nextlabel: interrupted; nothing finished is lost, `resume` goes on.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for one, had enough
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        print("nextlabel: this is a defect of ours; please report it with the lines above.", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m core", description="Which sample to label next, and which label to check next."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    sub = command("datasets", datasets, "list the data sets and what each needs")
    sub.add_argument("--json", action="store_true")

    sub = command("run", start, "start a run and wait for its end")
    sub.add_argument("--task", required=True, choices=list(tasks.TASKS))
    sub.add_argument("--dataset", default="fashion", help="see `datasets` (default: fashion, embedded)")
    sub.add_argument("--root", type=Path, help="folder that holds the data set (default: $NEXTLABEL_DATA)")
    sub.add_argument("--limit", type=int, help="use only so many of the pool's images")
    sub.add_argument(
        "--strategy", choices=list(STRATEGIES), default="entropy-gradnorm", help="active learning: which samples next"
    )
    sub.add_argument(
        "--selector", choices=list(tasks.SELECTORS), default="vanilla", help="label cleaning: how the model learns"
    )
    sub.add_argument(
        "--score", choices=list(tasks.CLEANING_SCORES), default="cleaning", help="label cleaning: which labels first"
    )
    sub.add_argument("--gamma", type=float, default=0.0, help="of the cleaning score: 0 the paper, 0.30 its code")
    sub.add_argument(
        "--noise", type=float, default=0.0, help="label cleaning: share of wrong initial labels, such as 0.15"
    )
    sub.add_argument("--temperature", type=float, help="label cleaning: draw initial labels from counts^(1/T)")
    sub.add_argument(
        "--initial", type=int, default=0, help="active learning: labels at the start (default: the budget)"
    )
    sub.add_argument(
        "--budget", type=int, help="labels to collect between two cycles (cleaning: three for each wrong one in all)"
    )
    sub.add_argument("--cycles", type=int, help="training rounds; cycle 0 trains on the initial labels")
    sub.add_argument("--model", choices=["small-cnn", "resnet18"])
    for name in ("width", "epochs", "finetune-epochs", "batch-size"):
        sub.add_argument(f"--{name}", type=int)
    sub.add_argument("--lr", type=float)
    sub.add_argument("--schedule", choices=["one-cycle", "step"])
    sub.add_argument("--seed", type=int, nargs="+", default=[0], help="one run for each")
    sub.add_argument("--json", action="store_true", help="print one object a run")

    for name, function, text in (
        ("resume", resume, "go on with a run that was stopped or killed"),
        ("step", step, "add one cycle to a run"),
        ("show", show, "what a run found"),
    ):
        sub = command(name, function, text)
        sub.add_argument("run")
        sub.add_argument("--json", action="store_true")

    sub = command("list", list_runs, "list the runs, the newest first")
    sub.add_argument("--json", action="store_true")

    sub = command("export", export_files, "write a figure or a table of a run to a file")
    sub.add_argument("run")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--figure", choices=["curves", "distribution", "map"])
    what.add_argument("--table", choices=["ranking", "labels", "cycles"])
    sub.add_argument("--cycle", type=int, help="default: the last")
    sub.add_argument("--out", type=Path, required=True, help="its ending is the format: png svg pdf html, csv parquet")

    command("bench", bench, "measure this machine against the named rivals")
    return top


def datasets(options: argparse.Namespace) -> None:
    """Data sets, available or not."""
    sources = data.available()
    if options.json:
        print(json.dumps([vars(source) for source in sources], indent=1))
        return
    for source in sources:
        print(f"{source.name:10} {'ready  ' if source.available else 'missing'} {source.title}")
        if source.reason:
            print(f"{'':18} {source.reason}")


def start(options: argparse.Namespace) -> None:
    """Create a run for each seed and work on it."""
    given = {
        key: value
        for key in ("budget", "cycles", "model", "width", "epochs", "finetune_epochs", "batch_size", "lr", "schedule")
        if (value := getattr(options, key)) is not None
    }
    learning = options.task == "active-learning"
    dataset = data.load(options.dataset, options.root, **({} if options.limit is None else {"limit": options.limit}))
    for seed in options.seed:
        config = Config(
            **{
                "budget": 0,
                **tasks.defaults(options.task, options.dataset),
                **given,
                "task": options.task,
                "dataset": options.dataset,
                "method": options.strategy if learning else options.score,
                "seed": seed,
                "root": str(options.root.resolve()) if options.root else None,
                "limit": options.limit,
                "initial": options.initial,
                "noise": options.noise,
                "temperature": options.temperature,
                "selector": options.selector,
                "gamma": options.gamma,
            }
        )
        created = run.create(tasks.prepare(config, dataset), tasks.about(dataset))
        print(f"run {created.id}", file=sys.stderr)
        work(created, dataset, options)


def resume(options: argparse.Namespace) -> None:
    """Go on with a run."""
    found = run.find(options.run)
    try:
        dataset = load(found)
    except UserError as error:  # for the dashboard, which started this process and does not read its output
        found.log.set_fact("error", str(error))
        found.log.set_fact("starting", 0.0)
        raise
    work(found, dataset, options)


def step(options: argparse.Namespace) -> None:
    """One more cycle than there is."""
    found = run.find(options.run)
    found.log.set_fact("target", max(found.target(), len(found.cycles()) + 1))
    resume(options)


def work(found: Run, dataset: data.ImageDataset, options: argparse.Namespace) -> None:
    """Bring a run to its target, and print what it found."""
    from core import cycle  # torch, which most commands do without

    cycle.stop_on_signals()
    try:
        cycle.work(found, dataset, report=lambda line: print(line, file=sys.stderr, flush=True))
    except cycle.Paused as paused:
        print(f"nextlabel: {paused}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print_summary(found, dataset, options.json)


def show(options: argparse.Namespace) -> None:
    """Status and metrics of a run."""
    found = run.find(options.run)
    state, sentence = found.status()
    if not options.json:
        print(f"{found.id}: {state}. {sentence}")
    print_summary(found, load(found), options.json)


def list_runs(options: argparse.Namespace) -> None:
    """One line a run."""
    rows = []
    for found in run.all_runs():
        try:
            config, (state, _) = found.config, found.status()
            rows.append(
                {
                    "run": found.id,
                    "task": config.task,
                    "dataset": config.dataset,
                    "method": config.method,
                    "seed": config.seed,
                    "status": state,
                    "cycles": len(found.cycles()),
                }
            )
        except UserError as error:
            print(f"nextlabel: {error}", file=sys.stderr)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['run']}  {row['task']}  {row['status']}  {row['cycles']} cycles")
    if not rows:
        print("No run yet: `python -m core run --task active-learning` starts one.")


def export_files(options: argparse.Namespace) -> None:
    """Write one figure or table."""
    found = run.find(options.run)
    done = len(found.cycles())
    if done == 0:
        raise UserError(f"Run {found.id} has no finished cycle yet: resume it and export again.")
    cycle = done - 1 if options.cycle is None else options.cycle
    if not 0 <= cycle < done:
        raise UserError(f"Run {found.id} has no finished cycle {cycle}: it has {done}, counted from 0.")
    file_format = options.out.suffix.lstrip(".").lower()
    if options.figure:
        dataset = load(found)
        content = export.figure_bytes(views.figure(found, dataset, options.figure, cycle), file_format)
    else:
        table = {
            "ranking": lambda: views.samples(found, load(found), cycle),
            "labels": lambda: found.log.labels(cycle),
            "cycles": found.cycles,
        }[options.table]()
        content = export.table_bytes(table, file_format)
    try:
        options.out.write_bytes(content)
    except OSError as error:
        raise UserError(f"Cannot write {options.out} ({error.strerror}): name a file in a writable folder.") from error
    print(options.out)


def bench(options: argparse.Namespace) -> int:
    """Run benchmarks/."""
    return subprocess.call([sys.executable, "-m", "benchmarks"], cwd=jobs.ROOT)


def load(found: Run) -> data.ImageDataset:
    """The data set a run was made with."""
    config = found.config
    return data.load(config.dataset, config.root, **({} if config.limit is None else {"limit": config.limit}))


def print_summary(found: Run, dataset: data.ImageDataset, as_json: bool) -> None:
    """What a run found, as one JSON object or as lines."""
    summary = views.summary(found, dataset)
    if as_json:
        print(json.dumps(summary), flush=True)
        return
    for cycle in summary["cycles"]:
        shown = {"correctness": "right labels", "accuracy": "test accuracy"}
        parts = [f"{text} {100 * cycle[key]:.1f} %" for key, text in shown.items() if cycle.get(key) is not None]
        print(f"cycle {cycle['cycle']}: {cycle['n_labels']:,} labels, " + ", ".join(parts))
    if summary["auc"] is not None:
        normalised = summary["auc_normalised"]
        scale = "" if normalised is None else f" ({normalised:.2f} of the way from random to oracle)"
        print(f"AUC {summary['auc']:.4f}{scale}")


if __name__ == "__main__":
    sys.exit(main())
