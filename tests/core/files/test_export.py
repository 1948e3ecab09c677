"""Files: each format opened again."""

import csv
import io

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from core.__main__ import main
from core.analysis import figures
from core.files import export
from data.errors import UserError

FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a line")).update_layout(xaxis_title="Labels", showlegend=True)
TABLE = pd.DataFrame({"sample_id": ["a", "b"], "rank": pd.array([1, None], dtype="Int64")})


def test_an_unknown_format_of_tables_is_refused():
    with pytest.raises(UserError, match="no table format"):
        export.table_bytes(TABLE, "xlsx")


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


def test_tables_read_back():
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(export.table_bytes(TABLE, "parquet"))), TABLE)
    assert export.table_bytes(TABLE, "csv") == b"sample_id,rank\na,1\nb,\n"


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
