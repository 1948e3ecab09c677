"""The dashboard over a cleaning run of 50,000 samples: seconds to be healthy, server time of a rerun a page, memory."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

import data
from core import run, tasks
from core.jobs import ROOT
from core.run import Config
from data.errors import UserError

PAGES = ("app.py", "pages/cycles.py", "pages/rankings.py", "pages/curves.py", "pages/gallery.py")
REPEATS = 7
BIG = Config(
    task="label-cleaning",
    dataset="cifar10",
    method="cleaning",
    budget=5_000,
    cycles=2,
    noise=0.15,
    model="small-cnn",
    width=4,
    epochs=1,
    finetune_epochs=1,
)


def measure() -> None:
    """Print the figures; the run needs the 50,000 images of CIFAR-10."""
    print(f"health address answers after {health():.2f} s")
    try:
        dataset = data.load("cifar10")
    except UserError as error:
        print(f"skipped the run of 50,000: {error}")
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["NEXTLABEL_HOME"] = home
        made = run.create(tasks.prepare(BIG, dataset), tasks.about(dataset))
        subprocess.run([sys.executable, "-m", "core", "resume", made.id], cwd=ROOT, check=True, capture_output=True)
        # A process of its own: this one may hold torch and other measurements
        code = f"from benchmarks import dashboard; dashboard.reruns('{made.id}')"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def health() -> float:
    """Seconds until a fresh server answers on its health address, on a warm machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1)
                return time.perf_counter() - began
            except OSError:
                time.sleep(0.02)
    finally:
        server.terminate()
        server.wait()


def reruns(run_id: str) -> None:
    """Milliseconds of script time a page: the first visit, and the median of reruns that move the cycle to and fro."""
    print("page               first ms  rerun ms")
    for page in PAGES:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        if page != "app.py":
            app.switch_page(page)
        times = []
        for repeat in range(1 + 2 * REPEATS):
            app.query_params["run"], app.query_params["cycle"] = run_id, str(repeat % 2)
            began = time.perf_counter()
            app.run()
            times.append(1000 * (time.perf_counter() - began))
            if app.exception:
                raise RuntimeError(f"{page}: {app.exception}")
        print(f"{page:18} {times[0]:8.0f}  {np.median(times[3:]):8.0f}")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mb = {name: int(status[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}
    print(f"memory: {mb['RssAnon']:.0f} MB of its own, {mb['RssFile']:.0f} MB of mapped files (images and libraries)")
