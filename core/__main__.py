"""The command line: everything that the dashboard starts can be started here. `python -m core --help`."""

import argparse
import dataclasses
import getpass
import json
import math
import os
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

import data
from core import password
from core.analysis import budget, curves, diff, figures, labelling, measures, peers, samples
from core.analysis.figures import BANDS, policy_figure
from core.files import bundle, export, handout, printed, report
from core.files.printed import Layout
from core.runs import annotation, branch, jobs, live, questions, run, settle, study
from core.runs.run import Run
from core.runs.study import Protocol, Study
from core.strategies import STRATEGIES
from core.studies import comparison, policies, published
from data import votes
from data.errors import UserError
from data.files import skipped

INTERRUPTED = 130
SHOWN_ROWS = 200  # of a table that is printed

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
    sub.add_argument("--task", choices=list(questions.TASKS))
    sub.add_argument(
        "--protocol",
        help=f"a study, by a TOML file or one of {', '.join(study.protocols())}; options given beside it win",
    )
    sub.add_argument("--dataset", help="see `datasets` (default: fashion, embedded)")
    sub.add_argument("--root", type=Path, help="folder that holds the data set (default: $NEXTLABEL_DATA)")
    sub.add_argument("--limit", type=int, help="use only so many of the pool's images")
    sub.add_argument(
        "--test-share",
        type=float,
        help="share of a folder's labelled images held out as test set and not ranked; a test tree is taken as it is (default: "
        "0.2; where people check the labels 0: every image is ranked, those of a test tree too)",
    )
    sub.add_argument(
        "--strategy",
        choices=STRATEGIES,
        nargs="+",
        metavar="NAME",
        help=f"active learning: which samples next, of {', '.join(STRATEGIES)} (default: entropy-gradnorm); several make a study",
    )
    sub.add_argument(
        "--selector", choices=questions.SELECTORS, help="label cleaning: how the model learns (default: vanilla)"
    )
    sub.add_argument(
        "--score",
        choices=questions.CLEANING_SCORES,
        help="label cleaning: which labels first (default: cleaning; with --votes of people: "
        f"{settle.VOTES_SCORE}). Ties come first by any",
    )
    sub.add_argument("--arm", nargs="+", metavar="NAME", help="of a protocol of label cleaning (default: all)")
    sub.add_argument("--gamma", type=float, help="of the cleaning score: 0 the paper (default), 0.30 its code")
    sub.add_argument("--noise", type=float, help="label cleaning: share of wrong initial labels, such as 0.15")
    sub.add_argument("--noise-kind", choices=votes.NOISE_KINDS, help="of injected noise (default: symmetric)")
    sub.add_argument("--temperature", type=float, help="label cleaning: draw initial labels from counts^(1/T)")
    sub.add_argument(
        "--labels", type=Path, help="a table of labels of a folder's images, in the place of its metadata.csv"
    )
    sub.add_argument("--votes", type=Path, help="a table of annotators' votes on a folder's images, CSV or Parquet")
    sub.add_argument(
        "--annotator",
        choices=["simulated", "person"],
        help="who is asked (default: in label cleaning simulated where votes or clean labels are known; in active learning "
        "the reference labels)",
    )
    sub.add_argument(
        "--relabel-seed", type=int, nargs="+", help="of collected votes, one run for each (default: the seed)"
    )
    sub.add_argument(
        "--static", action="store_true", default=None, help="label cleaning: the first model ranks all cycles"
    )
    sub.add_argument(
        "--folds",
        type=int,
        help="posteriors out of fold, of so many models (default: 1, in-sample; 5 where people check the labels)",
    )
    sub.add_argument("--ensemble", type=int, help="average the posteriors of so many models (default: 1)")
    sub.add_argument("--forget-rate", type=float, help="of co-teaching: share of wrong labels (default: estimated)")
    sub.add_argument("--pretrain-epochs", type=int, help="of the ssl selector, on the images alone (default: 30)")
    sub.add_argument(
        "--head", choices=["linear", "fine-tuned"], help="of ssl and pretrained: what is trained (default: linear)"
    )
    sub.add_argument("--backbone", help="of the pretrained selector: mobilenet_v2 (default), resnet18, resnet50")
    sub.add_argument("--weights", type=Path, help="file of the backbone's ImageNet weights (default: downloaded)")
    sub.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="of a folder whose labels do not name them all, for people to choose from",
    )
    sub.add_argument(
        "--initial",
        type=int,
        help="active learning: labels at the start (default: the budget; of people: all that are there)",
    )
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
        sub.add_argument(
            "run", metavar="RUN|STUDY" if name == "resume" else "RUN", help="its name, as `list` prints it"
        )
        sub.add_argument("--json", action="store_true", help="print one object a run")
        if name == "resume":
            sub.add_argument(
                "--until", type=int, metavar="CYCLES", help="of a run: stop at so many (default: all it is to have)"
            )
        if name == "step":
            sub.add_argument("--labels", type=int, help="collect so many, this once (default: the run's budget)")

    sub = command("branch", branch_off, "start a run that shares the past of another, and goes on otherwise")
    sub.add_argument("run")
    sub.add_argument("--cycle", type=int, help="the first that is its own (default: the last)")
    method = sub.add_mutually_exclusive_group()
    method.add_argument("--strategy", dest="method", choices=STRATEGIES, help="of active learning")
    method.add_argument("--score", dest="method", choices=questions.CLEANING_SCORES, help="of label cleaning")
    sub.add_argument("--selector", choices=questions.SELECTORS)
    sub.add_argument("--gamma", type=float)
    sub.add_argument("--budget", type=int)
    sub.add_argument("--annotator", choices=["person"], help="active learning: people give the labels from here on")
    sub.add_argument("--cycles", type=int, help="in all (default: as many as the run was to have)")
    sub.add_argument("--json", action="store_true")

    sub = command("compare", compare, "tables and curves of several runs, beside the paper's")
    sub.add_argument("what", nargs="+", metavar="STUDY|RUN", help="a study, or runs")
    sub.add_argument("--json", action="store_true")
    sub.add_argument(
        "--out", type=Path, help="a folder for the tables as CSV, the figures as PNG, and how they were made"
    )
    print_options(sub)

    sub = command("diff", difference, "what differs between two runs, or two cycles of one")
    sub.add_argument("first", metavar="RUN[@CYCLE]", help="default: its last cycle")
    sub.add_argument("second", metavar="RUN[@CYCLE]")
    sub.add_argument("--top", type=int, default=10, help="rows of each table (default: 10)")
    sub.add_argument("--out", type=Path, help="a figure of both ranks; its ending is the format: png svg pdf html")
    print_options(sub)
    sub.add_argument("--json", action="store_true")

    sub = command("evaluate", evaluate, "what cleaned labels are worth: train classifiers before and after")
    sub.add_argument("what", nargs="+", metavar="STUDY|RUN", help="a study of label cleaning, or runs")
    sub.add_argument(
        "--classifier",
        choices=questions.SELECTORS,
        nargs="+",
        help="default: the rows of the paper's Table 1 that the arms allow",
    )
    sub.add_argument(
        "--relabelled",
        type=float,
        help="clean so large a share of the images, 0.327 in the paper (default: all collected)",
    )
    sub.add_argument("--seed", type=int, nargs="+", default=[0], help="of the classifiers' training (default: 0)")
    sub.add_argument(
        "--model-selection",
        action="store_true",
        help="choose among classifiers on noisy and on cleaned validation labels",
    )

    sub = command(
        "import", import_labels, "bring labels in that people gave: Label Studio's export, or a table of votes"
    )
    sub.add_argument("run")
    sub.add_argument("file", type=Path, help=".json of Label Studio; .csv or .parquet: sample_id, annotator, label")

    sub = command("explain", explain_sample, "the gradient norm of one sample, layer by layer")
    sub.add_argument("run")
    sub.add_argument("sample", help="its id, as in the table ranking")
    sub.add_argument("--cycle", type=int, help="default: the last")
    sub.add_argument("--json", action="store_true")

    sub = command("list", list_runs, "list runs and studies, the newest first")
    sub.add_argument("--json", action="store_true")

    sub = command("export", export_files, "write a figure or a table of a run to a file")
    sub.add_argument("run")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--figure", choices=figures.FIGURES)
    what.add_argument("--table", choices=["ranking", "labels", "votes", "cycles", "relabels", "cleaned", "issues"])
    what.add_argument("--label-studio", action="store_true", help="tasks for Label Studio, in the order of the ranking")
    sub.add_argument("--cycle", type=int, help="default: the last")
    sub.add_argument("--band", choices=list(figures.BANDS), default="sd", help="of the figure policies")
    sub.add_argument(
        "--scores",
        nargs="+",
        default=[],
        help="of the figures distribution (one; default: the run's own) and scatter (two: across, up)",
    )
    print_options(sub)
    sub.add_argument(
        "--top", type=int, help="for Label Studio: so many of the ranking (default: all that may be chosen)"
    )
    sub.add_argument(
        "--image-prefix",
        help="for Label Studio: what stands before an image's path in its address (default: the images are written too)",
    )
    sub.add_argument(
        "--out",
        type=Path,
        required=True,
        help="its ending is the format: png svg pdf html, csv parquet; a folder for Label Studio",
    )

    sub = command("budget", plan_budget, "what a budget buys and what a target costs, by every policy")
    sub.add_argument("run")
    sub.add_argument("--labels", type=int, help="the budget (default: the run's)")
    sub.add_argument(
        "--target", type=float, default=0.95, help="share of right labels, or test accuracy (default: 0.95)"
    )
    sub.add_argument("--price", type=float, help="of a label, in whatever money or minutes: adds the costs")
    sub.add_argument("--out", type=Path, help="the figure too; its ending is the format: png svg pdf html")
    print_options(sub)
    sub.add_argument("--json", action="store_true")

    sub = command("report", report_run, "write a run on one page")
    sub.add_argument("run")
    sub.add_argument("--cycle", type=int, help="default: the last")
    sub.add_argument("--out", type=Path, required=True, help="its ending is the format: html, pdf")

    sub = command("bundle", bundle_run, "write a whole run as one file, which another installation opens")
    sub.add_argument("run")
    sub.add_argument("--out", type=Path, required=True, help="a .zip file")
    sub.add_argument(
        "--with-images",
        action="store_true",
        help="the images too: your own folder's, or of a data set that is not there",
    )
    sub.add_argument("--with-weights", action="store_true", help="the models of every cycle too")

    sub = command("open", open_bundle, "open the bundle of a run: it is listed and shown like those made here")
    sub.add_argument("file", type=Path)

    command("password", make_password, "make the hash of a password, for a dashboard that other machines reach")

    command("bench", bench, "measure this machine against the named rivals")
    return top


