"""What leaves the dashboard: figures at the size of a journal's column, tables that other programs read."""

import io
import re
from xml.etree import ElementTree

import pytest
from PIL import Image
from playwright.sync_api import expect
from pypdf import PdfReader

from pages.ui.frame import PAGES
from tests.browser.conftest import PATIENCE, Visitor

pytestmark = pytest.mark.browser

RUN = "run=example-label-cleaning&cycle=2"
MM = {"Column, 89 mm": 89, "Page, 183 mm": 183}


def downloaded(visitor: Visitor, button: str) -> bytes:
    """The file that a button of an open popover hands out."""
    with visitor.page.expect_download() as got:
        visitor.page.get_by_role("button", name=button, exact=True).click()
    return got.value.path().read_bytes()


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[pytest.mark.slow] * (size != "Column, 89 mm")) for size in MM]
)
@pytest.mark.slow
def test_a_figure_has_the_width_of_a_journals_column(visitor, size):
    visitor.open(f"/curves?{RUN}")
    visitor.page.get_by_role("button", name="Export figure").first.click()
    visitor.chooses(size)
    expect(visitor.page.get_by_label("Text (pt)")).to_be_visible()
    visitor.settled()
    visitor.picks("PNG (dpi)", "600")
    dots = round(MM[size] / 25.4 * 600)
    expect(visitor.page.get_by_text(f"PNG: {dots:,} pixels wide.")).to_be_visible()
    visitor.settled()
    picture = Image.open(io.BytesIO(downloaded(visitor, "PNG")))
    assert picture.width == pytest.approx(dots, abs=1)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    drawn = ElementTree.fromstring(downloaded(visitor, "SVG"))
    assert drawn.get("width") == f"{MM[size]:.2f}mm"
    (page,) = PdfReader(io.BytesIO(downloaded(visitor, "PDF"))).pages
    assert float(page.mediabox.width) / 72 * 25.4 == pytest.approx(MM[size], abs=0.3)
    assert "Correct majority labels" in page.extract_text()
    html = downloaded(visitor, "Interactive HTML").decode()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", html)


LEARNING = "run=example-active-learning&cycle=2"
FIGURES = {  # of each page and view: so many on the example
    f"?{RUN}": 0,
    f"new?{RUN}": 0,
    f"annotate?{RUN}": 0,
    f"cycles?{RUN}": 1,
    f"gallery?{RUN}": 1,
    f"pool?{RUN}": 0,
    f"curves?{RUN}": 1,
    f"curves?{LEARNING}": 1,
    f"curves?{LEARNING}&kind=Influence%20and%20its%20bounds": 2,
    f"compare?{LEARNING}": 4,
    f"diff?{RUN}": 1,
    f"rankings?{RUN}": 1,
    f"rankings?{RUN}&view=confusion": 1,
    f"rankings?{RUN}&view=scatter": 1,
    f"rankings?{RUN}&view=disagreement": 1,
    **{f"learn?step={step}": n for step, n in enumerate((2, 2, 1, 1, 1, 1, 0), start=1)},
}


def test_no_page_is_forgotten():
    names = {"" if path == "app.py" else path.removeprefix("pages/").removesuffix(".py") for path in PAGES}
    assert {path.split("?")[0] for path in FIGURES} == names


@pytest.mark.slow
@pytest.mark.parametrize("path", list(FIGURES))
def test_every_figure_can_be_exported(visitor, path):
    visitor.open(f"/{path}")
    main = visitor.page.get_by_test_id("stMain")
    expect(main.get_by_test_id("stPlotlyChart")).to_have_count(FIGURES[path], timeout=PATIENCE)
    expect(main.get_by_role("button", name="Export figure")).to_have_count(FIGURES[path])


@pytest.mark.slow
def test_the_bars_of_an_image_can_be_exported(visitor):
    visitor.open(f"/rankings?{RUN}")
    visitor.picks_row(shows=visitor.page.get_by_text("annotations (n ="))
    visitor.settled()
    visitor.page.get_by_role("button", name="Export figure").last.click()
    html = downloaded(visitor, "Interactive HTML").decode()
    assert "Share (%)" in html
    assert "the given label in bold" in html
