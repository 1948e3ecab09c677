"""Images as a grid of buttons, in groups or not, and one of them enlarged."""

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from core import methods
from data.files import original
from pages.ui.frame import Here
from pages.ui.widgets import data_url, png

KINDS = {"clear noise": "✕ clear noise", "difficult": "◆ difficult", "correct": "● correct"}
CRISP = 48  # pixels a side, up to which an enlarged image shows its pixels; a larger one is smoothed
SHARP = 1.5  # pixels of a thumbnail for each of the screen's: half-way to a screen of double density
LARGEST = 2048  # pixels a side of an enlarged image: more than screens show
ACROSS = 20  # thumbnails side by side in a sheet


@dataclass(frozen=True)
class Group:
    """Images under one heading, or under none where `given` is empty. number: of all, of which `table` holds the first."""

    given: str
    suggested: str
    number: int
    table: pd.DataFrame


@dataclass(frozen=True)
class Done:
    """What was done on a grid just now: the id of an image that was opened, or the place of a group."""

    opened: str | None
    group: int | None


CSS = """
section { margin-bottom: 18px; }
summary { cursor: pointer; padding: 6px 0 8px; font-size: 15px; overflow-wrap: anywhere; border-radius: 4px; }
summary:focus-visible { outline: 2px solid var(--st-primary-color); }
summary .number { opacity: .75; font-size: 13px; font-variant-numeric: tabular-nums; margin-left: 6px; white-space: nowrap; }
.gallery { color: var(--st-text-color); font-family: var(--st-font);
           --given: color-mix(in srgb, #E69F00 54%, var(--st-text-color));
           --suggested: color-mix(in srgb, var(--st-primary-color) 80%, var(--st-text-color)); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(var(--tile), 100%), 1fr)); gap: 8px;
        align-items: start; }
button { all: unset; cursor: pointer; box-sizing: border-box; min-width: 0; }
.tile { border: 2px solid transparent; border-radius: 6px; padding: 4px; }
.tile:hover { border-color: var(--st-border-color); background: var(--st-secondary-background-color); }
.tile:focus-visible { border-color: var(--st-text-color); }
.tile[aria-pressed="true"] { border-color: var(--st-primary-color); background: var(--st-secondary-background-color); }
.frame { width: 100%; aspect-ratio: 1; display: grid; place-items: center; border-radius: 3px; overflow: hidden; }
.frame.partly { background: color-mix(in srgb, var(--st-text-color) 6%, transparent); }
.picture { background-repeat: no-repeat; image-rendering: pixelated; }
.smooth .picture { image-rendering: auto; }
.score { font-size: 12px; line-height: 1.3; margin-top: 4px; font-variant-numeric: tabular-nums; font-weight: 600; }
.kind { font-size: 12px; line-height: 1.3; margin-top: 1px; opacity: .8; }
.label { font-size: 12.5px; line-height: 1.3; overflow-wrap: anywhere; overflow: hidden; margin-top: 1px;
         display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
.differs .given, summary .given { color: var(--given); } .suggested { color: var(--suggested); font-weight: 600; }
.whose { opacity: .75; font-style: italic; }
.more { font-size: 13px; color: var(--suggested); padding: 4px 6px; border-radius: 4px; text-decoration: underline; }
.more:focus-visible { outline: 2px solid var(--st-primary-color); }
"""

