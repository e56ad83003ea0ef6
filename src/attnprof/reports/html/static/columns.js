// The columns that tables share: numbers with their units, and every digit on hover.

/** A column of whole numbers of a kind; ``of(row)`` is a BigInt, a number or null. */
function number(key, title, kind, of, hint, width) {
  const there = (row) => {
    const value = of(row);
    return value === null || value === undefined ? null : value;
  };
  const longest = state.units.exact ? exactly(fraction(largest(kind))).length : 0;
  return {
    key, title, hint, width: Math.max(width || 98, 7.8 * longest + 44),
    value: there,
    cell: (row) => (there(row) === null ? null : measure(there(row), kind, state.units)),
    full: (row) => (there(row) === null ? null : inFull(there(row), kind, state.units)),
  };
}

/** About the largest number of a kind that any table has: columns of every digit are wide enough for it. */
function largest(kind) {
  const of = (numbers) => sum(numbers.map((i) => big(D.total[i])));
  if (kind === "bytes") return [of([READ, WRITTEN]), big(D.memory ? D.memory.peak.bytes : 0)].reduce((a, b) => (a > b ? a : b));
  return kind === "count" ? sum(Object.values(D.coverage.counts).map(big)) : of([MATMUL, VECTOR]);
}

function seconds(key, title, of, hint) {
  return {
    key, title, hint, width: 92, value: of,
    cell: (row) => (of(row) === null || of(row) === undefined ? null : timed(of(row))),
    full: (row) => (of(row) ? `${of(row)} s` : null),
  };
}

/** A part of the whole in per cent, with a bar; ``of(row)`` is [part, whole]. */
function part(key, title, of, hint) {
  return {
    key, title, hint, width: window.innerWidth < 640 ? 104 : 136,
    value: (row) => Number(of(row)[0]),
    cell: (row) => {
      const [some, whole] = of(row);
      const bar = el("span", { class: "fill" });
      bar.style.width = `${whole ? Math.min(100, (100 * Number(some)) / Number(whole)) : 0}%`;
      return [el("span", { class: "bar", "aria-hidden": "true" }, bar), el("span", { class: "number" }, percent(some, whole)), " "];
    },
    full: (row) => `${percent(...of(row))}% of ${title.replace(/^% of /, "")}`,
  };
}

function words(key, title, of, width, hint) {
  return { key, title, hint, width, text: true, value: (row) => of(row) || "", cell: (row) => of(row) || "", full: (row) => of(row) || null };
}

/** Columns of work: FLOPs by engine, bytes, intensity. ``costs(row)`` is [columns, position]. */
function workColumns(costs) {
  const of = (count) => (row) => count(...costs(row));
  return {
    matmul: number("matmul", "matmul", "matmul", of((c, i) => amount(c, i, MATMUL)), "FLOPs of contractions"),
    phases: D.phases.length > 1 && state.phase === "all"
      ? D.phases.filter((phase) => big(D.costs[phase][MATMUL])).map((phase) =>
          number(`matmul-${phase}`, phase, "matmul", of((c, i) => amount(c, i, MATMUL, [phase])), `FLOPs of contractions, ${phase}`, 100))
      : [],
    useful: number("useful", "useful matmul", "matmul", of((c, i) => amount(c, i, USEFUL)), "FLOPs of contractions without masked pairs", 122),
    vector: number("vector", "vector", "flops", of((c, i) => amount(c, i, VECTOR)), "FLOPs of all other arithmetic"),
    flops: number("flops", "FLOPs", "flops", of(flops), "FLOPs of both kinds"),
    read: number("read", "read", "bytes", of((c, i) => amount(c, i, READ)), "bytes that ops read"),
    written: number("written", "written", "bytes", of((c, i) => amount(c, i, WRITTEN)), "bytes that ops write"),
    bytes: number("bytes", "bytes", "bytes", of(bytes), "bytes that ops read and write"),
    intensity: {
      key: "intensity", title: "FLOP/B", hint: "FLOPs per byte", width: 84,
      value: of((c, i) => (bytes(c, i) ? Number(flops(c, i)) / Number(bytes(c, i)) : null)),
      cell: of((c, i) => perByte(flops(c, i), bytes(c, i))),
    },
  };
}

/** Columns of time on the device that is chosen; ``at(row)`` is what ``times`` finds. */
function timeColumns(at, whole) {
  return {
    bound: words("bound", "bound", (row) => boundText(at(row)), 128, "what most of the time is spent on"),
    best: seconds("best", "at best", (row) => (at(row) ? at(row).all : null), "the least time on the device"),
    share: part("time-share", "% of time", (row) => [at(row) ? at(row).all : 0, whole()], "part of the least time of the run"),
  };
}
