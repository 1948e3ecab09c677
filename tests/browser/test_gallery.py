"""The gallery: the map selects, groups, γ, outcomes, the card of a tile, and images at full size by the keyboard."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, expect

from core.analysis import samples
from core.analysis.samples import Filter
from core.runs import run, settle, spec
from core.runs.run import Run
from core.store import cache
from tests.browser.conftest import Server, Visitor, finished_run, serve, visiting

pytestmark = pytest.mark.browser
LONG = "a class with a name that goes on and on and on " * 2


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with a run of each task, and one on photographs of two shapes that nobody vouches for."""
    import data
    from core.engine import loop

    home = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        finished_run(task="label-cleaning", method="cleaning", budget=60, cycles=2, finetune_epochs=1, noise=0.2)
        finished_run(task="active-learning", method="margin", budget=20, cycles=1, initial=60)
        folder = photographs(home / "photographs")
        pool = data.load("folder", folder)
        small = {"model": "small-cnn", "width": 4, "epochs": 1, "batch_size": 8, "budget": 5, "cycles": 1}
        config = spec.Config(dataset="folder", root=str(folder), task="label-cleaning", method="cleaning", **small)
        loop.work(run.create(settle.prepare(config, pool), settle.about(pool)), pool)
    with serve(home, home / "server.log") as served:
        yield served


def photographs(folder: Path) -> Path:
    """Wide images of one class, tall ones of another with a very long name."""
    for label, size in (("wide", (300, 100)), (LONG.strip(), (100, 300))):
        (folder / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", size, (10 * i, 90, 200)).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture
def guest(chromium: BrowserContext, gallery: Server) -> Iterator[Visitor]:
    with visiting(chromium, gallery.url) as someone:
        yield someone


def of(gallery: Server, name: str) -> Run:
    return Run(next(path.parent for path in gallery.home.glob(f"*{name}*/config.json")))


@pytest.fixture(scope="module")
def cleaned(gallery: Server) -> samples.Samples:
    """What the page is held to: the samples of the last cycle of the cleaning run."""
    import data

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(gallery.home))
        return samples.of_cycle(of(gallery, "fashion-vanilla"), data.load("fashion", limit=400), 1)


def tiles(guest: Visitor) -> Locator:
    return guest.page.locator("button.tile")


def shown(guest: Visitor, n: int) -> list[str]:
    expect(tiles(guest).nth(n - 1)).to_be_visible()
    return [tile.get_attribute("title") or "" for tile in tiles(guest).all()[:n]]


def box(guest: Visitor, share: float, shows: Locator) -> None:
    """Draw a box over the upper share of the map, until what it selects shows."""
    guest.drags(0.003, 0.003, 0.997, share - 0.003, shows)


def test_a_box_on_the_map_selects_and_the_selection_outlives_a_filter(guest, gallery, cleaned):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}")
    expect(guest.page.get_by_text("400 of 400 images")).to_be_visible()
    chip = guest.page.get_by_role("button", name=re.compile(r"^Selected on .*: \d+ ✕"))
    box(guest, 0.5, shows=chip)
    guest.settled()
    selected = int(re.search(r": (\d+)", chip.inner_text())[1])
    assert 0 < selected < 400
    expect(guest.page.get_by_text(f"{selected} of 400 images")).to_be_visible()
    guest.page.get_by_role("button", name=re.compile("^Missed · ")).click()
    guest.page.wait_for_url(re.compile("outcome=missed"))
    guest.settled()
    expect(chip).to_contain_text(f": {selected} ")
    chip.click()
    n = cleaned.counts("outcome")["missed"]
    expect(guest.page.get_by_text(f"{n} of 400 images")).to_be_visible()


@pytest.mark.slow
def test_the_embedding_map_selects_what_lies_inside_of_a_box(guest, gallery, cleaned):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}")
    guest.page.get_by_text("Embedding map", exact=True).click()
    guest.page.wait_for_url(re.compile("plane=embedding"))
    expect(guest.page.get_by_text("that the model finds alike lie close")).to_be_visible()
    expect(guest.page.locator(".cbtitle")).to_have_text(re.compile("Φ"))
    guest.settled()
    chip = guest.page.get_by_role("button", name=re.compile(r"^Selected on .*: \d+ ✕"))
    box(guest, 0.5, shows=chip)  # half of the plot, which is a little higher than the places, −1 … 1
    n = int(re.search(r": (\d+)", chip.inner_text())[1])
    above = [len(cleaned.inside("map-x", "map-y", [([-2, 2, 2, -2], [y, y, 2, 2])], Filter())) for y in (0.2, -0.2)]
    assert above[0] <= n <= above[1]
    assert above[0] < above[1]
    guest.page.reload()  # the address keeps the map, the session's selection is gone
    guest.settled()
    expect(guest.page.locator(".cbtitle")).to_be_visible()
    guest.page.get_by_text("Images", exact=True).first.click()
    guest.page.wait_for_url(re.compile("map=images"))
    expect(guest.page.locator(".plotly .imagelayer image, .plotly .layer-above image").first).to_be_visible()


