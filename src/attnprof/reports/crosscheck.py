"""Other counters' numbers beside ours: a table of layers for each, its differences by cause, and why in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from attnprof.analysis.report import PHASES, Report
from attnprof.core.crosscheck import KINDS, Cause, CheckedModule, Crosscheck, Kind, Part
from attnprof.core.units import Units
from attnprof.reports import rows as tree_rows
from attnprof.reports.columns import Column
from attnprof.reports.fitted import fitted
from attnprof.reports.latex import in_latex, tabular
from attnprof.reports.names import called
from attnprof.reports.rows import Branch, Row
from attnprof.reports.text import in_markdown, printable, wrapped
from attnprof.reports.view import View

#: Ops, and modules, that a sentence names before it counts the rest.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One row: numbers of a module, or of several that are folded, in FLOPs but for ``said``."""

    label: str
    art: str
    ours: int
    said: int
    theirs: int
    kinds: dict[Kind, int]

    @property
    def difference(self) -> int:
        return self.theirs - self.ours


def blocks(report: Report, view: View, width: int) -> list[str]:
    """For each counter its table and the sentences that explain it; nothing where none was asked."""
    if view.by in ("memory", "time"):
        return []
    return [line for check in report.crosschecks for line in _block(report, check, view, width)]


def _block(report: Report, check: Crosscheck, view: View, width: int) -> list[str]:
    text = [part for sentence in title(report, check) for part in wrapped(printable(sentence), width)]
    if check.modules:
        found, hidden = lines(report, check, view)
        text += fitted("layer", [line.art + line.label for line in found], layouts(check, found, view.units), width)
        if hidden:
            text.append(f"{hidden} deeper {'level' if hidden == 1 else 'levels'} not shown: use --depth.")
    for sentence in sentences(report, check, view.units):
        text += wrapped(printable(sentence), width)
    return [*text, ""]


def to_markdown(report: Report, view: View) -> list[str]:
    """For each counter the parts of a Markdown text."""
    parts = []
    for check in report.crosschecks:
        first, *more = title(report, check)
        parts += [f"**{in_markdown(first)}**", *map(in_markdown, more)]
        if check.modules:
            found, _ = lines(report, check, view)
            columns = layouts(check, found, view.units)[0]
            labels = [in_markdown(line.art + line.label) for line in found]
            body = zip(labels, *([cell.strip() for cell in c.cells] for c in columns), strict=True)
            table = tabulate(
                list(body),
                ["layer", *_headings(columns)],
                tablefmt="pipe",
                disable_numparse=True,
                preserve_whitespace=True,
                colalign=("left", *("right" for _ in columns)),
            )
            parts.append(table)
        parts.append("\n".join(f"- {in_markdown(sentence)}" for sentence in sentences(report, check, view.units)))
    return parts


