"""The live state: kept, read without a lock, on a disk that is full, and of runs that earlier versions made."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from core.runs import live, run
from core.runs.live import Death, Live
from core.runs.spec import Config
from data.errors import UserError

CONFIG = Config("active-learning", "fashion", "margin", 20, 2)
ABOUT = {"class_names": ["a", "b"], "n_samples": 3, "annotators": "none", "annotators_source": "", "skipped": []}


@pytest.fixture
def one(home):
    return run.create(CONFIG, ABOUT)


def at_work(one, cycle=1, phase="train"):
    """A worker that was ended in a phase, by something that Python could not write down."""
    with one.lock, live.working(one.path, one.log) as worker:
        worker.begin(cycle, phase)
        left = (one.path / live.FILE).read_bytes()
    (one.path / live.FILE).write_bytes(left)


def test_what_is_written_is_read(one):
    said = Live("train", 2, 0.5, 3.0, error="Oh.", pid=7, pid_start="now", deaths=(Death(0, "train", ""),))
    live.write(one.path, said)
    with one.lock:
        (one.path / live.PAUSE).touch()
        assert one.live() == dataclasses.replace(said, running=True, asked_to_pause=True)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"cycle": 1, "ph',
        "[1]",
        "7",
        '{"deaths": [{"of": 1}]}',
        '{"later": 1}',
        '{"phase": "lunch"}',
        '{"share": "x"}',
    ],
)
def test_what_is_cut_off_or_of_another_kind_says_nothing(one, content):
    (one.path / live.FILE).write_text(content)
    assert one.live() == Live()


def test_a_worker_that_explains_a_sample_says_which(one):
    with one.lock, live.working(one.path) as worker:
        worker.begin(1, live.EXPLAIN, "odd, name")
        assert (one.live().phase, one.live().sample, one.live().running) == ("explain", "odd, name", True)
    assert (one.live().phase, one.live().sample, one.live().running) == ("", "odd, name", False)


def test_a_worker_is_followed_from_phase_to_phase(one):
    with one.lock, live.working(one.path, one.log) as worker:
        worker.begin(1, "train")
        worker.reported = 0.0  # long ago
        worker.progress(0.25)
        worker.progress(0.5)  # at once: not worth a file
        now = one.live()
        assert (now.running, now.cycle, now.phase, now.share, now.pid) == (True, 1, "train", 0.25, os.getpid())
        assert now.seconds_left == pytest.approx(3 * worker.seconds(), abs=1)
        worker.end(waiting="Somebody has to label.")
    assert one.live() == dataclasses.replace(
        now, running=False, phase="", share=0, seconds_left=None, waiting=one.status()[1]
    )
    assert one.status() == ("stopped", "Somebody has to label.")


def test_how_often_a_worker_died_in_a_phase_is_counted(one):
    for times in ("", ", for the second time in the same phase", ", for the third time in the same phase"):
        at_work(one)
        death = one.live().death
        assert (
            f"Its worker was killed, most likely for lack of memory, or the computer went down, in cycle 1, phase train{times}"
            in death
        )
        assert ("smaller batches" in death) == bool(times)
    at_work(one, phase="score")
    assert "time in the same phase" not in one.live().death
    assert [death.phase for death in one.live().deaths] == ["train", "train", "train", "score"]


def test_a_run_of_an_earlier_version_tells_how_its_last_worker_ended(one):
    (one.path / "progress.json").write_text(
        json.dumps({"cycle": 1, "phase": "train", "share": 0.5, "seconds_left": 9.0})
    )
    (one.path / live.CRASH).write_text("Fatal Python error: Segmentation fault\n")
    (one.path / "worker.pid").write_text("123")
    one.log.set_fact("deaths", [[1, "train", "signal 7 (bus error)"]])
    one.log.set_fact("error", None)
    one.log.set_fact("starting", 0.0)
    found = one.live()
    assert found.deaths == (
        Death(1, "train", "signal 7 (bus error)"),
        Death(1, "train", "signal 11 (segmentation fault)"),
    )
    assert found.pid == 123
    assert "for the second time" in one.status()[1]
    with one.lock, live.working(one.path, one.log):
        assert one.live().deaths == found.deaths  # and this version goes on counting
    assert not (one.path / "progress.json").exists()
    assert one.live().death == ""


def test_the_error_of_a_run_of_an_earlier_version_is_said_until_it_goes_on(one):
    one.log.set_fact("error", "The disk is full.")
    assert one.status() == ("failed", "The disk is full.")
    with one.lock, live.working(one.path, one.log):
        pass
    assert one.status()[0] == "stopped"


def test_what_keeps_a_worker_from_beginning_is_said(one):
    with pytest.raises(UserError, match="images are gone"), live.noting_error(one.path, one.log):
        raise UserError("The images are gone.")
    assert one.status() == ("failed", "The images are gone.")


def test_a_worker_is_not_marked_by_another_that_cannot_begin(one):
    with one.lock, live.working(one.path, one.log):
        with pytest.raises(UserError), live.noting_error(one.path, one.log):
            raise UserError("The images are gone.")
        assert one.live().error == ""


def test_on_a_full_disk_the_last_word_is_still_written(one, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with one.lock, live.working(one.path, one.log) as worker:
        monkeypatch.setattr(os, "replace", full)
        worker.begin(0, "train")
        assert one.live().phase == "train"
        worker.end(error="Cannot write.")
    assert one.status() == ("failed", "Cannot write.")
    assert not list(one.path.glob(".*.part"))
    (one.path / live.FILE).unlink()
    with pytest.raises(UserError, match=r"Cannot write to .*No space left"):
        live.write(one.path, Live())


def test_the_process_of_a_worker_is_stopped_and_no_other_of_its_number():
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    here = Live(pid=sleeper.pid, pid_start=live.started(sleeper.pid))
    for other in (dataclasses.replace(here, pid_start="1"), Live(), Live(pid=2**22 + 1, pid_start="1")):
        with pytest.raises(UserError, match=r"cannot be stopped .* on another machine"):
            live.terminate(other, "run x")
    assert sleeper.poll() is None
    live.terminate(here, "run x")
    assert sleeper.wait(10) == -15
