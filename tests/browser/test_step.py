"""Stepping in the browser: the time line of the sidebar, a step, a branch, the difference to it, and what a budget buys."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from playwright.sync_api import expect

import data
from core.engine import loop
from core.runs import run, settle
from core.runs.spec import Config
from tests.browser.conftest import PATIENCE, serve, visiting

pytestmark = pytest.mark.browser

CLEANING = Config(
    task="label-cleaning",
    dataset="fashion",
    limit=300,
    method="cleaning",
    budget=30,
    cycles=3,
    noise=0.25,
    model="small-cnn",
    width=4,
    epochs=3,
    batch_size=32,
)
PEOPLE = replace(CLEANING, noise=0.0, annotator="person")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A dashboard, its finished run of label cleaning, and a run that people label."""
    home = tmp_path_factory.mktemp("step")
    pool = data.load("fashion", limit=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        made = [run.create(settle.prepare(config, pool), settle.about(pool)) for config in (CLEANING, PEOPLE)]
        for one in made:
            loop.work(one, pool)
    with serve(home, home / "server.log") as served:
        yield served, *made


@pytest.fixture
def guest(chromium, runs):
    with visiting(chromium, runs[0].url, size=(1440, 1000)) as someone:
        yield someone


@pytest.fixture
def finished(runs):
    return runs[1]


def aside(guest, name, role="button"):
    return guest.page.get_by_test_id("stSidebar").get_by_role(role, name=name, exact=True)


@pytest.mark.slow
def test_first_and_last(guest, finished):
    guest.open(f"/rankings?run={finished.id}&cycle=1")
    aside(guest, "First").click()
    guest.page.wait_for_url(re.compile("cycle=0"))
    guest.settled()
    expect(aside(guest, "First")).to_be_disabled()
    aside(guest, "Last").click()
    guest.page.wait_for_url(re.compile("cycle=2"))
    guest.settled()
    expect(guest.page.get_by_test_id("stSidebar").get_by_text("Correct labels · 60 labels")).to_be_visible()


def test_a_step_from_any_page_is_followed_to_its_end(guest, finished):
    before = len(finished.cycles())
    guest.open(f"/curves?run={finished.id}&cycle=0")
    expect(aside(guest, "Step")).to_have_count(0)  # the next cycle follows the last one
    aside(guest, "Last").click()
    aside(guest, "Step").click()
    expect(guest.page.get_by_text(f"finished · {before + 1} of {before + 1} cycles")).to_be_visible(timeout=PATIENCE)
    guest.page.wait_for_url(re.compile(f"cycle={before}"))
    assert len(finished.cycles()) == before + 1


@pytest.mark.slow
def test_the_top_of_the_ranking_is_seen_before_it_is_taken(guest, finished):
    before = len(finished.cycles())
    spent = int(finished.cycles()["n_labels"].iloc[-1])
    ranked = int(finished.ranking(before - 1)["rank"].notna().sum())
    guest.open(f"/cycles?run={finished.id}&price=0.5&unit=%24")
    guest.page.get_by_role("button", name="Take the top …").click()
    dialog = guest.page.get_by_role("dialog")
    dialog.get_by_text("% of the ranked images").click()
    expect(dialog.get_by_text(f"{round(ranked * 0.05)} of {ranked} ranked images")).to_be_visible(timeout=PATIENCE)
    dialog.get_by_text("Labels", exact=True).first.click()
    field = dialog.get_by_role("spinbutton", name="Labels")
    field.fill("8")
    field.press("Enter")
    expect(dialog.get_by_text(f"8 of {ranked} ranked images")).to_be_visible(timeout=PATIENCE)
    expect(dialog.get_by_test_id("stImageCaption")).to_have_count(8)
    dialog.get_by_role("button", name="Take 8 and train").click()
    expect(guest.page.get_by_text(f"finished · {before + 1} of {before + 1} cycles")).to_be_visible(timeout=PATIENCE)
    guest.settled()
    bar = guest.page.get_by_test_id("stSidebar").get_by_text(f"{spent + 8} of {spent + 8} labels spent · 0 left")
    expect(bar).to_contain_text(f"$ {(spent + 8) / 2:,.2f}")
    for name in ("Curves", "Gallery"):  # and every page knows the price
        guest.go(name)
        expect(bar).to_contain_text(f"$ {(spent + 8) / 2:,.2f}")
    guest.go("Curves")
    guest.chooses("What a budget buys")
    guest.types("Price of a label", "0.25")
    expect(bar).to_contain_text(f"$ {(spent + 8) / 4:,.2f}")
    guest.go("Rankings")
    expect(bar).to_contain_text(f"$ {(spent + 8) / 4:,.2f}")


def test_a_step_that_cannot_be_done_says_why(guest, runs):
    guest.open(f"/gallery?run={runs[2].id}")
    aside(guest, "Step").click()
    expect(guest.page.get_by_text("Nobody has given a label since the last ranking")).to_be_visible(timeout=PATIENCE)
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Gallery")  # and the page stays
    assert len(runs[2].cycles()) == 1


@pytest.mark.slow
def test_a_branch_by_a_random_order_and_its_difference(guest, runs, finished):
    guest.open(f"/rankings?run={finished.id}&cycle=1")
    aside(guest, "Branch from here", "link").click()
    guest.page.get_by_role("button", name="Branch from cycle 1").click()
    guest.picks("Score: which labels first", "Random")
    guest.types("Cycles in all", "3")
    guest.page.get_by_role("button", name="Branch and go on").click()
    expect(guest.page.get_by_text("Branched from")).to_be_visible(timeout=PATIENCE)
    expect(guest.page.get_by_text("finished · 3 of 3 cycles")).to_be_visible(timeout=PATIENCE)
    guest.settled()
    (branch,) = [one for one in map(run.Run, runs[0].home.glob("*-random-*")) if (one.path / "config.json").exists()]
    assert (branch.config.method, branch.config.parent, branch.config.branched_at) == (
        "random",
        finished.id,
        1,
    )
    expect(guest.page.get_by_text("branched at cycle 1")).to_be_visible()

    guest.go("Diff")  # against the run that it left
    assert f"other={finished.id}" in guest.page.url
    expect(guest.page.get_by_role("cell", name="random")).to_be_visible()
    chosen = [set(one.log.labels().query("0 < cycle < 3")["sample_id"]) for one in (branch, finished)]
    alone = len(chosen[0] - chosen[1])
    group = guest.page.get_by_role("radio", name=f"Labelled only by the first ({alone})")
    expect(group).to_be_checked()
    expect(guest.page.get_by_test_id("stImageCaption")).to_have_count(min(alone, 24))
    guest.picks("at cycle", "0")
    guest.page.wait_for_url(re.compile("other_cycle=0"))
    guest.settled()
    shown = guest.page.get_by_text("Labelled since the start").inner_text()
    assert shown.startswith("Labelled since the start: 0 images by both")
    guest.page.reload()
    guest.settled()
    expect(guest.page.get_by_text("Labelled since the start")).to_have_text(shown)
    selected = guest.page.get_by_role("heading", name=re.compile(r"Selected on the figure \(\d+\)"))
    guest.drags(0.02, 0.02, 0.98, 0.98, shows=selected)

    guest.open(f"/diff?run={finished.id}&cycle=2")
    expect(guest.page.get_by_text("branches leave at cycle 1")).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("link", ["other=nobody", "other=example-random", "other_cycle=99", "other_cycle=x", "other="])
def test_odd_links_compare_with_another(guest, finished, link):
    guest.open(f"/diff?run={finished.id}&cycle=1&{link}")
    expect(guest.page.get_by_text("Labelled since the start")).to_be_visible()
    warned = guest.page.get_by_text("names a second run that is not here, or not of these images")
    expect(warned).to_have_count(int(link.startswith("other=")))


def test_a_budget_tells_what_is_reached_and_what_is_not(guest, finished):
    guest.open(f"/curves?run={finished.id}&kind=What+a+budget+buys&target=90&price=30&unit=minutes&budget=60")
    expect(guest.page.get_by_text("60 labels cost 30.0 h")).to_be_visible(timeout=PATIENCE)
    with guest.page.expect_download() as got:
        guest.page.get_by_role("button", name="Export table").click()
        guest.page.get_by_role("button", name=re.compile("^CSV")).click()
    needed = pd.read_csv(got.value.path(), index_col="policy")["labels_for_target"]
    assert needed.index.tolist()[:2] == ["minimal", "oracle"]  # the best first
    assert needed["minimal"] > 0
    assert math.isnan(needed["random"])  # and the page says: not reached


def test_where_nobody_knows_the_right_labels_no_budget_is_planned(guest, runs):
    guest.open(f"/curves?run={runs[2].id}&kind=What+a+budget+buys")
    expect(guest.page.get_by_text("No ground truth is available for these images")).to_be_visible(timeout=PATIENCE)
