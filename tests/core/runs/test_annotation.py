"""The desk of an annotator: whose turn each image is, what undo takes back, and that nothing is lost or counted twice."""

import multiprocessing

import numpy as np
import pandas as pd
import pytest

import data
from core.analysis import labelling
from core.runs import annotation, questions, run, settle
from core.runs.run import GIVEN, PERSON
from core.runs.spec import Config
from core.store.log import MASK, SKIPPED, TAKEN_BACK, UNSURE, standing
from data.errors import UserError
from data.files import masktext
from data.masks import VOID, narrowed

N = 8


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=N)


@pytest.fixture
def one(tmp_path, monkeypatch, pool):
    """A run of label cleaning that waits for people at cycle 1; nothing was trained."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    config = Config(task="label-cleaning", dataset="fashion", method="cleaning", budget=0, cycles=1, annotator="person")
    found = run.create(config, settle.about(pool))
    found.log.append(0, pool.ids, pool.labels, [GIVEN] * N, 0.0)
    return found


@pytest.fixture
def ranking(pool):
    """The last image first."""
    names = [pool.class_names[label] for label in pool.labels]
    columns = {"sample_id": pool.ids, "rank": np.arange(N, 0, -1), "given": names, "suggested": "bag"}
    return pd.DataFrame({**columns, "confidence": 0.75, "cleaning": np.linspace(0, 1, N)})


def does(one, pool, row, what, who="ann", **more):
    annotation.act(one, pool, who, {"do": what, "id": pool.ids[row], **more})


def undoes(one, pool, table, who="ann"):
    last = annotation.desk(one, table, who).said[-1]
    annotation.act(one, pool, who, {"do": "undo", "seq": last.seq})


def queue(one, table, who="ann"):
    return annotation.desk(one, table, who).queue.tolist()


def test_an_image_leaves_the_queue_of_whoever_voted_and_of_nobody_else(one, pool, ranking):
    does(one, pool, 7, "vote", label=3)
    assert queue(one, ranking) == [6, 5, 4, 3, 2, 1, 0]
    assert queue(one, ranking, "bob") == [7, 6, 5, 4, 3, 2, 1, 0]
    found = annotation.desk(one, ranking, "ann")
    assert (found.votes, found.mine, annotation.desk(one, ranking, "bob").mine) == (1, 1, 0)
    assert [(said.row, said.label) for said in found.said] == [(7, 3)]


def test_what_is_skipped_comes_last_and_what_one_is_unsure_of_goes_to_others(one, pool, ranking):
    does(one, pool, 7, "skip")
    does(one, pool, 6, "unsure")
    does(one, pool, 5, "skip")
    found = annotation.desk(one, ranking, "ann")
    assert found.queue.tolist() == [4, 3, 2, 1, 0, 7, 5]
    assert (found.skipped, found.unsure, found.votes) == (2, 1, 0)
    assert [said.label for said in found.said] == [SKIPPED, UNSURE, SKIPPED]
    assert queue(one, ranking, "bob")[:3] == [7, 6, 5]
    does(one, pool, 7, "skip")
    assert queue(one, ranking)[-2:] == [5, 7]


def test_undo_brings_back_vote_skip_and_unsure_one_after_the_other(one, pool, ranking):
    before = one.state(pool.ids)[0]
    does(one, pool, 7, "vote", label=3)
    does(one, pool, 6, "skip")
    does(one, pool, 5, "unsure")
    assert queue(one, ranking) == [4, 3, 2, 1, 0, 6]
    undoes(one, pool, ranking)
    assert queue(one, ranking) == [5, 4, 3, 2, 1, 0, 6]
    undoes(one, pool, ranking)
    assert queue(one, ranking) == [6, 5, 4, 3, 2, 1, 0]
    undoes(one, pool, ranking)
    assert queue(one, ranking) == [7, 6, 5, 4, 3, 2, 1, 0]
    after = one.state(pool.ids)[0]
    np.testing.assert_array_equal(after.histogram, before.histogram)
    np.testing.assert_array_equal(after.majority, before.majority)
    assert not after.cleaned.any()
    assert one.log.events()["label"].tolist()[N:] == [3, SKIPPED, UNSURE, TAKEN_BACK, TAKEN_BACK, TAKEN_BACK]


def test_undo_of_a_second_thought_leaves_the_first(one, pool, ranking):
    does(one, pool, 7, "vote", label=3)
    does(one, pool, 7, "vote", label=4)
    undoes(one, pool, ranking)
    assert [said.label for said in annotation.desk(one, ranking, "ann").said] == [3]
    assert one.state(pool.ids)[0].majority[7] == 3


def test_whoever_is_unsure_after_a_vote_takes_it_back(one, pool, ranking):
    does(one, pool, 7, "vote", label=3)
    does(one, pool, 7, "unsure")
    assert one.state(pool.ids)[0].majority[7] == pool.labels[7]
    assert annotation.desk(one, ranking, "ann").votes == 0


def test_who_voted_before_the_run_may_say_the_same_again(tmp_path, monkeypatch, pool, ranking):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    config = Config(task="label-cleaning", dataset="folder", method="cleaning", budget=0, cycles=1, annotator="person")
    one = run.create(config, settle.about(pool))
    one.log.append(0, pool.ids * 2, np.repeat([3, 4], N), [PERSON + "ann"] * N + [PERSON + "bob"] * N, 0.0)
    for _ in range(2):  # the browser may send it twice
        does(one, pool, 7, "vote", label=3)
    assert queue(one, ranking) == [6, 5, 4, 3, 2, 1, 0]
    assert len(one.log.events()) == 2 * N + 1
    state = one.state(pool.ids)[0]
    assert (state.status[7], state.histogram[7].sum()) == ("tied", 2)  # nobody counts twice
    does(one, pool, 7, "vote", label=4)
    assert one.state(pool.ids)[0].status[7] == "cleaned"
    again = annotation.record(one, pool.ids, np.full(N, 4), ["bob"] * N)
    assert again == 0  # a file that is read again confirms nothing


def test_the_desk_says_that_an_image_is_tied(one, ranking):
    table = ranking.assign(status=["tied", *["labelled"] * (N - 1)], n_votes=3, given=["—", *ranking["given"][1:]])
    told = annotation.guidance(table, 0, one.config)
    assert told["given"] == ""
    assert told["details"].startswith("tied, 3 annotations · model 75 %")
    assert "tied" not in annotation.guidance(table, 1, one.config)["details"]


def test_what_the_browser_sends_twice_is_done_once(one, pool, ranking):
    for _ in range(2):
        does(one, pool, 7, "vote", label=3)
        does(one, pool, 6, "unsure")
    seq = annotation.desk(one, ranking, "ann").said[-1].seq
    for _ in range(2):
        annotation.act(one, pool, "ann", {"do": "undo", "seq": seq})
    assert one.log.events()["label"].tolist()[N:] == [3, UNSURE, TAKEN_BACK]


def test_nobody_takes_back_the_vote_of_another_or_what_was_trained_on(one, pool, ranking):
    does(one, pool, 7, "vote", label=3)
    seq = annotation.desk(one, ranking, "ann").said[-1].seq
    assert not annotation.take_back(one, seq, "bob")
    one.log.finish(1, "label", 0.0, {})
    assert not annotation.take_back(one, seq, "ann")
    assert annotation.desk(one, ranking, "ann").said == []
    assert one.state(pool.ids)[0].majority[7] == 3


@pytest.mark.parametrize(
    "action",
    [
        {"do": "vote", "id": "no such image", "label": 1},
        {"do": "vote", "label": 10},
        {"do": "vote", "label": -1},
        {"do": "vote", "label": True},
        {"do": "vote", "label": "1"},
        {"do": "dance"},
        {"do": "undo", "seq": None},
        {},
    ],
)
def test_what_no_page_sends_is_refused(one, pool, action):
    with pytest.raises(UserError, match="load it again"):
        annotation.act(one, pool, "ann", {"id": pool.ids[0], **action})
    assert len(one.log.events()) == N


def test_names_are_one_line_and_not_too_long():
    assert annotation.annotator_name("  Ann\n <b>B</b>\x00 ") == "Ann <b>B</b>"
    for text, why in (("  ", "Say who you are"), ("x" * 61, "at most 60")):
        with pytest.raises(UserError, match=why):
            annotation.annotator_name(text)


def test_guidance_says_what_the_run_knows(one, pool, ranking):
    found = annotation.guidance(ranking, 7, one.config)
    assert found["given"] == pool.class_names[pool.labels[7]]
    assert (found["suggested"], found["differs"]) == ("bag", found["given"] != "bag")
    assert found["details"] == "model 75 % · rank 1 of 8 · Cleaning score Φ 1.000"


def test_pace_leaves_pauses_out():
    seconds = [0, 4, 8, 500, 502]
    times = pd.Series([(pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(s, "s")).isoformat() for s in seconds])
    assert annotation.pace(times) == pytest.approx(60 * 3 / 10)
    assert annotation.pace(times[:1]) is None


def test_the_goal_is_the_budget_until_somebody_sets_it(one, ranking):
    assert annotation.goal(one, ranking) == N
    annotation.set_goal(one, 5)
    assert annotation.goal(one, ranking) == 5


def test_agreement_counts_the_last_votes_and_kappa_what_is_beyond_chance(one, pool):
    said = {"ann": [0, 0, 1, 1, 2, 2], "bob": [0, 0, 1, 2, 2, 1]}
    for who, labels in said.items():
        does(one, pool, 0, "vote", who, label=9)  # thought better of below
        for row, label in enumerate(labels):
            does(one, pool, row, "vote", who, label=label)
    does(one, pool, 6, "unsure", "bob")
    table = annotation.agreement(one).set_index("annotator")
    assert table.loc["ann", ["votes", "unsure", "shared", "compared"]].tolist() == [6, 0, 6, 6]
    assert table.loc["bob", "unsure"] == 1
    assert table.loc["ann", "share"] == pytest.approx(4 / 6)
    (pair,) = annotation.kappas(one).to_dict("records")
    by_chance = (2 * 2 + 2 * 2 + 2 * 2) / 36
    assert (pair["first"], pair["second"], pair["shared"]) == ("ann", "bob", 6)
    assert pair["kappa"] == pytest.approx((4 / 6 - by_chance) / (1 - by_chance))


def test_kappa_is_unknown_where_both_always_say_the_same_class(one, pool):
    for who in ("ann", "bob"):
        does(one, pool, 0, "vote", who, label=1)
    assert annotation.kappas(one)["kappa"].tolist() == [None]


def plainly(events, pool):
    """Replay a log event by event, in dictionaries: histogram [N, C], majority, cleaned and tied [N]."""
    kept = []
    for event in events.itertuples():
        if event.label != TAKEN_BACK:
            kept.append(event)
            continue
        for earlier in reversed(kept):
            if (earlier.sample_id, earlier.source) == (event.sample_id, event.source):
                kept.remove(earlier)
                break
    shape = (N, len(pool.class_names))
    histogram, majority = np.zeros(shape, int), np.full(N, -1)
    cleaned, tied = np.zeros(N, bool), np.zeros(N, bool)
    given, votes = {}, {sample_id: {} for sample_id in pool.ids}
    for event in kept:
        if event.label < 0:
            continue
        if event.source == GIVEN:
            given[event.sample_id] = event.label
        else:
            votes[event.sample_id][event.source] = event.label
        row = pool.ids.index(event.sample_id)
        counted = list(votes[event.sample_id].values()) or [given[event.sample_id]]
        histogram[row] = np.bincount(counted, minlength=shape[1])
        formed = (histogram[row] == histogram[row].max()).sum() == 1
        majority[row] = histogram[row].argmax() if formed else -1
        cleaned[row], tied[row] = formed and event.cycle > 0, not formed
    return histogram, majority, cleaned, tied


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 12))])
def test_the_labels_are_those_of_a_plain_replay(one, pool, ranking, seed):
    rng = np.random.default_rng(seed)
    for _ in range(90):
        who, row = str(rng.choice(["ann", "bob", "cy"])), int(rng.integers(4))
        what = rng.choice(["vote", "skip", "unsure", "undo", "cycle"], p=[0.5, 0.1, 0.1, 0.27, 0.03])
        if what == "vote":
            does(one, pool, row, "vote", who, label=int(rng.integers(3)))
        elif what == "cycle":
            one.log.finish(one.open_cycle(), "label", 0.0, {})
        elif what == "undo":
            own = one.log.events(sources=PERSON + who)["seq"]
            if len(own):  # the last, or anything at all
                annotation.take_back(one, int(own.iloc[-1] if rng.random() < 0.5 else rng.choice(own)), who)
        else:
            does(one, pool, row, what, who)
    for cycle in [*range(one.open_cycle() + 1), None]:
        state, taken, events = one.state(pool.ids, cycle)
        histogram, majority, cleaned, tied = plainly(one.log.events(cycle), pool)
        np.testing.assert_array_equal(state.histogram, histogram)
        np.testing.assert_array_equal(state.majority, majority)
        np.testing.assert_array_equal(state.cleaned, cleaned)
        np.testing.assert_array_equal(state.tied, tied)
        assert len(taken.sample) == len(events)
    # What people said goes out, and comes back into an equal run, as it stands
    votes = labelling.given_votes(one)
    held = (
        standing(one.log.events(sources=PERSON))
        .query("label >= 0")
        .drop_duplicates(["sample_id", "source"], keep="last")
    )
    assert len(votes) == len(held)


def labels_quickly(path, ids, who, rows):
    found = run.Run(path)
    for row in rows:
        annotation.record(found, [ids[row]], np.array([row % 3]), [who])


def test_no_vote_is_lost_or_doubled_when_several_tabs_vote_at_once(one, pool):
    fork = multiprocessing.get_context("spawn")
    tabs = [("ann", range(N)), ("ann", range(N)), ("bob", range(N))]
    workers = [fork.Process(target=labels_quickly, args=(one.path, pool.ids, who, rows)) for who, rows in tabs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    events = one.log.events(sources=PERSON)
    assert len(events) == 2 * N
    assert not events.duplicated(["sample_id", "source"]).any()
    assert (events["cycle"] == 1).all()


def test_masks_are_recorded_once_and_each_annotators_latest_is_kept(one, pool):
    first, second = (one.masks.add(np.full((28, 28), code, np.uint8)) for code in (1, 2))
    ids, both = [pool.ids[0], pool.ids[1]], [first, second]
    assert annotation.record_masks(one, ids, both, ["ann", "ann"]) == 2
    assert annotation.record_masks(one, ids, both, ["ann", "ann"]) == 0
    assert annotation.record_masks(one, ids, both, ["ann", "bob"]) == 1
    assert annotation.record_masks(one, [ids[0]] * 3, [second, first, first], ["ann"] * 3) == 2
    events = one.log.events(sources=PERSON)
    assert events["digest"].tolist() == [one.digest for one in (first, second, second, second, first)]
    assert set(events["label"]) == {MASK}
    assert events["pixels"].tolist() == [28 * 28] * 5


@pytest.fixture(scope="module")
def scenes():
    return data.load("garments").subset(np.arange(N))


@pytest.fixture
def drawing(tmp_path, monkeypatch, scenes):
    """A run of label cleaning on masks that waits for people at cycle 1; nothing was trained."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    config = Config(
        task="label-cleaning", dataset="garments", method="cleaning", budget=0, cycles=1, annotator="person"
    )
    found = run.create(config, {**settle.about(scenes), "answer": "mask"})
    labels, drawn = found.answer.kept(scenes.labels, found.masks)
    found.log.append(0, scenes.ids, labels, [GIVEN] * N, 0.0, drawn)
    return found


