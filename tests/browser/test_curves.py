"""The page Curves where a run measured influence: the kind is offered, and shows Table 2."""

import dataclasses

import pytest
from streamlit.testing.v1 import AppTest

import data
from core.engine import loop
from core.runs import jobs, run, settle
from core.runs.spec import Config

TINY = {"dataset": "fashion", "limit": 300, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32}
KIND = "Influence and its bounds"


def opened(one, kind=None):
    """The page, as a visitor of this run has it."""
    app = AppTest.from_file(str(jobs.ROOT / "app.py"), default_timeout=120)
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
    assert [one.value for one in app.subheader] == ["Do bound and influence choose the same images?"]
    (table,) = (one.value for one in app.dataframe)
    assert table[["cycle", "k", "candidates"]].to_numpy().tolist() == [[0, 20, 280]]
    assert table["chance"].tolist() == [pytest.approx(20 / 280)]
    assert len(app.get("plotly_chart")) == 1
    assert not app.warning
    (kinds,) = (one.options for one in opened(plain).get("button_group") if one.label == "Curves")
    assert KIND not in str(kinds)
