"""Runs whose labels people give: what counts, what is estimated, and that votes survive and are never doubled."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

import data
from core.__main__ import main
from core.analysis import curves, figures, labelling, measures, samples
from core.engine import evaluation, loop
from core.engine.learner import Learner
from core.files import handout
from core.runs import annotation, audit, questions, run, settle, spec
from core.runs.spec import Config
from data import votes
from data.annotations import Annotations
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 120, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def pool():
    """Images with labels that nobody vouches for."""
    found = data.load("fashion", limit=120)
    return dataclasses.replace(found, label_counts=None, annotators="none")


@pytest.fixture(scope="module")
def waiting(tmp_path_factory, pool):
    """A home with a run on these images, and one with a run on the votes of three people; each test works on a copy."""
    homes = []
    for images in (pool, voted_by_three(pool)):
        homes.append(tmp_path_factory.mktemp("waiting"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NEXTLABEL_HOME", str(homes[-1]))
            begun(images)
    return homes


def copied(waiting, home) -> run.Run:
    shutil.copytree(waiting, home)
    return run.all_runs()[0]


@pytest.fixture
def one(home, waiting):
    return copied(waiting[0], home)


def begun(pool, method="cleaning") -> run.Run:
    config = Config(task="label-cleaning", method=method, budget=0, cycles=2, **TINY)
    found = run.create(settle.prepare(config, pool), settle.about(pool))
    loop.work(found, pool)
    return found


def other(label: int, by: int = 1) -> int:
    return (label + by) % 10


def test_without_anybody_to_simulate_a_run_ranks_once_and_claims_nothing_in_sample(one, pool):
    """A model that has learnt the labels agrees with the wrong ones: what it says of them is shown nowhere."""
    assert one.config.annotator == "person"
    (row,) = one.cycles().to_dict("records")
    assert "estimated_correctness" not in row
    assert "agreement" not in row
    assert "correctness" not in row
    assert len(curves.envelopes(one.config, pool, 10)) == 0


@pytest.fixture
def truth(pool):
    """Right labels, and a pool of which a fifth has wrong ones."""
    given = votes.symmetric_noise(pool.labels, 10, 0.2, seed=0)
    return pool.labels, dataclasses.replace(pool, labels=given)


def test_whoever_follows_the_queue_gets_an_estimate_whose_interval_holds_the_truth(home, truth):
    """And before that what an out-of-fold model agrees with, which is not called the share of right labels."""
    right, doubtful = truth
    found, _ = settle.settle({"task": "label-cleaning", "method": "cleaning", **TINY}, lambda config: doubtful)
    assert found.folds == settle.PEOPLES_FOLDS
    one = run.create(dataclasses.replace(found, folds=2), settle.about(doubtful))
    loop.work(one, doubtful)
    (first,) = one.cycles().to_dict("records")
    assert 0 <= first["agreement"] <= 1
    assert list(measures.measures(one.config, pd.Series(first))) == ["agreement", "accuracy"]
    table = samples.table(one, doubtful, 0)
    for _ in range(100):
        row = annotation.desk(one, table, "ann").queue[0]
        annotation.record(one, [doubtful.ids[row]], right[[row]], ["ann"])
    one.log.set_fact("target", 2)
    loop.work(one, doubtful)
    last = one.cycles().iloc[1]
    standing = one.state(doubtful.ids)[0].majority
    assert last["checked_at_random"] >= measures.FEWEST
    assert last["estimated_low"] <= (standing == right).mean() <= last["estimated_high"]
    shown = measures.measures(one.config, last)["estimated_correctness"]
    assert not shown.certain
    assert "to" in shown.interval
    assert "random order" in shown.note
    figure = figures.figure(one, doubtful, "curves", 1)
    (estimate,) = [trace for trace in figure.data if "estimated" in trace.name]
    assert estimate.error_y.array[0] == pytest.approx(100 * (last["estimated_high"] - last["estimated_correctness"]))


def test_what_is_handed_to_label_studio_is_the_queue_of_the_page_annotate(one, pool, tmp_path):
    handout.label_studio(one, pool, 0, tmp_path / "out", top=30)
    tasks_ = json.loads((tmp_path / "out" / "tasks.json").read_text())
    queue = annotation.desk(one, samples.table(one, pool, 0), "ann").queue[:30]
    assert [task["data"]["sample_id"] for task in tasks_] == [pool.ids[row] for row in queue]
    served = [task["predictions"][0]["score"] for task in tasks_]
    assert served == sorted(served)
    assert pool.ids[audit.order(len(pool), 0)[0]] in {task["data"]["sample_id"] for task in tasks_}


def test_an_in_sample_estimate_of_an_earlier_version_is_no_headline(one):
    row = pd.Series({"n_labels": 0, "estimated_correctness": 0.981, "accuracy": 0.8})
    assert list(measures.measures(one.config, row)) == ["accuracy"]


def test_a_test_set_of_the_folders_own_labels_is_called_noisy(pool):
    checked = Config("label-cleaning", "folder", "cleaning", 0, 1, annotator="person")
    assert measures.measure_title("accuracy", checked) == "Test accuracy, noisy labels"
    measure = measures.measures(checked, pd.Series({"accuracy": 0.8}))["accuracy"]
    assert (measure.certain, measure.note) == (False, measures.NOISY_TEST)
    learnt = dataclasses.replace(checked, task="active-learning")
    assert measures.measure_title("accuracy", learnt) == "Test accuracy"


def test_exports_hold_the_annotations_that_no_training_has_seen(one, pool):
    """99 votes, and "0 changed": the labels in the file are those that stand now."""
    new = np.array([other(label) for label in pool.labels[:9]])
    annotation.record(one, pool.ids[:9], new, ["ann"] * 9)
    table = labelling.cleaned(one, pool, 0)
    assert table["changed"].sum() == 9
    assert table["label"][:9].tolist() == new.tolist()
    assert table["n_untrained"].tolist() == [1] * 9 + [0] * 111
    assert labelling.untrained_text(one, 0) == "9 annotations since the last training are exported too."
    assert labelling.untrained_text(one, 0, "not counted here").endswith("are not counted here.")
    assert labelling.issues(one, pool, 0)["given_label"][:9].tolist() == new.tolist()
    assert labelling.issues(one, pool, 0)["status"][:9].tolist() == ["cleaned"] * 9
    one.log.set_fact("target", 2)
    loop.work(one, pool)
    assert labelling.untrained_text(one, 1) == ""
    assert labelling.cleaned(one, pool, 1)["changed"].sum() == 9
    assert labelling.cleaned(one, pool, 0)["changed"].sum() == 0  # as it was then


def test_the_first_person_takes_the_place_of_a_label_that_came_with_the_data(one, pool):
    new = other(pool.labels[0])
    assert annotation.record(one, [pool.ids[0]], np.array([new]), ["ann"]) == 1
    state, _, _ = one.state(pool.ids)
    assert state.majority[0] == new
    assert state.histogram[0].sum() == 1
    assert state.cleaned[0]


def test_people_who_disagree_leave_a_tie_until_a_third_decides(one, pool):
    a, b = other(pool.labels[0]), other(pool.labels[0], by=2)
    annotation.record(one, [pool.ids[0]] * 2, np.array([a, b]), ["ann", "bob"])
    state, _, _ = one.state(pool.ids)
    assert state.tied[0]
    assert state.majority[0] == -1  # neither the one who was first nor the label that came with the data
    annotation.record(one, [pool.ids[0]], np.array([b]), ["cy"])
    state, _, _ = one.state(pool.ids)
    assert (state.majority[0], state.tied[0], state.cleaned[0]) == (b, False, True)


def test_whoever_votes_again_replaces_the_own_vote(one, pool):
    a, b = other(pool.labels[3]), other(pool.labels[3], by=2)
    annotation.record(one, [pool.ids[3]], np.array([a]), ["ann"])
    annotation.record(one, [pool.ids[3]], np.array([b]), ["ann"])
    state, _, events = one.state(pool.ids)
    assert state.histogram[3].tolist() == np.eye(10, dtype=int)[b].tolist()
    assert len(events) == 122  # the log keeps both


def test_the_same_file_may_be_brought_in_twice(one, pool):
    ids, labels, who = [pool.ids[0], pool.ids[1]], np.array([1, 2]), ["ann", "ann"]
    assert annotation.record(one, ids, labels, who) == 2
    assert annotation.record(one, ids, labels, who) == 0


def test_the_next_cycle_trains_on_what_people_said(one, pool):
    with pytest.raises(UserError, match="Nobody has given a label"):
        annotation.check_step(one)
    annotation.record(one, pool.ids[:20], np.array([other(label) for label in pool.labels[:20]]), ["ann"] * 20)
    annotation.check_step(one)
    one.log.set_fact("target", 2)
    loop.work(one, pool)
    assert one.cycles()["n_labels"].tolist() == [0, 20]
    assert (one.ranking(1)["status"][:20] == "cleaned").all()
    assert one.ranking(1)["rank"][:20].isna().all()
    table = samples.relabels(one, pool)
    assert table["source"].unique().tolist() == ["person: ann"]
    assert (table["kind"] == "").all()
    assert len(table) == 20


def test_votes_of_several_people_are_the_labels_to_start_from(one, pool):
    rows, labels = np.array([0, 0, 0, 5]), np.array([3, 4, 4, 7])
    voted = dataclasses.replace(
        pool,
        labels=np.where(np.isin(np.arange(120), [0]), -1, pool.labels),
        annotations=Annotations(rows, labels, ["ann", "bob", "cy", "ann"]),
    )
    found = begun(voted)
    state, _, events = found.state(voted.ids, 0)
    assert (state.majority[0], state.histogram[0].sum()) == (4, 3)
    assert (state.majority[5], state.histogram[5].sum()) == (7, 1)
    assert state.majority[1] == pool.labels[1]
    assert not state.cleaned.any()
    assert not state.tied.any()
    assert len(events) == 118 + 4


PEOPLE = ["ann", "bob", "cy"]


def voted_by_three(pool, order=(0, 1, 2)):
    """Three people's votes on each image, in this order of annotators: on images 0 to 9 three answers, on 10 to 19 two to one."""
    said = np.repeat(pool.labels[:, None], 3, axis=1)
    said[:10, 1:] = (said[:10, 1:] + [1, 2]) % 10
    said[10:20, 0] = other(said[10:20, 0])
    labels, names = said[:, list(order)], [PEOPLE[k] for k in order]
    return dataclasses.replace(
        pool, annotations=Annotations(np.repeat(np.arange(120), 3), labels.ravel(), names * len(pool))
    )