def blob(label, top=10, left=10, side=20):
    """A mask that is unknown but for a square."""
    codes = np.full((64, 64), VOID, np.uint8)
    codes[top : top + side, left : left + side] = label
    return codes


def draws(one, pool, row, codes, who="ann"):
    annotation.act(one, pool, who, {"do": "mask", "id": pool.ids[row], "mask": masktext.encode(codes), "seconds": 3.5})


def test_a_mask_that_is_drawn_stands_where_it_has_a_class(drawing, scenes, ranking):
    table = ranking.assign(sample_id=scenes.ids)
    draws(drawing, scenes, 7, blob(3))
    expected = np.where(blob(3) == VOID, narrowed(scenes.labels[7:8])[0], blob(3))
    np.testing.assert_array_equal(drawing.standing(scenes).codes(7), expected)
    (said,) = annotation.desk(drawing, table, "ann").said
    assert (said.row, said.label) == (7, MASK)
    np.testing.assert_array_equal(drawing.masks.read(said.digest), blob(3))
    assert drawing.log.events()["pixels"].iloc[-1] == 400
    assert queue(drawing, table) == [6, 5, 4, 3, 2, 1, 0]
    assert queue(drawing, table, "bob") == [7, 6, 5, 4, 3, 2, 1, 0]


def test_a_mask_that_is_sent_twice_is_kept_once_and_undo_takes_it_back(drawing, scenes, ranking):
    table, before = ranking.assign(sample_id=scenes.ids), drawing.standing(scenes).codes(7)
    for _ in range(2):
        draws(drawing, scenes, 7, blob(3))
    assert len(drawing.log.events()) == N + 1
    does(drawing, scenes, 6, "skip")
    assert [said.digest is None for said in annotation.desk(drawing, table, "ann").said] == [False, True]
    undoes(drawing, scenes, table)
    undoes(drawing, scenes, table)
    np.testing.assert_array_equal(drawing.standing(scenes).codes(7), before)
    draws(drawing, scenes, 7, blob(3))  # it no longer stands, so that it is new
    assert annotation.desk(drawing, table, "ann").mine == 1


