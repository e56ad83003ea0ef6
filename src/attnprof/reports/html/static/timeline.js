// Memory: sizes by name, live bytes over the run with the peak marked, and what was alive there.

function memory() {
  const { memory: found } = D;
  if (!found) return section("memory", "Memory", el("p", { class: "said" }, "Memory was not tracked."));
  const sizes = el("div", {});
  watch(() => {
    const rows = found.sizes.map(([name, size, level]) => [
      el("span", { class: level ? "inner" : "" }, name),
      figure(measure(size, "bytes", state.units), { title: inFull(size, "bytes", state.units) }),
    ]);
    sizes.replaceChildren(smallTable("Sizes in memory", ["", "bytes"], rows));
  });
  return section("memory", "Memory", timeline(found), el("div", { class: "columns" }, sizes, blocks(found.blocks)));
}

function timeline({ timeline: line, peak }) {
  if (typeof line === "string") return el("p", { class: "said" }, line);
  const kinds = Object.keys(line.kinds);
  const label = `Live bytes over ${line.calls} op calls; the peak is ${named(peak.bytes, "bytes", state.units)}, ${peak.where}.`;
  const plot = new Plot(label, 360, () => drawTimeline(line, kinds, peak));
  const legend = (names, prefix) => el("ul", { class: "legend" }, names.map((name) =>
    el("li", {}, el("i", { class: `dot ${prefix}-${name}`, "aria-hidden": "true" }), el("span", {}, name))));
  const phases = [...new Set(line.phases.map(([phase]) => phase))];
  const said = [
    `Peak ${peak.where}.`,
    line.steps.length ? "Dotted lines are ends of steps." : "",
    line.points > line.x.length ? `${counted(line.points, "change")} are drawn as ${line.x.length}, each at its most.` : "",
  ];
  return [
    plot.box,
    el("div", { class: "tools" }, legend(kinds, "kind"), el("span", { class: "push" }),
      el("span", { class: "note" }, "below:"), legend(phases, "phase")),
    el("p", { class: "said" }, said.filter(Boolean).join(" ")),
  ];
}

function drawTimeline(line, kinds, peak) {
  const size = (value) => named(value, "bytes", state.units);
  const totals = line.x.map((_, i) => sum(kinds.map((kind) => big(line.kinds[kind][i]))));
  const traces = kinds.map((kind) => ({
    type: "scatter", mode: "lines", stackgroup: "live", x: line.x, y: line.kinds[kind].map(Number), name: kind,
    line: { width: 0, shape: "hv" }, fillcolor: colour(`kind-${kind}`),
    customdata: line.kinds[kind].map((value) => `${kind}: ${size(value)}`), hovertemplate: "%{customdata}<extra></extra>",
  }));
  const where = (i) => inPlot(short(line.texts[line.at[i]], 80));
  traces.push({
    type: "scatter", mode: "lines", x: line.x, y: totals.map(Number), line: { width: 1, color: colour("text"), shape: "hv" },
    customdata: line.x.map((call, i) => `<b>op call ${exactly(fraction(call))}</b><br>${where(i)}<br>${size(totals[i])} live`),
    hovertemplate: "%{customdata}<extra></extra>",
  });
  const top = Number(peak.bytes);
  traces.push({
    type: "scatter", mode: "markers", x: [line.peak], y: [top], hoverinfo: "skip",
    marker: { size: 10, color: colour("alarm"), line: { width: 2, color: colour("raised") } },
  });
  const right = line.peak > line.calls * 0.6;
  const peakLabel = {
    x: line.peak, y: top, text: `peak ${size(peak.bytes)}`, showarrow: false, yanchor: "bottom",
    xanchor: right ? "right" : "left", xshift: right ? -10 : 10, font: { size: 12, color: colour("alarm") },
  };
  return [traces, layout({
    hovermode: "x", shapes: [...phaseStrip(line), ...stepEnds(line)], annotations: [peakLabel], margin: { l: 64, r: 18, t: 26, b: 56 },
    xaxis: {
      title: { text: "op calls", standoff: 18 }, range: [0, Math.max(1, line.calls)], showgrid: false, ticks: "", ticklabelstandoff: 10,
    },
    yaxis: { title: { text: "live bytes" }, ticksuffix: "B", exponentformat: "SI", rangemode: "tozero" },
  })];
}

/** The phases as a strip below the axis. */
const phaseStrip = (line) => line.phases.map(([phase, start, end]) => ({
  type: "rect", xref: "x", yref: "paper", x0: start, x1: end, y0: -0.035, y1: -0.01, line: { width: 0 }, fillcolor: colour(`phase-${phase}`),
}));

const stepEnds = (line) => line.steps.map((at) => ({
  type: "line", xref: "x", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { width: 1, dash: "dot", color: colour("edge") },
}));

function blocks(table) {
  const rows = table.label.map((_, row) => row);
  const label = (row) => table.label[row];
  const columns = () => [
    { key: "label", title: "alive at the peak", text: true, width: 260, value: label, cell: label, full: label },
    words("kind", "kind", (row) => table.kind[row], 112),
    number("blocks", "blocks", "count", (row) => table.blocks[row], null, 90),
    number("each", "each", "bytes", (row) => table.each[row]),
    number("bytes", "together", "bytes", (row) => table.bytes[row]),
  ];
  const grid = new Grid({ name: "blocks", label: "Storages alive at the peak", roots: () => rows, key: (row) => row });
  watch(() => grid.setColumns(columns()));
  const more = `and ${counted(table.more, "other kind", "other kinds")} of blocks, ${named(table.more_bytes, "bytes", D.units)}.`;
  return el("div", {}, grid.box, table.more ? el("p", { class: "note" }, more) : null);
}
