"""Who gets in, and what names of files and classes may not do."""

import dataclasses
import hashlib
import io
import json
import select
import socket
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.sync.connection import Connection

import data
from core import password
from core.files import bundle
from core.runs import run, settle
from tests.browser.conftest import PATIENCE, finished_run, serve, visiting

pytestmark = pytest.mark.browser
PAGES = ("", "new", "cycles", "rankings", "curves", "compare", "diff", "gallery", "pool", "annotate", "learn")
EVIL = '<img src=x onerror="alert(1)">'
MARKUP = "$x^2$ **b** [l](http://evil.example) `c` :red[r]"


@pytest.mark.slow
def test_a_server_for_other_machines_without_a_login_shows_nothing(chromium, tmp_path):
    with (
        serve(tmp_path / "home", tmp_path / "server.log", address="0.0.0.0") as served,
        visiting(chromium, served.url) as someone,
    ):
        for page in PAGES:
            someone.open(f"/{page}")
            expect(someone.page.get_by_text("listens to other machines and has no login")).to_be_visible()
            assert someone.page.get_by_test_id("stSidebar").count() == 0


@pytest.mark.slow
def test_every_page_asks_for_the_password(chromium, tmp_path):
    environment = {password.VARIABLE: password.hashed("correct horse battery")}
    with (
        serve(tmp_path / "home", tmp_path / "server.log", address="0.0.0.0", environment=environment) as served,
        visiting(chromium, served.url) as someone,
    ):
        for path in PAGES:
            someone.open(f"/{path}")
            expect(someone.page.get_by_label("Password", exact=True)).to_be_visible()
            assert someone.page.get_by_test_id("stSidebar").count() == 0


@pytest.mark.slow
def test_a_password_lets_in_and_a_wrong_one_has_to_wait(chromium, tmp_path):
    environment = {password.VARIABLE: password.hashed("correct horse battery")}
    with (
        serve(tmp_path / "home", tmp_path / "server.log", address="0.0.0.0", environment=environment) as served,
        visiting(chromium, served.url) as someone,
    ):
        page = someone.page

        def tries(text):
            page.get_by_label("Password", exact=True).fill(text)
            page.get_by_role("button", name="Log in").click()
            someone.settled()

        someone.open("/rankings")
        expect(page.get_by_label("Password", exact=True)).to_be_visible()
        assert page.get_by_test_id("stSidebar").count() == 0
        tries("wrong")
        expect(page.get_by_text("This is not the password.")).to_be_visible()
        tries("correct horse battery")
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        someone.go("Rankings")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Password", exact=True)).to_be_visible()
        too_many = page.get_by_text("Too many wrong passwords: try again in")
        for _ in range(10):
            tries("wrong")
            if too_many.is_visible():
                break
        tries("correct horse battery")
        expect(too_many).to_be_visible()


@dataclass
class Stranger:
    """Someone who has a session, as every visitor, and has not logged in."""

    url: str
    socket: Connection

    def __post_init__(self) -> None:
        with urllib.request.urlopen(f"{self.url}/_stcore/health") as answer:
            self.token = answer.headers["set-cookie"].split(";")[0].split("=", 1)[1]
        asked = BackMsg()
        asked.rerun_script.query_string = ""
        self.socket.send(asked.SerializeToString())
        self.session = self.hears("new_session").new_session.initialize.session_id

    def hears(self, kind: str) -> ForwardMsg:
        """The next message of a kind: `script_finished` comes when the page is drawn."""
        said = ForwardMsg()
        while said.WhichOneof("type") != kind:
            said.ParseFromString(self.socket.recv(timeout=60))
        return said

    def put(self, content: bytes, name: str) -> int:
        """Upload as Streamlit's page does; returns the status of the answer."""
        begin = b'--edge\r\nContent-Disposition: form-data; name="a.zip"; filename="a.zip"\r\n\r\n'
        body, end = begin + content, b"\r\n--edge--\r\n"
        asked = HTTPConnection(self.url.removeprefix("http://"))
        asked.putrequest("PUT", f"/_stcore/upload_file/{self.session}/{name}")
        asked.putheader("Content-Type", "multipart/form-data; boundary=edge")
        asked.putheader("Content-Length", str(len(body) + len(end)))
        asked.putheader("Cookie", f"_streamlit_xsrf={self.token}")
        asked.putheader("X-Xsrftoken", self.token)
        asked.endheaders()
        refused = select.select([asked.sock], [], [], 0.3)[0]  # before it has read the file
        if not refused:
            asked.send(body + end)
        status = asked.getresponse().status
        asked.close()
        return status


