"""The report in the style of a module's repr, with numbers: ``(0): Linear(in_features=8)  72 params  512 FLOP``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from attnprof.analysis.report import PHASES, Report
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import ModuleRecord, Scalar
from attnprof.core.units import Units, duration
from attnprof.reports import crosscheck
from attnprof.reports import rows as tree_rows
from attnprof.reports.colours import coloured, styled
from attnprof.reports.roofline import notes, require
from attnprof.reports.rows import Branch
from attnprof.reports.table import covered, header, parameters, summary_lines, warnings
from attnprof.reports.text import cells, padded, printable, shortened, width_of_terminal
from attnprof.reports.view import View

_INDENT = "  "
#: The room that numbers leave the modules, and in what order they give way for it; FLOPs alone always stay.
_ROOM = 32
_GIVING_WAY = ("bytes", "params", "time")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line: where it stands, what opens it, its hyper-parameters, what ends it, and the row it has numbers of."""

    indent: str
    start: str
    inside: str = ""
    end: str = ""
    branch: Branch | None = None

    @property
    def text(self) -> str:
        return f"{self.indent}{self.start}{self.inside}{self.end}"

    def within(self, room: int) -> str:
        """The text in so many columns: hyper-parameters give way first, then the name."""
        if cells(self.text) <= room:
            return self.text
        left = room - cells(self.indent) - cells(self.start) - cells(self.end)
        if left > 0:
            return f"{self.indent}{self.start}{shortened(self.inside, left)}{self.end}"
        return shortened(f"{self.indent}{self.start}{self.end}", room)


def to_tree(report: Report, view: View | None = None, width: int | None = None) -> str:
    """The module tree as ``print(model)`` shows it, each line with its parameters, FLOPs and traffic.

    At most ``width`` columns (default: the terminal's). ``depth``, ``sort``, ``top``, ``phase`` and ``units`` of the
    view are those of the table; rows are inclusive, and one of ``12 x Block`` stands for all twelve. With a device
    there is the least time too, and what bounds it. Raises :class:`AttnprofError` for rows other than modules.
    """
    view = view or View.of()
    if view.by != "module":
        raise AttnprofError(f'the tree shows modules, not by="{view.by}": leave out by, or use to_table().')
    require(report, view)
    with coloured(view.colour):
        return _drawn(report, view, width_of_terminal(width))


def _drawn(report: Report, view: View, width: int) -> str:
    phases = PHASES if view.phase is None else (view.phase,)
    root = tree_rows.branches(report, phases, report.roofline)
    shown, hidden = tree_rows.rows(root, depth=view.depth, sort=view.sort, top=view.top)
    records = {node.fqn: node.record for node in report.root.walk()}
    lines = list(_lines([(row.level, row.branch) for row in shown], records))
    body = _fitted(lines, view, width)
    if hidden:
        body.append(f"{hidden} deeper {'level' if hidden == 1 else 'levels'} not shown: use --depth.")
    blocks = [
        header(report, width),
        warnings(report, width, notes(report)),
        [*body, ""],
        summary_lines(report, phases, view.units, width),
        crosscheck.blocks(report, view, width),
        covered(report, width),
    ]
    return "\n".join("\n".join(block) for block in blocks if block)


def _lines(shown: Sequence[tuple[int, Branch]], records: dict[str, ModuleRecord]) -> Iterator[_Line]:
    """The rows as lines, and one that closes each row with others in it."""
    open_rows: list[int] = []
    for position, (level, branch) in enumerate(shown):
        while open_rows and open_rows[-1] >= level:
            yield _Line(_INDENT * open_rows.pop(), ")")
        opens = position + 1 < len(shown) and shown[position + 1][0] > level
        yield from _row(level, branch, [records[fqn] for fqn in branch.fqns], opens)
        if opens:
            open_rows.append(level)
    while open_rows:
        yield _Line(_INDENT * open_rows.pop(), ")")


def _row(level: int, branch: Branch, records: Sequence[ModuleRecord], opens: bool) -> Iterator[_Line]:
    """``(h.[0-11]): 12 x Block(d=768)``; what is no module, such as ops outside any, has its name alone.

    Where modules follow inside, the hyper-parameters have a line of their own.
    """
    indent = _INDENT * level
    if branch.own or not records or not records[0].class_name:
        yield _Line(indent, printable(branch.name), branch=branch)
        return
    start = f"({_name(branch)}): " if level else ""
    start = printable(f"{start}{f'{branch.folded} x ' if branch.folded > 1 else ''}{records[0].class_name}(")
    told = printable(", ".join(_hyperparameters(records)))
    if not opens:
        yield _Line(indent, start, told, ")", branch)
        return
    yield _Line(indent, start, branch=branch)
    if told:
        yield _Line(indent + _INDENT, "", told)


def _name(branch: Branch) -> str:
    """``0-11`` for twelve folded, ``lm_head (= wte)`` for what has another name."""
    name = branch.name
    if branch.folded > 1:
        name = name.removesuffix(f" x{branch.folded}")
        name = name[1:-1] if name.startswith("[") else name
    return f"{name} {branch.note}" if branch.note else name


def _hyperparameters(records: Sequence[ModuleRecord]) -> list[str]:
    """``in_features=8``: what all of these modules have alike; what is off (None, False) says nothing."""
    found = dict(records[0].hyperparameters)
    for record in records[1:]:
        found = {name: value for name, value in found.items() if _same(record.hyperparameters.get(name), value)}
    return [f"{name}={_value(value)}" for name, value in found.items() if value is not None and value is not False]


def _same(one: Scalar, other: Scalar) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _value(value: Scalar) -> str:
    """As Python writes it; a float as short as it is."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return repr(value)


def _fitted(lines: Sequence[_Line], view: View, width: int) -> list[str]:
    """The lines with as many columns of numbers as there is room for."""
    columns = _numbers([line.branch for line in lines if line.branch is not None], view.units)
    for name in _GIVING_WAY:
        if len(columns) > 1 and _width(columns) + _ROOM > width:
            columns.pop(name, None)
    room = max(8, min(max(cells(line.text) for line in lines if line.branch), width - _width(columns)))
    numbers = zip(*columns.values(), strict=True)
    found = []
    for line in lines:
        text = line.within(room if line.branch is not None else width)
        if line.branch is not None:
            text = padded(text, room) + "".join(f"  {cell}" for cell in next(numbers))
        found.append(text.rstrip() if line.branch is not None else styled(text.rstrip(), "faint"))
    return found


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(2 + cells(column[0]) for column in columns.values())


def _numbers(branches: Sequence[Branch], units: Units) -> dict[str, list[str]]:
    """Columns of cells with their units: parameters, FLOPs of both kinds, traffic, and on a device time and bound."""
    params = [f"{units.text(n, 'count')} params" if (n := parameters(b)) else "" for b in branches]
    flops = [units.named(b.total.flops) if b.total.flops else "" for b in branches]
    moved = [units.text(b.total.bytes, "bytes") if b.total.bytes else "" for b in branches]
    columns = {"params": params, "flops": flops, "bytes": moved, "time": [_time(branch) for branch in branches]}
    shown = {name: _right(texts) for name, texts in columns.items() if any(texts)}
    return shown or {"flops": [""] * len(branches)}


def _time(branch: Branch) -> str:
    if branch.time is None or not branch.time.seconds:
        return ""
    return f"{duration(branch.time.seconds)} {branch.time.bound or ''}".rstrip()


def _right(texts: Sequence[str]) -> list[str]:
    wide = max(map(len, texts))
    return [text.rjust(wide) for text in texts]
