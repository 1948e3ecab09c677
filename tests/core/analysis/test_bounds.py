"""The ladder of bounds and Table 2 of a run against figures worked out by hand, on a run that nobody trained."""

import numpy as np
import pandas as pd
import pytest

from core.analysis import bounds
from core.runs import run
from core.runs.spec import Config
from core.store import atomic

ABOUT = {
    "class_names": ["cat", "dog"],
    "n_samples": 6,
    "annotators": "none",
    "annotators_source": "",
    "skipped": [],
}
MEASURED = {
    "influence_n": 5,
    "influence_k": 2,
    "influence_eq3_eq5": 2,
    "influence_eq2_eq5": 1,
    "influence_eq2_eq3": 1,
    "influence_step_3_4": 0.25,
    "influence_step_4_5": 1.5,
    "influence_positive": 0.6,
    "influence_residual": 1e-4,
    "influence_iterations": 9,
}


@pytest.fixture
def one(home):
    """A run of four cycles: measured after the first training, failed after the second, without Eq. 5 after the third."""
    home.mkdir()
    made = run.create(Config("active-learning", "fashion", "margin", budget=2, cycles=4), ABOUT)
    results = [
        {},
        MEASURED,
        {"influence_n": 3, "influence_k": 2, "influence_failed": "It did not converge."},
        {
            "influence_n": 1,
            "influence_k": 1,
            "influence_positive": 1.0,
            "influence_failed": "The weights are not here.",
        },
    ]
    columns = {"influence": [-4.0, 3, 2, 1, -1, np.nan], "bound": [8.0, 12, 8, 4, 4, np.nan]}
    earlier = {"earlier-bound": [8.0, 8, 8, 8, 8, np.nan]}
    for cycle, scores in enumerate(({}, {**columns, **earlier}, {}, columns)):
        table = pd.DataFrame({"sample_id": list("abcdef"), "rank": [1.0, 2, 3, 4, 5, np.nan], **scores})
        atomic.write_table(made.cycle_path(cycle) / "ranking.parquet", table)
        made.log.finish(cycle, "score", 1.0, {"n_labels": 10 + 2 * cycle, **results[cycle]})
    return made


def test_a_row_belongs_to_the_cycle_that_ranked_the_candidates(one):
    found = bounds.table(one.cycles())
    assert found[["cycle", "n_labels", "k", "candidates"]].to_numpy().tolist() == [
        [0, 10, 2, 5],
        [1, 12, 2, 3],
        [2, 14, 1, 1],
    ]
    np.testing.assert_allclose(found["chance"], [4 / 5, 4 / 3, 1])
    np.testing.assert_allclose(found["eq3_eq5"], [2, np.nan, np.nan])
    assert found["failed"].tolist() == ["", "It did not converge.", "The weights are not here."]
    first = bounds.shares(found).iloc[0]
    assert (first["eq3_eq5"], first["eq2_eq5"], first["chance"], first["positive"]) == (1, 0.5, 0.4, 0.6)


def test_the_ladder_has_quartiles_of_the_terms_that_are_known(one):
    found = bounds.ladder(one)
    assert found["term"].tolist() == ["target", "approx-1", "approx-2", "approx-3", "target", "approx-1", "approx-2"]
    assert found[["cycle", "n_labels"]].drop_duplicates().to_numpy().tolist() == [[0, 10], [2, 14]]
    quartiles = found.set_index(["cycle", "term"])[["low", "median", "high"]]
    assert quartiles.loc[(0, "target")].tolist() == [-1, 1, 2]
    assert quartiles.loc[(0, "approx-1")].tolist() == [1, 2, 3]
    assert quartiles.loc[(0, "approx-2")].tolist() == [4, 8, 8]
    assert quartiles.loc[(0, "approx-3")].tolist() == [8, 8, 8]
    assert set(found["n"]) == {5}


def test_the_figure_draws_what_is_above_zero_down_to_its_edge(one):
    drawn = bounds.figure(one, bounds.ladder(one))
    assert [trace.name for trace in drawn.data] == list(bounds.TERMS.values())
    bottom = 10 ** drawn.layout.yaxis.range[0]
    target = drawn.data[0]
    assert target.y[0] - target.error_y.arrayminus[0] == pytest.approx(bottom)
    assert bottom > 0
    assert drawn.layout.yaxis.type == "log"
    assert "damping 0.01 and the weight decay" in drawn.layout.meta["note"]


def test_a_run_without_it_has_no_table_and_no_ladder(home):
    home.mkdir()
    plain = run.create(Config("active-learning", "fashion", "margin", budget=2, cycles=1), ABOUT)
    plain.log.finish(0, "score", 1.0, {"n_labels": 10})
    assert not bounds.measured(plain.cycles())
    assert bounds.table(plain.cycles()).empty
    assert bounds.ladder(plain).empty


def test_what_the_paper_reports():
    assert bounds.paper().startswith("Table 2 of Wang et al. 2022 reports 91.6 to 99.3 % of K (CIFAR-10; all 50,000")
