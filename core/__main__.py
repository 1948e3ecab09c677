"""The command line: everything that the dashboard starts can be started here. `python -m core --help`."""

import argparse
import json
import os
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import data
from core import comparison, export, jobs, run, study, tasks, views
from core.run import Config, Run
from core.strategies import STRATEGIES
from core.study import Protocol, Study
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

    sub = command("run", start, "start a run, or a study of several, and wait for its end")
    sub.add_argument("--task", choices=list(tasks.TASKS))
    sub.add_argument(
        "--protocol",
        help=f"a study, by a TOML file or one of {', '.join(study.protocols())}; options given beside it win",
    )
    sub.add_argument("--dataset", help="see `datasets` (default: fashion, embedded)")
    sub.add_argument("--root", type=Path, help="folder that holds the data set (default: $NEXTLABEL_DATA)")
    sub.add_argument("--limit", type=int, help="use only so many of the pool's images")
    sub.add_argument(
        "--strategy",
        choices=STRATEGIES,
        nargs="+",
        metavar="NAME",
        help=f"active learning: which samples next, of {', '.join(STRATEGIES)} (default: entropy-gradnorm); several make a study",
    )
    sub.add_argument(
        "--selector", choices=tasks.SELECTORS, help="label cleaning: how the model learns (default: vanilla)"
    )
    sub.add_argument(
        "--score", choices=tasks.CLEANING_SCORES, help="label cleaning: which labels first (default: cleaning)"
    )
    sub.add_argument("--gamma", type=float, help="of the cleaning score: 0 the paper (default), 0.30 its code")
    sub.add_argument("--noise", type=float, help="label cleaning: share of wrong initial labels, such as 0.15")
    sub.add_argument("--temperature", type=float, help="label cleaning: draw initial labels from counts^(1/T)")
    sub.add_argument("--initial", type=int, help="active learning: labels at the start (default: the budget)")
    sub.add_argument(
        "--subset", type=int, help="active learning: rank so many images, drawn anew each cycle (default: all)"
    )
    sub.add_argument(
        "--warm-start", action="store_true", default=None, help="go on from the last weights (default: train anew)"
    )
    sub.add_argument(
        "--reduction",
        choices=["sum", "l2"],
        help="of gradient norms: the tensors' norms added (default), or one global norm",
    )
    sub.add_argument(
        "--evidence", action="store_true", default=None, help="also measure what `compare` tabulates (protocols do)"
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
    sub.add_argument("--seed", type=int, nargs="+", help="one run for each (default: 0, or the protocol's)")
    sub.add_argument("--json", action="store_true", help="print one object a run")

    for name, function, text in (
        ("resume", resume, "go on with a run or a study that was stopped or killed"),
        ("step", step, "add one cycle to a run"),
        ("show", show, "what a run found"),
    ):
        sub = command(name, function, text)
        sub.add_argument("run")
        sub.add_argument("--json", action="store_true")

    sub = command("compare", compare, "tables and curves of several runs, beside the paper's")
    sub.add_argument("what", nargs="+", metavar="STUDY|RUN", help="a study, or runs")
    sub.add_argument("--json", action="store_true")
    sub.add_argument(
        "--out", type=Path, help="a folder for the tables as CSV, the figures as HTML, and how they were made"
    )

    sub = command("list", list_runs, "list runs and studies, the newest first")
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


SETTINGS = (
    *("dataset", "root", "limit", "selector", "gamma", "noise", "temperature", "initial", "subset", "warm_start"),
    *("reduction", "evidence", "budget", "cycles", "model", "width", "epochs", "finetune_epochs", "batch_size", "lr"),
    "schedule",
)


def start(options: argparse.Namespace) -> None:
    """Create a run for each strategy and seed, and work on it."""
    given = {key: value for key in SETTINGS if (value := getattr(options, key)) is not None}
    command = shlex.join(["python", "-m", "core", *sys.argv[1:]])
    if options.root is not None:
        given["root"] = str(options.root.resolve())
    if options.protocol is not None:
        if options.task == "label-cleaning" or options.score:
            raise UserError("Protocols are of active learning: leave out --score and --task label-cleaning.")
        made = study.create(
            options.protocol, strategies=options.strategy, seeds=options.seed, settings=given, command=command
        )
        return work_study(made, options)
    if options.task is None:
        raise UserError("Say what to run: --task active-learning, --task label-cleaning, or --protocol fashion.")
    learning = options.task == "active-learning"
    if options.strategy and not learning:
        raise UserError(f"{options.strategy[0]} is a strategy of active learning: use --score to rank labels to check.")
    if options.score and learning:
        raise UserError(f"{options.score} is a score of label cleaning: use --strategy to rank unlabelled images.")
    given = {"dataset": "fashion", **given, "task": options.task}
    methods = (options.strategy or ["entropy-gradnorm"]) if learning else [options.score or "cleaning"]
    seeds = options.seed or [0]
    if len(methods) > 1:
        title = f"{given['dataset']}: {', '.join(methods)}"
        return work_study(study.create(Protocol("study", title, methods, seeds, given), command=command), options)
    dataset = data.load(
        given["dataset"], given.get("root"), **({} if options.limit is None else {"limit": options.limit})
    )
    defaults = tasks.defaults(options.task, given["dataset"])
    for seed in seeds:
        config = Config(**{"budget": 0, **defaults, **given, "method": methods[0], "seed": seed})
        created = run.create(tasks.prepare(config, dataset), tasks.about(dataset))
        print(f"run {created.id}", file=sys.stderr)
        work(created, dataset, options)


def work_study(found: Study, options: argparse.Namespace) -> None:
    """Bring every run of a study to its target; one that fails does not keep the others."""
    from core import cycle  # torch, which most commands do without

    print(f"study {found.id}", file=sys.stderr)
    failures = []
    with found.working():
        cycle.stop_on_signals()
        members = found.complete()
        dataset = load(members[0])
        for member in members:
            if (found.path / "pause").exists():
                print(f"nextlabel: study {found.id} is paused; `resume` goes on.", file=sys.stderr)
                sys.exit(INTERRUPTED)
            if member.status()[0] == "finished":
                continue
            print(f"run {member.id}", file=sys.stderr)
            try:
                work(member, dataset, options)
            except UserError as error:
                print(f"nextlabel: {error}", file=sys.stderr)
                failures.append(str(error))
            except Exception as error:
                traceback.print_exc()
                failures.append(f"a defect of ours ({error}), please report it with the lines above")
    if failures:
        raise UserError(f"{len(failures)} of {len(members)} runs of study {found.id} failed, the first: {failures[0]}")


def resume(options: argparse.Namespace) -> None:
    """Go on with a run or a study."""
    if study.exists(options.run):
        return work_study(study.find(options.run), options)
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


def compare(options: argparse.Namespace) -> None:
    """The tables of the page Compare."""
    studies = [study.find(name) for name in options.what if study.exists(name)]
    members = [member for one in studies for member in one.runs]
    members += [run.find(name) for name in options.what if not study.exists(name)]
    tables = comparison.tables(members)
    texts = comparison.texts(tables)
    if options.json:
        print(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}))
    else:
        print(f"{comparison.coverage(members)}\n")
        for name, table in tables.items():
            shown = "" if table.empty else f"\n{table.to_string(index=False, float_format='%.3f')}"
            print(f"# {comparison.TITLES[name]}\n{texts[name]}{shown}\n")
    if options.out is not None:
        about = {
            "studies": [{"id": one.id, "title": one.title, "command": one.command} for one in studies],
            "runs": [member.id for member in members],
            "machines": sorted({str(member.log.fact("machine")) for member in members}),
            "compare": shlex.join(["python", "-m", "core", "compare", *options.what, "--out", options.out.name]),
            "tables": texts,
        }
        figures = {
            name: comparison.figure(members, name, tables) for name in comparison.FIGURES if not tables[name].empty
        }
        tables["runs"] = comparison.accuracy(members)
        for path in export.write_folder(options.out, tables, figures, about):
            print(path, file=sys.stderr)


def list_runs(options: argparse.Namespace) -> None:
    """One line a run, and one a study."""
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
    for one in study.all_studies():
        try:
            print(f"{one.id}  study  {one.status()[0]}  {one.title}")
        except UserError as error:
            print(f"nextlabel: {error}", file=sys.stderr)
    for row in rows:
        print(f"{row['run']}  {row['task']}  {row['status']}  {row['cycles']} cycle{'' if row['cycles'] == 1 else 's'}")
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
    export.write_file(options.out, content)
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
