"""Runs of earlier versions open, show the same figures, and go on. `tests/earlier/VERSION` holds their bundles, made on the
embedded images, each beside what `show --json` printed of it then."""

import json
from pathlib import Path

import pytest

import data
from core.__main__ import main
from core.analysis import curves, figures
from core.engine import loop
from core.files import bundle
from core.runs import annotation, run

EARLIER = Path(__file__).parent / "earlier"
BUNDLES = sorted(EARLIER.glob("*/*.zip"))


@pytest.fixture(params=BUNDLES, ids=[f"{path.parent.name}-{path.stem}" for path in BUNDLES])
def opened(request, home):
    return bundle.opened(request.param), json.loads(request.param.with_suffix(".json").read_text())


def test_there_are_some():
    assert len(BUNDLES) >= 3


def test_the_figures_are_those_of_then(opened, capsys):
    one, then = opened
    assert main(["show", one.id, "--json"]) == 0
    now = json.loads(capsys.readouterr().out)
    assert {name: now[name] for name in then} == then


def test_every_figure_and_table_is_made(opened, tmp_path):
    one, then = opened
    pool = data.load(one.config.dataset, **one.config.load_options)
    last = len(then["cycles"]) - 1
    cleaning = one.config.task == "label-cleaning"
    drawn = [name for name in figures.FIGURES if name != "policies" or (cleaning and curves.simulable(one, pool))]
    assert all(figures.figure(one, pool, name, last).data for name in drawn)
    tables = ["ranking", "labels", "cycles", *(["cleaned", "issues", "relabels"] if cleaning else [])]
    for name in tables:
        assert main(["export", one.id, "--table", name, "--out", str(tmp_path / f"{name}.csv")]) == 0
        assert (tmp_path / f"{name}.csv").stat().st_size > 100


def test_a_run_goes_on(opened):
    one, then = opened
    pool = data.load(one.config.dataset, **one.config.load_options)
    if one.config.annotator == "person":
        row = one.ranking(1).sort_values("rank")["sample_id"].iloc[0]
        annotation.record(one, [row], pool.labels[[pool.ids.index(row)]], ["cy"])
    one.log.set_fact("target", len(then["cycles"]) + 1)
    loop.work(one, pool)
    assert one.cycles()["n_labels"].is_monotonic_increasing
    assert len(one.cycles()) == len(then["cycles"]) + 1
    assert run.find(one.id).status()[0] == "finished"
