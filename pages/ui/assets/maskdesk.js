const desks = new WeakMap();
const VOID = 255;          // as data.masks.VOID
const STEPS = 100;         // that can be undone
const PAUSE = 60000;       // ms without a movement that are no longer work, as core.runs.annotation.PAUSE
const NEAR = 9, TWICE = 4; // CSS pixels within which a click is on the first point of a polygon, or twice on the last
const DEEPEST = 48;        // CSS pixels of a pixel of the mask, at most
const SAID = { "0": "drew a mask", "-2": "skipped it", "-3": "were unsure" };
const TOOLS = { b: "brush", e: "eraser", p: "polygon", f: "fill" };

// As data/files/masktext.py: runs of up to 256 equal pixels, length − 1 and class, in base64
function decoded(text, n) {
  const codes = new Uint8Array(n).fill(VOID), pairs = atob(text);
  for (let i = 0, at = 0; i < pairs.length; i += 2)
    codes.fill(pairs.charCodeAt(i + 1), at, at += pairs.charCodeAt(i) + 1);
  return codes;
}
function encoded(codes) {
  let pairs = "";
  for (let at = 0, end; at < codes.length; at = end) {
    for (end = at + 1; end < codes.length && end - at < 256 && codes[end] === codes[at];) end++;
    pairs += String.fromCharCode(end - at - 1, codes[at]);
  }
  return btoa(pairs);
}

// Four-connected pixels of the class at the start, as a list of places
function connected(codes, width, height, start) {
  const code = codes[start], seen = new Uint8Array(codes.length), found = [start];
  seen[start] = 1;
  for (let i = 0; i < found.length; i++) {
    const at = found[i], x = at % width;
    const beside = [x > 0 ? at - 1 : -1, x < width - 1 ? at + 1 : -1, at - width, at + width < codes.length ? at + width : -1];
    for (const next of beside) if (next >= 0 && !seen[next] && codes[next] === code) { seen[next] = 1; found.push(next); }
  }
  return found;
}

// Pixels whose centre lies inside of a polygon, by the even-odd rule: calls span(row, from, to), `to` left out
function inside(points, width, height, span) {
  for (let row = 0; row < height; row++) {
    const y = row + 0.5, crossed = [];
    points.forEach(([x0, y0], i) => {
      const [x1, y1] = points[(i + 1) % points.length];
      if ((y0 <= y) !== (y1 <= y)) crossed.push(x0 + (y - y0) / (y1 - y0) * (x1 - x0));
    });
    crossed.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossed.length; i += 2) {
      const from = Math.max(0, Math.ceil(crossed[i] - 0.5)), to = Math.min(width, Math.ceil(crossed[i + 1] - 0.5));
      if (from < to) span(row, from, to);
    }
  }
}

