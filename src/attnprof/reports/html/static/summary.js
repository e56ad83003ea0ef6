// The top of the page: what ran, what a reader must know, and the answer in a few figures.

function header() {
  document.getElementById("top").append(
    el("p", { class: "kicker" }, "attnprof report"),
    el("h1", {}, D.title),
    el("p", { class: "subject" }, D.subject.join(" · ")),
  );
}

/** What is missing or odd comes before any number. */
function warnings() {
  const found = [];
  if (D.unpriced_sentence.length) {
    found.push(el("div", { class: "warning strong", role: "note" }, el("strong", {}, "Not everything has a price. "), D.unpriced_sentence,
      " ", el("a", { href: "#unpriced" }, "See the ops.")));
  }
  if (D.notes.length) {
    const said = D.notes.length === 1 ? D.notes[0] : el("ul", {}, D.notes.map((text) => el("li", {}, text)));
    found.push(el("div", { class: "warning", role: "note" }, said));
  }
  return found;
}

function tiles() {
  const box = el("div", { class: "tiles" });
  watch(() => box.replaceChildren(...[flopTile(), byteTile(), memoryTile(), timeTile(), theoryTile(), coverageTile()].filter(Boolean)));
  return box;
}

function tile(title, value, hint, ...rest) {
  return el("article", { class: "tile", "data-tile": title }, el("h3", {}, title), el("p", { class: "big", title: hint || null }, value), rest);
}

const note = (...text) => el("p", { class: "note" }, text);

/** One kind of work by phase, as a bar with its legend; nothing for one phase alone. */
function byPhase(of, kind) {
  const phases = D.phases.filter((phase) => of(phase));
  if (phases.length < 2) return phases.length ? note(LABELS[phases[0]]) : null;
  return partsBar(phases.map((phase) => [LABELS[phase], Number(of(phase)), `phase-${phase}`, named(of(phase), kind, state.units)]));
}

function flopTile() {
  const [total, vector] = [big(D.total[MATMUL]), big(D.total[VECTOR])];
  const masked = big(D.total[USEFUL]) === total ? null : note(`Without masked pairs ${named(D.total[USEFUL], "matmul", state.units)} (${percent(big(D.total[USEFUL]), total)}%).`);
  const name = state.units.macs ? "Matmul multiply-adds" : "Matmul FLOPs";
  return tile(name, named(total, "matmul", state.units), inFull(total, "matmul", state.units),
    byPhase((phase) => big(D.costs[phase][MATMUL]), "matmul"), note(`+ ${named(vector, "flops", state.units)} of other arithmetic.`), masked);
}

function byteTile() {
  const moved = (cost) => big(cost[READ]) + big(cost[WRITTEN]);
  const total = moved(D.total);
  const intensity = perByte(big(D.total[MATMUL]) + big(D.total[VECTOR]), total);
  return tile("Bytes moved", named(total, "bytes", state.units), inFull(total, "bytes", state.units), byPhase((phase) => moved(D.costs[phase]), "bytes"),
    note(`Read ${named(D.total[READ], "bytes", state.units)}, written ${named(D.total[WRITTEN], "bytes", state.units)}${intensity === null ? "" : `: ${intensity} FLOP/B`}.`));
}

function memoryTile() {
  if (!D.memory) return tile("Peak memory", "–", null, note("Memory was not tracked."));
  const { peak } = D.memory;
  const parts = Object.entries(peak.kinds).map(([kind, size]) => [kind, Number(size), `kind-${kind}`, named(size, "bytes", state.units)]);
  return tile("Peak memory", named(peak.bytes, "bytes", state.units), inFull(peak.bytes, "bytes", state.units), partsBar(parts), note(`${peak.where[0].toUpperCase()}${peak.where.slice(1)}.`));
}

function timeTile() {
  const device = D.devices[state.device];
  if (!device) return null;
  const [compute, memory, launch] = device.time;
  const all = compute + memory + launch;
  const parts = [["compute", compute], ["memory", memory], ["launch", launch]].map(([name, size]) => [`${name}-bound`, size, `bound-${name}`, duration(size)]);
  return tile(`At best on ${device.id}`, all ? `${device.incomplete ? "> " : ""}${duration(all)}` : "–", all ? `${all} s` : null, partsBar(parts),
    device.fused === null ? null : note(`With perfect fusion of each module ${duration(device.fused)}.`), device.fits ? note(`${device.fits}.`) : null);
}

function theoryTile() {
  if (!D.theory) return null;
  const matmul = D.theory.residual.map(big).filter((_, i) => D.theory.quantity[i] === "matmul_flops" && D.theory.root[i]);
  const residual = sum(matmul);
  const rows = D.theory.residual.filter((value) => big(value)).length;
  return tile("Residual to theory", named(residual, "matmul", state.units), inFull(residual, "matmul", state.units),
    note(`${counted(D.theory.predicted_modules, "module")} of ${exactly(fraction(D.theory.modules))} predicted; ${rows ? counted(rows, "comparison differs", "comparisons differ") : "all comparisons agree"}.`));
}

function coverageTile() {
  const { priced, free, unpriced } = D.coverage.counts;
  const total = priced + free + unpriced;
  const parts = [["priced", priced, "verdict-priced"], ["free", free, "verdict-free"], ["unpriced", unpriced, "verdict-unpriced"]];
  const share = total ? percent(big(total - unpriced), big(total)) : "100";
  return tile("Coverage", `${share}%`, `${exactly(fraction(total - unpriced))} of ${exactly(fraction(total))} op calls`,
    partsBar(parts.map(([name, count, kind]) => [name, count, kind, exactly(fraction(count))])),
    note(`${counted(total, "op call")}${unpriced ? `; ${(100 * D.coverage.traffic).toFixed(1)}% of traffic` : ""}.`));
}

/** Totals by phase, as the terminal has them, and the sentences that sum up the run. */
function totals() {
  const box = el("div", {});
  watch(() => {
    const device = D.devices[state.device];
    const rows = D.phases.map((phase) => [LABELS[phase], D.costs[phase], device && device.phases[phase]]);
    if (rows.length > 1) rows.push(["total", D.total, device && device.time]);
    const table = rows.map(([name, cost, time]) => {
      const [work, moved] = [big(cost[MATMUL]) + big(cost[VECTOR]), big(cost[READ]) + big(cost[WRITTEN])];
      const at = time && { compute: time[0], memory: time[1], launch: time[2], all: time[0] + time[1] + time[2] };
      const cell = (value, kind) => figure(measure(value, kind, state.units), { title: inFull(value, kind, state.units) });
      return [name, cell(cost[MATMUL], "matmul"), cell(cost[VECTOR], "flops"), cell(cost[READ], "bytes"), cell(cost[WRITTEN], "bytes"), perByte(work, moved),
        ...(time ? [boundText(at), figure(timed(at.all))] : [])];
    });
    const heads = ["phase", `matmul ${unitOf("matmul", state.units)}`, "vector FLOP", "read", "written", "FLOP/B", ...(device ? ["bound", `at best on ${device.id}`] : [])];
    const said = [D.training, ...D.pace].filter(Boolean);
    box.replaceChildren(rows.length ? smallTable("Totals by phase", heads, table) : el("p", {}, "No op with a cost ran."), ...sentences(said));
  });
  return section("totals", "Totals", box);
}
