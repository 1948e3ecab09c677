"""The tab Influence of an image in the gallery: computed on demand, shown, or a sentence that says why not."""

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

import data
from core.runs import attribution, run
from core.runs.attribution import Attribution, Effect, Layer
from tests.browser.conftest import finished_run, serve, visiting

ROOT = Path(__file__).parents[2]
FOUND = Attribution(
    sample_id="",
    label=1,
    influence=0.25,
    n_labels=40,
    n_held_out=500,
    n_helped=300,
    n_harmed=200,
    helps=(Effect(5, 1, 1, 0.9, 0.25), Effect(3, 2, 1, 0.5, 0.125)),
    harms=(Effect(4, 0, 1, 0.75, -0.5),),
    layers=(Layer("stem", "Conv2d", 9, 0.5), Layer("head", "Linear", 20, -0.25)),
    damping=0.01,
    residual=1e-4,
    iterations=12,
)


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=400)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The home of a run of each task."""
    home = tmp_path_factory.mktemp("influence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        small = {"width": 4, "epochs": 2, "cycles": 1}
        learning = finished_run(task="active-learning", method="margin", budget=20, **small)
        cleaning = finished_run(task="label-cleaning", method="cleaning", budget=20, **small)
    return home, learning, cleaning


def opened(runs, one, sample_id, monkeypatch):
    """The gallery with the card of an image, as a visitor has it."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(runs[0]))
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params["run"] = one.id
    app.session_state["gallery-picked"] = {one.id: sample_id}
    app.run()
    app.switch_page("pages/gallery.py").run()
    assert not app.exception
    return app


def texts(app):
    """What the page says, without what keeps Markdown from reading it."""
    found = " ".join(str(part.value) for kind in (app.markdown, app.caption, app.info) for part in kind)
    return found.replace("\\", "")


def test_what_was_computed_is_shown_and_the_other_images_lead_to_it(runs, pool, monkeypatch):
    _, one, _ = runs
    attribution.write(one, 0, 7, dataclasses.replace(FOUND, sample_id=pool.ids[7]))
    try:
        app = opened(runs, one, pool.ids[7], monkeypatch)
        said = texts(app)
        assert "500 held-out test images is 0.25 nats lower, to first order; it helps 300 of them" in said
        assert [name for name in ("It helps most", "It harms most", "By layer") if name not in said] == []
        assert "Compute" not in [button.label for button in app.button]
        app = opened(runs, one, pool.ids[8], monkeypatch)
        assert "Compute" in [button.label for button in app.button]
        (there,) = (button for button in app.button if button.label == "See the influence of 1 image")
        there.click().run()
        assert app.session_state["selections"] == {(one.id, 0): (7,)}
    finally:
        attribution.file(one, 0, 7).unlink()


def test_without_labels_that_are_known_there_is_a_sentence_and_no_button(runs, pool, monkeypatch):
    _, learning, cleaning = runs
    app = opened(runs, cleaning, pool.ids[7], monkeypatch)
    assert "which is a question of active learning: choose another run" in texts(app)
    weights = learning.cycle_path(0) / "weights.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    try:
        app = opened(runs, learning, pool.ids[7], monkeypatch)
        assert "Influence needs the weights of cycle 0" in texts(app)
        assert "Compute" not in [button.label for button in app.button]
    finally:
        weights.write_bytes(kept)


@pytest.mark.browser
@pytest.mark.slow
def test_it_is_computed_in_the_background_and_then_shown(chromium, runs, pool):
    home, one, _ = runs
    with serve(home, home / "server.log") as served, visiting(chromium, served.url) as guest:
        guest.open(f"/gallery?run={one.id}")
        guest.page.locator("button.tile").first.click()
        guest.settled()
        guest.page.get_by_role("tab", name="Influence").click()
        guest.page.get_by_role("button", name="Compute", exact=True).click()
        expect(guest.page.get_by_text("It helps most")).to_be_visible()
        expect(guest.page.get_by_text("By layer", exact=True)).to_be_visible()
        guest.settled()
    assert len(attribution.kept(run.Run(one.path), pool, 0)) == 1
