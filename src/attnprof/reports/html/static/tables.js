// The tables below: ops with their shapes, theory, steps, devices, and what nobody could price.

/** A box to find rows by their text, above a grid. */
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
  let free = false;
  const inPhase = (row) => calls(row) || flops(row.from.costs, row.at) || bytes(row.from.costs, row.at);
  const roots = () => rows.filter((row) => (free || status(row) !== "free") && inPhase(row));

  function columns() {
    const work = workColumns((row) => (row.more ? [{}, 0, []] : [row.from.costs, row.at]));
    const at = (row) => (row.shape ? null : times(table.devices, row.at));
    const whole = () => times(trees.folded.devices, 0).all;
    const timed = D.devices.length ? timeColumns(at, whole) : null;
    const none = (column) => ({ ...column, cell: (row) => (row.more ? "" : column.cell(row)), full: (row) => (row.more ? null : column.full && column.full(row)), value: (row) => (row.more ? null : column.value(row)) });
    const share = part("share", "% of FLOPs", (row) => [flops(row.from.costs, row.at), flops(trees.folded.costs, 0)]);
    return [
      {
        key: "label", title: "op, and its shapes", text: true, width: 250,
        value: (row) => (row.more ? "" : row.from.label[row.at]),
        cell: (row) => (row.more ? `${counted(row.more, "other shape")} not listed` : !row.shape && status(row) === "unpriced" ? [el("span", { class: "differs" }, "no formula: "), row.from.label[row.at]] : row.from.label[row.at]),
        full: (row) => (row.more ? null : row.from.label[row.at]),
      },
      number("calls", "calls", "count", calls, null, 90),
      ...[work.matmul, work.vector, work.read, work.written, work.intensity].map(none),
      ...(timed ? [timed.bound, timed.best, { ...timed.share, cell: (row) => (row.shape ? "" : timed.share.cell(row)), full: null }] : [none(share)]),
    ];
  }

  const grid = new Grid({ name: "ops", label: "Ops with their costs, and the shapes of each", tree: true, roots, below: (row) => (row.shape ? [] : inside[row.op]), key: (row) => row.key, mark: (row) => (row.shape ? "own" : status(row) === "unpriced" ? "odd" : "") });
  grid.all = roots;
  grid.top = (key) => !key.includes("/");
  grid.sort = "matmul";
  watch(() => grid.setColumns(columns()));
  const hidden = rows.filter((row) => status(row) === "free").length;
  return section("ops", "Ops",
    el("div", { class: "tools" }, finder(grid, "an op", (row) => row.from.label[row.at]),
      hidden ? labelled(`with ${counted(hidden, "free op")} (views and the like)`, el("input", { type: "checkbox", onchange: (event) => { free = event.target.checked; grid.refresh(); } })) : null),
    grid.box);
}

function unpriced() {
  if (!D.unpriced.length) return section("unpriced", "Unpriced ops", el("p", { class: "said" }, `None: ${D.coverage.sentence}.`));
  const rows = D.unpriced.map(([op, calls, size, shapes, name]) => [
    op, exactly(fraction(calls)), figure(measure(size, "bytes", D.units)), el("ul", { class: "plain" }, shapes.slice(0, 20).map((text) => el("li", {}, text)), shapes.length > 20 ? el("li", {}, `and ${shapes.length - 20} more`) : null),
    el("code", {}, `@attnprof.cost("${name}")`),
  ]);
  return section("unpriced", "Unpriced ops", el("p", { class: "said differs" }, "These ops have no formula: totals are lower bounds. Their traffic is by the default rule, and in no total."),
    smallTable("Ops without a formula", ["op", "calls", "traffic", "inputs", "give it a price"], rows, (i) => i < 3), el("p", { class: "said" }, `${D.coverage.sentence}.`));
}

