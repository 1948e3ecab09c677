"""Files: each format opened again."""

import csv
import io
import re
from xml.etree import ElementTree

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image
from pypdf import PdfReader

from core.__main__ import main
from core.analysis import figures
from core.files import export
from core.files.printed import Layout
from data.errors import UserError

FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a line")).update_layout(xaxis_title="Labels", showlegend=True)
TABLE = pd.DataFrame({"sample_id": ["a", "b"], "rank": pd.array([1, None], dtype="Int64")})


@pytest.mark.browser
def test_png_svg_and_pdf_are_what_they_say():
    assert Image.open(io.BytesIO(export.figure_bytes(FIGURE, "png"))).size == (1800, 1080)
    assert ElementTree.fromstring(export.figure_bytes(FIGURE, "svg")).tag.endswith("svg")
    assert "Labels" in PdfReader(io.BytesIO(export.figure_bytes(FIGURE, "pdf"))).pages[0].extract_text()


@pytest.fixture
def fake_chrome(tmp_path, monkeypatch):
    """Puts a shell script in the place of Chrome, and starts with no browser of an earlier export."""
    monkeypatch.setattr(export, "_chrome", None)
    monkeypatch.setattr(export, "START_SECONDS", 3)

    def put(script):
        path = tmp_path / "chrome"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("BROWSER_PATH", str(path))
        return path

    return put


@pytest.mark.parametrize(("script", "why"), [
    ("exit 1", "it ended at once"),
    ("exec sleep 600", "it did not answer within 3 s"),
])  # fmt: skip
def test_a_chrome_that_does_not_start_is_named_and_the_next_export_tries_again(fake_chrome, script, why):
    path = fake_chrome(script)
    for _ in range(2):
        with pytest.raises(UserError, match=f"Chrome at {path} did not start: {why}"):
            export.figure_bytes(FIGURE, "png")
    with pytest.raises(UserError, match=f"Chrome at {path} did not start: {why}"):
        export.page_pdf("<p>text</p>", 100, 100)


@pytest.mark.browser
def test_a_chrome_that_died_is_replaced(fake_chrome, monkeypatch):
    fake_chrome("exit 1")
    with pytest.raises(UserError, match="did not start"):
        export.figure_bytes(FIGURE, "png")
    monkeypatch.delenv("BROWSER_PATH")
    monkeypatch.setattr(export, "START_SECONDS", 60)
    assert export.figure_bytes(FIGURE, "svg")  # mended
    export._chrome.kill()
    export._chrome.browser.subprocess.wait(10)
    assert export.figure_bytes(FIGURE, "svg")


@pytest.mark.browser
@pytest.mark.parametrize("mm", [89, 183])
def test_print_has_the_size_in_mm_that_was_asked_for(mm):
    for dpi in (300, 600):
        picture = Image.open(io.BytesIO(export.figure_bytes(FIGURE, "png", Layout(mm, dpi=dpi))))
        assert picture.width == pytest.approx(mm / 25.4 * dpi, abs=1)
        assert picture.info["dpi"] == pytest.approx((dpi, dpi), abs=0.1)
        assert picture.getpixel((0, 0)) == (255, 255, 255)  # light, whatever the dashboard looks like
    (page,) = PdfReader(io.BytesIO(export.figure_bytes(FIGURE, "pdf", Layout(mm)))).pages
    assert float(page.mediabox.width) / 72 * 25.4 == pytest.approx(mm, abs=0.3)  # Chromium's pages have whole points
    drawn = ElementTree.fromstring(export.figure_bytes(FIGURE, "svg", Layout(mm)))
    assert drawn.get("width") == f"{mm:.2f}mm"


@pytest.mark.browser
@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_of_a_run_is_printed_by_the_command_line(name, tmp_path):
    out = tmp_path / "figure.png"
    command = ["export", "example-label-cleaning", "--figure", name, "--column", "single", "--dpi", "150"]
    assert main([*command, "--out", str(out)]) == 0
    assert Image.open(out).width == pytest.approx(89 / 25.4 * 150, abs=1)


@pytest.mark.browser
@pytest.mark.parametrize("command", [
    ["budget", "example-label-cleaning"],
    ["diff", "example-active-learning", "example-random"],
    ["compare", "example-active-learning", "example-random"],
])  # fmt: skip
def test_figures_of_several_runs_are_printed_too(command, tmp_path, capsys):
    out = tmp_path / ("folder" if command[0] == "compare" else "figure.png")
    assert main([*command, "--column", "double", "--dpi", "100", "--out", str(out)]) == 0
    pictures = sorted(out.glob("*.png")) if out.is_dir() else [out]
    assert [Image.open(one).width for one in pictures] == [pytest.approx(183 / 25.4 * 100, abs=1)] * len(pictures)
    assert pictures