JS = """
const seen = new WeakMap();

export default function({ parentElement, data, setTriggerValue }) {
  const gallery = parentElement.querySelector(".gallery");
  let state = seen.get(parentElement);
  if (!state) { state = {}; seen.set(parentElement, state); }
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    if (text !== undefined) element.textContent = text;   // never HTML: names come from files
    return element;
  };
  const buttons = () => [...gallery.querySelectorAll(".tile")];
  function press(id) {
    for (const button of buttons()) button.setAttribute("aria-pressed", String(button.dataset.id === id));
  }
  function reach(button) {   // one tile is reached by Tab, the others from it by the arrows
    for (const other of buttons()) other.tabIndex = other === button ? 0 : -1;
  }
  function pair(given, suggested, whose) {
    const differs = suggested !== "" && suggested !== given;
    const whole = make("div", differs ? "differs" : "agrees");
    const first = make("div", "label given");
    if (whose) first.append(make("span", "whose", whose + " "));
    first.append(given);
    first.title = given;
    whole.append(first);
    if (differs) {
      const second = make("div", "label suggested", "≠ " + suggested);
      second.title = "suggested: " + suggested;
      whole.append(second);
    }
    return whole;
  }

  const { columns, rows, url, shape } = data.sheet;
  const step = (k, n) => n > 1 ? 100 * k / (n - 1) + "%" : "0%";
  function draw(tile, place) {
    const button = make("button", "tile");
    button.type = "button";
    button.title = tile.id;
    button.dataset.id = tile.id;
    const differs = tile.suggested && tile.suggested !== tile.given;
    const told = [tile.id, tile.whose + " " + tile.given, differs ? "suggested " + tile.suggested : "", tile.score, tile.kind];
    button.setAttribute("aria-label", told.filter(Boolean).join(", "));
    const frame = make("div", "frame"), picture = make("div", "picture");
    const ratio = tile.ratio || shape[1] / shape[0];
    frame.classList.toggle("partly", ratio < 0.99 || ratio > 1.01);
    picture.style.width = 100 * Math.min(1, ratio) + "%";
    picture.style.aspectRatio = String(ratio);
    picture.style.backgroundImage = "url(" + state.sheet + ")";
    picture.style.backgroundSize = columns * 100 + "% " + rows * 100 + "%";
    picture.style.backgroundPosition = step(place % columns, columns) + " " + step(Math.floor(place / columns), rows);
    frame.append(picture);
    button.append(frame, make("div", "score", tile.score), pair(tile.given, tile.suggested, tile.whose));
    if (tile.kind) button.append(make("div", "kind", tile.kind));
    button.onclick = () => {
      press(tile.id);
      reach(button);
      setTriggerValue("picked", tile.id);
      // Where the page is narrow, what shows the image stands above
      if (window.innerWidth < 700) document.querySelector(".st-key-gallery-side")?.scrollIntoView({ behavior: "smooth" });
    };
    button.ondblclick = () => setTriggerValue("opened", tile.id);
    return button;
  }

  if (state.version !== data.version) {   // else the same grid is there already, and keeps its focus
    const focused = gallery.getRootNode().activeElement?.dataset?.id;
    state.version = data.version;
    // A short address of the sheet: 200 tiles with all of it in their style take the browser half a second
    if (state.sheet) URL.revokeObjectURL(state.sheet);
    const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (character) => character.charCodeAt(0));
    state.sheet = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    gallery.style.setProperty("--tile", data.tile + "px");
    gallery.classList.toggle("smooth", data.smooth);
    let place = 0;
    gallery.replaceChildren(...data.groups.map((group, number) => {
      const section = make("section", ""), grid = make("div", "grid");
      grid.setAttribute("role", "group");
      grid.append(...group.tiles.map((tile) => draw(tile, place++)));
      if (group.number === null) { grid.setAttribute("aria-label", "Images"); section.append(grid); return section; }
      const details = make("details", ""), summary = make("summary", "");
      details.open = true;
      if (group.given === group.suggested) summary.append(group.given + " = " + group.suggested);
      else summary.append(make("span", "given", group.given), " ≠ ", make("span", "suggested", group.suggested));
      summary.append(make("span", "number", group.numbers));
      grid.setAttribute("aria-label", group.given + " → " + group.suggested);
      details.append(summary, grid);
      if (group.tiles.length < group.number) {
        const more = make("button", "more", "Show all " + group.number.toLocaleString("en"));
        more.type = "button";
        more.onclick = () => setTriggerValue("group", number);
        details.append(more);
      }
      section.append(details);
      return section;
    }));
    const there = buttons();
    reach(there.find((one) => one.dataset.id === focused) ?? there[0]);
    if (focused) there.find((one) => one.dataset.id === focused)?.focus();
  }
  press(data.picked);

  const listen = (event) => {
    const here = event.composedPath()[0];
    if (!(here instanceof Element) || !here.classList.contains("tile") || !gallery.contains(here)) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const all = buttons().filter((one) => one.offsetParent !== null), at = all.indexOf(here);
    const middle = (one) => { const box = one.getBoundingClientRect(); return [box.left + box.width / 2, box.top]; };
    const vertical = (down) => {   // the nearest tile of the next row, in this group or the one beside it
      const [x, y] = middle(here);
      const beyond = all.filter((one) => down ? middle(one)[1] > y + 4 : middle(one)[1] < y - 4);
      if (!beyond.length) return undefined;
      const row = (down ? Math.min : Math.max)(...beyond.map((one) => middle(one)[1]));
      const far = (one) => Math.abs(middle(one)[0] - x);
      return beyond.filter((one) => Math.abs(middle(one)[1] - row) < 4).reduce((a, b) => far(b) < far(a) ? b : a);
    };
    const moves = { ArrowLeft: () => all[at - 1], ArrowRight: () => all[at + 1], ArrowUp: () => vertical(false),
                    ArrowDown: () => vertical(true), Home: () => all[0], End: () => all.at(-1) };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopImmediatePropagation();   // the arrows would change the cycle
    const next = moves[event.key]();
    if (next) { reach(next); next.focus(); next.scrollIntoView({ block: "nearest" }); }
  };
  window.addEventListener("keydown", listen, true);
  if (state.stop) state.stop();
  state.stop = () => window.removeEventListener("keydown", listen, true);
  return () => state.stop();
}
"""

