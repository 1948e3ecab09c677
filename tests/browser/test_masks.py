"""The gallery of a run on masks: layers over the tiles, the card of an image, one image large with all of its layers."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import serve, visiting

pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_a_visitor_looks_through_the_layers_of_images(chromium, masked, tmp_path):
    newest = sorted(path.parent.name for path in masked.glob("*/config.json"))[-1]
    with serve(masked, tmp_path / "server.log") as served, visiting(chromium, served.url) as visitor:
        visitor.open(f"/gallery?run={newest}")
        tiles, sheet = visitor.page.locator("button.tile"), visitor.page.locator("button.tile .picture")
        expect(tiles).to_have_count(24)
        expect(visitor.page.get_by_text("T-shirt", exact=True).first).to_be_visible()  # the legend
        prediction = sheet.first.get_attribute("style")

        visitor.picks("Layer", "Entropy")
        expect(visitor.page).to_have_url(re.compile("layer=entropy"))
        expect(visitor.page.get_by_text("unsure: ln 11 = 2.40 nats")).to_be_visible()
        expect(sheet.first).not_to_have_attribute("style", prediction)

        visitor.page.reload()
        visitor.settled()
        expect(visitor.page.get_by_text("unsure: ln 11 = 2.40 nats")).to_be_visible()  # the link keeps it

        tiles.nth(2).click()
        visitor.settled()
        expect(visitor.page.get_by_text("Disagreement: where the prediction is not the reference")).to_be_visible()

        tiles.nth(2).dblclick()
        large = visitor.page.get_by_role("dialog")
        expect(large.get_by_text("Prediction", exact=True)).to_be_visible()
        expect(large.get_by_text("3 of 24")).to_be_visible()
        visitor.settled()  # the keys are listened to once it is drawn
        visitor.page.keyboard.press("ArrowRight")
        expect(large.get_by_text("4 of 24")).to_be_visible()
        visitor.settled()
        expect(large.get_by_text("Entropy: dark is sure")).to_be_visible()
