"""Commands that write files and read them: export, report, bundle, open, import."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from core.analysis import figures, labelling, removal, samples
from core.cli.options import Parser, add_choice
from core.cli.printing import file_format, print_options, write_figure
from core.cli.shared import finished_cycle, load
from core.files import bundle, export, handout, maskexport, report
from core.runs import attribution, run
from core.runs.run import Run
from data.errors import UserError

TABLES: dict[str, Callable[[Run, int], pd.DataFrame]] = {
    "ranking": lambda run, cycle: samples.table(run, load(run), cycle),
    "labels": lambda run, cycle: labelling.log_table(
        run.log.events(labelling.through(run, cycle)), run.answer.label_names
    ),
    "votes": lambda run, cycle: labelling.given_votes(run),
    "cycles": lambda run, cycle: run.cycles(),
    "relabels": lambda run, cycle: samples.relabels(run, load(run), labelling.through(run, cycle)),
    "cleaned": lambda run, cycle: labelling.cleaned(run, load(run), cycle),
    "issues": lambda run, cycle: labelling.issues(run, load(run), cycle),
    "removal": lambda run, cycle: removal.table(removal.of_cycle(run, cycle)),
    "dampings": lambda run, cycle: removal.dampings(removal.of_cycle(run, cycle)),
    "influence": lambda run, cycle: removal.labels(removal.of_cycle(run, cycle)),
    "attribution": lambda run, cycle: attribution.effect_table(
        attribution.kept(run, load(run), cycle).values(), run.about["class_names"]
    ),
    "attribution-layers": lambda run, cycle: attribution.layer_table(attribution.kept(run, load(run), cycle).values()),
}


def export_options(sub: Parser) -> None:
    """Options of `export`."""
    sub.set_defaults(command=export_files)
    sub.add_argument("run")
    what = sub.add_mutually_exclusive_group(required=True)
    add_choice(what, "--figure", figures.FIGURES, "")
    add_choice(what, "--table", list(TABLES), "")
    add_choice(what, "--masks", maskexport.FORMS, "the masks that stand")
    what.add_argument("--label-studio", action="store_true", help="tasks for Label Studio, in the order of the ranking")
    sub.add_argument("--cycle", type=int, help="default: the last")
    add_choice(sub, "--band", list(figures.BANDS), "band of the figure policies", default="sd")
    sub.add_argument(
        "--scores",
        nargs="+",
        default=[],
        help="scores of the figures distribution (one; default: the run's own) and scatter (two: across, up)",
    )
    print_options(sub)
    sub.add_argument("--with-images", action="store_true", help="for masks: the images too, at the size of the masks")
    sub.add_argument("--polygons", action="store_true", help="for masks as coco: polygons of regions without holes")
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
        help="its ending is the format: png svg pdf html, csv parquet; a folder for Label Studio; .zip for masks, and .json for "
        "coco without images",
    )


def report_options(sub: Parser) -> None:
    """Options of `report`."""
    sub.set_defaults(command=report_run)
    sub.add_argument("run")
    sub.add_argument("--cycle", type=int, help="default: the last")
    sub.add_argument("--out", type=Path, required=True, help="its ending is the format: html, pdf")


def bundle_options(sub: Parser) -> None:
    """Options of `bundle`."""
    sub.set_defaults(command=bundle_run)
    sub.add_argument("run")
    sub.add_argument("--out", type=Path, required=True, help="a .zip file")
    sub.add_argument(
        "--with-images",
        action="store_true",
        help="the images too: your own folder's, or of a data set that is not there",
    )
    sub.add_argument("--with-weights", action="store_true", help="the models of every cycle too")


def open_options(sub: Parser) -> None:
    """Options of `open`."""
    sub.set_defaults(command=open_bundle)
    sub.add_argument("file", type=Path)


def import_options(sub: Parser) -> None:
    """Options of `import`."""
    sub.set_defaults(command=import_labels)
    sub.add_argument("run")
    sub.add_argument(
        "file",
        type=Path,
        help=".json of Label Studio; .csv or .parquet: sample_id, annotator, label; of masks a folder or .zip of PNG files, or "
        ".json of COCO",
    )
    sub.add_argument("--annotator", help="who drew the masks of PNG files or of COCO")


def export_files(options: argparse.Namespace) -> None:
    """Write one figure or table."""
    found = run.find(options.run)
    if options.masks:
        export_masks(found, options)
        return
    cycle = finished_cycle(found, options.cycle)
    if options.label_studio:
        for path in handout.label_studio(found, load(found), cycle, options.out, options.top, options.image_prefix):
            print(path)
        return
    if options.figure:
        drawn = figures.figure(found, load(found), options.figure, cycle, band=options.band, chosen=options.scores)
        write_figure(drawn, options)
    else:
        content = export.table_bytes(TABLES[options.table](found, cycle), file_format(options.out))
        export.write_file(options.out, content)
        if options.table != "ranking" and (text := labelling.untrained_text(found, cycle)):
            print(f"nextlabel: {text}", file=sys.stderr)
    print(options.out)


def export_masks(found: Run, options: argparse.Namespace) -> None:
    """Write the masks that stand in a run, up to a cycle or all."""
    up_to = None if options.cycle is None else labelling.through(found, finished_cycle(found, options.cycle))
    dataset = load(found)
    masks = maskexport.standing(found, dataset, up_to)
    maskexport.write(options.out, dataset, masks, options.masks, images=options.with_images, polygons=options.polygons)
    print(options.out)


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


def import_labels(options: argparse.Namespace) -> None:
    """Labels that people gave, into a run's log."""
    found = run.find(options.run)
    if not options.file.exists():
        raise UserError(f"There is no file {options.file}: give the path of the labels to import.")
    try:
        said = handout.bring_in(found, load(found), str(options.file), annotator=options.annotator)
    except handout.AnnotatorError as error:
        raise UserError(f"{str(error).removesuffix('.')} (--annotator).") from error
    print(said if said.startswith("0 ") else f"{said} `step {found.id}` trains on them.")


COMMANDS = {
    "export": export_options,
    "report": report_options,
    "bundle": bundle_options,
    "open": open_options,
    "import": import_options,
}
