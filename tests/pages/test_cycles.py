"""Cycles where labels are masks: what is imported, by whom, what is refused, what is exported; and what other pages say of it."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import data
from core.engine import loop
from core.files import brushes, maskexport
from core.runs import run, settle
from core.runs.spec import Config
from core.store.maskfiles import encoded
from pages.ui import gate, login

ROOT = Path(__file__).resolve().parents[2]
N, SIDE = 8, 64
TINY = {"dataset": "garments", "limit": N, "model": "small-unet", "width": 4, "steps": 1, "batch_size": 4}
LEARNING = {"task": "active-learning", "method": "margin", "budget": 2, "initial": 3, "annotator": "person"}
CHECKING = {"task": "label-cleaning", "method": "cleaning", "budget": 5, "noise": 0.3, "noise_kind": "mixed"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that people draw masks for, and one whose regions are checked by the reference."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        patch.setattr(run, "EXAMPLES", home / "no-examples")
        pool = data.load("garments", limit=N)
        found = []
        for settings, cycles in ((LEARNING, 1), (CHECKING, 2)):
            one = run.create(settle.prepare(Config(**TINY, **settings, cycles=cycles), pool), settle.about(pool))
            loop.work(one, pool)
            found.append(one)
        yield *found, pool


def visit(one, page="cycles", **session):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params["run"] = one.id
    for name, value in session.items():
        app.session_state[name.replace("_", "-")] = value
    app.switch_page(f"pages/{page}.py")
    app.run()
    assert not app.exception
    return app


def uploaded(app, name, content):
    app.file_uploader[0].set_value((name, content, "application/octet-stream"))
    app.run()
    assert not app.exception
    return app


def imported(app):
    app.button(key="bring-in").click().run()
    assert not app.exception
    return app


def zipped(**masks):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, codes in masks.items():
            archive.writestr(f"masks/{name}.png", encoded(codes))
    return content.getvalue()


def codes_of(seed):
    return np.random.default_rng(seed).integers(0, 11, (SIDE, SIDE), dtype=np.uint8)


def drawn(one, pool, row, who):
    return maskexport.standing(one, pool).layers(row)[1][f"person: {who}"]


def fields(app):
    return [box for box in app.text_input if box.label == "Annotator"]


def test_masks_are_imported_under_the_name_of_who_annotates(made):
    one, _, pool = made
    app = visit(one, annotator_name="ann")
    assert list(app.file_uploader[0].proto.type) == [".zip", ".json"]
    uploaded(app, "masks.zip", zipped(**{pool.ids[2]: codes_of(1)}))
    (field,) = fields(app)
    assert field.value == "ann"
    imported(app)
    assert [box.value for box in app.success] == ["1 new masks of 1 in masks.zip."]
    assert not fields(app)  # what was brought in is not offered a second time
    np.testing.assert_array_equal(drawn(one, pool, 2, "ann"), codes_of(1))


def test_whoever_drew_the_masks_can_be_named_and_is_still_for_the_next_file(made):
    one, _, pool = made
    app = uploaded(visit(one, annotator_name="ann"), "masks.zip", zipped(**{pool.ids[3]: codes_of(2)}))
    fields(app)[0].set_value("bea")
    uploaded(imported(app), "more.zip", zipped(**{pool.ids[4]: codes_of(3)}))
    assert fields(app)[0].value == "bea"
    imported(app)
    for row in (3, 4):
        np.testing.assert_array_equal(drawn(one, pool, row, "bea"), codes_of(row - 1))


def test_whoever_has_logged_in_is_asked_for_no_name(made, monkeypatch):
    monkeypatch.setattr(login, "_provider", lambda: True)
    monkeypatch.setattr(gate, "_installed", True)
    monkeypatch.setattr(st, "user", {"is_logged_in": True, "name": "Dee", "email": "dee@example.org"})
    app = uploaded(visit(made[0]), "masks.zip", zipped(**{made[2].ids[2]: codes_of(1)}))
    assert fields(app)[0].value == "Dee"


def test_masks_are_imported_before_the_first_cycle(made):
    _, _, pool = made
    one = run.create(settle.prepare(Config(**TINY, **LEARNING, cycles=1), pool), settle.about(pool))
    app = visit(one, annotator_name="ann")
    assert "label-studio" not in [button.key for button in app.get("download_button")]
    imported(uploaded(app, "masks.zip", zipped(**{pool.ids[0]: codes_of(5)})))
    np.testing.assert_array_equal(drawn(one, pool, 0, "ann"), codes_of(5))


def test_a_file_that_says_who_drew_its_masks_asks_for_no_name(made):
    one, _, pool = made
    annotation = {"completed_by": {"email": "cy@example.org"}, "result": brushes.results(codes_of(4), pool.class_names)}
    tasks = [{"data": {"sample_id": pool.ids[5], "run": one.id}, "annotations": [annotation]}]
    app = uploaded(visit(one, annotator_name="ann"), "project.json", json.dumps(tasks).encode())
    assert not fields(app)
    imported(app)
    np.testing.assert_array_equal(drawn(one, pool, 5, "cy@example.org"), codes_of(4))


@pytest.mark.parametrize(
    ("name", "content", "who", "said"),
    [
        ("masks.zip", lambda ids: zipped(**{ids[2]: codes_of(1)}), "", "Say who you are"),
        ("masks.zip", lambda ids: b"PK nothing", "ann", "This zip file cannot be read"),
        ("project.json", lambda ids: b'[{"data"', None, "is no whole JSON file"),
    ],
)
def test_what_does_not_fit_is_one_sentence_above_the_page(made, name, content, who, said):
    one, _, pool = made
    before = len(one.log.events())
    app = uploaded(visit(one), name, content(pool.ids))
    if who is not None:
        fields(app)[0].set_value(who)
    imported(app)
    (error,) = app.error
    assert said in error.value.replace("\\", "")
    assert "tmp" not in error.value  # where the server keeps it meanwhile says nothing
    assert len(one.log.events()) == before


def test_masks_are_exported_where_no_table_holds_the_labels(made):
    for one in made[:2]:
        app = visit(one)
        keys = [button.key for button in app.get("download_button")]
        assert not any("cleaned" in key or "issues" in key for key in keys)
        button = app.get("download_button")[keys.index(f"masks-{one.id}")]
        assert button.label == "ZIP"
        app.segmented_control(key=f"masks-form-{one.id}").set_value("coco").run()
        assert app.get("download_button")[keys.index(f"masks-{one.id}")].label == "JSON"
        app.checkbox(key=f"masks-images-{one.id}").check().run()
        assert app.get("download_button")[keys.index(f"masks-{one.id}")].label == "ZIP"


def test_the_sidebar_counts_the_regions_that_were_checked(made):
    app = visit(made[1])
    assert "**5** of 5 regions checked · 0 left" in [bar.proto.text for bar in app.get("progress")]
    assert "Regions" in [metric.label for metric in app.metric]


def test_the_top_of_the_ranking_is_taken_in_regions(made):
    one = made[1]
    app = visit(one)
    app.button(key="take").click().run()
    assert not app.exception
    regions = one.regions(1)
    field = app.number_input(key="take-labels")
    assert (field.label, field.value, field.max) == ("Regions", 5, regions["rank"].notna().sum())
    assert any(f"of {field.max:,.0f} ranked regions" in text.value for text in app.markdown)


def test_curves_say_that_no_budget_is_simulated_where_regions_are_checked(made):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params["run"], app.query_params["kind"] = made[1].id, "What a budget buys"
    app.switch_page("pages/curves.py").run()
    assert not app.exception
    (said,) = app.info
    assert "**5 regions** were checked" in said.value
    assert "ground truth" not in said.value


def test_the_gallery_says_why_there_is_no_influence_of_masks(made):
    one, _, pool = made
    app = visit(one, "gallery", gallery_picked={one.id: pool.ids[0]})
    said = [box.value for box in app.info]
    assert any("in this data set it is a mask" in text for text in said)
