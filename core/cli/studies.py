"""Commands that set several runs side by side: compare, evaluate, influence."""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

from core.analysis import comparison, policies, published, removal
from core.analysis.figures import BANDS, policy_figure
from core.cli.options import Parser, add_choice
from core.cli.printing import print_layout, print_options
from core.cli.shared import INTERRUPTED, finished_cycle, load, named, tell
from core.files import export
from core.runs import removal as removals
from core.runs import spec
from core.runs.run import Run
from data.errors import UserError

SHOWN_ROWS = 200  # of a table that is printed
DAMPINGS = (0.001, 0.01, 0.1, 1.0)  # of the curvature, which `influence` compares


def compare_options(sub: Parser) -> None:
    """Options of `compare`."""
    sub.set_defaults(command=compare)
    sub.add_argument("what", nargs="+", metavar="STUDY|RUN", help="a study, or runs")
    sub.add_argument("--json", action="store_true")
    sub.add_argument(
        "--out", type=Path, help="a folder for the tables as CSV, the figures as PNG, and how they were made"
    )
    print_options(sub)


def evaluate_options(sub: Parser) -> None:
    """Options of `evaluate`."""
    sub.set_defaults(command=evaluate)
    sub.add_argument("what", nargs="+", metavar="STUDY|RUN", help="a study of label cleaning, or runs")
    add_choice(
        sub,
        "--classifier",
        spec.selectors(),
        "selectors by which classifiers are trained (default: the rows of the paper's Table 1 that the arms allow)",
        nargs="+",
    )
    sub.add_argument(
        "--relabelled",
        type=float,
        help="clean this share of the images, 0.327 in the paper (default: all collected)",
    )
    sub.add_argument(
        "--seed", type=int, nargs="+", default=[0], help="random seed of the classifiers' training (default: 0)"
    )
    sub.add_argument(
        "--model-selection",
        action="store_true",
        help="choose among classifiers on noisy and on cleaned validation labels",
    )


def influence_options(sub: Parser) -> None:
    """Options of `influence`."""
    sub.set_defaults(command=influence)
    sub.add_argument(
        "what",
        nargs="+",
        metavar="STUDY|RUN",
        help="a study of active learning, or runs, with the weights of the cycle",
    )
    sub.add_argument("--cycle", type=int, help="whose labels are removed (default: the last)")
    sub.add_argument(
        "--share",
        type=float,
        default=0.05,
        help="share of the labels to remove: those of highest influence, of lowest, and as many at random (default: 0.05)",
    )
    sub.add_argument(
        "--trainings", type=int, default=5, help="retrainings of each of these, and with all labels (default: 5)"
    )
    sub.add_argument(
        "--dampings",
        type=float,
        nargs="*",
        default=list(DAMPINGS),
        help="dampings of the curvature under which the ranks of the labels are compared with those of the run's (default: "
        f"{' '.join(f'{damping:g}' for damping in DAMPINGS)})",
    )
    sub.add_argument("--json", action="store_true", help="print one object per run")
    sub.add_argument(
        "--out", type=Path, help="a folder for the tables as CSV, the figure as PNG, and how they were made"
    )
    print_options(sub)


def compare(options: argparse.Namespace) -> None:
    """The tables of the page Compare."""
    studies, members = named(options.what)
    if any(member.config.question.checks for member in members):
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
        texts = comparison.texts(tables, comparison.measure(members))
        titles, said = comparison.titles(members), comparison.coverage(members)
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


def portable(command: str) -> str:
    """A command as another machine would be given it: of files that lie elsewhere, their names."""
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command))


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


def influence(options: argparse.Namespace) -> int:
    """Remove labels by their influence, retrain, and set the predicted change of the held-out loss against the realised one."""
    from core.engine import loop
    from core.engine.removal import study

    loop.stop_on_signals()
    studies, members = named(options.what)
    found: list[removal.Study] = []
    try:
        for member in members:
            cycle, dataset = finished_cycle(member, options.cycle), load(member)
            tell(f"run {member.id}, cycle {cycle}")
            settings = {name: getattr(options, name) for name in ("share", "trainings", "dampings")}
            found.append((member, study(member, dataset, cycle, **settings, report=tell)))
            if options.json:
                print(json.dumps(removals.as_object(*found[-1])), flush=True)
    except KeyboardInterrupt:
        tell("nextlabel: interrupted; finished trainings are kept, and the same command goes on.")
        return INTERRUPTED
    tables = removal.tables(found)
    if not options.json:
        for name, table in tables.items():
            if name in removal.PRINTED and len(table):
                print(f"# {removal.TITLES[name]}\n{removal.DEFINITIONS[name]}")
                print(f"{table.to_string(index=False, float_format='%.4g', na_rep='—')}\n")
    if options.out is not None:
        about = {
            "studies": [{"id": one.id, "title": one.title, "command": portable(one.command)} for one in studies],
            "runs": [member.id for member in members],
            "machines": sorted({str(member.log.fact("machine")) for member in members}),
            "tables": {name: removal.DEFINITIONS[name] for name in tables},
        }
        drawn = {"removal": removal.figure(found)}
        for path in export.write_folder(options.out, tables, drawn, about, print_layout(options)):
            print(path, file=sys.stderr)
    return 0


COMMANDS = {"compare": compare_options, "evaluate": evaluate_options, "influence": influence_options}
