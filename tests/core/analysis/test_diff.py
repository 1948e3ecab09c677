"""What differs between two cycles, against rankings and logs worked through one image at a time."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats

import data
from core.__main__ import main
from core.analysis import diff
from core.analysis.diff import Side
from core.engine import loop
from core.runs import branch, run, settle
from core.runs.spec import Config
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 200, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32, "lr": 0.05}
CLEANING = Config(task="label-cleaning", method="cleaning", budget=30, cycles=3, noise=0.25, **TINY)


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pool):
    """A run, its branch by a random order, and a run of active learning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("home") / "runs"))
        parent = run.create(settle.prepare(CLEANING, pool), settle.about(pool))
        loop.work(parent, pool)
        other = branch.branch(parent, pool, 1, method="random")
        loop.work(other, pool)
        learning = Config(task="active-learning", method="margin", budget=20, cycles=2, initial=20, **TINY)
        third = run.create(settle.prepare(learning, pool), settle.about(pool))
        loop.work(third, pool)
        yield parent, other, third


def test_who_was_chosen_by_one_and_not_the_other(runs, pool):
    parent, other, _ = runs
    found = diff.diff(Side(parent, 2), Side(other, 2))
    chosen = []
    for one in (parent, other):
        events = one.log.labels()
        chosen.append({e.sample_id for e in events.itertuples() if e.cycle > 0})
    groups = diff.groups(found.samples)
    ids = np.array(pool.ids)
    assert set(ids[groups["labelled by the first alone"]]) == chosen[0] - chosen[1]
    assert set(ids[groups["labelled by the second alone"]]) == chosen[1] - chosen[0]
    assert chosen[0] != chosen[1]


def test_ranks_and_their_correlation(runs, pool):
    parent, other, _ = runs
    found = diff.diff(Side(parent, 1), Side(other, 1))
    first, second = parent.ranking(1), other.ranking(1)
    both = first["rank"].notna() & second["rank"].notna()
    expected = scipy.stats.spearmanr(first["rank"][both].astype(int), second["rank"][both].astype(int)).statistic
    assert found.correlation == pytest.approx(expected)
    moved = diff.named(diff.moved(found.samples), pool)
    row = moved.iloc[0]
    place = pool.ids.index(row["sample_id"])
    assert row["moved"] == first["rank"][place] - second["rank"][place]
    assert (moved["moved"].abs().diff().dropna() <= 0).all()  # furthest first
    assert (moved["moved"] != 0).all()


def test_labels_that_changed_between_two_cycles(runs, pool):
    parent, *_ = runs
    found = diff.diff(Side(parent, 0), Side(parent, 2))
    before, after = parent.ranking(0)["label"], parent.ranking(2)["label"]
    changed = diff.relabelled(found.samples)
    assert changed.index.tolist() == [row for row in range(200) if before[row] != after[row]]
    named = diff.named(changed, pool)
    assert named["given_second"].tolist() == [pool.class_names[after[row]] for row in changed.index]


def test_settings_and_measures(runs):
    parent, other, _ = runs
    found = diff.diff(Side(parent, 2), Side(other, 2))
    assert found.settings.to_dict("records") == [{"setting": "score", "first": "cleaning", "second": "random"}]
    assert diff.diff(Side(parent, 0), Side(other, 0)).settings.empty  # a branch's first cycles were its parent's
    row = found.measures.set_index("measure").loc["correctness"]
    assert row["change"] == pytest.approx(row["second"] - row["first"])
    assert row["first"] == parent.cycles()["correctness"].iloc[2]


def test_nothing_differs_from_itself(runs):
    parent, *_ = runs
    found = diff.diff(Side(parent, 1), Side(parent, 1))
    assert found.correlation == pytest.approx(1)
    assert not any(mask.any() for mask in diff.groups(found.samples).values())
    assert diff.moved(found.samples).empty
    assert diff.relabelled(found.samples).empty


def test_two_tasks_on_the_same_images(runs, pool):
    """What one labels and the other checks: the labels of active learning against those that were there."""
    parent, _, third = runs
    found = diff.diff(Side(third, 1), Side(parent, 2))
    assert (found.samples["label_first"] == -1).any()
    names = diff.named(diff.relabelled(found.samples), pool)
    assert "—" in set(names["given_first"])
    assert third in diff.comparable(parent)


def test_other_images_are_refused(runs, pool):
    parent, *_ = runs
    example = run.find("example-random")
    assert example not in diff.comparable(parent)
    with pytest.raises(UserError, match="are not of the same images"):
        diff.diff(Side(parent, 0), Side(example, 0))


def test_a_damaged_ranking_is_said(runs, pool):
    parent, *_ = runs
    whole = dataclasses.replace(CLEANING, cycles=1)
    broken = run.create(settle.prepare(whole, pool), settle.about(pool))
    loop.work(broken, pool)
    (broken.cycle_path(0) / "ranking.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="has no readable ranking"):
        diff.diff(Side(parent, 0), Side(broken, 0))


def test_the_figure_draws_at_most_so_many_points(runs, pool):
    parent, other, _ = runs
    found = diff.diff(Side(parent, 0), Side(other, 1)).samples
    both = found[(found["rank_first"] > 0) & (found["rank_second"] > 0)]
    drawn = diff.drawn(both, pool, parent, 0, other, 1, 50)
    assert sum(len(trace.x) for trace in drawn.data) == 50
    assert drawn.data[0].x.min() >= 0


def test_the_command_line(runs, capsys):
    parent, other, _ = runs
    assert main(["diff", parent.id, f"{other.id}@1", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert list(tables)[:2] == ["settings", "measures"]
    assert main(["diff", f"{parent.id}@0", f"{parent.id}@2", "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert f"second: {parent.id}, cycle 2" in said
    assert "# moved furthest" in said
    assert main(["diff", f"{parent.id}@x", parent.id]) == 2
    assert "write RUN@2 for cycle 2" in capsys.readouterr().err
    assert main(["diff", f"{parent.id}@9", parent.id]) == 2
    assert "has no finished cycle 9" in capsys.readouterr().err