def print_options(sub: argparse.ArgumentParser) -> None:
    """How a figure is printed."""
    size = sub.add_mutually_exclusive_group()
    wide = ", ".join(f"{name} {mm:g} mm" for name, mm in printed.COLUMNS.items())
    size.add_argument(
        "--column", choices=list(printed.COLUMNS), help=f"a figure for print, as wide as a journal's columns: {wide}"
    )
    size.add_argument("--width-mm", type=float, help="a figure for print, so wide")
    sub.add_argument("--font-size", type=float, help="of a figure for print, in points (default: 8)")
    sub.add_argument("--dpi", type=int, help="of a PNG for print, dots per inch (default: 300)")


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
    *(
        "dataset",
        "root",
        "limit",
        "test_share",
        "classes",
        "selector",
        "gamma",
        "noise",
        "temperature",
        "initial",
        "subset",
        "warm_start",
    ),
    *(
        "noise_kind",
        "labels",
        "votes",
        "annotator",
        "static",
        "folds",
        "ensemble",
        "forget_rate",
        "pretrain_epochs",
        "head",
    ),
    *(
        "backbone",
        "weights",
        "reduction",
        "evidence",
        "budget",
        "cycles",
        "model",
        "width",
        "epochs",
        "finetune_epochs",
        "batch_size",
        "lr",
    ),
    "schedule",
)