_GRID = st.components.v2.component("nextlabel.tiles", html='<div class="gallery"></div>', css=CSS, js=JS)


def grid(
    here: Here, groups: list[Group], score: str, key: str, side: int, picked: str | None, pick: Callable[[str], None]
) -> Done:
    """Images group by group, each with a score and its labels below; one group without a name is a plain grid.

    score: column that stands on the tiles · side: of a tile, in the screen's pixels · picked: id of the image that is outlined ·
    pick: called with the id of one that is clicked, before anything is drawn.
    """
    table = pd.concat([group.table for group in groups])
    rows = tuple(int(row) for row in table.index)
    sheet = _sheet(here.dataset.images, here.run.id, rows, round(SHARP * side))
    shapes = _ratios(here.config.dataset, here.config.root, tuple(table["sample_id"]))
    tiles = [
        {**labels(row), "score": number(row[score]), "ratio": ratio}
        for (_, row), ratio in zip(table.iterrows(), shapes, strict=True)
    ]
    left = iter(tiles)
    parts = [
        {
            "given": "not labelled" if group.given == "—" else group.given,
            "suggested": group.suggested,
            "number": group.number if group.given else None,
            "numbers": f"{group.number:,} image{'' if group.number == 1 else 's'}",
            "tiles": list(itertools.islice(left, len(group.table))),
        }
        for group in groups
    ]
    data = {
        "groups": parts,
        "tile": side,
        "smooth": max(here.dataset.images.shape[1:3]) > CRISP,
        "sheet": sheet,
        "picked": picked,
        "version": f"{hash((rows, score, side, here.key, str(parts)))}",
    }

    def clicked() -> None:
        pick(st.session_state[key].picked)

    done = _GRID(key=key, data=data, on_picked_change=clicked, on_opened_change=_nothing, on_group_change=_nothing)
    return Done(done.opened, done.group)


def labels(row: pd.Series) -> dict[str, str]:
    """What a tile says of an image: id, given, whose ("ref." where the label is the reference), suggested, kind."""
    unlabelled = row["given"] == "—"
    reference = unlabelled and row["reference"] != "—"
    nothing = "tied" if row["status"] == "tied" else "not labelled"
    return {
        "id": row["sample_id"],
        "given": row["reference"] if reference else nothing if unlabelled else row["given"],
        "whose": "ref." if reference else "",
        "suggested": row["suggested"],
        "kind": KINDS.get(row["kind"], ""),
    }


def number(value: Any) -> str:
    """A score as a tile shows it."""
    if pd.isna(value):
        return "—"
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3f}".replace("-0.000", "0.000")


def _nothing() -> None:
    """A component tells what was done only where somebody listens."""


