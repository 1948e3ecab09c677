"""What pages and exports show, against a replay of the log one event at a time."""

import dataclasses

import numpy as np
import pytest

import data
from core import cycle, relabel, run, tasks, views
from core.run import Config

TINY = {"dataset": "fashion", "limit": 250, "width": 4, "epochs": 1, "batch_size": 32}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=250)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """One home for the runs of this module, each trained once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("NEXTLABEL_HOME", str(folder))
        yield folder


def finished(pool, **settings):
    made = run.create(tasks.prepare(Config(**{**TINY, **settings}), pool), tasks.about(pool))
    cycle.work(made, pool)
    return made


@pytest.fixture(scope="module")
def cleaning(pool, home):
    return finished(pool, task="label-cleaning", method="cleaning", budget=60, cycles=3, finetune_epochs=1)


@pytest.fixture(scope="module")
def second_seed(pool, home, cleaning):
    return finished(pool, task="label-cleaning", method="cleaning", budget=60, cycles=2, finetune_epochs=1, seed=1)


@pytest.fixture(scope="module")
def learning(pool, home):
    return finished(pool, task="active-learning", method="margin", budget=30, cycles=2)


def test_cleaning_curve_equals_a_plain_replay(cleaning, pool):
    truth = dict(zip(pool.ids, pool.label_counts.argmax(axis=1), strict=True))
    votes, majority, curve = {i: np.zeros(10, int) for i in pool.ids}, {}, []
    for event in cleaning.log.labels().itertuples():
        votes[event.sample_id][event.label] += 1
        top = np.sort(votes[event.sample_id])
        if top[-1] > top[-2]:
            majority[event.sample_id] = votes[event.sample_id].argmax()
        if len(majority) == len(pool):
            curve.append(np.mean([majority[i] == truth[i] for i in pool.ids]))
    found = views.cleaning_curve(cleaning, pool)
    np.testing.assert_allclose(found["correctness"], curve, atol=1e-12)
    assert found["n_labels"].tolist() == list(range(121))
    rewound = views.cleaning_curve(cleaning, pool, up_to_cycle=1)
    np.testing.assert_array_equal(rewound["correctness"], found["correctness"][:61])


def test_envelopes_bound_the_runs(cleaning, pool):
    bounds = views.envelopes(cleaning.config, pool, 120).pivot(index="n_labels", columns="policy", values="mean")
    start = views.cleaning_curve(cleaning, pool)["correctness"][0]
    np.testing.assert_allclose(bounds.loc[0], start)
    assert bounds["oracle"].mean() > bounds["random"].mean()
    np.testing.assert_allclose(bounds["minimal"], np.minimum(1, start + np.arange(121) / 2 / 250))
    assert (bounds["minimal"] >= bounds["oracle"] - 1 / 250).all()


def test_summary_of_a_cleaning_run(cleaning, pool):
    found = views.summary(cleaning, pool)
    bounds = views.envelopes(cleaning.config, pool, 120).groupby("policy")["mean"].mean()
    assert found["auc"] == pytest.approx(views.cleaning_curve(cleaning, pool)["correctness"].mean())
    assert found["auc_normalised"] == pytest.approx(
        (found["auc"] - bounds["random"]) / (bounds["oracle"] - bounds["random"])
    )
    assert [c["cycle"] for c in found["cycles"]] == [0, 1, 2]


def test_summary_of_a_learning_run_is_a_trapezoid(learning, pool):
    found = views.summary(learning, pool)
    assert found["auc"] == pytest.approx(np.mean([c["accuracy"] for c in found["cycles"]]))
    assert found["auc_normalised"] is None


def test_samples_name_labels_and_kinds(cleaning, pool):
    table = views.samples(cleaning, pool, 0)
    truth = pool.label_counts.argmax(axis=1)
    for row in table.sample(20, random_state=0).itertuples():
        counts = pool.label_counts[row.Index] / pool.label_counts[row.Index].sum()
        unsure = -(counts[counts > 0] * np.log(counts[counts > 0])).sum() / np.log(10) > 0.30
        right = row.label == truth[row.Index]
        assert row.kind == ("correct" if right else "difficult" if unsure else "clear noise")
        assert row.given == pool.class_names[row.label]
        assert row.reference == pool.class_names[truth[row.Index]]


def test_unlabelled_samples_have_no_given_label_and_no_kind(learning, pool):
    table = views.samples(learning, pool, 0)
    unlabelled = table[table["status"] == "unlabelled"]
    assert len(unlabelled) == 220
    assert set(unlabelled["given"]) == {"—"}
    assert set(unlabelled["kind"]) == {""}


def test_what_each_cycle_changed(cleaning, pool):
    changes = views.cycle_changes(cleaning, pool)
    assert changes["labels"].tolist() == [250, 60, 60]
    before = cleaning.state(pool.ids, 0)[0].majority
    after = cleaning.state(pool.ids, 1)[0].majority
    assert changes["changed"].tolist()[:2] == [0, int((before != after).sum())]


def test_runs_that_differ_in_their_seed_belong_together(cleaning, second_seed, learning):
    assert second_seed.config.experiment != cleaning.config.experiment  # another number of cycles
    assert [one.id for one in views.comparable(cleaning)] == [second_seed.id]
    twin = dataclasses.replace(cleaning.config, seed=9)
    assert twin.experiment == cleaning.config.experiment


def test_a_default_cleaning_budget_is_the_same_for_all_seeds(pool):
    settings = {**TINY, "task": "label-cleaning", "method": "cleaning", "budget": 0, "cycles": 3}
    one, two = (tasks.prepare(Config(**settings, seed=s), pool) for s in (0, 1))
    assert one.experiment == two.experiment


def test_curves_average_seeds_as_far_as_all_go(cleaning, second_seed, pool):
    figure = views.figure(cleaning, pool, "curves", 2, [second_seed])
    (line,) = [trace for trace in figure.data if trace.name and "(run)" in trace.name]
    both = [views.cleaning_curve(one, pool)["correctness"] for one in (cleaning, second_seed)]
    assert max(line.x) == 60
    assert line.y[-1] == pytest.approx(100 * np.mean([curve[60] for curve in both]))
    assert "n = 2, seed 0, 1" in line.name


@pytest.mark.parametrize("name", ["curves", "distribution", "map"])
@pytest.mark.parametrize("which", ["cleaning", "learning"])
def test_every_figure_says_what_it_shows(which, name, pool, request):
    one = request.getfixturevalue(which)
    figure = views.figure(one, pool, name, 1)
    assert len(figure.data)
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text
    note = " ".join(a.text for a in figure.layout.annotations)
    assert one.id in note.replace("<br>", "")
    assert "simulated annotators" in note.replace("<br>", " ")


def test_the_cut_is_the_lowest_score_that_the_budget_takes(learning):
    table = learning.ranking(1)
    best = table[table["rank"] <= 30]
    assert views.next_cut(table, learning.config) == best["margin"].min()
    assert views.next_cut(table, dataclasses.replace(learning.config, budget=1000)) is None


def test_the_map_of_a_learning_run_uses_the_reference_label(learning, pool):
    table = views.with_noise_scores(learning, views.samples(learning, pool, 0), 0)
    probs = learning.posterior(0).astype(np.float64)
    truth = pool.label_counts.argmax(axis=1)
    np.testing.assert_allclose(table["cross-entropy"], -np.log(probs[np.arange(250), truth]), rtol=1e-6)


def test_nobody_knows_the_truth(pool):
    bare = dataclasses.replace(pool, label_counts=None, annotators="none")
    one = finished(bare, task="label-cleaning", method="cleaning", budget=0, cycles=1)
    assert views.cleaning_curve(one, bare).empty
    assert views.envelopes(one.config, bare, 10).empty
    assert views.summary(one, bare)["auc"] is None
    assert set(views.samples(one, bare, 0)["kind"]) == {""}
    figure = views.figure(one, bare, "curves", 0)
    assert figure.layout.yaxis.title.text == "Test accuracy (%)"
    assert views.areas([one], bare)["last"].iloc[0] == one.cycles()["accuracy"].iloc[0]


def test_correctness_of_the_last_cycle_is_the_end_of_the_curve(cleaning, pool):
    assert views.cleaning_curve(cleaning, pool)["correctness"].iloc[-1] == cleaning.cycles()["correctness"].iloc[-1]
    state, _, _ = cleaning.state(pool.ids)
    assert relabel.replay(np.array([0]), np.array([1]), (1, 2))[0].majority[0] == 1
    assert state.histogram.sum() == 250 + 120
