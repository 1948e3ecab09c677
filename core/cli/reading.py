"""Commands that say what runs found: list, show, diff, budget, explain."""

import argparse
import json
import math
import sys
from pathlib import Path

from core.analysis import budget, diff, figures, peers, removal, simulation
from core.cli.options import Parser
from core.cli.printing import print_options, write_figure
from core.cli.shared import finished_cycle, load, print_summary, tell
from core.runs import attribution, live, run, saliency, study
from core.runs import removal as removals
from core.runs.reference import reference_labels
from data.errors import UserError


def list_options(sub: Parser) -> None:
    """Options of `list`."""
    sub.set_defaults(command=list_runs)
    sub.add_argument("--json", action="store_true")


def show_options(sub: Parser) -> None:
    """Options of `show`."""
    sub.set_defaults(command=show)
    sub.add_argument("run", metavar="RUN", help="its name, as `list` prints it")
    sub.add_argument("--json", action="store_true", help="print one object per run")


def diff_options(sub: Parser) -> None:
    """Options of `diff`."""
    sub.set_defaults(command=difference)
    sub.add_argument("first", metavar="RUN[@CYCLE]", help="default: its last cycle")
    sub.add_argument("second", metavar="RUN[@CYCLE]")
    sub.add_argument("--top", type=int, default=10, help="rows of each table (default: 10)")
    sub.add_argument("--out", type=Path, help="a figure of both ranks; its ending is the format: png svg pdf html")
    print_options(sub)
    sub.add_argument("--json", action="store_true")


def budget_options(sub: Parser) -> None:
    """Options of `budget`."""
    sub.set_defaults(command=plan_budget)
    sub.add_argument("run")
    sub.add_argument("--labels", type=int, help="the budget (default: the run's)")
    sub.add_argument(
        "--target", type=float, default=0.95, help="share of right labels, or test accuracy (default: 0.95)"
    )
    sub.add_argument("--price", type=float, help="price of a label, in whatever money or minutes: adds the costs")
    sub.add_argument("--out", type=Path, help="the figure too; its ending is the format: png svg pdf html")
    print_options(sub)
    sub.add_argument("--json", action="store_true")


def explain_options(sub: Parser) -> None:
    """Options of `explain`."""
    sub.set_defaults(command=explain_sample)
    sub.add_argument("run")
    sub.add_argument("sample", nargs="?", help="its id, as in the table ranking")
    sub.add_argument("--cycle", type=int, help="default: the last")
    sub.add_argument(
        "--influence",
        action="store_true",
        help="instead: which test images its label helps and harms most, and through which layers; kept with the cycle",
    )
    sub.add_argument(
        "--pixels",
        action="store_true",
        help="instead: how much the entropy of its prediction depends on each pixel; kept with the cycle",
    )
    sub.add_argument(
        "--extremes",
        type=int,
        metavar="N",
        help="with --influence, instead of a sample: the N candidates of largest influence and the N of smallest",
    )
    sub.add_argument("--json", action="store_true")


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
                    "waits_for_labels": found.waits_for_labels(state),
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
        waits = row["waits_for_labels"]
        shown = "example, read only" if row["example"] else "waits for labels" if waits else row["status"]
        done = f"{row['cycles']} cycle{'' if row['cycles'] == 1 else 's'}"
        print(f"{row['run']}  {row['task']}  {shown}  {done}  {row['death']}".rstrip())
    if all(found.is_example for found in run.all_runs()):
        print("No run of your own yet: `python -m core run --task active-learning` starts one.")


def show(options: argparse.Namespace) -> None:
    """Status and metrics of a run."""
    found = run.find(options.run)
    state, sentence = found.status()
    if not options.json:
        print(f"{found.id}: {state}. {sentence}")
        if found.config.parent is not None:
            print(f"Branched from {found.config.parent} at cycle {found.config.branched_at}.")
    print_summary(found, load(found), options.json)
    if not options.json:
        for one in removals.of_run(found):
            print(removal.sentence(one))


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
    if curves.empty and reference_labels(found.config, dataset) is not None and found.config.earlier is None:
        raise UserError(
            f"{simulation.why_not(found.config, dataset)}, so what more of them would correct is not simulated: see what those "
            f"of run {found.id} did (`show {found.id}`)."
        )
    if curves.empty:
        raise UserError(
            f"No ground truth is available for run {found.id}: what labels would correct cannot be said, only estimated "
            f"(`show {found.id}`)."
        )
    labels = options.labels
    if labels is None:
        labels = (
            int(curves["n_labels"].max()) // budget.REACH
            if found.config.question.checks
            else int(found.cycles()["n_labels"].iloc[-1])
        )
    if labels < 0:
        raise UserError(f"--labels is {labels}: give a number of labels, 0 or more.")
    cleaning = found.config.question.checks
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


def explain_sample(options: argparse.Namespace) -> None:
    """Print the gradient norms of one sample, or its influence."""
    from core.engine import explain

    if options.extremes is not None and not options.influence:
        raise UserError("--extremes chooses samples by their influence: give it with --influence.")
    if (options.sample is None) == (options.extremes is None):
        raise UserError("Give the id of one sample, or choose some by --influence --extremes 3.")
    if options.influence:
        return influence(options)
    found = run.find(options.run)
    if options.pixels:
        cycle = finished_cycle(found, options.cycle)
        dataset = load(found)
        gradient = explain.pixel_gradient(found, dataset, cycle, options.sample)
        file = saliency.file(found, cycle, dataset.ids.index(options.sample))
        print(f"{file}: {gradient.shape[0]} × {gradient.shape[1]} pixels, at most {gradient.max():.4g} nats")
        return
    table = explain.layer_norms(found, load(found), finished_cycle(found, options.cycle), options.sample)
    if options.json:
        print(table.to_json(orient="records"))
        return
    print(table.to_string(index=False, float_format="%.4g"))
    print(f"sum {table['norm'].sum():.4g}: the entropy gradient norm")


def influence(options: argparse.Namespace) -> None:
    """Print which test images the label of a sample helps and harms, and through which layers."""
    from core.engine import explain

    found = run.find(options.run)
    cycle = finished_cycle(found, options.cycle)
    samples = [options.sample]
    if options.extremes is not None:
        if options.extremes < 1:
            raise UserError(f"--extremes is {options.extremes}: give a number of samples, 1 or more.")
        samples = explain.extremes(found, cycle, options.extremes)
    with live.noting_error(attribution.folder(found), found.log):  # the dashboard may have started this process
        dataset = load(found)
    all_of_them = explain.influence(found, dataset, cycle, samples, tell)
    if options.json:
        print(json.dumps([json.loads(attribution.to_json(one)) for one in all_of_them]))
        return
    for one in all_of_them:
        print(f"{one.sample_id}, reference label {dataset.class_names[one.label]}: {attribution.sentence(one)}")
        effects = attribution.effect_table([one], dataset.class_names).drop(columns=["sample_id", "reference", "total"])
        layers = attribution.layer_table([one])[["layer", "kind", "parameters", "influence"]]
        print(f"\n{effects.to_string(index=False, float_format='%.3g')}")
        print(f"\n{layers.to_string(index=False, float_format='%.3g')}\n")


COMMANDS = {
    "list": list_options,
    "show": show_options,
    "diff": diff_options,
    "budget": budget_options,
    "explain": explain_options,
}
