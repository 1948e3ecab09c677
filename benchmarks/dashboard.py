"""The dashboard over cleaning runs of 50,000 and 1,000,000 samples: server time of a rerun, memory, a browser's view."""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

import data
from core.posterior import ClassPosterior
from core.runs import questions, run, settle
from core.runs.jobs import ROOT
from core.runs.spec import Config
from core.store import atomic
from data.errors import UserError

PAGES = (
    "app.py",
    "pages/new.py",
    "pages/cycles.py",
    "pages/rankings.py",
    "pages/curves.py",
    "pages/compare.py",
    "pages/diff.py",
    "pages/gallery.py",
    "pages/annotate.py",
    "pages/learn.py",
)
VIEWS: dict[str, tuple[dict[str, str], ...]] = {
    "pages/curves.py": ({}, {"kind": "By their first rankings (Figure 3)"}, {"kind": "What a budget buys"}),
    "pages/rankings.py": ({}, {"view": "confusion"}, {"view": "scatter"}, {"range": "entropy:0.5:1.5"}),
    "pages/gallery.py": ({}, {"plane": "embedding"}, {"size": "200"}),
}
MILLION = 1_000_000
TABS = 10
REPEATS = 7
TILE = "button.tile"
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
    """Print the figures; the run of 50,000 needs CIFAR-10, that of a million is made up."""
    print(f"health address answers after {health():.2f} s")
    with tempfile.TemporaryDirectory() as home:
        os.environ["NEXTLABEL_HOME"] = home
        try:
            dataset = data.load("cifar10")
        except UserError as error:
            print(f"skipped the run of 50,000: {error}")
        else:
            made = run.create(settle.prepare(BIG, dataset), settle.about(dataset))
            subprocess.run([sys.executable, "-m", "core", "resume", made.id], cwd=ROOT, check=True, capture_output=True)
            # A process of its own: this one may hold torch and other measurements
            code = f"from benchmarks import dashboard; dashboard.reruns('{made.id}')"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
            browse(made.id)
    with tempfile.TemporaryDirectory() as home:
        os.environ["NEXTLABEL_HOME"] = home
        for step in ("invent", "million"):  # each a process of its own: the first one holds torch
            code = f"from benchmarks import dashboard; dashboard.{step}()"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def million() -> None:
    """Reruns over the run that `invent` made."""
    big = pool_of_a_million()
    known = data.load
    data.load = lambda *given, **options: known(*given, **options) if options else big  # the examples have a limit
    made = run.all_runs()[0]  # the examples stand behind it
    print(f"\n{MILLION:,} images; resident before the first page {resident('RssAnon'):.0f} MB")
    reruns(made.id)


def pool_of_a_million() -> data.ImageDataset:
    """The embedded images over and over, on disk; their labels and votes in memory."""
    pool, file = data.load("fashion"), Path(os.environ["NEXTLABEL_HOME"]) / "images.npy"
    if not file.exists():
        images = np.lib.format.open_memmap(file, "w+", np.uint8, (MILLION, *pool.images.shape[1:]))
        for start in range(0, MILLION, len(pool)):
            images[start : start + len(pool)] = pool.images[: MILLION - start]
    rows = np.arange(MILLION) % len(pool)
    assert pool.label_counts is not None
    return dataclasses.replace(
        pool,
        ids=[f"image-{row:07}.png" for row in range(MILLION)],
        images=np.load(file, mmap_mode="r"),
        labels=pool.labels[rows],
        label_counts=pool.label_counts[rows],
    )


