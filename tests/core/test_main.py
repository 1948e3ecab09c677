"""The command line: its objects, files and exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.__main__ import main
from core.runs import jobs, run, settle
from tests import forked

TINY = ["--dataset", "fashion", "--limit", "300", "--width", "4", "--epochs", "1"]
LEARNING = ["run", "--task", "active-learning", "--budget", "20", "--cycles", "2", *TINY]


def objects(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A home with a finished run of two cycles; each test works on a copy."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(folder))
        assert main(LEARNING) == 0
    return folder


@pytest.fixture
def finished(home, done):
    """The name of a finished run."""
    shutil.copytree(done, home)
    return run.all_runs()[0].id


def test_run_prints_one_object_a_seed(home, capsys):
    assert main([*LEARNING, "--seed", "0", "1", "--json"]) == 0
    first, second = objects(capsys)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["task"] == "active-learning"
    assert [c["cycle"] for c in first["cycles"]] == [0, 1]
    assert [c["n_labels"] for c in first["cycles"]] == [20, 40]
    assert all(0 <= c["accuracy"] <= 1 for c in first["cycles"])
    assert first["auc"] == pytest.approx(sum(c["accuracy"] for c in first["cycles"]) / 2)
    assert first["auc_normalised"] is None


def test_cleaning_prints_correctness_and_both_areas(home, capsys):
    assert (
        main(
            ["run", "--task", "label-cleaning", "--score", "oracle", "--cycles", "2", "--noise", "0.2", *TINY, "--json"]
        )
        == 0
    )
    (found,) = objects(capsys)
    assert found["cycles"][0]["correctness"] < found["auc"] < found["cycles"][1]["correctness"]
    assert 0.9 < found["auc_normalised"] < 1.1  # the oracle itself, with its own votes


@pytest.mark.parametrize(
    ("options", "score"),
    [
        (["--votes"], settle.VOTES_SCORE),
        (["--votes", "--score", "cleaning"], "cleaning"),
        (["--votes", "--noise", "0.2"], "cleaning"),  # wrong labels that are made up, one an image
        ([], "cleaning"),
    ],
)
def test_labels_that_several_people_gave_are_ranked_by_their_probability(home, tmp_path, options, score):
    ids = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(6)]
    for i, sample_id in enumerate(ids):
        (tmp_path / "images" / sample_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * i).save(tmp_path / "images" / sample_id)
    rows = [f"{sample_id},{who},{sample_id[:3]}\n" for sample_id in ids for who in ("ann", "bob")]
    (tmp_path / "votes.csv").write_text("sample_id,annotator,label\n" + "".join(rows))
    given = [part for one in options for part in ([one, str(tmp_path / "votes.csv")] if one == "--votes" else [one])]
    folder = ["--dataset", "folder", "--root", str(tmp_path / "images"), "--width", "4", "--epochs", "1"]
    assert main(["run", "--task", "label-cleaning", *folder, *given]) == 0
    (found,) = run.all_runs()
    assert found.config.method == score


def test_step_adds_a_cycle_and_show_and_list_read_it(finished, capsys):
    assert main(["step", finished, "--json"]) == 0
    assert len(objects(capsys)[0]["cycles"]) == 3
    assert main(["show", finished]) == 0
    assert "60 labels, test accuracy" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["status"], row["cycles"]) == (finished, "finished", 3)


def test_a_step_can_take_another_number_of_labels(finished, capsys):
    before = run.find(finished).cycles()["n_labels"].iloc[-1]
    assert main(["step", finished, "--labels", "7", "--json"]) == 0
    assert objects(capsys)[0]["cycles"][-1]["n_labels"] == before + 7


def test_resume_until_no_cycle_is_refused(finished, capsys):
    assert main(["resume", finished, "--until", "0"]) == 2
    assert "--until is 0: give the number of cycles to stop at" in capsys.readouterr().err


def test_resume_stops_where_it_is_told_to(home, capsys):
    assert main([*LEARNING, "--cycles", "1"]) == 0
    one = run.all_runs()[0]
    one.log.set_fact("target", 3)
    assert main(["resume", one.id, "--until", "2"]) == 0
    assert len(one.cycles()) == 2


def test_resume_of_a_finished_run_changes_nothing(finished, home, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in (home / finished).rglob("*.parquet"))
    assert main(["resume", finished]) == 0
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (home / finished).rglob("*.parquet"))


@pytest.mark.parametrize(
    ("what", "name", "start"),
    [
        (["--figure", "curves"], "c.png", b"\x89PNG"),
        (["--figure", "curves"], "c.svg", b"<svg"),
        (["--figure", "map", "--cycle", "0"], "m.pdf", b"%PDF"),
        (["--figure", "distribution"], "d.html", b"<!doctype html>"),
        (["--table", "ranking"], "r.parquet", b"PAR1"),
        (["--table", "labels"], "l.csv", b"seq,cycle"),
        (["--table", "cycles"], "y.csv", b"cycle,n_labels"),
    ],
)
@pytest.mark.browser
def test_export(finished, tmp_path, what, name, start):
    assert main(["export", finished, *what, "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_exported_ranking_reads_back(finished, tmp_path):
    main(["export", finished, "--table", "ranking", "--out", str(tmp_path / "r.parquet")])
    table = pd.read_parquet(tmp_path / "r.parquet")
    assert len(table) == 300
    assert {"sample_id", "rank", "given", "suggested", "entropy-gradnorm", "entropy", "margin"} <= set(table.columns)


def test_datasets_says_what_each_needs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path))
    assert main(["datasets"]) == 0
    text = capsys.readouterr().out
    assert "fashion    ready" in text
    assert "cifar10    missing" in text
    assert "cifar10h-counts.npy" in text


def test_interrupting_exits_with_130_and_resume_goes_on(home):
    command = [sys.executable, "-m", "core", *LEARNING[:-2], "--epochs", "300"]
    worker = subprocess.Popen(command, cwd=jobs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    forked.wait_until(lambda: list(home.glob("*/live.json")))
    time.sleep(1)
    worker.send_signal(signal.SIGINT)
    _, errors = worker.communicate()
    assert worker.returncode == 130
    assert "resume" in errors
    assert "Traceback" not in errors


def test_a_defect_exits_with_1(home, monkeypatch, capsys):
    monkeypatch.setattr("core.runs.settle.prepare", lambda *_: 1 / 0)
    assert main(LEARNING) == 1
    assert "this is an internal error" in capsys.readouterr().err


def test_reading_commands_do_not_import_torch(finished):
    code = (
        "import sys, core.__main__ as m; m.main(['list']); m.main(['show', sys.argv[1]])\n"
        "try: m.main(['run', '--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ}
    assert (
        subprocess.run([sys.executable, "-c", code, finished], cwd=jobs.ROOT, env=environment, check=False).returncode
        == 0
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty images in two class folders."""
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "data"))
    for number in range(20):
        path = tmp_path / "photos" / ("dark", "light")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 100 * (number % 2) + number, np.uint8)).save(path)
    return ["--dataset", "folder", "--root", str(tmp_path / "photos"), "--width", "4", "--epochs", "1", "--folds", "2"]


