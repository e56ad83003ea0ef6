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

const written = (value, kind) => named(value, kind, state.units);

/** A tile of one number, with every digit on hover. */
const numberTile = (title, value, kind, ...rest) => tile(title, written(value, kind), inFull(value, kind, state.units), rest);

/** One kind of work by phase, as a bar with its legend; the phase alone where there is but one. */
function byPhase(of, kind) {
  const phases = D.phases.filter((phase) => of(D.costs[phase]));
  if (phases.length < 2) return phases.length ? note(phases[0]) : null;
  return partsBar(phases.map((phase) => [phase, Number(of(D.costs[phase])), `phase-${phase}`, written(of(D.costs[phase]), kind)]));
}

const matmulOf = (cost) => big(cost[MATMUL]);
const movedBy = (cost) => big(cost[READ]) + big(cost[WRITTEN]);
const workOf = (cost) => big(cost[MATMUL]) + big(cost[VECTOR]);

function flopTile() {
  const [total, useful] = [matmulOf(D.total), big(D.total[USEFUL])];
  const masked = `Without masked pairs ${written(useful, "matmul")} (${percent(useful, total)}%).`;
  return numberTile(state.units.macs ? "Matmul multiply-adds" : "Matmul FLOPs", total, "matmul", byPhase(matmulOf, "matmul"),
    note(`+ ${written(D.total[VECTOR], "flops")} of other arithmetic.`), useful === total ? null : note(masked));
}

function byteTile() {
  const intensity = perByte(workOf(D.total), movedBy(D.total));
  const parts = `Read ${written(D.total[READ], "bytes")}, written ${written(D.total[WRITTEN], "bytes")}`;
  return numberTile("Bytes moved", movedBy(D.total), "bytes", byPhase(movedBy, "bytes"),
    note(`${parts}${intensity === null ? "" : `: ${intensity} FLOP/B`}.`));
}

function memoryTile() {
  if (!D.memory) return tile("Peak memory", "–", null, note("Memory was not tracked."));
  const { peak } = D.memory;
  const parts = Object.entries(peak.kinds).map(([kind, size]) => [kind, Number(size), `kind-${kind}`, written(size, "bytes")]);
  const where = `${peak.where[0].toUpperCase()}${peak.where.slice(1)}.`;
  return numberTile("Peak memory", peak.bytes, "bytes", partsBar(parts), note(where));
}

function timeTile() {
  const device = D.devices[state.device];
  if (!device) return null;
  const all = device.time.reduce((a, b) => a + b, 0);
  const parts = ["compute", "memory", "launch"].map((bound, i) => [`${bound}-bound`, device.time[i], `bound-${bound}`, duration(device.time[i])]);
  return tile(`At best on ${device.id}`, all ? `${device.incomplete ? "> " : ""}${duration(all)}` : "–", all ? `${all} s` : null,
    partsBar(parts),
    device.fused === null ? null : note(`With perfect fusion of each module ${duration(device.fused)}.`),
    device.fits ? note(`${device.fits}.`) : null);
}

/** What a comparison is off by where theory has a formula: what no formula covers contradicts nothing. */
const deviation = (row) => big(D.theory.residual[row]) - big(D.theory.uncovered[row]);

function theoryTile() {
  const { theory: table } = D;
  if (!table) return null;
  const whole = table.residual.map((_, i) => i).filter((i) => table.quantity[i] === "matmul_flops" && table.root[i]);
  const uncovered = sum(whole.map((i) => big(table.uncovered[i])));
  const differ = table.residual.filter((_, i) => deviation(i)).length;
  const agreement = differ ? counted(differ, "comparison differs", "comparisons differ") : "no comparison differs";
  return numberTile("Residual to theory", sum(whole.map(deviation)), "matmul",
    note(`${counted(table.predicted_modules, "module")} of ${exactly(fraction(table.modules))} predicted; ${agreement}.`),
    uncovered ? note(`Not predicted, for want of a formula: ${written(uncovered, "matmul")}.`) : null);
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
  const cell = (value, kind) => figure(measure(value, kind, state.units), { title: inFull(value, kind, state.units) });
  function row([name, cost, time]) {
    const work = [cell(cost[MATMUL], "matmul"), cell(cost[VECTOR], "flops"), cell(cost[READ], "bytes"), cell(cost[WRITTEN], "bytes")];
    if (!time) return [name, ...work, perByte(workOf(cost), movedBy(cost))];
    const [compute, memory, launch] = time;
    const at = { compute, memory, launch, all: compute + memory + launch };
    return [name, ...work, perByte(workOf(cost), movedBy(cost)), boundText(at), figure(timed(at.all))];
  }
  watch(() => {
    const device = D.devices[state.device];
    const rows = D.phases.map((phase) => [phase, D.costs[phase], device && device.phases[phase]]);
    if (rows.length > 1) rows.push(["total", D.total, device && device.time]);
    const headings = ["phase", `matmul ${unitOf("matmul", state.units)}`, "vector FLOP", "read", "written", "FLOP/B"];
    if (device) headings.push("bound", `at best on ${device.id}`);
    const table = rows.length ? smallTable("Totals by phase", headings, rows.map(row)) : el("p", {}, "No op with a cost ran.");
    box.replaceChildren(table, ...sentences([D.training, ...D.pace].filter(Boolean)));
  });
  return section("totals", "Totals", box);
}
