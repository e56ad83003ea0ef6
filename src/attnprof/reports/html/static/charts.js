// What the charts share: colours of the theme, and plots that are drawn when they come into view.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A name from the model for Plotly, which reads a few tags in texts. */
const inPlot = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A long name, its end more telling than its middle. */
const short = (text, most = 60) => (text.length <= most ? text : `${text.slice(0, most / 2 - 1)}…${text.slice(-most / 2)}`);

function layout(changes) {
  const text = (name) => ({ family: getComputedStyle(document.body).fontFamily, size: 12, color: colour(name) });
  const axis = { gridcolor: colour("line"), linecolor: colour("edge"), zeroline: false, tickfont: text("muted"), ...changes.axis };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, margin: { l: 64, r: 18, t: 12, b: 46 },
    font: text("text"), hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("edge"), align: "left", font: text("text") },
    ...changes, xaxis: { ...axis, ...changes.xaxis }, yaxis: { ...axis, ...changes.yaxis },
  };
}

const CONFIG = { displayModeBar: false, responsive: true, showTips: false, doubleClick: "reset", scrollZoom: false };

/** Run Plotly, which is in the page as text: its megabytes are read when the first chart comes near, and not before. */
function loadLibrary() {
  if (typeof Plotly === "undefined") document.head.append(el("script", {}, document.getElementById("library").textContent));
}

/** A plot in a box: ``draw()`` gives [traces, layout]. Drawn when first in view, and again on every choice. */
class Plot {
  constructor(label, height, draw) {
    this.box = el("div", { class: "plot", role: "img", "aria-label": label });
    this.box.style.height = `${height}px`;
    Object.assign(this, { make: draw, near: false, ready: false });
    new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting) || this.near) return;
      this.near = true;
      this.draw();
    }, { rootMargin: "200px" }).observe(this.box);
    watch(() => this.draw());
    Plot.all.push(this);
  }

  draw() {
    if (!this.near) return;
    loadLibrary();
    const [traces, shape] = this.make();
    Plotly.react(this.box, traces, shape, CONFIG);
    if (!this.ready && this.on) this.on(this.box);
    this.ready = true;
  }
}
Plot.all = [];

/** Paper is white: printed in the light theme, every chart drawn, seen or not, no wider than A4 between its margins: 180 mm. */
function onPaper(printed) {
  const { dataset } = document.documentElement;
  if (printed && onPaper.before === null) onPaper.before = dataset.theme || "";
  const theme = printed ? "light" : onPaper.before;
  if (theme) dataset.theme = theme;
  else delete dataset.theme;
  if (!printed) onPaper.before = null;
  for (const plot of Plot.all) {
    plot.box.style.maxWidth = printed ? "180mm" : "";
    if (printed) plot.near = true;
    plot.draw();
  }
}
onPaper.before = null; // the theme on the screen, while it prints
window.addEventListener("beforeprint", () => onPaper(true));
window.addEventListener("afterprint", () => onPaper(false));
