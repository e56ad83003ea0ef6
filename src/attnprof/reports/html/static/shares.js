// Where it goes: FLOPs, bytes, memory or time by module, as an icicle or as a treemap.

const LEVELS = 4; // below the module that is looked at
const WIDEST = 40; // modules in one; of more, the others are together
const LEAST = 0.002; // of what is looked at: modules below that are together too, as nobody could see them

function shares() {
  const view = { kind: "icicle", quantity: "flops", at: 0 };
  const tree = trees.folded;
  const quantities = {
    flops: ["FLOPs", (row) => flops(tree.costs, row), (value) => named(value, "flops", state.units)],
    bytes: ["Bytes", (row) => bytes(tree.costs, row), (value) => named(value, "bytes", state.units)],
    ...(D.memory && big(tree.saved[0]) ? { saved: ["Saved memory", (row) => big(tree.saved[row]), (value) => named(value, "bytes", state.units)] } : {}),
    ...(D.devices.length ? { time: ["Time at best", (row) => times(tree.devices, row).all, duration] } : {}),
    ...(D.measured ? { measured: ["Measured time", (row) => (tree.measured[state.phase] || tree.measured.all)[row] || 0, (ns) => duration(ns / 1e9)] } : {}),
  };
  const legend = el("ul", { class: "legend" });
  const size = (row) => Number(quantities[view.quantity][1](row));
  const text = (row) => quantities[view.quantity][2](quantities[view.quantity][1](row));

  /** The modules that are drawn: [id, label, parent, size, hover text, row or null]. */
  function nodes() {
    const found = [];
    const classes = classColours();
    const visit = (row, parent, level) => {
      const inner = tree.below[row].filter((one) => size(one) > 0).sort((a, b) => size(b) - size(a));
      const deep = level < LEVELS && inner.length > 0;
      const large = inner.filter((one) => size(one) >= LEAST * size(view.at));
      const kept = deep ? large.slice(0, inner.length > WIDEST ? WIDEST - 1 : WIDEST) : [];
      const rest = deep ? inner.slice(kept.length) : [];
      const whole = size(0) || 1;
      const hover = `<b>${inPlot(short(tree.name[row] || D.title))}</b>${tree.class[row] ? `<br>${inPlot(tree.class[row])}` : ""}<br>${text(row)}, ${percent(fraction(size(row)), fraction(whole))}% of all`;
      found.push({ id: String(row), label: inPlot(short(row ? tree.label[row] : D.title, 34)), parent, value: deep ? 0 : size(row), hover, colour: classes(row) });
      for (const one of kept) visit(one, String(row), level + 1);
      if (rest.length) {
        const together = rest.reduce((all, one) => all + size(one), 0);
        found.push({ id: `${row}…`, label: `… ${rest.length} more`, parent: String(row), value: together, hover: `${counted(rest.length, "smaller module")}, ${percent(fraction(together), fraction(whole))}% of all`, colour: colour("quiet") });
      }
    };
    visit(view.at, "", 0);
    return found;
  }

  /** The same colour for the same class, the largest classes first; the others are grey. */
  function classColours() {
    const sizes = new Map();
    tree.class.forEach((name, row) => !tree.below[row].length && name && sizes.set(name, (sizes.get(name) || 0) + size(row)));
    const order = [...sizes].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name]) => name);
    legend.replaceChildren(...order.map((name, place) => el("li", {}, el("i", { class: `dot class-${place}`, "aria-hidden": "true" }), el("span", {}, name))));
    return (row) => {
      const place = tree.below[row].length ? -1 : order.indexOf(tree.class[row]);
      if (place >= 0) return colour(`class-${place}`);
      return tree.below[row].length ? colour(tree.path(row).length % 2 ? "level-a" : "level-b") : colour("quiet");
    };
  }

  const crumbs = el("nav", { class: "crumbs", "aria-label": "Module that is looked at" });
  function drawCrumbs() {
    crumbs.replaceChildren(...tree.path(view.at).map((row) =>
      el("button", { type: "button", "aria-current": row === view.at ? "true" : null, onclick: () => look(row) }, row ? tree.label[row] : D.title)));
    const into = tree.below[view.at].filter((row) => tree.below[row].length && size(row) > 0).sort((a, b) => size(b) - size(a)).slice(0, 30);
    if (into.length) {
      const box = el("select", { "aria-label": "Look into a module", onchange: (event) => event.target.value && look(Number(event.target.value)) }, el("option", { value: "" }, "look into …"));
      for (const row of into) box.append(el("option", { value: String(row) }, tree.label[row]));
      crumbs.append(box);
    }
  }
  function look(row) {
    view.at = row;
    drawCrumbs();
    plot.draw();
  }

  const plot = new Plot("Costs by module. The table of layers has the same numbers.", 420, () => {
    const drawn = nodes();
    const flat = window.innerWidth < 640;
    const trace = {
      type: view.kind, ids: drawn.map((one) => one.id), labels: drawn.map((one) => one.label), parents: drawn.map((one) => one.parent),
      values: drawn.map((one) => one.value), branchvalues: "remainder", customdata: drawn.map((one) => one.hover), hovertemplate: "%{customdata}<extra></extra>",
      marker: { colors: drawn.map((one) => one.colour), line: { width: 1, color: colour("raised") }, ...(view.kind === "treemap" ? { pad: { t: 20, l: 2, r: 2, b: 2 } } : {}) },
      leaf: { opacity: 1 }, sort: false, textinfo: "label+percent root", textfont: { color: colour("text") }, pathbar: { visible: false }, tiling: view.kind === "icicle" ? { orientation: flat ? "v" : "h" } : { packing: "squarify" },
    };
    return [[trace], layout({ margin: { l: 0, r: 0, t: 0, b: 0 } })];
  });
  plot.on = (box) => {
    for (const kind of ["icicle", "treemap"]) {
      box.on(`plotly_${kind}click`, ({ points }) => {
        const row = Number(points[0].id);
        if (Number.isInteger(row) && tree.below[row].length) look(row === view.at ? Math.max(0, tree.parent[row]) : row);
        else if (Number.isInteger(row)) layers.reveal(tree.name[row]);
        return false;
      });
    }
  };
  watch(drawCrumbs);
  return section("shares", "Where it goes",
    el("div", { class: "tools" },
      segmented("Quantity", Object.entries(quantities).map(([key, [name]]) => [key, name]), view.quantity, (key) => { view.quantity = key; drawCrumbs(); plot.draw(); }),
      segmented("Kind of chart", [["icicle", "Icicle"], ["treemap", "Treemap"]], view.kind, (kind) => { view.kind = kind; plot.draw(); })),
    crumbs, plot.box, legend, el("p", { class: "note" }, "A click looks into a module; a click on the outermost one goes back, and one on a module with nothing in it finds it in the table. Colours are classes; modules with others in them are pale, other classes and (own ops) grey."));
}