def start(options: argparse.Namespace) -> None:
    """Create a run for each strategy and seed, and work on it."""
    given = {key: value for key in SETTINGS if (value := getattr(options, key)) is not None}
    command = shlex.join(["python", "-m", "core", *sys.argv[1:]])
    for name in ("root", "labels", "votes", "weights"):
        if name in given:
            given[name] = str(given[name].resolve())
    relabel_seeds: list[int | None] = options.relabel_seed or [None]
    if options.protocol is not None:
        if options.task or options.score or options.selector or options.relabel_seed:
            raise UserError("A protocol says task, selector, score and votes itself: choose of its arms with --arm.")
        arms = options.strategy or options.arm
        made = study.create(options.protocol, arms=arms, seeds=options.seed, settings=given, command=command)
        return work_study(made, options)
    if options.task is None:
        raise UserError("Say what to run: --task active-learning, --task label-cleaning, or --protocol fashion.")
    if options.arm:
        raise UserError("--arm chooses among the arms of a protocol: give --protocol, or --selector and --score.")
    learning = options.task == "active-learning"
    if options.strategy and not learning:
        raise UserError(f"{options.strategy[0]} is a strategy of active learning: use --score to rank labels to check.")
    if options.score and learning:
        raise UserError(f"{options.score} is a score of label cleaning: use --strategy to rank unlabelled images.")
    given = {"dataset": "fashion", **given, "task": options.task}
    usual = settle.default_score("votes" in given and not options.noise and options.annotator != "simulated")
    methods = (options.strategy or ["entropy-gradnorm"]) if learning else [options.score or usual]
    seeds = options.seed or [0]
    if len(methods) > 1:
        title = f"{given['dataset']}: {', '.join(methods)}"
        protocol = Protocol("study", title, [{"method": method} for method in methods], seeds, given)
        return work_study(study.create(protocol, command=command), options)
    loader = settle.loader()
    for seed in seeds:
        for relabel_seed in relabel_seeds:
            asked = {**given, "method": methods[0], "seed": seed, "relabel_seed": relabel_seed}
            config, dataset = settle.settle(asked, loader)
            created = run.create(config, settle.about(dataset))
            tell(f"run {created.id}\n{measures.split_text(config, dataset)}")
            print_left_out(dataset)
            work(created, dataset, options)


