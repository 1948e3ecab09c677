"""The whole way of somebody with images of their own: from a folder to a bundle that shows the same figures elsewhere."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from core.runs import run
from tests.browser.conftest import PATIENCE, Visitor, serve, visiting
from tests.browser.test_annotate import strikes
from tests.browser.test_walk import wait_for_cycles

pytestmark = pytest.mark.browser


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """150 images of two kinds that are hard to tell apart at first, one of them unreadable and one there twice."""
    rng = np.random.default_rng(0)
    for k, label in enumerate(("dark", "light")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(75):
            shade = np.clip(rng.normal(100 + 50 * k, 60, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(shade).save(tmp_path / "images" / label / f"{i:02d}.png")
    (tmp_path / "images" / "dark" / "broken.png").write_bytes(b"no picture")
    twice = tmp_path / "images" / "dark" / "00.png"
    (tmp_path / "images" / "light" / "again.png").write_bytes(twice.read_bytes())
    return tmp_path / "images"


def figure(visitor: Visitor) -> str:
    """What the interactive export of the figure on a page draws."""
    visitor.page.get_by_role("button", name="Export figure").first.click()
    with visitor.page.expect_download() as got:
        visitor.page.get_by_role("button", name="Interactive HTML").click()
    page = got.value.path().read_text()
    drawn = page[page.index("Plotly.newPlot(") :]
    visitor.page.keyboard.press("Escape")
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", drawn)  # each page names its place anew


def figures(visitor: Visitor, name: str) -> dict[str, str]:
    """The figures of a run, by page."""
    found = {}
    for page in (
        f"curves?run={name}",
        f"cycles?run={name}&cycle=4",
        f"gallery?run={name}&cycle=3",
        f"rankings?run={name}&cycle=4",
    ):
        visitor.open(f"/{page}")
        found[page] = figure(visitor)
    return found


@pytest.mark.slow
def test_from_a_folder_to_a_bundle_that_shows_the_same_elsewhere(chromium, tmp_path, images):
    with serve(tmp_path / "home", tmp_path / "server.log") as served, visiting(chromium, served.url) as visitor:
        page = visitor.page
        # own folder → check
        visitor.open("/")
        page.get_by_test_id("stMain").get_by_role("link", name="Start a run").click()
        visitor.settled()
        visitor.checks(images)
        expect(page.get_by_text("1 file is left out")).to_be_visible()
        expect(page.get_by_text("2 images are the same as another")).to_be_visible()
        expect(page.get_by_text("In 1 of these groups the labels contradict")).to_be_visible()
        # → run → step 3
        visitor.types("Labels per cycle", "10")
        visitor.types("Cycles", "1")
        visitor.trains_briefly()
        visitor.types("Width", "4")
        page.get_by_role("button", name="Start run").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Cycles")
        wait_for_cycles(visitor, 1)
        for n in (2, 3, 4):
            page.get_by_role("button", name="Step: one cycle").click()
            wait_for_cycles(visitor, n)
        (first,) = [run.Run(path.parent) for path in (tmp_path / "home").glob("*/config.json")]
        # → back
        page.get_by_test_id("stSidebar").get_by_role("button", name="Back").click()
        page.wait_for_url(re.compile("cycle=2"))
        visitor.settled()
        page.keyboard.press("ArrowRight")
        page.wait_for_url(re.compile("cycle=3"))
        # → branch
        page.get_by_role("button", name="Branch from cycle 3").click()
        visitor.picks("Strategy", "Margin (1 − gap)")
        page.get_by_text("People give the labels from here on").click()
        visitor.settled()
        page.get_by_role("button", name="Branch and go on").click()
        page.wait_for_url(lambda url: first.id not in url)
        expect(page.get_by_text("Branched from")).to_be_visible()
        wait_for_cycles(visitor, 4)
        (second,) = [
            one for one in (run.Run(p.parent) for p in (tmp_path / "home").glob("*/config.json")) if one != first
        ]
        assert (second.config.parent, second.config.branched_at) == (first.id, 3)
        # → diff
        visitor.go("Diff")
        expect(page.get_by_text("Labelled since the start: 30 images by both, 0 only by the first")).to_be_visible()
        expect(page.get_by_role("cell", name="margin")).to_be_visible()
        # → annotate 20 by keyboard → next cycle
        visitor.go("Annotate")
        name = page.get_by_role("combobox", name="Annotator")
        name.fill("ann")
        name.press("Enter")
        expect(page.locator(".picture")).to_be_visible()
        shown = [strikes(visitor, "12"[i % 2]) for i in range(20)]
        queue = second.ranking(3).dropna(subset="rank").sort_values("rank")["sample_id"].tolist()[:20]
        assert shown == [Path(name).name for name in queue]  # blind: the folder would give the label away
        page.get_by_role("button", name="Next cycle").click()
        wait_for_cycles(visitor, 5)
        assert second.cycles()["n_labels"].tolist() == [10, 20, 30, 40, 60]
        # → export bundle
        visitor.open(f"/cycles?run={second.id}&cycle=4")
        page.get_by_role("button", name="Whole run").click()
        page.get_by_text("With the images").click()
        visitor.settled()
        with page.expect_download() as got:
            page.get_by_role("button", name="Bundle", exact=True).press("Enter")
        got.value.save_as(tmp_path / "run.zip")
        here = figures(visitor, second.id)
    # → open it in an empty installation → the same figures
    images.rename(tmp_path / "gone")
    with serve(tmp_path / "elsewhere", tmp_path / "elsewhere.log") as empty, visiting(chromium, empty.url) as visitor:
        page = visitor.page
        visitor.open("/")
        page.get_by_text("Open a bundle").click()
        visitor.uploads(tmp_path / "run.zip", stays=False)
        expect(page.get_by_role("heading", level=1)).to_have_text("Cycles", timeout=PATIENCE)
        assert figures(visitor, second.id) == here