def invent() -> None:
    """A run of two cycles whose labels, posteriors and map are drawn at random; no model is trained."""
    from core import tsne
    from core.engine.scoring import ranking_table

    pool = pool_of_a_million()
    n, n_classes = len(pool), len(pool.class_names)
    config = settle.prepare(dataclasses.replace(BIG, dataset="fashion", budget=1000), pool)
    made = run.create(config, settle.about(pool))
    task = questions.TASKS[config.task](config, pool)
    random = np.random.default_rng(0)
    for cycle in range(config.cycles):
        sample, given, sources = task.initial()
        if cycle > 0:
            sample = random.choice(n, config.budget, replace=False)
            given, sources = pool.labels[sample], ["votes"] * config.budget
        made.log.append(cycle, [pool.ids[row] for row in sample], given, sources, 1.0)
        logits = random.normal(size=(n, n_classes))
        logits[np.arange(n), pool.labels] += 3
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        state, _, _ = made.state(pool.ids, cycle)
        posterior = ClassPosterior(probs)
        columns, candidates = task.score_columns(state, posterior), np.flatnonzero(task.candidates(state))
        columns |= dict(zip(tsne.COLUMNS, random.uniform(-1, 1, (2, n)).astype(np.float32), strict=True))
        atomic.write_array(made.cycle_path(cycle) / "posterior.npy", probs.astype(np.float32))
        priority, status = task.priority(columns, posterior, candidates), task.status(state, posterior)
        table = ranking_table(pool.ids, state, posterior, columns, config.method, candidates, priority, status)
        atomic.write_table(made.cycle_path(cycle) / "ranking.parquet", table)
        made.log.finish(cycle, "train", 1.0, {"train_loss": 0.0})
        made.log.finish(cycle, "score", 1.0, task.measure(state, made.log.labels(cycle), posterior))


def browse(run_id: str) -> None:
    """What a visitor waits for: a cold first page, what is done in the gallery, and a page while ten tabs are open."""
    from playwright.sync_api import sync_playwright

    with serving() as url, sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(path).exists():
            print("skipped the browser: no Chromium")
            return
        browser = playwright.chromium.launch(executable_path=path)

        def opened(page: str, what: str, number: int = 1, query: str = "") -> float:
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            began = time.perf_counter()
            tab.goto(f"{url}/{page}?run={run_id}{query}")
            tab.locator(what).nth(number - 1).wait_for(timeout=120_000)
            return time.perf_counter() - began

        heading = "h1"
        print(f"browser, cold: Home {opened('', heading):.2f} s")
        print(f"browser, first gallery {opened('gallery', TILE):.2f} s, again {opened('gallery', TILE):.2f} s")
        print(f"browser, gallery, first 24 of 50 images {opened('gallery', TILE, 24, '&size=50'):.2f} s")
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(f"{url}/?run={run_id}")
        link = tab.get_by_test_id("stSidebar").get_by_role("link", name="Gallery", exact=True)
        link.wait_for()
        tab.wait_for_timeout(2000)
        began = time.perf_counter()
        link.click()
        tab.locator(TILE).nth(23).wait_for(timeout=120_000)
        print(f"browser, from Home to the first 24 images of the gallery {time.perf_counter() - began:.2f} s")
        for what, seconds in in_the_gallery(browser.new_page(viewport={"width": 1440, "height": 900}), url, run_id):
            print(f"browser, gallery, {what} {seconds:.2f} s")
        times = [opened("rankings", "[data-testid=stDataFrame]") for _ in range(TABS)]
        print(f"browser, rankings in {TABS} tabs that stay open: first {times[0]:.2f} s, last {times[-1]:.2f} s")
        browser.close()


