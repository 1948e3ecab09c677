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
  // Before the answer, the folder is hidden, and so is a file name that holds a class: either is often the label
  const title = (image) => {
    if (image.guide) return image.id;
    const name = image.id.split("/").at(-1), lower = name.toLowerCase();
    return data.classes.some((one) => lower.includes(one.toLowerCase())) ? "File name hidden: it names a class" : name;
  };
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
      picture.alt = title(image);
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
      text.append(make("div", "said", "Just now: " + named(last.label) + (last.guide ? " · " + last.id : "")), ...(last.guide ? [pair(last.guide)] : []));
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
  // This one's own: Streamlit may call it only after the next drawing has put its listener there
  const stop = desk.stop = () => window.removeEventListener("keydown", listen, true);
  return stop;
}
