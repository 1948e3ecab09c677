"""A run on one page: whole, offline, escaped, one sheet of paper."""

import base64
import dataclasses
import io
import re
from importlib.metadata import version
from xml.etree import ElementTree

import pytest
from pypdf import PdfReader

import data
from core.__main__ import main
from core.files import report
from core.runs import run


@pytest.fixture(scope="module", params=["example-active-learning", "example-label-cleaning"])
def one(request):
    return run.find(request.param)


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=1500)


def test_it_says_what_was_done_and_found(one, pool):
    page = report.html(one, pool, 3)
    row = one.cycles().iloc[3]
    assert one.id in page
    assert f"{row['accuracy']:.1%}" in page
    assert f"{row['n_labels']:,.0f}" in page
    assert f"small-cnn, width 8, {one.config.epochs} epochs" in page
    assert page.count("<table") == 1
    assert page.count("<tr>") == 1 + 4  # a head, and the cycles
    assert "What the words mean" in page
    assert f"lr {one.config.lr:g} · nesterov yes · batch size {one.config.batch_size}" in page
    assert f"plotly {version('plotly')}" in page


@pytest.mark.browser
def test_the_curve_says_how_many_seeds_and_what_it_shows(one, pool):
    (drawn,) = re.findall(r"data:image/svg\+xml;base64,([^'\"]+)", report.html(one, pool, 3))
    text = " ".join(ElementTree.fromstring(base64.b64decode(drawn)).itertext())
    measure = "Test accuracy (%)" if one.config.task == "active-learning" else "Correct majority labels (%)"
    for said in ("n = 1, seed 0", measure, "fashion, N = 1,500", f"run {one.id}", "± 1 s.d."):
        assert said in text


def test_it_stands_at_its_cycle(one, pool):
    first, last = report.html(one, pool, 0), report.html(one, pool, 3)
    assert f"{one.cycles().iloc[0]['accuracy']:.1%}" in first
    assert first.count("<tr>") == 1 + 1
    assert first != last


def test_it_needs_no_network(one, pool):
    page = report.html(one, pool, 3)
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']{0,30})""", page) + re.findall(r"url\(([^)]{0,30})", page)
    assert sources
    assert all(source.strip("\"'").startswith("data:") for source in sources), sources
    assert "<script" not in page


def test_names_are_text(pool, monkeypatch):
    evil = '<img src=x onerror="alert(1)">'
    names, example = [evil, *pool.class_names[1:]], run.find("example-label-cleaning")
    about = {**example.about, "class_names": names}
    monkeypatch.setattr(run.Run, "about", property(lambda self: about))
    page = report.html(example, dataclasses.replace(pool, class_names=names), 3)
    assert evil not in page
    assert "&lt;img src=x" in page


@pytest.mark.browser
def test_the_pdf_is_one_page_of_a4(one, pool):
    pages = PdfReader(io.BytesIO(report.pdf(one, pool, 3))).pages
    assert len(pages) == 1
    assert [round(float(side)) for side in pages[0].mediabox[2:]] == [595, 842]
    assert one.id in pages[0].extract_text()


@pytest.mark.browser
def test_a_long_report_is_one_page_too(one, pool, monkeypatch):
    monkeypatch.setattr(report, "IMAGES", 45)
    (page,) = PdfReader(io.BytesIO(report.pdf(one, pool, 3))).pages
    assert "evidence" in page.extract_text()  # the last setting


def test_the_command_line(tmp_path, capsys):
    assert main(["report", "example-random", "--out", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert main(["report", "example-random", "--out", str(tmp_path / "r.docx")]) == 2
    assert "html" in capsys.readouterr().err
    assert main(["report", "example-random", "--cycle", "9", "--out", str(tmp_path / "r.html")]) == 2
    assert "has no finished cycle 9" in capsys.readouterr().err
