// The roofline: what a device can do at most, and the layers below it.

function roofline() {
  if (!D.devices.length) {
    return section("roofline", "Roofline", el("p", { class: "said" }, "No device was named. ", el("code", {}, "attnprof report run.json --device h100-sxm --html report.html"), " holds a saved run against one."));
  }
  const table = el("div", {});
  const title = el("p", { class: "said" });
  const left = el("p", { class: "note" });

  const plot = new Plot("Attainable FLOP/s over FLOPs per byte. The table of layers has the same numbers, in its columns of time.", 440, () => {
    const { panel, bandwidth } = D.devices[state.device];
    if (!panel) return [[], layout({ annotations: [{ text: "No bandwidth is known, so there is no roofline.", showarrow: false, font: { color: colour("muted") } }], xaxis: { visible: false }, yaxis: { visible: false } })];
    const xs = [...panel.marks.map((mark) => mark[1]), ...panel.roofs.map(([, peak]) => peak / bandwidth)];
    const [low, high] = xs.length ? [Math.min(...xs) / 3, Math.max(...xs) * 8] : [0.1, 1000];
    const roofs = panel.roofs.map(([label, peak]) => ({
      type: "scatter", mode: "lines", x: [low, peak / bandwidth, high], y: [low * bandwidth, peak, peak], line: { color: colour("edge"), width: 1.5 },
      hovertemplate: `${inPlot(label)}: ${rate(peak, "flops")}<br>ridge ${rounded(fraction(peak / bandwidth))} FLOP/B<extra></extra>`,
    }));
    const groups = ["compute", "memory", "launch"].map((bound) => {
      const marks = panel.marks.filter((mark) => mark[5] === bound);
      return {
        type: "scatter", mode: "markers", x: marks.map((mark) => mark[1]), y: marks.map((mark) => mark[2]),
        marker: { size: marks.map((mark) => 7 + 40 * Math.sqrt(mark[3])), color: colour(`bound-${bound}`), opacity: 0.72, line: { width: 1, color: colour("raised") } },
        customdata: marks.map(([label, intensity, speed, some, time]) =>
          `<b>${inPlot(short(label, 80))}</b><br>${rounded(fraction(intensity))} FLOP/B, at most ${rate(speed, "flops")}<br>${duration(time)} at best, ${percent(fraction(some), [1n, 1n])}% of the time<br>${bound}-bound`),
        hovertemplate: "%{customdata}<extra></extra>",
      };
    });
    const heights = [...panel.marks.map((mark) => mark[2]), ...panel.roofs.map(([, peak]) => peak)];
    const ends = { x: [low, high].map(Math.log10), y: heights.length ? [Math.log10(Math.min(...heights)) - 0.5, Math.log10(Math.max(...heights)) + 0.5] : [9, 12] };
    return [[...roofs, ...groups], layout({
      hovermode: "closest", annotations: labels(panel, ends, plot.box.clientWidth - 82, 382), axis: { type: "log", exponentformat: "SI", dtick: 1 },
      xaxis: { title: { text: "FLOPs per byte of traffic" }, range: ends.x }, yaxis: { title: { text: "attainable FLOP/s" }, range: ends.y },
    })];
  });

  watch(() => {
    const device = D.devices[state.device];
    const marks = device.panel ? device.panel.marks.slice(0, 10) : [];
    title.textContent = device.sentence;
    const more = device.panel && device.panel.more ? [`${counted(device.panel.more, "smaller point")} not drawn (${percent(fraction(device.panel.more_share), [1n, 1n])}% of the time)`] : [];
    left.textContent = device.panel ? [device.panel.left_out, ...more, "The area of a point is its part of the time; drag to zoom, double click to return"].filter(Boolean).join(". ") + "." : "";
    const rows = marks.map(([label, intensity, speed, some, time, bound]) => [label, rounded(fraction(intensity)), rate(speed, "flops"), bound, figure(timed(time)), `${percent(fraction(some), [1n, 1n])}%`]);
    table.replaceChildren(rows.length ? smallTable("What takes longest", ["what takes longest", "FLOP/B", "at most", "bound", "at best", "of the time"], rows) : "");
  });
  const legend = el("ul", { class: "legend" }, ["compute", "memory", "launch"].map((bound) => el("li", {}, el("i", { class: `dot bound-${bound}`, "aria-hidden": "true" }), el("span", {}, `${bound}-bound`))));
  const choice = D.devices.length > 1 ? segmented("Device", D.devices.map((device, i) => [String(i), device.id]), String(state.device), (i) => choose({ device: Number(i) })) : null;
  watch(() => choice && choice.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === String(state.device)))));
  return section("roofline", "Roofline", el("div", { class: "tools" }, choice, legend), title, plot.box, left, table, whatIf());
}

/** The names of the peaks, and of the points that take longest as far as there is room: ``width`` by ``height`` pixels. */
function labels(panel, ends, width, height) {
  const taken = [];
  const made = [];
  const put = (text, x, y, right) => {
    const [px, py] = [((x - ends.x[0]) / (ends.x[1] - ends.x[0])) * width, ((y - ends.y[0]) / (ends.y[1] - ends.y[0])) * height];
    const long = 6.4 * text.length + 8;
    const box = right ? [px - long, py, px, py + 16] : [px + 8, py, px + 8 + long, py + 16];
    const inside = box[0] >= 0 && box[2] <= width + 8;
    if (!inside || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) return;
    taken.push(box);
    made.push({ x, y, text: inPlot(text), showarrow: false, xanchor: right ? "right" : "left", yanchor: "bottom", xshift: right ? 0 : 8, font: { size: 11, color: colour("muted") } });
  };
  for (const [label, peak] of panel.roofs) put(`${label} ${rate(peak, "flops")}`, ends.x[1], Math.log10(peak), true);
  for (const [label, x, y] of panel.marks.slice(0, 30)) put(short(label, 32), Math.log10(x), Math.log10(y), false);
  return made;
}