def test_whoever_confirms_a_mask_that_came_with_the_data_has_said_so(drawing, scenes):
    given = narrowed(scenes.labels[7:8])[0]
    for _ in range(2):
        draws(drawing, scenes, 7, given)
    events = drawing.log.events()
    assert events["source"].tolist()[N:] == [PERSON + "ann"]
    assert events["digest"].iloc[-1] == events["digest"].iloc[7]


def test_what_is_erased_from_a_mask_of_this_cycle_does_not_show_through(drawing, scenes, ranking):
    table, first = ranking.assign(sample_id=scenes.ids), blob(3)
    draws(drawing, scenes, 7, first)
    draws(drawing, scenes, 7, blob(4))  # over it, so that undo brings the first one back
    undoes(drawing, scenes, table)
    assert annotation.desk(drawing, table, "ann").said[0].digest == drawing.masks.add(first).digest
    draws(drawing, scenes, 7, blob(4, side=10))
    layer = drawing.standing(scenes).layers(7)[1][PERSON + "ann"]
    np.testing.assert_array_equal(layer, blob(4, side=10))
    assert drawing.log.events()["label"].tolist()[N:] == [MASK, MASK, TAKEN_BACK, TAKEN_BACK, MASK]


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (masktext.encode(np.full((64, 64), VOID, np.uint8)), "Nothing is drawn"),
        (masktext.encode(np.full((64, 64), 11, np.uint8)), "has the class 11, and there are 11"),
        (masktext.encode(np.zeros((64, 63), np.uint8)), "has 4,032 pixels"),
        ("?", "no base64"),
        (None, "not a text"),
    ],
)
def test_a_mask_that_fits_no_image_of_the_run_is_refused(drawing, scenes, mask, says):
    with pytest.raises(UserError, match=says):
        annotation.act(drawing, scenes, "ann", {"do": "mask", "id": scenes.ids[0], "mask": mask})
    assert len(drawing.log.events()) == N


