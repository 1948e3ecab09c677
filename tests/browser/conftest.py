"""A real Streamlit server and a real Chromium."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, FloatRect, Locator, Page, expect, sync_playwright

from core.engine import loop
from core.runs import run, settle
from core.runs.spec import Config
from tests.browser.dashboard import Server, serve

PATIENCE = 180_000  # ms; the cores may be shared with trainings
expect.set_options(timeout=PATIENCE)
# Nothing moves by itself: each frame of a spinner is drawn by the processor that the tests need
STILL = """() => document.addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = "*, ::before, ::after { animation: none !important; transition: none !important; }";
    document.head.append(style);
})"""


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """Debian's Chromium or Playwright's own, with one cache for all visits. Without one: a failure in CI, a skip elsewhere.

    Preferably its headless shell, which draws no window of its own around a page and is the faster for it.
    """
    with sync_playwright() as playwright:
        names = ("chromium-headless-shell", "chromium")
        path = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(path).exists():
            why = "no Chromium: `make test` installs one, or apt install chromium"
            pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
        # A profile on disk keeps compiled scripts: a page takes three quarters of the time
        profile = tmp_path_factory.mktemp("chromium")
        context = playwright.chromium.launch_persistent_context(profile, executable_path=path, accept_downloads=True)
        context.add_init_script(f"({STILL})()")
        context.add_init_script(path=Path(__file__).with_name("settled.js"))
        yield context
        context.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with one finished run of each task on a part of the embedded data."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        finished_run(task="active-learning", method="entropy-gradnorm", budget=40, cycles=3)
        finished_run(task="label-cleaning", method="cleaning", budget=0, cycles=3, finetune_epochs=1)
    with serve(home, home / "server.log") as served:
        yield served


def finished_run(**settings: object) -> run.Run:
    """A run on 400 images of the embedded data, worked to its end in this process."""
    import data

    pool = data.load("fashion", limit=settings.get("limit", 400))
    config = Config(**{"dataset": "fashion", "limit": 400, "width": 8, "epochs": 8, "batch_size": 32, **settings})
    made = run.create(settle.prepare(config, pool), settle.about(pool))
    loop.work(made, pool)
    return made


@dataclass
class Visitor:
    """A page in the browser, with every complaint of its console."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to a page by its link."""
        self.page.goto(self.url + path)
        self.settled()

    def go(self, name: str) -> None:
        """Go to a page through the sidebar."""
        self.page.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True).click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(
            "NextLabel" if name == "Home" else name, timeout=PATIENCE
        )
        self.settled()

    def settled(self) -> None:
        """Wait until the script has run, and see that it shows no defect."""
        self.page.wait_for_function("which => window.settled(which)", arg=time.monotonic(), timeout=PATIENCE)
        expect(self.page.get_by_text("encountered an error")).to_have_count(0)

    def picks(self, label: str, option: str) -> None:
        """Choose an option of a select box."""
        self.page.get_by_role("combobox", name=label).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.settled()

    def ticks(self, label: str, option: str) -> None:
        """Add an option to a box that takes several, and close it."""
        self.page.get_by_role("combobox", name=label).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.page.keyboard.press("Escape")
        self.settled()

    def chooses(self, option: str) -> None:
        """Choose one of the options that stand side by side."""
        radio = self.page.get_by_role("radio", name=option)
        radio.click()
        expect(radio).to_be_checked()
        self.settled()

    def trains_briefly(self) -> None:
        """Ask under Advanced, on the page New run, for a training of a few steps."""
        self.page.get_by_text("Advanced", exact=True).click()
        self.types("Epochs", "1")
        self.types("Training steps, at least", "20")

    def checks(self, folder: Path, classes: str = "") -> None:
        """Give a folder of one's own on the page New run, and have it checked."""
        self.chooses("A folder on the server")
        self.types("Folder on the server", str(folder))
        if classes:
            self.page.get_by_text("Labels or annotations from a table").click()
            self.types("Classes (optional)", classes)
        self.page.get_by_role("button", name="Check the images").click()
        self.settled()
        expect(self.page.get_by_text("What is there").or_(self.page.get_by_role("alert")).first).to_be_visible()
        self.settled()

    def types(self, label: str, value: str) -> None:
        """Type into a field and leave it. What the page lost, as it was being drawn anew, is typed again."""
        box = self.page.get_by_label(label, exact=True)
        for _ in range(3):
            box.fill(value)
            box.press("Enter")
            self.settled()
            if box.input_value() == value:
                return
        raise AssertionError(f"{label} holds {box.input_value()!r} instead of {value!r}")

    def uploads(self, path: Path, title: str = "", *, stays: bool = True) -> None:
        """Choose a file for an upload, and wait until it is there, unless the page takes it and goes on."""
        self.settled()  # while the page is drawn anew, the field may stand there twice, or lose the file
        field = self.page.get_by_test_id("stFileUploader").filter(has_text=title)
        with self.page.expect_response(lambda answer: "/upload_file/" in answer.url and answer.request.method == "PUT"):
            field.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(path)
        if stays:
            expect(self.page.get_by_text(path.name)).to_be_visible()
            self.settled()

    def repeats(self, act: Callable[[], None], shows: Locator) -> None:
        """Do something with the mouse, until what follows from it shows.

        A figure or a table that has just been drawn may not listen yet; a person would do it again.
        """
        for patience in (20_000, 20_000, PATIENCE):
            act()
            try:
                return expect(shows).to_be_visible(timeout=patience)
            except AssertionError:
                if patience == PATIENCE:
                    raise

    def drags(self, left: float, top: float, right: float, bottom: float, shows: Locator) -> None:
        """Draw over the first figure, in shares of its width and height, until what follows from it shows."""
        self.repeats(lambda: self._drag(left, top, right, bottom), shows)

    def _drag(self, left: float, top: float, right: float, bottom: float) -> None:
        """Draw a loop for the lasso; a box ends at its last corner."""
        box, mouse = self.rests(self.page.locator(".plotly .nsewdrag").first), self.page.mouse
        mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
        mouse.down()
        for x, y in ((right, top), (left, bottom), (right, bottom)):
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        mouse.up()

    def rests(self, what: Locator) -> FloatRect:
        """Where something is in the window, once it moves no longer: images that load above it move it."""
        what.scroll_into_view_if_needed()
        before, box = None, what.bounding_box()
        while box is None or box != before:
            self.page.wait_for_timeout(300)
            before, box = box, what.bounding_box()
        return box

    def picks_row(self, shows: Locator) -> None:
        """Tick the first row of the first table, which is a canvas."""

        def click() -> None:
            box = self.rests(self.page.get_by_test_id("stDataFrame").first)
            self.page.mouse.click(box["x"] + 15, box["y"] + 55)

        self.repeats(click, shows)


