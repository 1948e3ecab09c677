"""The runs that come with NextLabel: small, whole, the same again, and never written to."""

import dataclasses
import json
import re
import sqlite3
from contextlib import closing

import numpy as np
import pytest

import data
from core.__main__ import main
from core.analysis import figures
from core.cli import example
from core.runs import run
from core.runs.run import EXAMPLES
from data.errors import UserError

NAMES = list(example.COMMANDS)


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))


def test_there_is_one_of_each_task_and_a_rival_below_the_limit():
    found = run.examples()
    assert sorted(one.id for one in found) == sorted(NAMES)
    assert {one.config.task for one in found} == {"active-learning", "label-cleaning"}
    assert example.size(EXAMPLES) < example.LIMIT


def test_an_empty_installation_lists_them():
    assert {one.id for one in run.all_runs()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_cycle_is_whole(name):
    one = run.find(name)
    pool = data.load(one.config.dataset, **one.config.load_options)
    assert one.status()[0] == "finished"
    for cycle in range(one.config.cycles):
        probs = np.asarray(one.posterior(cycle), dtype=np.float64)
        assert probs.shape == (len(pool), 10)
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=5e-3)  # kept as float16
        assert one.ranking(cycle)["sample_id"].tolist() == pool.ids
        for figure in ("curves", "distribution", "map"):
            figures.figure(one, pool, figure, cycle)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_what_its_command_says(name):
    command = example.COMMANDS[name]
    config = run.find(name).config
    for option in ("--task", "--strategy", "--cycles", "--limit", "--width", "--epochs", "--seed"):
        if option in command:
            field = {"strategy": "method"}.get(option[2:], option[2:])
            assert str(getattr(config, field)) == command[command.index(option) + 1]


def test_nothing_in_them_names_the_machine_they_were_made_on():
    for path in EXAMPLES.rglob("*"):
        if path.suffix == ".json":
            assert not re.search(r'"/|[A-Z]:\\\\', path.read_text()), path
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
                for key, value in db.execute("SELECT key, value FROM facts"):
                    assert not re.search(
                        r"(^|[\s\"])/\w", json.loads(value) if isinstance(json.loads(value), str) else ""
                    ), key


def test_looking_at_them_writes_nothing():
    before = {path: path.stat().st_mtime_ns for path in EXAMPLES.rglob("*")}
    for one in run.examples():
        one.cycles(), one.log.labels(), one.status()
    assert {path: path.stat().st_mtime_ns for path in EXAMPLES.rglob("*")} == before


@pytest.mark.parametrize("command", [["resume"], ["step"]])
def test_nobody_works_on_them(capsys, command):
    assert main([*command, "example-label-cleaning"]) == 2
    assert "is an example and stays as it is: start a run of your own" in capsys.readouterr().err


def test_nobody_labels_them(capsys, tmp_path):
    (tmp_path / "v.csv").write_text("sample_id,annotator,label\nfashion-train-00278,ann,bag\n")
    assert main(["import", "example-label-cleaning", str(tmp_path / "v.csv")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(UserError, match="is an example"):
        run.find("example-random").log.set_fact("target", 9)


@pytest.mark.slow
def test_the_committed_command_makes_them_again(tmp_path, monkeypatch):
    """Labels and rankings, bit for bit where the processor is the same; here two makings are compared, of two cycles."""
    monkeypatch.setitem(example.COMMANDS, "example-random", [*example.COMMANDS["example-random"], "--cycles", "2"])
    made = []
    for threads in ("1", "2"):  # that the caller has, which is not to matter
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        made.append(example.make("example-random", tmp_path / threads))
    assert example.digest(made[0]) == example.digest(made[1])
    assert example.digest(made[0]) != example.digest(run.find("example-active-learning"))
    assert made[0].config == dataclasses.replace(run.find("example-random").config, cycles=2)
