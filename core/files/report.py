"""A run on one page, to hand on: HTML that needs nothing else, and PDF. Needs no torch.

What was run on which data, its curve and key figures, its cycles, images before and after, and what the words mean.
"""

import dataclasses
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core import methods
from core.analysis import curves, measures, samples
from core.files import printed
from core.files.printed import Layout
from core.runs.reference import reference_labels
from core.runs.run import Run
from core.runs.spec import OPTIONS
from data import ImageDataset
from data.files import preview
from data.words import count

ROWS = 8  # of the table of cycles: what a page holds
IMAGES = 9  # of each grid
PICTURE = 200  # pixels a side of one: 300 to the inch, in print
FIGURE_MM = 116.0
INNER_MM = 186.0, 275.0  # A4 less the margins that report.html gives it
LIBRARIES = ("numpy", "pandas", "plotly")
COLUMNS = {  # of the table of cycles, with how each is written
    "cycle": ("Cycle", "{:.0f}"),
    "labels": ("Labels added", "{:,.0f}"),
    "n_labels": ("Labels in all", "{:,.0f}"),
    "changed": ("Majority changed", "{:,.0f}"),
    "correctness": ("Correct labels", "{:.1%}"),
    "estimated_correctness": ("Correct labels, estimated", "{:.1%}"),
    "estimated_low": ("from", "{:.1%}"),
    "estimated_high": ("to", "{:.1%}"),
    "agreement": ("Model agrees", "{:.1%}"),
    "accuracy": ("Test accuracy", "{:.1%}"),
    "miou": ("Test mean IoU", "{:.1%}"),
    "pixel_accuracy": ("Test pixel accuracy", "{:.1%}"),
    "training_s": ("Training", "{:,.1f} s"),
    "scoring_s": ("Scoring", "{:,.1f} s"),
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.globals["count"] = count


@dataclass(frozen=True)
class Picture:
    """One image of a grid: its address, the label before and after, and its score."""

    url: str
    before: str
    after: str
    score: float


def html(run: Run, dataset: ImageDataset, cycle: int) -> str:
    """The report of a run at a cycle, self-contained, on white; every name is escaped."""
    config = run.config
    curve = curves.figure(run, dataset, cycle)
    drawn = printed.figure_bytes(curve, "svg", Layout(FIGURE_MM, 8)) if printed.has_browser() else None
    return _TEMPLATES.get_template("report.html").render(
        title=f"{config.question.asks}: {config.arm} on {config.dataset}",
        run=run,
        n_images=run.about["n_samples"],
        numbers=_numbers(run, dataset, cycle),
        curve=None if drawn is None else preview.data_url(drawn, "svg+xml"),
        interactive=None if drawn is not None else curve.to_html(include_plotlyjs=True, full_html=False),
        facts=_facts(run, cycle),
        cycles=_cycles(run, dataset, cycle),
        grids=_grids(run, dataset, cycle),
        definitions=_definitions(run, dataset, cycle),
        settings=_settings(run),
    )


def pdf(run: Run, dataset: ImageDataset, cycle: int) -> bytes:
    """The same as PDF, one page of A4. Raises `UserError` where no Chrome or Chromium is there to print it."""
    return printed.page_pdf(html(run, dataset, cycle), *INNER_MM)


def _numbers(run: Run, dataset: ImageDataset, cycle: int) -> list[tuple[str, str]]:
    """Key figures: name and value."""
    table, summary = run.cycles(), curves.summary(run, dataset)
    last, first = table.iloc[cycle], table.iloc[0]
    found = [("Labels" if not run.config.question.checks else "Labels collected", f"{last['n_labels']:,.0f}")]
    for name, shown in measures.measures(run.config, last).items():
        change = f" ({100 * (last[name] - first[name]):+.1f})" if cycle > 0 and shown.certain else ""
        found.append((shown.title, f"{shown}{change}"))
    if summary["auc"] is not None:
        found.append((f"AUC, {count(len(table), 'cycle')}", f"{summary['auc']:.3f}"))
    if summary["auc_normalised"] is not None:
        found.append(("Random 0, oracle 1", f"{summary['auc_normalised']:.2f}"))
    return found


def _facts(run: Run, cycle: int) -> list[tuple[str, str]]:
    """What was run: name and value."""
    config, about, events = run.config, run.about, run.log.labels()
    meant = methods.described(config.method)
    learning = not config.question.checks
    labels = "the reference labels of the data" if learning else about["annotators_source"]
    if learning and config.annotator == "person":
        labels = "people"
    noise = f"{config.noise:.0%}" if config.noise else "as found"
    rows = [
        ("Data", f"{config.dataset}, {count(about['n_samples'], 'image')}, {len(about['class_names'])} classes"),
        ("Labels from", labels),
        *([] if learning else [("Wrong labels", f"{noise} at the start"), ("Selector", config.selector)]),
        ("Score", f"{meant.title}: {meant.formula}"),
        ("Model", f"{config.network}, {config.duration}"),
        ("Budget", f"{count(config.budget, 'label')} per cycle"),
        ("Seed", str(config.seed)),
        ("Shown", f"cycle {cycle} of {len(run.cycles())}, counted from 0"),
        ("Begun", str(events["time"].iloc[0])[:16].replace("T", " ") + " UTC" if len(events) else "—"),
        ("Machine", str(run.log.fact("machine", "not known"))),
        ("Page made by", ", ".join([f"Python {platform.python_version()}", *(f"{o} {version(o)}" for o in LIBRARIES)])),
    ]
    return [(name, value if len(value) < 160 else f"{value[:159]}…") for name, value in rows]


def _cycles(run: Run, dataset: ImageDataset, cycle: int) -> dict[str, Any]:
    """The table of cycles: titles, rows of texts, and the number of cycles that the rows are some of."""
    table = curves.cycle_table(run, dataset).head(cycle + 1)
    shown = table.iloc[np.unique(np.linspace(0, len(table) - 1, ROWS).round().astype(int))]
    names = [name for name in COLUMNS if name in shown and (name != "changed" or shown[name].any())]
    if "estimated_low" not in names:  # of a model that has learnt the labels
        names = [name for name in names if name != "estimated_correctness"]
    titles = {name: title for name, (title, _) in COLUMNS.items()} | {
        "accuracy": measures.measure_title("accuracy", run.config)
    }
    return {
        "titles": [titles[name] for name in names],
        "rows": [[_cell(row[name], COLUMNS[name][1]) for name in names] for _, row in shown.iterrows()],
        "number": len(table),
    }


def _cell(value: Any, text: str) -> str:
    return "—" if pd.isna(value) else text.format(value)


def _grids(run: Run, dataset: ImageDataset, cycle: int) -> dict[str, list[Picture]]:
    """Grids of images by their headings."""

    def picture(row: int, before: str, after: str, score: float) -> Picture:
        image = preview.shown(dataset, row, run.config.root, PICTURE)
        return Picture(preview.data_url(preview.png(image, level=6)), before, after, score)

    config, row_of = run.config_at(cycle), {one: row for row, one in enumerate(dataset.ids)}
    found: dict[str, list[Picture]] = {}
    if config.question.checks and cycle > 0:
        table = samples.relabels(run, dataset, cycle)
        table = table[table["formed"] & (table["before"] != table["after"])].head(IMAGES)
        found["Labels that were changed first: before → after, score when chosen"] = [
            picture(row_of[one.sample_id], one.before, one.after, one.score) for one in table.itertuples()
        ]
    if not config.question.checks and cycle > 0:
        before, state = samples.table(run, dataset, cycle - 1), run.state(dataset.ids, cycle)[0]
        written = run.answer.written(state.majority)
        method = run.config_at(cycle - 1).method
        chosen = before[(before["label"] < 0) & (state.majority >= 0)].nlargest(IMAGES, method)
        found["Images that the last cycle labelled: the model's guess → label, score when chosen"] = [
            picture(int(row), one["suggested"], written[row], one[method]) for row, one in chosen.iterrows()
        ]
    table = samples.table(run, dataset, cycle)
    top = table[table["rank"].notna()].nsmallest(IMAGES, "rank")
    found["Top of the ranking, next in turn: given label → suggestion of the model, score"] = [
        picture(int(row), one["given"], one["suggested"], one[config.method]) for row, one in top.iterrows()
    ]
    return found


def _definitions(run: Run, dataset: ImageDataset, cycle: int) -> str:
    config, meant = run.config, methods.described(run.config.method)
    texts = [f"{meant.title}: {meant.formula} — {meant.meaning}. In brackets: points since cycle 0."]
    if not config.question.checks:
        texts.append(f"{measures.test_title(run)}: {run.answer.meaning}.")
        texts.append(
            f"AUC: {measures.test_title(run)}, averaged over the labelled images (trapezoids); compare runs of one budget only."
        )
    elif reference_labels(config, dataset) is None:
        texts += [f"{one.title}: {one.note}" for one in measures.measures(config, run.cycles().iloc[cycle]).values()]
    else:
        texts.append(f"Correct labels: {run.answer.correct}.")
        texts.append(
            "AUC: mean share of correct labels over the collected labels, all cycles; random and oracle on the same start."
        )
    if config.question.checks and run.about["annotators"] == "simulated":
        texts.append("The annotators are simulated.")
    return " ".join(texts)


def _settings(run: Run) -> str:
    """The configuration, but for paths of a machine, long lists and what is not set."""

    def shown(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:g}" if isinstance(value, float) else str(value)

    settings = dataclasses.asdict(run.config).items()
    return " · ".join(
        f"{name.replace('_', ' ')} {shown(value)}"
        for name, value in settings
        if value is not None and not OPTIONS[name].option.path and OPTIONS[name].kind is not list
    )