def work_study(found: Study, options: argparse.Namespace) -> None:
    """Bring every run of a study to its target; one that fails does not keep the others."""
    from core.engine import loop  # torch, which most commands do without

    tell(f"study {found.id}")
    failures = []
    with found.working() as worker:
        loop.stop_on_signals()
        members = found.complete()
        dataset = load(members[0])
        print_left_out(dataset)
        for member in members:
            if worker.asked_to_pause:
                tell(f"nextlabel: study {found.id} is paused; `resume` goes on.")
                sys.exit(INTERRUPTED)
            if member.status()[0] == "finished":
                continue
            tell(f"run {member.id}")
            try:
                work(member, dataset, options)
            except UserError as error:
                tell(f"nextlabel: {error}")
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
    if options.until is not None and options.until < 1:
        raise UserError(f"--until is {options.until}: give the number of cycles to stop at, 1 or more.")
    with live.noting_error(
        found.path, found.log
    ):  # the dashboard, which started this process, does not read its output
        dataset = load(found)
    print_left_out(dataset)
    work(found, dataset, options, options.until)


def step(options: argparse.Namespace) -> None:
    """One more cycle than there is."""
    found = run.find(options.run)
    annotation.check_step(found)
    if found.is_running():
        raise UserError(f"Run {found.id} is being worked on by another process: wait for it, or cancel it first.")
    jobs.take(found, options.labels)
    options.until = len(found.cycles()) + 1
    found.log.set_fact("target", max(found.target(), options.until))
    resume(options)


