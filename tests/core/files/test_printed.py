"""A figure at the size of a journal's column: exact in width, nothing over another thing, the screen's figure as it was."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image
from pypdf import PdfReader

from core import strategies
from core.files import printed
from core.files.printed import COLUMNS, Layout
from core.plots import learn, maps
from core.plots.curves import compared
from data.errors import UserError

FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a line")).update_layout(xaxis_title="Labels", showlegend=True)
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
    return compared(pd.DataFrame(rows), "Test accuracy (%)", "%", NOTE)


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
    few, many = (printed.printed(curves(names), Layout(89)) for names in (["margin"], list(strategies.CATALOGUE)))
    height = [one.layout.height - one.layout.margin.t - one.layout.margin.b for one in (few, many)]
    assert height[0] == pytest.approx(height[1])
    assert many.layout.margin.t > few.layout.margin.t


LONG = (
    "chest-x-rays-of-2026, N = 1,000,000, simulated annotators · run 20261127-205512-WWW-MMM-co-teaching-bald-s4294967295, "
    "seed\u00a04294967295\nCE MAXIMUM WWWWW mmmmm; AUC: mean share of correct majority labels over the collected "
    "labels; 100 % %%%%"
)


@pytest.mark.parametrize(("mm", "points"), [(89, 6.0), (89, 8.0), (89, 12.0), (183, 8.0)])
def test_no_line_of_the_small_print_is_wider_than_the_figure(mm, points):
    """By the widths of DejaVu Sans, which stands in where there is no Arial: capitals, m and % are wide, i and l are not."""
    kinds = {"WMm@%": 0.95, "HNOQDGUw=": 0.78, " ,.:;ijlftrI-·": 0.35}  # at least
    width = {letter: width for letters, width in kinds.items() for letter in letters}
    drawn = printed.printed(curves().update_layout(meta={"note": LONG}), Layout(mm, points))
    (small,) = [one for one in drawn.layout.annotations if one.name == "note"]
    lines = small.text.split("<br>")
    widths = [small.font.size * sum(width.get(letter, 0.6) for letter in line) for line in lines]
    assert max(widths) < drawn.layout.width - 0.5 * small.font.size
    assert "".join(lines).replace(" ", "") == LONG.replace("\n", "").replace(" ", "")


def ink_at_the_edge(figure, layout):
    """Whether a printed figure goes on where the paper ends: at its left or right edge."""
    grey = np.asarray(Image.open(io.BytesIO(printed.figure_bytes(figure, "png", layout))).convert("L"))
    return bool((grey[:, [0, 1, 2, -3, -2, -1]] < 235).any())


@pytest.mark.browser
@pytest.mark.parametrize("mm", [89, 183])
def test_nothing_is_cut_off_at_the_edge_of_the_paper(mm):
    names = [f"{kind} number {k}" for k, kind in enumerate(["WWWWWWWWWWWWWWWWWWWW", "mushroom"] * 20)]
    counts = pd.DataFrame(np.arange(400).reshape(20, 20) * 7, index=names[:20], columns=names[:20])
    many = pd.DataFrame(np.arange(1600).reshape(40, 40), index=names, columns=names)
    seeds = "co-teaching, cross-entropy (run) · AUC 0.912, n = 20, seed " + ", ".join(map(str, range(20)))
    for figure in (
        curves(("margin", seeds)),
        maps.confusion(counts, LONG),
        maps.confusion(many, LONG),
        learn.posterior_bars(names[:3], np.ones(3) / 3, np.ones(3), 0, LONG),
    ):
        figure.update_layout(meta={"note": LONG})
        assert not ink_at_the_edge(figure, Layout(mm, dpi=96))


def test_a_legend_entry_wider_than_the_plot_takes_several_lines():
    entry = "co-teaching, cross-entropy (run) · AUC 0.912, n = 20, seed " + ", ".join(map(str, range(20)))
    short, long = (printed.printed(curves(("margin", name)), Layout(89)) for name in ("random", entry))
    (name,) = [trace.name for trace in long.data if trace.name and trace.name.startswith("co-")]
    assert name.replace("<br>", " ") == entry
    assert max(len(line) for line in name.split("<br>")) * 0.5 * long.layout.legend.font.size < 0.75 * long.layout.width
    assert long.layout.margin.t > short.layout.margin.t + name.count("<br>") * long.layout.legend.font.size


def test_the_numbers_of_a_confusion_stay_in_their_cells_or_give_way_to_a_scale():
    names = [f"class {k}" for k in range(25)]
    few, many = (pd.DataFrame(np.full((n, n), 1589), index=names[:n], columns=names[:n]) for n in (12, 25))
    narrow, wide = (printed.printed(maps.confusion(few, NOTE), Layout(mm)) for mm in (89, 183))
    assert narrow.data[1].textfont.size < wide.data[1].textfont.size
    assert narrow.data[1].mode == "markers+text"
    crowded = printed.printed(maps.confusion(many, NOTE), Layout(89))
    heat, cells = crowded.data
    assert heat.showscale
    assert cells.mode == "markers"
    across = crowded.layout.width - crowded.layout.margin.l - crowded.layout.margin.r
    assert crowded.layout.xaxis.tickfont.size < across / 25  # no name over the next


def test_the_names_of_a_confusion_keep_their_rows():
    names = [f"class {k}" for k in range(12)]
    counts = pd.DataFrame(np.eye(12, dtype=int), index=names, columns=names)
    drawn = printed.printed(maps.confusion(counts, NOTE), Layout(89, 8))
    rows = drawn.layout.height - drawn.layout.margin.t - drawn.layout.margin.b
    assert rows / 12 > drawn.layout.yaxis.tickfont.size  # no name over the next


def test_long_names_have_room_at_the_left():
    bars = [learn.posterior_bars([name, "b"], np.ones(2) / 2, np.ones(2), 0, NOTE) for name in ("a", "a" * 40)]
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


@pytest.mark.browser
def test_png_svg_and_pdf_are_what_they_say():
    assert Image.open(io.BytesIO(printed.figure_bytes(FIGURE, "png"))).size == (1800, 1080)
    assert ElementTree.fromstring(printed.figure_bytes(FIGURE, "svg")).tag.endswith("svg")
    assert "Labels" in PdfReader(io.BytesIO(printed.figure_bytes(FIGURE, "pdf"))).pages[0].extract_text()


@pytest.fixture
def fake_chrome(tmp_path, monkeypatch):
    """Puts a shell script in the place of Chrome, and starts with no browser of an earlier export."""
    monkeypatch.setattr(printed, "_chrome", None)
    monkeypatch.setattr(printed, "START_SECONDS", 1)

    def put(script):
        path = tmp_path / "chrome"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("BROWSER_PATH", str(path))
        return path

    return put


@pytest.mark.parametrize(("script", "why"), [
    ("exit 1", "it ended at once"),
    ("exec sleep 600", "it did not answer within 1 s"),
])  # fmt: skip
def test_a_chrome_that_does_not_start_is_named_and_the_next_export_tries_again(fake_chrome, script, why):
    path = fake_chrome(script)
    for _ in range(2):
        with pytest.raises(UserError, match=f"Chrome at {path} did not start: {why}"):
            printed.figure_bytes(FIGURE, "png")
    with pytest.raises(UserError, match=f"Chrome at {path} did not start: {why}"):
        printed.page_pdf("<p>text</p>", 100, 100)


@pytest.mark.browser
def test_a_chrome_that_died_is_replaced(fake_chrome, monkeypatch):
    fake_chrome("exit 1")
    with pytest.raises(UserError, match="did not start"):
        printed.figure_bytes(FIGURE, "png")
    monkeypatch.delenv("BROWSER_PATH")
    monkeypatch.setattr(printed, "START_SECONDS", 60)
    assert printed.figure_bytes(FIGURE, "svg")  # mended
    printed._chrome.kill()
    printed._chrome.browser.subprocess.wait(10)
    assert printed.figure_bytes(FIGURE, "svg")


@pytest.mark.browser
@pytest.mark.parametrize("mm", [89, 183])
def test_print_has_the_size_in_mm_that_was_asked_for(mm):
    for dpi in (300, 600):
        picture = Image.open(io.BytesIO(printed.figure_bytes(FIGURE, "png", Layout(mm, dpi=dpi))))
        assert picture.width == pytest.approx(mm / 25.4 * dpi, abs=1)
        assert picture.info["dpi"] == pytest.approx((dpi, dpi), abs=0.1)
        assert picture.getpixel((0, 0)) == (255, 255, 255)  # light, whatever the dashboard looks like
    (page,) = PdfReader(io.BytesIO(printed.figure_bytes(FIGURE, "pdf", Layout(mm)))).pages
    assert float(page.mediabox.width) / 72 * 25.4 == pytest.approx(mm, abs=0.3)  # Chromium's pages have whole points
    drawn = ElementTree.fromstring(printed.figure_bytes(FIGURE, "svg", Layout(mm)))
    assert drawn.get("width") == f"{mm:.2f}mm"


def test_html_brings_its_own_script(monkeypatch):
    monkeypatch.setattr(printed, "has_browser", lambda: False)
    page = printed.figure_bytes(FIGURE, "html").decode()
    assert "a line" in page
    assert 'src="http' not in page


def test_an_unknown_format_of_figures_is_refused():
    with pytest.raises(UserError, match="no figure format"):
        printed.figure_bytes(FIGURE, "gif")


def test_without_a_browser_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(printed, "has_browser", lambda: False)
    with pytest.raises(UserError, match="apt install chromium"):
        printed.figure_bytes(FIGURE, "pdf")


def test_html_asks_no_network_for_scripts_or_styles():
    page = printed.figure_bytes(FIGURE, "html").decode()
    assert not re.findall(r"<script[^>]+src=|<link[^>]+href=", page)
    assert len(page) > 1_000_000  # plotly.js itself


@pytest.mark.browser
def test_svg_and_pdf_keep_text_as_text():
    drawn = ElementTree.fromstring(printed.figure_bytes(FIGURE, "svg"))
    assert {"Labels", "a line"} <= {"".join(node.itertext()) for node in drawn.iter() if node.tag.endswith("}text")}
    (page,) = PdfReader(io.BytesIO(printed.figure_bytes(FIGURE, "pdf"))).pages
    assert page.mediabox.width / page.mediabox.height == pytest.approx(900 / 540, rel=0.01)


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_every_drawn_format_says_that_html_needs_no_browser(monkeypatch, file_format):
    monkeypatch.setattr(printed, "has_browser", lambda: False)
    with pytest.raises(UserError, match=rf"A {file_format.upper()} file .* export HTML"):
        printed.figure_bytes(FIGURE, file_format)


@pytest.mark.parametrize("file_format", ["", "PNG", "jpeg"])
def test_unknown_figure_formats_list_the_known_ones(file_format):
    with pytest.raises(UserError, match="png, svg, pdf, html"):
        printed.figure_bytes(FIGURE, file_format)
