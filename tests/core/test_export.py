"""Files: each format opened again."""

import io
from xml.etree import ElementTree

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image
from pypdf import PdfReader

from core import export
from data.errors import UserError

FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a line")).update_layout(xaxis_title="Labels", showlegend=True)
TABLE = pd.DataFrame({"sample_id": ["a", "b"], "rank": pd.array([1, None], dtype="Int64")})


@pytest.mark.browser
def test_png_svg_and_pdf_are_what_they_say():
    assert Image.open(io.BytesIO(export.figure_bytes(FIGURE, "png"))).size == (1800, 1080)
    assert ElementTree.fromstring(export.figure_bytes(FIGURE, "svg")).tag.endswith("svg")
    assert "Labels" in PdfReader(io.BytesIO(export.figure_bytes(FIGURE, "pdf"))).pages[0].extract_text()


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
