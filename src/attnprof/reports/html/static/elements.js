// Elements of the page. Text is always set as text: no name from the model is ever read as markup.

/** An element with attributes (``on...`` are listeners, null and false are left out) and children. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A labelled choice. ``options`` are [value, text]; ``chosen(value)`` is called when another is chosen. */
function select(label, options, value, chosen) {
  const box = el("select", { onchange: (event) => chosen(event.target.value) });
  for (const [key, text] of options) box.append(el("option", { value: key, selected: key === value }, text));
  return labelled(label, box);
}

/** A field with its label before it, or after it for a box to tick. */
function labelled(label, field) {
  labelled.count = (labelled.count || 0) + 1;
  field.id = `field-${labelled.count}`;
  const text = el("label", { for: field.id }, label);
  return el("span", { class: "choice" }, field.type === "checkbox" ? [field, text] : [text, field]);
}

/** Buttons of which one is pressed. */
function segmented(label, options, value, chosen) {
  const buttons = options.map(([key, text]) =>
    el("button", { type: "button", "aria-pressed": String(key === value), "data-value": key, onclick: () => press(key) }, text),
  );
  function press(key) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === key));
    chosen(key);
  }
  return el("div", { class: "segmented", role: "group", "aria-label": label }, buttons);
}

/** A section with a heading; it has an entry in the bar on top. */
function section(id, title, ...children) {
  const made = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), children);
  made.dataset.title = title;
  return made;
}

/** Number and unit, the units below one another. */
function figure([number, unit], attributes) {
  return el("span", { class: "figure", ...attributes }, el("span", { class: "number" }, number), el("span", { class: "unit" }, unit));
}

/** A bar of parts: [label, size, colour class, text]; sizes are numbers. */
function partsBar(parts) {
  const whole = parts.reduce((all, [, size]) => all + size, 0);
  const there = parts.filter(([, size]) => size > 0);
  const pieces = there.map(([label, size, kind, text]) => {
    const piece = el("span", { class: `piece ${kind}`, title: `${label}: ${text}` });
    piece.style.flexGrow = String(size / whole);
    return piece;
  });
  const legend = there.map(([label, , kind, text]) =>
    el("li", {}, el("i", { class: `dot ${kind}`, "aria-hidden": "true" }), el("span", {}, label), el("b", {}, text)),
  );
  return [el("div", { class: "parts", "aria-hidden": "true" }, pieces), el("ul", { class: "legend" }, legend)];
}

/** A small table of rows that are all there: headings, then rows of texts or elements. */
function smallTable(caption, headings, rows, numeric) {
  const cell = (content, i) =>
    el(i ? "td" : "th", { scope: i ? null : "row", class: i && (!numeric || numeric(i)) ? "n" : null }, content === null ? "–" : content);
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    el(
      "table",
      { class: "small" },
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, headings.map((text, i) => el("th", { scope: "col", class: i && (!numeric || numeric(i)) ? "n" : null }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ),
  );
}

const sentences = (texts) => texts.map((text) => el("p", { class: "said" }, text));

/** What is kept of the screen's own wishes. */
const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;
