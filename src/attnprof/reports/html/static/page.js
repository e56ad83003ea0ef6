// The page: its sections in order, and the bar with the choices that hold for all of them.

const THEMES = ["auto", "light", "dark"];

function bar(sections) {
  const links = el("ul", {}, sections.map((one) => el("li", {}, el("a", { href: `#${one.id}` }, one.dataset.title))));
  const units = [["decimal", "kB, MB"], ["binary", "KiB, MiB"], ["exact", "every digit"]];
  const chosen = D.units.exact ? "exact" : D.units.binary ? "binary" : "decimal";
  const setUnits = (word) => choose({ units: { ...state.units, exact: word === "exact", binary: word === "binary" } });
  const setMacs = (word) => choose({ units: { ...state.units, macs: word === "mac" } });
  const phases = [["all", "all"], ...D.phases.map((phase) => [phase, phase])];
  const devices = D.devices.map((one, i) => [String(i), one.id]);
  const device = devices.length > 1 ? select("Device", devices, "0", (i) => choose({ device: Number(i) })) : null;
  watch(() => device && (device.querySelector("select").value = String(state.device)));
  document.getElementById("bar").append(
    links,
    el("div", { class: "choices" },
      D.phases.length > 1 ? select("Phase", phases, "all", (phase) => choose({ phase })) : null,
      device,
      select("Units", units, chosen, setUnits),
      select("Count", [["flop", "FLOPs"], ["mac", "MACs"]], D.units.macs ? "mac" : "flop", setMacs),
      select("Theme", THEMES.map((theme) => [theme, theme]), "auto", setTheme)),
  );
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  for (const plot of Plot.all) plot.draw();
}

function start() {
  header();
  const main = document.getElementById("main");
  const sections = [totals(), layers(), shares(), roofline(), memory(), steps(), ops(), theory(), crosschecks(), unpriced(), about()].filter(Boolean);
  main.append(...warnings(), tiles(), el("p", { class: "conventions" }, D.conventions.join(" · ")), ...sections);
  bar(sections);
  document.getElementById("end").append(el("p", {}, D.coverage.sentence, ". Made by attnprof; this file loads nothing from anywhere."));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Plot.all.forEach((plot) => plot.draw()));
}

start();
