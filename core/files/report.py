"""A run on one page, to hand on: HTML that needs nothing else, and PDF. Needs no torch.

What was run on which data, its curve and key figures, its cycles, images before and after, and what the words mean.
"""

import base64
import dataclasses
import io
import platform
from html import escape
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from core.analysis import curves, figures, labelling, measures, samples
from core.files import export
from core.files.printed import Layout
from core.runs.reference import reference_counts
from core.runs.run import Run
from core.runs.spec import OPTIONS
from core.scores import REGISTRY
from data import ImageDataset

ROWS = 8  # of the table of cycles: what a page holds
IMAGES = 9  # of each grid
FIGURE_MM = 116.0
INNER_MM = 186.0, 275.0  # A4 less the margins of `STYLE`
LIBRARIES = ("numpy", "pandas", "plotly")
TASKS = {"active-learning": "Which image to label next", "label-cleaning": "Which label to check next"}
COLUMNS = {  # of the table of cycles, with how each is written
    "cycle": ("Cycle", "{:.0f}"),
    "labels": ("Labels added", "{:,.0f}"),
    "n_labels": ("Labels in all", "{:,.0f}"),
    "changed": ("Majority changed", "{:,.0f}"),
    "correctness": ("Right labels", "{:.1%}"),
    "estimated_correctness": ("Right labels, estimated", "{:.1%}"),
    "estimated_low": ("from", "{:.1%}"),
    "estimated_high": ("to", "{:.1%}"),
    "agreement": ("Model agrees", "{:.1%}"),
    "accuracy": ("Test accuracy", "{:.1%}"),
    "training_s": ("Training", "{:,.1f} s"),
    "scoring_s": ("Scoring", "{:,.1f} s"),
}
STYLE = """
@page { size: 210mm 297mm; margin: 11mm 12mm; }
:root { color-scheme: light; }
body { font: 9pt/1.38 Arial, Helvetica, "Liberation Sans", sans-serif; color: #1b1f24; background: #fff; max-width: 186mm;
       margin: 0 auto; padding: 6mm 2mm; overflow-wrap: anywhere; }
@media print { body { padding: 0; } }
h1 { font-size: 16pt; margin: 0; } h2 { font-size: 10.5pt; margin: 4.2mm 0 1.2mm; }
.sub, small, figcaption, .definitions { color: #57606a; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(30mm, 1fr)); gap: 3mm; margin: 3.5mm 0; }
.numbers div { border: 1px solid #d0d7de; border-radius: 1.5mm; padding: 1.6mm 2.5mm; }
.numbers b { display: block; font-size: 14pt; font-variant-numeric: tabular-nums; }
.two { display: grid; grid-template-columns: 118mm minmax(0, 1fr); gap: 5mm; }
.two img { width: 116mm; }
@media screen and (max-width: 700px) { .two { grid-template-columns: 1fr; } .two img { width: 100%; } }
dl { margin: 0; display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .6mm 3mm; font-size: 8pt; }
dt { color: #57606a; } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 8pt; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th { overflow-wrap: normal; text-align: right; font-weight: 600; border-bottom: 1px solid #8c959f; padding: .8mm 1.5mm; }
td { text-align: right; border-bottom: 1px solid #e6eaef; padding: .6mm 1.5mm; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(18mm, 1fr)); gap: 2mm; margin: 0; }
.images figure { margin: 0; } .images img { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; }
figcaption { font-size: 7pt; line-height: 1.25; } figcaption b { color: #1b1f24; }
.definitions { font-size: 7.5pt; margin: 0; }
"""


