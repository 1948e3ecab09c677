"""Every page with a run on masks: no traceback, no error, and what each page has to say of masks."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.runs import run

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("curves", "compare", "annotate", "learn")  # pages that the tests below do not look at more closely


@pytest.fixture(autouse=True)
def _home(masked, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(masked))


def visit(page, **query):
    """A page as a visitor has it who stands at the run of entropy-gradnorm."""
    one = next(each for each in run.all_runs() if each.config.method == "entropy-gradnorm" and not each.is_example)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in {"run": one.id, **query}.items():
        app.query_params[name] = value
    if page:
        app.switch_page(f"pages/{page}.py")
    app.run()
    assert not app.exception, page
    assert not app.error, [error.value for error in app.error]
    return app


def said(app):
    """All text of a page."""
    return "\n".join(str(each.value) for each in [*app.markdown, *app.caption, *app.info, *app.subheader, *app.header])


@pytest.mark.parametrize("page", OTHERS)
def test_no_page_shows_a_traceback(page):
    visit(page)


def test_home_lists_the_measure_of_masks():
    table = visit("").dataframe[0].value
    assert (table["test mean IoU"].notna() == (table["data"] == "garments")).all()


@pytest.mark.parametrize("layer", ["image", "label", "prediction", "reference", "disagreement", "entropy"])
def test_the_gallery_draws_each_layer_and_keeps_it_in_the_link(layer):
    app = visit("gallery", layer=layer)
    assert app.selectbox(key="gallery-layer").value == layer
    mixed = layer not in ("image", "entropy")
    assert any(slider.label == "Opacity" for slider in app.select_slider) == mixed


def test_an_opacity_goes_to_the_link():
    app = visit("gallery")
    app.select_slider(key="gallery-opacity").set_value(0.3).run()
    assert app.query_params["opacity"] == "0.3"


def test_the_card_has_the_iou_of_each_class():
    app = visit("gallery")
    app.session_state["gallery-picked"] = {app.query_params["run"]: "garments-pool-074"}
    app.run()
    assert not app.exception
    tables = [frame.value for frame in app.dataframe]
    classes = next(table for table in tables if "iou" in table and "target" in table)
    assert "background" in set(classes["class"])
    assert "no mask yet" in said(app) or "of its pixels are labelled" in said(app)


def test_rankings_sort_by_iou_and_say_that_no_strategy_sees_it():
    app = visit("rankings")
    app.selectbox(key="sort").select("iou").run()
    shown = app.dataframe[0].value
    assert shown["iou"].is_monotonic_decreasing
    assert "No strategy sees it" in said(app)
    assert "confusion" not in app.session_state["view"]


def test_cycles_show_mean_iou_and_the_iou_of_each_class():
    app = visit("cycles")
    assert "Test mean IoU" in [metric.label for metric in app.metric]
    assert "IoU of each class" in [header.value for header in app.subheader]


def test_diff_compares_the_masks_of_two_runs():
    others = [each for each in run.all_runs() if each.config.method == "random" and not each.is_example]
    app = visit("diff", other=others[0].id, other_cycle="1")
    assert "Predicted masks" in [header.value for header in app.subheader]
    table = next(frame.value for frame in app.dataframe if "same" in frame.value)
    assert table["same"].is_monotonic_increasing


def test_the_pool_has_a_table_of_pixels_instead_of_doubtful_labels():
    app = visit("pool")
    assert "Labels likely wrong" not in [metric.label for metric in app.metric]
    assert any("predicted_share" in frame.value for frame in app.dataframe)


def test_a_new_run_on_masks_is_offered_what_takes_masks():
    app = visit("new")
    names = {box.label for box in app.selectbox}
    assert "Class weights" not in names
    app.selectbox(key="dataset").select("garments").run()
    boxes = {box.label: box for box in app.selectbox}
    assert boxes["Model"].options == ["small-unet"]
    assert "Class weights" in boxes
    assert not {"BADGE", "VAAL"} & set(boxes["Strategy"].options)
    assert "Predictions of your own model" not in [each.label for each in app.expander]
