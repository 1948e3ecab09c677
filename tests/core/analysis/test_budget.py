"""What a budget buys, against figures worked out by hand and one label at a time."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import data
from core import relabel
from core.__main__ import main
from core.analysis import budget, policies
from core.engine import loop
from core.runs import run, settle
from core.runs.reference import relabel_seed
from core.runs.run import REGIONS
from core.runs.spec import Config
from tests import squares

TINY = {"dataset": "fashion", "limit": 200, "model": "small-cnn", "width": 4, "epochs": 3, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture(scope="module")
def cleaning(tmp_path_factory, pool):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(tmp_path_factory.mktemp("home") / "runs"))
        config = Config(task="label-cleaning", method="cleaning", budget=60, cycles=2, noise=0.25, static=True, **TINY)
        one = run.create(settle.prepare(config, pool), settle.about(pool))
        loop.work(one, pool)
        yield one


def curve(policy: str, *points: tuple[float, float]) -> pd.DataFrame:
    x, y = zip(*points, strict=True)
    return pd.DataFrame({"policy": policy, "n_labels": x, "mean": y})


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        (0.5, 0),  # there from the start
        (0.6, 10),
        (0.65, 15),  # halfway between two points
        (0.66, 16),  # no part of a label can be bought
        (0.7, 20),
        (0.75, None),  # it rises so far nowhere
    ],
)
def test_labels_for_a_target(target, needed):
    assert budget.labels_for(np.array([0, 10, 20, 30]), np.array([0.5, 0.6, 0.7, 0.68]), target) == needed


def test_a_plan_by_hand():
    """100 images, half of them right; the ranking corrects one with every two labels, the random order with every four."""
    found = pd.concat([curve("vanilla", (0, 0.5), (40, 0.7)), curve("random", (0, 0.5), (80, 0.7))])
    table = budget.plan(found, 20, 0.65, 100).set_index("policy")
    assert table.index.tolist() == ["vanilla", "random"]
    assert table["value"].tolist() == pytest.approx([0.6, 0.55])
    assert table["labels_per_correction"].tolist() == pytest.approx([2, 4])
    assert table["labels_for_target"].tolist() == [30, 60]
    assert table.loc["vanilla", "saved"] == 20  # the random order needs 40 for 60 %
    assert math.isnan(table.loc["random", "saved"])


def test_what_no_curve_says_is_left_open():
    found = pd.concat([curve("oracle", (0, 0.5), (40, 0.9)), curve("random", (0, 0.5), (40, 0.6))])
    table = budget.plan(found, 40, 0.95, 100).set_index("policy")
    assert table["labels_for_target"].isna().all()
    assert table.loc["oracle", "saved"] == 0  # the random order has not come so far with 40: more than 0
    assert table["saved_at_least"].tolist() == [True, False]
    assert budget.plan(found, 41, 0.95, 100)["value"].isna().all()  # beyond the simulation
    at_start = budget.plan(found, 0, 0.95, 100)
    assert at_start["labels_per_correction"].isna().all()  # nothing was bought


def test_what_a_plan_costs():
    found = pd.concat([curve("vanilla", (0, 0.5), (40, 0.7)), curve("random", (0, 0.5), (30, 0.55))])
    plan = budget.plan(found, 20, 0.65, 100)
    free = budget.priced(plan, 0, "€", learning=False)
    assert list(free) == ["policy", "value", "per_correction", "for_target", "saved"]
    assert free["for_target"].tolist() == ["30", "not reached"]
    assert free["saved"].tolist() == ["more than 10", ""]
    paid = budget.priced(plan, 0.5, "€", learning=False).set_index("policy").loc["vanilla"]
    assert paid["cost_per_correction"] == "€ 1.00"
    assert paid["cost_for_target"] == "€ 15.00"
    assert paid["cost_saved"] == "more than € 5.00"
    learning = budget.priced(budget.plan(found, 20, 0.65), 0.5, "€", learning=True)
    assert "per_correction" not in learning
    assert budget.priced(plan, 0.5, "€", learning=False)["cost_for_target"].iloc[1] == ""


def test_a_ranking_worse_than_chance_saves_less_than_nothing():
    found = pd.concat([curve("bald", (0, 0.5), (40, 0.6)), curve("random", (0, 0.5), (40, 0.7))])
    table = budget.plan(found, 40, 0.95, 100).set_index("policy")
    assert table.loc["bald", "saved"] == -20


def test_curves_of_a_cleaning_run_equal_one_label_at_a_time(cleaning, pool):
    """Votes are drawn one by one, and after each the right majority labels are counted in plain Python."""
    found = budget.curves([cleaning], pool)
    assert found["n_labels"].max() == budget.REACH * policies.budget_of([cleaning])
    reference, initial, score = policies.ranked(cleaning, pool)
    seeds = [relabel_seed(cleaning.config) + k for k in range(policies.VOTE_SETS)]
    runs = relabel.simulate_votes(reference, initial, score, budget=120, seeds=seeds)
    shares = []
    for taken in runs:
        labels = initial.tolist()
        line = [sum(a == b for a, b in zip(labels, reference.argmax(1), strict=True)) / 200]
        for sample, majority in zip(taken.sample, taken.majority, strict=True):
            labels[sample] = majority
            line.append(sum(a == b for a, b in zip(labels, reference.argmax(1), strict=True)) / 200)
        shares.append(line[:121])
    ours = found[found["policy"] == cleaning.config.arm]["mean"]
    np.testing.assert_allclose(ours, np.mean(shares, axis=0), atol=1e-12)


def test_no_policy_is_above_the_minimal_line(cleaning, pool):
    table = budget.curves([cleaning], pool).pivot(index="n_labels", columns="policy", values="mean")
    assert (table.max(axis=1) <= table["minimal"] + 1e-12).all()


def test_progress_counts_what_was_collected_and_what_is_to_come(cleaning):
    assert [budget.progress(cleaning, at) for at in range(2)] == [(0, 60), (60, 60)]


@pytest.mark.parametrize(
    ("config", "offered"),
    [
        (squares.config(), 3),
        (squares.config(budget_unit="pixels"), 21),
        (squares.config(task="active-learning", budget_unit="pixels"), 2 * 12 * 16),
        (squares.config(task="active-learning"), 2),
    ],
)
def test_a_ranking_of_masks_offers_what_the_budget_counts(home, config, offered):
    pool = squares.pool()
    one = run.create(config, {**settle.about(pool), "answer": "mask"})
    one.cycle_path(0).mkdir()
    pd.DataFrame({"rank": [1.0, 2.0, None]}).to_parquet(one.cycle_path(0) / "ranking.parquet")
    pd.DataFrame({"rank": [1.0, None, 3.0, 2.0], "pixels": [3, 5, 7, 11]}).to_parquet(one.cycle_path(0) / REGIONS)
    assert budget.offer(one, pool, 0) == offered


@pytest.mark.parametrize(
    ("options", "unit", "progress"),
    [
        ({"budget": 3}, ("region", "checked"), (3, 6)),
        ({"budget": 40, "budget_unit": "pixels"}, ("pixel", "checked"), (34, 74)),
        ({"annotator": "person"}, ("mask", "drawn"), (3, None)),
    ],
)
def test_where_masks_are_checked_progress_counts_what_the_budget_counts(home, options, unit, progress):
    one = run.create(squares.config(cycles=3, **options), {**settle.about(squares.pool()), "answer": "mask"})
    for cycle, n in enumerate((0, 3)):
        one.log.finish(cycle, "score", 0.0, {"n_labels": n, "n_pixels": 34 * cycle})
    assert (budget.unit(one).one, budget.unit(one).done) == unit
    assert budget.progress(one, 1) == progress


@pytest.mark.parametrize(("value", "unit", "text"), [
    (1234.5, "€", "€ 1,234.50"), (59.9, "minutes", "59.9 min"), (90, "minutes", "1.5 h"), (-0.5, "$", "$ -0.50"),
])  # fmt: skip
def test_an_amount_has_its_unit(value, unit, text):
    assert budget.money(value, unit) == text


def test_the_command_line(cleaning, capsys):
    assert main(["budget", cleaning.id, "--labels", "60", "--target", "0.8", "--price", "0.5", "--json"]) == 0
    rows = {row["policy"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"oracle", "random", "minimal", "vanilla"}
    assert rows["oracle"]["cost_for_target"] == 0.5 * rows["oracle"]["labels_for_target"]
    assert main(["budget", cleaning.id, "--price", "0.5"]) == 0
    assert capsys.readouterr().out.startswith("60 labels cost 30.00\n")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["--target", "95"], "give a share above 0 and at most 1"),
        (["--price", "nan"], "give what a label costs"),
        (["--labels", "-1"], "give a number of labels"),
    ],
)
def test_bad_input(cleaning, capsys, option, sentence):
    assert main(["budget", cleaning.id, *option]) == 2
    assert sentence in capsys.readouterr().err


def test_learning_takes_the_mean_of_the_seeds(tmp_path, monkeypatch, pool):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    made = []
    for seed in (0, 1):
        config = Config(task="active-learning", method="margin", budget=20, cycles=2, initial=20, seed=seed, **TINY)
        made.append(run.create(settle.prepare(config, pool), settle.about(pool)))
        loop.work(made[-1], pool)
    found = budget.curves(made, pool)
    assert found["n_labels"].tolist() == [20, 40]
    means = np.mean([one.cycles()["accuracy"] for one in made], axis=0)
    np.testing.assert_allclose(found["mean"], means)
