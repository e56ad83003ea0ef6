// The ops: each with its costs, its shapes below it, and those that nobody could price.

/** A box to find rows of a grid by their text. ``grid.all()`` are the rows, ``grid.top(key)`` those that are found. */
function finder(grid, what, text) {
  const count = el("span", { class: "count", role: "status" });
  const search = (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    const kept = new Set(grid.all().filter((row) => text(row).toLowerCase().includes(wanted)).map(grid.key));
    grid.shown = wanted ? { has: (key) => kept.has(key) || !grid.top(key), opens: () => false } : null;
    count.textContent = wanted ? counted(kept.size, "match", "matches") : "";
    grid.box.scrollTop = 0;
    grid.refresh();
  };
  return [labelled(`Find ${what}`, el("input", { type: "search", oninput: search })), count];
}

function ops() {
  const { ops: table } = D;
  const rows = table.label.map((_, i) => ({ key: `${i}`, from: table, at: i, op: i }));
  const inside = rows.map(({ op }) => {
    const shapes = table.shapes[op];
    const found = shapes.label.map((_, i) => ({ key: `${op}/${i}`, from: shapes, at: i, op, shape: true }));
    if (shapes.more) found.push({ key: `${op}/more`, more: shapes.more, op, shape: true });
    return found;
  });
  const status = (row) => table.status[row.op];
  const calls = (row) => (row.more ? null : (row.from.calls[state.phase] || row.from.calls.all)[row.at]);
  const inPhase = (row) => calls(row) || flops(row.from.costs, row.at) || bytes(row.from.costs, row.at);
  let free = false;
  const roots = () => rows.filter((row) => (free || status(row) !== "free") && inPhase(row));

  function name(row) {
    if (row.more) return `${counted(row.more, "other shape")} not listed`;
    const label = row.from.label[row.at];
    return !row.shape && status(row) === "unpriced" ? [el("span", { class: "differs" }, "no formula: "), label] : label;
  }

  /** A column without the row that stands for the shapes that are not listed. */
  const listed = (column) => ({
    ...column,
    value: (row) => (row.more ? null : column.value(row)),
    cell: (row) => (row.more ? "" : column.cell(row)),
    full: (row) => (row.more || !column.full ? null : column.full(row)),
  });

  function columns() {
    const work = workColumns((row) => [row.from.costs, row.at]);
    const at = (row) => (row.shape ? null : times(table.devices, row.at));
    const timed = D.devices.length ? timeColumns(at, () => times(trees.folded.devices, 0).all) : null;
    const share = part("share", "% of FLOPs", (row) => [flops(row.from.costs, row.at), flops(trees.folded.costs, 0)]);
    const timeShare = timed && { ...timed.share, cell: (row) => (row.shape ? "" : timed.share.cell(row)), full: null };
    const label = {
      key: "label", title: "op, and its shapes", text: true, width: 250, cell: name,
      value: (row) => (row.more ? "" : row.from.label[row.at]),
      full: (row) => (row.more ? null : row.from.label[row.at]),
    };
    const called = number("calls", "calls", "count", calls, null, 90);
    const moved = window.innerWidth < 1400 ? [work.bytes] : [work.read, work.written]; // the last column is in view
    const best = timed ? [timed.bound, timed.best] : [];
    const shares = timed ? timeShare : listed(share);
    if (window.innerWidth < 640) { // what matters most is beside the names, on a phone
      return [label, listed(work.matmul), shares, called, ...[work.vector, ...moved, work.intensity].map(listed), ...best];
    }
    return [label, called, ...[work.matmul, work.vector, ...moved, work.intensity].map(listed), ...best, shares];
  }

  const grid = new Grid({
    name: "ops", label: "Ops with their costs, and the shapes of each", tree: true, sort: "matmul",
    roots, below: (row) => (row.shape ? [] : inside[row.op]), key: (row) => row.key,
    mark: (row) => (row.shape ? "own" : status(row) === "unpriced" ? "odd" : ""),
  });
  grid.all = roots;
  grid.top = (key) => !key.includes("/");
  watch(() => grid.setColumns(columns()));

  const hidden = rows.filter((row) => status(row) === "free").length;
  const show = (event) => {
    free = event.target.checked;
    grid.refresh();
  };
  const box = hidden
    ? labelled(`with ${counted(hidden, "free op")} (views and the like)`, el("input", { type: "checkbox", onchange: show }))
    : null;
  const tools = el("div", { class: "tools" }, finder(grid, "an op", (row) => row.from.label[row.at]), box);
  return section("ops", "Ops", tools, grid.box);
}

function unpriced() {
  const covered = el("p", { class: "said" }, `${D.coverage.sentence}.`);
  if (!D.unpriced.length) return section("unpriced", "Unpriced ops", el("p", { class: "said" }, "None."), covered);
  const most = 20;
  const listed = (shapes) => el("ul", { class: "plain" },
    shapes.slice(0, most).map((text) => el("li", {}, text)),
    shapes.length > most ? el("li", {}, `and ${shapes.length - most} more`) : null);
  const box = el("div", {});
  watch(() => {
    const rows = D.unpriced.map(([op, calls, size, shapes, name]) => [
      op, exactly(fraction(calls)), figure(measure(size, "bytes", state.units)), listed(shapes),
      el("code", {}, `@attnprof.cost("${name}")`),
    ]);
    const headings = ["op", "calls", "traffic", "inputs", "give it a price"];
    box.replaceChildren(smallTable("Ops without a formula", headings, rows, (i) => i < 3));
  });
  const warning = "These ops have no formula: totals are lower bounds. Their traffic is by the default rule, and in no total.";
  return section("unpriced", "Unpriced ops", el("p", { class: "said differs" }, warning), box, covered);
}