@pytest.fixture
def three(home, waiting, pool):
    """A run on the votes of three people, and its images."""
    return copied(waiting[1], home), voted_by_three(pool)


def test_first_votes_that_tie_are_no_label_and_come_first_in_the_ranking(three):
    found, voted = three
    state, _, _ = found.state(voted.ids, 0)
    assert np.flatnonzero(state.tied).tolist() == list(range(10))
    assert (state.majority[:10] == -1).all()
    assert state.majority[10:].tolist() == voted.labels[10:].tolist()
    table = found.ranking(0)
    assert table["status"].tolist() == ["tied"] * 10 + ["labelled"] * 110
    assert sorted(table["rank"][:10]) == list(range(1, 11))
    assert found.cycles()["tied"].tolist() == [10]


@pytest.mark.parametrize("method", spec.scores()[:-1])  # the oracle knows what people do not
def test_ties_come_first_by_any_score_and_among_themselves_by_it(home, pool, method):
    voted = voted_by_three(pool)
    table = begun(voted, method).ranking(0)
    for part, first in ((table[:10], 1), (table[10:], 11)):
        by_score = part.sort_values(method, ascending=False, kind="stable")["rank"].tolist()
        assert by_score == list(range(first, first + len(part)))


def test_no_model_is_trained_on_a_tie(home, pool, monkeypatch):
    seen, train = [], Learner.train

    def spy(self, folder, cycle, rows, labels, **more):
        seen.append((rows.tolist(), labels.tolist()))
        return train(self, folder, cycle, rows, labels, **more)

    monkeypatch.setattr(Learner, "train", spy)
    voted = voted_by_three(pool)
    begun(voted)
    assert seen == [(list(range(10, 120)), voted.labels[10:].tolist())]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (2, 0, 1)])
