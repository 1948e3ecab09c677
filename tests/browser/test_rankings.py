"""Rankings in the browser: filters that stay in the address, a table, a brush, a lasso, and the confusion."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE
from tests.browser.test_walk import latest

pytestmark = pytest.mark.browser


@pytest.fixture
def cleaning(visitor, server):
    """Stands at the first cycle of the cleaning run; returns its address."""
    address = f"/rankings?run={latest(server, 'vanilla')}&cycle=0"
    visitor.open(address)
    expect(visitor.page.get_by_text("400 of 400 images")).to_be_visible()
    return address


def kept(visitor) -> int:
    """How many images pass the filters, as the page says it."""
    visitor.settled()
    return int(visitor.page.get_by_text(re.compile(r"^\d+ of 400 images")).first.inner_text().split(" of ")[0])


def test_filter_sort_and_open_the_card(visitor, cleaning):
    visitor.ticks("Given label", "coat")
    assert "given=coat" in visitor.page.url
    assert 0 < kept(visitor) < 400
    visitor.picks("Sort by", "Entropy")
    visitor.picks_row(shows=visitor.page.get_by_text(re.compile(r"labelled coat .* the model says")))
    expect(visitor.page.get_by_text("annotations (n =")).to_be_visible()
    visitor.page.get_by_text("Nearest in the model's embedding").click()
    expect(visitor.page.get_by_test_id("stImageCaption")).to_have_count(8)
    visitor.page.get_by_text("Gradient norm by layer").click()
    visitor.page.get_by_role("button", name="Compute (some seconds)").click()
    expect(visitor.page.get_by_text("is the entropy gradient norm")).to_be_visible(timeout=PATIENCE)


def test_the_header_of_a_column_sorts_all_pages(visitor, cleaning):
    """400 images on four pages: a click on a header sorts them all, a second one the other way round."""
    expect(visitor.page.get_by_text("to sort all 400 images by it")).to_be_visible()
    sort = visitor.page.get_by_role("combobox", name="Sort by")
    expect(sort).to_have_value("Rank (taken next first)")

    def click() -> None:
        """On the header of the first score; the grid is a canvas."""
        box = visitor.rests(visitor.page.get_by_test_id("stDataFrame").first)
        visitor.page.mouse.click(box["x"] + 355, box["y"] + 18)

    for first in ("High first", "Low first"):
        visitor.repeats(click, shows=visitor.page.get_by_role("radio", name=first, checked=True))
        expect(sort).to_have_value("Cleaning score Φ")
        visitor.settled()


def test_a_link_brings_filters_along_and_all_are_cleared_at_once(visitor, cleaning):
    visitor.open(cleaning + "&given=coat&given=bag&range=entropy:0.5:2&q=train&kind=clear+noise")
    n = kept(visitor)
    assert 0 < n < 100
    visitor.go("Gallery")
    assert "given=coat&given=bag" in visitor.page.url
    assert kept(visitor) == n
    visitor.go("Rankings")
    visitor.page.get_by_role("button", name=re.compile("^Entropy 0.5 … 2")).click()
    expect(visitor.page.get_by_role("button", name=re.compile("^Entropy 0.5 … 2"))).to_have_count(0)
    assert kept(visitor) >= n
    visitor.page.get_by_role("button", name="Clear all filters").click()
    expect(visitor.page.get_by_text("400 of 400 images")).to_be_visible()
    assert "given" not in visitor.page.url


@pytest.mark.slow
def test_a_box_on_the_histogram_becomes_a_range(visitor, cleaning):
    visitor.drags(0.4, 0.2, 0.98, 0.8, shows=visitor.page.get_by_role("button", name=re.compile("^Cleaning score")))
    visitor.page.wait_for_url(re.compile("range=cleaning"))
    n = kept(visitor)
    assert 0 < n < 400
    visitor.page.reload()
    assert kept(visitor) == n
    visitor.page.get_by_role("button", name=re.compile("^Cleaning score")).click()
    expect(visitor.page.get_by_text("400 of 400 images")).to_be_visible()


def test_a_lasso_keeps_its_images_when_a_filter_changes(visitor, cleaning):
    visitor.open(cleaning + "&view=scatter")
    chip = visitor.page.get_by_role("button", name=re.compile("^Selected on a figure: "))
    visitor.drags(0.02, 0.02, 0.98, 0.6, shows=chip)
    selected = chip.inner_text()
    visitor.ticks("Given label", "coat")
    expect(chip).to_have_text(selected)
    chip.click()
    expect(chip).to_have_count(0)


def test_a_cell_of_the_confusion_filters(visitor, cleaning):
    visitor.open(cleaning + "&view=confusion")
    expect(visitor.page.locator(".plotly .textpoint text").first).to_be_visible()

    def click() -> None:
        """On the first cell, in the corner at the top left."""
        plot = visitor.rests(visitor.page.locator(".plotly .nsewdrag").first)
        visitor.page.mouse.click(plot["x"] + plot["width"] * 0.05, plot["y"] + plot["height"] * 0.05)

    visitor.repeats(click, shows=visitor.page.get_by_text(re.compile(r"^(?!400 )\d+ of 400 images")))
    assert "suggested=T-shirt" in visitor.page.url
    assert 0 < kept(visitor) < 400
    visitor.page.get_by_role("link", name="See them in the gallery").click()
    visitor.page.wait_for_url(re.compile("gallery.*given=T-shirt"))


def test_no_image_passes_says_what_to_do(visitor, cleaning):
    visitor.open(cleaning + "&q=nothing-is-called-so")
    expect(visitor.page.get_by_text("No image passes these filters")).to_be_visible()
    visitor.open(cleaning + "&range=entropy:x:y&range=nonsense&given=no-such-class")
    expect(visitor.page.get_by_text("No image passes these filters")).to_be_visible()
