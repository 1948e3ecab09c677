"""Masks that leave Cycles, are changed elsewhere, and come back under somebody's name."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

import data
from core.engine import loop
from core.files import maskexport
from core.runs import run, settle
from core.runs.spec import Config
from core.store.log import MASK
from core.store.maskfiles import encoded
from tests.browser.conftest import serve, visiting

pytestmark = pytest.mark.browser
N, DRAWN = 8, 3


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run that people draw masks for, ranked once; the first masks came with the data."""
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "home"))
    pool = data.load("garments", limit=N)
    config = Config(
        task="active-learning", dataset="garments", method="margin", budget=2, cycles=1, limit=N, initial=DRAWN,
        annotator="person", model="small-unet", width=4, steps=1, batch_size=4,
    )  # fmt: skip
    one = run.create(settle.prepare(config, pool), settle.about(pool))
    loop.work(one, pool)
    return one, pool


def downloaded(visitor, name):
    with visitor.page.expect_download() as got:
        visitor.page.get_by_role("button", name=name, exact=True).click()
    return zipfile.ZipFile(io.BytesIO(got.value.path().read_bytes()))


@pytest.mark.slow
def test_exported_masks_are_changed_and_imported_again(chromium, made, tmp_path):
    one, pool = made
    before = np.asarray(one.standing(pool))
    with serve(tmp_path / "home", tmp_path / "server.log") as served, visiting(chromium, served.url) as visitor:
        visitor.open(f"/cycles?run={one.id}")
        page = visitor.page
        page.get_by_role("button", name="Export masks").click()
        with downloaded(visitor, "ZIP") as out, zipfile.ZipFile(tmp_path / "changed.zip", "w") as back:
            names = [name for name in out.namelist() if name.startswith("masks/")]
            assert len(names) == DRAWN
            changed = {name: np.array(Image.open(out.open(name))) for name in names}
            for codes in changed.values():
                codes[:5] = 10 - codes[:5]
            back.writestr("classes.csv", out.read("classes.csv"))
            for name, codes in changed.items():
                back.writestr(name, encoded(codes))
        page.keyboard.press("Escape")

        visitor.uploads(tmp_path / "changed.zip")
        visitor.types("Annotator", "bea")
        page.get_by_role("button", name="Bring in").click()
        expect(page.get_by_text("3 new masks of 3 in changed.zip.")).to_be_visible()
        visitor.settled()
        expect(page.get_by_label("Annotator", exact=True)).to_have_count(0)

        with downloaded(visitor, "Label Studio file") as handed_out:
            tasks = json.loads(handed_out.read("tasks.json"))
            assert {task["data"]["sample_id"] for task in tasks} | {name[6:-4] for name in names} == set(pool.ids)
            assert len([name for name in handed_out.namelist() if name.startswith("images/")]) == len(tasks)

    events = one.log.events(sources="person: bea")
    assert (events["label"] == MASK).all()
    assert set(events["cycle"]) == {1}
    standing = maskexport.standing(one, pool)
    for row, sample_id in enumerate(pool.ids):
        if f"masks/{sample_id}.png" in changed:
            np.testing.assert_array_equal(standing.codes(row), changed[f"masks/{sample_id}.png"])
            assert (np.asarray(standing[row]) != before[row]).any()