def test_people_check_every_image_of_a_folder_and_the_command_line_says_so(home, folder, capsys):
    assert main(["run", "--task", "label-cleaning", *folder]) == 0
    said = capsys.readouterr()
    assert "20 images in the pool, none set aside to test on." in said.err
    assert "model agrees" in said.out
    (one,) = run.all_runs()[:1]
    assert (one.config.test_share, one.config.folds) == (0.0, 2)
    assert one.ranking(0)["rank"].notna().sum() == 20


def test_what_is_held_out_is_said(home, folder, capsys):
    assert main(["run", "--task", "label-cleaning", "--test-share", "0.2", *folder]) == 0
    said = capsys.readouterr()
    assert "16 images in the pool, 4 held out to test on: these are neither ranked nor checked" in said.err
    assert "test accuracy, noisy labels" in said.out


def test_an_export_says_which_annotations_no_training_has_seen(home, folder, capsys, tmp_path):
    assert main(["run", "--task", "label-cleaning", *folder]) == 0
    (one,) = run.all_runs()[:1]
    ids = one.ranking(0)["sample_id"].tolist()[:3]
    (tmp_path / "said.csv").write_text("sample_id,annotator,label\n" + "".join(f"{i},ann,light\n" for i in ids))
    assert main(["import", one.id, str(tmp_path / "said.csv")]) == 0
    assert main(["export", one.id, "--table", "cleaned", "--out", str(tmp_path / "cleaned.csv")]) == 0
    assert "3 annotations since the last training are exported too." in capsys.readouterr().err
    cleaned = pd.read_csv(tmp_path / "cleaned.csv").set_index("sample_id")
    assert (cleaned.loc[ids, "name"] == "light").all()
    assert cleaned["n_untrained"].sum() == 3


@pytest.mark.parametrize("lines", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_goes_on_when_the_reader_of_its_progress_has_enough(home, lines):
    command = [sys.executable, "-m", "core", *LEARNING]
    worker = subprocess.Popen(command, cwd=jobs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for _ in range(lines):
        worker.stdout.readline()
    worker.stdout.close()
    assert worker.wait() == 0
    (one,) = run.all_runs()
    assert one.status() == ("finished", "2 cycles done.")