export default function({ parentElement, data, setStateValue }) {
  const $ = (name) => parentElement.querySelector("." + name);
  const buttons = () => parentElement.querySelectorAll("button[data-key]");
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    if (text !== undefined) element.textContent = text;   // never HTML: names come from files and people
    return element;
  };
  const W = data.width, H = data.height;
  let desk = desks.get(parentElement);
  if (!desk) {
    desk = { tab: Math.random().toString(36).slice(2), number: 0, waiting: [], tool: "brush", label: 0, opacity: 50,
             size: Math.max(1, Math.round(Math.max(W, H) / 14)), start: "given", hidden: false, differ: false, pictures: new Map() };
    desks.set(parentElement, desk);
  }
  const place = JSON.stringify(data.place);
  if (desk.place !== place) {   // another annotator or ranking: what still waits was said at the old place, and stays with it
    const same = desk.place && JSON.stringify(JSON.parse(desk.place).slice(0, 2)) === JSON.stringify(data.place.slice(0, 2));
    const drafts = same ? desk.drafts : new Map();   // what was not saved before a new ranking came
    if (same) for (const [id, one] of desk.frames) if (one.changed) drafts.set(id, one.codes);
    Object.assign(desk, { place, back: 0, undoing: false, frames: new Map(), drafts, open: null, polygon: [], gesture: null,
                          pointers: new Map(), space: false, hover: null });
    document.activeElement?.blur();   // the keys are for the desk, not for the name that was typed just now
  }
  if (data.done.tab === desk.tab) {
    desk.waiting = desk.waiting.filter((one) => one.number > data.done.number);
    if (desk.undoing && desk.undoing <= data.done.number) desk.undoing = false;
  }
  if (desk.layer?.width !== W || desk.layer?.height !== H) {
    desk.layer = Object.assign(document.createElement("canvas"), { width: W, height: H });
    desk.pixels = new ImageData(W, H);
    desk.open = null;
  }
  const shades = new Uint32Array(256);   // of each class as the bytes r, g, b, a
  data.colours.forEach(([r, g, b], i) => new Uint8Array(shades.buffer).set([r, g, b, 255], 4 * i));

  // What was said and what is still to be said
  const here = () => desk.waiting.filter((one) => JSON.stringify(one.place) === place);
  const queue = () => data.queue.filter((image) => !here().some((one) => one.id === image.id && one.do !== "undo"));
  const said = () => {
    const found = new Map(data.said.map((one) => [one.id, one]));
    for (const one of here()) if (one.do !== "undo") {
      found.delete(one.id);
      found.set(one.id, { ...one.image, label: { mask: 0, skip: -2, unsure: -3 }[one.do], mask: one.mask });
    }
    return [...found.values()];
  };
  const shown = () => desk.back ? said().at(-desk.back) : queue()[0];
  const named = (code) => code === VOID ? "unknown" : data.classes[code];

  function send(action) {
    desk.number += 1;
    desk.waiting.push({ ...action, number: desk.number, place: data.place });
    if (action.do === "undo") desk.undoing = desk.number;
    setStateValue("actions", { tab: desk.tab, list: desk.waiting.map(({ image, ...rest }) => rest) });
  }
  function act(what) {
    const image = shown();
    if (!image || desk.undoing) return;
    const open = frame();
    abandon();
    tick();
    if (what === "mask") {
      if (open.codes.every((code) => code === VOID)) return tell("Nothing is drawn yet: give some pixels a class, or skip the image.");
      open.changed = false;
      send({ do: "mask", id: image.id, mask: encoded(open.codes), seconds: Math.round(open.spent / 100) / 10, image });
    } else send({ do: what, id: image.id, image });
    if (desk.back) desk.back -= 1;
    show();
  }
  function undoAnswer() {
    if (here().length) {   // what would be taken back is not in the log yet: wait for it
      desk.undoing = Infinity;
      return show();
    }
    const last = data.said.at(-1);
    if (!last) return;
    desk.back = 0;
    send({ do: "undo", seq: last.seq });
    show();
  }

  // The mask on the table, its steps, and the time spent on it
  function prepare(image) {
    if (desk.frames.has(image.id)) return;
    const read = (text) => text ? decoded(text, W * H) : null;
    const given = read(image.given), proposal = read(image.proposal), draft = desk.drafts.get(image.id);
    const starts = { given: given ?? proposal, proposal: proposal ?? given, empty: null };
    const codes = draft ?? read(image.mask) ?? starts[desk.start]?.slice() ?? new Uint8Array(W * H).fill(VOID);
    const differs = given && proposal && given.map((code, i) => code !== proposal[i] ? 1 : 0);
    const differing = differs ? differs.reduce((sum, one) => sum + one, 0) : 0;
    desk.frames.set(image.id, { codes, given, proposal, differs, differing, undo: [], redo: [], spent: 0, changed: Boolean(draft) });
    desk.drafts.delete(image.id);
  }
  const frame = () => desk.frames.get(desk.open);
  function tick() {
    const now = performance.now(), open = frame();
    if (open && now - desk.moved < PAUSE) open.spent += now - desk.moved;
    desk.moved = now;
  }
  // Keep what was in the smallest box that a step has changed
  function commit(before) {
    const { codes, undo } = frame();
    let [top, left, bottom, right] = [H, W, 0, 0];
    for (let row = 0, at = 0; row < H; row++) for (let column = 0; column < W; column++, at++) if (codes[at] !== before[at]) {
      top = Math.min(top, row); bottom = row + 1;
      left = Math.min(left, column); right = Math.max(right, column + 1);
    }
    if (top >= bottom) return;
    const old = [];
    for (let row = top; row < bottom; row++) old.push(before.slice(row * W + left, row * W + right));
    undo.push({ top, left, bottom, right, old });
    if (undo.length > STEPS) undo.shift();
    frame().redo = [];
    frame().changed = true;
    shade(top, left, bottom, right);
    show();
  }
  function step(from, to) {
    const { codes } = frame(), one = frame()[from].pop();
    if (!one) return;
    one.old = one.old.map((line, i) => {
      const at = (one.top + i) * W + one.left, now = codes.slice(at, at + line.length);
      codes.set(line, at);
      return now;
    });
    frame()[to].push(one);
    frame().changed = true;
    shade(one.top, one.left, one.bottom, one.right);
    show();
  }
  function change(edit) {
    const before = frame().codes.slice();
    edit(frame().codes);
    commit(before);
  }
  const replace = (codes) => codes && change((all) => all.set(codes));
  const code = () => desk.tool === "eraser" ? VOID : desk.label;

  function dab(x, y, value) {
    const d = desk.size, r = d / 2;
    const [cx, cy] = d % 2 ? [Math.floor(x) + 0.5, Math.floor(y) + 0.5] : [Math.round(x), Math.round(y)];
    for (let row = Math.max(0, Math.floor(cy - r)); row < Math.min(H, Math.ceil(cy + r)); row++) {
      const half = Math.sqrt(r * r - (row + 0.5 - cy) ** 2);   // hard edges: the pixels whose centre is covered
      const from = Math.max(0, Math.ceil(cx - half - 0.5)), to = Math.min(W - 1, Math.floor(cx + half - 0.5));
      if (from <= to) frame().codes.fill(value, row * W + from, row * W + to + 1);
    }
  }
  function line([x0, y0], [x1, y1], value) {
    const n = Math.max(1, Math.ceil(2 * Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0))));
    for (let i = 0; i <= n; i++) dab(x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n, value);
    const r = desk.size / 2 + 2;
    shade(Math.min(y0, y1) - r, Math.min(x0, x1) - r, Math.max(y0, y1) + r, Math.max(x0, x1) + r);
  }
  function close() {
    const points = desk.polygon;
    desk.polygon = [];
    if (points.length < 3) return paint();
    change((codes) => inside(points, W, H, (row, from, to) => codes.fill(desk.label, row * W + from, row * W + to)));
    paint();
  }
  function corner(at, time) {
    const points = desk.polygon, near = (point, reach) => Math.hypot(point[0] - at[0], point[1] - at[1]) * desk.zoom < reach;
    const twice = points.length > 0 && near(points.at(-1), TWICE) && time - desk.cornered < 500;
    desk.cornered = time;
    if (points.length > 2 && (twice || near(points[0], NEAR))) return close();
    if (!twice) points.push(at);
    paint();
  }
  function abandon() {   // the polygon or the stroke that is not finished
    if (desk.gesture?.before) {
      frame().codes.set(desk.gesture.before);
      shade(0, 0, H, W);
    }
    desk.gesture = null;
    desk.polygon = [];
  }

  // Drawing
  function shade(top, left, bottom, right) {   // this part of the mask into the layer of colours
    const { codes, differs } = frame(), colours = new Uint32Array(desk.pixels.data.buffer);
    const only = desk.differ && differs;
    [top, left] = [Math.max(0, Math.floor(top)), Math.max(0, Math.floor(left))];
    [bottom, right] = [Math.min(H, Math.ceil(bottom)), Math.min(W, Math.ceil(right))];
    if (top >= bottom || left >= right) return;
    for (let row = top; row < bottom; row++)
      for (let at = row * W + left; at < row * W + right; at++) colours[at] = only && !only[at] ? 0 : shades[codes[at]];
    desk.layer.getContext("2d").putImageData(desk.pixels, 0, 0, left, top, right - left, bottom - top);
    paint();
  }
  function picture(url) {
    if (!desk.pictures.has(url)) {
      const made = new Image();
      made.onload = () => desk.paint();
      made.src = url;
      desk.pictures.set(url, made);
    }
    return desk.pictures.get(url);
  }
  function paint() {
    desk.paint = drawn;
    desk.painting ??= requestAnimationFrame(() => { desk.painting = null; desk.paint(); });
  }
  function drawn() {
    const canvas = $("view"), image = shown(), ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    const { width, height } = canvas.getBoundingClientRect();
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!image || image.id !== desk.open) return;
    const to = ([x, y]) => [desk.x + x * desk.zoom, desk.y + y * desk.zoom];
    const whole = [desk.x, desk.y, W * desk.zoom, H * desk.zoom], photo = picture(image.url);
    pen.imageSmoothingEnabled = data.large;
    if (photo.complete && photo.naturalWidth) pen.drawImage(photo, ...whole);
    pen.imageSmoothingEnabled = false;
    pen.globalAlpha = desk.hidden ? 0 : desk.opacity / 100;
    pen.drawImage(desk.layer, ...whole);
    pen.globalAlpha = 1;
    const twice = (trace, dash) => {   // white on black is seen on every image
      for (const [colour, width] of [["#000", 3.5], ["#fff", 1.5]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = width;
        pen.setLineDash(dash && colour === "#fff" ? dash : []);
        pen.beginPath();
        trace();
        pen.stroke();
      }
      pen.setLineDash([]);
    };
    if (image.box) twice(() => outline(image.box, (x, y) => pen.moveTo(...to([x, y])), (x, y) => pen.lineTo(...to([x, y]))), [6, 4]);
    if (desk.polygon.length) {
      const points = desk.polygon.map(to);
      twice(() => {
        points.forEach((point, i) => i ? pen.lineTo(...point) : pen.moveTo(...point));
        if (desk.hover) pen.lineTo(...desk.hover);
      });
      const [r, g, b] = data.colours[desk.label] ?? [128, 128, 128];
      points.forEach(([x, y], i) => {
        pen.beginPath();
        pen.arc(x, y, i ? 4 : 6, 0, 7);
        pen.fillStyle = `rgb(${r} ${g} ${b})`;
        pen.fill();
        pen.strokeStyle = "#fff";
        pen.lineWidth = 2;
        pen.stroke();
      });
    }
    if (desk.hover && !desk.space && ["brush", "eraser"].includes(desk.tool) && desk.gesture?.kind !== "pan") {
      const [x, y] = under(desk.hover), d = desk.size;
      const at = to(d % 2 ? [Math.floor(x) + 0.5, Math.floor(y) + 0.5] : [Math.round(x), Math.round(y)]);
      twice(() => pen.arc(...at, Math.max(2, d / 2 * desk.zoom), 0, 7), desk.tool === "eraser" ? [4, 3] : undefined);
    }
  }
  // The borders of the region to check: the given pixels of its class in its box, or the box where there are none
  function outline({ sides: [top, left, bottom, right], label }, move, go) {
    const { given } = frame();
    const part = (row, column) => row >= top && row < bottom && column >= left && column < right && given?.[row * W + column] === label;
    let any = false;
    for (let row = top; row < bottom; row++) for (let column = left; column < right; column++) if (part(row, column)) {
      any = true;
      if (!part(row - 1, column)) { move(column, row); go(column + 1, row); }
      if (!part(row + 1, column)) { move(column, row + 1); go(column + 1, row + 1); }
      if (!part(row, column - 1)) { move(column, row); go(column, row + 1); }
      if (!part(row, column + 1)) { move(column + 1, row); go(column + 1, row + 1); }
    }
    if (!any) { move(left, top); go(right, top); go(right, bottom); go(left, bottom); go(left, top); }
  }

  // Where the image lies
  function settle() {
    const { width, height } = $("view").getBoundingClientRect();
    const whole = Math.min(width / W, height / H);
    if (desk.fit) desk.zoom = whole;
    desk.zoom = Math.max(whole, Math.min(Math.max(DEEPEST, whole), desk.zoom));
    if (desk.zoom === whole) desk.fit = true;
    const held = (at, room, length) => length <= room ? (room - length) / 2 : Math.max(room - length, Math.min(0, at));
    desk.x = held(desk.x, width, W * desk.zoom);
    desk.y = held(desk.y, height, H * desk.zoom);
    paint();
  }
  function zoom(factor, at) {
    const { width, height } = $("view").getBoundingClientRect(), [x, y] = at ?? [width / 2, height / 2], before = desk.zoom;
    desk.fit = false;
    desk.zoom *= factor;
    const { x: left, y: top } = desk;
    settle();   // which bounds the zoom
    desk.x = x - (x - left) * desk.zoom / before;
    desk.y = y - (y - top) * desk.zoom / before;
    settle();
  }
  function move(dx, dy) { desk.x += dx; desk.y += dy; settle(); }
  function region() {
    const box = shown()?.box;
    if (!box) return;
    const [top, left, bottom, right] = box.sides, { width, height } = $("view").getBoundingClientRect();
    desk.fit = false;
    desk.zoom = Math.min(width / (right - left), height / (bottom - top), 2 * DEEPEST) / 2;   // with as much around it
    settle();
    desk.x = width / 2 - (left + right) / 2 * desk.zoom;
    desk.y = height / 2 - (top + bottom) / 2 * desk.zoom;
    settle();
  }
  const under = ([x, y]) => [(x - desk.x) / desk.zoom, (y - desk.y) / desk.zoom];
  const spot = (event) => {
    const box = $("view").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const pixel = (at) => {
    const [x, y] = under(at).map(Math.floor);
    return x >= 0 && x < W && y >= 0 && y < H ? y * W + x : null;
  };
  function take(at) {
    const found = at && pixel(at);
    if (found === null || !frame()) return;
    desk.label = frame().codes[found];
    if (desk.tool === "eraser") desk.tool = "brush";
    show();
  }

  // Keys and buttons
  function press(key) {
    tick();
    if (key === "?") $("help").open = !$("help").open;
    else if (key === "ArrowLeft" || key === "ArrowRight") {
      abandon();
      desk.back = Math.max(0, Math.min(said().length, desk.back + (key === "ArrowLeft" ? 1 : -1)));
      show();
    }
    else if (key === "Backspace" && desk.polygon.length) press("undo");
    else if (key === "Backspace" && !desk.undoing) undoAnswer();
    if (!frame() || desk.undoing) return;
    const digit = /^\d+$/.test(key) ? Number(key) : 0;
    if (digit) choose(digit - 1);
    else if (TOOLS[key]) { desk.tool = TOOLS[key]; desk.polygon = []; show(); }
    else if (key === "[" || key === "]") resize(desk.size + (key === "]" ? 1 : -1) * Math.max(1, Math.round(desk.size / 8)));
    else if (key === "Enter") desk.polygon.length ? close() : act("mask");
    else if (key === "s" && desk.back) { desk.back -= 1; show(); }
    else if (key === "s") act("skip");
    else if (key === "u") act("unsure");
    else if (key === "Escape") { abandon(); paint(); }
    else if (key === "undo" && desk.polygon.length) { desk.polygon.pop(); paint(); }
    else if (key === "undo" && !desk.gesture) step("undo", "redo");
    else if (key === "redo" && !desk.gesture) step("redo", "undo");
    else if (key === "a") replace(frame().proposal);
    else if (key === "g") replace(frame().given);
    else if (key === "x") replace(new Uint8Array(W * H).fill(VOID));
    else if (key === "d") { desk.differ = !desk.differ; shade(0, 0, H, W); show(); }
    else if (key === "m") { desk.hidden = !desk.hidden; paint(); }
    else if (key === "i") take(desk.hover);
    else if (key === "r") region();
    else if (key === "+" || key === "-") zoom(key === "+" ? 1.5 : 1 / 1.5);
    else if (key === "Home") { desk.fit = true; settle(); }
  }
  function choose(label) {
    if (label >= data.classes.length && label !== VOID) return;
    desk.label = label;
    if (desk.tool === "eraser") desk.tool = "brush";
    show();
  }
  function resize(size) {
    desk.size = Math.max(1, Math.min(Number($("size").max), size));
    show();
  }

  // What stands around the image
  function tell(text) { if ($("notice").textContent !== text) $("notice").textContent = text; }
  function where() {
    const at = desk.hover && frame() ? pixel(desk.hover) : null;
    $("where").textContent = at === null ? "" : `column ${at % W}, row ${Math.floor(at / W)}: ${named(frame().codes[at])}`;
  }
  function show() {
    const all = said();
    desk.back = Math.min(desk.back, all.length);
    const image = shown(), waiting = here().length;
    if (image && desk.open !== image.id) {
      abandon();
      tick();
      prepare(image);
      Object.assign(desk, { open: image.id, fit: true });
      shade(0, 0, H, W);
    }
    if (!image) { abandon(); desk.open = null; }
    const kept = new Set([...data.queue, ...all].map((one) => one.id)), urls = new Set([...data.queue, ...all].map((one) => one.url));
    for (const [id, one] of desk.frames) if (!kept.has(id) && !one.changed) desk.frames.delete(id);
    for (const url of desk.pictures.keys()) if (!urls.has(url)) desk.pictures.delete(url);
    for (const one of queue().slice(0, 3)) picture(one.url);
    const now = frame(), free = image && !desk.undoing;
    $("maskdesk").classList.toggle("back", desk.back > 0);
    $("view").hidden = !image;
    $("empty").hidden = Boolean(image);
    if (image) settle();
    if (image) $("view").setAttribute("aria-label", "Image and mask of " + image.id);
    else $("empty").textContent = data.left > waiting ? "The next image is on its way…" : data.empty;
    $("view").classList.toggle("brush", ["brush", "eraser"].includes(desk.tool));
    $("view").classList.toggle("pan", desk.space);
    const status = desk.undoing ? " · taking back…" : waiting ? " · saving " + waiting + "…" : "";
    const before = () => `Looking back by ${desk.back}: you ${SAID[image.label]}` +
      (now.changed ? ", and have changed it since · Enter saves" : " · → to go on");
    tell(!image ? "" : (desk.back ? before() : image.id) + status);
    const share = !now?.differs ? "" : `Given mask and proposal differ in ${(100 * now.differing / W / H).toFixed(1)} % of the pixels`;
    $("guide").textContent = [share, image?.guide?.details].filter(Boolean).join(" · ");
    const last = all.at(-1);
    $("last").hidden = !last;
    if (last) {
      const small = make("img", ""), spent = last.label === 0 && desk.frames.get(last.id)?.spent;
      small.src = last.url;
      small.alt = "The image before";
      const text = "Just now you " + SAID[last.label] + (spent ? ` in ${Math.round(spent / 1000)} s` : "");
      $("last").replaceChildren(small, make("div", "said", text));
    }
    const wanted = $("search").value.trim().toLowerCase(), counts = new Uint32Array(256);
    if (now) for (const one of now.codes) counts[one]++;
    for (const button of $("classes").children) {
      const label = Number(button.dataset.label), part = 100 * counts[label] / W / H;
      button.hidden = wanted !== "" && !named(label).toLowerCase().includes(wanted);
      button.disabled = !free;
      button.setAttribute("aria-pressed", String(desk.label === label && desk.tool !== "eraser"));
      button.title = `${part === 0 || part >= 1 ? Math.round(part) : "under 1"} % of the pixels`;
      button.querySelector(".share").style.width = part + "%";
    }
    const off = { ArrowLeft: desk.back >= all.length, ArrowRight: !desk.back, Backspace: !all.length || desk.undoing, undo: !now?.undo.length,
                  redo: !now?.redo.length, a: !now?.proposal, g: !now?.given, d: !now?.differs };
    for (const button of buttons()) {
      const { key, tool } = button.dataset;
      button.disabled = Boolean(off[key]) || (!free && !["ArrowLeft", "ArrowRight", "Backspace"].includes(key));
      if (tool) button.setAttribute("aria-pressed", String(desk.tool === tool));
    }
    $("differ").setAttribute("aria-pressed", String(Boolean(desk.differ && now?.differs)));
    $("toregion").hidden = !image?.box;
    $("size").value = desk.size;
    $("size").parentElement.querySelector("output").textContent = desk.size + " px";
    $("opacity").value = desk.opacity;
    $("opacity").parentElement.querySelector("output").textContent = desk.opacity + " %";
    // What this image really starts from, where it lacks what is wished
    const missing = { given: now && !now.given, proposal: now && !now.proposal };
    for (const option of $("start").options) option.disabled = Boolean(missing[option.value]);
    $("start").value = !missing[desk.start] ? desk.start : now.given ? "given" : now.proposal ? "proposal" : "empty";
    where();
    paint();
  }

  $("stage").style.aspectRatio = `${W} / ${H}`;
  $("size").max = Math.max(8, Math.round(Math.max(W, H) / 2));
  $("size").oninput = () => resize(Number($("size").value));
  $("opacity").oninput = () => { desk.opacity = Number($("opacity").value); desk.hidden = false; show(); };
  $("start").onchange = () => { desk.start = $("start").value; $("start").blur(); };
  for (const name of ["size", "opacity"]) $(name).onpointerup = () => $(name).blur();   // the arrows are for the desk again
  $("search").hidden = data.classes.length <= 20;
  $("search").oninput = show;
  $("search").onkeydown = (event) => {
    const first = [...$("classes").children].find((button) => !button.hidden);
    if (event.key !== "Enter" || !first) return;
    $("search").value = "";
    $("search").blur();
    first.click();
  };
  $("classes").replaceChildren(...[...data.classes.keys(), VOID].map((label) => {
    const button = make("button", "class"), swatch = make("span", label === VOID ? "swatch void" : "swatch");
    button.type = "button";
    button.dataset.label = label;
    const share = make("span", "share");
    share.style.background = label === VOID ? "#888" : `rgb(${data.colours[label].join(" ")})`;
    if (label !== VOID) swatch.style.background = share.style.background;
    button.append(swatch, make("span", "name", named(label)), share);
    if (label < 20) button.append(make("kbd", "", (label < 10 ? "" : "⇧") + "1234567890"[label % 10]));
    button.onclick = () => choose(label);
    return button;
  }));
  for (const button of buttons()) button.onclick = () => press(button.dataset.key);
  // A click leaves the keyboard with the desk: Enter saves, and does not press the button again
  $("maskdesk").onmousedown = (event) => {
    if (event.target.closest("button")) for (const root of [document, parentElement.getRootNode()]) root.activeElement?.blur();
    if (event.target.closest("button") || event.button === 1) event.preventDefault();
  };

  // Mouse, pen and touch
  const view = $("view");
  const middle = () => {
    const [a, b] = [...desk.pointers.values()];
    return { at: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], apart: Math.hypot(a[0] - b[0], a[1] - b[1]) };
  };
  view.onpointerdown = (event) => {
    tick();
    if (!frame() || desk.undoing) return;
    event.preventDefault();
    view.setPointerCapture(event.pointerId);
    const at = spot(event);
    if (event.pointerType === "touch") {
      desk.pointers.set(event.pointerId, at);
      if (desk.pointers.size > 1) {   // the first finger did not mean to draw
        const points = desk.polygon;
        abandon();
        Object.assign(desk, { polygon: points, gesture: { kind: "pinch", ...middle() }, hover: null });
        return;
      }
    }
    desk.hover = event.pointerType === "touch" ? null : at;
    if (event.button === 1 || desk.space) desk.gesture = { kind: "pan", at };
    else if (event.button === 0 && event.altKey) take(at);
    else if (event.button === 0 || event.button === 5) {   // 5: the other end of a pen
      if (!["brush", "eraser"].includes(desk.tool)) { desk.gesture = { kind: "click", at }; return; }
      desk.gesture = { kind: "stroke", before: frame().codes.slice(), at: under(at), value: event.button === 5 ? VOID : code() };
      line(desk.gesture.at, desk.gesture.at, desk.gesture.value);
    }
  };
  view.onpointermove = (event) => {
    tick();
    const at = spot(event), { gesture } = desk;
    if (desk.pointers.has(event.pointerId)) desk.pointers.set(event.pointerId, at);
    desk.hover = event.pointerType === "touch" ? null : at;
    if (gesture?.kind === "stroke") {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length ? all : [event]) {
        const next = under(spot(one));
        line(gesture.at, next, gesture.value);
        gesture.at = next;
      }
    } else if (gesture?.kind === "pan") {
      move(at[0] - gesture.at[0], at[1] - gesture.at[1]);
      gesture.at = at;
    } else if (gesture?.kind === "pinch" && desk.pointers.size > 1) {
      const now = middle();
      zoom(now.apart / Math.max(1, gesture.apart), now.at);
      move(now.at[0] - gesture.at[0], now.at[1] - gesture.at[1]);
      Object.assign(gesture, now);
    }
    where();
    paint();
  };
  view.onpointerup = (event) => {
    tick();
    const { gesture } = desk;
    desk.pointers.delete(event.pointerId);
    if (gesture?.kind === "pinch" && desk.pointers.size) return;   // the last finger that is lifted does not draw either
    desk.gesture = null;
    if (!frame() || !gesture) return;
    if (gesture.kind === "stroke") commit(gesture.before);
    else if (gesture.kind === "click" && desk.tool === "polygon") corner(under(gesture.at), event.timeStamp);
    else if (gesture.kind === "click") {
      const start = pixel(gesture.at);
      if (start !== null) change((codes) => { for (const one of connected(codes, W, H, start)) codes[one] = desk.label; });
    }
  };
  view.onpointercancel = (event) => {
    desk.pointers.delete(event.pointerId);
    if (frame() && desk.gesture?.before) abandon();
    desk.gesture = null;
    paint();
  };
  view.onpointerleave = () => { desk.hover = null; where(); paint(); };
  desk.wheel = (event) => {
    if (!frame()) return;
    event.preventDefault();
    tick();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.002)), spot(event));
  };
  desk.fitted = () => frame() && settle();
  if (!desk.bound) {   // as a property, the listener of the wheel could not keep the page from moving
    view.addEventListener("wheel", (event) => desk.wheel(event), { passive: false });
    new ResizeObserver(() => desk.fitted()).observe($("stage"));
    desk.bound = true;
  }
  desk.moved ??= performance.now();
  show();
  if (desk.undoing === Infinity && !here().length) { desk.undoing = false; undoAnswer(); }

  const KEYS = "[]?+-abdefgimprsux".split("").concat("Enter", "Escape", "Home", "Backspace", "ArrowLeft", "ArrowRight");
  const listen = (event) => {
    const target = event.composedPath()[0], element = target instanceof Element ? target : document.body;
    if (element.closest("input:not([type='checkbox'], [type='radio'], [type='range']), textarea, select, [contenteditable='true']")) return;
    if (element.closest("[type='range'], [role='slider'], [role='listbox'], [role='tablist']") && /^(Arrow|Home|End|Page)/.test(event.key)) return;
    if (element.closest("button, a, summary, [role='button'], [role='option']") && ["Enter", " "].includes(event.key)) return;
    let key = event.key === "=" ? "+" : event.key;
    const graph = event.getModifierState("AltGraph");   // by which some keyboards write [ and ]
    if ((event.ctrlKey || event.metaKey) && !graph) {
      key = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[key.toLowerCase()];
      if (!key || event.altKey) return;
    } else if (event.altKey && !graph) return;
    else if (/^\d$/.test(key)) key = key === "0" ? "10" : key;
    else if (event.shiftKey && /^Digit\d$/.test(event.code)) key = String(10 + (Number(event.code.at(-1)) || 10));
    else if (key === " ") {
      if (!frame()) return;
      desk.space = event.type === "keydown";
    } else if (!KEYS.includes(key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();   // the arrows would change the cycle
    if (key === " ") { $("view").classList.toggle("pan", desk.space); paint(); }
    else if (!event.repeat || /^(Arrow|[[\]+-]|undo|redo)/.test(key)) press(key);
  };
  const lift = (event) => { if (event.type === "blur" || event.key === " ") { desk.space = false; $("view").classList.remove("pan"); paint(); } };
  window.addEventListener("keydown", listen, true);
  window.addEventListener("keyup", lift, true);
  window.addEventListener("blur", lift);
  if (desk.stop) desk.stop();
  // This one's own: Streamlit may call it only after the next drawing has put its listener there
  const stop = desk.stop = () => {
    window.removeEventListener("keydown", listen, true);
    window.removeEventListener("keyup", lift, true);
    window.removeEventListener("blur", lift);
  };
  return stop;
}
