"""Table 2 of a run against figures worked out by hand, on a run that nobody trained."""

import numpy as np
import pytest

from core.analysis import bounds
from core.runs import run
from core.runs.spec import Config

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
    for cycle, result in enumerate(results):
        made.log.finish(cycle, "score", 1.0, {"n_labels": 10 + 2 * cycle, **result})
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


def test_a_run_without_it_has_no_table(home):
    home.mkdir()
    plain = run.create(Config("active-learning", "fashion", "margin", budget=2, cycles=1), ABOUT)
    plain.log.finish(0, "score", 1.0, {"n_labels": 10})
    assert not bounds.measured(plain.cycles())
    assert bounds.table(plain.cycles()).empty
