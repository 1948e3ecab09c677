"""What a user does: start a run, step, go back, filter, select, export."""

import io
import re
import shutil

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect
from pypdf import PdfReader

from core.runs import run
from tests import forked
from tests.browser.conftest import PATIENCE, Visitor, finished_run, serve, visiting

PAGES = ("Home", "New run", "Cycles", "Rankings", "Curves", "Gallery", "Pool", "Compare", "Diff", "Annotate", "Learn")
SMALL = {"task": "label-cleaning", "method": "cleaning", "budget": 0, "cycles": 2, "finetune_epochs": 1}
pytestmark = pytest.mark.browser


def wait_for_cycles(visitor, n, patience=600):
    """Wait until the sidebar counts n finished cycles and the worker has stopped."""
    text = re.compile(rf"(finished|stopped|waits for labels) · {n} (of|cycle)")
    expect(visitor.page.get_by_text(text)).to_be_visible(timeout=1000 * patience)
    visitor.settled()


def download(visitor, button):
    """The bytes behind an export button."""
    with visitor.page.expect_download(timeout=PATIENCE) as got:
        visitor.page.get_by_role("button", name=button, exact=True).click()
    return got.value.path().read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "curve"),
    [("Label next — active learning", "Labelled images"), ("Check next — label cleaning", "Collected labels")],
)
def test_start_step_twice_open_everything(visitor, task, curve):
    visitor.open("/new")
    visitor.chooses(task)
    visitor.types("Cycles", "1")
    visitor.trains_briefly()
    visitor.types("Use at most (images)", "600")
    if "active" in task:
        visitor.types("Labels per cycle", "50")
    visitor.page.get_by_role("button", name="Start run").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Cycles")
    wait_for_cycles(visitor, 1)
    for n in (2, 3):
        visitor.page.get_by_role("button", name="Step: one cycle").click()
        wait_for_cycles(visitor, n)
    expect(visitor.page.get_by_text(curve).first).to_be_visible()
    for name in PAGES:
        visitor.go(name)
        assert "run=" in visitor.page.url


def test_back_and_reload_stand_at_the_same_cycle(visitor, server):
    """The arrow buttons move every page; the URL names run and cycle, and survives a reload."""
    newest = latest(server, "entropy-gradnorm")
    visitor.open(f"/rankings?run={newest}")
    assert f"run={newest}&cycle=2" in visitor.page.url
    visitor.page.get_by_role("button", name="Back").click()
    visitor.page.wait_for_url(re.compile("cycle=1"))
    visitor.settled()
    visitor.go("Gallery")
    assert f"run={newest}&cycle=1" in visitor.page.url
    visitor.page.reload()
    visitor.settled()
    expect(visitor.page.get_by_test_id("stSidebar").get_by_role("slider")).to_have_value("1")
    visitor.page.get_by_test_id("stSidebar").get_by_role("button", name="Next").click()
    visitor.page.wait_for_url(re.compile("cycle=2"))


def test_select_in_the_gallery(visitor, server):
    visitor.open(f"/gallery?run={latest(server, 'vanilla')}&cycle=0")
    tiles = visitor.page.get_by_role("button", name=re.compile("^fashion-train-"))
    expect(tiles.first).to_be_visible()
    assert tiles.count() == 100
    scores = [float(tile.locator(".score").first.inner_text()) for tile in tiles.all()[:20]]
    assert scores == sorted(scores, reverse=True)
    name = tiles.nth(3).get_attribute("title")
    tiles.nth(3).click()
    expect(visitor.page.get_by_text(name, exact=True)).to_be_visible()
    expect(visitor.page.get_by_text(re.compile("the model says"))).to_be_visible()


@pytest.mark.slow
def test_select_on_the_map(visitor, server):
    """A box drawn over the whole map keeps all images in the grid, one over its upper half only the noisy ones."""
    visitor.open(f"/gallery?run={latest(server, 'vanilla')}&cycle=0")
    expect(visitor.page.get_by_text("400 of 400 images")).to_be_visible()
    visitor.drags(0.01, 0.01, 0.99, 0.5, shows=visitor.page.get_by_text("Selected on a figure").first)
    visitor.settled()
    count = visitor.page.get_by_text(re.compile(r"\d+ of 400 images")).inner_text()
    assert 0 < int(count.split(" of ")[0]) < 400


@pytest.mark.slow
def test_every_figure_format_and_table_format(visitor, server):
    newest = latest(server, "vanilla")
    visitor.open(f"/curves?run={newest}")
    visitor.page.get_by_role("button", name="Export figure").click()
    picture = Image.open(io.BytesIO(download(visitor, "PNG")))
    assert picture.size == (1800, 1080)
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 50  # something is drawn
    assert "Correct majority labels" in download(visitor, "SVG").decode()
    assert "Collected labels" in PdfReader(io.BytesIO(download(visitor, "PDF"))).pages[0].extract_text()
    page = download(visitor, "Interactive HTML").decode()
    assert "Plotly.newPlot" in page
    assert not re.search(r'<script[^>]+src="http', page)  # opens without a network
    visitor.open(f"/rankings?run={newest}")
    visitor.page.get_by_role("button", name="Export table").click()
    csv = pd.read_csv(io.BytesIO(download(visitor, "CSV · 400 rows")))
    parquet = pd.read_parquet(io.BytesIO(download(visitor, "Parquet · 400 rows")))
    assert csv["sample_id"].tolist() == parquet["sample_id"].tolist()