@contextmanager
def stranger_at(url: str) -> Iterator[Stranger]:
    """Connected as Streamlit's page is, without a browser."""
    address = f"{url.replace('http', 'ws')}/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None) as socket:
        yield Stranger(url, socket)


def memory(pid: int) -> int:
    """What a process holds, in bytes."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def test_nobody_uploads_without_logging_in(chromium, tmp_path):
    environment = {password.VARIABLE: password.hashed("correct horse battery")}
    with (
        serve(tmp_path / "home", tmp_path / "server.log", environment=environment) as served,
        visiting(chromium, served.url) as someone,
        stranger_at(served.url) as stranger,
    ):
        before = memory(served.process.pid)
        for k in range(40):
            assert stranger.put(bytes(1 << 20), str(k)) == 403
        assert memory(served.process.pid) - before < 20 << 20
        someone.open("/")
        someone.page.get_by_label("Password", exact=True).fill("correct horse battery")
        someone.page.get_by_role("button", name="Log in").click()
        someone.settled()
        someone.page.get_by_text("Open a bundle").click()
        (tmp_path / "a.zip").write_bytes(b"no bundle")
        someone.uploads(tmp_path / "a.zip", stays=False)
        expect(someone.page.get_by_text("This is no bundle that can be opened")).to_be_visible()
        assert stranger.put(b"a", "late") == 403  # another's login is not the stranger's


def test_without_a_password_on_this_machine_uploads_need_no_login(server):
    with stranger_at(server.url) as somebody:
        somebody.hears("script_finished")
        assert somebody.put(b"a", "one") == 204


def test_a_server_without_the_gate_shows_nothing_to_those_who_would_log_in(chromium, tmp_path):
    environment = {password.VARIABLE: password.hashed("correct horse battery")}
    with (
        serve(tmp_path / "home", tmp_path / "server.log", environment=environment, script="pages/learn.py") as served,
        visiting(chromium, served.url) as someone,
    ):
        someone.open("/")
        expect(someone.page.get_by_text("would take files from visitors who have not logged in")).to_be_visible()
        assert someone.page.get_by_label("Password", exact=True).count() == 0


@pytest.mark.slow
def test_a_provider_that_is_not_set_up_lets_nobody_in_and_says_why(chromium, tmp_path):
    (tmp_path / "secrets.toml").write_text('[auth]\nclient_id = "nobody"\n')
    environment = {"STREAMLIT_SECRETS_FILES": str(tmp_path / "secrets.toml")}
    with (
        serve(tmp_path / "home", tmp_path / "server.log", address="0.0.0.0", environment=environment) as served,
        visiting(chromium, served.url) as someone,
    ):
        for page in PAGES:
            someone.open(f"/{page}")
            expect(someone.page.get_by_role("button", name="Log in")).to_be_visible()
            assert someone.page.get_by_test_id("stSidebar").count() == 0
        someone.page.get_by_role("button", name="Log in").click()
        expect(someone.page.get_by_text("The login is not set up, so nobody gets in")).to_be_visible()


def test_by_default_nobody_else_reaches_it(server):
    port = int(server.url.rsplit(":", 1)[1])
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in own - {"127.0.0.1", "127.0.1.1"}:
        with socket.socket() as stranger:
            stranger.settimeout(2)
            assert stranger.connect_ex((address, port)) != 0


def test_folders_elsewhere_are_not_read(visitor):
    visitor.open("/new")
    visitor.chooses("A folder on the server")
    visitor.types("Folder on the server", "/etc")
    expect(
        visitor.page.get_by_role("alert").get_by_text("lies outside of what this dashboard may read")
    ).to_be_visible()
    expect(visitor.page.get_by_role("button", name="Check the images")).to_have_count(0)


@pytest.mark.slow
def test_names_are_text_on_every_page(chromium, tmp_path):
    """Class and file names that would be HTML, Markdown or a formula are shown as they are."""
    rng = np.random.default_rng(0)
    for shade, label in ((60, EVIL), (190, MARKUP.replace("/", "∕"))):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(rng.normal(shade, 30, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i} {EVIL.replace('/', '')}.png")
    with serve(tmp_path / "home", tmp_path / "server.log") as served, visiting(chromium, served.url) as someone:
        dialogs = []
        page = someone.page
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        someone.open("/new")
        someone.checks(tmp_path / "images")
        expect(page.get_by_text(EVIL).first).to_be_visible()
        someone.chooses("Check next — label cleaning")
        someone.trains_briefly()
        page.get_by_role("button", name="Start run").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Annotate", timeout=PATIENCE)
        someone.go("Cycles")
        expect(page.get_by_role("heading", name="What each cycle did")).to_be_visible(timeout=3 * PATIENCE)
        (path,) = (tmp_path / "home").glob("*/config.json")
        one = run.Run(path.parent)
        sample = one.ranking(0)["sample_id"].iloc[0]
        for name in PAGES:
            someone.open(f"/{name}?run={one.id}&cycle=0")
            assert page.locator("img[src='x']").count() == 0, name
            assert page.get_by_role("link", name="l", exact=True).count() == 0, name
        for view in ("table", "confusion", "scatter"):
            someone.open(f"/rankings?run={one.id}&view={view}")
            assert page.locator("img[src='x']").count() == 0, view
        someone.open(f"/gallery?run={one.id}&cycle=0")
        expect(page.get_by_role("button", name=EVIL).first).to_be_visible()
        page.locator(".picture").first.click()
        someone.settled()
        expect(page.get_by_text(sample.split("/")[0]).first).to_be_visible()
        assert page.locator("img[src='x']").count() == 0
        assert dialogs == []


@pytest.mark.slow
def test_names_of_an_opened_bundle_call_nobody(chromium, tmp_path, monkeypatch):
    """Markdown, HTML and icons in all that a bundle says are shown as they are, and no server is asked for them."""
    leak = "http://127.0.0.1:9/leak"
    names = [f"![x]({leak}.png) $x$ :material/home:", f'<img src="{leak}"> [a]({leak})']
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "made"))
    one = finished_run(task="label-cleaning", method="cleaning", budget=0, cycles=2, limit=60)
    dataset = dataclasses.replace(
        data.load("fashion", limit=60),
        name=names[0],
        class_names=[f"{k} {names[k % 2]}" for k in range(10)],
        ids=[f"{k} {names[k % 2]}" for k in range(60)],
        annotators_source=names[0],
        skipped=[(names[1], names[0])],
    )
    renamed = dict(zip(data.load("fashion", limit=60).ids, dataset.ids, strict=True))
    monkeypatch.setattr(bundle, "EMBEDDED", ())
    bundled = zipfile.ZipFile(io.BytesIO(bundle.to_bytes(one, dataset)))
    files = {name: bundled.read(name) for name in bundled.namelist()}
    for name in files:
        if name.endswith(("events.parquet", "ranking.parquet")):
            table = pd.read_parquet(io.BytesIO(files[name]))
            files[name] = bundle._parquet(table.assign(sample_id=table["sample_id"].map(renamed)))
    started = json.loads(files["config.json"])
    started["config"] |= {"dataset": "folder", "limit": None, "study": names[0].replace("/", "")}
    started["about"] |= settle.about(dataset)
    files["config.json"] = json.dumps(started).encode()
    manifest = json.loads(files["manifest.json"])
    manifest["run"] = "![x] $x$ `y` :material_home: <b>z"
    sums = {name: content for name, content in files.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in sums.items()
    }
    files["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with serve(tmp_path / "home", tmp_path / "server.log") as served, visiting(chromium, served.url) as someone:
        asked = []
        page = someone.page
        page.on("request", lambda request: asked.append(request.url) if "leak" in request.url else None)
        someone.open("/")
        page.get_by_text("Open a bundle").click()
        someone.uploads(tmp_path / "evil.zip", stays=False)
        expect(page.get_by_role("heading", level=1)).to_have_text("Cycles", timeout=PATIENCE)
        someone.settled()
        expect(page.get_by_role("alert").get_by_text(names[1])).to_be_visible()
        address = urlencode({"run": manifest["run"], "cycle": 1})
        for name in PAGES:
            someone.open(f"/{name}?{address}")
            assert page.get_by_role("link", name="a", exact=True).count() == 0, name
        someone.open(f"/gallery?{address}")
        page.locator(".picture").first.click()
        someone.settled()
        page.get_by_text("Nearest in the model's embedding").first.click()
        someone.settled()
        assert page.locator("img[src*='leak']").count() == 0
        assert asked == []
