// Other counters beside attnprof: their FLOPs by module, and the differences by cause.

function crosschecks() {
  if (!D.crosschecks.length) return null;
  return section("crosscheck", "Other counters", D.crosschecks.map((check, i) => crosscheck(check, i)));
}

function crosscheck({ title, sentences: why, unexplained, rows }, i) {
  const [heading, ...more] = title;
  const below = rows.label.map(() => []);
  const path = [];
  rows.level.forEach((level, row) => {
    if (level) below[path[level - 1]].push(row);
    path[level] = row;
  });
  const of = (name) => (row) => big(rows[name][row]);
  const kinds = Object.keys(rows.kinds).filter((kind) => rows.kinds[kind].some((value) => big(value)));
  const theirOwn = rows.said.some((value, row) => value !== rows.theirs[row]);
  const columns = () => [
    { key: "label", title: "layer", text: true, width: 250, value: (row) => rows.label[row], cell: (row) => rows.label[row] },
    number("ours", "attnprof", "flops", of("ours"), "FLOPs by attnprof"),
    ...(theirOwn ? [number("said", "its count", "count", of("said"), "in its own unit")] : []),
    number("theirs", "in FLOPs", "flops", of("theirs"), "FLOPs by the other counter"),
    number("difference", "difference", "flops", of("difference"), "what it has more, or less", 104),
    ...kinds.map((kind) => number(kind, kind, "flops", (row) => big(rows.kinds[kind][row]), "part of the difference", 112)),
  ];
  const tops = rows.label.map((_, row) => row).filter((row) => !rows.level[row]);
  const grid = new Grid({ name: `crosscheck-${i}`, label: heading, tree: true, roots: () => tops, below: (row) => below[row], key: (row) => row });
  grid.openScreenful();
  if (rows.label.length) watch(() => grid.setColumns(columns()));
  return [el("h3", {}, heading), sentences(more), rows.label.length ? grid.box : null,
    why.map((text) => el("p", { class: big(unexplained) ? "said differs" : "said" }, text))];
}
