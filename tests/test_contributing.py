"""The recipes of CONTRIBUTING.md, followed to the letter."""

import json

import numpy as np
import pandas as pd
import pytest

import data
from core import scores
from core.__main__ import main
from core.analysis import figures, rankings
from core.analysis.samples import Filter, of_cycle
from core.files import report
from core.plots import style
from core.runs import questions, reference, run, settle, spec
from core.scores import Score, distribution
from core.studies import policies


def brier(label_counts, probs):
    """Squared distance between labels and posterior, [N, C] → [N]."""
    return ((distribution(label_counts) - probs) ** 2).sum(axis=1)


@pytest.fixture
def new_score(monkeypatch):
    """What "A score of labels" says: a function, its entry in the registry, its name in the list, its colour."""
    monkeypatch.setattr(scores, "brier", brier, raising=False)
    entry = Score(
        "Brier score",
        "Σ (l̂ − p)²",
        "high: the model disagrees with the label",
        "Brier 1950",
        compute=lambda it: scores.brier(it.histogram, it.probs),
    )
    monkeypatch.setitem(scores.REGISTRY, "brier", entry)
    monkeypatch.setattr(questions, "CLEANING_SCORES", (*questions.CLEANING_SCORES, "brier"))
    monkeypatch.setitem(style.COLOURS, "brier", style.SKY)


def test_a_new_score_of_labels_runs_ranks_shows_and_exports(home, new_score, tmp_path, capsys):
    asked = ["--task", "label-cleaning", "--dataset", "fashion", "--score", "brier", "--limit", "200", "--cycles", "2"]
    assert main(["run", *asked, "--model", "small-cnn", "--width", "4", "--epochs", "2", "--json"]) == 0
    one = run.find(json.loads(capsys.readouterr().out)["run"])
    pool = data.load("fashion", limit=200)
    assert len(one.cycles()) == 2

    ranking = one.ranking(0)
    histogram = one.state(pool.ids, 0)[0].histogram
    np.testing.assert_allclose(ranking["brier"], brier(histogram, one.posterior(0)), atol=1e-6)
    assert ranking.sort_values("rank")["brier"].is_monotonic_decreasing

    samples = of_cycle(one, pool, 0)
    assert "brier" in samples.scores
    assert samples.page(Filter(), "brier", False, 0, 5)["brier"].is_monotonic_decreasing
    for name, chosen in {"curves": (), "policies": (), "distribution": ("brier",), "scatter": ("brier", "entropy"),
                         "embedding": ("brier",)}.items():  # fmt: skip
        assert figures.figure(one, pool, name, 0, chosen=chosen).data
    assert "Brier score" in rankings.rankings_beside(one, 0).values()
    assert "Brier score" in report.html(one, pool, 0)
    assert set(policies.tables([one], pool)["statistics"]["policy"]) == {"oracle", "random", "brier"}

    for table in ("ranking", "issues"):
        out = tmp_path / f"{table}.csv"
        assert main(["export", one.id, "--table", table, "--cycle", "0", "--out", str(out)]) == 0
        assert len(pd.read_csv(out)) == 200


def test_every_other_cleaning_run_shows_the_new_score_too(home, new_score):
    pool = data.load("fashion", limit=200)
    config = spec.Config(task="label-cleaning", dataset="fashion", method="cleaning", budget=0, cycles=1, limit=200)
    task = questions.LabelCleaning(settle.prepare(config, pool), pool)
    probs = np.full((200, 10), 0.1)
    state, _ = questions.relabel.replay(np.arange(200), reference.initial_labels(task.config, pool), (200, 10))
    columns = task.score_columns(state, probs)
    assert list(columns) == ["cleaning", "cross-entropy", "entropy", "self-confidence", "brier"]
