// Where it goes: FLOPs, bytes, memory or time by module, as an icicle or as a treemap.

const LEVELS = 4; // below the module that is looked at
const WIDEST = 40; // modules in one; of more, the others are together
const LEAST = 0.002; // of what is looked at: modules below that are together too, as nobody could see them
const COLOURED = 6; // classes with a colour of their own

/** What can be looked at: the name of each, its size in a row, and how a size is written. */
function quantities(tree) {
  const asBytes = (value) => named(value, "bytes", state.units);
  const measured = (row) => (tree.measured[state.phase] || tree.measured.all)[row] || 0;
  return {
    flops: ["FLOPs", (row) => flops(tree.costs, row), (value) => named(value, "flops", state.units)],
    bytes: ["Bytes", (row) => bytes(tree.costs, row), asBytes],
    ...(D.memory && big(tree.saved[0]) ? { saved: ["Saved memory", (row) => big(tree.saved[row]), asBytes] } : {}),
    ...(D.devices.length ? { time: ["Time at best", (row) => times(tree.devices, row).all, duration] } : {}),
    ...(D.measured ? { measured: ["Measured time", measured, (ns) => duration(ns / 1e9)] } : {}),
  };
}

function shares() {
  const view = { kind: "icicle", quantity: "flops", at: 0 };
  const tree = trees.folded;
  const known = quantities(tree);
  const size = (row) => Number(known[view.quantity][1](row));
  const inside = (row) => tree.below[row].filter((one) => size(one) > 0).sort((a, b) => size(b) - size(a));

  const crumbs = el("nav", { class: "crumbs", "aria-label": "Module that is looked at" });
  const legend = el("ul", { class: "legend" });
  const label = "Costs by module. The table of layers has the same numbers.";
  const plot = new Plot(label, 420, () => {
    const classes = largestClasses(tree, size);
    legend.replaceChildren(...classes.map((name, place) =>
      el("li", {}, el("i", { class: `dot class-${place}`, "aria-hidden": "true" }), el("span", {}, name))));
    const [, of, write] = known[view.quantity];
    return drawShares(view.kind, nodes(tree, view.at, { size, inside, text: (row) => write(of(row)), classes }));
  });
  plot.on = (box) => {
    for (const kind of ["icicle", "treemap"]) {
      box.on(`plotly_${kind}click`, ({ points }) => {
        clicked(Number(points[0].id));
        return false; // the page looks into modules itself: a tree of any size is drawn in part
      });
    }
  };

  function look(row) {
    view.at = row;
    drawCrumbs();
    plot.draw();
  }
  function clicked(row) {
    if (!Number.isInteger(row)) return;
    if (!tree.below[row].length) layers.reveal(tree.name[row]);
    else look(row === view.at ? Math.max(0, tree.parent[row]) : row);
  }
  function drawCrumbs() {
    const button = (row) =>
      el("button", { type: "button", "aria-current": row === view.at ? "true" : null, onclick: () => look(row) }, row ? tree.label[row] : D.title);
    crumbs.replaceChildren(...tree.path(view.at).map(button));
    const into = inside(view.at).filter((row) => tree.below[row].length).slice(0, WIDEST);
    if (!into.length) return;
    const chosen = (event) => event.target.value && look(Number(event.target.value));
    const box = el("select", { "aria-label": "Look into a module", onchange: chosen }, el("option", { value: "" }, "look into …"));
    for (const row of into) box.append(el("option", { value: String(row) }, tree.label[row]));
    crumbs.append(box);
  }
  watch(drawCrumbs);

  const quantity = (key) => {
    view.quantity = key;
    drawCrumbs();
    plot.draw();
  };
  const kind = (name) => {
    view.kind = name;
    plot.draw();
  };
  const tools = el("div", { class: "tools" },
    segmented("Quantity", Object.entries(known).map(([key, [name]]) => [key, name]), view.quantity, quantity),
    segmented("Kind of chart", [["icicle", "Icicle"], ["treemap", "Treemap"]], view.kind, kind));
  const help = "A click looks into a module; a click on the outermost one goes back, and one on a module with nothing in it finds it in the table. "
    + "Colours are classes; modules with others in them are pale, other classes and (own ops) grey.";
  return section("shares", "Where it goes", tools, crumbs, plot.box, legend, el("p", { class: "note" }, help));
}

/** The classes of most of the whole, among modules that have none in them. */
function largestClasses(tree, size) {
  const sizes = new Map();
  tree.class.forEach((name, row) => {
    if (name && !tree.below[row].length) sizes.set(name, (sizes.get(name) || 0) + size(row));
  });
  return [...sizes].sort((a, b) => b[1] - a[1]).slice(0, COLOURED).map(([name]) => name);
}

/** The modules that are drawn, from ``top`` down: id, label, id of the one around it, size where it has none in it, hover. */
function nodes(tree, top, { size, inside, text, classes }) {
  const found = [];
  const whole = fraction(size(0) || 1);
  const part = (some) => `${percent(fraction(some), whole)}% of all`;
  function shade(row) {
    const place = classes.indexOf(tree.class[row]);
    if (tree.below[row].length) return colour(tree.path(row).length % 2 ? "level-a" : "level-b");
    return colour(place >= 0 ? `class-${place}` : "quiet");
  }
  function visit(row, parent, level) {
    const inner = level < LEVELS ? inside(row) : [];
    const large = inner.filter((one) => size(one) >= LEAST * size(top));
    const kept = large.slice(0, inner.length > WIDEST ? WIDEST - 1 : WIDEST);
    const rest = inner.slice(kept.length);
    const lines = [`<b>${inPlot(short(tree.name[row] || D.title))}</b>`, inPlot(tree.class[row]), `${text(row)}, ${part(size(row))}`];
    found.push({
      id: String(row), label: inPlot(short(row ? tree.label[row] : D.title, 34)), parent,
      value: inner.length ? 0 : size(row), hover: lines.filter(Boolean).join("<br>"), colour: shade(row),
    });
    for (const one of kept) visit(one, String(row), level + 1);
    if (!rest.length) return;
    const together = rest.reduce((all, one) => all + size(one), 0);
    found.push({
      id: `${row}…`, label: `… ${rest.length} more`, parent: String(row), value: together,
      hover: `${counted(rest.length, "smaller module")}, ${part(together)}`, colour: colour("quiet"),
    });
  }
  visit(top, "", 0);
  return found;
}

function drawShares(kind, drawn) {
  const of = (name) => drawn.map((one) => one[name]);
  const narrow = window.innerWidth < 640;
  const trace = {
    type: kind, ids: of("id"), labels: of("label"), parents: of("parent"), values: of("value"), branchvalues: "remainder",
    customdata: of("hover"), hovertemplate: "%{customdata}<extra></extra>",
    marker: {
      colors: of("colour"), line: { width: 1, color: colour("raised") },
      ...(kind === "treemap" ? { pad: { t: 20, l: 2, r: 2, b: 2 } } : {}),
    },
    leaf: { opacity: 1 }, sort: false, textinfo: "label+percent root", textfont: { color: colour("text") }, pathbar: { visible: false },
    tiling: kind === "icicle" ? { orientation: narrow ? "v" : "h" } : { packing: "squarify" },
  };
  return [[trace], layout({ margin: { l: 0, r: 0, t: 0, b: 0 } })];
}
