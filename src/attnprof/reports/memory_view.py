"""Where the memory of a run goes: over time, at the peak block by block, and by the modules that save it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from attnprof.analysis.memory import Block, MemorySummary
from attnprof.analysis.report import Report
from attnprof.analysis.timeline import Timeline
from attnprof.core.memory import KINDS
from attnprof.core.trace import Trace
from attnprof.core.units import Units, align, share
from attnprof.reports import rows as tree_rows
from attnprof.reports.columns import Column, Columns, Line
from attnprof.reports.fitted import fitted
from attnprof.reports.memory import operator, states, where
from attnprof.reports.names import called, listed
from attnprof.reports.text import wrapped
from attnprof.reports.view import View

_BARS = " ▁▂▃▄▅▆▇█"
#: The marks of a line over time: enough to see the shape, few enough for one look.
_MARKS, _FEWEST = 72, 16
#: Groups of blocks that are shown of those alive at the peak, unless ``--top`` asks for another number.
_BLOCKS = 12
_LETTERS = {"forward": "f", "backward": "b", "recompute": "r", "optimizer": "o", "optimizer_init": "o", "other": "-"}


def blocks(report: Report, memory: MemorySummary, view: View, width: int) -> list[list[str]]:
    """The view as blocks of lines."""
    model = report.root.class_name
    return [
        [*states(memory, view.units, width), ""],
        [*_over_time(report.trace, memory, model, view.units, width), ""],
        [*_at_peak(memory, model, view, width), ""] if memory.blocks_at_peak else [],
        _saved_by_module(report, memory, view, width),
    ]


# Over time


def _over_time(trace: Trace, memory: MemorySummary, model: str, units: Units, width: int) -> list[str]:
    """A line of bars per kind, all on the scale of the peak, with the phases below."""
    timeline, peak = memory.timeline, memory.peak
    kinds = [kind for kind in KINDS if any(timeline.of(kind))]
    if not kinds or not len(trace):
        return ["No storage came or went while an op ran."]
    if not timeline.in_order:
        return wrapped("Several threads ran: their op calls have no order in which to draw the live bytes.", width)
    columns = [timeline.of(kind) for kind in kinds]
    at_peak = _bytes(("at the", "peak"), [*(peak.by_kind.get(kind, 0) for kind in kinds), peak.bytes], units)
    most = _bytes(("", "most"), [*map(max, columns), peak.bytes], units)
    title = "live bytes"
    for numbers in ([at_peak, most], [at_peak], []):
        room = width - max(map(len, (*kinds, title))) - 2 - sum(2 + column.width for column in numbers)
        if room >= _FEWEST:
            break
    marks = min(_MARKS, room, len(trace))
    starts = [-(-mark * len(trace) // marks) for mark in range(marks)]  # the first op call of each mark
    shown = _thinned(timeline, starts)
    bars = [_bars([column[i] if i >= 0 else 0 for i in shown], peak.bytes) for column in (*columns, timeline.totals)]
    phases = _phases(trace, starts)
    cells = [*bars, "".join(phases)]
    blank = [Column(c.heading, (*c.cells, " " * len(c.cells[0]))) for c in numbers]
    text = fitted(title, [*kinds, "total", "phase"], [[*blank, Column(("", ""), tuple(cells))]], width)
    names = [f"{letter} {name}" for name, letter in _LETTERS.items() if letter in phases and name != "optimizer_init"]
    scale = f"one mark is {_calls(len(trace), marks)}; full height is the peak, {where(peak.place, model)}"
    return text + wrapped(f"{', '.join(names)}; {scale}.", width)


def _calls(events: int, marks: int) -> str:
    each = -(-events // marks)
    return "an op call" if each == 1 else f"about {each:,} op calls"


def _thinned(timeline: Timeline, starts: Sequence[int]) -> list[int]:
    """For each mark the point of its part of the run with the most live bytes; -1 where none came before."""
    firsts = [bisect_left(timeline.events, start) for start in starts] + [len(timeline)]
    found = []
    for start, first, stop in zip(starts, firsts, firsts[1:], strict=False):
        changes_at_once = first < stop and timeline.events[first] == start
        points = range(first if changes_at_once else first - 1, stop)  # what was live before goes on until then
        found.append(max(points, key=lambda i: timeline.totals[i] if i >= 0 else 0))
    return found


def _bars(sizes: Sequence[int], whole: int) -> str:
    steps = len(_BARS) - 1
    return "".join(_BARS[-(-size * steps // whole)] for size in sizes)  # what is there is never nothing


def _phases(trace: Trace, starts: Sequence[int]) -> list[str]:
    """The phase that most op calls of each mark are in."""
    letters = [_LETTERS[scope.phase] for scope in trace.scopes]
    parts = [trace.event_scopes[start:stop] for start, stop in pairwise([*starts, len(trace)])]
    return [Counter(letters[scope] for scope in part).most_common(1)[0][0] for part in parts]


# At the peak


def _at_peak(memory: MemorySummary, model: str, view: View, width: int) -> list[str]:
    """The storages alive at the peak, equal ones of repeated layers together, largest first."""
    ordered = alike(memory)
    shown = ordered[: view.top or _BLOCKS]
    rest = [block for group in ordered[len(shown) :] for block in group]
    labels = [made(group, model) for group in shown]
    lines = [*shown, rest] if rest else shown
    if rest:
        labels.append(f"… {len(rest):,} more")
    unit, cells = view.units.column([len(group) for group in lines], "count")
    each = [group[0].bytes for group in shown] + ([None] if rest else [])
    kinds = [group[0].kind for group in shown] + ([""] if rest else [])
    longest = max(map(len, kinds), default=0)
    kind = Column(("", "kind"), tuple(kind.ljust(longest) for kind in kinds))
    count = Column(("blocks", unit), tuple(cells))
    size = _bytes(("each", ""), each, view.units)
    whole = _bytes(("together", ""), [sum(block.bytes for block in group) for group in lines], view.units)
    choices = [[kind, count, size, whole], [kind, size, whole], [kind, whole], [whole]]
    return fitted("alive at the peak", labels, choices, width)


def alike(memory: MemorySummary) -> list[list[Block]]:
    """The storages alive at the peak, those of one size, kind and op together, largest first."""
    groups: dict[tuple[int, str, str], list[Block]] = {}
    for block in memory.blocks_at_peak:
        how = f"{operator(block.made_by)}, {block.made_by.phase}" if block.made_by else ""
        groups.setdefault((block.bytes, block.kind, how), []).append(block)
    return sorted(groups.values(), key=lambda group: -sum(block.bytes for block in group))


def made(group: Sequence[Block], model: str) -> str:
    """What made some blocks: ``forward aten.mm in h.[0-11].mlp.down``."""
    first = group[0].made_by
    if first is None:
        return "given"
    modules = dict.fromkeys(block.made_by.module for block in group if block.made_by)
    names = [called(fqn, model) for fqn in modules if fqn not in ("(outside)", "(optimizer)")]
    inside = f" in {listed(names)}" if any(names) else ""
    return f"{first.phase} {operator(first)}{inside}"


# By module


def _saved_by_module(report: Report, memory: MemorySummary, view: View, width: int) -> list[str]:
    """The modules whose ops saved something, as a tree."""
    if not memory.saved_bytes:
        return ["Nothing was saved for a backward."]
    root = tree_rows.branches(report)
    _prune(root)
    shown, hidden = tree_rows.rows(root, depth=view.depth, sort=view.sort, top=view.top)
    branches = [row.branch for row in shown]
    columns = Columns([Line(b.calls, None, b.costs, b.saved) for b in branches], (), view.units)
    part = Column(("% of", "saved"), tuple(align([share(b.saved, root.saved) for b in branches])))
    labels = [row.label for row in shown]
    text = fitted("layer", labels, [[columns.calls(), columns.saved(), part], [columns.saved()]], width)
    if hidden:
        text.append(f"{hidden} deeper {'level' if hidden == 1 else 'levels'} not shown: use --depth.")
    return text


def _prune(branch: tree_rows.Branch) -> None:
    branch.children = [child for child in branch.children if child.saved]
    for child in branch.children:
        _prune(child)


def _bytes(heading: tuple[str, str], sizes: Sequence[int | None], units: Units) -> Column:
    unit, cells = units.column(sizes, "bytes")
    first, second = heading
    return Column((first, f"{second} {unit}".strip()), tuple(cells))
