"""Filters, orders and counts on disk, against plain pandas on the whole table."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import data
from core import scores
from core.analysis.samples import LISTS, Filter, history, neighbours, of_cycle, outcomes, table
from core.engine import explain, loop
from core.runs import run, settle
from core.runs.spec import Config
from data.errors import UserError


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def finished(pool, **settings):
    tiny = {"dataset": "fashion", "limit": 300, "width": 4, "epochs": 2, "batch_size": 32, "cycles": 2, **settings}
    made = run.create(settle.prepare(Config(**tiny), pool), settle.about(pool))
    loop.work(made, pool)
    return made


@pytest.fixture(scope="module")
def cleaning(pool, home):
    return finished(pool, task="label-cleaning", method="cleaning", budget=80)


@pytest.fixture(scope="module")
def learning(pool, home):
    return finished(pool, task="active-learning", method="entropy-gradnorm", budget=40)


@pytest.fixture(scope="module")
def samples(cleaning, pool):
    return of_cycle(cleaning, pool, 1)


@pytest.fixture(scope="module")
def whole(cleaning, pool):
    """What the queries are held to: the table in memory."""
    return table(cleaning, pool, 1).assign(outcome=outcomes(cleaning, pool, 1))


FILTERS = [
    Filter(),
    Filter(text="TRAIN-1"),
    Filter(given=("bag", "coat")),
    Filter(suggested=("shirt",), status=("labelled",)),
    Filter(kind=("clear noise",), outcome=("missed", "corrected")),
    Filter(ranges=(("entropy", 1.0, 2.0), ("cleaning", -1.0, 0.1))),
    Filter(rows=(3, 5, 7, 299)),
    Filter(rows=()),
    Filter(text="'; DROP TABLE samples; --"),
]


def plainly(table, kept):
    """The rows that pass, one condition at a time."""
    keep = pd.Series(True, index=table.index)
    keep &= table["sample_id"].str.lower().str.contains(kept.text.lower(), regex=False)
    for name in LISTS:
        if getattr(kept, name):
            keep &= table[name].isin(getattr(kept, name))
    for score, low, high in kept.ranges:
        keep &= (table[score] >= low) & (table[score] <= high)
    if kept.rows is not None:
        keep &= table.index.isin(kept.rows)
    return table[keep]


@pytest.mark.parametrize("kept", FILTERS)
def test_a_filter_keeps_what_a_plain_one_keeps(samples, whole, kept):
    expected = plainly(whole, kept)
    assert samples.count(kept) == len(expected)
    found = samples.page(kept, "cleaning", False)
    assert found.index.tolist() == expected.sort_values("cleaning", ascending=False, kind="stable").index.tolist()
    pd.testing.assert_frame_equal(
        found.sort_index()[list(expected)], expected, check_index_type=False, check_names=False, check_dtype=False
    )
    counts = samples.confusion(kept)
    assert counts.to_numpy().sum() == len(expected)
    for (given, suggested), n in expected.groupby(["given", "suggested"]).size().items():
        assert counts.loc[given, suggested] == n


@pytest.mark.parametrize(("order", "ascending"), [("rank", True), ("entropy", False), ("n_votes", True)])
def test_pages_are_slices_of_the_order_and_samples_without_a_value_come_last(samples, whole, order, ascending):
    expected = whole.sort_values(order, ascending=ascending, na_position="last", kind="stable").index
    pages = [samples.page(Filter(), order, ascending, start, 70) for start in range(0, 300, 70)]
    assert [row for page in pages for row in page.index] == expected.tolist()


def test_a_histogram_counts_every_sample_once(samples, whole):
    kept = Filter(given=("bag",))
    bins = samples.histogram("cleaning", kept, bins=7)
    edges = np.append(bins["low"], bins["high"].iloc[-1])
    np.testing.assert_array_equal(bins["everything"], np.histogram(whole["cleaning"], edges)[0])
    np.testing.assert_array_equal(bins["kept"], np.histogram(plainly(whole, kept)["cleaning"], edges)[0])


def test_gamma_changes_the_cleaning_score_as_the_formula_does(samples, cleaning, pool):
    histogram = cleaning.state(pool.ids, 1)[0].histogram
    expected = scores.cleaning_score(histogram, cleaning.posterior(1).astype(np.float64), gamma=0.3)
    found = samples.at_gamma(0.3).page(Filter(), "cleaning", False).sort_index()["cleaning"]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # posteriors are kept in float32


def test_the_cut_is_the_lowest_score_of_the_next_budget(samples, whole):
    assert samples.cut("cleaning", 10) == whole.nsmallest(10, "rank")["cleaning"].min()
    assert samples.cut("cleaning", 300) is None
    assert samples.cut("cleaning", 0) is None


def test_points_are_always_the_same_and_one_sample_is_found_by_its_id(samples, whole, pool):
    some = samples.points("entropy", "cleaning", Filter(), 50)
    assert len(some) == 50
    assert some.index.tolist() == samples.points("entropy", "cleaning", Filter(), 50).index.tolist()
    assert samples.sample(pool.ids[7])["cleaning"] == whole.loc[7, "cleaning"]
    assert samples.sample("nobody") is None
    assert samples.ranked(Filter(given=("bag",))).tolist() == (
        whole[(whole["given"] == "bag") & whole["rank"].notna()].sort_values("rank").index.tolist()
    )


@pytest.mark.parametrize("kept", [Filter(), Filter(given=("bag", "coat")), Filter(rows=())])
def test_pairs_of_labels_come_by_size_and_those_that_differ_first(samples, whole, kept):
    expected = plainly(whole, kept).groupby(["given", "suggested"]).size()
    found = samples.pairs(kept)
    assert {(a, b): n for a, b, n in found.itertuples(index=False)} == expected.to_dict()
    same = found["given"] == found["suggested"]
    assert same.is_monotonic_increasing
    assert all(part["n"].is_monotonic_decreasing for _, part in found.groupby(same))


def test_the_first_of_each_pair_are_those_of_its_own_page(samples):
    kept, pairs = Filter(ranges=(("entropy", 0.2, 3.0),)), samples.pairs().iloc[2:6].reset_index(drop=True)
    found = samples.of_pairs(pairs, kept, "cleaning", False, 3)
    expected = [
        row
        for pair in pairs.itertuples()
        for row in samples.page(
            dataclasses.replace(kept, given=(pair.given,), suggested=(pair.suggested,)), "cleaning", False, 0, 3
        ).index
    ]
    assert found.index.tolist() == expected


def test_names_are_counted_among_what_passes(samples, whole):
    kept = Filter(given=("bag",))
    assert samples.counts("outcome", kept) == plainly(whole, kept)["outcome"].value_counts().to_dict()


def test_a_place_is_that_in_the_pages(samples, pool):
    kept = Filter(given=("bag",))
    order = samples.page(kept, "cleaning", False)["sample_id"].tolist()
    assert [samples.place(one, kept, "cleaning", False) for one in order[:5]] == [0, 1, 2, 3, 4]
    assert samples.place(order[0], Filter(given=("coat",)), "cleaning", False) is None


def test_a_mosaic_has_the_sample_nearest_to_the_middle_of_each_cell(samples, whole):
    table, (width, height) = samples.mosaic("entropy", "cross-entropy", Filter(), 5, 4)
    u = (whole["entropy"] - whole["entropy"].min()) / width
    v = (whole["cross-entropy"] - whole["cross-entropy"].min()) / height
    cells = pd.DataFrame({"i": np.minimum(np.floor(u), 4), "j": np.minimum(np.floor(v), 3)})
    far = (u - cells["i"] - 0.5) ** 2 + (v - cells["j"] - 0.5) ** 2
    assert sorted(table.index) == sorted(far.groupby([cells["i"], cells["j"]]).idxmin())
    assert table["n"].sum() == 300
    assert samples.mosaic("entropy", "cross-entropy", Filter(rows=()), 5, 4) is None
    alone, _ = samples.mosaic("entropy", "cross-entropy", Filter(rows=(7,)), 5, 4)
    assert alone.index.tolist() == [7]


def test_what_lies_inside_of_boxes_and_lassos(samples, whole):
    low, high = whole["entropy"].quantile([0.201, 0.701])  # no sample's own value
    top = whole["cross-entropy"].quantile(0.501)
    box = ([low, high, high, low], [0.0, 0.0, top, top])
    inside = (whole["entropy"] > low) & (whole["entropy"] < high) & (whole["cross-entropy"] < top)
    found = samples.inside("entropy", "cross-entropy", [box], Filter())
    assert 0 < len(found) == inside.sum()
    assert found.tolist() == np.flatnonzero(inside).tolist()
    triangle = ([0.0, 3.0, 0.0], [0.0, 0.0, 3.0])  # what lies below x + y = 3
    found = samples.inside("entropy", "cross-entropy", [triangle], Filter(given=("bag",)))
    expected = (whole["entropy"] + whole["cross-entropy"] < 3) & (whole["given"] == "bag")
    assert found.tolist() == np.flatnonzero(expected).tolist()
    both = samples.inside("entropy", "cross-entropy", [box, triangle], Filter())
    assert set(both) == set(np.flatnonzero(inside | (whole["entropy"] + whole["cross-entropy"] < 3)))


def test_outcomes_equal_a_plain_replay(cleaning, pool, whole):
    truth = pool.label_counts.argmax(axis=1)
    first, last, asked = {}, {}, set()
    votes = {one: np.zeros(10, int) for one in pool.ids}
    for event in cleaning.log.labels(1).itertuples():
        votes[event.sample_id][event.label] += 1
        top = np.sort(votes[event.sample_id])
        if top[-1] > top[-2]:
            last[event.sample_id] = votes[event.sample_id].argmax()
        if event.cycle == 0:
            first[event.sample_id] = last[event.sample_id]
        else:
            asked.add(event.sample_id)
    for row, one in enumerate(pool.ids):
        was, now = first[one] == truth[row], last[one] == truth[row]
        name = {
            (True, True): "wrongly flagged" if one in asked else "untouched",
            (True, False): "spoilt",
            (False, True): "corrected",
            (False, False): "still wrong" if one in asked else "missed",
        }[was, now]
        assert whole.loc[row, "outcome"] == name


def test_active_learning_has_no_outcome_and_its_noise_is_against_the_reference(learning, pool):
    found = of_cycle(learning, pool, 1)
    assert found.values("outcome") == []
    assert "cross-entropy" not in found.scores
    table = found.page(Filter(), "rank", True).sort_index()
    truth = pool.label_counts.argmax(axis=1)
    expected = scores.cross_entropy(np.eye(10)[truth], learning.posterior(1).astype(np.float64))
    np.testing.assert_allclose(table["cross-entropy"], expected, atol=1e-5)


def test_a_sample_is_followed_through_the_cycles(cleaning):
    found = history(cleaning, 4)
    expected = [cleaning.ranking(k).iloc[4] for k in (0, 1)]
    assert found["cycle"].tolist() == [0, 1]
    assert found["score"].tolist() == [one["cleaning"] for one in expected]


def test_neighbours_are_the_most_similar_embeddings(cleaning, pool):
    every = np.load(cleaning.cycle_path(1) / "embedding.npy").astype(np.float32)
    near = neighbours(cleaning, 1, 11, k=5)
    assert near.tolist() == [row for row in np.argsort(-(every @ every[11]), kind="stable") if row != 11][:5]
    same = [pool.labels[row] == pool.labels[11] for row in near]
    assert len(same) == 5
    (cleaning.cycle_path(1) / "embedding.npy").rename(cleaning.cycle_path(1) / "gone.npy")
    assert len(neighbours(cleaning, 1, 11)) == 0
    (cleaning.cycle_path(1) / "gone.npy").rename(cleaning.cycle_path(1) / "embedding.npy")


def test_layer_norms_sum_to_the_gradient_norm(learning, pool):
    table = explain.layer_norms(learning, pool, 1, pool.ids[9])
    ranked = learning.ranking(1)["entropy-gradnorm"]
    row = int(ranked.first_valid_index())
    table = explain.layer_norms(learning, pool, 1, pool.ids[row])
    assert table["norm"].sum() == pytest.approx(ranked[row], rel=1e-4)
    with pytest.raises(UserError, match="no sample 'nobody'"):
        explain.layer_norms(learning, pool, 1, "nobody")


def test_a_newer_ranking_makes_a_new_file_and_a_damaged_one_is_said(cleaning, pool, samples):
    assert of_cycle(cleaning, pool, 1).path == samples.path
    broken = dataclasses.replace(samples, path=samples.path.with_name("broken.parquet"))
    broken.path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"delete .*broken"):
        broken.count()
    with pytest.raises(UserError, match='no column "1; --"'):
        samples.page(Filter(), "1; --", True)
    with pytest.raises(UserError, match="no readable ranking"):
        of_cycle(cleaning, pool, 7)