@contextmanager
def visiting(
    chromium: BrowserContext, url: str, size: tuple[int, int] = (1440, 900), scheme: Literal["light", "dark"] = "light"
) -> Iterator[Visitor]:
    """A visitor of a dashboard, without what other visitors left. Fails at the end where console or page complained."""
    page = chromium.new_page()
    try:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(color_scheme=scheme)
        # Once: a reload of the page finds what this visitor has left
        page.add_init_script("if (window.name !== 'known') { localStorage.clear(); window.name = 'known'; }")
        page.set_default_timeout(PATIENCE)
        someone = Visitor(page, url)
        watch(page, someone.complaints)
        yield someone
    finally:
        page.close()
        chromium.clear_cookies()
    assert someone.complaints == []


@pytest.fixture
def visitor(chromium: BrowserContext, server: Server) -> Iterator[Visitor]:
    """A visitor at 1440 × 900. Fails at the end where the console or the page complained."""
    with visiting(chromium, server.url) as someone:
        yield someone


def watch(page: Page, complaints: list[str]) -> None:
    """Collect console errors, exceptions and failed requests of a page."""
    page.on(
        "console",
        lambda m: complaints.append(m.text) if m.type == "error" and "404 (Not Found)" not in m.text else None,
    )
    page.on("pageerror", lambda e: complaints.append(str(e)))
    # On a deep link Streamlit's client asks first whether the server lives below that path; a 404 is its answer "no".
    page.on(
        "response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 and not probe(r.url) else None
    )


def probe(url: str) -> bool:
    """Whether this is the client's own search for the server's base path."""
    return url.endswith(("/_stcore/health", "/_stcore/host-config"))
