// Measured against predicted: what differs first, the terms of each formula, and the ops that no term accounts for.

/** Quantities: how they are called, and what kind of number they are. */
const QUANTITIES = {
  matmul_flops: ["matmul FLOPs", "matmul"],
  vector_flops: ["vector FLOPs", "flops"],
  read_bytes: ["bytes read", "bytes"],
  write_bytes: ["bytes written", "bytes"],
};

function theory() {
  const { theory: table } = D;
  if (!table) return null;
  // A comparison is its position; what is below one (a term, an op) is an object.
  const isTop = (row) => typeof row === "number";
  const residual = (row) => big(table.residual[row]);
  const quantity = (row) => {
    const name = table.quantity[row];
    return QUANTITIES[name] || [name.replaceAll("_", " "), name.endsWith("bytes") ? "bytes" : "count"];
  };
  const value = (row, amount) => {
    const kind = quantity(row)[1];
    const [text, prefix] = measure(amount, kind, state.units);
    return [text, kind === "bytes" ? prefix : prefix + unitOf(kind, state.units)];
  };
  const signed = (row, amount) => {
    const [text, unit] = value(row, amount);
    return [amount > 0n ? `+${text}` : text, unit];
  };

  let which = table.residual.some((amount) => big(amount)) ? "differ" : "all";
  const all = table.module.map((_, row) => row);
  const inPhase = (row) => state.phase === "all" || !table.phase[row] || table.phase[row] === state.phase;
  const roots = () => all.filter((row) => (which === "all" || residual(row)) && inPhase(row));
  const terms = (row) => table.term_lists[table.terms[row]].map(([name, size, text], i) =>
    ({ key: `${row}/t${i}`, row, name, size, text, term: true }));
  const others = (row) => table.op_lists[table.ops[row]].map(([op, module, calls, size], i) =>
    ({ key: `${row}/o${i}`, row, name: `${op} x${calls}`, size, text: module }));

  const tone = (row) => (deviation(row) ? "differs" : "unknown");
  function residualCell(row) {
    if (!isTop(row)) return row.term ? "" : signed(row.row, big(row.size));
    if (!residual(row)) return ["0", ""];
    return el("span", { class: tone(row) }, figure(signed(row, residual(row))));
  }
  const formula = (row) => (isTop(row) ? table.formulas[table.formula[row]] || "sum of its parts" : row.text);
  const top = (of) => (row) => (isTop(row) ? of(row) : "");
  const amounts = (key, title, of) => ({
    key, title, width: 122,
    value: (row) => (isTop(row) ? of(row) : null),
    cell: (row) => (isTop(row) ? value(row, of(row)) : ""),
    full: (row) => (isTop(row) ? inFull(of(row), quantity(row)[1], state.units) : null),
  });
  const predicted = amounts("predicted", "predicted", (row) => big(table.predicted[row]));
  const termsToo = (row) => (isTop(row) ? predicted.cell(row) : row.term ? value(row.row, row.size) : "");
  function columns() {
    const label = {
      key: "label", title: "module", text: true, width: 250, value: top((row) => table.module[row]),
      cell: (row) => (isTop(row) ? table.module[row] : el("span", { class: row.term ? "" : tone(row.row) }, row.name)),
      full: (row) => (isTop(row) ? table.module[row] : row.text),
    };
    const by = words("formula", "formula", formula, 200);
    const narrow = window.innerWidth < 640;
    const phase = words("phase", "phase", top((row) => table.phase[row]), narrow ? 84 : 108);
    const what = words("quantity", "quantity", top((row) => quantity(row)[0]), 126);
    const measured = amounts("measured", "measured", (row) => big(table.measured[row]));
    const theory = { ...predicted, cell: termsToo };
    const rest = { ...amounts("residual", "residual", residual), value: (row) => (isTop(row) ? abs(residual(row)) : null), cell: residualCell };
    return narrow // what matters most is beside the names, on a phone
      ? [label, rest, phase, measured, theory, by, what]
      : [label, by, phase, what, measured, theory, rest];
  }

  const grid = new Grid({
    name: "theory", label: "Measured against predicted", tree: true,
    roots, below: (row) => (isTop(row) ? [...terms(row), ...others(row)] : []), key: (row) => (isTop(row) ? `${row}` : row.key),
    mark: (row) => (!isTop(row) ? "own" : deviation(row) ? "odd" : ""),
  });
  grid.all = roots;
  grid.top = (key) => !key.includes("/");
  watch(() => grid.setColumns(columns()));

  const show = (chosen) => {
    which = chosen;
    grid.box.scrollTop = 0;
    grid.refresh();
  };
  const choices = segmented("Comparisons", [["differ", "With a residual"], ["all", "All"]], which, show);
  const help = "A row opens to the terms of its formula, and to the ops that no term accounts for. "
    + "Residual: measured less predicted; what no formula covers is grey.";
  return section("theory", "Measured and predicted", sentences(table.sentences),
    el("div", { class: "tools" }, choices, finder(grid, "a module", (row) => table.module[row])),
    grid.box, el("p", { class: "note" }, help));
}
