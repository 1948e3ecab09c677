"""The desk of the page Annotate: one image large, its classes as buttons with keys, what was said before at the arrows.

What the annotator does shows at once and waits in the browser until the server has it in the log. So keys may be struck
faster than the server answers: all that waits is sent again with each of them, numbered, and each is done once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from pages.ui import widgets

HTML = """
<div class="desk">
  <div class="left">
    <div class="frame"><img class="picture" alt=""><div class="empty"></div></div>
    <div class="notice" role="status" aria-live="polite"></div>
    <div class="guide"></div>
  </div>
  <div class="right">
    <input class="search" type="search" placeholder="Find a class" aria-label="Find a class">
    <div class="classes" role="group" aria-label="Classes"></div>
    <div class="tools">
      <button data-key="s">Skip <kbd>s</kbd></button>
      <button data-key="u">Unsure <kbd>u</kbd></button>
      <button data-key="z">Undo <kbd>z</kbd></button>
      <button data-key="ArrowLeft" title="Look back">◀ <kbd>←</kbd></button>
      <button data-key="ArrowRight" title="Forward">▶ <kbd>→</kbd></button>
    </div>
    <div class="last"></div>
  </div>
</div>
"""

CSS = """
.desk { display: grid; grid-template-columns: max(240px, 40vh) minmax(0, 1fr); gap: 28px; align-items: start;
        color: var(--st-text-color); font-family: var(--st-font); font-size: 15px; }
.frame { position: relative; aspect-ratio: 1; width: 100%; max-width: max(240px, 40vh); border-radius: 8px; overflow: hidden;
         background: var(--st-secondary-background-color); display: grid; place-items: center; }
