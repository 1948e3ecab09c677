"""What pages and exports show, against a replay of the log one event at a time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import data
from core.analysis import curves, figures, peers, policies, rankings, samples
from core.engine import loop
from core.runs import questions, run, same, settle, spec
from core.runs.spec import Config
from core.store import atomic
from data.errors import UserError

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
    made = run.create(settle.prepare(Config(**{**TINY, **settings}), pool), settle.about(pool))
    loop.work(made, pool)
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
    found = curves.cleaning_curve(cleaning, pool)
    np.testing.assert_allclose(found["correctness"], curve, atol=1e-12)
    assert found["n_labels"].tolist() == list(range(121))
    rewound = curves.cleaning_curve(cleaning, pool, up_to_cycle=1)
    np.testing.assert_array_equal(rewound["correctness"], found["correctness"][:61])


def test_envelopes_bound_the_runs(cleaning, pool):
    bounds = curves.envelopes(cleaning.config, pool, 120).pivot(index="n_labels", columns="policy", values="mean")
    start = curves.cleaning_curve(cleaning, pool)["correctness"][0]
    np.testing.assert_allclose(bounds.loc[0], start)
    assert bounds["oracle"].mean() > bounds["random"].mean()
    np.testing.assert_allclose(bounds["minimal"], np.minimum(1, start + np.arange(121) / 2 / 250))
    assert (bounds["minimal"] >= bounds["oracle"] - 1 / 250).all()


def test_summary_of_a_cleaning_run(cleaning, pool):
    found = curves.summary(cleaning, pool)
    bounds = curves.envelopes(cleaning.config, pool, 120).groupby("policy")["mean"].mean()
    assert found["auc"] == pytest.approx(curves.cleaning_curve(cleaning, pool)["correctness"].mean())
    assert found["auc_normalised"] == pytest.approx(
        (found["auc"] - bounds["random"]) / (bounds["oracle"] - bounds["random"])
    )
    assert [c["cycle"] for c in found["cycles"]] == [0, 1, 2]


def test_summary_of_a_learning_run_is_a_trapezoid(learning, pool):
    found = curves.summary(learning, pool)
    assert found["auc"] == pytest.approx(np.mean([c["accuracy"] for c in found["cycles"]]))
    assert found["auc_normalised"] is None


def test_samples_name_labels_and_kinds(cleaning, pool):
    table = samples.table(cleaning, pool, 0)
    truth = pool.label_counts.argmax(axis=1)
    for row in table.sample(20, random_state=0).itertuples():
        counts = pool.label_counts[row.Index] / pool.label_counts[row.Index].sum()
        unsure = -(counts[counts > 0] * np.log(counts[counts > 0])).sum() / np.log(10) > 0.30
        right = row.label == truth[row.Index]
        assert row.kind == ("correct" if right else "difficult" if unsure else "clear noise")
        assert row.given == pool.class_names[row.label]
        assert row.reference == pool.class_names[truth[row.Index]]


def test_unlabelled_samples_have_no_given_label_and_no_kind(learning, pool):
    table = samples.table(learning, pool, 0)
    unlabelled = table[table["status"] == "unlabelled"]
    assert len(unlabelled) == 220
    assert set(unlabelled["given"]) == {"—"}
    assert set(unlabelled["kind"]) == {""}


def test_what_each_cycle_changed(cleaning, pool):
    changes = curves.cycle_changes(cleaning, pool)
    assert changes["labels"].tolist() == [250, 60, 60]
    before = cleaning.state(pool.ids, 0)[0].majority
    after = cleaning.state(pool.ids, 1)[0].majority
    assert changes["changed"].tolist()[:2] == [0, int((before != after).sum())]


def test_runs_that_differ_in_their_seed_belong_together(cleaning, second_seed, learning):
    assert peers.same_experiment(cleaning) == []  # another number of cycles
    assert [one.id for one in peers.comparable(cleaning)] == [second_seed.id]
    twin = dataclasses.replace(cleaning.config, seed=9)
    assert spec.deciding(twin, *same.EXPERIMENT) == spec.deciding(cleaning.config, *same.EXPERIMENT)


def test_a_default_cleaning_budget_is_the_same_for_all_seeds(pool):
    settings = {**TINY, "task": "label-cleaning", "method": "cleaning", "budget": 0, "cycles": 3}
    one, two = (settle.prepare(Config(**settings, seed=s), pool) for s in (0, 1))
    assert spec.deciding(one, *same.EXPERIMENT) == spec.deciding(two, *same.EXPERIMENT)


def test_curves_average_seeds_as_far_as_all_go(cleaning, second_seed, pool):
    figure = figures.figure(cleaning, pool, "curves", 2, [second_seed])
    (line,) = [trace for trace in figure.data if trace.name and "(run)" in trace.name]
    both = [curves.cleaning_curve(one, pool)["correctness"] for one in (cleaning, second_seed)]
    assert max(line.x) == 60
    assert line.y[-1] == pytest.approx(100 * np.mean([curve[60] for curve in both]))
    assert "n = 2, seed 0, 1" in line.name


@pytest.mark.parametrize("name", ["curves", "distribution", "map", "embedding"])
@pytest.mark.parametrize("which", ["cleaning", "learning"])
def test_every_figure_says_what_it_shows(which, name, pool, request):
    one = request.getfixturevalue(which)
    figure = figures.figure(one, pool, name, 1)
    assert len(figure.data)
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text
    note = " ".join(a.text for a in figure.layout.annotations)
    assert one.id in note.replace("<br>", "")
    assert ("reference labels" if which == "learning" else "simulated annotators") in note.replace("<br>", " ")


def test_a_ranking_of_before_has_no_embedding_map(learning, pool):
    table = samples.table(learning, pool, 1).drop(columns=["map-x", "map-y"])
    with pytest.raises(UserError, match="has no embedding map: it was scored by an earlier version"):
        figures.embedding_map(learning, table, "margin", "Margin", 1)


def test_the_cut_is_the_lowest_score_that_the_budget_takes(learning):
    table = learning.ranking(1)
    best = table[table["rank"] <= 30]
    assert rankings.next_cut(table, learning.config) == best["margin"].min()
    assert rankings.next_cut(table, dataclasses.replace(learning.config, budget=1000)) is None


def test_the_map_of_a_learning_run_uses_the_reference_label(learning, pool):
    table = samples.with_noise_scores(learning, samples.table(learning, pool, 0), 0)
    probs = learning.posterior(0).astype(np.float64)
    truth = pool.label_counts.argmax(axis=1)
    np.testing.assert_allclose(table["cross-entropy"], -np.log(probs[np.arange(250), truth]), rtol=1e-6)


def test_nobody_knows_the_truth(pool):
    bare = dataclasses.replace(pool, label_counts=None, annotators="none")
    one = finished(bare, task="label-cleaning", method="cleaning", budget=0, cycles=1)
    assert curves.cleaning_curve(one, bare).empty
    assert curves.envelopes(one.config, bare, 10).empty
    assert curves.summary(one, bare)["auc"] is None
    assert set(samples.table(one, bare, 0)["kind"]) == {""}
    figure = figures.figure(one, bare, "curves", 0)
    assert figure.layout.yaxis.title.text == "Share (%)"
    assert curves.areas([one], bare)["last"].iloc[0] == one.cycles()["accuracy"].iloc[0]


def test_correctness_of_the_last_cycle_is_the_end_of_the_curve(cleaning, pool):
    assert curves.cleaning_curve(cleaning, pool)["correctness"].iloc[-1] == cleaning.cycles()["correctness"].iloc[-1]
    state, _, _ = cleaning.state(pool.ids)
    assert state.histogram.sum() == 250 + 120


TRUTH = np.array([[20, 0], [11, 9], [11, 9], [0, 20]])  # people agree on "a" and "d" alone


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A home of its own, for runs that nobody trained."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def four():
    """Four images of two classes: "a" and "b" and "c" show cats, "d" a dog."""
    images = np.zeros((4, 8, 8, 1), dtype=np.uint8)
    labels = TRUTH.argmax(axis=1)
    return data.ImageDataset(
        "four", list("abcd"), images, labels, TRUTH, ["cat", "dog"], images, labels, "simulated", "by hand"
    )


def made(dataset, /, task="label-cleaning", scored=(), **changes):
    """A run that nobody trained; `scored` gives the result of each cycle."""
    settings = {"dataset": "fashion", "method": "cleaning", "budget": 3, "cycles": 2, "noise": 0.15, "temperature": 2.0}
    one = run.create(Config(task, **{**settings, **changes}), settle.about(dataset))
    for number, result in enumerate(scored):
        one.log.finish(number, "score", 1.0, result)
    return one


def logged(four):
    """Initially "a" is wrong. Cycle 1 asks for "a" twice and "b" once; cycle 2 makes a tie of "c" and confirms "d"."""
    one = made(four)
    for number, (ids, labels) in enumerate((("abcd", [1, 0, 0, 1]), ("aab", [0, 0, 0]), ("cd", [1, 1]))):
        one.log.append(number, list(ids), np.array(labels), ["votes"] * len(ids), 0.5)
        one.log.finish(number, "train", 10.0 + number, {})
    one.log.finish(0, "score", 2.0, {"n_labels": 0})
    return one


def test_cleaning_curve_by_hand(elsewhere, four):
    found = curves.cleaning_curve(logged(four), four)
    assert found["correctness"].tolist() == [0.75, 0.75, 1, 1, 1, 1]  # one vote ties "a", the second turns it
    assert list(found.columns) == ["run", "method", "seed", "n_labels", "correctness"]


def test_cycle_changes_by_hand(elsewhere, four):
    found = curves.cycle_changes(logged(four), four)
    assert found[["cycle", "labels", "samples", "changed"]].values.tolist() == [
        [0, 4, 4, 0],
        [1, 3, 2, 1],
        [2, 2, 2, 0],
    ]
    assert found["training_s"].tolist() == [10, 11, 12]
    assert found["scoring_s"].isna().tolist() == [False, True, True]  # only the first was scored


def test_learning_curve_has_one_row_a_run_and_cycle(elsewhere, four):
    scored = [{"n_labels": 10, "accuracy": 0.2, "gap": 0.1}, {"n_labels": 40, "accuracy": 0.8, "gap": 0.0}]
    one, two = (made(four, "active-learning", scored[: 2 - seed], method="margin", seed=seed) for seed in (0, 1))
    found = curves.learning_curve([one, made(four, "active-learning", method="egl"), two])
    assert found.values.tolist() == [
        [one.id, "margin", 0, 0, 10, 0.2, 0.1],
        [one.id, "margin", 0, 1, 40, 0.8, 0.0],
        [two.id, "margin", 1, 0, 10, 0.2, 0.1],
    ]
    assert list(curves.learning_curve([]).columns) == list(found.columns)


def test_the_area_of_a_learning_run_weighs_cycles_by_their_labels(elsewhere, four):
    """(0.3 · 10 + 0.6 · 30) / 40; the plain mean would be 0.467."""
    accuracies = {10: 0.2, 20: 0.4, 50: 0.8}
    one = made(
        four, "active-learning", [{"n_labels": n, "accuracy": a} for n, a in accuracies.items()], method="margin"
    )
    assert curves.summary(one, four)["auc"] == pytest.approx(0.525)
    assert curves.summary(made(four, "active-learning", method="margin"), four)["auc"] is None


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_normalised_area_is_0_for_the_random_bound_and_1_for_the_oracle(cleaning, pool, monkeypatch, share):
    bounds = curves.envelopes(cleaning.config, pool, 120).pivot(index="n_labels", columns="policy", values="mean")
    between = (1 - share) * bounds["random"] + share * bounds["oracle"]
    monkeypatch.setattr(curves, "cleaning_curve", lambda *_: between.rename("correctness").reset_index())
    assert curves.summary(cleaning, pool)["auc_normalised"] == pytest.approx(share, abs=1e-9)


def ranked(labels):
    """The ranking of four images, by their labels, as far as the names and the reference need it."""
    places = pd.array([1, 2, 3, 4], dtype="Int64")
    return pd.DataFrame({"sample_id": list("abcd"), "rank": places, "label": labels, "suggested": [0, 1, 0, 1]})


@pytest.mark.parametrize("task", questions.TASKS)
def test_samples_by_hand(elsewhere, four, task):
    """Wrong on a clear image, wrong on an ambiguous one, right on an ambiguous one, and no label yet."""
    one = made(four, task)
    ranking = ranked([1, 1, 0, -1])
    atomic.write_table(one.cycle_path(0) / "ranking.parquet", ranking)
    found = samples.table(one, four, 0)
    assert found["given"].tolist() == ["dog", "dog", "cat", "—"]
    assert found["suggested"].tolist() == ["cat", "dog", "cat", "dog"]
    assert found["reference"].tolist() == ["cat", "cat", "cat", "dog"]
    assert found["kind"].tolist() == ["clear noise", "difficult", "correct", ""]


def test_another_reference_is_another_table(elsewhere, four):
    """The table is kept on disk, by what it was made of."""
    one = made(four)
    atomic.write_table(one.cycle_path(0) / "ranking.parquet", ranked([1, 1, 0, 0]))
    assert samples.table(one, four, 0)["reference"].tolist() == ["cat", "cat", "cat", "dog"]
    turned = dataclasses.replace(four, label_counts=TRUTH[:, ::-1].copy())
    assert samples.table(one, turned, 0)["reference"].tolist() == ["dog", "dog", "dog", "cat"]


def test_a_ranking_is_read_without_its_posterior_and_has_its_scores_when_that_is_back(elsewhere, four):
    one = made(four, "active-learning", method="margin", noise=0.0, temperature=None)
    atomic.write_table(one.cycle_path(0) / "ranking.parquet", ranked([1, 1, 0, -1]))
    assert samples.table(one, four, 0)["given"].tolist() == ["dog", "dog", "cat", "—"]
    assert samples.of_cycle(one, four, 0).table("cleaning")["cleaning"].isna().all()
    with pytest.raises(UserError, match="no readable predicted probabilities"):
        figures.figure(one, four, "map", 0)
    atomic.write_array(one.cycle_path(0) / "posterior.npy", np.full((4, 2), 0.5, dtype=np.float32))
    assert samples.of_cycle(one, four, 0).table("cleaning")["cleaning"].notna().all()


def test_labels_that_people_check_are_no_reference(elsewhere, four):
    one = made(four, "label-cleaning", annotator="person", noise=0.0, temperature=None)
    ranking = ranked([1, 1, 0, 0])
    atomic.write_table(one.cycle_path(0) / "ranking.parquet", ranking)
    found = samples.table(one, four, 0)
    assert set(found["reference"]) == {"—"}
    assert set(found["kind"]) == {""}


def test_without_votes_learning_takes_the_reference_labels_and_leaves_out_what_has_none(elsewhere, four):
    bare = dataclasses.replace(four, label_counts=None, labels=np.array([0, -1, 1, 1]), annotators="none")
    one = made(bare, "active-learning", method="margin", noise=0.0, temperature=None)
    ranking = ranked([0, -1, -1, -1])
    atomic.write_table(one.cycle_path(0) / "ranking.parquet", ranking)
    probs = np.array([[0.9, 0.1], [0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
    atomic.write_array(one.cycle_path(0) / "posterior.npy", probs.astype(np.float32))
    table = samples.table(one, bare, 0)
    assert table["reference"].tolist() == ["cat", "—", "dog", "dog"]
    assert set(table["kind"]) == {""}
    scored = samples.with_noise_scores(one, table, 0)
    assert scored["sample_id"].tolist() == ["a", "c", "d"]
    assert scored.index.tolist() == [0, 2, 3]  # still the rows of the pool, which selections on the map name
    np.testing.assert_allclose(scored["cross-entropy"], -np.log([0.9, 0.25, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(scored["cleaning"].iloc[2], 0, atol=1e-6)  # CE = H = ln 2


def test_areas_have_one_row_a_run(cleaning, second_seed, learning, pool):
    found = curves.areas([cleaning, second_seed, learning], pool)
    assert found["run"].tolist() == [cleaning.id, second_seed.id, learning.id]
    assert found["seed"].tolist() == [0, 1, 0]
    assert found["n_labels"].tolist() == [120, 60, 60]
    ends = (cleaning.cycles()["correctness"], second_seed.cycles()["correctness"], learning.cycles()["accuracy"])
    assert found["last"].tolist() == [end.iloc[-1] for end in ends]
    assert found["auc"].tolist() == [curves.summary(one, pool)["auc"] for one in (cleaning, second_seed, learning)]
    assert found["auc_normalised"].isna().tolist() == [False, False, True]


def test_which_runs_belong_to_one(elsewhere, four):
    """A damaged configuration hides a run and breaks nothing; what has not finished a cycle cannot be compared."""
    scored = [{"n_labels": 0, "correctness": 0.5}]
    one, twin = (made(four, scored=scored, seed=seed) for seed in (0, 1))
    other_score = made(four, scored=scored, method="cross-entropy")
    made(four, seed=2)  # waiting: it would cut the mean curve to nothing
    made(four, scored=scored, task="active-learning", method="margin")
    simulated = made(four, scored=scored, seed=4, annotator="simulated")  # as ever where the votes are known
    damaged = made(four, scored=scored, seed=3)
    (damaged.path / "config.json").write_text("{")
    assert {found.id for found in peers.same_experiment(one)} == {twin.id, simulated.id}
    assert {found.id for found in peers.comparable(one)} == {twin.id, other_score.id, simulated.id}


@pytest.mark.parametrize(
    "other",
    [
        {"noise": 0.3},
        {"noise_kind": "instance"},
        {"temperature": 10.0},
        {"limit": 100},
        {"classes": ["cat", "dog", "bird"]},
        {"labels": "/tables/second.csv"},
        {"votes": "/tables/votes.csv"},
        {"annotator": "person"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_runs_on_other_data_or_other_noise_are_not_drawn_between_the_same_envelopes(elsewhere, four, other):
    scored = [{"n_labels": 0, "correctness": 0.5}]
    one = made(four, scored=scored)
    made(four, scored=scored, method="cross-entropy", **other)
    assert peers.comparable(one) == []


def test_the_arms_of_a_study_are_drawn_together_where_their_noise_is_the_same(elsewhere, four):
    scored = [{"n_labels": 0, "correctness": 0.5}]
    one, other = (made(four, scored=scored, study="noises", method=name) for name in ("cleaning", "random"))
    made(four, scored=scored, study="noises", method="graph", noise_kind="instance")
    assert peers.of_study(one) == [other]


def test_folders_are_told_apart_by_their_place_and_named_data_sets_are_not(elsewhere, four):
    scored = [{"n_labels": 0, "correctness": 0.5}]
    one, moved = (made(four, scored=scored, root=root) for root in (None, "/other/copy"))
    assert peers.comparable(one) == [moved]
    mine, same, other = (made(four, scored=scored, dataset="folder", root=root) for root in ("/cats", "/cats", "/dogs"))
    assert peers.comparable(mine) == [same]
    with pytest.raises(UserError, match=r"differ in their data or their noise \(root\)"):
        policies.comparable([mine, other])


@pytest.mark.parametrize("which", ["cleaning", "learning"])
def test_a_seed_that_has_not_begun_does_not_disturb_the_curve(which, pool, request, elsewhere):
    one = request.getfixturevalue(which)
    waiting = run.create(dataclasses.replace(one.config, seed=7), one.about)
    alone, beside = (figures.figure(one, pool, "curves", 1, others).data[-1] for others in ([], [waiting]))
    assert alone.name == beside.name
    np.testing.assert_array_equal(alone.y, beside.y)


def test_disagreement_is_the_distance_between_two_places(cleaning, pool):
    table = rankings.disagreement(cleaning, pool, 0, "cleaning", "entropy")
    ranking = cleaning.ranking(0)
    ranked = ranking[ranking["rank"].notna()]

    def place(row, name):
        better = (ranked[name] > ranked[name][row]).sum() + ((ranked[name] == ranked[name][row]).sum() - 1) / 2
        return better / (len(ranked) - 1)

    for row in table.index[:5]:
        plain = abs(place(row, "cleaning") - place(row, "entropy"))
        assert table["apart"][row] == pytest.approx(plain)
    assert table["apart"].is_monotonic_decreasing
    assert {"cleaning", "entropy", "self-confidence"} <= set(rankings.rankings_beside(cleaning, 0))
