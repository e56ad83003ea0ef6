// A table of any length: only the rows in view are elements. Sortable, and a tree where rows have rows below them.

const OVERSCAN = 12;
const PRINTED = 500;
const SCREENFUL = 40; // as on a terminal

/**
 * ``columns``: {key, title, hint, width, value(row), cell(row), text}; the first is the label, with the tree in it.
 * ``value`` is what rows are sorted by, ``cell`` what is shown: text, [number, unit], an element, or null.
 * ``roots()`` and ``below(row)`` give rows, which are any values; ``key(row)`` names one.
 */
class Grid {
  constructor(options) {
    Object.assign(this, { sort: null, descending: true, opened: new Set(), active: null, shown: null }, options);
    this.rowHeight = window.matchMedia("(pointer: coarse)").matches ? 42 : 30;
    this.id = `grid-${this.name}`;
    this.head = el("tr", { role: "row" });
    this.widths = el("colgroup");
    this.body = el("tbody", { role: "rowgroup" });
    this.table = el(
      "table",
      {
        class: "grid", role: this.tree ? "treegrid" : "grid", id: this.id, tabindex: "0", "aria-label": this.label,
        onkeydown: (event) => this.press(event),
        onclick: (event) => this.clicked(event), ondblclick: (event) => this.opensOnce(event),
      },
      this.widths,
      el("thead", { role: "rowgroup" }, this.head),
      this.body,
    );
    this.box = el("div", { class: "gridbox", onscroll: () => this.draw() }, this.table);
    window.addEventListener("beforeprint", () => this.draw(true));
    window.addEventListener("afterprint", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Show these columns; sorted by one that is gone, rows return to their own order. */
  setColumns(columns) {
    this.columns = columns;
    if (!columns.some((column) => column.key === this.sort)) this.sort = null;
    this.refresh();
  }

  /** Open level after level, as long as all rows fit on about a screen. */
  openScreenful() {
    let level = this.roots();
    let rows = level.length;
    while (level.length) {
      const next = level.flatMap((row) => this.below(row));
      if (rows + next.length > SCREENFUL) return;
      for (const row of level) if (this.below(row).length) this.opened.add(this.key(row));
      rows += next.length;
      level = next;
    }
  }

  /** Work out the rows again, and draw. */
  refresh() {
    this.rows = [];
    const column = this.columns.find((one) => one.key === this.sort);
    const order = (rows) => {
      const kept = this.shown ? rows.filter((row) => this.shown.has(this.key(row))) : rows;
      if (!column) return kept;
      const values = new Map(kept.map((row) => [row, column.value(row)]));
      const sign = this.descending ? -1 : 1;
      return [...kept].sort((a, b) => sign * compare(values.get(a), values.get(b), sign));
    };
    const stack = [];
    const push = (rows, level) => {
      const ordered = order(rows);
      for (let i = ordered.length - 1; i >= 0; i -= 1) stack.push([ordered[i], level, i + 1, ordered.length]);
    };
    push(this.roots(), 1);
    while (stack.length) {
      const [row, level, position, size] = stack.pop();
      const inner = this.below ? this.below(row) : [];
      const open = inner.length > 0 && (this.opened.has(this.key(row)) || Boolean(this.shown && this.shown.opens(this.key(row))));
      this.rows.push({ row, level, position, size, open, inner: inner.length });
      if (open) push(inner, level + 1);
    }
    if (this.active === null || !this.rows.some(({ row }) => this.key(row) === this.active)) {
      this.active = this.rows.length ? this.key(this.rows[0].row) : null;
    }
    this.drawHead();
    this.draw();
  }

  drawHead() {
    const first = Math.min(this.columns[0].width, Math.max(128, 0.33 * window.innerWidth)); // numbers beside it, on a phone too
    const wide = this.columns.reduce((all, column, i) => all + (i ? column.width : first), 0);
    this.table.style.minWidth = `${wide}px`;
    this.widths.replaceChildren(
      ...this.columns.map((column, i) => {
        const made = el("col");
        if (i) made.style.width = `${column.width}px`;
        return made;
      }),
    );
    this.head.replaceChildren(
      ...this.columns.map((column) => {
        const sorted = column.key === this.sort;
        const button = el(
          "button",
          { type: "button", title: column.hint || null, "data-sort": column.key, onclick: () => this.sortBy(column) },
          column.title,
          el("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (this.descending ? "↓" : "↑") : ""),
        );
        const direction = sorted ? (this.descending ? "descending" : "ascending") : "none";
        return el("th", { scope: "col", role: "columnheader", class: column.text ? "" : "n", "aria-sort": direction }, button);
      }),
    );
    this.table.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.table.setAttribute("aria-colcount", String(this.columns.length));
  }

  /** Largest first, then smallest first, then the rows' own order. */
  sortBy(column) {
    const first = !column.text;
    if (this.sort !== column.key) [this.sort, this.descending] = [column.key, first];
    else if (this.descending === first) this.descending = !first;
    else this.sort = null;
    this.refresh();
    this.head.querySelector(`[data-sort="${column.key}"]`).focus();
  }

  /** Draw the rows in view, or for paper as many as a person would turn pages for. */
  draw(all = false) {
    const height = this.rowHeight;
    const first = all ? 0 : Math.max(0, Math.floor(this.box.scrollTop / height) - OVERSCAN);
    const room = Math.ceil((this.box.clientHeight || 600) / height) + 2 * OVERSCAN;
    const last = Math.min(this.rows.length, all ? PRINTED : first + room);
    const start = Math.min(first, Math.max(0, last - 1));
    const filler = (rows) => {
      const made = el("tr", { class: "filler", "aria-hidden": "true" }, el("td", { colspan: String(this.columns.length) }));
      made.style.height = `${rows * height}px`;
      return made;
    };
    const drawn = [];
    for (let i = start; i < last; i += 1) drawn.push(this.drawRow(this.rows[i], i));
    if (start > 0) drawn.unshift(filler(start));
    if (last < this.rows.length) drawn.push(filler(this.rows.length - last));
    this.body.replaceChildren(...drawn);
    const active = this.body.querySelector(".active");
    if (active) this.table.setAttribute("aria-activedescendant", active.id);
    else this.table.removeAttribute("aria-activedescendant");
  }

  drawRow(entry, index) {
    const { row, level, position, size, open, inner } = entry;
    const key = this.key(row);
    const cells = this.columns.map((column, i) => {
      const content = column.cell(row);
      const shown = content === null || content === undefined ? "–" : isFigure(content) ? figure(content) : content;
      const attributes = { class: column.text ? "t" : "n", title: column.full ? column.full(row) : null, "data-column": column.key };
      if (i) return el("td", { role: "gridcell", ...attributes }, shown);
      const twisty = el("span", { class: `twisty ${inner ? (open ? "open" : "shut") : ""}`, "aria-hidden": "true" });
      const label = el("th", { scope: "row", role: "rowheader", ...attributes }, this.tree ? twisty : null, el("span", { class: "label" }, shown));
      if (this.tree) label.style.setProperty("--level", String(level - 1));
      return label;
    });
    const marks = [key === this.active ? "active" : "", this.mark ? this.mark(row) : ""];
    const made = el(
      "tr",
      {
        role: "row", id: `${this.id}-${index}`, class: marks.filter(Boolean).join(" ") || null,
        "data-index": String(index), "aria-rowindex": String(index + 2),
        "aria-level": this.tree ? String(level) : null, "aria-posinset": String(position), "aria-setsize": String(size),
        "aria-expanded": inner ? String(open) : null, "aria-selected": this.tree ? String(key === this.active) : null,
      },
      cells,
    );
    made.style.height = `${this.rowHeight}px`;
    return made;
  }

  // Keys and clicks

  position() {
    return this.rows.findIndex(({ row }) => this.key(row) === this.active);
  }

  /** Make a row the active one, and scroll to it. */
  go(index) {
    if (index < 0 || index >= this.rows.length) return;
    this.active = this.key(this.rows[index].row);
    const [top, head] = [index * this.rowHeight, this.head.offsetHeight];
    const room = this.box.clientHeight - head - this.rowHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
    this.draw();
  }

  open(index, wanted) {
    const { row, inner } = this.rows[index];
    if (!inner) return;
    if (wanted) this.opened.add(this.key(row));
    else this.opened.delete(this.key(row));
    this.refresh();
  }

  press(event) {
    if (event.target !== this.table || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.position();
    const entry = this.rows[at];
    if (!entry) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight) - 2);
    const last = this.rows.length - 1;
    const moves = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.min(at + page, last), PageUp: Math.max(at - page, 0), Home: 0, End: last,
    };
    if (event.key in moves) this.go(moves[event.key]);
    else if (event.key === "ArrowRight" && entry.inner) entry.open ? this.go(at + 1) : this.open(at, true);
    else if (event.key === "ArrowLeft" && entry.open) this.open(at, false);
    else if (event.key === "ArrowLeft" && entry.level > 1) this.go(this.above(at));
    else if ((event.key === "Enter" || event.key === " ") && entry.inner) this.open(at, !entry.open);
    else if (!["ArrowRight", "ArrowLeft"].includes(event.key)) return;
    event.preventDefault();
  }

  above(at) {
    let found = at - 1;
    while (this.rows[found].level >= this.rows[at].level) found -= 1;
    return found;
  }

  clicked(event) {
    const drawn = event.target.closest("tr[data-index]");
    if (!drawn) return;
    const index = Number(drawn.dataset.index);
    this.active = this.key(this.rows[index].row);
    if (event.target.closest(".twisty")) this.open(index, !this.rows[index].open);
    else this.draw();
    this.table.focus({ preventScroll: true });
  }

  opensOnce(event) {
    const drawn = event.target.closest("tr[data-index]");
    if (drawn && !event.target.closest(".twisty")) this.open(Number(drawn.dataset.index), !this.rows[Number(drawn.dataset.index)].open);
  }
}

const isFigure = (content) => Array.isArray(content) && content.length === 2;

/** Numbers, texts and nothing in order; nothing comes last whatever the direction is. */
function compare(a, b, sign) {
  const [none, other] = [a === null || a === undefined, b === null || b === undefined];
  if (none || other) return none === other ? 0 : sign * (none ? 1 : -1);
  if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
  return a < b ? -1 : a > b ? 1 : 0;
}
