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
  // This one's own: Streamlit may call it only after the next drawing has put its listener there
  const stop = state.stop = () => window.removeEventListener("keydown", listen, true);
  return stop;
}
