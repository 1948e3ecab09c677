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
  // This one's own: Streamlit may call it only after the next drawing has put its listener there
  const stop = state.stop = () => window.removeEventListener("keydown", listen, true);
  return stop;
}
