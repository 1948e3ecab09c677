"""A figure at the size of a journal's column: exact in width, nothing over another thing, the screen's figure as it was."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from core import figures, printed
from core.printed import COLUMNS, Layout
from data.errors import UserError

NOTE = (
    "fashion, N = 1,500, simulated annotators · run example, seed 0\nmean over seeds, band ± 1 s.d.; " + "so on, " * 12
)


def curves(methods=("margin", "random")):
    """A figure with a legend, a title on each axis and small print."""
    rows = [
        {"method": name, "n_labels": n, "mean": 50.0 + k, "sd": 1.0, "n_seeds": 3}
        for name in methods
        for k, n in enumerate((100, 200))
    ]
    return figures.compared(pd.DataFrame(rows), "Test accuracy (%)", "%", NOTE)


@pytest.mark.parametrize(("column", "mm"), [("single", 89), ("double", 183)])
def test_the_columns_are_those_of_journals(column, mm):
    drawn = printed.printed(curves(), Layout(COLUMNS[column]))
    assert drawn.layout.width / 96 * 25.4 == pytest.approx(mm)


@pytest.mark.parametrize("points", [6.0, 8.0, 10.0])
def test_text_has_the_size_that_was_asked_for(points):
    drawn = printed.printed(curves(), Layout(89, points))
    pixels = points / 72 * 96
    assert drawn.layout.font.size == pytest.approx(pixels)
    assert drawn.layout.xaxis.title.font.size == drawn.layout.xaxis.tickfont.size == pytest.approx(pixels)
    assert 0.8 * pixels < drawn.layout.legend.font.size < pixels


def test_it_is_light_and_in_a_font_of_journals():
    drawn = printed.printed(curves(), Layout())
    assert drawn.layout.paper_bgcolor == "white"
    assert drawn.layout.font.family.startswith("Arial")


def test_the_small_print_is_wrapped_to_the_width_and_stands_below_the_axis():
    lines = {}
    for mm in (89, 183):
        drawn = printed.printed(curves(), Layout(mm))
        (small,) = [one for one in drawn.layout.annotations if one.name == "note"]
        lines[mm] = small.text.split("<br>")
        assert " ".join(lines[mm]).replace(" ", "") == NOTE.replace("\n", "").replace(" ", "")
        assert drawn.layout.margin.b > len(lines[mm]) * small.font.size
    assert len(lines[89]) > len(lines[183])


def test_a_long_legend_makes_the_figure_higher_and_not_the_plot_smaller():
    few, many = (printed.printed(curves(names), Layout(89)) for names in (["margin"], list(figures.SYMBOLS)[4:]))
    height = [one.layout.height - one.layout.margin.t - one.layout.margin.b for one in (few, many)]
    assert height[0] == pytest.approx(height[1])
    assert many.layout.margin.t > few.layout.margin.t


def test_the_names_of_a_confusion_keep_their_rows():
    names = [f"class {k}" for k in range(12)]
    counts = pd.DataFrame(np.eye(12, dtype=int), index=names, columns=names)
    drawn = printed.printed(figures.confusion(counts, NOTE), Layout(89, 8))
    rows = drawn.layout.height - drawn.layout.margin.t - drawn.layout.margin.b
    assert rows / 12 > drawn.layout.yaxis.tickfont.size  # no name over the next


def test_long_names_have_room_at_the_left():
    bars = [figures.posterior_bars([name, "b"], np.ones(2) / 2, np.ones(2), 0, NOTE) for name in ("a", "a" * 40)]
    short, long = (printed.printed(one, Layout(89)).layout for one in bars)
    assert long.margin.l > short.margin.l
    assert long.yaxis.ticktext[0] == f"<b>{'a' * 17}…</b>"
    assert long.margin.l + long.margin.r < 0.6 * long.width


def test_the_figure_of_the_screen_stays_as_it_was():
    drawn = curves()
    before = drawn.to_json()
    printed.printed(drawn, Layout(89, 6))
    assert drawn.to_json() == before


def test_an_empty_figure_is_printed_too():
    assert printed.printed(go.Figure(), Layout()).layout.width > 0


@pytest.mark.parametrize(("given", "message"), [
    ({"width_mm": 5}, "A width of 5 mm: give 30 to 400"),
    ({"font_size": 99}, "A font size of 99 points: give 4 to 24"),
    ({"dpi": 1}, "A dpi of 1 dots per inch: give 72 to 1200"),
])  # fmt: skip
def test_what_no_journal_prints_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        Layout(**given)