@pytest.mark.parametrize(("figure", "given", "message"), [
    ("distribution", ["margin"], "shows one score of cycle 3 of run example-label-cleaning: choose among cleaning"),
    ("scatter", ["entropy"], "shows two scores"),
    ("scatter", ["entropy", "no-such"], "choose among"),
])  # fmt: skip
def test_scores_that_a_cycle_has_not_are_refused(figure, given, message, tmp_path, capsys):
    command = ["export", "example-label-cleaning", "--figure", figure, "--scores", *given]
    assert main([*command, "--out", str(tmp_path / "f.html")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("table", ["ranking", "labels", "cycles", "relabels", "cleaned", "issues"])
def test_every_table_of_a_run_is_the_same_as_csv_and_parquet(table, tmp_path):
    for ending in ("csv", "parquet"):
        command = ["export", "example-label-cleaning", "--table", table, "--out", str(tmp_path / f"t.{ending}")]
        assert main(command) == 0
    kept, plain = pd.read_parquet(tmp_path / "t.parquet"), pd.read_csv(tmp_path / "t.csv")
    assert len(kept) > 0
    assert kept.columns.tolist() == plain.columns.tolist()
    assert len(kept) == len(plain)


def test_html_brings_its_own_script(monkeypatch):
    monkeypatch.setattr(export, "has_browser", lambda: False)
    page = export.figure_bytes(FIGURE, "html").decode()
    assert "a line" in page
    assert 'src="http' not in page


def test_tables_read_back():
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(export.table_bytes(TABLE, "parquet"))), TABLE)
    assert export.table_bytes(TABLE, "csv") == b"sample_id,rank\na,1\nb,\n"


@pytest.mark.parametrize(("call", "message"), [
    (lambda: export.figure_bytes(FIGURE, "gif"), "no figure format"),
    (lambda: export.table_bytes(TABLE, "xlsx"), "no table format"),
])  # fmt: skip
def test_unknown_formats(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_without_a_browser_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(export, "has_browser", lambda: False)
    with pytest.raises(UserError, match="apt install chromium"):
        export.figure_bytes(FIGURE, "pdf")


def test_html_asks_no_network_for_scripts_or_styles():
    page = export.figure_bytes(FIGURE, "html").decode()
    assert not re.findall(r"<script[^>]+src=|<link[^>]+href=", page)
    assert len(page) > 1_000_000  # plotly.js itself


@pytest.mark.browser
def test_svg_and_pdf_keep_text_as_text():
    drawn = ElementTree.fromstring(export.figure_bytes(FIGURE, "svg"))
    assert {"Labels", "a line"} <= {"".join(node.itertext()) for node in drawn.iter() if node.tag.endswith("}text")}
    (page,) = PdfReader(io.BytesIO(export.figure_bytes(FIGURE, "pdf"))).pages
    assert page.mediabox.width / page.mediabox.height == pytest.approx(900 / 540, rel=0.01)


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_every_drawn_format_says_that_html_needs_no_browser(monkeypatch, file_format):
    monkeypatch.setattr(export, "has_browser", lambda: False)
    with pytest.raises(UserError, match=rf"A {file_format.upper()} file .* export HTML"):
        export.figure_bytes(FIGURE, file_format)


@pytest.mark.parametrize("file_format", ["", "PNG", "jpeg"])
def test_unknown_figure_formats_list_the_known_ones(file_format):
    with pytest.raises(UserError, match="png, svg, pdf, html"):
        export.figure_bytes(FIGURE, file_format)


def test_names_with_commas_quotes_and_breaks_survive_csv():
    table = pd.DataFrame({"given": ['a, "b"', "é\nü", "—"], "entropy": [0.1, 1 / 3, 1e-300]})
    read = pd.read_csv(io.BytesIO(export.table_bytes(table, "csv")))
    pd.testing.assert_frame_equal(read, table, check_exact=True)


def test_a_folder_holds_tables_figures_and_how_they_were_made(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "has_browser", lambda: False)
    files = export.write_folder(tmp_path / "a" / "b", {"t": TABLE}, {"f": FIGURE}, {"machine": "this · one"})
    assert sorted(path.name for path in files) == ["about.json", "f.html", "t.csv"]
    assert "this · one" in (tmp_path / "a" / "b" / "about.json").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another"):
        export.write_folder(tmp_path / "file" / "b", {}, {}, {})


def test_a_spreadsheet_finds_no_formula():
    texts = ["=1+1", "'=1+1", "+a", "-b", "@c", "\td", "a=1"]
    table = pd.DataFrame({"sample_id": texts, "name": pd.Series(texts, dtype=object), "cleaning": -0.5})
    cells = list(csv.reader(io.StringIO(export.table_bytes(table, "csv").decode(), newline="")))[1:]
    assert not [cell for row in cells for cell in row[:2] if cell[0] in "=+-@\t\r"]
    assert {row[2] for row in cells} == {"-0.5"}
    assert [export.unguarded(row[0]) for row in cells] == texts


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    export.write_file(path, b"old")
    monkeypatch.setattr(
        export.Path, "write_bytes", lambda path, content: (_ for _ in ()).throw(OSError(28, "No space"))
    )
    with pytest.raises(UserError, match="No space"):
        export.write_file(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="There is no folder"):
        export.write_file(tmp_path / "absent" / "table.csv", b"")