def to_latex(report: Report, view: View) -> list[str]:
    """For each counter a ``tabular``, with the sentences as comments."""
    parts = []
    for check in report.crosschecks:
        around = (*title(report, check), *sentences(report, check, view.units))
        parts += [f"% {printable(sentence)}" for sentence in around]
        if check.modules:
            found, _ = lines(report, check, view)
            columns = layouts(check, found, view.units)[0]
            labels = [r"\quad " * (len(line.art) // 3) + in_latex(line.label) for line in found]
            cells = ([in_latex(cell.strip()) for cell in c.cells] for c in columns)
            parts.append(tabular(["layer", *map(in_latex, _headings(columns))], list(zip(labels, *cells, strict=True))))
    return parts


def _headings(columns: Sequence[Column]) -> list[str]:
    return [" ".join(" ".join(column.heading).split()) for column in columns]


def title(report: Report, check: Crosscheck) -> list[str]:
    """What is beside what."""
    found = [f"Cross-check with {check.tool}: {check.title}"]
    others = [phase for phase in PHASES if report.phases[phase] and phase not in check.phases]
    if check.modules and check.phases and others:
        found.append(f"It counts the {' and '.join(check.phases)} alone, so of attnprof too: not {', '.join(others)}.")
    return [*found, *([check.caveat] if check.caveat else [])]


def lines(report: Report, check: Crosscheck, view: View) -> tuple[list[Line], int]:
    """The rows of the layer table, and how many more levels there are."""
    root = tree_rows.branches(report, check.phases or PHASES)
    shown, hidden = tree_rows.rows(root, depth=view.depth, sort=view.sort, top=view.top)
    found = []
    for at, row in enumerate(shown):
        if row.branch.own or row.branch.name == tree_rows.OWN:
            continue
        branches = [row.branch] if row.branch.fqns else _rest(shown[:at], row)
        names = [name for branch in branches if not branch.own for name in branch.fqns]
        found.append(_line(row.branch.label, row.art, [check.modules[name] for name in names]))
    return found, hidden


def _rest(before: Sequence[Row], more: Row) -> list[Branch]:
    """What a row ``… 3 more`` stands for: the children of the row above that have none of their own."""
    parent = next(row for row in reversed(before) if row.level < more.level)
    shown = {id(row.branch) for row in before if row.level == more.level}
    return [child for child in parent.branch.children if id(child) not in shown]


def _line(label: str, art: str, modules: Sequence[CheckedModule]) -> Line:
    return Line(
        label,
        art,
        sum(m.ours for m in modules),
        sum(m.said for m in modules),
        sum(m.theirs for m in modules),
        {kind: sum(m.of_kind(kind) for m in modules) for kind in KINDS},
    )


def layouts(check: Crosscheck, found: Sequence[Line], units: Units) -> list[list[Column]]:
    """Sets of columns, the fullest first. Causes that no row has are left out."""
    kinds = [kind for kind in KINDS if any(line.kinds[kind] for line in found)]
    ours = [_column("attnprof", [line.ours for line in found], units)]
    own = [_column("its count", [line.said for line in found], units, flops=False)]
    theirs = [_column(check.tool, [line.theirs for line in found], units)]
    difference = [_column("difference", [line.difference for line in found], units)]
    causes = [_column(kind, [line.kinds[kind] for line in found], units) for kind in kinds]
    own = own if any(line.said != line.theirs for line in found) else []
    return [
        [*ours, *own, *theirs, *difference, *causes],
        [*ours, *theirs, *difference, *causes],
        [*ours, *theirs, *difference],
        [*theirs, *difference],
        difference,
    ]


def _column(heading: str, values: Sequence[int], units: Units, *, flops: bool = True) -> Column:
    """Numbers with their unit below the heading; none for what is not in FLOPs."""
    name, cells = units.column(values)
    return Column((heading, name if flops else name.removesuffix("FLOP")), tuple(cells))


def sentences(report: Report, check: Crosscheck, units: Units) -> list[str]:
    """Why the numbers differ, cause by cause, and whether that is all."""
    if check.total is None:
        return [f"{check.tool} could not count this: {check.problem}"]
    found = [_sentence(cause, units) for cause in check.total.causes]
    found += _attributions(report, check, units)
    if check.unexplained:
        return [*found, f"Up to {units.named(check.unexplained)} of a module is not explained: please report it."]
    if check.total.difference or len(found) > len(check.total.causes):
        return [*found, "These are all: nothing is left unexplained."]
    return ["The two agree."] if not found else [*found, "These are all, and they cancel out."]


def _sentence(cause: Cause, units: Units) -> str:
    """``convention, -1.2 MFLOP: scalar arithmetic is not counted there (aten.gelu x12 -0.9 M, ...).``"""
    named = [_part(part, units) for part in cause.parts[:_NAMED] if part.op]
    rest = len(cause.parts) - _NAMED
    more = f" and {rest} more {'op' if rest == 1 else 'ops'}" if rest > 0 else ""
    ops = f" ({', '.join(named)}{more})" if named else ""
    return f"{cause.kind}, {_signed(cause.flops, units, named=True)}: {cause.reason}{ops}."


def _part(part: Part, units: Units) -> str:
    times = f" x{part.calls:,}" if part.calls > 1 else ""
    return f"{_op(part.op)}{times} {_signed(part.flops, units)}"


def _op(name: str) -> str:
    """An op's name without an overload that says nothing."""
    return name.removesuffix(".default")


def _attributions(report: Report, check: Crosscheck, units: Units) -> list[str]:
    """One sentence on what is booked to other modules, which changes no total."""
    found = [m for m in check.modules.values() if any(c.kind == "attribution" for c in m.causes)]
    if not found:
        return []
    model = report.root.class_name
    largest = sorted(found, key=lambda m: -abs(m.of_kind("attribution")))
    named = [
        f"{called(m.module, model)} {_signed(m.of_kind('attribution'), units)}{_whose(m, model)}"
        for m in largest[:_NAMED]
        if m.of_kind("attribution")
    ]
    count = f"{len(found):,} {'module' if len(found) == 1 else 'modules'}"
    return [
        f"attribution, 0 in all: calls are booked to modules that did not run them, in {count}: {'; '.join(named)}."
    ]


def _whose(module: CheckedModule, model: str) -> str:
    """Whose calls most of it are, where they are others'."""
    parts = [part for cause in module.causes if cause.kind == "attribution" for part in cause.parts]
    first = max(parts, key=lambda part: abs(part.flops))
    verb = "that it ran" if first.place == module.module else f"of {called(first.place, model)}"
    return f" ({_op(first.op)} {verb})"


def _signed(flops: int, units: Units, *, named: bool = False) -> str:
    """``+1.2 M``: a number with its sign."""
    text = units.named(abs(flops)) if named else units.text(abs(flops))
    return f"{'-' if flops < 0 else '+'}{text}" if flops else text
