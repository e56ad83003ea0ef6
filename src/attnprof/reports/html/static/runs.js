// Steps, devices side by side, and how the run was made.

function steps() {
  const { steps: table } = D;
  if (!table) return D.pace.length ? section("steps", "Steps", sentences(D.pace)) : null;
  const rows = table.label.map((_, row) => row);

  function columns() {
    const work = workColumns((row) => [table.costs, row]);
    const at = (row) => times(table.devices, row);
    const timed = D.devices.length ? timeColumns(at, () => times(trees.folded.devices, 0).all) : null;
    const cache = table.cache ? [
      number("cache", "cache", "bytes", (row) => table.cache[row], "the key-value cache after the step"),
      number("grown", "cache +", "bytes", (row) => table.grown[row], "what the step added to it"),
      number("tokens", "tokens", "count", (row) => table.tokens[row], "in the cache"),
    ] : [];
    return [
      { key: "label", title: "step", text: true, width: 170, value: (row) => row, cell: (row) => table.label[row] },
      ...(work.phases.length > 1 ? work.phases : [work.matmul]), work.vector, work.read, work.written, work.intensity,
      ...(timed ? [timed.bound, timed.best] : []), ...cache,
    ];
  }

  const grid = new Grid({ name: "steps", label: "Steps with their costs", roots: () => rows, key: (row) => row });
  watch(() => grid.setColumns(columns()));
  const serving = D.devices.filter((device) => device.serving.length);
  const texts = serving.map((device) => el("pre", { class: "scroll", tabindex: "0" }, device.serving.join("\n").trimEnd()));
  return section("steps", "Steps", grid.box, sentences(table.growth), texts);
}

/** One row per device where there are several. */
function whatIf() {
  if (D.devices.length < 2) return null;
  const all = (time) => time[0] + time[1] + time[2];
  const spare = ({ margin }) => {
    if (margin === null) return "–";
    return `${named(abs(big(margin)), "bytes", state.units)} ${big(margin) < 0n ? "short" : "to spare"}`;
  };
  const row = (device) => {
    const [compute, memory, launch] = device.time;
    return [
      device.id,
      [device.incomplete ? "> " : "", figure(timed(all(device.time)))],
      boundText({ compute, memory, launch, all: all(device.time) }) || "–",
      ...D.phases.map((phase) => figure(timed(all(device.phases[phase])))),
      device.fused === null ? "–" : figure(timed(device.fused)),
      spare(device),
    ];
  };
  const headings = ["device", "at best", "bound", ...D.phases, "fused", "memory"];
  const box = el("div", {});
  watch(() => box.replaceChildren(smallTable("The run on each device", headings, D.devices.map(row))));
  return el("div", {}, el("h3", {}, "On each device"), box);
}

function about() {
  const more = "MB and GB are powers of ten, MiB and GiB of two; counts are exact, times of devices are lower bounds.";
  return section("about", "About this run",
    el("ul", { class: "plain" }, [...D.conventions, more].map((text) => el("li", {}, text))),
    D.meta.length ? smallTable("How the run was made", ["fact", "value"], D.meta, () => false) : null);
}
