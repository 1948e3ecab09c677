"""Labelling in the browser: keys, undo, skip, unsure, blind or shown, two annotators, and the cycle that trains on them."""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, expect

import data
from core.runs import run, settle
from core.runs.run import PERSON, Run
from core.runs.spec import Config
from core.store.log import SKIPPED, TAKEN_BACK, UNSURE
from tests.browser.conftest import PATIENCE, Server, Visitor, finished_run, serve, visiting

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with one run of each task that asks people, and one that does not."""
    home = tmp_path_factory.mktemp("annotate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        finished_run(task="active-learning", method="margin", budget=20, cycles=1, initial=40, annotator="person")
        finished_run(task="label-cleaning", method="cleaning", budget=0, cycles=1, annotator="person")
        finished_run(task="active-learning", method="random", budget=20, cycles=1)
    with serve(home, home / "server.log") as served:
        yield served


@pytest.fixture
def guest(chromium: BrowserContext, desk: Server) -> Iterator[Visitor]:
    with visiting(chromium, desk.url) as someone:
        yield someone


def of(desk: Server, method: str) -> Run:
    return Run(next(path.parent for path in desk.home.glob(f"*{method}*/config.json")))


def strikes(visitor: Visitor, key: str) -> str:
    """Strike a key at the desk and wait until it is written down; returns the image that was shown."""
    notice = visitor.page.locator(".notice")
    expect(notice).not_to_be_empty(timeout=PATIENCE)
    before = notice.inner_text()
    visitor.page.keyboard.press(key)
    expect(notice).not_to_have_text(before, timeout=PATIENCE)
    expect(notice).not_to_contain_text("saving", timeout=PATIENCE)
    return before


def said(one: Run, who: str) -> list[tuple[str, int]]:
    events = one.log.events(sources=PERSON + who)
    return list(zip(events["sample_id"], events["label"], strict=True))


def test_twenty_images_by_keyboard_then_the_next_cycle_trains_on_them(guest, desk):
    one = of(desk, "margin")
    ranked = one.ranking(0).dropna(subset="rank").sort_values("rank")["sample_id"].tolist()
    guest.open(f"/annotate?run={one.id}")
    expect(guest.page.get_by_text("Say who you are")).to_be_visible()
    name = guest.page.get_by_role("combobox", name="Annotator")
    name.fill("Ann <b>*1*</b>")
    name.press("Enter")
    expect(guest.page.locator(".picture")).to_be_visible()
    assert "annotator=Ann" in guest.page.url
    expect(guest.page.get_by_role("button", name="Next cycle")).to_be_disabled()
    shown = [strikes(guest, "1234567890"[i % 10]) for i in range(18)]
    assert shown == ranked[:18]
    assert strikes(guest, "s") == ranked[18]
    assert strikes(guest, "u") == ranked[19]
    strikes(guest, "z")  # no longer unsure
    strikes(guest, "z")  # no longer skipped
    strikes(guest, "Backspace")  # nor is the last vote there
    expect(guest.page.locator(".notice")).to_have_text(ranked[17])
    expect(guest.page.get_by_text("17 of 20 annotations")).to_be_visible()
    for key in ("5", "6"):
        strikes(guest, key)
    guest.page.locator(".class", has_text="bag").click()
    expect(guest.page.get_by_text("20 of 20 annotations")).to_be_visible()
    guest.page.keyboard.press("ArrowLeft")
    expect(guest.page.locator(".notice")).to_contain_text("Looking back by 1: you said bag")
    guest.page.keyboard.press("0")  # a second thought
    expect(guest.page.locator(".last")).to_contain_text("Just now: ankle boot")
    expect(guest.page.locator(".notice")).to_have_text(ranked[20])
    votes = [(ranked[i], i % 10) for i in range(17)]
    expected = [*votes, (ranked[17], 7), (ranked[18], SKIPPED), (ranked[19], UNSURE)]
    expected += [(ranked[i], TAKEN_BACK) for i in (19, 18, 17)]
    expected += [(ranked[17], 4), (ranked[18], 5), (ranked[19], 8), (ranked[19], 9)]
    assert said(one, "Ann <b>*1*</b>") == expected
    guest.page.get_by_role("button", name="Next cycle").click()
    expect(guest.page.get_by_text("waits for labels · 2 cycles")).to_be_visible(timeout=2 * PATIENCE)
    guest.settled()  # until then what the page showed before may stand there too
    expect(guest.page.get_by_text("0 of 20 annotations · 0 of them yours")).to_be_visible()
    assert one.cycles()["n_labels"].tolist() == [40, 60]
    assert one.ranking(1).set_index("sample_id").loc[ranked[19], "label"] == 9
    guest.settled()
    guest.page.get_by_role("link", name="See it on Cycles").click()
    expect(guest.page.get_by_role("heading", name="What each cycle did")).to_be_visible()


@pytest.mark.slow
def test_labels_are_checked_blind_or_with_guidance_and_two_people_are_compared(guest, desk, chromium):
    one = of(desk, "vanilla")
    ranked = one.ranking(0).dropna(subset="rank").sort_values("rank")["sample_id"].tolist()
    guest.open(f"/annotate?run={one.id}&annotator=ann")
    expect(guest.page.locator(".notice")).to_have_text(ranked[0])
    expect(guest.page.get_by_text("One image in ten is drawn at random")).to_be_visible()
    expect(guest.page.locator(".guide .chip")).to_have_count(0)
    strikes(guest, "1")
    expect(guest.page.locator(".last .chip")).to_have_count(2)  # after the vote
    guest.page.get_by_text("Show guidance").click()
    expect(guest.page.locator(".guide .chip.given")).to_be_visible()
    expect(guest.page.locator(".guide .chip.suggested")).to_be_visible()
    expect(guest.page.locator(".guide .mark")).to_have_text("≠")
    expect(guest.page.locator(".guide .details")).to_contain_text("rank 2 of 400")
    for key in "234":
        strikes(guest, key)
    # Bob sits at another computer, and begins at the first image
    with visiting(chromium, desk.url) as bob:
        bob.open(f"/annotate?run={one.id}&annotator=bob")
        assert [strikes(bob, key) for key in "1235"] == ranked[:4]
        expect(bob.page.get_by_text("8 of 100 annotations · 4 of them yours")).to_be_visible()
        expect(bob.page.get_by_role("heading", name="Agreement between annotators")).to_be_visible()
    assert said(one, "ann") == [(ranked[i], i) for i in range(4)]
    assert said(one, "bob") == [(ranked[i], label) for i, label in enumerate((0, 1, 2, 4))]


def test_votes_struck_faster_than_the_server_answers_are_all_there(guest, desk):
    one = of(desk, "vanilla")
    ranked = one.ranking(0).dropna(subset="rank").sort_values("rank")["sample_id"].tolist()
    guest.open(f"/annotate?run={one.id}&annotator=quick")
    expect(guest.page.locator(".notice")).to_have_text(ranked[0])
    for key in "12345":
        guest.page.keyboard.press(key)
    guest.page.keyboard.press("z")  # of the 5, though it may not be written down yet
    guest.page.keyboard.press("6")  # meant for the image that comes back
    expect(guest.page.get_by_text("5 of them yours")).to_be_visible()
    expect(guest.page.locator(".last")).to_contain_text("Just now: sandal")
    expect(guest.page.locator(".notice")).to_have_text(ranked[5])
    assert said(one, "quick") == [*((ranked[i], i) for i in range(5)), (ranked[4], TAKEN_BACK), (ranked[4], 5)]
    guest.page.reload()  # what was said is in the log, not in the page
    guest.settled()
    expect(guest.page.locator(".notice")).to_have_text(ranked[5])
    strikes(guest, "z")
    expect(guest.page.locator(".notice")).to_have_text(ranked[4])


def test_a_run_that_asks_nobody_says_so(guest, desk):
    guest.open(f"/annotate?run={of(desk, 'random').id}")
    expect(guest.page.get_by_text("This run simulates its annotators and takes no answers")).to_be_visible()
    guest.page.get_by_role("link", name="Start a run").click()
    expect(guest.page.get_by_text("People give the labels")).to_be_visible()


@pytest.mark.slow
def test_a_folder_without_labels_is_labelled_from_nothing(guest, desk, tmp_path):
    """The first images come at random, people name the classes, and the first training follows their labels."""
    rng = np.random.default_rng(0)
    for i in range(40):
        shade = np.clip(rng.normal(60 if i % 2 else 190, 20, (16, 16)), 0, 255)
        Image.fromarray(shade.astype(np.uint8)).save(tmp_path / f"{i:02d}.png")
    names = [*(f"kind {i:02d}" for i in range(20)), "dark & <i>grey</i>"]
    guest.open("/new")
    guest.checks(tmp_path, ", ".join(names))
    expect(guest.page.get_by_role("switch", name="People give the labels")).to_be_checked()
    guest.trains_briefly()
    guest.page.get_by_role("button", name="Start run").click()
    expect(guest.page.get_by_text("Nothing is ranked yet")).to_be_visible(timeout=2 * PATIENCE)
    one = of(desk, "folder")
    name = guest.page.get_by_role("combobox", name="Annotator")
    name.fill("ann")
    name.press("Enter")
    expect(guest.page.locator(".picture")).to_be_visible()
    strikes(guest, "1")
    guest.page.get_by_role("button", name="Next cycle").click()
    expect(guest.page.get_by_text("has no labels of two classes yet")).to_be_visible()
    search = guest.page.get_by_role("searchbox", name="Find a class")
    search.fill("DARK")
    search.press("Enter")
    expect(guest.page.get_by_text("2 of 4 annotations")).to_be_visible()
    assert [label for _, label in said(one, "ann")] == [0, 20]
    guest.page.get_by_role("button", name="Next cycle").click()
    expect(guest.page.get_by_text("waits for labels · 1 cycle")).to_be_visible(timeout=3 * PATIENCE)
    guest.settled()  # until then what the page showed before may stand there too
    expect(guest.page.get_by_text("0 of 4 annotations · 0 of them yours · 38 images left for you")).to_be_visible()
    assert run.Run(one.path).cycles()["n_labels"].tolist() == [2]


def test_a_file_name_that_names_a_class_is_hidden_before_the_answer(guest, desk, tmp_path, monkeypatch):
    for i, name in enumerate(["Dark-1.png", "2.png", "light 3.png", "light 4.png"]):
        Image.new("L", (16, 16), 40 * i).save(tmp_path / name)
    config = Config(
        task="active-learning",
        method="random",
        budget=4,
        cycles=1,
        dataset="folder",
        root=str(tmp_path),
        classes=["dark", "light"],
        annotator="person",
    )
    monkeypatch.setenv("NEXTLABEL_HOME", str(desk.home))
    pool = data.load("folder", tmp_path, **config.load_options)
    one = run.create(settle.prepare(config, pool), settle.about(pool))
    guest.open(f"/annotate?run={one.id}&annotator=ann")
    shown = []
    for left in range(len(pool), 0, -1):
        expect(guest.page.get_by_text(f"{left} image{'s' if left > 1 else ''} left for you")).to_be_visible()
        expect(guest.page.locator(".notice")).to_have_text(re.compile(r"^(?!.*saving).+$"))
        shown.append(guest.page.locator(".notice").inner_text())
        guest.page.keyboard.press("1")
    assert sorted(shown) == ["2.png", *["File name hidden: it names a class"] * 3]