def test_the_order_of_the_annotators_changes_nothing(three, pool, order):
    found, voted = three
    again = voted_by_three(pool, order)
    second = begun(again)
    pd.testing.assert_frame_equal(second.ranking(0), found.ranking(0))
    for name in ("weights.safetensors", "posterior.npy"):
        assert (second.cycle_path(0) / name).read_bytes() == (found.cycle_path(0) / name).read_bytes()
    for export in (labelling.cleaned, labelling.issues):
        pd.testing.assert_frame_equal(export(second, again, 0), export(found, voted, 0))


def test_a_tie_is_exported_without_a_label(three):
    found, voted = three
    labels, suspected = labelling.cleaned(found, voted, 0)[:11], labelling.issues(found, voted, 0)[:11]
    assert labels["label"].tolist() == [-1] * 10 + [voted.labels[10]]
    assert labels["name"].tolist() == ["—"] * 10 + [voted.class_names[voted.labels[10]]]
    assert labels["status"].tolist() == suspected["status"].tolist() == ["tied"] * 10 + ["labelled"]
    assert suspected["is_label_issue"][:10].all()
    assert suspected["label_score"][:10].tolist() == [0.0] * 10


def test_an_image_says_that_it_is_tied(three):
    found, voted = three
    table = samples.table(found, voted, 0)
    assert table["given"][:10].tolist() == ["—"] * 10
    said = found.answer.reason(table.iloc[0])
    assert said.startswith("tied (3 annotations), so that no label stands; the model says")
    assert "labelled" in found.answer.reason(table.iloc[10])


