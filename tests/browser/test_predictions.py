"""Predictions of a model of one's own in the browser: uploaded beside a folder, for the next cycle, and what is in the pool."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, expect

from core.runs import imported, run
from tests.browser.conftest import PATIENCE, Server, Visitor, serve, visiting

pytestmark = pytest.mark.browser

N = 30


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("predictions")
    with serve(home / "runs", home / "server.log", home / "data") as served:
        yield served


@pytest.fixture
def guest(chromium: BrowserContext, fresh: Server) -> Iterator[Visitor]:
    with visiting(chromium, fresh.url) as someone:
        someone.open("/new")
        yield someone


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Thirty images in two class folders; predictions, of which one contradicts its label, and embeddings with a pair."""
    rng, probs = np.random.default_rng(0), np.full((N, 2), 0.1)
    for k, label in enumerate(("dark", "light")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(N // 2):
            pixels = np.clip(rng.normal(80 + 90 * k, 30, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i:02d}.png")
            probs[k * N // 2 + i, k] = 0.9
    probs[4] = 0.05, 0.95
    np.save(tmp_path / "probs.npy", probs)
    np.save(tmp_path / "next.npy", probs[:, ::-1] * 0.5 + 0.25)
    np.save(tmp_path / "wrong.npy", probs / 2)
    embedded = rng.normal(size=(N, 6))
    embedded[1] = embedded[0]
    np.save(tmp_path / "emb.npy", embedded)
    return tmp_path / "images"


@pytest.mark.slow
def test_predictions_are_uploaded_beside_a_folder_and_for_the_next_cycle(guest, fresh, images):
    guest.checks(images)
    guest.chooses("Check next — label cleaning")
    guest.page.get_by_text("Predictions of your own model").click()
    guest.settled()
    guest.uploads(images.parent / "wrong.npy", "Predicted probabilities")
    expect(guest.page.get_by_text("a row that sums to 0.5 instead of 1")).to_be_visible()
    guest.uploads(images.parent / "probs.npy", "Predicted probabilities")
    guest.uploads(images.parent / "emb.npy", "Embeddings")
    expect(guest.page.get_by_text("memorised part of the wrong ones")).to_be_visible()
    expect(guest.page.get_by_label("Selector", exact=True)).to_have_count(0)
    guest.page.get_by_role("button", name="Start run").click()
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Annotate")
    expect(guest.page.get_by_text("waits for labels · 1 cycle")).to_be_visible(timeout=2 * PATIENCE)
    (path,) = fresh.home.glob("*/config.json")
    one = run.Run(path.parent)
    assert (one.config.selector, one.config.predicted) == ("imported", None)

    guest.go("Pool")
    expect(guest.page.get_by_text("2 images in 1 group")).to_be_visible()
    guest.page.get_by_role("button", name="Show 2 images in Gallery").first.click()
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Gallery")
    expect(guest.page.get_by_text("Selected on a figure: 2").first).to_be_visible()
    guest.settled()

    guest.go("Cycles")
    guest.page.get_by_text("Predictions for the next cycle").click()
    guest.uploads(images.parent / "next.npy", "Predicted probabilities")
    guest.page.get_by_role("button", name="Step by these predictions").click()
    expect(guest.page.get_by_text("Nobody has given a label since the last ranking")).to_be_visible()
    guest.settled()
    from core.runs import annotation

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(fresh.home))
        annotation.record(one, ["dark/04.png"], np.array([1]), ["ann"])
    guest.page.get_by_role("button", name="Step by these predictions").click()
    expect(guest.page.get_by_text("waits for labels · 2 cycles")).to_be_visible(timeout=2 * PATIENCE)
    guest.settled()
    ids = one.ranking(1)["sample_id"].tolist()
    by_id = np.load(images.parent / "next.npy")[[sorted(ids).index(name) for name in ids]]
    np.testing.assert_array_equal(np.load(one.cycle_path(1) / imported.PROBS), by_id)
