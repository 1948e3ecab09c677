"""Images of one's own on the page New run: a folder, a zip file and tables, each looked at before anything runs."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, expect

import data
from core.runs import run
from tests.browser.conftest import PATIENCE, Server, Visitor, serve, visiting

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("new")
    with serve(home / "runs", home / "server.log", home / "data") as served:
        yield served


@pytest.fixture
def guest(chromium: BrowserContext, fresh: Server) -> Iterator[Visitor]:
    with visiting(chromium, fresh.url) as someone:
        someone.open("/new")
        yield someone


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Forty images in two class folders."""
    rng = np.random.default_rng(0)
    for k, label in enumerate(("dark", "light")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(80 + 90 * k, 30, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i:02d}.png")
    return tmp_path / "images"


def packed(images: Path) -> Path:
    """A folder as a system's “Compress” packs it."""
    path = images.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(images.rglob("*.*")):
            archive.write(file, file.relative_to(images.parent))
    return path


def starts(guest: Visitor, labels: str) -> None:
    """Start a run of one cycle with a tiny network, and wait for its end."""
    guest.types("Labels per cycle", labels)
    guest.types("Cycles", "1")
    guest.trains_briefly()
    guest.types("Width", "4")
    guest.page.get_by_role("button", name="Start run").click()
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Cycles")
    expect(guest.page.get_by_text("finished · 1 of 1")).to_be_visible(timeout=3 * PATIENCE)


def number(guest: Visitor, name: str) -> str:
    """One of the numbers below “What is there”."""
    metric = guest.page.get_by_test_id("stMetric").filter(has_text=name)
    return metric.get_by_test_id("stMetricValue").inner_text()


@pytest.mark.slow
def test_an_uploaded_zip_file_is_checked_and_started(guest, fresh, images):
    guest.chooses("A zip file")
    guest.uploads(packed(images), "Images, packed as a zip file")
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_text("What is there")).to_be_visible()
    guest.settled()
    assert (number(guest, "Images to work on"), number(guest, "Test images"), number(guest, "Classes")) == (
        "32",
        "8",
        "2",
    )
    # What is still on its way when the page is drawn anew is no longer there
    guest.page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    starts(guest, "8")
    (path,) = fresh.home.glob("*/config.json")
    config = run.Run(path.parent).config
    assert config.dataset == "folder"
    assert Path(config.root).parent == fresh.home.parent / "data" / "uploads"


@pytest.mark.slow
def test_an_uploaded_zip_file_of_masks_is_checked_and_started(guest, fresh, tmp_path):
    """Its layout is recognised and can be changed, its masks are shown, and a cycle of active learning ends."""
    for i in range(12):
        mask = np.kron(np.random.default_rng(i).integers(0, 3, (2, 4)), np.ones((8, 8))).astype(np.uint8)
        for part, pixels in (("images", 80 * mask), ("masks", mask)):
            (tmp_path / "scenes" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "scenes" / part / f"{i:02d}.png")
    (tmp_path / "scenes" / "classes.csv").write_text("background\nroad\nsky\n")
    before = set(fresh.home.glob("*/config.json"))
    guest.chooses("A zip file")
    guest.uploads(packed(tmp_path / "scenes"), "Images, packed as a zip file")
    layout = guest.page.get_by_role("combobox", name="Layout of the zip file")
    expect(layout).to_have_value(data.CATALOGUE["masks"].title)
    expect(guest.page.get_by_text("Labels or annotations from a table")).to_have_count(0)
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_text("12 of 12 images with a mask.")).to_be_visible()
    guest.settled()
    expect(guest.page.get_by_role("listitem").filter(has_text="sky")).to_be_visible()
    guest.page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    starts(guest, "3")
    expect(guest.page.get_by_text("IoU of each class")).to_be_visible()
    (path,) = set(fresh.home.glob("*/config.json")) - before
    config = run.Run(path.parent).config
    assert (config.dataset, config.method) == ("masks", "entropy-gradnorm")