def test_a_run_takes_the_kind_of_label_that_its_data_have(one, pool, drawing, scenes):
    with pytest.raises(UserError, match="load it again"):
        annotation.act(
            one, pool, "ann", {"do": "mask", "id": pool.ids[0], "mask": masktext.encode(np.zeros((28, 28), np.uint8))}
        )
    with pytest.raises(UserError, match="load it again"):
        annotation.act(drawing, scenes, "ann", {"do": "vote", "id": scenes.ids[0], "label": 0})


def test_annotators_of_masks_agree_by_their_mean_iou(drawing, scenes):
    draws(drawing, scenes, 7, blob(3))
    draws(drawing, scenes, 7, blob(3, left=20), "bob")
    assert len(annotation.kappas(drawing)) == 1
    assert annotation.kappas(drawing).iloc[0][["first", "second", "shared", "agree"]].tolist() == ["ann", "bob", 1, 1.0]
    half = np.where(np.arange(64) < 15, 3, 4) + np.zeros((64, 1), np.int64)
    draws(drawing, scenes, 6, np.full((64, 64), 3, np.uint8))
    draws(drawing, scenes, 6, half.astype(np.uint8), "bob")
    pixels, both = 15 * 64 + 200, 64 * 64 + 200  # of class 3: those of both, and of either; the rest are 4 of one alone
    found = annotation.agreement(drawing)
    assert found["share"].tolist() == pytest.approx([(pixels / both + 0) / 2] * 2)
    assert found["votes"].tolist() == [2, 2]


def test_masks_that_differ_in_every_pixel_are_a_tie_until_a_third_decides(tmp_path, monkeypatch, scenes):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    config = Config(
        task="active-learning", dataset="garments", method="entropy", budget=2, cycles=1, annotator="person"
    )
    one = run.create(config, {**settle.about(scenes), "answer": "mask"})
    for who, label in (("ann", 3), ("bob", 4)):
        draws(one, scenes, 7, np.full((64, 64), label, np.uint8), who)
        draws(one, scenes, 6, blob(3), who)
    state = one.state(scenes.ids)[0]
    assert (state.majority[7], state.status[7], state.status[6]) == (-1, "tied", "labelled")
    assert questions.of(config, scenes).candidates(state).tolist() == [True] * 6 + [False, True]
    draws(one, scenes, 7, np.full((64, 64), 4, np.uint8), "cleo")
    assert one.state(scenes.ids)[0].status[7] == "labelled"
    assert set(one.standing(scenes).codes(7).ravel().tolist()) == {4}