def in_the_gallery(page: Any, url: str, run_id: str) -> Iterator[tuple[str, float]]:
    """What is done on a gallery that is open, and the seconds until it shows, the median of `REPEATS`."""
    page.goto(f"{url}/gallery?run={run_id}&size=200")
    tiles = page.locator(TILE)
    tiles.nth(199).wait_for(timeout=120_000)

    def seconds(act: Callable[[], None], shown: Callable[[], Any]) -> float:
        page.wait_for_timeout(500)
        began = time.perf_counter()
        act()
        shown()
        return time.perf_counter() - began

    def first_differs(title: str) -> Any:
        script = (
            "title => { const grid = [...document.querySelectorAll('*')].find((e) => e.shadowRoot?.querySelector('.tile'));"
            " const all = grid?.shadowRoot.querySelectorAll('.tile'); return all?.length === 200 && all[0].title !== title; }"
        )
        return page.wait_for_function(script, arg=title, polling=10)

    def turned(act: Callable[[], None]) -> float:
        title = tiles.first.get_attribute("title")
        return seconds(act, lambda: first_differs(title))

    def median(times: list[float]) -> float:
        return float(np.median(times))

    pages = page.get_by_test_id("stPagination")
    yield "next page of 200", median([turned(lambda: pages.get_by_label("Next").click()) for _ in range(REPEATS)])
    ends = [page.get_by_text(text, exact=True) for text in ("Low first", "High first")]
    yield "sorted anew, 200 images", median([turned(ends[k % 2].click) for k in range(REPEATS)])
    name = page.locator(".st-key-gallery-side").get_by_test_id("stCode")
    yield (
        "details of another image",
        median(
            [
                seconds(tiles.nth(k).click, name.get_by_text(tiles.nth(k).get_attribute("title")).wait_for)
                for k in range(REPEATS)
            ]
        ),
    )
    tiles.nth(1).dblclick()
    heading = page.get_by_role("dialog").get_by_text("2 of")
    heading.wait_for()
    steps = [
        seconds(lambda: page.keyboard.press("ArrowRight"), page.get_by_role("dialog").get_by_text(f"{k} of").wait_for)
        for k in range(3, 3 + REPEATS)
    ]
    yield "the next enlarged image", median(steps)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="← Close").click()
    page.get_by_text("Noise map", exact=True).wait_for()
    bar, points = page.locator(".colorbar"), page.locator("[data-testid=stPlotlyChart] .points path")

    def hidden() -> None:
        bar.wait_for(state="detached")
        points.first.wait_for()

    times = []
    for _ in range(REPEATS):
        times.append(seconds(page.get_by_text("Embedding map", exact=True).click, bar.wait_for))
        seconds(page.get_by_text("Noise map", exact=True).click, hidden)
    yield "the embedding map", median(times)


def health() -> float:
    """Seconds until a fresh server answers on its health address, on a warm machine."""
    began = time.perf_counter()
    with serving():
        return time.perf_counter() - began


@contextmanager
def serving() -> Iterator[str]:
    """A dashboard that answers; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def reruns(run_id: str, pages: tuple[str, ...] = PAGES) -> None:
    """Milliseconds of script time per page: the first visit, and the median of reruns that move the cycle to and fro.

    The processor's time tells more than the clock's where other processes are at work.
    """
    print("page                                       first ms  of the CPU  rerun ms")
    for page in pages:
        for query in VIEWS.get(page, ({},)):
            app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=600)
            if page != "app.py":
                app.switch_page(page)
            times, first = [], 0.0
            for repeat in range(1 + 2 * REPEATS):
                app.query_params["run"], app.query_params["cycle"] = run_id, str(repeat % 2)
                for name, value in query.items():
                    app.query_params[name] = value
                began, used = time.perf_counter(), time.process_time()
                app.run()
                times.append(1000 * (time.perf_counter() - began))
                if repeat == 0:
                    first = 1000 * (time.process_time() - used)
                if app.exception:
                    raise RuntimeError(f"{page}: {app.exception}")
            named = " ".join([page, *(f"{name}={value}" for name, value in query.items())])
            print(f"{named:42} {times[0]:8.0f}  {first:10.0f}  {np.median(times[3:]):8.0f}", flush=True)
    print(
        f"memory: {resident('RssAnon'):.0f} MB of its own, {resident('RssFile'):.0f} MB of mapped files (images and libraries)"
    )


def resident(kind: str) -> float:
    """Megabytes of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) / 1024
