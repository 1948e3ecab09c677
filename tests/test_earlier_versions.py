"""Runs of earlier versions open, show the same figures, and go on. `tests/earlier/VERSION` holds their bundles
and folders, made on the embedded images, each with what `show --json` printed of it then."""

import json
import tarfile
from pathlib import Path

import pytest

import data
from core.__main__ import main
from core.analysis import curves, figures
from core.engine import loop
from core.files import bundle
from core.runs import annotation, run

EARLIER = Path(__file__).parent / "earlier"
BUNDLES, FOLDERS = sorted(EARLIER.glob("*/*.zip")), sorted(EARLIER.glob("*/*.tar.xz"))


@pytest.fixture(params=[*BUNDLES, *FOLDERS], ids=lambda path: f"{path.parent.name}-{path.name}")
def opened(request, home):
    path = request.param
    then = json.loads((path.parent / f"{path.name.split('.')[0]}.json").read_text())
    if path in BUNDLES:
        return bundle.opened(path), then
    with tarfile.open(path) as folder:
        folder.extractall(home, filter="data")
    return run.find(then["run"]), then


def test_there_are_some():
    assert len(BUNDLES) >= 4
    assert FOLDERS


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