@st.cache_data(max_entries=16, show_spinner=False)
def _sheet(_images: np.ndarray, run_id: str, rows: tuple[int, ...], side: int) -> dict[str, Any]:
    """All thumbnails of a page as one picture: url, columns, rows, and the shape [H, W] of each."""
    images = small(_images, rows, side)
    n, height, width, channels = images.shape
    columns = min(ACROSS, n)
    lines = -(-n // columns)
    sheet = np.zeros((lines * columns, height, width, channels), dtype=np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(lines * height, columns * width, channels)
    return {"url": url(sheet), "columns": columns, "rows": lines, "shape": [height, width]}


def pictures(here: Here, table: pd.DataFrame, side: int) -> list[str]:
    """Each image as a URL of its own, at most `side` pixels high and wide, in the shape of its file."""
    images = small(here.dataset.images, tuple(int(row) for row in table.index), side)
    made = []
    for image, ratio in zip(
        images, _ratios(here.config.dataset, here.config.root, tuple(table["sample_id"])), strict=True
    ):
        if ratio is not None:
            size = max(1, round(side * min(1.0, ratio))), max(1, round(side * min(1.0, 1 / ratio)))
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).resize(size)
            image = np.asarray(picture).reshape(size[1], size[0], -1)
        made.append(url(image))
    return made


def small(images: np.ndarray, rows: tuple[int, ...], side: int) -> np.ndarray:
    """These images uint8 [n, H, W, C], made smaller where their longer side is above `side` pixels."""
    height, width = images.shape[1:3]
    factor = min(1.0, side / max(height, width))
    if factor == 1.0:
        return np.asarray(images[list(rows)])
    size = max(1, round(factor * width)), max(1, round(factor * height))
    made = []
    for row in rows:
        one = np.asarray(images[row])
        picture = Image.fromarray(one[:, :, 0] if one.shape[2] == 1 else one)
        made.append(np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)))
    return np.stack(made).reshape(len(rows), size[1], size[0], -1)


def url(image: np.ndarray) -> str:
    """A uint8 image [H, W, C] as a URL that needs no request: exact where it is small, else a photograph."""
    if image.size < 1_000_000:
        return data_url(png(image))
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "JPEG", quality=90, subsampling=0)
    return data_url(buffer.getvalue(), "jpeg")


@st.cache_data(max_entries=16, show_spinner=False)
def _ratios(dataset: str, root: str | None, ids: tuple[str, ...]) -> list[float | None]:
    """Width over height of the files that the images come from; None where that is no other than the image's own."""
    found = [original.shape(dataset, root, one) for one in ids]
    return [None if one is None else one[1] / one[0] for one in found]


ZOOM_CSS = """
.zoom { color: var(--st-text-color); font-family: var(--st-font); }
.stage { display: grid; grid-template-columns: 44px minmax(0, 1fr) 44px; gap: 8px; align-items: center; }
.stage button { all: unset; box-sizing: border-box; cursor: pointer; height: 100%; min-height: 160px; display: grid;
                place-items: center;                 font-size: 22px; border-radius: 6px; }
.stage button:hover { background: var(--st-secondary-background-color); }
.stage button:focus-visible { outline: 2px solid var(--st-primary-color); }
.stage button[disabled] { opacity: .25; cursor: default; background: none; }
.frame { height: min(62vh, 640px); display: grid; place-items: center; }
img { width: 100%; height: 100%; min-height: 0; object-fit: contain; image-rendering: pixelated; }
img.smooth { image-rendering: auto; }
.text { text-align: center; margin-top: 12px; line-height: 1.5; font-size: 15px; overflow-wrap: anywhere; }
.small { font-size: 13px; opacity: .8; font-variant-numeric: tabular-nums; }
.differs .given { color: color-mix(in srgb, #E69F00 54%, var(--st-text-color)); }
.suggested { color: color-mix(in srgb, var(--st-primary-color) 80%, var(--st-text-color)); font-weight: 600; }
@media (max-width: 700px) {
  .stage { grid-template-columns: 32px minmax(0, 1fr) 32px; gap: 2px; } .frame { height: min(50vh, 420px); }
}
"""