@pytest.mark.slow
def test_what_is_left_out_is_said_before_a_run_and_in_it(guest, fresh, images):
    """Images are known by their content; what is none is counted, in an uploaded zip file as in a folder."""
    for path in (images / "dark").iterdir():
        path.rename(path.with_suffix(".jfif"))
    for i in range(40):
        (images / "light" / f"{i:02d}.txt").write_text("a note")
    before = set(fresh.home.glob("*/config.json"))
    guest.chooses("A zip file")
    guest.uploads(packed(images), "Images, packed as a zip file")
    guest.page.get_by_role("button", name="Check the images").click()
    said = "40 files are left out: not an image that can be read (40: images/light/00.txt, images/light/01.txt,"
    expect(guest.page.get_by_text(said)).to_be_visible()
    guest.settled()
    assert (number(guest, "Images to work on"), number(guest, "Left out")) == ("32", "40")
    guest.types("Labels per cycle", "8")
    guest.types("Cycles", "1")
    guest.trains_briefly()
    guest.types("Width", "4")
    guest.page.get_by_role("button", name="Start run").click()
    expect(guest.page.get_by_role("heading", level=1)).to_have_text("Cycles")
    expect(guest.page.get_by_text(said)).to_be_visible()
    (path,) = set(fresh.home.glob("*/config.json")) - before
    assert [(group.n, group.reason) for group in run.Run(path.parent).left_out()] == [
        (40, "not an image that can be read")
    ]


def test_a_link_that_leads_out_of_the_folder_is_refused(guest, tmp_path, images):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(images)
    guest.chooses("A folder on the server")
    guest.types("Folder on the server", str(tmp_path / "linked"))
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_role("alert").get_by_text("train is a link that leads out of the folder")).to_be_visible()
    expect(guest.page.get_by_role("button", name="Start run")).to_have_count(0)


def test_a_harmful_zip_file_is_refused_in_one_sentence(guest, tmp_path, images):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.write(images / "dark" / "00.png", "../../evil.png")
    guest.chooses("A zip file")
    guest.uploads(tmp_path / "evil.zip", "Images, packed as a zip file")
    expect(guest.page.get_by_role("alert").get_by_text("a name that leads out of its folder")).to_be_visible()
    expect(guest.page.get_by_role("button", name="Check the images")).to_have_count(0)


@pytest.mark.parametrize("how", ["typed", pytest.param("uploaded", marks=pytest.mark.slow)])
def test_labels_from_a_table_take_the_place_of_the_folders(guest, tmp_path, images, how):
    rows = [f"{label}/{i:02d}.png,{'abc'[i % 3]}\n" for label in ("dark", "light") for i in range(20)]
    (tmp_path / "labels.csv").write_text("file_name,label\n" + "".join(rows))
    guest.chooses("A folder on the server")
    guest.page.get_by_text("Labels or annotations from a table").click()
    if how == "typed":
        guest.types("Table on the server (optional)", str(tmp_path / "labels.csv"))
    else:
        guest.uploads(tmp_path / "labels.csv", "or upload it")
    guest.types("Folder on the server", str(images))
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_text("What is there")).to_be_visible()
    guest.settled()
    assert number(guest, "Classes") == "3"


def test_votes_are_for_label_cleaning(guest, tmp_path, images):
    rows = [f"{label}/{i:02d}.png,{who},{label}\n" for label in ("dark", "light") for i in range(20) for who in "ab"]
    (tmp_path / "votes.csv").write_text("sample_id,annotator,label\n" + "".join(rows))
    guest.chooses("A folder on the server")
    guest.page.get_by_text("Labels or annotations from a table").click()
    guest.types("Table on the server (optional)", str(tmp_path / "votes.csv"))
    guest.types("Folder on the server", str(images))
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_text("Votes of several people are for label cleaning")).to_be_visible()
    guest.settled()  # what is there is still being drawn above it
    guest.chooses("Check next — label cleaning")
    expect(guest.page.get_by_role("button", name="Start run")).to_be_visible()