.picture { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
.picture.smooth { image-rendering: auto; }
.empty { padding: 24px; text-align: center; line-height: 1.5; }
.back .frame { outline: 3px dashed var(--st-primary-color); outline-offset: 3px; }
.notice { min-height: 20px; margin-top: 10px; font-size: 13px; opacity: .8; overflow-wrap: anywhere; }
.guide { margin-top: 6px; min-height: 58px; }
.pair { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; }
.chip { border-left: 5px solid; padding: 2px 8px; border-radius: 3px; background: var(--st-secondary-background-color);
        overflow-wrap: anywhere; }
.chip.given { border-color: #E69F00; }
.chip.suggested { border-color: var(--st-primary-color); }
.chip small { opacity: .75; }
.mark { font-weight: 700; }
.details { font-size: 13px; opacity: .8; margin-top: 4px; font-variant-numeric: tabular-nums; }
.classes { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 8px;
           max-height: 352px; overflow-y: auto; padding: 3px; margin: -3px; }
button { all: unset; box-sizing: border-box; cursor: pointer; border: 1px solid var(--st-border-color); border-radius: 6px;
         padding: 8px 10px; display: flex; align-items: center; gap: 8px; min-width: 0; line-height: 1.25; min-height: 40px; }
button:hover { border-color: var(--st-primary-color); background: var(--st-secondary-background-color); }
button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
button[disabled] { opacity: .45; cursor: default; border-color: var(--st-border-color); background: none; }
button[aria-pressed="true"] { background: color-mix(in srgb, var(--st-primary-color) 20%, transparent); font-weight: 600;
         border-color: var(--st-primary-color); box-shadow: 0 0 0 1px var(--st-primary-color); }
.name { flex: 1; overflow-wrap: anywhere; }
.dot { width: 10px; height: 10px; border-radius: 50%; flex: none; }
.dot.given { background: #E69F00; } .dot.suggested { background: var(--st-primary-color); }
kbd { font: 600 12px/1 var(--st-code-font, monospace); border: 1px solid currentColor; border-radius: 4px; padding: 3px 5px;
      opacity: .65; flex: none; }
.tools { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 18px; }
.search { font: inherit; color: inherit; background: var(--st-secondary-background-color); border-radius: 6px; padding: 8px 10px;
          border: 1px solid var(--st-border-color); width: 100%; box-sizing: border-box; margin-bottom: 10px; }
.last { margin-top: 18px; min-height: 66px; display: flex; gap: 12px; align-items: center; }
.last img { width: 56px; height: 56px; object-fit: contain; image-rendering: pixelated; border-radius: 4px; flex: none; }
.last .said { margin-bottom: 4px; overflow-wrap: anywhere; }
[hidden] { display: none !important; }
@media (max-width: 700px) {
  .desk { grid-template-columns: minmax(0, 1fr); gap: 12px; }
  .frame { max-width: max(200px, 30vh); margin: 0 auto; }
  .classes { grid-template-columns: repeat(2, minmax(0, 1fr)); max-height: none; }
  .tools { gap: 6px; } .tools button { padding: 8px; gap: 5px; }
  .guide { min-height: 0; } .guide .pair { justify-content: center; } .notice, .details { text-align: center; }
}
"""

JS = """
const desks = new WeakMap();
const SAID = { "-2": "skipped", "-3": "unsure" };

export default function({ parentElement, data, setStateValue }) {
  const $ = (name) => parentElement.querySelector("." + name);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    if (text !== undefined) element.textContent = text;   // never HTML: names come from files and people
    return element;
  };
  let desk = desks.get(parentElement);
  if (!desk) {
    desk = { tab: Math.random().toString(36).slice(2), number: 0, waiting: [] };
    desks.set(parentElement, desk);
  }
  const place = JSON.stringify(data.place);
  if (desk.place !== place) {   // another annotator or ranking: what still waits was said at the old place, and stays with it
    Object.assign(desk, { place, back: 0, undoing: false, keys: [] });
    document.activeElement?.blur();   // the keys are for the desk, not for the name that was typed just now
  }
  if (data.done.tab === desk.tab) {
    desk.waiting = desk.waiting.filter((one) => one.number > data.done.number);
    if (desk.undoing && desk.undoing <= data.done.number) desk.undoing = false;
  }

  const here = () => desk.waiting.filter((one) => JSON.stringify(one.place) === place);
  const queue = () => data.queue.filter((image) => !here().some((one) => one.id === image.id && one.do !== "undo"));
  const said = () => {
    const found = new Map(data.said.map((one) => [one.id, one]));
    for (const one of here()) if (one.do !== "undo") {
      found.delete(one.id);
      found.set(one.id, { id: one.id, url: one.url, label: one.label ?? (one.do === "skip" ? -2 : -3), guide: one.guide });
    }
    return [...found.values()];
  };
  // Voting blind, the folder is hidden too: it is often the label
  const title = (image) => image.guide ? image.id : image.id.split("/").at(-1);
  const shown = () => desk.back ? said().at(-desk.back) : queue()[0];

  function send(action) {
    desk.number += 1;
    desk.waiting.push({ ...action, number: desk.number, place: data.place });
    if (action.do === "undo") desk.undoing = desk.number;
    const sent = desk.waiting.map(({ url, guide, ...rest }) => rest);
    setStateValue("actions", { tab: desk.tab, list: sent });
  }
  function act(action) {
    const image = shown();
    if (!image) return;
    send({ ...action, id: image.id, url: image.url, guide: image.guide });
    if (desk.back) desk.back -= 1;
    draw();
  }
  function press(key) {
    // What is struck while an undo is on its way was meant for the image that it brings back
    if (desk.undoing) { desk.keys.push(key); return; }
    const digit = "1234567890".indexOf(key);
    if (key.length === 1 && digit >= 0) { if (digit < data.classes.length) act({ do: "vote", label: digit }); }
    else if (key === "s" && desk.back) { desk.back -= 1; draw(); }
    else if (key === "s") act({ do: "skip" });
    else if (key === "u") act({ do: "unsure" });
    else if (key === "z" || key === "Backspace") undo();
    else if (key === "ArrowLeft") { desk.back = Math.min(desk.back + 1, said().length); draw(); }
    else if (key === "ArrowRight") { desk.back = Math.max(desk.back - 1, 0); draw(); }
  }
  function undo() {
    if (here().length) {   // what would be taken back is not in the log yet: wait for it
      desk.undoing = Infinity;
      return;
    }
    const last = data.said.at(-1);
    if (!last) return;
    desk.back = 0;
    send({ do: "undo", seq: last.seq });
    draw();
  }

  function pair(guide) {
    const chips = make("div", "pair");
    for (const which of ["given", "suggested"]) if (guide[which]) {
      const chip = make("span", "chip " + which);
      chip.append(make("small", "", which + " "), guide[which]);
      if (which === "suggested" && guide.given) {
        const mark = make("span", "mark", guide.differs ? "≠" : "=");
        mark.title = guide.differs ? "they differ" : "they agree";
        chips.append(mark);
      }
      chips.append(chip);
    }
    const whole = make("div", "");
    whole.append(chips, make("div", "details", guide.details));
    return whole;
  }
  const named = (label) => label >= 0 ? data.classes[label] : SAID[label];
  function draw() {
    const image = shown(), all = said();
    desk.back = Math.min(desk.back, all.length);
    $("desk").classList.toggle("back", desk.back > 0);
    const picture = $("picture"), empty = $("empty");
    picture.hidden = !image;
    empty.hidden = Boolean(image);
    if (image) {
      picture.src = image.url;
      picture.alt = "Image " + title(image);
      picture.classList.toggle("smooth", data.large);
    } else {
      empty.textContent = data.left > here().length ? "The next image is on its way…" : data.empty;
    }
    const waiting = here().length;
    const status = waiting ? " · saving " + waiting + "…" : "";
    const before = "Looking back by " + desk.back + ": you said ";
    $("notice").textContent = !image ? "" : (desk.back ? before + named(image.label) + " · → to go on" : title(image)) + status;
    $("guide").replaceChildren(...(image && image.guide ? [pair(image.guide)] : []));
    const last = all.at(-1);
    $("last").hidden = !last;
    if (last) {
      const small = make("img", "");
      small.src = last.url;
      small.alt = "The image before";
      const text = make("div", "");
      text.append(make("div", "said", "Just now: " + named(last.label)), ...(last.guide ? [pair(last.guide)] : []));
      $("last").replaceChildren(small, text);
    }
    const wanted = $("search").value.trim().toLowerCase();
    for (const [i, button] of [...$("classes").children].entries()) {
      button.hidden = wanted !== "" && !data.classes[i].toLowerCase().includes(wanted);
      button.disabled = !image;
      button.setAttribute("aria-pressed", String(desk.back > 0 && image.label === i));
      for (const which of ["given", "suggested"])
        button.querySelector("." + which).hidden = !(image && image.guide && image.guide[which] === data.classes[i]);
    }
    for (const button of $("tools").children)
      button.disabled = { s: !image, u: !image, z: !all.length,
                          ArrowLeft: desk.back >= all.length, ArrowRight: !desk.back }[button.dataset.key];
  }

  $("search").hidden = data.classes.length <= 20;
  $("search").oninput = draw;
  $("search").onkeydown = (event) => {
    if (event.key !== "Enter") return;
    const first = [...$("classes").children].find((button) => !button.hidden);
    if (first) { first.click(); $("search").value = ""; draw(); }
  };
  $("classes").replaceChildren(...data.classes.map((name, i) => {
    const button = make("button", "class");
    button.type = "button";
    if (i < 10) button.append(make("kbd", "", "1234567890"[i]));
    button.append(make("span", "name", name), make("span", "dot given"), make("span", "dot suggested"));
    button.querySelector(".given").title = "given";
    button.querySelector(".suggested").title = "suggested";
    button.onclick = () => desk.undoing ? undefined : act({ do: "vote", label: i });
    return button;
  }));
  for (const button of $("tools").children) button.onclick = () => press(button.dataset.key);
  draw();
  if (desk.undoing === Infinity && !here().length) { desk.undoing = false; undo(); }
  while (!desk.undoing && desk.keys.length) press(desk.keys.shift());

  const KEYS = "1234567890suz".split("").concat("Backspace", "ArrowLeft", "ArrowRight");
  const listen = (event) => {
    const target = event.composedPath()[0];
    const fields = "input:not([type='checkbox'], [type='radio']), textarea, select, [contenteditable='true'], [role='slider']";
    const typing = target instanceof Element && target.closest(fields);
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !KEYS.includes(event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();   // the arrows would change the cycle
    if (!event.repeat || event.key.startsWith("Arrow")) press(event.key);
  };
  window.addEventListener("keydown", listen, true);
  if (desk.stop) desk.stop();
  desk.stop = () => window.removeEventListener("keydown", listen, true);
  return () => desk.stop();
}
"""

_DESK = st.components.v2.component("nextlabel.desk", html=HTML, css=CSS, js=JS)


def draw(key: str, data: dict[str, Any], done: Callable[[], None]) -> None:
    """Draw the desk; `done` is called before the script runs again, when there is something new in `actions`.

    data: place [run id, annotator, cycle] · classes: names · queue: images {id, url, guide}, the next
    first · said: images {id, url, guide, seq, label}, the newest last · left: images in the whole queue · empty: what to say
    at its end · large: smooth the picture · done: {tab, number} of the last action.
    """
    _DESK(key=key, data=data, on_actions_change=done)


def actions(key: str) -> tuple[str, list[dict[str, Any]]]:
    """What the browser last sent: its tab, and what was done there, oldest first, some of it perhaps sent before."""
    sent = st.session_state.get(key, {}).get("actions") or {}
    return str(sent.get("tab", "")), list(sent.get("list", []))


@st.cache_data(max_entries=2000, show_spinner=False)
def picture(run_id: str, sample_id: str, _image: np.ndarray) -> str:
    """An image of a run as a URL that needs no request."""
    return widgets.data_url(widgets.png(_image))