def html(run: Run, dataset: ImageDataset, cycle: int) -> str:
    """The report of a run at a cycle, self-contained, on white; every name is escaped."""
    config, about = run.config, run.about
    title = f"{TASKS[config.task]}: {config.arm} on {config.dataset}"
    grids = "".join(
        f"<h2>{escape(name)}</h2><div class='images'>{''.join(_image(dataset, *one) for one in rows)}</div>"
        for name, rows in _images(run, dataset, cycle).items()
        if rows
    )
    numbers = "".join(
        f"<div>{escape(name)}<b>{escape(value)}</b></div>" for name, value in _numbers(run, dataset, cycle)
    )
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(run, cycle))
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><div class='sub'>NextLabel · run {escape(run.id)} · {about['n_samples']:,} images"
        f"{' · example' if run.is_example else ''}</div><div class='numbers'>{numbers}</div>"
        f"<div class='two'><div>{_figure(run, dataset, cycle)}</div><div><dl>{facts}</dl></div></div>"
        f"<h2>What each cycle did</h2>{_cycles(run, dataset, cycle)}{grids}"
        f"<h2>What the words mean</h2><p class='definitions'>{escape(_definitions(run, dataset, cycle))}</p>"
        f"<h2>All settings</h2><p class='definitions'>{escape(_settings(run))}</p></body></html>"
    )


def pdf(run: Run, dataset: ImageDataset, cycle: int) -> bytes:
    """The same as PDF, one page of A4. Raises `UserError` where no Chrome or Chromium is there to print it."""
    return export.page_pdf(html(run, dataset, cycle), *INNER_MM)


def _numbers(run: Run, dataset: ImageDataset, cycle: int) -> list[tuple[str, str]]:
    """Key figures: name and value."""
    table, summary = run.cycles(), curves.summary(run, dataset)
    last, first = table.iloc[cycle], table.iloc[0]
    found = [("Labels" if run.config.task == "active-learning" else "Labels collected", f"{last['n_labels']:,.0f}")]
    for name, shown in measures.measures(run.config, last).items():
        change = f" ({100 * (last[name] - first[name]):+.1f})" if cycle > 0 and shown.certain else ""
        found.append((shown.title, f"{shown}{change}"))
    if summary["auc"] is not None:
        found.append((f"AUC, {len(table)} cycles", f"{summary['auc']:.3f}"))
    if summary["auc_normalised"] is not None:
        found.append(("Random 0, oracle 1", f"{summary['auc_normalised']:.2f}"))
    return found


def _facts(run: Run, cycle: int) -> list[tuple[str, str]]:
    """What was run: name and value."""
    config, about, events = run.config, run.about, run.log.labels()
    meant = REGISTRY[config.method]
    learning = config.task == "active-learning"
    labels = "the reference labels of the data" if learning else about["annotators_source"]
    if learning and config.annotator == "person":
        labels = "people"
    noise = f"{config.noise:.0%}" if config.noise else "as found"
    rows = [
        ("Data", f"{config.dataset}, {about['n_samples']:,} images, {len(about['class_names'])} classes"),
        ("Labels from", labels),
        *([] if learning else [("Wrong labels", f"{noise} at the start"), ("Selector", config.selector)]),
        ("Score", f"{meant.title}: {meant.formula}"),
        ("Model", f"{config.model}, width {config.width}, {config.epochs} epochs"),
        ("Budget", f"{config.budget:,} labels a cycle"),
        ("Seed", str(config.seed)),
        ("Shown", f"cycle {cycle} of {len(run.cycles())}, counted from 0"),
        ("Begun", str(events["time"].iloc[0])[:16].replace("T", " ") + " UTC" if len(events) else "—"),
        ("Machine", str(run.log.fact("machine", "not known"))),
        ("Page made by", ", ".join([f"Python {platform.python_version()}", *(f"{o} {version(o)}" for o in LIBRARIES)])),
    ]
    return [(name, value if len(value) < 160 else f"{value[:159]}…") for name, value in rows]


def _figure(run: Run, dataset: ImageDataset, cycle: int) -> str:
    """The curve: drawn where a browser is there, else with the script that draws it."""
    drawn = figures.figure(run, dataset, "curves", cycle)
    if not export.has_browser():
        return str(drawn.to_html(include_plotlyjs=True, full_html=False))
    return f"<img alt='Curve' src='{_url(export.figure_bytes(drawn, 'svg', Layout(FIGURE_MM, 8)), 'svg+xml')}'>"