@pytest.mark.slow
def test_a_run_on_votes_shows_which_images_tie(guest, tmp_path, images):
    """Ann and bob disagree on one image: it comes first, without a label, and New run says by which score it ranks."""
    voted = [(f"{label}/{i:02d}.png", who, label) for label in ("dark", "light") for i in range(20) for who in "ab"]
    voted[7] = ("dark/03.png", "b", "light")
    (tmp_path / "votes.csv").write_text("sample_id,annotator,label\n" + "".join(f"{','.join(one)}\n" for one in voted))
    guest.chooses("A folder on the server")
    guest.page.get_by_text("Labels or annotations from a table").click()
    guest.types("Table on the server (optional)", str(tmp_path / "votes.csv"))
    guest.types("Folder on the server", str(images))
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_text("Votes of several people are for label cleaning")).to_be_visible()
    guest.settled()  # what is there is still being drawn above it
    guest.chooses("Check next — label cleaning")
    expect(guest.page.get_by_text("Ties come first, whatever the score.")).to_be_visible()
    expect(guest.page.get_by_text("1 − p[label] — high: the label gets little probability")).to_be_visible()
    guest.page.get_by_role("button", name="Start run").click()
    expect(guest.page.get_by_text("waits for labels · 1 cycle")).to_be_visible(timeout=3 * PATIENCE)
    one = guest.page.url.split("run=")[1].split("&")[0]
    guest.open(f"/gallery?run={one}&order=rank")
    first = guest.page.locator("button.tile").first
    expect(first).to_contain_text("tied", timeout=PATIENCE)
    first.click()
    expect(guest.page.get_by_text("tied (2 annotations), so that no label stands")).to_be_visible()
    guest.open(f"/cycles?run={one}")
    expect(guest.page.get_by_text("Tied images are left out of the training")).to_be_visible()
    expect(guest.page.get_by_test_id("stMetric").filter(has_text="Tied images")).to_contain_text("1")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file_name,label\ndark/99.png,dark\n", "names dark/99.png, which is not in"),
        pytest.param(
            "file_name,label\n../../../etc/passwd,dark\n", "file_name must be a path inside of", marks=pytest.mark.slow
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(guest, tmp_path, images, content, says):
    gives(guest, images, tmp_path / "labels.csv", content)
    guest.page.get_by_role("button", name="Check the images").click()
    expect(guest.page.get_by_role("alert").get_by_text(says)).to_be_visible()
    expect(guest.page.get_by_role("button", name="Start run")).to_have_count(0)


def test_a_table_without_its_columns_is_refused_before_anything_is_checked(guest, tmp_path, images):
    gives(guest, images, tmp_path / "labels.csv", "picture,class\n00.png,dark\n")
    says = "neither a column file_name, for labels, nor a column sample_id"
    expect(guest.page.get_by_role("alert").get_by_text(says)).to_be_visible()
    expect(guest.page.get_by_role("button", name="Check the images")).to_have_count(0)


def gives(guest, images: Path, table: Path, content: str) -> None:
    """Name a folder and a table for it on the page New run."""
    table.write_text(content)
    guest.chooses("A folder on the server")
    guest.types("Folder on the server", str(images))
    guest.page.get_by_text("Labels or annotations from a table").click()
    guest.types("Table on the server (optional)", str(table))


@pytest.mark.parametrize(
    "label", ["Folder on the server", pytest.param("Table on the server (optional)", marks=pytest.mark.slow)]
)
def test_paths_outside_the_roots_are_refused_with_the_reason(guest, tmp_path, images, label):
    (images / "away").symlink_to("/etc")
    guest.chooses("A folder on the server")
    guest.page.get_by_text("Labels or annotations from a table").click()
    for path in ("/etc/passwd", f"{images}/away/passwd"):
        guest.types(label, path)
        expect(guest.page.get_by_role("alert").get_by_text("/etc/passwd lies outside of")).to_be_visible()
    expect(guest.page.get_by_role("button", name="Check the images")).to_have_count(0)


def test_one_class_alone_cannot_be_started(guest, tmp_path, images):
    (images / "light").rename(tmp_path / "elsewhere")
    guest.checks(images)
    expect(guest.page.get_by_text("There is only one class, dark")).to_be_visible()
    expect(guest.page.get_by_role("button", name="Start run")).to_have_count(0)
