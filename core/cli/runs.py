"""Commands that make runs and work on them: run, branch, resume, step."""

import argparse
import dataclasses
import json
import shlex
import sys
import traceback

import data
from core import methods
from core.analysis import measures
from core.cli import options as known
from core.cli.options import Parser
from core.cli.shared import INTERRUPTED, finished_cycle, load, print_left_out, print_summary, tell
from core.runs import annotation, branch, imported, jobs, live, run, settle, spec, study
from core.runs.run import Run
from core.runs.study import Protocol, Study
from data.errors import UserError

SETTINGS = [name for name, one in spec.OPTIONS.items() if one.option.level != "program"]
OF_ALL = ("task", "seed", "relabel_seed")  # decided run by run, or by the protocol


def run_options(sub: Parser) -> None:
    """Options of `run`."""
    sub.set_defaults(command=start)
    sub.add_argument(
        "--protocol",
        help=f"make a study, by a TOML file or one of {', '.join(study.protocols())}; options given with it win",
    )
    sub.add_argument(
        "--arm", nargs="+", metavar="NAME", help="arms of a protocol of label cleaning to run (default: all)"
    )
    known.add(sub, SETTINGS)
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="say which model would be trained, why, and how long it takes on this machine by a measured step; start nothing",
    )
    sub.add_argument("--json", action="store_true", help="print one object per run")


def worked_options(sub: Parser, what: str = "RUN") -> None:
    """Options of commands that go on with what is there."""
    sub.add_argument("run", metavar=what, help="its name, as `list` prints it")
    known.add(
        sub, ["model"], default="as in the run; a function of your own is only imported where it is named here again"
    )
    sub.add_argument("--json", action="store_true", help="print one object per run")


def resume_options(sub: Parser) -> None:
    """Options of `resume`."""
    sub.set_defaults(command=resume)
    worked_options(sub, "RUN|STUDY")
    sub.add_argument(
        "--until", type=int, metavar="CYCLES", help="of a run: stop at so many cycles (default: all it is to have)"
    )


def step_options(sub: Parser) -> None:
    """Options of `step`."""
    sub.set_defaults(command=step)
    worked_options(sub)
    sub.add_argument("--labels", type=int, help="collect so many, this once (default: the run's budget)")
    known.add(sub, ("predictions", "embeddings"), default="those of the cycle before")


def branch_options(sub: Parser) -> None:
    """Options of `branch`."""
    sub.set_defaults(command=branch_off)
    worked_options(sub)
    sub.add_argument("--cycle", type=int, help="first cycle that is its own (default: the last)")
    known.add(sub, (*branch.CHANGES, "cycles"), several=False, default="as in the run")


def start(options: argparse.Namespace) -> None:
    """Create a run for each strategy and seed, and work on it."""
    given = {name: value for name, value in known.given(options, SETTINGS).items() if name not in OF_ALL}
    command = shlex.join(["python", "-m", "core", *sys.argv[1:]])
    relabel_seeds: list[int | None] = options.relabel_seed or [None]
    if options.dry_run and (options.protocol is not None or len(options.strategy or []) > 1):
        raise UserError("--dry-run looks at one run: give one --strategy, and no --protocol.")
    if options.protocol is not None:
        trust(given.get("model"))
        if options.task or options.score or options.selector or options.relabel_seed:
            raise UserError("A protocol says task, selector, score and votes itself: choose of its arms with --arm.")
        arms = options.strategy or options.arm
        made = study.create(options.protocol, arms=arms, seeds=options.seed, settings=given, command=command)
        return work_study(made, options)
    if options.task is None:
        raise UserError(f"Say what to run: --task {', --task '.join(spec.TASKS)}, or --protocol fashion.")
    if options.arm:
        raise UserError("--arm chooses among the arms of a protocol: give --protocol, or --selector and --score.")
    learning = not spec.QUESTIONS[options.task].checks
    if options.strategy and not learning:
        raise UserError(f"{options.strategy[0]} is a strategy of active learning: use --score to rank labels to check.")
    if options.score and learning:
        raise UserError(f"{options.score} is a score of label cleaning: use --strategy to rank unlabelled images.")
    given = {"dataset": "fashion", **given, "task": options.task}
    trust(given.get("model"))
    votes = "votes" in given and not options.noise and options.annotator != "simulated"
    chosen = options.strategy if learning else options.score and [options.score]
    ranked_by = chosen or [settle.default_method(options.task, votes, "predictions" in given)]
    seeds = options.seed or [0]
    if len(ranked_by) > 1:
        title = f"{given['dataset']}: {', '.join(ranked_by)}"
        protocol = Protocol("study", title, [{"method": method} for method in ranked_by], seeds, given)
        return work_study(study.create(protocol, command=command), options)
    loader = settle.loader()
    for seed in seeds:
        for relabel_seed in relabel_seeds:
            asked = {**given, "method": ranked_by[0], "seed": seed, "relabel_seed": relabel_seed}
            config, dataset = settle.settle(asked, loader)
            reason = "" if settle.TRAINING & set(given) else settle.why(config, dataset)
            if options.dry_run:
                dry_run(config, dataset, reason, options.json)
                continue
            check_model(config, dataset)
            if reason:
                tell(reason)
            created = run.create(config, settle.about(dataset))
            tell(f"run {created.id}\n{measures.split_text(config, dataset)}")
            tell_predictions(config, dataset)
            print_left_out(dataset)
            work(created, dataset, options)


