"""Learn: seven steps, each with its formula and its picture, readable on a phone in the dark."""

import re
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

import data
from core.analysis import tour
from core.runs import run
from tests.browser.conftest import PATIENCE, visiting

pytestmark = pytest.mark.browser

APP = Path(__file__).resolve().parents[2] / "app.py"

FORMULAS = {  # of each step: what its TeX says, as KaTeX keeps it beside what it draws
    1: [r"\lVert \nabla_\theta\, H(p(x)) \rVert", r"\mathrm{EGL}(x)", r"\ln p_y + H"],
    2: [
        r"\frac1n\, H_\theta^{-1}\, \nabla L(x)",
        r"I(x) = \frac1n \sum_j",
        r"|I(x)| = \frac1n\, \Big\lVert \sum_j",
        r"\lVert \nabla L(x) \rVert",
        r"\lVert \nabla L(T^c(x)) \rVert",
        r"\lVert \nabla_\theta\, H(p(x)) \rVert",
    ],
    3: [r"\text{train} \to \text{score}"],
    4: [r"\mathrm{CE}(\hat l, p)", r"\max(H - \gamma \ln C,\, 0)"],
    5: [r"\hat l_{(1)} > \hat l_{(2)}"],
    6: [r"\mathrm{AUC} = \frac{1}{B+1}", r"\mathrm{AUC}_\text{oracle}"],
    7: [],
}


@pytest.fixture
def phone(chromium, server):
    """Somebody with a phone, in the dark."""
    with visiting(chromium, server.url, size=(390, 844), scheme="dark") as someone:
        yield someone


@pytest.mark.slow
@pytest.mark.parametrize("step", list(FORMULAS))
def test_formulas_are_drawn_and_fit_on_a_phone(phone, step):
    phone.open(f"/learn?step={step}")
    expect(phone.page.get_by_text(f"Step {step} of 7")).to_be_visible()
    main = phone.page.get_by_test_id("stMain")
    if FORMULAS[step]:
        expect(main.locator(".katex-html")).not_to_have_count(0, timeout=PATIENCE)
    expect(main.locator(".katex-error")).to_have_count(0)
    drawn = main.locator("annotation[encoding='application/x-tex']").all_text_contents()
    for formula in FORMULAS[step]:
        assert any(formula in one for one in drawn), (formula, drawn)
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    right = main.locator(".katex-html .base").evaluate_all(
        "all => Math.max(0, ...all.map(e => e.getBoundingClientRect().right))"
    )
    assert right <= 390


def test_gamma_moves_the_line_and_who_is_asked_first(visitor):
    visitor.open("/learn?step=4")
    line = visitor.page.locator(".plotly .scatterlayer .trace path.js-line")
    expect(line).to_have_count(1)
    before = line.get_attribute("d")
    expect(visitor.page.get_by_text("225 images of highest Φ, which are asked about first.")).to_be_visible()
    visitor.chooses("γ = 0.30, its code")
    expect(visitor.page.get_by_text(re.compile(r"\d+ of them lie above that of γ = 0 too"))).to_be_visible()
    expect(line).not_to_have_attribute("d", before)


def test_the_last_step_leads_to_the_pages_and_ones_own_images(visitor):
    visitor.open("/learn?step=7")
    visitor.page.get_by_test_id("stMain").get_by_role("link", name="Start on your own images").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("New run")


def numbers():
    """What the second step says in figures, each with its name, and how many pictures it draws."""
    st.cache_resource.clear()
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.query_params["step"] = "2"
    app.run()
    app.switch_page("pages/learn.py").run()
    assert not app.exception
    return [(one.label, one.value) for one in app.main.metric], len(app.main.get("plotly_chart"))


def test_the_numbers_of_the_derivation_are_those_of_the_ranking():
    example = run.find("example-active-learning")
    found = tour.derivation(example, data.load("fashion", limit=1500), 0)
    shown, charts = numbers()
    mine = [float(re.sub("[,a-z]", "", value).replace("−", "-")) for name, value in shown if name == "This image"]
    assert mine == pytest.approx(list(found.values.values()), rel=0.05)
    assert dict(shown)["Highest by Eq. 3 too"] == f"{found.chosen} of {example.config.budget}"
    assert charts == 2


def test_an_example_whose_influence_nobody_measured_shows_the_bound_alone(monkeypatch):
    monkeypatch.setattr(tour, "derivation", lambda *_: None)
    shown, charts = numbers()
    assert [name for name, _ in shown] == ["Rank correlation", "Found of 100"]
    assert charts == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["0", "99", "-1", "two", "1" * 30])
def test_an_odd_step_in_the_address_is_one_that_there_is(visitor, step):
    visitor.open(f"/learn?step={step}")
    expect(visitor.page.get_by_text(re.compile(r"Step [17] of 7"))).to_be_visible()
