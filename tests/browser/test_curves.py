"""The page Curves where a run measured influence: the kind is offered, and shows Table 2 and what came of removing labels."""

import dataclasses

import pytest
from streamlit.testing.v1 import AppTest

import data
from core.engine import loop
from core.runs import removal, run, settle
from core.runs.jobs import ROOT
from core.runs.spec import Config
from tests.core.runs.test_removal import of_values

TINY = {"dataset": "fashion", "limit": 300, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32}
KIND = "Influence and its bounds"


def opened(one, kind=None):
    """The page, as a visitor of this run has it."""
    app = AppTest.from_file(ROOT / "app.py", default_timeout=120)
    app.query_params["run"] = one.id
    if kind is not None:
        app.query_params["kind"] = kind
    app.run()
    app.switch_page("pages/curves.py").run()
    assert not app.exception
    return app


@pytest.mark.slow
def test_influence_is_a_kind_of_curve_where_it_was_measured(home):
    pool = data.load("fashion", limit=300)
    config = Config("active-learning", method="margin", budget=20, cycles=2, evidence="influence", **TINY)
    measured, plain = (
        run.create(settle.prepare(one, pool), settle.about(pool))
        for one in (config, dataclasses.replace(config, evidence=False))
    )
    for one in (measured, plain):
        loop.work(one, pool)
    app = opened(measured, KIND)
    assert [one.value for one in app.subheader] == [
        "Do bound and influence choose the same images?",
        "Is the prediction true?",
    ]
    assert [one.value for one in app.code] == [f"python -m core influence {measured.id}"]
    (table,) = (one.value for one in app.dataframe)
    assert table[["cycle", "k", "candidates"]].to_numpy().tolist() == [[0, 20, 280]]
    assert table["chance"].tolist() == [pytest.approx(20 / 280)]
    assert len(app.get("plotly_chart")) == 1
    assert not app.warning
    (kinds,) = (one.options for one in opened(plain).get("button_group") if one.label == "Curves")
    assert KIND not in str(kinds)


def test_a_removal_study_is_shown_with_the_same_of_other_seeds(home):
    """On two runs that nobody trained, and that measured no influence of candidates."""
    home.mkdir()
    pool = data.load("fashion", limit=300)
    for seed in (0, 1):
        config = Config("active-learning", method="margin", budget=20, cycles=1, seed=seed, **TINY)
        one = run.create(settle.prepare(config, pool), settle.about(pool))
        one.log.finish(0, "score", 1.0, {"n_labels": 4, "accuracy": 0.5})
        removal.write(one, of_values([1, -2, 3, 4 + seed], [seed]))
    app = opened(one, KIND)
    assert [one.value for one in app.subheader] == ["Is the prediction true?", "Do the ranks depend on the damping?"]
    changes, pooled, dampings = (one.value for one in app.dataframe)
    assert changes["seed"].tolist() == [1] * 4 + [0] * 4
    assert pooled["runs"].tolist() == [2] * 4
    assert dampings["failed"].tolist() == ["", "It is singular."] * 2
    assert len(app.get("plotly_chart")) == 1
    (one.cycle_path(0) / removal.FILE).write_text("{}")
    (error,) = opened(one, KIND).error
    assert "has no readable removal.json" in error.value