def test_classifiers_learn_from_no_tie_either(three, monkeypatch):
    found, voted = three
    seen = []
    monkeypatch.setattr(evaluation, "_accuracy", lambda learner, folder, rows, labels: seen.append(rows) or 0.5)
    evaluation.evaluate(found, voted, found.config, "before", seed=0)
    assert seen[0].tolist() == list(range(10, 120))


def test_one_more_vote_settles_a_tie_or_it_does_not(three):
    found, voted = three
    settled, open_ = other(voted.labels[0]), other(voted.labels[1], by=5)
    annotation.record(found, voted.ids[:2], np.array([settled, open_]), ["dora", "dora"])
    state, _, _ = found.state(voted.ids)
    assert state.status[:3].tolist() == ["cleaned", "tied", "tied"]
    assert state.majority[:3].tolist() == [settled, -1, -1]
    assert state.histogram[:3].sum(axis=1).tolist() == [4, 4, 3]  # votes add up, and none takes another's place
    found.log.set_fact("target", 2)
    loop.work(found, voted)
    assert found.ranking(1)["status"][:3].tolist() == ["cleaned", "tied", "tied"]
    assert sorted(found.ranking(1)["rank"][1:10]) == list(range(1, 10))
    table = samples.relabels(found, voted).set_index("sample_id")
    assert table.loc[voted.ids[0], ["before", "after", "formed"]].tolist() == ["—", voted.class_names[settled], True]
    assert table.loc[voted.ids[1], ["before", "after", "formed"]].tolist() == ["—", "—", False]
    assert found.cycles()["tied"].tolist() == [10, 9]


def test_a_vote_against_a_majority_of_two_leaves_a_tie(three):
    found, voted = three
    annotation.record(found, [voted.ids[10]], np.array([other(voted.labels[10])]), ["dora"])
    state, _, _ = found.state(voted.ids)
    assert (state.status[10], state.majority[10]) == ("tied", -1)