ZOOM_JS = """
const shown = new WeakMap();

export default function({ parentElement, data, setStateValue }) {
  const $ = (name) => parentElement.querySelector("." + name);
  let state = shown.get(parentElement);
  if (!state) { state = { at: data.at, images: {} }; shown.set(parentElement, state); }
  Object.assign(state.images, data.images);
  const span = (name, text) => {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;   // never HTML: names come from files
    return element;
  };
  function draw() {
    const image = state.images[state.at];
    $("back").disabled = state.at === 0;
    $("next").disabled = state.at === data.total - 1;
    if (!image) { $("status").textContent = "The image is on its way…"; return; }
    $("picture").src = image.url;
    $("picture").alt = "Image " + image.id;
    $("picture").classList.toggle("smooth", image.smooth);
    const differs = image.suggested !== image.given;
    $("labels").className = differs ? "labels differs" : "labels";
    $("labels").replaceChildren(...(image.whose ? [span("small", image.whose + " ")] : []), span("given", image.given),
      ...(differs ? [" ≠ ", span("suggested", image.suggested)] : [" = suggested"]));
    $("status").textContent = [image.id, data.score + " " + image.score, image.kind, image.size,
      (state.at + 1).toLocaleString("en") + " of " + data.total.toLocaleString("en")].filter(Boolean).join(" · ");
  }
  function step(by) {
    const to = state.at + by;
    if (to < 0 || to >= data.total) return;
    state.at = to;
    setStateValue("at", to);
    draw();
  }
  $("back").onclick = () => step(-1);
  $("next").onclick = () => step(1);
  draw();

  const listen = (event) => {
    if (event.key.toLowerCase() === "p") { event.stopImmediatePropagation(); return; }   // it would play behind the image
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();   // the arrows would change the cycle
    step(by);
  };
  window.addEventListener("keydown", listen, true);
  if (state.stop) state.stop();
  state.stop = () => window.removeEventListener("keydown", listen, true);
  return () => state.stop();
}
"""

ZOOM_HTML = """
<div class="zoom">
  <div class="stage">
    <button class="back" type="button" aria-label="Previous image" title="Previous (←)">‹</button>
    <div class="frame"><img class="picture" alt=""></div>
    <button class="next" type="button" aria-label="Next image" title="Next (→)">›</button>
  </div>
  <div class="text"><div class="labels"></div><div class="small status" role="status" aria-live="polite"></div></div>
</div>
"""

_ZOOM = st.components.v2.component("nextlabel.zoom", html=ZOOM_HTML, css=ZOOM_CSS, js=ZOOM_JS)


def zoom_at(key: str, start: int) -> int:
    """Which image of its list a `zoom` of this key shows, given where it began."""
    at = (st.session_state.get(key) or {}).get("at")
    return start if at is None else int(at)


def zoom(here: Here, images: dict[int, pd.Series], at: int, total: int, score: str, key: str) -> None:
    """One image as large as its file, with the keys ← and → to the ones beside it.

    images: by their place in the whole list of `total`, the one at `at` and some beside it, which then show at once.
    """
    _ZOOM(
        key=key,
        data={
            "at": at,
            "total": total,
            "score": methods.described(score).title if score in methods.scores() else score.replace("_", " "),
            "images": {
                place: {**labels(row), "score": number(row[score]), **_large(here, row)}
                for place, row in images.items()
            },
        },
        on_at_change=_nothing,
    )


def _large(here: Here, row: pd.Series) -> dict[str, Any]:
    address, shape = _enlarged(
        here.dataset.images, here.run.id, int(row.name), here.config.dataset, here.config.root, row["sample_id"]
    )
    return {"url": address, "size": f"{shape[1]} × {shape[0]} pixels", "smooth": max(shape) > CRISP}


@st.cache_data(max_entries=32, show_spinner=False)
def _enlarged(
    _images: np.ndarray, run_id: str, row: int, dataset: str, root: str | None, sample_id: str
) -> tuple[str, tuple[int, int]]:
    """An image as its file has it, else as the pool has it, and height and width of that."""
    whole = original.picture(dataset, root, sample_id, LARGEST)
    shape = original.shape(dataset, root, sample_id)
    image = np.asarray(_images[row]) if whole is None else whole
    return url(image), image.shape[:2] if whole is None or shape is None else shape
