"""The desk for masks: what is drawn is what is saved, pixel for pixel, whatever it is drawn with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from playwright.sync_api import BrowserContext, Page, expect

import data
from core.runs import annotation, run, settle
from core.runs.answers import PREDICTED
from core.runs.run import GIVEN, PERSON, REGIONS, Run
from core.runs.spec import Config
from core.store.log import MASK, SKIPPED, TAKEN_BACK, UNSURE
from data.files import masktext
from data.masks import VOID, colours, narrowed
from tests.browser.conftest import Server, Visitor, serve, visiting

pytestmark = pytest.mark.browser
ASSETS = Path(__file__).parents[2] / "pages" / "ui" / "assets"
HEIGHT, WIDTH, N = 24, 32, 6
NAMES = ["sky", "road", "car", "tree"]
Codes = NDArray[np.uint8]


@dataclass
class Easel:
    """A desk in the browser, and where its pixels are as long as the whole image is shown."""

    page: Page
    height: int = HEIGHT
    width: int = WIDTH

    def places(self, *points: tuple[float, float]) -> list[tuple[float, float]]:
        """Where points of the mask, (column, row), are in the window; (0.5, 0.5) is the centre of the first pixel."""
        box = self.page.locator(".view").bounding_box()
        assert box is not None
        zoom = min(box["width"] / self.width, box["height"] / self.height)
        left = box["x"] + (box["width"] - zoom * self.width) / 2
        top = box["y"] + (box["height"] - zoom * self.height) / 2
        return [(round(left + zoom * column), round(top + zoom * row)) for column, row in points]

    def at(self, column: float, row: float) -> tuple[float, float]:
        return self.places((column, row))[0]

    def strokes(self, *points: tuple[float, float]) -> None:
        first, *others = self.places(*points)
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for place in others:
            self.page.mouse.move(*place, steps=4)
        self.page.mouse.up()

    def clicks(self, *points: tuple[float, float]) -> None:
        for place in self.places(*points):
            self.page.mouse.click(*place)

    def presses(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def size(self, pixels: int) -> None:
        slider = self.page.get_by_label("Brush size in pixels")
        slider.fill(str(pixels))
        slider.blur()

    def sent(self) -> list[dict[str, Any]]:
        """What waits for a server that never answers."""
        return self.page.evaluate("window.sent.list")

    def mask(self) -> Codes:
        """The mask on the table; it is saved."""
        self.presses("Enter")
        return masktext.decode(self.sent()[-1]["mask"], self.height, self.width, len(NAMES))


def image(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "url": "", "guide": None, "given": "", "proposal": "", "box": None, **more}


@pytest.fixture
def mounted(chromium: BrowserContext) -> Iterator[Callable[..., Easel]]:
    """The desk alone in a page, with these images in its queue."""
    page = chromium.new_page()
    page.set_viewport_size({"width": 1000, "height": 800})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def mount(*queue: dict[str, Any]) -> Easel:
        shared = {"place": ["run", "ann", 0], "classes": NAMES, "colours": colours(len(NAMES)), "height": HEIGHT}
        left = {
            "width": WIDTH,
            "said": [],
            "left": len(queue),
            "empty": "",
            "large": False,
            "done": {"tab": "", "number": 0},
        }
        page.set_content((ASSETS / "maskdesk.html").read_text(encoding="utf-8"))
        page.add_style_tag(path=ASSETS / "maskdesk.css")
        page.evaluate(
            """async ([script, data]) => {
                const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
                const { default: mount } = await import(url);
                const setStateValue = (name, value) => { window.sent = value; };
                mount({ parentElement: document.body, data, setStateValue });
            }""",
            [(ASSETS / "maskdesk.js").read_text(encoding="utf-8"), {**shared, **left, "queue": list(queue)}],
        )
        return Easel(page)

    yield mount
    page.close()
    assert complaints == []


def blank() -> Codes:
    return np.full((HEIGHT, WIDTH), VOID, np.uint8)


def centres() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return columns, rows


def disc(column: float, row: float, diameter: int) -> NDArray[np.bool_]:
    x, y = centres()
    return np.hypot(x - column, y - row) <= diameter / 2


def test_a_stroke_covers_the_pixels_whose_centre_is_under_the_brush(mounted):
    easel = mounted(image("1.png"), image("2.png"))
    easel.size(5)
    easel.presses("3")
    easel.strokes((4.5, 6.5), (20.5, 6.5))
    easel.presses("2", "[", "[")
    easel.strokes((8.5, 18.5))
    easel.presses("e", "[", "[")
    easel.strokes((10.5, 2.5), (10.5, 10.5))
    expected = blank()
    for column in range(4, 21):
        expected[disc(column + 0.5, 6.5, 5)] = 2
    expected[disc(8.5, 18.5, 3)] = 1
    expected[2:11, 10] = VOID
    np.testing.assert_array_equal(easel.mask(), expected)
    (action,) = easel.sent()
    assert (action["do"], action["id"], action["number"]) == ("mask", "1.png", 1)
    assert 0 < action["seconds"] < 60
    expect(easel.page.locator(".notice")).to_have_text("2.png · saving 1…")


def test_a_brush_of_even_size_is_centred_between_pixels(mounted):
    easel = mounted(image("1.png"))
    easel.size(4)
    easel.presses("1")
    easel.strokes((12.1, 9.2))
    np.testing.assert_array_equal(easel.mask(), np.where(disc(12, 9, 4), 0, blank()))


@pytest.mark.parametrize("end", ["Enter", "double click", "first point"])
def test_a_polygon_covers_the_pixels_whose_centre_is_inside(mounted, end):
    corners = [(2.2, 3.1), (28.3, 8.4), (11.4, 21.2)]
    easel = mounted(image("1.png"))
    easel.presses("4", "p")
    easel.clicks(*corners)
    if end == "Enter":
        easel.presses("Enter")
    elif end == "double click":
        easel.clicks(corners[-1])
    else:
        easel.clicks(corners[0])
    x, y = centres()
    sides = [
        (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True)
    ]
    expected = np.where(np.all(np.array(sides) > 0, axis=0), 3, blank())
    np.testing.assert_array_equal(easel.mask(), expected)


def test_a_polygon_that_is_given_up_leaves_nothing_and_its_last_point_can_be_taken_back(mounted):
    easel = mounted(image("1.png"))
    easel.presses("1", "p")
    easel.clicks((2, 2), (20, 2), (20, 20))
    easel.presses("Escape")
    easel.clicks((4, 4), (10, 4), (10, 12), (30, 22))
    easel.presses("Control+z")
    easel.clicks((4, 12))
    easel.presses("Enter")
    expected = blank()
    expected[4:12, 4:10] = 0
    np.testing.assert_array_equal(easel.mask(), expected)


def test_fill_stops_where_the_class_changes_and_pixels_that_touch_at_corners_are_not_connected(mounted):
    given = blank()
    given[4:12, 4:12] = 1
    given[12:20, 12:20] = 1
    easel = mounted(image("1.png", given=masktext.encode(given)))
    easel.presses("3", "f")
    easel.clicks((6.5, 6.5))
    given[4:12, 4:12] = 2
    np.testing.assert_array_equal(easel.mask(), given)


def test_fifty_steps_are_undone_and_done_again(mounted):
    easel = mounted(image("1.png"), image("2.png"))
    easel.size(1)
    easel.presses("1")
    dots = [(step % 30 + 0.5, step // 30 + 0.5) for step in range(50)]
    touches(easel, "pen", [(1, what, dot) for dot in dots for what in ("down", "up")])
    easel.presses(*["Control+z"] * 50)
    expect(easel.page.get_by_role("button", name="Undo")).to_be_disabled()
    easel.presses(*["Control+Shift+z"] * 3)
    expected = blank()
    expected[0, :3] = 0
    easel.clicks((31.5, 23.5))  # what was undone is given up
    expected[23, 31] = 0
    expect(easel.page.get_by_role("button", name="Redo")).to_be_disabled()
    np.testing.assert_array_equal(easel.mask(), expected)


def test_an_empty_mask_is_not_saved(mounted):
    easel = mounted(image("1.png"))
    easel.presses("Enter")
    expect(easel.page.locator(".notice")).to_contain_text("Nothing is drawn yet")
    assert easel.page.evaluate("window.sent") is None


def test_what_is_drawn_while_zoomed_lands_under_the_cursor(mounted):
    easel = mounted(image("1.png"))
    easel.size(1)
    easel.presses("2")
    place = easel.at(20.5, 8.5)
    easel.page.mouse.move(*place)
    easel.page.mouse.wheel(0, -600)  # the pixel under the cursor stays there
    easel.page.mouse.click(*place)
    easel.page.keyboard.down("Space")
    easel.page.mouse.down()
    easel.page.mouse.move(place[0] + 90, place[1] + 60, steps=3)
    easel.page.mouse.up()
    easel.page.keyboard.up("Space")
    easel.presses("3")
    easel.page.mouse.click(place[0] + 90, place[1] + 60)  # the same pixel, which was moved there
    easel.presses("Home", "4")
    easel.clicks((0.5, 0.5))
    expected = blank()
    expected[8, 20], expected[0, 0] = 2, 3
    np.testing.assert_array_equal(easel.mask(), expected)


def test_the_class_under_the_cursor_is_picked(mounted):
    given = blank()
    given[:, :16], given[:, 16:] = 0, 2
    easel = mounted(image("1.png", given=masktext.encode(given)))
    easel.size(1)
    easel.page.keyboard.down("Alt")
    easel.clicks((20.5, 5.5))
    easel.page.keyboard.up("Alt")
    expect(easel.page.get_by_role("button", name="car")).to_have_attribute("aria-pressed", "true")
    easel.clicks((3.5, 5.5))
    given[5, 3] = 2
    np.testing.assert_array_equal(easel.mask(), given)


def test_one_finger_or_the_pen_draws_and_two_fingers_move(mounted):
    easel = mounted(image("1.png"))
    easel.size(1)
    easel.presses("1")
    touches(easel, "touch", [(1, "down", (4.5, 4.5)), (1, "move", (8.5, 4.5)), (1, "up", (8.5, 4.5))])
    first, second = (10.5, 10.5), (20.5, 10.5)  # the first finger draws until the second is there
    pinch = [(1, "down", first), (1, "move", (12.5, 10.5)), (2, "down", second), (1, "move", (6.5, 10.5))]
    touches(easel, "touch", [*pinch, (1, "up", (6.5, 10.5)), (2, "move", (25.5, 15.5)), (2, "up", (25.5, 15.5))])
    easel.presses("Home")
    touches(easel, "pen", [(3, "down", (2.5, 20.5)), (3, "up", (2.5, 20.5))])
    touches(easel, "pen", [(3, "down", (4.5, 4.5)), (3, "up", (4.5, 4.5))], button=5)
    expected = blank()
    expected[4, 5:9], expected[20, 2] = 0, 0
    np.testing.assert_array_equal(easel.mask(), expected)


def touches(easel: Easel, kind: str, steps: list[tuple[int, str, tuple[float, float]]], button: int = 0) -> None:
    """Let fingers or a pen, each with its number, go down, move and up at these points of the mask."""
    places = easel.places(*[point for *_, point in steps])
    easel.page.evaluate(
        """([kind, places, button]) => {
            const view = document.querySelector(".view");
            view.setPointerCapture = () => {};   // there is no such finger
            for (const [pointerId, what, clientX, clientY] of places)
                view.dispatchEvent(new PointerEvent("pointer" + what, {
                    pointerId, clientX, clientY, pointerType: kind, button: what === "move" ? -1 : button, bubbles: true }));
        }""",
        [kind, [(pointer, what, *at) for (pointer, what, _), at in zip(steps, places, strict=True)], button],
    )


def test_given_mask_proposal_or_nothing_and_where_the_first_two_differ(mounted):
    given, proposal = blank(), blank()
    given[:, :16], proposal[:, :12] = 0, 0
    pair = {"given": masktext.encode(given), "proposal": masktext.encode(proposal)}
    box = {"sides": [8, 10, 16, 16], "label": 0}
    easel = mounted(
        image("1.png", **pair, box=box), image("2.png", **pair), image("3.png", **pair), image("4.png", **pair)
    )
    expect(easel.page.locator(".guide")).to_have_text("Given mask and proposal differ in 12.5 % of the pixels")
    assert shades(easel, (14, 5), (2, 5), (30, 5)) == [True, True, False]
    easel.presses("d")
    assert shades(easel, (14, 5), (2, 5), (30, 5)) == [True, False, False]
    easel.presses("d", "r")
    easel.page.mouse.move(*easel.at(16.3, 12.3))
    expect(easel.page.locator(".where")).to_have_text("column 13, row 12: sky")  # the middle of the region
    easel.presses("a", "Enter")
    easel.presses("x", "g", "Enter")
    easel.page.get_by_label("Start each image from").select_option("nothing")
    easel.presses("2", "f")
    easel.clicks((1.5, 1.5))  # of the third, which was open already
    easel.presses("Enter", "f")
    easel.clicks((1.5, 1.5))
    easel.presses("Enter")
    third = np.where(given == 0, 1, given)
    masks = [masktext.decode(one["mask"], HEIGHT, WIDTH, 4) for one in easel.sent()]
    for found, expected in zip(masks, [proposal, given, third, np.full_like(given, 1)], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_an_image_starts_from_is_said_where_it_has_no_given_mask(mounted):
    proposal = blank()
    proposal[:, :12] = 0
    easel = mounted(image("1.png", proposal=masktext.encode(proposal)), image("2.png"))
    start = easel.page.locator("select.start")
    assert start.input_value() == "proposal"
    assert start.locator("option:disabled").all_inner_texts() == ["the given mask"]
    np.testing.assert_array_equal(easel.mask(), proposal)  # it is saved, and the next image has neither
    assert start.input_value() == "empty"


def shades(easel: Easel, *pixels: tuple[int, int]) -> list[bool]:
    """Whether the mask colours these pixels, (column, row), where there is no image below it."""
    easel.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = easel.page.locator(".view").bounding_box()
    assert box is not None
    places = easel.places(*[(column + 0.5, row + 0.5) for column, row in pixels])
    return easel.page.evaluate(
        """(places) => {
            const pen = document.querySelector(".view").getContext("2d");
            return places.map(([x, y]) => pen.getImageData(x, y, 1, 1).data[3] > 0);
        }""",
        [(x - box["x"], y - box["y"]) for x, y in places],
    )


@pytest.fixture(scope="module")
def scenes() -> data.ImageDataset:
    return data.load("garments", limit=N)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, scenes: data.ImageDataset) -> Iterator[Server]:
    """A dashboard with one run that lets people check masks. Its ranking and its predictions are made up."""
    home = tmp_path_factory.mktemp("masks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        config = Config(
            task="label-cleaning",
            dataset="garments",
            limit=N,
            method="cleaning",
            budget=0,
            cycles=1,
            annotator="person",
        )
        one = run.create(config, {**settle.about(scenes), "answer": "mask"})
        labels, drawn = one.answer.kept(scenes.labels, one.masks)
        one.log.append(0, scenes.ids, labels, [GIVEN] * N, 0.0, drawn)
        folder = one.cycle_path(0)
        folder.mkdir()
        np.save(folder / PREDICTED, np.zeros(scenes.labels.shape, np.uint8))
        score = np.linspace(1, 0, N)
        columns = {
            "sample_id": scenes.ids,
            "label": 0,
            "rank": np.arange(1.0, N + 1),
            "score": score,
            "cleaning": score,
        }
        pd.DataFrame({**columns, "suggested": 0, "confidence": 0.5}).to_parquet(folder / "ranking.parquet")
        table = pd.DataFrame({"sample_id": scenes.ids, "region": 1, "label": 0, "pixels": 9, "rank": range(N)})
        table.assign(top=30, left=20, bottom=40, right=40).to_parquet(folder / REGIONS)
        one.log.finish(0, "score", 0.0, {"n_labels": 0, "miou": 0.5})
    with serve(home, home / "server.log") as served:
        yield served


@pytest.fixture
def guest(chromium: BrowserContext, studio: Server) -> Iterator[Visitor]:
    with visiting(chromium, studio.url) as someone:
        yield someone


def drawn(one: Run, who: str) -> list[tuple[str, int | Codes]]:
    """What somebody said, in order: of masks their pixels."""
    events = one.log.events(sources=PERSON + who)
    what = [one.masks.read(event.digest) if event.label == MASK else event.label for event in events.itertuples()]
    return list(zip(events["sample_id"], what, strict=True))


@pytest.mark.slow
def test_masks_are_drawn_confirmed_skipped_and_taken_back(guest, studio, scenes):
    one = Run(next(studio.home.glob("*garments*")))
    ids = [scenes.ids[row] for row in annotation.desk(one, one.ranking(0), "ann").queue]
    given = dict(zip(scenes.ids, narrowed(scenes.labels), strict=True))
    guest.open(f"/annotate?run={one.id}&annotator=ann")
    notice, easel = guest.page.locator(".notice"), Easel(guest.page, 64, 64)
    expect(notice).to_have_text(ids[0])
    expect(guest.page.get_by_text("drawn at random")).to_have_count(0)  # of masks all images come by their rank
    easel.presses("r")
    guest.page.mouse.move(*easel.at(32.4, 32.4))
    expect(guest.page.locator(".where")).to_contain_text("column 30, row 35")  # the middle of the region to check
    easel.presses("Home")
    easel.size(1)
    easel.presses("Shift+Digit1")  # the eleventh class
    easel.strokes((2.5, 3.5), (9.5, 3.5))
    easel.presses("Enter", "Enter", "Enter", "s", "u")  # faster than the server answers
    expect(guest.page.get_by_text("3 of 6 annotations · 3 of them yours · 1 skipped · 1 unsure")).to_be_visible()
    expect(notice).to_have_text(ids[5])
    easel.presses("a", "Enter", "Backspace")  # the proposal, and a second thought before it is written down
    easel.presses("Backspace")  # is one too many while that is on its way
    expect(notice).to_have_text(ids[5])
    easel.presses("2")
    easel.strokes((0.5, 0.5))  # over what was taken back
    easel.presses("Enter")
    expect(guest.page.get_by_text("4 of 6 annotations")).to_be_visible()
    first, last, proposal = given[ids[0]].copy(), np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    first[3, 2:10], last[0, 0] = 10, 1
    expected = [(ids[0], first), *((ids[k], given[ids[k]]) for k in (1, 2)), (ids[3], SKIPPED), (ids[4], UNSURE)]
    expected += [(ids[5], proposal), (ids[5], TAKEN_BACK), (ids[5], last)]
    found = drawn(one, "ann")
    assert [sample_id for sample_id, _ in found] == [sample_id for sample_id, _ in expected]
    for (_, is_so), (_, should) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(is_so, should)


@pytest.mark.slow
def test_what_was_drawn_before_is_looked_at_and_corrected_on_a_page_that_was_loaded_again(guest, studio, scenes):
    one = Run(next(studio.home.glob("*garments*")))
    queue = annotation.desk(one, one.ranking(0), "bob").queue
    codes = np.full((64, 64), 3, np.uint8)
    annotation.record_mask(one, scenes.ids[queue[0]], codes, "bob")
    guest.open(f"/annotate?run={one.id}&annotator=bob")
    notice, easel = guest.page.locator(".notice"), Easel(guest.page, 64, 64)
    expect(notice).to_have_text(scenes.ids[queue[1]])
    easel.presses("ArrowLeft")
    expect(notice).to_have_text("Looking back by 1: you drew a mask · → to go on")
    easel.size(1)
    easel.presses("e")
    easel.strokes((2.5, 3.5))
    expect(notice).to_contain_text("and have changed it since · Enter saves")
    easel.presses("Enter")
    expect(notice).to_have_text(scenes.ids[queue[1]])
    (_, before), (_, back), (_, after) = drawn(one, "bob")
    np.testing.assert_array_equal(before, codes)
    codes[3, 2] = VOID
    assert back == TAKEN_BACK
    np.testing.assert_array_equal(after, codes)
