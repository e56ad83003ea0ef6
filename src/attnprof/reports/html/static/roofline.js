// The roofline: what a device can do at most, and the layers below it.

const BOUNDS = ["compute", "memory", "launch"];
const HEIGHT = 440;
const MARGINS = { l: 64, r: 18, t: 12, b: 46 };

function roofline() {
  if (!D.devices.length) {
    const command = el("code", {}, "attnprof report run.json --device h100-sxm --html report.html");
    return section("roofline", "Roofline", el("p", { class: "said" }, "No device was named. ", command, " holds a saved run against one."));
  }
  const label = "Attainable FLOP/s over FLOPs per byte. The table of layers has the same numbers, in its columns of time.";
  const plot = new Plot(label, HEIGHT, () => drawRoofline(D.devices[state.device], plot.box.clientWidth));
  const [title, left, table] = [el("p", { class: "said" }), el("p", { class: "note" }), el("div", {})];
  watch(() => {
    const device = D.devices[state.device];
    title.textContent = device.sentence;
    left.textContent = device.panel ? remarks(device.panel) : "";
    table.replaceChildren(longest(device));
  });
  const legend = el("ul", { class: "legend" }, BOUNDS.map((bound) =>
    el("li", {}, el("i", { class: `dot bound-${bound}`, "aria-hidden": "true" }), el("span", {}, `${bound}-bound`))));
  return section("roofline", "Roofline", el("div", { class: "tools" }, deviceChoice(), legend), title, plot.box, left, table, whatIf());
}

/** Buttons of the devices where there are several, in step with the choice in the bar. */
function deviceChoice() {
  if (D.devices.length < 2) return null;
  const options = D.devices.map((device, i) => [String(i), device.id]);
  const choice = segmented("Device", options, String(state.device), (i) => choose({ device: Number(i) }));
  watch(() => {
    for (const button of choice.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.value === String(state.device)));
    }
  });
  return choice;
}

const ofTime = (some) => `${percent(fraction(some), [1n, 1n])}%`;

/** What is not drawn, and how to read what is. */
function remarks(panel) {
  const more = panel.more ? `${counted(panel.more, "smaller point")} not drawn (${ofTime(panel.more_share)} of the time)` : "";
  const help = "The area of a point is its part of the time; drag to zoom, double click to return";
  return `${[panel.left_out, more, help].filter(Boolean).join(". ")}.`;
}

/** The layers that take longest, as a table. */
function longest({ panel }) {
  const rows = (panel ? panel.marks.slice(0, 10) : []).map(([label, intensity, speed, some, time, bound]) =>
    [label, rounded(fraction(intensity)), rate(speed, "flops"), bound, figure(timed(time)), ofTime(some)]);
  const headings = ["what takes longest", "FLOP/B", "at most", "bound", "at best", "of the time"];
  return rows.length ? smallTable("What takes longest", headings, rows) : "";
}

function drawRoofline({ panel, bandwidth }, width) {
  if (!panel) {
    const text = "No bandwidth is known, so there is no roofline.";
    const annotations = [{ text, showarrow: false, font: { color: colour("muted") } }];
    return [[], layout({ annotations, xaxis: { visible: false }, yaxis: { visible: false } })];
  }
  const xs = [...panel.marks.map((mark) => mark[1]), ...panel.roofs.map(([, peak]) => peak / bandwidth)];
  const ys = [...panel.marks.map((mark) => mark[2]), ...panel.roofs.map(([, peak]) => peak)];
  const [low, high] = xs.length ? [Math.min(...xs) / 3, Math.max(...xs) * 8] : [0.1, 1000];
  const ends = {
    x: [low, high].map(Math.log10),
    y: ys.length ? [Math.log10(Math.min(...ys)) - 0.5, Math.log10(Math.max(...ys)) + 0.5] : [9, 12],
  };
  const room = [width - MARGINS.l - MARGINS.r, HEIGHT - MARGINS.t - MARGINS.b];
  return [
    [...panel.roofs.map((roof) => roofTrace(roof, bandwidth, low, high)), ...BOUNDS.map((bound) => markTrace(panel.marks, bound))],
    layout({
      hovermode: "closest", margin: MARGINS, annotations: labels(panel, ends, ...room),
      axis: { type: "log", exponentformat: "SI", dtick: 1 },
      xaxis: { title: { text: "FLOPs per byte of traffic" }, range: ends.x },
      yaxis: { title: { text: "attainable FLOP/s" }, range: ends.y },
    }),
  ];
}

function roofTrace([label, peak], bandwidth, low, high) {
  const ridge = `ridge ${rounded(fraction(peak / bandwidth))} FLOP/B`;
  return {
    type: "scatter", mode: "lines", x: [low, peak / bandwidth, high], y: [low * bandwidth, peak, peak],
    line: { color: colour("edge"), width: 1.5 },
    hovertemplate: `${inPlot(label)}: ${rate(peak, "flops")}<br>${ridge}<extra></extra>`,
  };
}

function markTrace(all, wanted) {
  const marks = all.filter((mark) => mark[5] === wanted);
  return {
    type: "scatter", mode: "markers", x: marks.map((mark) => mark[1]), y: marks.map((mark) => mark[2]),
    marker: {
      size: marks.map((mark) => 7 + 40 * Math.sqrt(mark[3])), opacity: 0.72,
      color: colour(`bound-${wanted}`), line: { width: 1, color: colour("raised") },
    },
    customdata: marks.map(([label, intensity, speed, some, time]) => [
      `<b>${inPlot(short(label, 80))}</b>`,
      `${rounded(fraction(intensity))} FLOP/B, at most ${rate(speed, "flops")}`,
      `${duration(time)} at best, ${ofTime(some)} of the time`,
      `${wanted}-bound`,
    ].join("<br>")),
    hovertemplate: "%{customdata}<extra></extra>",
  };
}

/** The names of the peaks, and of the points that take longest as far as there is room: ``width`` by ``height`` pixels. */
function labels(panel, ends, width, height) {
  const taken = [];
  const made = [];
  const along = (value, [from, to], length) => ((value - from) / (to - from)) * length;
  const put = (text, x, y, right) => {
    const [px, py] = [along(x, ends.x, width), along(y, ends.y, height)];
    const long = 6.4 * text.length + 8;
    const box = right ? [px - long, py, px, py + 16] : [px + 8, py, px + 8 + long, py + 16];
    const meets = (other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3];
    if (box[0] < 0 || box[2] > width + 8 || taken.some(meets)) return;
    taken.push(box);
    made.push({
      x, y, text: inPlot(text), showarrow: false, xanchor: right ? "right" : "left", yanchor: "bottom",
      xshift: right ? 0 : 8, font: { size: 11, color: colour("muted") },
    });
  };
  for (const [label, peak] of panel.roofs) put(`${label} ${rate(peak, "flops")}`, ends.x[1], Math.log10(peak), true);
  for (const [label, x, y] of panel.marks.slice(0, 30)) put(short(label, 32), Math.log10(x), Math.log10(y), false);
  return made;
}