def tell_predictions(config: spec.Config, dataset: data.ImageDataset) -> None:
    """How imported predictions are joined with the images, and what to know of them."""
    if config.predictions is not None:
        tell(imported.joined(config, dataset))
        if config.question.checks and (warning := imported.warning(config.predicted)):
            tell(f"nextlabel: {warning}")


def trust(model: str | None, found: Run | None = None) -> None:
    """Let a factory that the command line names be imported. Raises `UserError` where it is not the run's."""
    if model is None:
        return
    if found is not None and model != found.config.model:
        raise UserError(f"The model of run {found.id} is {found.config.model}: give it as it is, or leave --model out.")
    if methods.models.is_factory(model):
        methods.models.TRUSTED.add(model)


def check_model(config: spec.Config, dataset: data.ImageDataset) -> None:
    """Raise `UserError` where a network from elsewhere cannot be built, before there is a run of it."""
    if methods.models.is_elsewhere(config.model):
        from core.engine.learner import Learner

        Learner(config, dataset, run.home()).check()


def dry_run(config: spec.Config, dataset: data.ImageDataset, reason: str, as_json: bool) -> None:
    """Say what would be done, and how long it would take."""
    from core.engine import estimate

    found = estimate.estimate(config, dataset)
    if as_json:
        said = {"config": dataclasses.asdict(config), "why": reason, "estimate": dataclasses.asdict(found)}
        print(json.dumps({**said, "takes": str(found)}))
        return
    print(measures.split_text(config, dataset))
    if reason:
        print(reason)
    print(f"{config.network}, {config.duration}; {config.cycles} cycle{'s' * (config.cycles != 1)}\n{found}")


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
            except Exception as error:  # the other runs of a study do not depend on this one
                traceback.print_exc()
                failures.append(f"an internal error ({error}), please report it with the lines above")
    if failures:
        raise UserError(f"{len(failures)} of {len(members)} runs of study {found.id} failed, the first: {failures[0]}")


def resume(options: argparse.Namespace) -> None:
    """Go on with a run or a study."""
    if not study.exists(options.run):
        trust(options.model, run.find(options.run))
    else:
        trust(options.model)
    if study.exists(options.run):
        return work_study(study.find(options.run), options)
    found = run.find(options.run)
    if options.until is not None and options.until < 1:
        raise UserError(f"--until is {options.until}: give the number of cycles to stop at, 1 or more.")
    with live.noting_error(found.path, found.log):  # the dashboard started this process, and does not read its output
        dataset = load(found)
    print_left_out(dataset)
    work(found, dataset, options, options.until)


def step(options: argparse.Namespace) -> None:
    """One more cycle than there is."""
    found = run.find(options.run)
    annotation.check_step(found)
    if found.is_running():
        raise UserError(f"Run {found.id} is being worked on by another process: wait for it, or cancel it first.")
    if options.predictions is not None:
        imported.bring(found, load(found), options.predictions, options.embeddings)
    elif options.embeddings is not None:
        raise UserError("--embeddings go with --predictions: give both, or neither.")
    elif not found.config.trains and len(found.cycles()):
        tell("There are no new predictions: the next cycle is ranked by the last ones.")
    jobs.take(found, options.labels)
    options.until = len(found.cycles()) + 1
    found.log.set_fact("target", max(found.target(), options.until))
    resume(options)


def branch_off(options: argparse.Namespace) -> None:
    """A branch, worked on to its end."""
    found = run.find(options.run)
    dataset = load(found)
    changes = known.given(options, branch.CHANGES)
    for one in spec.OPTIONS["method"].option.flags:
        method = getattr(options, one.name)
        if method is not None and one.task != found.config.task:
            raise UserError(
                f"--{one.name} belongs to {one.task.replace('-', ' ')}, and run {found.id} is "
                f"{found.config.task.replace('-', ' ')}: leave it out."
            )
        changes |= {} if method is None else {"method": method}
    cycle = finished_cycle(found, options.cycle)
    trust(options.model, found)
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


COMMANDS = {"run": run_options, "resume": resume_options, "step": step_options, "branch": branch_options}
