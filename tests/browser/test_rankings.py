"""Rankings in the browser: filters that stay in the address, a table, a brush, a lasso, and the confusion."""

import re
from contextlib import suppress

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


def drag(visitor, left, top, right, bottom, shows):
    """Draw over the first plot, in shares of its width and height, until what follows from it shows.

    A figure that has just been drawn may not listen yet; a person would draw again.
    """
    for patience in (10_000, 10_000, PATIENCE):
        draw(visitor, left, top, right, bottom)
        try:
            return expect(shows).to_be_visible(timeout=patience)
        except AssertionError:
            if patience == PATIENCE:
                raise


def draw(visitor, left, top, right, bottom):
    """A loop for the lasso; a box ends at its last corner."""
    plot = visitor.page.locator(".plotly .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box, before = plot.bounding_box(), None
    while box != before:  # images that load above it move it
        visitor.page.wait_for_timeout(300)
        before, box = box, plot.bounding_box()
    mouse = visitor.page.mouse
    mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    mouse.down()
    for x, y in ((right, top), (left, bottom), (right, bottom)):
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    mouse.up()


def test_filter_sort_and_open_the_card(visitor, cleaning):
    visitor.ticks("Given label", "coat")
    assert "given=coat" in visitor.page.url
    assert 0 < kept(visitor) < 400
    visitor.picks("Sort by", "Entropy")
    says = visitor.page.get_by_text(re.compile(r"labelled coat .* the model says"))
    for patience in (10_000, 10_000, PATIENCE):  # a grid that has just been drawn may not listen yet
        box = visitor.page.get_by_test_id("stDataFrame").first.bounding_box()
        visitor.page.mouse.click(box["x"] + 15, box["y"] + 55)  # the box left of the first row, on a canvas
        with suppress(AssertionError):
            expect(says).to_be_visible(timeout=patience)
            break
    expect(says).to_be_visible()
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
    for first in ("High first", "Low first"):
        box = visitor.page.get_by_test_id("stDataFrame").first.bounding_box()
        visitor.page.mouse.click(box["x"] + 355, box["y"] + 18)  # the grid is a canvas: the header of the first score
        expect(sort).to_have_value("Cleaning score Φ")
        expect(visitor.page.get_by_role("radio", name=first)).to_be_checked()
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
    drag(visitor, 0.4, 0.2, 0.98, 0.8, visitor.page.get_by_role("button", name=re.compile("^Cleaning score")))
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
    drag(visitor, 0.02, 0.02, 0.98, 0.6, chip)
    selected = chip.inner_text()
    visitor.ticks("Given label", "coat")
    expect(chip).to_have_text(selected)
    chip.click()
    expect(chip).to_have_count(0)


def test_a_cell_of_the_confusion_filters(visitor, cleaning):
    visitor.open(cleaning + "&view=confusion")
    plot = visitor.page.locator(".plotly .nsewdrag").first.bounding_box()
    numbers = visitor.page.locator(".plotly .textpoint text").first
    expect(numbers).to_be_visible()
    visitor.page.mouse.click(plot["x"] + plot["width"] * 0.05, plot["y"] + plot["height"] * 0.05)
    visitor.page.wait_for_url(re.compile(r"given=T-shirt&suggested=T-shirt|suggested=T-shirt"))
    expect(visitor.page.get_by_text("400 of 400 images")).to_have_count(0)  # the address changes first
    assert 0 < kept(visitor) < 400
    visitor.page.get_by_role("link", name="See them in the gallery").click()
    visitor.page.wait_for_url(re.compile("gallery.*given=T-shirt"))


def test_no_image_passes_says_what_to_do(visitor, cleaning):
    visitor.open(cleaning + "&q=nothing-is-called-so")
    expect(visitor.page.get_by_text("No image passes these filters")).to_be_visible()
    visitor.open(cleaning + "&range=entropy:x:y&range=nonsense&given=no-such-class")
    expect(visitor.page.get_by_text("No image passes these filters")).to_be_visible()