def _cycles(run: Run, dataset: ImageDataset, cycle: int) -> str:
    table = (
        labelling.cycle_changes(run, dataset).merge(run.cycles().drop(columns="seconds"), on="cycle").head(cycle + 1)
    )
    shown = table.iloc[np.unique(np.linspace(0, len(table) - 1, ROWS).round().astype(int))]
    names = [name for name in COLUMNS if name in shown and (name != "changed" or shown[name].any())]
    if "estimated_low" not in names:  # of a model that has learnt the labels
        names = [name for name in names if name != "estimated_correctness"]
    titles = {name: title for name, (title, _) in COLUMNS.items()} | {
        "accuracy": measures.measure_title("accuracy", run.config)
    }
    head = "".join(f"<th>{titles[name]}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(row[name], COLUMNS[name][1])}</td>" for name in names) + "</tr>"
        for _, row in shown.iterrows()
    )
    left_out = f"<small>{len(shown)} of {len(table)} cycles.</small>" if len(shown) < len(table) else ""
    return f"<div class='wide'><table><tr>{head}</tr>{rows}</table></div>{left_out}"


def _cell(value: Any, text: str) -> str:
    return "—" if pd.isna(value) else text.format(value)


def _images(run: Run, dataset: ImageDataset, cycle: int) -> dict[str, list[tuple[int, str, str, float]]]:
    """Grids by their titles: (pool row, before, after, score)."""
    config, row_of = run.config_at(cycle), {one: row for row, one in enumerate(dataset.ids)}
    found: dict[str, list[tuple[int, str, str, float]]] = {}
    if config.task == "label-cleaning" and cycle > 0:
        table = labelling.relabels(run, dataset, cycle)
        table = table[table["formed"] & (table["before"] != table["after"])].head(IMAGES)
        found["Labels that were changed first: before → after, score when chosen"] = [
            (row_of[one.sample_id], one.before, one.after, one.score) for one in table.itertuples()
        ]
    if config.task == "active-learning" and cycle > 0:
        before, state = samples.table(run, dataset, cycle - 1), run.state(dataset.ids, cycle)[0]
        names = np.array([*dataset.class_names, "—"], dtype=object)
        method = run.config_at(cycle - 1).method
        chosen = before[(before["label"] < 0) & (state.majority >= 0)].nlargest(IMAGES, method)
        found["Images that the last cycle labelled: the model's guess → label, score when chosen"] = [
            (int(row), one["suggested"], names[state.majority[row]], one[method]) for row, one in chosen.iterrows()
        ]
    table = samples.table(run, dataset, cycle)
    top = table[table["rank"].notna()].nsmallest(IMAGES, "rank")
    found["Top of the ranking, next in turn: given label → suggestion of the model, score"] = [
        (int(row), one["given"], one["suggested"], one[config.method]) for row, one in top.iterrows()
    ]
    return found


def _image(dataset: ImageDataset, row: int, before: str, after: str, score: float) -> str:
    pixels = np.asarray(dataset.images[row])
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    text = f"{escape(_short(before))} → <b>{escape(_short(after))}</b><br>{score:.3f}"
    return f"<figure><img alt='' src='{_url(buffer.getvalue(), 'png')}'><figcaption>{text}</figcaption></figure>"


def _short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _definitions(run: Run, dataset: ImageDataset, cycle: int) -> str:
    config, meant = run.config, REGISTRY[run.config.method]
    texts = [f"{meant.title}: {meant.formula} — {meant.meaning}. In brackets: points since cycle 0."]
    if config.task == "active-learning":
        texts.append("Test accuracy: share of the test images that the model of the cycle gets right.")
        texts.append(
            "AUC: mean test accuracy over the labelled images, by trapezoids; compare runs over one budget only."
        )
    elif reference_counts(config, dataset) is None:
        texts += [f"{one.title}: {one.note}" for one in measures.measures(config, run.cycles().iloc[cycle]).values()]
    else:
        texts.append("Right labels: share of images whose majority label is that of the reference votes.")
        texts.append(
            "AUC: mean share of right labels over the collected labels, all cycles; random and oracle on the same start."
        )
    if config.task == "label-cleaning" and run.about["annotators"] == "simulated":
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
