"""The dashboard over a run of 50,000 samples: seconds to be healthy, server time of a rerun a page, memory."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from streamlit.testing.v1 import AppTest

import data
from core import run, tasks
from core.jobs import ROOT
from core.relabel import Labels, replay
from core.run import Config
from core.store import write_array, write_table
from core.views import ranking_table

N, N_CLASSES = 50_000, 10
PAGES = ("pages/cycles.py", "pages/rankings.py", "pages/curves.py", "pages/gallery.py")
REPEATS = 7


def health() -> None:
    """Seconds until a fresh server answers on its health address, on a warm machine."""
    port = 8597
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.02)
        print(f"health address answers after {time.perf_counter() - began:.2f} s")
    finally:
        server.terminate()
        server.wait()
