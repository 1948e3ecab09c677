"""Things that describe themselves, added from one file each outside the tree: `docs/plugins/`, as CONTRIBUTING.md says."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import data
from core import label_scores, methods, models, selectors, strategies
from core.files import bundle
from core.models import Architecture
from core.runs.spec import Config
from core.strategies import Strategy
from data.catalogue import Catalogue
from data.errors import UserError
from tests.conftest import ROOT

PLUGINS = ROOT / "docs" / "plugins"
CATALOGUES = {
    "strategies": strategies.CATALOGUE,
    "selectors": selectors.CATALOGUE,
    "scores": label_scores.CATALOGUE,
    "models": models.CATALOGUE,
    "sources": data.CATALOGUE,
}

# Runs that use the five, what is exported of them, and the pages that show them, in a process that was started with plug-ins
SESSION = """
import json, os, sys
from streamlit.testing.v1 import AppTest
from core.__main__ import main

def done(*words):
    assert main(list(words)) == 0, words

quick = "--dataset digits --limit 200 --model strided --width 4 --epochs 2 --cycles 2 --json".split()
done("run", "--task", "active-learning", "--strategy", "least-confidence", "--budget", "20", *quick)
done("run", "--task", "label-cleaning", "--selector", "label-smoothing", "--score", "brier", "--noise", "0.15", *quick)

from core.runs import run
for one in run.all_runs():
    score, out = one.config.method, sys.argv[1] + "/" + one.config.method
    done("export", one.id, "--table", "ranking", "--cycle", "0", "--out", out + ".csv")
    done("export", one.id, "--figure", "curves", "--out", out + "-curves.html")
    done("export", one.id, "--figure", "distribution", "--scores", score, "--out", out + "-distribution.html")
    done("export", one.id, "--figure", "scatter", "--scores", "entropy", score, "--out", out + "-scatter.html")
    done("report", one.id, "--out", out + "-report.html")
    done("bundle", one.id, "--out", out + ".zip")
    page = AppTest.from_file("app.py", default_timeout=120)
    page.query_params["run"] = one.id
    page.run()
    page.switch_page("pages/rankings.py").run()
    assert not page.exception, page.exception
    json.dump([element.value for element in page.caption], open(out + "-captions.json", "w"))
done("compare", *[one.id for one in run.all_runs() if one.config.method == "least-confidence"][:1], "--json")
page = AppTest.from_file("app.py", default_timeout=120).run()
page.switch_page("pages/new.py").run()
assert not page.exception, page.exception
said = {"captions": [one.value for one in page.caption], "options": [one.options for one in page.selectbox]}
json.dump(said, open(sys.argv[1] + "/new.json", "w"))

os.environ["NEXTLABEL_HOME"] = sys.argv[1] + "/of somebody else"
for score in ("least-confidence", "brier"):
    done("open", sys.argv[1] + "/" + score + ".zip")
"""


def started_with(folder: Path, home: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """A Python process of a user who has plug-ins in `folder`, and packages on `path`."""
    environment = {**os.environ, "NEXTLABEL_PLUGINS": str(folder), "NEXTLABEL_HOME": str(home), "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a session with the five plug-ins, and one that is broken, left behind."""
    out, folder = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("plugins")
    shutil.copytree(PLUGINS, folder, dirs_exist_ok=True)
    (folder / "strategies" / "broken.py").write_text("import a_package_that_is_not_there\n")
    done = started_with(folder, out / "runs", "-c", SESSION, str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_a_strategy_model_and_source_run_rank_show_and_export(session: Path) -> None:
    ranking = pd.read_csv(session / "least-confidence.csv")
    assert ranking["sample_id"].str.startswith("digit-").all()
    ranked = ranking.dropna(subset="rank").sort_values("rank")
    np.testing.assert_allclose(ranked["least-confidence"], 1 - ranked["confidence"], atol=1e-6)
    assert ranked["least-confidence"].is_monotonic_decreasing
    assert "#D55E00" in (session / "least-confidence-curves.html").read_text()
    assert "Least confidence (1" in (session / "least-confidence-distribution.html").read_text()
    assert "Least confidence (1" in (session / "least-confidence-scatter.html").read_text()
    assert "the most probable class has little probability" in (session / "least-confidence-captions.json").read_text()
    assert "Least confidence (1" in (session / "least-confidence-report.html").read_text()


@pytest.mark.slow
def test_a_score_and_a_selector_run_rank_show_and_export(session: Path) -> None:
    ranking = pd.read_csv(session / "brier.csv").sort_values("rank")
    assert ranking["brier"].between(0, 2).all()
    assert ranking["brier"].is_monotonic_decreasing
    assert {"cleaning", "cross-entropy", "self-confidence"} <= set(ranking)
    assert "label-smoothing, brier" in (session / "brier-curves.html").read_text()
    assert "Brier score" in (session / "brier-distribution.html").read_text()
    assert "the model disagrees with the label" in (session / "brier-captions.json").read_text()
    assert "Brier score" in (session / "brier-report.html").read_text()


@pytest.mark.slow
def test_a_bundle_that_needs_a_plug_in_says_so_where_it_is_not_installed(session: Path, home: Path) -> None:
    for name, needed in (("least-confidence", 'strategy "least-confidence"'), ("brier", 'score "brier"')):
        with pytest.raises(UserError, match=f"The bundle needs the {needed}, which is not installed here"):
            bundle.opened(session / f"{name}.zip")


@pytest.mark.slow
def test_new_run_offers_them_and_names_the_broken_one(session: Path) -> None:
    said = json.loads((session / "new.json").read_text())
    offered = [option for options in said["options"] for option in options]
    assert any("Handwritten digits" in option for option in offered)
    assert any("Least confidence" in option for option in offered)
    (named,) = [caption for caption in said["captions"] if "broken.py" in caption]
    assert "a_package_that_is_not_there" in named.replace("\\", "")


def test_the_command_line_names_a_broken_plug_in_and_lists_the_rest(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "broken.py").write_text("raise SystemExit('no data today')\n")
    shutil.copy(PLUGINS / "sources" / "digits.py", tmp_path / "sources")
    done = started_with(tmp_path, tmp_path / "runs", "-m", "core", "datasets")
    assert done.returncode == 0, done.stderr
    assert "digits     ready" in done.stdout
    assert "broken.py was left out (SystemExit: no data today): correct or remove it" in done.stderr


def test_a_folder_of_plug_ins_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    done = started_with(tmp_path / "none", tmp_path, "-m", "core", "datasets")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("$NEXTLABEL_PLUGINS names") == 1


def test_an_installed_package_adds_one_by_an_entry_point(tmp_path: Path) -> None:
    shutil.copy(PLUGINS / "strategies" / "least_confidence.py", tmp_path / "their_module.py")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[nextlabel.strategies]\nleast-confidence = their_module\nnot-there = their_module:NOTHING\n"
    )
    ask = "from core import methods; print(*methods.strategies.CATALOGUE, *methods.refused(), sep='\\n')"
    done = started_with(tmp_path / "none", tmp_path, "-c", ask, path=str(tmp_path))
    assert "\nleast-confidence\n" in done.stdout
    assert (
        "The entry point not-there (their_module:NOTHING) of their-package was left out (AttributeError" in done.stdout
    )


