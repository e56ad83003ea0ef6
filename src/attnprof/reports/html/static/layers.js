// The layers: the module tree with its numbers, as many columns as one looks at together.

function layers() {
  const view = { tree: trees.folded, set: "overview" };
  const tree = () => view.tree;
  const whole = (count) => () => count(tree().costs, 0);
  const at = (row) => times(tree().devices, row);

  function columns() {
    const work = workColumns((row) => [tree().costs, row]);
    const timed = D.devices.length ? timeColumns(at, () => at(0).all) : null;
    const label = {
      key: "label", title: "layer", text: true, width: 290, value: (row) => tree().label[row], cell: (row) => tree().label[row],
      full: (row) => [tree().name[row], tree().class[row]].filter(Boolean).join(" · ") || null,
    };
    const own = {
      class: words("class", "class", (row) => tree().class[row], 170),
      calls: number("calls", "calls", "count", (row) => tree().calls[row], "forward calls", 90),
      params: number("params", "params", "count", (row) => tree().params[row], "parameters, shared ones at their owner"),
      saved: number("saved", "saved", "bytes", (row) => (D.memory ? tree().saved[row] : null), "bytes kept for the backward"),
      share: part("share", "% of FLOPs", (row) => [flops(tree().costs, row), whole(flops)()], "part of the FLOPs of the run"),
      byteShare: part("byte-share", "% of bytes", (row) => [bytes(tree().costs, row), whole(bytes)()], "part of the bytes of the run"),
      savedShare: part("saved-share", "% of saved", (row) => [big(tree().saved[row]), big(tree().saved[0])], "of the bytes kept for the backward"),
    };
    const predicted = D.theory ? [{ ...words("predicted", "predicted", said, 230, "what theory says of the matmul FLOPs"), cell: verdict }] : [];
    const saved = D.memory && big(tree().saved[0]) ? [own.saved] : [];
    const best = timed ? [timed.bound, timed.best] : [];
    const shares = timed ? timed.share : own.share;
    const fused = timed ? [
      seconds("fused", "fused", (row) => onDevice("fused", row), "the least time if each module were one kernel"),
      { ...number("footprint", "footprint", "bytes", (row) => onDevice("footprint", row), "parameters, inputs and outputs, each once per call") },
    ] : [];
    const measured = D.measured ? [
      seconds("measured", "measured", (row) => nanoseconds(row) / 1e9, "median over the profiled steps"),
      part("step", "% of step", (row) => [nanoseconds(row), D.measured.step || 0], "part of the measured step"),
      ...(timed && D.measured.of_device && state.device === 0 ? [reached()] : []),
    ] : [];
    const sets = {
      overview: window.innerWidth < 640 // what matters most is beside the names, on a phone
        ? [work.matmul, shares, work.bytes, ...best, ...saved, own.params, ...predicted]
        : [own.params, ...saved, work.matmul, work.bytes, ...best, shares, ...predicted],
      work: [own.calls, ...(work.phases.length ? work.phases : [work.matmul]), work.useful, work.vector, work.flops, own.share],
      bytes: [work.read, work.written, work.bytes, work.intensity, own.byteShare, ...saved, ...(saved.length ? [own.savedShare] : [])],
      time: timed ? [work.intensity, timed.bound, timed.best, timed.share, ...fused, ...measured] : measured,
      all: [own.class, own.calls, own.params, ...saved, work.matmul, ...work.phases, work.useful, work.vector, work.read, work.written, work.bytes,
        work.intensity, own.share, ...(timed ? [timed.bound, timed.best, timed.share] : []), ...fused, ...measured, ...predicted],
    };
    return [label, ...sets[view.set]];
  }

  const onDevice = (name, row) => (state.phase === "all" && tree().devices[state.device] ? tree().devices[state.device][name][row] : null);
  const nanoseconds = (row) => (tree().measured[state.phase] || tree().measured.all)[row] || 0;
  const said = (row) => tree().predicted.texts[(tree().predicted[state.phase] || tree().predicted.all)[row]];
  const reached = () => ({
    key: "reached", title: "% of roofline", hint: "least time as a part of the measured one", width: 120,
    value: (row) => (nanoseconds(row) ? at(row).all / nanoseconds(row) : null),
    cell: (row) => (nanoseconds(row) && at(row).all ? [percent(fraction(at(row).all * 1e9), fraction(nanoseconds(row))), ""] : null),
  });

  function verdict(row) {
    const text = said(row);
    return text ? el("span", { class: text === "= theory" ? "agrees" : text.startsWith("not predicted") ? "unknown" : "differs" }, text) : "";
  }

  const grid = new Grid({
    name: "layers", label: "Layers with their costs", tree: true,
    roots: () => [0], below: (row) => tree().below[row], key: (row) => row,
    mark: (row) => (tree().own[row] ? "own" : ""),
  });
  grid.openScreenful();

  const count = el("span", { class: "count", role: "status" });
  function find(text) {
    const wanted = text.trim().toLowerCase();
    grid.shown = wanted ? matching(tree(), wanted) : null;
    grid.box.scrollTop = 0;
    count.textContent = wanted ? `${counted(grid.shown.found, "match", "matches")}` : "";
    grid.refresh();
  }
  const search = el("input", { type: "search", placeholder: "name or class", oninput: (event) => find(event.target.value) });

  function show(which) {
    view.tree = trees[which];
    grid.opened = new Set([0]);
    grid.openScreenful();
    grid.active = null;
    find(search.value);
  }

  const time = D.devices.length || D.measured ? [["time", "Time"]] : [];
  const names = [["overview", "Overview"], ["work", "FLOPs"], ["bytes", "Bytes"], ...time, ["all", "All"]];
  const tools = el("div", { class: "tools" },
    segmented("Columns", names, view.set, (set) => { view.set = set; grid.setColumns(columns()); }),
    trees.every && segmented("Layers", [["folded", "Equal layers as one"], ["every", "Every layer"]], "folded", show),
    labelled("Find a layer", search), count,
    el("span", { class: "push" }),
    el("button", { type: "button", onclick: () => spread(1) }, "One level more"),
    el("button", { type: "button", onclick: () => { grid.opened = new Set([0]); grid.refresh(); } }, "Collapse"),
  );

  /** Open every row that is in view by one level. */
  function spread() {
    for (const { row, inner } of [...grid.rows]) if (inner) grid.opened.add(row);
    grid.refresh();
  }

  /** Show a layer by its full name: open what is above it, and go there. */
  layers.reveal = (name) => {
    const row = tree().name.indexOf(name);
    if (row < 0) return;
    for (const one of tree().path(row).slice(0, -1)) grid.opened.add(one);
    search.value = "";
    find("");
    grid.go(grid.rows.findIndex((entry) => entry.row === row));
    document.getElementById("layers").scrollIntoView({ behavior: calm() ? "auto" : "smooth" });
    grid.table.focus({ preventScroll: true });
  };

  watch(() => grid.setColumns(columns()));
  const rest = D.measured ? D.measured.rest.filter(([, size]) => size).map(([name, size]) => [name, figure(timed(size / 1e9))]) : [];
  const measured = D.measured
    ? [el("h3", {}, "Measured time"), smallTable("Time that is of no layer", ["of no layer", "median"], rest), sentences(D.measured.sentences)]
    : null;
  const help = "Rows add up: a row is the sum of those below it, (own ops) are what a module ran itself. "
    + "Arrow keys move, open and close; hover shows every digit.";
  return section("layers", "Layers", tools, grid.box, el("p", { class: "note" }, help), measured);
}

/** The rows of a tree whose name or class has a text in it, with all that is above them. */
function matching(tree, wanted) {
  const [kept, above] = [new Set(), new Set()];
  let found = 0;
  for (let row = 0; row < tree.size; row += 1) {
    if (!`${tree.label[row]}\n${tree.name[row]}\n${tree.class[row]}`.toLowerCase().includes(wanted)) continue;
    const own = `${tree.label[row]}\n${tree.class[row]}`.toLowerCase().includes(wanted) || tree.name[row].toLowerCase().endsWith(wanted);
    if (!own) continue;
    found += 1;
    kept.add(row);
    for (let at = tree.parent[row]; at >= 0 && !above.has(at); at = tree.parent[at]) above.add(at);
  }
  const has = (row) => kept.has(row) || above.has(row) || within(row);
  const within = (row) => {
    for (let at = tree.parent[row]; at >= 0; at = tree.parent[at]) if (kept.has(at)) return true;
    return false;
  };
  return { found, has, opens: (row) => above.has(row) };
}
