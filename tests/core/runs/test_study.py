"""Studies: made from protocols, worked through in order, resumed after a kill."""

import dataclasses
import json
import random
import shutil
import time

import pandas as pd
import pytest

from core import strategies
from core.__main__ import main
from core.runs import jobs, run, study
from core.runs.study import Protocol
from data.errors import UserError
from tests import forked

TINY = {
    "task": "active-learning",
    "dataset": "fashion",
    "limit": 300,
    "budget": 20,
    "cycles": 2,
    "model": "small-cnn",
    "width": 4,
    "epochs": 2,
}


def tiny(**changes):
    return Protocol(
        "tiny", "A tiny study", [{"method": "random"}, {"method": "entropy-gradnorm"}], [0, 1], {**TINY, **changes}
    )


def test_the_papers_protocol_is_that_of_the_paper():
    """CIFAR-10: 5,000 at random, + 2,500 a cycle, seven cycles to 40 %; SGD 0.1, 200 epochs, a tenth at 160, batch 128."""
    settings = study.read("paper-cifar10").run
    assert settings["initial"] + (settings["cycles"] - 1) * settings["budget"] == 0.4 * 50_000
    assert [settings[k] for k in ("budget", "cycles", "subset", "epochs", "batch_size")] == [2500, 7, 25_000, 200, 128]
    assert (settings["lr"], settings["nesterov"], settings["schedule"], settings["warm_start"]) == (
        0.1,
        False,
        "step",
        True,
    )
    assert (settings["model"], settings["width"], settings["reduction"]) == ("resnet18", 64, "sum")
    assert len(study.read("paper-cifar10").seeds) == 3


@pytest.mark.parametrize("name", ["paper-cifar10", "quick-cifar10", "fashion"])
def test_protocols_name_every_strategy(name):
    """All but those that train a second model and solve for its inverse curvature, which would take most of a study's time."""
    named = [method for method, one in strategies.CATALOGUE.items() if not one.validation and "class" in one.answers]
    assert sorted(arm["method"] for arm in study.read(name).arms) == sorted(named)
    assert study.protocols()[name] == study.read(f"{name}.toml").title


def test_create_makes_all_runs_of_a_seed_before_the_next(home):
    made = study.create(tiny())
    assert [(one.config.method, one.config.seed) for one in made.runs] == [
        ("random", 0),
        ("entropy-gradnorm", 0),
        ("random", 1),
        ("entropy-gradnorm", 1),
    ]
    assert {one.config.study for one in made.runs} == {made.id}
    assert (made.title, made.progress(), made.status()[0]) == ("A tiny study", (0, 8), "stopped")
    assert [found.id for found in study.all_studies()] == [made.id]
    assert {one.id for one in run.all_runs()} == {one.id for one in made.runs}


def test_strategies_seeds_and_settings_can_be_given(home):
    made = study.create("fashion", arms=["margin"], seeds=[7], settings={"limit": 1000, "epochs": 3})
    (one,) = made.runs
    config = one.config
    assert (config.method, config.seed, config.limit, config.epochs, config.budget) == ("margin", 7, 1000, 3, 200)


def test_a_run_lost_in_a_crash_is_made_again(home):
    made = study.create(tiny())
    configs = [one.config for one in made.runs]
    shutil.rmtree(made.runs[2].path)
    assert len(made.runs) == 3
    assert [one.config for one in made.complete()] == configs


def test_the_command_line_works_through_a_study(home, capsys):
    settings = ["--limit", "300", "--budget", "20", "--initial", "20", "--cycles", "2", "--width", "4", "--epochs", "1"]
    command = ["run", "--protocol", "fashion", "--strategy", "random", "egl", "--seed", "0", "1", *settings, "--json"]
    assert main(command) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(o["seed"], [c["n_labels"] for c in o["cycles"]]) for o in objects] == [
        (seed, [20, 40]) for seed in (0, 0, 1, 1)
    ]
    (made,) = study.all_studies()
    assert made.status() == ("finished", "8 of 8 cycles in 4 runs done.")
    assert main(["resume", made.id]) == 0
    assert main(["list"]) == 0
    assert made.id in capsys.readouterr().out