def test_buttons_count_what_was_corrected_and_missed(guest, gallery, cleaned):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}")
    counts = cleaned.counts("outcome")
    for name in ("corrected", "missed", "wrongly flagged"):
        button = guest.page.get_by_role("button", name=f"{name.capitalize()} · {counts.get(name, 0)}", exact=True)
        expect(button).to_be_visible()
    button.click()
    expect(guest.page.get_by_text(f"{counts.get(name, 0)} of 400 images")).to_be_visible()


@pytest.mark.slow
def test_gamma_reorders(guest, gallery, cleaned):
    one = of(gallery, "fashion-vanilla").id
    guest.open(f"/gallery?run={one}&size=200")
    plain = cleaned.page(Filter(), "cleaning", False, 0, 200)["sample_id"].tolist()
    assert shown(guest, 200) == plain
    slider = guest.page.get_by_role("slider", name="γ of Φ")
    slider.focus()
    for _ in range(6):  # of 0.05
        slider.press("ArrowRight")
    guest.page.wait_for_url(re.compile("gamma=0.3"))
    guest.settled()
    held = cleaned.at_gamma(0.3).page(Filter(), "cleaning", False, 0, 200)["sample_id"].tolist()
    assert held != plain
    expect(tiles(guest).first).to_have_attribute("title", held[0])
    guest.page.wait_for_function(
        "wanted => { const grid = [...document.querySelectorAll('*')].find((e) => e.shadowRoot?.querySelector('.tile'));"
        " return [...grid.shadowRoot.querySelectorAll('.tile')].map((e) => e.title).join() === wanted; }",
        arg=",".join(held),
    )


def test_groups_come_by_size_and_one_can_be_seen_whole(guest, gallery, cleaned):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}")
    guest.page.get_by_role("button", name="Groups", exact=True).or_(
        guest.page.get_by_role("radio", name="Groups", exact=True)
    ).click()
    pairs = cleaned.pairs()
    heads = guest.page.locator("summary")
    expect(heads.first).to_contain_text(f"{pairs['n'][0]} images")
    for place in range(3):
        given, suggested, n = pairs.iloc[place]
        expect(heads.nth(place)).to_have_text(f"{given} ≠ {suggested}{n} image{'' if n == 1 else 's'}")
    heads.nth(1).click()  # closes it
    expect(tiles(guest).nth(5)).not_to_be_visible()
    guest.page.get_by_role("button", name=f"Show all {pairs['n'][0]}").first.click()
    expect(guest.page.get_by_text(f"{pairs['n'][0]} of 400 images")).to_be_visible()
    assert f"given={pairs['given'][0]}".replace(" ", "+") in guest.page.url


@pytest.mark.slow
def test_arrows_move_between_tiles_and_enter_shows_the_card(guest, gallery):
    """And the cycle stays the same: outside of the tiles the arrows would change it."""
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}&cycle=1")
    names = shown(guest, 20)
    tiles(guest).first.focus()
    columns = next(
        i
        for i, tile in enumerate(tiles(guest).all())
        if tile.bounding_box()["y"] > 5 + tiles(guest).first.bounding_box()["y"]
    )
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowDown", "Enter"):
        guest.page.keyboard.press(key)
    expect(guest.page.get_by_test_id("stCode").get_by_text(names[columns], exact=True)).to_be_visible()
    expect(guest.page.get_by_text(re.compile("the model says"))).to_be_visible()
    guest.settled()
    expect(tiles(guest).nth(columns)).to_be_focused()
    expect(tiles(guest).nth(columns)).to_have_attribute("aria-pressed", "true")
    assert "cycle=1" in guest.page.url
    guest.page.get_by_role("button", name="← Close").click()
    expect(guest.page.locator(".plotly .nsewdrag").first).to_be_visible()