def test_the_order_in_which_people_answered_changes_no_label(one, pool):
    labels = {"ann": other(pool.labels[0]), "bob": other(pool.labels[0], by=2)}
    for row, names in enumerate((["ann", "bob"], ["bob", "ann"])):
        annotation.record(one, [pool.ids[row]] * 2, np.array([labels[name] for name in names]), names)
    state, _, _ = one.state(pool.ids)
    assert state.majority[:2].tolist() == [-1, -1]


def test_where_all_first_votes_tie_nothing_is_started(home, pool):
    voted = dataclasses.replace(
        pool, annotations=Annotations(np.repeat(np.arange(120), 2), np.tile([3, 4], 120), ["ann", "bob"] * 120)
    )
    with pytest.raises(UserError, match="tie on all 120 images"):
        begun(voted)


def test_simulated_runs_take_no_labels_from_people(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    voted = data.load("fashion", limit=120)
    config = Config(task="label-cleaning", method="cleaning", budget=5, cycles=1, **TINY)
    found = run.create(settle.prepare(config, voted), settle.about(voted))
    with pytest.raises(UserError, match="simulates its annotators"):
        annotation.record(found, [voted.ids[0]], np.array([1]), ["ann"])


def test_labels_before_the_first_ranking_are_refused(tmp_path, monkeypatch, pool):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    config = Config(task="label-cleaning", method="cleaning", budget=0, cycles=1, **TINY)
    found = run.create(settle.prepare(config, pool), settle.about(pool))
    with pytest.raises(UserError, match="no ranking yet"):
        annotation.record(found, [pool.ids[0]], np.array([1]), ["ann"])


def learning(pool, **settings) -> run.Run:
    config = Config(
        task="active-learning", method="margin", budget=10, cycles=4, annotator="person", **TINY, **settings
    )
    return run.create(settle.prepare(config, pool), settle.about(pool))


@pytest.fixture
def unlabelled(pool):
    """Images without any label, nor a test set."""
    return dataclasses.replace(
        pool, labels=np.full(120, -1), test_images=pool.test_images[:0], test_labels=pool.test_labels[:0]
    )


def test_active_learning_starts_from_some_labels_and_waits_for_people(home, pool):
    found = learning(pool, initial=30)
    loop.work(found, pool)
    assert found.cycles()["n_labels"].tolist() == [30]
    assert found.status()[0] == "finished"
    with pytest.raises(UserError, match="Nobody has given a label"):
        annotation.check_step(found)
    asked = found.ranking(0).sort_values("rank")["sample_id"].iloc[:5].tolist()
    annotation.record(found, asked, np.zeros(5, dtype=np.int64), ["ann"] * 5)
    annotation.check_step(found)
    found.log.set_fact("target", 2)
    loop.work(found, pool)
    assert found.cycles()["n_labels"].tolist() == [30, 35]
    last = found.ranking(1).set_index("sample_id")
    assert last.loc[asked, "rank"].isna().all()
    assert (last.loc[asked, "label"] == 0).all()
    assert found.log.labels()["source"].value_counts().to_dict() == {"given": 30, "person: ann": 5}


def test_the_whole_pool_may_be_labelled(home, pool):
    found = learning(pool, initial=110)
    loop.work(found, pool)
    asked = found.ranking(0).dropna(subset="rank")["sample_id"].tolist()
    annotation.record(found, asked, np.zeros(10, dtype=np.int64), ["ann"] * 10)
    found.log.set_fact("target", 2)
    loop.work(found, pool)
    assert found.cycles()["n_labels"].tolist() == [110, 120]
    assert found.ranking(1)["rank"].isna().all()


def test_without_any_label_people_give_the_first(home, unlabelled, capsys):
    found = learning(unlabelled)
    with pytest.raises(loop.Waiting, match="its labels are of 0 classes"):
        loop.work(found, unlabelled)
    assert found.status()[0] == "stopped"
    assert "waits for people" in found.status()[1]
    assert found.waits_for_labels("stopped")
    assert main(["list"]) == 0
    assert f"{found.id}  active-learning  waits for labels  0 cycles" in capsys.readouterr().out
    annotation.record(found, unlabelled.ids[:2], np.array([4, 4]), ["ann", "ann"])
    with pytest.raises(UserError, match="no labels of two classes"):
        annotation.check_step(found)
    annotation.record(found, unlabelled.ids[2:3], np.array([5]), ["bob"])
    annotation.check_step(found)
    loop.work(found, unlabelled)
    assert found.cycles()["n_labels"].tolist() == [3]
    assert "accuracy" not in found.cycles()
    assert curves.summary(found, unlabelled)["auc"] is None
    assert len(samples.with_noise_scores(found, samples.table(found, unlabelled, 0), 0)) == 3


def test_people_who_disagree_on_an_image_to_label_are_no_label_yet(home, pool):
    found = learning(pool, initial=119)
    (row, *_), _, _ = questions.ActiveLearning(found.config, pool).initial()
    annotation.record(found, [pool.ids[row]] * 2, np.array([1, 2]), ["ann", "bob"])  # before the first training
    loop.work(found, pool)
    table = found.ranking(0)
    assert (table["label"][row], table["status"][row], table["rank"][row]) == (-1, "tied", 1)
    assert found.cycles()["n_labels"].tolist() == [118]
    assert not (found.log.labels()["source"].eq("given") & found.log.labels()["sample_id"].eq(pool.ids[row])).any()


def test_what_people_say_before_the_first_training_wins_over_what_was_there(home, pool):
    found = learning(pool, initial=119)
    (row, *_), _, _ = questions.ActiveLearning(found.config, pool).initial()
    annotation.record(found, [pool.ids[row]], np.array([other(pool.labels[row])]), ["ann"])
    loop.work(found, pool)
    assert found.ranking(0)["label"][row] == other(pool.labels[row])
    assert found.cycles()["n_labels"].tolist() == [119]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "none is left to ask people about"),
        ({"initial": 200}, "at most as many"),
        ({"evidence": True}, "--evidence"),
    ],
)
def test_active_learning_says_why_people_cannot_be_asked(home, pool, settings, why):
    with pytest.raises(UserError, match=why):
        learning(pool, **settings)