@pytest.mark.slow
def test_the_papers_protocol_on_real_images_in_miniature(home, real_data, monkeypatch):
    """Every strategy, with the protocol's own schedule, warm start and ranked subset; smaller in every number."""
    monkeypatch.setenv("NEXTLABEL_DATA", str(real_data))
    small = ["--limit", "300", "--initial", "40", "--budget", "20", "--cycles", "2", "--width", "2", "--epochs", "1"]
    assert main(["run", "--protocol", "paper-cifar10", "--seed", "0", *small, "--subset", "100"]) == 0
    (made,) = study.all_studies()
    assert made.status()[0] == "finished"
    assert len(made.runs) == len(study.read("paper-cifar10").arms)
    for one in made.runs:
        assert one.config.warm_start
        assert one.ranking(1)["rank"].notna().sum() == 100
        assert one.ranking(1)["label-gradnorm"].notna().sum() == 100


def test_compare_prints_the_tables_and_writes_a_folder(home, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("core.files.export.has_browser", lambda: False)
    made = study.create(tiny(evidence=True), command="python -m core run --protocol fashion")
    assert main(["resume", made.id]) == 0
    capsys.readouterr()
    assert main(["compare", made.id, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert set(tables) == {"accuracy", "verdicts", "high-gradient", "gap", "fell", "influence", "correlations"}
    (verdict,) = tables["verdicts"]
    assert (verdict["method"], verdict["baseline"], verdict["n_seeds"]) == ("entropy-gradnorm", "random", 2)
    assert main(["compare", *[one.id for one in made.runs]]) == 0
    assert "Better than random?" in capsys.readouterr().out
    assert main(["compare", made.id, "--out", str(tmp_path / "out")]) == 0
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["studies"][0]["command"] == "python -m core run --protocol fashion"
    assert "torch" in about["machines"][0]
    assert str(tmp_path) not in json.dumps(about)
    assert {"accuracy.csv", "accuracy.html", "verdicts.csv", "runs.csv"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_several_strategies_are_a_study_without_a_protocol(home):
    settings = ["--limit", "300", "--budget", "20", "--cycles", "1", "--width", "4", "--epochs", "1"]
    assert main(["run", "--task", "active-learning", "--strategy", "random", "margin", *settings]) == 0
    assert study.all_studies()[0].title == "fashion: random, margin"


@pytest.mark.slow
def test_two_strategies_and_three_seeds_killed_again_and_again_equal_the_whole_study(home):
    protocol = dataclasses.replace(tiny(epochs=4, cycles=3, evidence=True), seeds=[0, 1, 2])
    whole, killed = study.create(protocol), study.create(protocol)
    assert main(["resume", whole.id]) == 0
    shutil.rmtree(home / ".cache")  # or the killed one would take over what the first has computed
    moments = random.Random(1)
    for _ in range(4):
        worker = forked.command("resume", killed.id)
        forked.wait_until(lambda worker=worker: killed.is_running() or not worker.is_alive())
        time.sleep(moments.uniform(0.1, 2.5))
        worker.kill()
        worker.join()
        assert not killed.is_running()
    assert main(["resume", killed.id]) == 0
    assert len(killed.runs) == 6
    for one, other in zip(whole.runs, killed.runs, strict=True):
        assert (one.config.method, one.config.seed) == (other.config.method, other.config.seed)
        pd.testing.assert_frame_equal(one.log.labels().drop(columns="time"), other.log.labels().drop(columns="time"))
        pd.testing.assert_frame_equal(one.cycles().drop(columns="seconds"), other.cycles().drop(columns="seconds"))
        for c in range(3):
            pd.testing.assert_frame_equal(one.ranking(c), other.ranking(c), check_exact=True)


def test_a_run_that_fails_does_not_keep_the_others(home, capsys):
    made = study.create(tiny())
    broken = made.runs[1]
    start = json.loads((broken.path / "config.json").read_text())
    start["config"] |= {"lr": 1e25, "schedule": "step"}
    (broken.path / "config.json").write_text(json.dumps(start))
    assert main(["resume", made.id]) == 2
    assert "1 of 4 runs" in capsys.readouterr().err
    assert [one.status()[0] for one in made.runs] == ["finished", "failed", "finished", "finished"]
    assert made.status()[0] == "failed"
    assert "diverged" in made.status()[1]


def test_a_defect_of_ours_in_one_run_does_not_keep_the_others(home, capsys, monkeypatch):
    made = study.create(tiny())
    broken = dataclasses.replace(strategies.load("random"), score=lambda pool: 1 / 0)
    monkeypatch.setattr(strategies, "load", lambda name: broken if name == "random" else strategies.CATALOGUE[name])
    assert main(["resume", made.id]) == 2
    assert "an internal error" in capsys.readouterr().err
    assert [one.status()[0] for one in made.runs] == ["failed", "finished", "failed", "finished"]
    assert "ZeroDivisionError" in made.runs[0].status()[1]


def test_a_study_is_started_paused_cancelled_and_resumed_as_a_job(home):
    made = study.create(tiny(epochs=40))
    jobs.start_study(made)
    assert made.status()[0] == "running"
    forked.wait_until(lambda: any(one.is_running() for one in made.runs))
    with pytest.raises(UserError, match="already"):
        jobs.start_study(made)
    with pytest.raises(UserError, match="another process"), made.working():
        pass
    jobs.pause_study(made)
    forked.wait_until(lambda: not made.is_running())
    assert made.status()[0] == "stopped"
    done = made.progress()[0]
    assert done < 8
    jobs.start_study(made)
    forked.wait_until(made.is_running)
    forked.wait_until(lambda: any(one.is_running() for one in made.runs))
    jobs.cancel_study(made)
    forked.wait_until(lambda: not made.is_running())
    assert made.status()[0] == "stopped"
    assert made.progress()[0] >= done
    assert "interrupted" in jobs.worker_log(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "no valid TOML"),
        ('title = "x"', "does not say seeds, run, .*, strategies .or arms."),
        ('title = "x"\nstrategies = ["random"]\nseeds = [0]\nrun = {task = "active-learning"}', "run.dataset"),
        ('colour = "red"', "no option .colour.: remove or rename it"),
        (
            'title = "x"\nseeds = [0]\nstrategies = ["egl"]\n'
            'run = {task = "active-learning", dataset = "fashion", method = "egl"}',
            "by strategies or arms",
        ),
        (
            'title = "x"\nstrategies = ["random"]\nseeds = ["a"]\nrun = {task = "t", dataset = "d"}',
            "seeds must be a list",
        ),
    ],
)
def test_a_wrong_protocol_is_named(tmp_path, text, message):
    (tmp_path / "mine.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        study.read(str(tmp_path / "mine.toml"))


def test_what_cannot_be_made_is_refused_before_anything_is_written(home):
    for changes, message in (
        ({"arms": ["coreset"]}, '--strategy is "coreset": choose one of'),
        ({"seeds": []}, "at least one"),
        ({"settings": {"budget": 400}}, "lower the budget"),
        ({"settings": {"budget": "many"}}, '--budget is "many": give a whole number'),
        ({"seeds": [2**32]}, "give at most"),
    ):
        with pytest.raises(UserError, match=message):
            study.create(tiny(), **changes)
    with pytest.raises(UserError, match="no protocol"):
        study.create("nothing")
    assert not home.exists()


def test_a_damaged_plan_is_said(home):
    made = study.create(tiny())
    (made.path / "study.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        made.status()
    with pytest.raises(UserError, match="no study"):
        study.find("../" + made.id)
