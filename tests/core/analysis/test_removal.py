"""The tables and the figure of removal studies against figures worked out by hand, on runs that nobody trained."""

import numpy as np
import pytest

from core.analysis import removal
from core.plots.curves import CHOICES as DRAWN
from core.runs import removal as removals
from core.runs import run
from core.runs.removal import CHOICES, Damped, Removal, Removed
from core.runs.spec import Config
from data.errors import UserError

ABOUT = {"class_names": ["cat", "dog"], "n_samples": 6, "annotators": "none", "annotators_source": "", "skipped": []}
HALF = 12.7062 / np.sqrt(2)  # of a 95 % interval of two observations, in standard deviations


def study(top, bottom, random, *, seeds=(0, 9)):
    """A study whose retrainings change a loss of 1 by these."""
    changes = {"top": (3, top), "bottom": (1, bottom), "random": (2, random)}
    return Removal(
        cycle=0,
        share=0.25,
        damping=0.01,
        weight_decay=5e-4,
        iterations=9,
        residual=1e-4,
        n_held_out=10,
        sample_ids=list("abcd"),
        influence=[1.0, -2, 0, 3],
        bound=[4.0, 4, 4, 4],
        seeds=list(seeds),
        losses=[1.0] * len(seeds),
        removed=[Removed(name, [at], [1 + change for change in values]) for name, (at, values) in changes.items()],
        dampings=[Damped(0.1, 0.9, 0.8, 1, 0, 5, 1e-4), Damped(0.0, failed="It is singular.")],
    )


@pytest.fixture
def runs(home):
    """Two runs, seeds 0 and 1, and a third without a study."""
    home.mkdir()
    made = []
    for seed, found in enumerate((study([0.5, 0.3], [-0.1, 0.1], [0, 0]), study([0.2, 0.2], [0.1, 0.1], [0, 0]), None)):
        one = run.create(Config("active-learning", "fashion", "margin", budget=2, cycles=1, seed=seed), ABOUT)
        one.log.finish(0, "score", 1.0, {"n_labels": 4})
        if found is not None:
            removals.write(one, found)
        made.append(one)
    return made


def test_a_row_a_choice_with_what_was_predicted_and_what_came_of_it(runs):
    found = removal.table(removal.studies(runs))
    assert found["choice"].tolist() == [*CHOICES, removal.CONTRAST] * 2
    top = found.iloc[0]
    assert (top["seed"], top["n_labels"], top["n_removed"], top["trainings"]) == (0, 4, 1, 2)
    assert (top["predicted"], top["realised"]) == (pytest.approx(0.3), pytest.approx(0.4))
    assert top["predicted_rest"] == pytest.approx(4 / 3 * (3 - 2 / 4) / 10)
    sd = 0.2 / np.sqrt(2)
    assert (top["low"], top["high"]) == (
        pytest.approx(0.4 - HALF * sd, abs=1e-4),
        pytest.approx(0.4 + HALF * sd, abs=1e-4),
    )
    difference = found.iloc[3]
    assert (difference["predicted"], difference["realised"]) == (pytest.approx(0.5), pytest.approx(0.4))
    assert found["n_removed"].isna().tolist() == [False, False, False, True] * 2


def test_pooled_a_run_is_one_observation(runs):
    found = removal.pooled(removal.studies(runs)).set_index("choice")
    top = found.loc["top"]
    assert (top["realised"], top["runs"], top["seeds"], top["trainings"]) == (pytest.approx(0.3), 2, "0, 1", 4)
    assert top["high"] - top["realised"] == pytest.approx(HALF * 0.2 / np.sqrt(2), rel=1e-4)
    assert top["detectable"] > top["sd"]
    assert len(found) == 4


def test_one_training_has_no_interval(runs):
    found = removal.table([(runs[0], study([0.5], [0.1], [0.0], seeds=[0]))])
    assert found[["low", "high", "sd", "detectable"]].isna().all(axis=None)
    assert found["realised"].notna().all()


def test_rank_stability_says_why_something_is_not_known(runs):
    found = removal.dampings(removal.studies(runs[:1]))
    assert found[["damping", "own", "signed", "absolute"]].iloc[0].tolist() == [0.1, 0.01, 0.9, 0.8]
    assert (found["signed_top"][0], found["chance"][0]) == (1, 0.25)
    assert found["failed"].tolist() == ["", "It is singular."]
    assert np.isnan(found["signed"][1])


def test_each_label_with_what_removed_it(runs):
    found = removal.labels(removal.studies(runs[:1]))
    assert found["removed"].tolist() == ["", "bottom", "random", "top"]
    assert found["absolute"].tolist() == [1, 2, 0, 3]


def test_the_figure_has_a_point_a_run_and_choice_and_the_line_of_a_true_prediction(runs):
    drawn = removal.figure(removal.studies(runs))
    assert [trace.name for trace in drawn.data] == ["as predicted (y = x)", *DRAWN]
    line, top, *_ = drawn.data
    assert list(line.x) == list(line.y)
    assert list(top.x) == [pytest.approx(0.3)] * 2
    assert list(top.y) == [pytest.approx(0.4), pytest.approx(0.2)]
    assert "2 runs, seed 0, 1" in drawn.layout.meta["note"]


def test_tables_that_would_be_empty_are_left_out(runs):
    assert list(removal.tables(removal.studies(runs))) == ["removal", "removal-pooled", "dampings", "labels"]
    assert list(removal.tables(removal.studies(runs[:1]))) == ["removal", "dampings", "labels"]


def test_a_sentence_for_show(runs):
    (_, one), _ = removal.studies(runs)
    said = removal.sentence(one)
    assert said.startswith(
        "Removing 1 of the 4 labels of cycle 0 changed the held-out loss by (nats, 2 trainings): top +0.4000 ["
    )
    assert "predicted +0.3000; bottom" in said


def test_a_run_without_a_study_is_told_how_to_make_one(runs):
    with pytest.raises(UserError, match=f"`python -m core influence {runs[2].id} --cycle 0` does it"):
        removal.of_cycle(runs[2], 0)