def test_a_vote_that_was_taken_back_may_be_brought_in_again(one, pool):
    vote = [pool.ids[0]], np.array([2]), ["ann"]
    annotation.record(one, *vote)
    assert annotation.take_back(one, int(one.log.events()["seq"].iloc[-1]), "ann")
    with pytest.raises(UserError, match="Nobody has given a label"):
        annotation.check_step(one)
    assert annotation.record(one, *vote) == 1
    assert one.state(pool.ids)[0].majority[0] == 2
    assert labelling.given_votes(one)["annotator"].tolist() == ["ann"]
    assert len(samples.relabels(one, pool)) == 1


def test_a_tie_that_is_settled_is_a_label_that_changed(home, pool):
    tied = dataclasses.replace(pool, annotations=Annotations(np.array([0, 0]), np.array([3, 4]), ["ann", "bob"]))
    found = begun(tied)
    annotation.record(found, [tied.ids[0]], np.array([4]), ["cy"])
    found.log.set_fact("target", 2)
    loop.work(found, tied)
    assert curves.cycle_changes(found, tied)["changed"].tolist() == [0, 1]
    assert labelling.cleaned(found, tied, 1)["changed"].sum() == 1


def test_nothing_is_refused_for_the_sake_of_a_test_set_that_people_do_not_have(pool):
    """The votes on the four fifths tie, those on all images do not."""
    rows = np.repeat(np.arange(120), 2)
    labels = np.where(np.arange(240) % 2 == 0, 3, 4)
    labels[-20:] = 3
    whole = dataclasses.replace(pool, annotations=Annotations(rows, labels, ["ann", "bob"] * 120))
    part = dataclasses.replace(
        pool.subset(np.arange(96)), annotations=Annotations(rows[:192], labels[:192], ["ann", "bob"] * 96)
    )
    given = {"task": "label-cleaning", "dataset": "folder", "method": "self-confidence"}
    _, chosen = settle.settle(given, lambda config: whole if config.test_share == 0 else part)
    assert len(chosen) == 120
