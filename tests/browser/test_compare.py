"""The page Compare on studies that nobody trained: figures, tables, exports, and what to do where there is nothing."""

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import BrowserContext, expect

from core import strategies
from core.runs import run, study
from core.runs.spec import Config
from core.store import atomic
from tests.browser.conftest import PATIENCE, Server, Visitor, serve, visiting

WHOLE = f"{3 * len(strategies.CATALOGUE)} runs of {len(strategies.CATALOGUE)} strategies"

pytestmark = pytest.mark.browser

ABOUT = {
    "class_names": ["cat", "dog"],
    "annotators": "none",
    "annotators_source": "reference labels",
    "skipped": [],
}
NORMS = ("expected-gradnorm", "entropy-gradnorm")


def fake_study(
    home: Path, name: str, title: str, strategies: tuple[str, ...], *, done: int = 4, **settings: object
) -> str:
    """A study of 4 cycles and 3 seeds as its worker would leave it, with figures from a random generator."""
    n = 1000
    settings = {"dataset": "fashion", "budget": 50, "cycles": 4, "initial": 100, "evidence": True, **settings}
    plan: dict[str, object] = {}
    for seed in (0, 1, 2):
        for place, method in enumerate(strategies):
            config = Config(task="active-learning", method=method, seed=seed, study=name, **settings)  # type: ignore[arg-type]
            one = run.Run(home / f"{name}-{method}-s{seed}")
            one.path.mkdir(parents=True)
            content = {"config": dataclasses.asdict(config), "about": {**ABOUT, "n_samples": n}}
            atomic.write_atomically(one.path / "config.json", json.dumps(content).encode())
            one.log.create()
            plan[one.id] = content["config"]
            rng = np.random.default_rng([seed, place])
            for cycle in range(done if seed < 2 else min(done, 4)):
                accuracy = 0.5 + 0.06 * cycle + rng.normal(0, 0.006) + (0.004 * (place - 3) if cycle else 0)
                result = {
                    "n_labels": 100 + 50 * cycle,
                    "train_accuracy": 0.95,
                    "accuracy": accuracy,
                    "gap": 0.95 - accuracy,
                }
                if cycle and method in (*NORMS, "egl"):
                    result |= {"selected": 50, "fell": int(rng.integers(40, 51))}
                    result |= {"pool": n - 50 * cycle, "pool_fell": int((0.6 + 0.05 * cycle) * (n - 50 * cycle))}
                if cycle and settings["evidence"] == "influence":
                    shared = {"influence_eq3_eq5": 20 + cycle, "influence_eq2_eq5": 12, "influence_eq2_eq3": 30}
                    result |= {"influence_n": n - 50 * cycle, "influence_k": 50, **shared}
                norm = rng.gamma(2, 1, n)
                rank = pd.Series(-(norm * min(place, 6) / 6 + rng.gamma(2, 1, n))).rank()
                columns = {"label-gradnorm": norm}
                if method in NORMS:
                    columns |= {f"{kind}-gradnorm": norm + rng.normal(0, 0.3, n) for kind in ("sum", "l2", "head")}
                if method == "egl":
                    columns |= {"egl": norm, "entropy-gradnorm": norm + rng.normal(0, 1, n)}
                table = pd.DataFrame(
                    {"sample_id": [str(i) for i in range(n)], "rank": rank.where(rank <= 800), **columns}
                )
                atomic.write_table(one.cycle_path(cycle) / "ranking.parquet", table)
                one.log.finish(cycle, "score", 1.0, result)
    folder = home / "studies" / name
    folder.mkdir(parents=True)
    atomic.write_atomically(folder / "study.json", json.dumps({"title": title, "about": ABOUT, "runs": plan}).encode())
    return name


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with a study of all strategies on fashion, one on cifar10, and one that has stopped in the middle."""
    home = tmp_path_factory.mktemp("studies")
    fake_study(home, "20260101-120000-fashion", "All strategies on Fashion-MNIST", strategies.CATALOGUE)
    fake_study(
        home,
        "20260101-130000-cifar10",
        "The paper's",
        ("random", "core-set", *NORMS, "egl"),
        dataset="cifar10",
        model="resnet18",
        evidence="influence",
    )
    fake_study(home, "20260101-110000-half", "Half done", ("random", "margin"), done=1, budget=60, evidence=False)
    with serve(home, home / "server.log") as served:
        yield served


@pytest.fixture
def guest(chromium: BrowserContext, studies: Server) -> Iterator[Visitor]:
    """A visitor of that dashboard; fails at the end where the console complained."""
    with visiting(chromium, studies.url) as someone:
        yield someone


@pytest.mark.slow
def test_figures_tables_and_exports_of_a_study(guest):
    guest.open("/compare?study=20260101-120000-fashion")
    expect(guest.page.get_by_text(f"{WHOLE}: 4 cycles × 3 seeds each.")).to_be_visible()
    for text in ("Test accuracy (%)", "Accuracy above random (points)", "Train − test accuracy (points)"):
        expect(guest.page.locator(".plotly .xtitle, .plotly .ytitle").get_by_text(text)).to_be_visible()
    expect(guest.page.get_by_test_id("stDataFrame")).to_have_count(6)
    expect(
        guest.page.get_by_text(f"{len(strategies.CATALOGUE) - 1} comparisons; the intervals are not adjusted")
    ).to_be_visible()
    expect(guest.page.get_by_text("Not measured")).to_have_count(0)
    guest.page.get_by_role("button", name="Export table").nth(1).click()
    with guest.page.expect_download(timeout=PATIENCE) as got:
        guest.page.get_by_role("button", name=f"CSV · {len(strategies.CATALOGUE) - 1} rows").click()
    verdicts = pd.read_csv(io.BytesIO(got.value.path().read_bytes()))
    assert set(verdicts["method"]) == set(strategies.CATALOGUE) - {"random"}
    guest.page.keyboard.press("Escape")
    guest.page.get_by_role("button", name="Export figure").first.click()
    with guest.page.expect_download(timeout=PATIENCE) as got:
        guest.page.get_by_role("button", name="Interactive HTML").click()
    assert f"{3 * len(strategies.CATALOGUE)} runs" in got.value.path().read_text()


@pytest.mark.slow
def test_the_papers_figures_stand_beside_ours_on_cifar10_alone(guest):
    guest.open("/compare?study=20260101-130000-cifar10")
    expect(guest.page.get_by_text("Table 1 of Wang et al. 2022, matched by share of the pool")).to_be_visible()
    expect(guest.page.get_by_text("“Paper”: Table 2 of Wang et al. 2022")).to_be_visible()
    expect(guest.page.get_by_text("Tables 4 and 5 of Wang et al. 2022")).to_be_visible()
    guest.page.get_by_role("combobox", name="Study").click()
    guest.page.get_by_role("option", name=re.compile("All strategies")).click()
    guest.settled()
    expect(guest.page.get_by_text(WHOLE)).to_be_visible()
    assert "study=20260101-120000-fashion" in guest.page.url
    expect(guest.page.get_by_text("of Wang et al. 2022, matched")).to_have_count(0)


def test_a_study_that_stopped_can_be_resumed_and_says_what_it_lacks(guest):
    guest.open("/compare?study=20260101-110000-half")
    expect(guest.page.get_by_text("6 of 24 cycles in 6 runs done.")).to_be_visible()
    expect(guest.page.get_by_role("button", name="Resume")).to_be_enabled()
    expect(guest.page.get_by_role("button", name="Cancel")).to_be_disabled()
    expect(guest.page.get_by_text("Not measured in these runs").first).to_be_visible()
    expect(guest.page.get_by_text("No strategy has come past the first cycle").first).to_be_visible()


def test_runs_like_the_selected_one_leave_out_other_settings(guest):
    guest.open("/compare?study=run&run=20260101-110000-half-margin-s1")
    expect(
        guest.page.get_by_text(
            re.compile(rf"6 of {6 + 3 * len(strategies.CATALOGUE)} runs on these data share .* different settings")
        )
    ).to_be_visible()
    expect(guest.page.get_by_text("6 runs of 2 strategies: 1 cycle × 3 seeds each.")).to_be_visible()


def test_strategies_can_be_left_out(guest):
    guest.open("/compare?study=20260101-110000-half")
    guest.page.get_by_test_id("stMultiSelect").last.get_by_label("Remove random").click()
    guest.settled()
    expect(guest.page.get_by_text("3 runs of 1 strategy")).to_be_visible()
    expect(guest.page.get_by_text("There is no run of random").first).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("link", ["/compare?study=no-such", "/compare?study=../../etc", "/compare?study=" + "9" * 3000])
def test_odd_links_show_another_study(guest, link):
    guest.open(link)
    expect(guest.page.get_by_text("which is not here; showing another")).to_be_visible()
    expect(guest.page.get_by_text("runs of").first).to_be_visible()


@pytest.mark.slow
def test_where_nothing_was_started_the_example_is_compared_and_a_study_starts(chromium, tmp_path):
    with serve(tmp_path / "home", tmp_path / "server.log") as server, visiting(chromium, server.url) as visitor:
        page = visitor.page
        visitor.open("/compare")
        expect(page.get_by_text("2 of 2 runs on these data share budget, model and training")).to_be_visible()
        page.get_by_text("Start a study").click()
        names = study.read("fashion").arms
        visitor.types("Number of seeds", "1")
        expect(page.get_by_text(f"{len(names)} runs, one after another")).to_be_visible()
        page.get_by_role("button", name="Start study").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_enabled()
        assert "study=" in page.url
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("Resume to go on")).to_be_visible()
        assert len(list((tmp_path / "home").glob("*/config.json"))) == len(names)