def test_an_image_is_enlarged_and_the_arrows_show_the_next(guest, gallery):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}&cycle=1")
    names = shown(guest, 10)
    tiles(guest).nth(1).dblclick()
    status = guest.page.locator(".zoom .status")
    expect(status).to_contain_text(names[1])
    for key, place in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 4), ("ArrowRight", 5), ("ArrowLeft", 4)):
        guest.page.keyboard.press(key)
        expect(status).to_contain_text(names[place])
        expect(status).to_contain_text(f"{place + 1} of 400")
    guest.page.keyboard.press("Escape")
    expect(guest.page.get_by_test_id("stCode").get_by_text(names[4], exact=True)).to_be_visible()
    assert "cycle=1" in guest.page.url


@pytest.mark.slow
def test_the_map_of_images_selects_all_that_lie_in_a_box(guest, gallery, cleaned):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}&map=images")
    pictures = guest.page.locator(".plotly .imagelayer image")
    expect(pictures.first).to_be_visible()
    drawn = pictures.count()
    assert drawn == len(cleaned.mosaic("entropy", "cross-entropy", Filter(), 16, 12)[0]) < 200
    expect(guest.page.get_by_text("Ambiguity H(p) (nats)").first).to_be_visible()
    box(guest, 1, shows=guest.page.get_by_role("button", name="Selected on a figure: 400 ✕"))


@pytest.mark.slow
def test_page_and_size_of_images_survive_a_reload_and_an_order_begins_at_its_first_page(guest, gallery):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}&size=50")
    first = shown(guest, 50)
    guest.page.get_by_role("button", name="Display").click()
    guest.page.get_by_role("slider", name="Size of an image").press("ArrowRight")
    guest.page.wait_for_url(re.compile("tile=144"))
    guest.page.keyboard.press("Escape")
    guest.page.get_by_role("button", name="Page 3", exact=True).click()
    guest.page.wait_for_url(re.compile("page=3"))
    guest.page.reload()
    guest.settled()
    assert not set(shown(guest, 50)) & set(first)
    assert tiles(guest).first.bounding_box()["width"] >= 144
    guest.picks("Order", "Entropy")
    expect(tiles(guest)).to_have_count(50)
    assert "page=" not in guest.page.url


def test_active_learning_says_that_the_reference_label_is_not_seen(guest, gallery):
    guest.open(f"/gallery?run={of(gallery, 'margin').id}")
    expect(guest.page.get_by_text("the reference label, which the strategy does not see").first).to_be_visible()
    expect(guest.page.get_by_role("button", name="Corrected")).to_have_count(0)
    expect(tiles(guest).first.locator(".whose")).to_have_text("ref.")


def test_photographs_keep_their_shape_and_long_names_are_cut(guest, gallery):
    guest.open(f"/gallery?run={of(gallery, 'folder').id}&tile=144")
    for name, ratio in (("wide", 3), (LONG.strip(), 1 / 3)):
        tile = guest.page.get_by_role("button", name=re.compile(f"^{name}")).first
        box = tile.locator(".picture").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.03)
        assert tile.bounding_box()["height"] < 300
    label = tile.locator(".given")
    assert label.get_attribute("title") == LONG.strip()
    tile.dblclick()
    expect(guest.page.locator(".zoom .status")).to_contain_text("100 × 300 pixels")


def test_what_passes_no_filter_says_what_to_do(guest, gallery):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}&q=nobody")
    expect(guest.page.get_by_text("No image passes these filters").first).to_be_visible()


def test_a_narrow_page_shows_the_card_of_the_image_that_is_tapped(chromium, gallery):
    with visiting(chromium, gallery.url, (390, 844)) as visitor:
        visitor.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}")
        expect(tiles(visitor).nth(7)).to_be_visible()
        tiles(visitor).nth(7).click()
        expect(visitor.page.get_by_text(re.compile("the model says"))).to_be_in_viewport(ratio=0.1)


@pytest.mark.slow
def test_a_pruned_cache_is_made_again(guest, gallery):
    guest.open(f"/gallery?run={of(gallery, 'fashion-vanilla').id}")
    before = shown(guest, 20)
    assert len(cache.prune(gallery.home / ".cache", 0, before=math.inf)) > 0
    # Draws the grid alone, which still holds on to the table that went; the choice goes with it
    guest.page.get_by_role("radio", name="Low first").click()
    expect(guest.page.get_by_text("no longer in the cache: load the page again")).to_be_visible()
    guest.page.reload()
    guest.settled()
    guest.chooses("High first")
    expect(tiles(guest).first).to_have_attribute("title", before[0])
    assert shown(guest, 20) == before
