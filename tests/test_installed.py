"""The installed package: a wheel of this checkout, outside of it, is whole: command, pages, pictures, examples."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from core.runs.jobs import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder of packages that holds the wheel, as pipx would install it; what it needs is in the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheel", ROOT],
        check=True,
        cwd=folder,
    )
    (wheel,) = (folder / "wheel").glob("nextlabel-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, cwd=folder)
    return folder / "site"


def environment(site: Path, home: Path) -> dict[str, str]:
    """Only the installed package is found, wherever a command is typed."""
    return {**os.environ, "PYTHONPATH": str(site), "NEXTLABEL_HOME": str(home), "PYTHONSAFEPATH": "1"}


def test_a_run_by_the_console_script(installed, tmp_path):
    arguments = "run --task active-learning --dataset fashion --limit 200 --budget 20 --cycles 2 --epochs 1 --json"
    done = subprocess.run(
        [installed / "bin" / "nextlabel", *arguments.split()],
        cwd=tmp_path,
        env=environment(installed, tmp_path / "runs"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [cycle["n_labels"] for cycle in json.loads(done.stdout)["cycles"]] == [20, 40]


def test_the_dashboard_by_the_console_script(installed, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [installed / "bin" / "nextlabel", "app", "--port", str(port)]
    log = (tmp_path / "app.log").open("w+")
    app = subprocess.Popen(command, cwd=tmp_path, env=environment(installed, tmp_path / "runs"), stdout=log, stderr=log)
    try:
        while app.poll() is None:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=60).read()
                break
            except OSError:
                time.sleep(0.1)
        assert app.poll() is None, (tmp_path / "app.log").read_text()
        assert page == b"ok"
    finally:
        app.terminate()
        app.wait()
        log.close()


def test_every_file_that_is_no_code_is_there(installed):
    there = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    tracked = subprocess.run(
        ["git", "ls-files", "core", "data", "pages", ".streamlit"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(tracked) <= there


def test_benchmarks_are_said_to_be_elsewhere(installed, tmp_path):
    done = subprocess.run(
        [installed / "bin" / "nextlabel", "bench"],
        cwd=tmp_path,
        env=environment(installed, tmp_path / "runs"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "come with the source" in done.stderr) == (2, True)