def branch_off(options: argparse.Namespace) -> None:
    """A branch, worked on to its end."""
    found = run.find(options.run)
    dataset = load(found)
    changes = {name: value for name in branch.CHANGES if (value := getattr(options, name)) is not None}
    cycle = finished_cycle(found, options.cycle)
    made = branch.branch(found, dataset, cycle, cycles=options.cycles, **changes)
    tell(f"run {made.id}, branched from {found.id} at cycle {cycle}")
    work(made, dataset, options)


def work(found: Run, dataset: data.ImageDataset, options: argparse.Namespace, until: int | None = None) -> None:
    """Bring a run to its target, or to so many cycles, and print what it found."""
    from core.engine import loop  # torch, which most commands do without

    loop.stop_on_signals()
    try:
        loop.work(found, dataset, until=until, report=tell)
    except loop.Paused as paused:
        print(f"nextlabel: {paused}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print_summary(found, dataset, options.json)


def tell(line: str) -> None:
    """Print a line of progress. Where its reader, `head` for one, had enough, the work goes on without it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives


def show(options: argparse.Namespace) -> None:
    """Status and metrics of a run."""
    found = run.find(options.run)
    state, sentence = found.status()
    if not options.json:
        print(f"{found.id}: {state}. {sentence}")
        if found.config.parent is not None:
            print(f"Branched from {found.config.parent} at cycle {found.config.branched_at}.")
    print_summary(found, load(found), options.json)


def difference(options: argparse.Namespace) -> None:
    """The tables of the page Diff."""

    def side(text: str) -> diff.Side:
        name, _, cycle = text.partition("@")
        found = run.find(name)
        if cycle and not cycle.isdecimal():
            raise UserError(f'"{text}" names no cycle: write RUN@2 for cycle 2, counted from 0.')
        return diff.Side(found, finished_cycle(found, int(cycle) if cycle else None))

    first, second = side(options.first), side(options.second)
    found, dataset = diff.diff(first, second), load(first.run)
    samples = found.samples
    if options.out is not None:
        both = samples[(samples["rank_first"] > 0) & (samples["rank_second"] > 0)]
        write_figure(diff.drawn(both, dataset, first.run, first.cycle, second.run, second.cycle, len(both)), options)
    tables = {"settings": found.settings, "measures": found.measures}
    for name, mask in diff.groups(samples).items():
        tables[name] = diff.named(samples[mask].head(options.top), dataset)
    tables["moved furthest"] = diff.named(diff.moved(samples).head(options.top), dataset)
    tables["other label"] = diff.named(diff.relabelled(samples).head(options.top), dataset)
    if options.json:
        print(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}))
        return
    print(f"first: {first.run.id}, cycle {first.cycle}\nsecond: {second.run.id}, cycle {second.cycle}")
    print(f"{diff.sentence(found)}")
    for name, table in tables.items():
        if len(table):
            print(f"\n# {name}\n{table.to_string(index=False, na_rep='—')}")


def portable(command: str) -> str:
    """A command as another machine would be given it: of files that lie elsewhere, their names."""
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command))


def compare(options: argparse.Namespace) -> None:
    """The tables of the page Compare."""
    studies, members = named(options.what)
    if any(member.config.task == "label-cleaning" for member in members):
        members = policies.comparable(members)
        dataset = load(members[0]) if members else None
        if dataset is None:
            raise UserError("None of these runs has a ranking yet: wait for its first cycle.")
        tables = policies.tables(members, dataset)
        texts = dict(policies.DEFINITIONS)
        titles, said = policies.TITLES, f"{len(members)} runs of label cleaning."
        figures = {f"curves-{band}": policy_figure(members, dataset, band) for band in BANDS}
    else:
        tables = comparison.tables(members)
        texts, titles, said = comparison.texts(tables), comparison.TITLES, comparison.coverage(members)
        figures = {
            name: comparison.figure(members, name, tables) for name in comparison.FIGURES if not tables[name].empty
        }
    if options.json:
        print(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}))
    else:
        print(f"{said}\n")
        for name, table in tables.items():
            if len(table) > SHOWN_ROWS:  # curves, a row a label
                continue
            shown = "" if table.empty else f"\n{table.to_string(index=False, float_format='%.3f')}"
            print(f"# {titles[name]}\n{texts[name]}{shown}\n")
    if options.out is not None:
        about = {
            "studies": [{"id": one.id, "title": one.title, "command": portable(one.command)} for one in studies],
            "runs": [member.id for member in members],
            "machines": sorted({str(member.log.fact("machine")) for member in members}),
            "compare": shlex.join(["python", "-m", "core", "compare", *options.what, "--out", options.out.name]),
            "tables": texts,
        }
        if "accuracy" in tables:
            tables["runs"] = comparison.accuracy(members)
        tables = {name: table.round(6) for name, table in tables.items() if not table.empty}
        for path in export.write_folder(options.out, tables, figures, about, print_layout(options)):
            print(path, file=sys.stderr)


def named(what: list[str]) -> tuple[list[Study], list[Run]]:
    """The studies among some names, and all their runs with those that are named alone."""
    studies = [study.find(name) for name in what if study.exists(name)]
    members = [member for one in studies for member in one.runs]
    return studies, members + [run.find(name) for name in what if not study.exists(name)]


def evaluate(options: argparse.Namespace) -> None:
    """Train classifiers on labels before and after cleaning, or choose among classifiers."""
    from core.engine import evaluation, loop

    loop.stop_on_signals()
    _, members = named(options.what)
    members = policies.comparable(members)
    if not members:
        raise UserError("None of these runs has a ranking yet: wait for its first cycle.")
    dataset = load(members[0])

    if options.model_selection:
        for member in members:
            for seed in options.seed:
                evaluation.select_models(member, dataset, seed=seed, report=tell)
        return
    arms = {member.config.arm: member for member in members}
    rows: list[tuple[Run, str, evaluation.Labelled]] = []
    if options.classifier:
        rows = [
            (one, name, which) for one in members for name in options.classifier for which in evaluation.LABELLED[:2]
        ]
    else:  # the rows of Table 1
        for row in published.TABLE_1_CLEANING:
            arm, classifier = arms.get(row["arm"]), row["classifier"]
            if row["arm"] == "clean":
                rows.append((members[0], classifier, "clean"))
            else:
                rows.append((members[0], classifier, "before"))
                rows += [(arm, classifier, "after")] if arm is not None else []
    # A classifier is trained as the selector of its name was, where the study has one
    known = {
        member.config.selector: member.config for member in reversed(members) if member.config.method == "cleaning"
    }
    for seed in options.seed:
        for member, name, which in dict.fromkeys(rows):
            classifier = known.get(name) or dataclasses.replace(member.config, selector=name)
            evaluation.evaluate(
                member, dataset, classifier, which, seed=seed, relabelled=options.relabelled, report=tell
            )
    print(policies.before_after(members).to_string(index=False, float_format="%.2f"))


def import_labels(options: argparse.Namespace) -> None:
    """Labels that people gave, into a run's log."""
    found = run.find(options.run)
    said = handout.bring_in(found, load(found), str(options.file))
    print(said if said.startswith("0 ") else f"{said} `step {found.id}` trains on them.")


def explain_sample(options: argparse.Namespace) -> None:
    """Print the gradient norms of one sample."""
    from core.engine import explain

    found = run.find(options.run)
    table = explain.layer_norms(found, load(found), finished_cycle(found, options.cycle), options.sample)
    if options.json:
        print(table.to_json(orient="records"))
        return
    print(table.to_string(index=False, float_format="%.4g"))
    print(f"sum {table['norm'].sum():.4g}: the entropy gradient norm")


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
                    "death": found.live().death,
                    "cycles": len(found.cycles()),
                    "example": found.is_example,
                    "people": config.annotator == "person",
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
        waits = row["status"] == "finished" and row["people"]
        shown = "example, read only" if row["example"] else "waits for labels" if waits else row["status"]
        done = f"{row['cycles']} cycle{'' if row['cycles'] == 1 else 's'}"
        print(f"{row['run']}  {row['task']}  {shown}  {done}  {row['death']}".rstrip())
    if all(found.is_example for found in run.all_runs()):
        print("No run of your own yet: `python -m core run --task active-learning` starts one.")


def export_files(options: argparse.Namespace) -> None:
    """Write one figure or table."""
    found = run.find(options.run)
    cycle = finished_cycle(found, options.cycle)
    if options.label_studio:
        for path in handout.label_studio(found, load(found), cycle, options.out, options.top, options.image_prefix):
            print(path)
        return
    if options.figure:
        drawn = figures.figure(found, load(found), options.figure, cycle, band=options.band, chosen=options.scores)
        write_figure(drawn, options)
    else:
        tables: dict[str, Callable[[], pd.DataFrame]] = {
            "ranking": lambda: samples.table(found, load(found), cycle),
            "labels": lambda: labelling.log_table(
                found.log.events(labelling.through(found, cycle)), found.about["class_names"]
            ),
            "votes": lambda: labelling.given_votes(found),
            "cycles": found.cycles,
            "relabels": lambda: labelling.relabels(found, load(found), labelling.through(found, cycle)),
            "cleaned": lambda: labelling.cleaned(found, load(found), cycle),
            "issues": lambda: labelling.issues(found, load(found), cycle),
        }
        content = export.table_bytes(tables[options.table](), file_format(options.out))
        export.write_file(options.out, content)
        if options.table != "ranking" and (text := labelling.untrained_text(found, cycle)):
            print(f"nextlabel: {text}", file=sys.stderr)
    print(options.out)


def write_figure(drawn: go.Figure, options: argparse.Namespace) -> None:
    """A figure as the file that --out names."""
    export.write_file(options.out, export.figure_bytes(drawn, file_format(options.out), print_layout(options)))


def file_format(path: Path) -> str:
    """What the ending of a path says."""
    return path.suffix.lstrip(".").lower()


def report_run(options: argparse.Namespace) -> None:
    """A run on one page."""
    found = run.find(options.run)
    cycle, kind = finished_cycle(found, options.cycle), file_format(options.out)
    if kind not in ("html", "pdf"):
        raise UserError(f'"{kind}" is no format of a report: name a file that ends in .html or .pdf.')
    dataset = load(found)
    content = report.pdf(found, dataset, cycle) if kind == "pdf" else report.html(found, dataset, cycle).encode()
    export.write_file(options.out, content)
    print(options.out)


def bundle_run(options: argparse.Namespace) -> None:
    """A whole run as one file."""
    found = run.find(options.run)
    content = bundle.to_bytes(found, load(found), images=options.with_images, weights=options.with_weights)
    export.write_file(options.out, content)
    print(options.out)


def open_bundle(options: argparse.Namespace) -> None:
    """The run of a bundle, among those made here."""
    print(f"run {bundle.opened(options.file).id}")


def print_layout(options: argparse.Namespace) -> Layout | None:
    """How a figure is printed, if any option speaks of print."""
    given = {"font_size": options.font_size, "dpi": options.dpi}
    given["width_mm"] = options.width_mm if options.column is None else printed.COLUMNS[options.column]
    given = {name: value for name, value in given.items() if value is not None}
    return Layout(**given) if given else None


def finished_cycle(found: run.Run, wanted: int | None) -> int:
    """The cycle that is asked for, by default the last. Raises `UserError` where it is not finished."""
    done = len(found.cycles())
    if done == 0:
        raise UserError(f"Run {found.id} has no finished cycle yet: resume it, then ask again.")
    cycle = done - 1 if wanted is None else wanted
    if not 0 <= cycle < done:
        raise UserError(f"Run {found.id} has no finished cycle {cycle}: it has {done}, counted from 0.")
    return cycle


def plan_budget(options: argparse.Namespace) -> None:
    """The table of the page Curves, "What a budget buys"."""
    found = run.find(options.run)
    finished_cycle(found, None)
    if not 0 < options.target <= 1:
        raise UserError(f"--target is {options.target}: give a share above 0 and at most 1, such as 0.95.")
    if options.price is not None and not 0 <= options.price < math.inf:
        raise UserError(f"--price is {options.price}: give what a label costs, such as 0.08.")
    dataset = load(found)
    curves = budget.curves([found, *peers.of_study(found)], dataset)
    if curves.empty:
        raise UserError(
            f"Nobody knows the right labels of run {found.id}: what labels would correct cannot be said, only estimated "
            f"(`show {found.id}`)."
        )
    labels = options.labels
    if labels is None:
        labels = (
            int(curves["n_labels"].max()) // budget.REACH
            if found.config.task == "label-cleaning"
            else int(found.cycles()["n_labels"].iloc[-1])
        )
    if labels < 0:
        raise UserError(f"--labels is {labels}: give a number of labels, 0 or more.")
    cleaning = found.config.task == "label-cleaning"
    table = budget.plan(curves, labels, options.target, len(dataset) if cleaning else None)
    if options.out is not None:
        write_figure(figures.budget_figure(found, curves, labels, options.target), options)
    if options.price is not None:
        for name in ("labels_per_correction", "labels_for_target", "saved"):
            table[f"cost_{name.removeprefix('labels_')}"] = options.price * table[name]
    if options.json:
        print(table.to_json(orient="records"))
        return
    print(f"{labels:,} labels" + (f" cost {options.price * labels:,.2f}" if options.price is not None else ""))
    table["saved"] = [
        "" if math.isnan(n) else f"{'more than ' if more else ''}{n:,.0f}"
        for n, more in zip(table["saved"], table.pop("saved_at_least"), strict=True)
    ]
    reached = table["labels_for_target"]
    table["labels_for_target"] = ["not reached" if math.isnan(n) else f"{n:,.0f}" for n in reached]
    print(table.dropna(axis=1, how="all").to_string(index=False, float_format=lambda x: f"{x:,.4g}", na_rep=""))


def make_password(options: argparse.Namespace) -> None:
    """Asked for twice, and never shown."""
    given = getpass.getpass("Password: ")
    made = password.hashed(given)
    if getpass.getpass("Once more: ") != given:
        raise UserError("These are two different passwords: try again.")
    print(f"{password.VARIABLE}='{made}'")


def bench(options: argparse.Namespace) -> int:
    """Run benchmarks/."""
    return subprocess.call([sys.executable, "-m", "benchmarks"], cwd=jobs.ROOT)


def load(found: Run) -> data.ImageDataset:
    """The data set a run was made with."""
    config = found.config
    return data.load(config.dataset, config.root, **config.load_options)


def print_left_out(dataset: data.ImageDataset) -> None:
    """How many files of the data set were left out, and why."""
    if dataset.skipped:
        tell(skipped.sentence(skipped.groups(dataset.skipped)))


def print_summary(found: Run, dataset: data.ImageDataset, as_json: bool) -> None:
    """What a run found, as one JSON object or as lines."""
    summary = curves.summary(found, dataset)
    if as_json:
        summary["skipped"] = [dataclasses.asdict(group) for group in skipped.groups(dataset.skipped)]
        print(json.dumps(summary), flush=True)
        return
    notes: dict[str, None] = {}
    for cycle in summary["cycles"]:
        shown = measures.measures(found.config, pd.Series(cycle)).values()
        parts = [f"{one.title[0].lower()}{one.title[1:]} {one}" for one in shown]
        print(", ".join([f"cycle {cycle['cycle']}: {cycle['n_labels']:,} labels", *parts]))
        notes |= dict.fromkeys(f"{one.title}: {one.note[0].lower()}{one.note[1:]}" for one in shown if one.note)
    for note in notes:
        print(note)
    if summary["auc"] is not None:
        normalised = summary["auc_normalised"]
        scale = "" if normalised is None else f" ({normalised:.2f} of the way from random to oracle)"
        print(f"AUC {summary['auc']:.4f}{scale}")


if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:
        # Where Ctrl-C met an import inside of a C extension, Python would exit as killed by the signal
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
