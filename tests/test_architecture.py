"""The drawing of the packages is that of the code, small enough to be read, and without a circle."""

import re

import pytest

from docs import draw

MOST_ARROWS, MOST_BOXES = 80, 22


@pytest.fixture(scope="module")
def drawing():
    return draw.draw()


@pytest.fixture(scope="module")
def document():
    return draw.DOCUMENT.read_text(encoding="utf-8")


def test_the_document_shows_the_imports_as_they_are(drawing, document):
    assert draw.drawn(document, drawing) == document, "run `python -m docs.draw`"
    assert f"{len(drawing.arrows)} arrows between {len(drawing.boxes)} boxes." in document


def test_the_drawing_can_be_read(drawing):
    assert len(drawing.boxes) <= MOST_BOXES
    assert len(drawing.arrows) <= MOST_ARROWS


def test_no_package_imports_itself_by_way_of_others_and_none_a_higher_floor(drawing):
    assert drawing.circle() == []
    assert drawing.upward() == []


def test_a_circle_and_an_arrow_upwards_are_found():
    boxes = frozenset({"core.files", "core.analysis", "core.runs"})
    arrows = {("core.files", "core.analysis"): 1, ("core.analysis", "core.runs"): 1, ("core.runs", "core.files"): 1}
    drawing = draw.Drawing(boxes, arrows)
    assert set(drawing.circle()) == boxes
    assert drawing.upward() == [("core.runs", "core.files")]


def test_every_module_that_the_paths_name_is_there(document):
    paths = document.partition("## Four paths")[2]
    named = re.findall(r"^\d+\. `([\w.]+)`", paths, re.MULTILINE)
    assert len(named) > 20
    for module in named:
        path = draw.ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
