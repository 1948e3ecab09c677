"""The curve of a run that checks regions, between a random order and the oracle."""

import numpy as np
import pandas as pd
import pytest

from core import metrics, regions
from core.analysis import checked, curves, diff, figures, samples
from core.runs.reference import initial_labels
from data.masks import VOID
from tests import squares
from tests.squares import worked


@pytest.fixture(scope="module")
def pool():
    return squares.pool()


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("checked")))
        yield


@pytest.fixture(scope="module")
def finished(pool):
    return worked(pool)


@pytest.fixture(scope="module")
def by_pixels(pool):
    return worked(pool, budget_unit="pixels", budget=100)


def test_the_curve_is_that_of_masks_that_are_corrected_one_after_the_other(finished, pool):
    """Slowly: the masks after every single event, compared with the reference pixel by pixel."""
    now, known = np.asarray(initial_labels(finished.config, pool)).copy(), pool.labels >= 0
    expected, pixels = [(now == pool.labels)[known].mean()], [0]
    for event in finished.log.labels().query("cycle > 0").itertuples():
        codes, row = finished.masks.read(event.digest), pool.ids.index(event.sample_id)
        now[row] = np.where(codes == VOID, now[row], codes)
        expected.append((now == pool.labels)[known].mean())
        pixels.append(pixels[-1] + int((codes != VOID).sum()))
    curve = curves.cleaning_curve(finished, pool)
    np.testing.assert_allclose(curve["correctness"], expected)
    assert curve["n_pixels"].tolist() == pixels
    assert curve["n_labels"].tolist() == list(range(11))


def test_it_passes_through_what_the_cycles_measured(finished, pool):
    curve, cycles = curves.cleaning_curve(finished, pool), finished.cycles()
    at = curve.set_index("n_labels").loc[cycles["n_labels"]]
    np.testing.assert_allclose(at["correctness"], cycles["correctness"])
    assert at["n_pixels"].tolist() == cycles["n_pixels"].tolist()
    assert len(curves.cleaning_curve(finished, pool, up_to_cycle=1)) == 6


def test_masks_that_were_corrected_in_between_differ(finished, pool):
    found = diff.diff(diff.Side(finished, 0), diff.Side(finished, 1)).samples
    corrected = set(finished.log.labels().query("cycle == 1")["sample_id"])
    assert {pool.ids[row] for row in diff.relabelled(found).index} == corrected
    assert diff.relabelled(diff.diff(diff.Side(finished, 1), diff.Side(finished, 1)).samples).empty


def test_bounds_begin_where_the_run_does(finished, pool):
    bounds, curve = curves.envelopes(finished.config, pool, 10), curves.cleaning_curve(finished, pool)
    oracle, random = (bounds[bounds["policy"] == name].set_index("n_labels") for name in ("oracle", "random"))
    assert oracle["mean"][0] == random["mean"][0] == curve["correctness"][0]
    assert (oracle["mean"] >= random["mean"]).all()
    assert (random["sd"].iloc[1:] > 0).all()
    assert len(oracle) == len(random) == 11


def test_the_summary_is_on_the_scale_from_random_to_oracle(finished, pool):
    found, curve = curves.summary(finished, pool), curves.cleaning_curve(finished, pool)
    bounds = curves.envelopes(finished.config, pool, 10).groupby("policy")["mean"].mean()
    assert found["auc"] == pytest.approx(curve["correctness"].mean())
    assert found["auc_normalised"] == pytest.approx(
        metrics.normalised_auc(found["auc"], bounds["random"], bounds["oracle"])
    )
    assert found["cycles"][-1]["n_labels"] == 10


def test_of_a_budget_in_pixels_the_area_is_over_pixels(by_pixels, pool):
    found, curve = curves.summary(by_pixels, pool), curves.cleaning_curve(by_pixels, pool)
    end = float(curve["n_pixels"].iloc[-1])
    assert found["auc"] == pytest.approx(metrics.area_under_curve(curve["n_pixels"], curve["correctness"]))
    bounds = curves.envelopes(by_pixels.config, pool, int(end))
    oracle = bounds[bounds["policy"] == "oracle"]
    assert (oracle["n_pixels"].iloc[0], oracle["n_pixels"].iloc[-1]) == (0, end)
    it = checked.start(by_pixels.config, pool)
    x, y = regions.curve(it, regions.oracle(it, "pixels"), "pixels")
    np.testing.assert_allclose(oracle["mean"], np.interp(oracle["n_pixels"], x, y))
    random = bounds.loc[bounds["policy"] == "random", "mean"].to_numpy()
    assert (oracle["mean"].to_numpy() >= random - 1e-12).all()


def test_the_oracle_as_a_run_comes_near_1(pool):
    assert curves.summary(worked(pool, method="oracle", budget=8), pool)["auc_normalised"] == pytest.approx(1, abs=0.15)


def test_the_start_is_counted_once(finished, pool, monkeypatch):
    first = checked.start(finished.config, pool)
    monkeypatch.setattr(regions, "tally", None)
    again = checked.start(finished.config, pool)
    for name in ("image", "number", "pixels", "wrong", "right", "known"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_each_check_names_the_pixels_of_its_region(finished, pool):
    table = samples.relabels(finished, pool)
    assert len(table) == finished.cycles()["n_labels"].iloc[-1]
    assert table["pixels"].sum() == finished.cycles()["n_pixels"].iloc[-1]


def test_where_people_answer_there_is_no_curve(pool):
    one = worked(pool, noise=0.0, annotator="person", budget=0)
    assert curves.cleaning_curve(one, pool).empty
    assert curves.envelopes(one.config, pool, 5).empty
    assert curves.summary(one, pool)["auc"] is None
    assert isinstance(curves.areas([one], pool), pd.DataFrame)


@pytest.mark.parametrize(("unit", "x"), [("labels", "Checked regions"), ("pixels", "Checked pixels")])
def test_the_figure_counts_what_the_budget_counts(unit, x, finished, by_pixels, pool):
    one = finished if unit == "labels" else by_pixels
    figure = figures.figure(one, pool, "curves", 2)
    assert figure.layout.xaxis.title.text == x
    assert figure.layout.yaxis.title.text == "Correct pixels (%)"
    auc = {trace.name.split(" · ")[0]: float(trace.name.split("AUC ")[1][:5]) for trace in figure.data if trace.name}
    assert auc["vanilla (run)"] == pytest.approx(curves.summary(one, pool)["auc"], abs=0.002)
    assert auc["random"] < auc["oracle"]
    assert "wrong pixels, mixed noise, injected" in figures.noise_text(one.config, pool)
