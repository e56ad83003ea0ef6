// The data of the page, and what the reader has chosen to see.

const D = JSON.parse(document.getElementById("data").textContent);

const state = { phase: "all", units: { ...D.units }, device: 0, listeners: [] };

/** Call ``listener`` now and whenever a choice changes. */
function watch(listener) {
  state.listeners.push(listener);
  listener();
}

function choose(changes) {
  Object.assign(state, changes);
  for (const listener of state.listeners) listener();
}

const shownPhases = () => (state.phase === "all" ? D.phases : [state.phase]);

// What a cost consists of: columns of lists of costs.
const MATMUL = 0, VECTOR = 1, USEFUL = 2, READ = 3, WRITTEN = 4;

/** One number of a row's costs over the phases that are shown, or over those that are given. */
function amount(costs, row, number, phases = shownPhases()) {
  let found = 0n;
  for (const phase of phases) found += big(costs[phase][number][row]);
  return found;
}

const flops = (costs, row, phases) => amount(costs, row, MATMUL, phases) + amount(costs, row, VECTOR, phases);
const bytes = (costs, row, phases) => amount(costs, row, READ, phases) + amount(costs, row, WRITTEN, phases);

/** The times of a row on the device that is chosen: seconds by bound, and together. */
function times(devices, row, phase = state.phase) {
  const found = devices[state.device];
  if (!found) return null;
  const columns = found[phase] || found.all;
  const [compute, memory, launch] = columns.map((column) => column[row]);
  return { compute, memory, launch, all: compute + memory + launch };
}

/** ``memory``, or ``memory 71%`` where it is not all of the time. */
function boundText(time) {
  if (!time || !time.all) return null;
  const bound = boundOf(time);
  const part = Math.round((100 * time[bound]) / time.all);
  return part === 100 ? bound : `${bound} ${part}%`;
}

const boundOf = (time) => ["compute", "memory", "launch"].reduce((most, one) => (time[one] > time[most] ? one : most));

/** A tree of layers as columns, with the rows below each row. */
class Tree {
  constructor(columns) {
    Object.assign(this, columns);
    this.size = columns.label.length;
    this.below = Array.from({ length: this.size }, () => []);
    columns.parent.forEach((parent, row) => parent >= 0 && this.below[parent].push(row));
  }

  path(row) {
    const found = [];
    for (let at = row; at >= 0; at = this.parent[at]) found.unshift(at);
    return found;
  }
}

const trees = { folded: new Tree(D.layers.folded), every: D.layers.every && new Tree(D.layers.every) };