def test_listing_everything_imports_no_torch() -> None:
    listing = "import sys; from core import methods; from core.plots import curves; "
    listing += "assert methods.refused() == []; assert 'torch' not in sys.modules; print(*methods.selectors.CATALOGUE)"
    done = started_with(PLUGINS, PLUGINS, "-c", listing)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "vanilla co-teaching elr ssl pretrained clean imported label-smoothing\n"


GOOD = """
from core.models import Architecture
MODEL = Architecture(name="{name}", title="A model", build=lambda channels, n_classes, width, dropout: None)
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("MODEL = 'resnet'", "TypeError: it exports no MODEL, a core.models.Architecture"),
        (GOOD.format(name="resnet18"), 'there is a model "resnet18" already'),
        (GOOD.format(name="My Model"), "the name 'My Model' must be lower-case"),
        ("def build(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_what_is_no_plug_in_is_named_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a_bad.py").write_text(text)
    (tmp_path / "models" / "good.py").write_text(GOOD.format(name="good"))
    monkeypatch.setenv("NEXTLABEL_PLUGINS", str(tmp_path))
    found = Catalogue(Architecture, "model", "MODEL", "core.models", "models", helpers=models.CATALOGUE.helpers)
    assert list(found) == ["small-cnn", "resnet18", "small-unet", "good"]
    (sentence,) = found.refused
    assert said in sentence
    assert str(tmp_path / "models" / "a_bad.py") in sentence


def test_a_score_cannot_be_called_as_a_column_of_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores").mkdir()
    text = (PLUGINS / "scores" / "brier.py").read_text().replace('name="brier"', 'name="rank"')
    (tmp_path / "scores" / "rank.py").write_text(text)
    monkeypatch.setenv("NEXTLABEL_PLUGINS", str(tmp_path))
    ours = label_scores.CATALOGUE
    found = Catalogue(ours.described, "score", "SCORE", "core.label_scores", "scores", taken=ours.taken)
    assert "rank" not in found
    assert '"rank" is the name of a column of every table' in found.refused[0]


@pytest.mark.parametrize("values", [np.zeros((4, 1)), np.zeros(3), ["a"] * 4, None])
def test_a_score_that_is_not_one_number_a_sample_is_named(values: object) -> None:
    with pytest.raises(UserError, match='"margin" did not return 4 numbers'):
        strategies.load("margin").checked(values, 4)


@pytest.mark.parametrize("changed", [{"colour": "red"}, {"dash": "wavy"}, {"symbol": "heart"}, {"name": "a--b"}])
def test_a_look_that_figures_cannot_draw_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed.values()))):
        dataclasses.replace(strategies.load("random"), **changed)


@pytest.mark.parametrize("kind", CATALOGUES)
def test_all_of_ours_say_what_they_are(kind: str) -> None:
    settings = {field.name for field in dataclasses.fields(Config)}
    assert len(CATALOGUES[kind]) >= 2
    for name, one in CATALOGUES[kind].items():
        assert one.name == name
        assert one.title
        if kind != "sources":  # whose options are those of their `load`
            assert set(one.options) <= settings, name
    assert CATALOGUES[kind].refused == ()


def test_scores_say_what_a_high_value_means() -> None:
    for name, score in methods.scores().items():
        assert score.formula, name
        assert score.meaning.startswith("high: "), name


def test_a_name_means_and_looks_the_same_in_both_tasks() -> None:
    """`random` and `entropy` are strategies and scores of labels."""
    both = set(strategies.CATALOGUE) & set(label_scores.CATALOGUE)
    assert both == {"random", "entropy"}
    for name in both:
        one, other = strategies.CATALOGUE[name], label_scores.CATALOGUE[name]
        for said in ("title", "formula", "meaning", "unit", "colour", "symbol", "dash"):
            assert getattr(one, said) == getattr(other, said), (name, said)


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UserError, match='There is no strategy "gradnorm": choose one of random, mc-dropout'):
        strategies.load("gradnorm")
    assert isinstance(strategies.load("entropy"), Strategy)


def test_a_run_whose_plug_in_is_gone_is_shown_by_its_name() -> None:
    assert methods.described("least-confidence").title == "least-confidence"
    assert methods.drawn("least-confidence").colour == "#7F7F7F"
