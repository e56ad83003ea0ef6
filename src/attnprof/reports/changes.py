"""Two runs side by side: totals before and after, the modules and the ops that changed, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from attnprof.analysis.budget_changes import Change, Changes
from attnprof.core.units import Units
from attnprof.reports import budget as words
from attnprof.reports.text import in_markdown, printable, shortened, width_of_terminal, wrapped

Operators = Sequence[tuple[str, Change, Change]]
#: Rows of modules and of ops that are shown, the largest changes.
MOST = 12
_SAME = "Both runs cost the same: every module, in every phase."


def to_text(changes: Changes, operators: Operators, most: int | None = MOST) -> str:
    """What changed, for a terminal."""
    width = width_of_terminal()
    headings, sides = ["", "before", "after", "change"], ("left", "right", "right", "right")
    lines = [tabulate(_totals(changes), headings, tablefmt="plain", disable_numparse=True, colalign=sides)]
    if not changes:
        lines += ["", _SAME]
    if changes.modules:
        lines += ["", f"modules that changed, without those in them{_of(len(changes.modules), most)}"]
        lines += [shortened(f"  {line}", width) for line in words.module_changes(changes, most)]
    if operators:
        lines += ["", f"ops that changed{_of(len(operators), most)}"]
        rows = [["", shortened(printable(op), 50), *_op_cells(flops, moved)] for op, flops, moved in operators[:most]]
        lines += tabulate(rows, tablefmt="plain", disable_numparse=True).splitlines()
    lines += [f"  {line}" for line in words.other_changes(changes) if "formula" in line]
    for line in words.environment(changes):
        lines += ["", *wrapped(f"Not the same circumstances: {line}.", width)]
    return "\n".join(lines)


def to_markdown(changes: Changes, operators: Operators, most: int | None = MOST) -> str:
    """What changed, for a comment on a pull request."""
    parts = [_grid(["", "before", "after", "change"], _totals(changes))]
    if not changes:
        parts.append(_SAME)
    if changes.modules:
        rows = [list(words.module_row(change)) for change in changes.modules[:most]]
        parts += [
            f"**Modules that changed**, without those in them{_of(len(changes.modules), most)}",
            _grid(["module", "phase", "before → after", "op"], rows),
        ]
    if operators:
        rows = [[op, *_op_cells(flops, moved)] for op, flops, moved in operators[:most]]
        parts += [f"**Ops that changed**{_of(len(operators), most)}", _grid(["op", "FLOPs", "bytes"], rows)]
    parts += [in_markdown(line) for line in words.other_changes(changes) if "formula" in line]
    parts += [in_markdown(f"Not the same circumstances: {line}.") for line in words.environment(changes)]
    return "\n\n".join(parts) + "\n"


def _totals(changes: Changes) -> list[list[str]]:
    rows = []
    for quantity in ("flops", *(change.name for change in changes.totals)):
        change = changes.total(quantity)
        kind = words.kind_of(quantity)
        units = Units(exact=_is_close(change))
        cells = [units.named(value, kind) for value in (change.before, change.after)]
        rows.append([words.words(quantity), *cells, words.percent(change.delta, change.before) or _none(change)])
    return rows


def _is_close(change: Change) -> bool:
    """Whether the two would look the same in short."""
    units = Units()
    texts = {units.named(value, words.kind_of(change.name)) for value in (change.before, change.after)}
    return bool(change.delta) and len(texts) == 1


def _none(change: Change) -> str:
    return "new" if change.delta else "same"


def _op_cells(flops: Change, moved: Change) -> list[str]:
    return [words.arrow(change) if change.delta else "same" for change in (flops, moved)]


def _of(count: int, most: int | None) -> str:
    return "" if most is None or count <= most else f" (the largest {most} of {count})"


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" if heading in ("before", "after", "change") else "---" for heading in headings[1:])]
    body = [[in_markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [list(headings), rule, *body])
