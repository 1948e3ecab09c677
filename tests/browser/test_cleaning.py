"""Label cleaning in the browser: Figure 3, disagreement, and a round of labels from people on a folder of one's own."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, expect

from core.runs import run, study
from core.runs.study import Protocol
from tests.browser.conftest import PATIENCE, Server, Visitor, serve, visiting

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def cleaning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard with a small study of label cleaning, two selectors, and classifiers before and after."""
    import data
    from core.engine import evaluation, loop

    home = tmp_path_factory.mktemp("cleaning")
    settings = {"task": "label-cleaning", "dataset": "fashion", "limit": 300, "noise": 0.25, "cycles": 2}
    settings |= {"static": True, "model": "small-cnn", "width": 4, "epochs": 3, "batch_size": 32, "evidence": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        arms = [{"method": "cleaning"}, {"method": "cleaning", "selector": "elr"}]
        made = study.create(Protocol("small", "A small study of cleaning", arms, [0], settings))
        pool = data.load("fashion", limit=300)
        for one in made.runs:
            loop.work(one, pool)
        for which in ("before", "after"):
            evaluation.evaluate(made.runs[0], pool, made.runs[0].config, which, seed=0)
    with serve(home, home / "server.log") as served:
        yield served


@pytest.fixture
def guest(chromium: BrowserContext, cleaning: Server) -> Iterator[Visitor]:
    with visiting(chromium, cleaning.url) as someone:
        yield someone


@pytest.mark.slow
def test_curves_show_figure_3_with_areas_and_either_band(guest, cleaning):
    one = next(path.parent.name for path in cleaning.home.glob("*vanilla*/config.json"))
    guest.open(f"/curves?run={one}")
    expect(guest.page.get_by_text("oracle (upper bound) · AUC 0.").first).to_be_visible()
    expect(guest.page.get_by_text("elr · AUC 0.").first).to_be_visible()
    expect(guest.page.get_by_text("band ± 1 s.d.").first).to_be_visible()
    guest.page.get_by_text("95 % interval", exact=False).first.click()
    guest.settled()
    expect(guest.page.get_by_text("± 1.96 standard").first).to_be_visible()
    expect(guest.page.get_by_role("heading", name="At the end of the budget")).to_be_visible()


def test_compare_shows_the_tables_of_a_cleaning_study(guest):
    guest.open("/compare")
    expect(guest.page.get_by_role("heading", name="Figure 3", exact=False)).to_be_visible()
    expect(guest.page.get_by_role("heading", name="Table 1", exact=False)).to_be_visible()
    expect(guest.page.get_by_text("--model-selection")).to_be_visible()  # not measured yet: what to do


def test_two_rankings_are_set_side_by_side(guest, cleaning):
    one = next(path.parent.name for path in cleaning.home.glob("*vanilla*/config.json"))
    guest.open(f"/rankings?run={one}&view=disagreement")
    guest.picks("Second", "Graph")
    expect(guest.page.get_by_text("rank correlation (Spearman)")).to_be_visible()


def test_cycles_say_what_each_relabel_did(guest, cleaning):
    one = next(path.parent.name for path in cleaning.home.glob("*vanilla*/config.json"))
    guest.open(f"/cycles?run={one}")
    expect(guest.page.get_by_role("heading", name="What each relabel did")).to_be_visible()
    expect(guest.page.get_by_text("clear noise corrected").first).to_be_visible()
    expect(guest.page.get_by_text("predicted probabilities in-sample").first).to_be_visible()


def pictures(folder: Path) -> Path:
    """Two classes that a model can tell apart, and some labels that are wrong."""
    rng = np.random.default_rng(0)
    for label, shade in (("dark", 60), ("light", 190)):
        (folder / label).mkdir(parents=True)
        for i in range(40):
            value = 250 - shade if i < 4 else shade
            image = np.clip(rng.normal(value, 20, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / label / f"{i:02d}.png")
    return folder


@pytest.mark.slow
def test_people_label_a_folder_of_ones_own(chromium, tmp_path):
    """Start, hand out, bring in, step: the next cycle stands on what people said."""
    folder, home = pictures(tmp_path / "images"), tmp_path / "runs"
    with serve(home, tmp_path / "server.log") as served, visiting(chromium, served.url) as someone:
        page = someone.page
        someone.open("/new")
        someone.checks(folder)
        someone.chooses("Check next — label cleaning")
        someone.trains_briefly()
        page.get_by_role("button", name="Start run").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Annotate", timeout=PATIENCE)
        someone.go("Cycles")
        handing = page.get_by_role("button", name="Label Studio file")
        expect(handing).to_be_visible(timeout=3 * PATIENCE)  # once there is a ranking
        someone.settled()
        with page.expect_download() as handed:
            handing.click()
        bundle = zipfile.ZipFile(io.BytesIO(Path(handed.value.path()).read_bytes()))
        tasks = json.loads(bundle.read("tasks.json"))
        assert len([name for name in bundle.namelist() if name.endswith(".png")]) == len(tasks)
        for number, task in enumerate(tasks[:10]):
            chosen = {"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": ["dark"]}}
            task["annotations"] = [{"id": number, "completed_by": 1, "result": [chosen]}]
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        someone.uploads(tmp_path / "export.json", "Labels to import")
        page.get_by_role("button", name="Bring in", exact=True).click()
        expect(page.get_by_text("10 new labels of 10 in export.json")).to_be_visible(timeout=PATIENCE)
        page.get_by_role("button", name="Step: one cycle").click()
        expect(page.get_by_role("heading", name="What each relabel did")).to_be_visible(timeout=3 * PATIENCE)
        expect(page.get_by_text("Model agrees").first).to_be_visible()  # one random image is no estimate yet
        (one,) = [path.parent.name for path in home.glob("*/config.json")]
        events = run.Run(home / one).log.labels()
        assert (events["source"] == "person: 1").sum() == 10
        # Nothing new: stepping again says what is missing
        page.get_by_role("button", name="Step: one cycle").click()
        expect(page.get_by_text("Nobody has given a label since the last ranking")).to_be_visible()
