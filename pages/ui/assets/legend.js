export default function({ parentElement, data }) {
  const make = (name, text) => {
    const element = document.createElement("span");
    element.className = name;
    if (text !== undefined) element.textContent = text;   // never HTML: names come from users
    return element;
  };
  const entries = data.entries.map(({ name, colour }) => {
    const entry = make("entry"), swatch = make("swatch");
    entry.setAttribute("role", "listitem");
    swatch.style.background = colour;
    entry.append(swatch, make("name", name));
    return entry;
  });
  if (data.scale) {
    const entry = make("entry"), bar = make("scale");
    entry.setAttribute("role", "listitem");
    bar.style.background = "linear-gradient(to right, " + data.scale.colours.join(", ") + ")";
    entry.append(make("name", data.scale.low), bar, make("name", data.scale.high));
    entries.push(entry);
  }
  parentElement.querySelector(".legend").replaceChildren(...entries);
}
