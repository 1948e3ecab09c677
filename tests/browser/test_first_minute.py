"""An installation in which nothing was ever started: every page shows the example, or says what to do."""

import re

import pytest
from playwright.sync_api import expect

from core.runs import run
from pages.ui.frame import PAGES
from tests.browser.conftest import PATIENCE, serve, visiting

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    home = tmp_path_factory.mktemp("fresh") / "runs"
    with serve(home, home.parent / "server.log") as served:
        yield served


@pytest.fixture
def newcomer(chromium, fresh):
    with visiting(chromium, fresh.url) as someone:
        yield someone


def test_home_says_what_it_is_and_has_three_doors(newcomer):
    newcomer.open("/")
    for door in ("Look at the example", "Start on your own images", "Reproduce the papers"):
        expect(newcomer.page.get_by_role("heading", name=door)).to_be_visible()
    newcomer.page.get_by_role("link", name="Which label to check next").click()
    expect(newcomer.page.get_by_role("heading", level=1)).to_have_text("Gallery")
    expect(newcomer.page.get_by_text("Example", exact=True).first).to_be_visible()
    newcomer.open("/")
    newcomer.page.get_by_test_id("stMain").get_by_role("link", name="Start a run").click()
    expect(newcomer.page.get_by_role("heading", level=1)).to_have_text("New run")
    newcomer.open("/")
    newcomer.page.get_by_role("link", name="Choose one on Compare").click()
    expect(newcomer.page.get_by_role("heading", level=1)).to_have_text("Compare")


@pytest.mark.parametrize(
    "example",
    [
        "example-label-cleaning",
        pytest.param("example-active-learning", marks=pytest.mark.slow),
        pytest.param("example-random", marks=pytest.mark.slow),
    ],
)
def test_every_page_has_something_to_show(newcomer, example):
    newcomer.open(f"/?run={example}&cycle=2")
    for name in PAGES.values():
        newcomer.go(name)
        main = newcomer.page.get_by_test_id("stMain")
        assert len(main.inner_text().split()) > 15, name
        assert main.get_by_text("cannot be read").count() == 0


@pytest.mark.slow
def test_the_example_is_branched_not_changed(newcomer, fresh):
    newcomer.open("/cycles?run=example-label-cleaning&cycle=1")
    expect(newcomer.page.get_by_role("button", name="Step: one cycle")).to_have_count(0)
    newcomer.page.get_by_role("button", name="Branch from cycle 1").click()
    newcomer.types("Cycles in all", "2")
    newcomer.page.get_by_role("button", name="Branch and go on").click()
    expect(newcomer.page.get_by_text("Branched from")).to_be_visible()
    expect(newcomer.page.get_by_text(re.compile("finished · 2 of 2"))).to_be_visible(timeout=3 * PATIENCE)
    (path,) = fresh.home.glob("*/config.json")
    assert run.Run(path.parent).config.parent == "example-label-cleaning"


@pytest.mark.slow
def test_learn_goes_through_both_papers(newcomer):
    newcomer.open("/learn")
    seen = []
    for step in range(1, 8):
        expect(newcomer.page.get_by_text(f"Step {step} of 7")).to_be_visible()
        seen.append(newcomer.page.get_by_test_id("stMain").get_by_role("heading", level=2).first.inner_text())
        if step < 7:
            newcomer.page.get_by_test_id("stMain").get_by_role("button", name="Next").click()
            newcomer.page.wait_for_url(re.compile(f"step={step + 1}"))
            newcomer.settled()
    assert len(set(seen)) == 7
    newcomer.page.reload()
    newcomer.settled()
    expect(newcomer.page.get_by_text("Step 7 of 7")).to_be_visible()


@pytest.mark.slow
def test_play_goes_through_the_cycles_and_stops_at_the_last(newcomer):
    newcomer.open("/rankings?run=example-active-learning&cycle=1")
    expect(newcomer.page.get_by_role("button", name="Play")).to_be_enabled()
    newcomer.page.get_by_role("button", name="Play").click()
    newcomer.page.wait_for_url(re.compile("cycle=3"))
    expect(newcomer.page.get_by_role("button", name="Play")).to_be_visible()
    newcomer.settled()
    newcomer.page.keyboard.press("p")  # again, from the first
    newcomer.page.wait_for_url(re.compile("cycle=0"))
    newcomer.page.keyboard.press("p")
    expect(newcomer.page.get_by_role("button", name="Play")).to_be_visible()
    newcomer.open("/rankings?run=example-active-learning&cycle=3")
    expect(newcomer.page.get_by_role("button", name="Back")).to_be_enabled()
    newcomer.page.keyboard.press("ArrowLeft")
    newcomer.page.wait_for_url(re.compile("cycle=2"))


def test_a_budget_is_planned(newcomer):
    newcomer.open("/curves?run=example-label-cleaning")
    newcomer.chooses("What a budget buys")
    price = newcomer.page.get_by_role("spinbutton", name="Price of a label")
    price.fill("0.5")
    price.press("Enter")
    expect(newcomer.page.get_by_text("cost € 337.50")).to_be_visible()  # half of twice the budget of 3 × 225
    assert "price=0.5" in newcomer.page.url
    newcomer.page.reload()
    newcomer.settled()
    expect(newcomer.page.get_by_text("cost € 337.50")).to_be_visible()


def test_compare_has_the_examples_also_where_the_run_cleans_labels(newcomer):
    newcomer.open("/compare?run=example-label-cleaning")
    study = newcomer.page.get_by_role("combobox", name="Study")
    expect(study).to_have_value("Runs like Example · fashion · entropy-gradnorm · seed 0")
    expect(newcomer.page.get_by_test_id("stPlotlyChart").first).to_be_visible()