function theory() {
  const { theory: table } = D;
  if (!table) return null;
  const residual = (row) => big(table.residual[row]);
  const quantities = { matmul_flops: ["matmul FLOPs", "matmul"], vector_flops: ["vector FLOPs", "flops"], read_bytes: ["bytes read", "bytes"], write_bytes: ["bytes written", "bytes"], saved_bytes: ["saved bytes", "bytes"], parameters: ["parameters", "count"] };
  const quantity = (row) => quantities[table.quantity[row]] || [table.quantity[row].replaceAll("_", " "), table.quantity[row].endsWith("bytes") ? "bytes" : "count"];
  let which = table.residual.some((value) => big(value)) ? "differ" : "all";
  const all = table.module.map((_, row) => row);
  const roots = () => all.filter((row) => (which === "all" || residual(row)) && (state.phase === "all" || !table.phase[row] || table.phase[row] === state.phase));
  const unit = (row) => unitOf(quantity(row)[1], state.units);
  const value = (row, of) => {
    const [text, prefix] = measure(of, quantity(row)[1], state.units);
    return [text, quantity(row)[1] === "bytes" ? prefix : prefix + unit(row)];
  };
  /** Below a comparison: its terms, then the ops that no term accounts for. */
  const inside = (row) => (typeof row !== "number" ? [] : [
    ...table.term_lists[table.terms[row]].map(([name, size, text], i) => ({ key: `${row}/t${i}`, row, name, size, text, term: true })),
    ...table.op_lists[table.ops[row]].map(([op, module, calls, size], i) => ({ key: `${row}/o${i}`, row, name: `${op} x${calls}`, size, text: module })),
  ]);
  const top = (of) => (row) => (typeof row === "number" ? of(row) : "");
  const count = (key, title, of) => ({
    key, title, width: 122, value: (row) => (typeof row === "number" ? of(row) : null), cell: (row) => (typeof row === "number" ? value(row, of(row)) : ""),
    full: (row) => (typeof row === "number" ? inFull(of(row), quantity(row)[1], state.units) : null),
  });
  const columns = () => [
    { key: "label", title: "module", text: true, width: 250, value: top((row) => table.module[row]), cell: (row) => (typeof row === "number" ? table.module[row] : el("span", { class: row.term ? "" : "differs" }, row.name)), full: (row) => (typeof row === "number" ? table.module[row] : row.text) },
    words("formula", "formula", (row) => (typeof row === "number" ? table.formulas[table.formula[row]] || "sum of its parts" : row.text), 200),
    words("phase", "phase", top((row) => table.phase[row]), 108),
    words("quantity", "quantity", top((row) => quantity(row)[0]), 126),
    count("measured", "measured", (row) => big(table.measured[row])),
    { ...count("predicted", "predicted", (row) => big(table.predicted[row])), cell: (row) => (typeof row === "number" ? value(row, big(table.predicted[row])) : row.term ? value(row.row, row.size) : "") },
    { ...count("residual", "residual", residual), value: (row) => (typeof row === "number" ? (residual(row) < 0n ? -residual(row) : residual(row)) : null),
      cell: (row) => {
        if (typeof row !== "number") return row.term ? "" : signed(row.row, big(row.size));
        return residual(row) ? el("span", { class: big(table.uncovered[row]) === residual(row) ? "unknown" : "differs" }, figure(signed(row, residual(row)))) : ["0", ""];
      } },
  ];
  const signed = (row, size) => {
    const [text, prefix] = value(row, size);
    return [size > 0n ? `+${text}` : text, prefix];
  };
  const grid = new Grid({ name: "theory", label: "Measured against predicted", tree: true, roots, below: inside, key: (row) => (typeof row === "number" ? `${row}` : row.key), mark: (row) => (typeof row === "number" ? (residual(row) ? "odd" : "") : "own") });
  grid.all = roots;
  grid.top = (key) => !key.includes("/");
  watch(() => grid.setColumns(columns()));
  const choices = [["differ", "With a residual"], ["all", "All"]];
  return section("theory", "Measured and predicted", sentences(table.sentences),
    el("div", { class: "tools" }, segmented("Comparisons", choices, which, (chosen) => { which = chosen; grid.box.scrollTop = 0; grid.refresh(); }), finder(grid, "a module", (row) => table.module[row])),
    grid.box, el("p", { class: "note" }, "A row opens to the terms of its formula, and to the ops that no term accounts for. Residual: measured less predicted; what no formula covers is grey."));
}

function steps() {
  const { steps: table } = D;
  if (!table) return D.pace.length ? section("steps", "Steps", sentences(D.pace)) : null;
  const rows = table.label.map((_, row) => row);
  const columns = () => {
    const work = workColumns((row) => [table.costs, row]);
    const at = (row) => times(table.devices, row);
    const timed = D.devices.length ? timeColumns(at, () => times(trees.folded.devices, 0).all) : null;
    return [
      { key: "label", title: "step", text: true, width: 170, value: (row) => row, cell: (row) => table.label[row] },
      ...(work.phases.length > 1 ? work.phases : [work.matmul]), work.vector, work.read, work.written, work.intensity,
      ...(timed ? [timed.bound, timed.best] : []),
      ...(table.cache ? [number("cache", "cache", "bytes", (row) => table.cache[row], "the key-value cache after the step"), number("grown", "cache +", "bytes", (row) => table.grown[row], "what the step added to it"), number("tokens", "tokens", "count", (row) => table.tokens[row], "in the cache")] : []),
    ];
  };
  const grid = new Grid({ name: "steps", label: "Steps with their costs", roots: () => rows, key: (row) => row });
  watch(() => grid.setColumns(columns()));
  const serving = D.devices.filter((device) => device.serving.length).map((device) => el("pre", { class: "scroll", tabindex: "0" }, device.serving.join("\n").trimEnd()));
  return section("steps", "Steps", grid.box, sentences(table.growth), serving);
}

/** One row per device where there are several. */
function whatIf() {
  if (D.devices.length < 2) return null;
  const box = el("div", {});
  watch(() => {
    const rows = D.devices.map((device) => {
      const [compute, memory, launch] = device.time;
      const all = compute + memory + launch;
      const spare = device.margin === null ? "–" : `${named(abs(big(device.margin)), "bytes", state.units)} ${big(device.margin) < 0n ? "short" : "to spare"}`;
      return [device.id, figure(timed(all)), boundText({ compute, memory, launch, all }) || "–", ...D.phases.map((phase) => figure(timed(device.phases[phase].reduce((a, b) => a + b, 0)))),
        device.fused === null ? "–" : figure(timed(device.fused)), spare];
    });
    box.replaceChildren(smallTable("The run on each device", ["device", "at best", "bound", ...D.phases.map((phase) => LABELS[phase]), "fused", "memory"], rows));
  });
  return el("div", {}, el("h3", {}, "On each device"), box);
}

function about() {
  return section("about", "About this run",
    el("ul", { class: "plain" }, D.conventions.map((text) => el("li", {}, text)), el("li", {}, "MB and GB are powers of ten, MiB and GiB of two; counts are exact, times of devices are lower bounds.")),
    smallTable("How the run was made", ["fact", "value"], D.meta, () => false));
}