@pytest.mark.slow
def test_pause_and_cancel(visitor, server):
    visitor.open("/new")
    visitor.types("Seed", "7")
    visitor.types("Cycles", "9")
    visitor.page.get_by_role("button", name="Start run").click()
    visitor.page.get_by_role("button", name="Pause").click()
    expect(visitor.page.get_by_text(re.compile("stopped · "))).to_be_visible(timeout=3 * PATIENCE)
    visitor.page.get_by_role("button", name="Run to the end").click()
    expect(visitor.page.get_by_text(re.compile("running · "))).to_be_visible()
    visitor.page.get_by_role("button", name="Cancel").click()
    expect(visitor.page.get_by_text(re.compile("Stopped after .* it can go on"))).to_be_visible()


@pytest.mark.slow
def test_a_run_survives_its_server(chromium, tmp_path):
    """The worker is no child of the browser, nor bound to the server: both may go."""
    first = serve(tmp_path / "home", tmp_path / "first.log")
    page = chromium.new_page()
    visitor = Visitor(page, first.url)
    visitor.open("/new")
    visitor.types("Cycles", "3")
    visitor.trains_briefly()
    visitor.types("Training steps, at least", "200")
    visitor.types("Use at most (images)", "1000")
    page.get_by_role("button", name="Start run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cycles")
    first.process.kill()
    first.process.join()
    (path,) = (tmp_path / "home").glob("*-fashion-*")
    one = run.Run(path)
    forked.wait_until(one.is_running)
    second = serve(tmp_path / "home", tmp_path / "second.log")
    try:
        visitor.url = second.url
        visitor.open(f"/cycles?run={one.id}")
        wait_for_cycles(visitor, 3)
        assert one.status()[0] == "finished"
    finally:
        second.process.terminate()
        page.close()


def latest(server, arm):
    """The finished run that the fixture made with this strategy or selector."""
    return sorted(path.parent.name for path in server.home.glob(f"*-{arm}-s0/config.json"))[0]


@pytest.mark.slow
@pytest.mark.parametrize("link", [
    "/cycles?run=no-such-run&cycle=99", "/rankings?run=../../etc", "/gallery?cycle=abc", "/curves?run=&cycle=-1",
    "/gallery?cycle=" + "9" * 5000,
])  # fmt: skip
def test_odd_links_show_a_page_all_the_same(visitor, link):
    visitor.open(link)
    expect(visitor.page.get_by_test_id("stSidebar").get_by_text("cycles").first).to_be_visible()


@pytest.mark.slow
def test_damaged_and_renamed_runs_are_named_and_the_rest_works(chromium, tmp_path):
    """A run without its log, one with a damaged configuration, one whose folder was renamed; and a folder of odd names."""
    home = tmp_path / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        whole, no_log, damaged, renamed = (finished_run(**SMALL, seed=seed) for seed in range(4))
    (no_log.path / "run.sqlite").write_bytes(b"no database, though long enough to be looked at as one")
    (damaged.path / "config.json").write_text("{}")
    renamed.path.rename(home / "my best run")
    with serve(home, tmp_path / "server.log") as server, visiting(chromium, server.url) as visitor:
        page = visitor.page
        visitor.open(f"/?run={whole.id}")
        expect(page.get_by_text(f"Run {damaged.id} cannot be read")).to_be_visible()
        for name in PAGES:
            visitor.go(name)
        visitor.open("/rankings?run=my best run")
        expect(page.get_by_text("400 of 400 images")).to_be_visible()
        visitor.open(f"/cycles?run={no_log.id}")
        expect(page.get_by_text("cannot be read").first).to_be_visible()
        visitor.open(f"/cycles?run={whole.id}")
        shutil.rmtree(whole.path)
        visitor.page.get_by_role("button", name="Step: one cycle").click()
        visitor.settled()


@pytest.mark.slow
def test_a_folder_of_ones_own(chromium, tmp_path):
    """Mistakes are one sentence each; class names with markup are shown as they are."""
    for label, shade in (("<b>bold</b>", 0), ("**x** & y", 200)):
        (tmp_path / "pictures" / label.replace("/", "∕")).mkdir(parents=True)
        for i in range(30):
            Image.new("RGB", (16, 16), (shade, i, 90)).save(
                tmp_path / "pictures" / label.replace("/", "∕") / f"{i}.png"
            )
    (tmp_path / "empty").mkdir()
    with serve(tmp_path / "home", tmp_path / "server.log") as server, visiting(chromium, server.url) as visitor:
        page = visitor.page
        visitor.open("/new")
        for path, says in ((tmp_path / "nowhere", "There is no folder"), (tmp_path / "empty", "no image")):
            visitor.checks(path)
            expect(page.get_by_role("alert").get_by_text(says)).to_be_visible()
        visitor.checks(tmp_path / "pictures")
        visitor.chooses("Check next — label cleaning")
        visitor.trains_briefly()
        page.get_by_role("button", name="Start run").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Annotate")
        visitor.go("Cycles")
        wait_for_cycles(visitor, 1)
        visitor.go("Gallery")
        tile = page.get_by_role("button", name=re.compile("<b>bold<∕b>")).first
        tile.click()
        expect(page.get_by_text(re.compile(r"labelled <b>bold<∕b>|labelled \*\*x\*\* & y")).first).to_be_visible()
        for name in PAGES:
            visitor.go(name)
