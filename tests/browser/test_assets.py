"""The scripts of the components by themselves, in the order in which Streamlit may call them."""

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.browser
ASSETS = Path(__file__).parents[2] / "pages" / "ui" / "assets"
GUIDE = {"guide": None, "url": ""}
DATA = {
    "desk": {
        "place": ["run", "ann", 0],
        "classes": ["dark", "light"],
        "queue": [{"id": "1.png", **GUIDE}, {"id": "2.png", **GUIDE}],
        "said": [],
        "left": 2,
        "empty": "",
        "large": False,
        "done": {"tab": "", "number": 0},
    },
    "maskdesk": {
        "place": ["run", "ann", 0],
        "classes": ["sky", "road"],
        "colours": [[0, 0, 255], [90, 90, 90]],
        "height": 2,
        "width": 3,
        "queue": [{"id": "1.png", **GUIDE, "given": "BQA=", "proposal": "", "box": None}],
        "said": [],
        "left": 1,
        "empty": "",
        "large": False,
        "done": {"tab": "", "number": 0},
    },
    "zoom": {
        "at": 0,
        "total": 2,
        "score": "Φ",
        "images": {
            i: {
                "url": "",
                "id": f"{i}.png",
                "smooth": False,
                "suggested": "dark",
                "given": "dark",
                "whose": "",
                "score": "1",
                "kind": "",
                "size": "",
            }
            for i in (0, 1)
        },
    },
}


@pytest.mark.parametrize(
    ("name", "key", "sent"), [("desk", "1", "actions"), ("maskdesk", "Enter", "actions"), ("zoom", "ArrowRight", "at")]
)
def test_keys_work_although_the_first_drawing_is_cleaned_up_after_the_second(chromium: BrowserContext, name, key, sent):
    """So it happens where two reruns follow each other faster than the script arrives."""
    page = chromium.new_page()
    page.set_content((ASSETS / f"{name}.html").read_text(encoding="utf-8"))
    page.evaluate(
        """async ([script, data]) => {
            const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
            const { default: mount } = await import(url);
            window.sent = [];
            const setStateValue = (name) => window.sent.push(name);
            const props = { parentElement: document.body, data, setStateValue };
            const [first, second] = [mount(props), mount(props)];
            first();
            window.unmount = second;
        }""",
        [(ASSETS / f"{name}.js").read_text(encoding="utf-8"), DATA[name]],
    )
    page.keyboard.press(key)
    assert page.evaluate("window.sent") == [sent]
    page.evaluate("window.unmount()")
    page.keyboard.press(key)
    assert page.evaluate("window.sent") == [sent]
    page.close()
