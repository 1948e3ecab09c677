"""Folders of runs: made, found, read, and damaged."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from core.__main__ import main
from core.runs import jobs, live, run
from core.runs.live import Live
from core.runs.spec import Config
from core.store import atomic
from data.errors import UserError
from data.files.skipped import Group

CONFIG = Config("active-learning", "fashion", "margin", 20, 2)
ABOUT = {"class_names": ["a", "b"], "n_samples": 3, "annotators": "none", "annotators_source": "", "skipped": []}


@pytest.fixture
def one(home):
    return run.create(CONFIG, ABOUT)


def test_runs_of_the_same_second_get_names_of_their_own(home):
    made = {run.create(CONFIG, ABOUT).id for _ in range(3)}
    assert len(made) == 3
    assert [found.id for found in run.all_runs()] == sorted(made, reverse=True)


def test_a_run_is_read_back(one):
    found = run.find(one.id)
    assert found.config == CONFIG
    assert found.about == ABOUT
    assert found.cycles().empty
    assert found.live() == Live()


def test_what_was_left_out_is_counted(home):
    """A run of an earlier version names every file, a later one some of each reason, and how many there are."""
    named = [[f"{i}.png", "cut"] for i in range(7)]
    earlier = run.create(CONFIG, {**ABOUT, "skipped": named}).left_out()
    later = run.create(CONFIG, {**ABOUT, "skipped": named[:3], "skipped_counts": {"cut": 7}}).left_out()
    assert earlier == later == [Group("cut", 7, ["0.png", "1.png", "2.png"])]
    assert run.create(CONFIG, ABOUT).left_out() == []


@pytest.mark.parametrize("changes", [
    {"seed": 10**29}, {"budget": "many"}, {"study": 7}, {"task": "cooking"}, {"earlier": "never"}, {"invented": 1},
])  # fmt: skip
def test_a_configuration_that_cannot_be_is_damaged_and_the_other_runs_are_listed(home, one, changes, capsys):
    broken = run.create(CONFIG, ABOUT)
    content = json.loads((broken.path / "config.json").read_text())
    (broken.path / "config.json").write_text(json.dumps({**content, "config": {**content["config"], **changes}}))
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert one.id in said.out
    assert f"Run {broken.id} cannot be read" in said.err


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB of its own; skips where the system does not let us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("state", ["read-only", "full"])
def test_a_run_on_a_disk_that_takes_nothing_more_is_listed_and_shown(small_disk, tmp_path, monkeypatch, capsys, state):
    shutil.copytree(run.EXAMPLES / "example-random", small_disk / "mine")
    monkeypatch.setenv("NEXTLABEL_HOME", str(small_disk))
    if state == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    else:
        with suppress(OSError), (small_disk / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(1 << 12))
                filler.flush()
    for command in (
        ["list"],
        ["show", "mine"],
        ["export", "mine", "--table", "ranking", "--out", str(tmp_path / "r.csv")],
    ):
        assert main(command) == 0
    assert "mine  active-learning  finished  4 cycles" in capsys.readouterr().out
    assert main(["step", "mine"]) == 2
    said = capsys.readouterr().err
    assert "Cannot write" in said
    assert "delete" not in said


def test_status_without_a_worker(one):
    assert one.status()[0] == "stopped"
    for cycle in range(2):
        one.log.finish(cycle, "score", 1.0, {"n_labels": 20 * cycle})
    assert one.status()[0] == "finished"
    one.log.set_fact("target", 3)
    assert one.status()[0] == "stopped"
    live.write(one.path, Live(error="The disk is full."))
    assert one.status() == ("failed", "The disk is full.")


def test_status_with_a_worker(one):
    with one.lock:
        assert one.status()[0] == "running"
        jobs.pause(one)
        assert one.status()[0] == "pausing"


def test_a_worker_on_its_way_counts_as_running_until_it_is_overdue(one):
    live.write(one.path, Live(starting=time.time()))
    assert one.status() == ("running", "Starting the worker…")
    live.write(one.path, Live(starting=time.time() - live.START_SECONDS - 1))
    assert one.status()[0] == "stopped"


def test_a_worker_whose_process_is_there_is_never_overdue(one):
    """Where the disk is cold, or others keep the machine busy, a minute goes by before it has the lock."""
    asked = time.time() - live.START_SECONDS - 10
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    live.write(one.path, Live(starting=asked, pid=process.pid, pid_start=live.started(process.pid)))
    assert one.status() == ("running", "Starting the worker…")
    jobs.pause(one)
    os.utime(one.path / live.PAUSE, (asked + 5, asked + 5))  # while it was starting
    here = Live(starting=asked, pid=os.getpid(), pid_start=live.started(os.getpid()))
    live.write(one.path, here)
    with one.lock, live.working(one.path, one.log) as worker:
        assert worker.asked_to_pause
    live.write(one.path, Live(starting=asked, pid=process.pid, pid_start=live.started(process.pid)))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert one.status()[0] == "stopped"
    process.communicate()
    assert one.status()[0] == "stopped"


def test_a_worker_that_has_just_the_lock_is_running(one, monkeypatch):
    """It takes the lock between the look at the lock and the one at what it writes."""
    answers = iter([False, True])
    monkeypatch.setattr(live, "is_held", lambda lock: next(answers))
    live.write(one.path, Live(began=time.time()))
    assert one.status()[0] == "running"


def test_a_replay_stops_at_a_cycle(one):
    one.log.append(0, ["x", "y"], np.array([0, 1]), ["reference"] * 2, 0.1)
    one.log.append(1, ["z"], np.array([1]), ["reference"], 0.1)
    assert one.state(["x", "y", "z"], 0)[0].majority.tolist() == [0, 1, -1]
    assert one.state(["x", "y", "z"])[0].majority.tolist() == [0, 1, 1]


@pytest.mark.parametrize("read", [lambda one: one.ranking(0), lambda one: one.posterior(0)])
@pytest.mark.parametrize("content", [None, b"", b"PAR1 cut off"])
def test_missing_and_damaged_scores(one, read, content):
    if content is not None:
        one.cycle_path(0).mkdir()
        for name in ("ranking.parquet", "posterior.npy"):
            (one.cycle_path(0) / name).write_bytes(content)
    with pytest.raises(UserError, match="choose another cycle"):
        read(one)


class Clock(datetime):
    """A clock that goes a second further with every look at it."""

    second = 0

    @classmethod
    def now(cls, tz=None):
        cls.second += 1
        return cls(2026, 1, 1, 12, 0, cls.second, tzinfo=tz)


def test_the_newest_run_comes_first_whatever_its_name(home, monkeypatch):
    monkeypatch.setattr(run, "datetime", Clock)
    made = [run.create(dataclasses.replace(CONFIG, method=method), ABOUT).id for method in ("margin", "egl", "random")]
    assert made[0] == "20260101-120001-fashion-margin-s0"
    assert [found.id for found in run.all_runs()] == made[::-1]


def test_an_empty_home_has_no_run_and_strange_files_are_none(home):
    assert run.all_runs() == []
    (home / "not-a-run").mkdir(parents=True)
    (home / "notes.txt").write_text("")
    assert run.all_runs() == []


@pytest.mark.parametrize("run_id", ["", ".", "..", "../runs", "no-such-run", ".cache"])
def test_only_runs_below_home_are_found(one, home, run_id):
    (home / ".cache").mkdir()
    (home / ".cache" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="There is no run"):
        run.find(run_id)


@pytest.mark.parametrize("read", [lambda one: one.config, lambda one: one.about])
@pytest.mark.parametrize("content", [None, "", '{"config": {"task"', "[1]", "{}", '{"config": 1, "about": 1}'])
def test_a_damaged_configuration_names_the_file_to_restore(one, read, content):
    path = one.path / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"config\.json.*delete"):
        read(one)


def test_a_configuration_of_another_version_is_refused(one):
    path = one.path / "config.json"
    path.write_text(path.read_text().replace('"epochs"', '"rounds"'))
    with pytest.raises(UserError, match=r"config\.json"):
        _ = one.config


def test_cycles_are_those_that_were_scored_with_the_seconds_of_all_their_phases(one):
    one.log.append(0, ["x"], np.array([0]), ["reference"], 0.5)
    one.log.finish(0, "train", 10.0, {"train_loss": 1.0})
    one.log.finish(0, "score", 2.0, {"n_labels": 1, "accuracy": 0.5})
    one.log.append(1, ["y"], np.array([1]), ["reference"], 0.5)
    assert one.cycles().to_dict("records") == [{"cycle": 0, "n_labels": 1, "accuracy": 0.5, "seconds": 12.5}]


def test_labels_of_samples_that_are_gone_name_the_first(one):
    one.log.append(0, ["x", "y"], np.array([0, 1]), ["reference"] * 2, 0.1)
    with pytest.raises(UserError, match=r"first: y.*restore the data"):
        one.state(["x", "z"])


def test_scores_are_read_back_as_they_were_written(one):
    table = pd.DataFrame({"sample_id": ["a", "b"], "rank": pd.array([1, None], dtype="Int64")})
    atomic.write_table(one.cycle_path(3) / "ranking.parquet", table)
    atomic.write_array(one.cycle_path(3) / "posterior.npy", np.float32([[0.25, 0.75]]))
    pd.testing.assert_frame_equal(one.ranking(3), table)
    assert one.posterior(3).tolist() == [[0.25, 0.75]]
