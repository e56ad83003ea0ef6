"""The steps of a run as a table: prefill and decode steps, or training steps; runs of like steps folded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

from attnprof.analysis.report import Report
from attnprof.analysis.roofline import Roofline
from attnprof.analysis.steps import StepCost
from attnprof.core.cost import Cost
from attnprof.core.memory import KVCache
from attnprof.core.roofline import Attainable, StepPoint
from attnprof.core.units import Kind, Units
from attnprof.reports.columns import Column, Columns, Line
from attnprof.reports.fitted import fitted
from attnprof.reports.text import printable, wrapped

#: Where the steps follow no rule, more runs than this are not shown one by one, but the first and the last.
_MOST, _FIRST, _LAST = 24, 16, 4
_NUMBERED = re.compile(r"(.*?) ?(\d+)")
#: The fewest steps that show a rule: all equal, equal growth, growth that grows equally.
_FEWEST = (2, 4, 5)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive steps that follow a rule.

    ``degree`` 0: all cost the same; 1: each costs as much more as the one before did; 2: and that growth
    itself grows evenly. A step on its own has degree 0.
    """

    steps: tuple[StepCost, ...]
    degree: int = 0

    @property
    def label(self) -> str:
        """``decode [1-31]``, or the label of the only step."""
        first, last = _numbered(self.steps[0].label), _numbered(self.steps[-1].label)
        if len(self.steps) == 1 or first is None or last is None:
            return self.steps[0].label
        return f"{first[0]} [{first[1]}-{last[1]}]".lstrip()


def step_table(
    report: Report, phases: Sequence[str], units: Units, width: int, roofline: Roofline | None = None
) -> list[str]:
    """One row per step, their sum, and how each run of steps grows; nothing for a run that marked no step."""
    points = [None] * len(report.steps) if roofline is None else roofline.steps
    steps = [_only(step, phases, point) for step, point in zip(report.steps, points, strict=True)]
    if not steps:
        return []
    found = runs(steps)
    shown = found if len(found) <= _MOST else [*found[:_FIRST], *found[-_LAST:]]
    rows: list[tuple[str, StepCost | None]] = []
    for position, run in enumerate(shown):
        if len(shown) < len(found) and position == _FIRST:
            rows.append(("…", None))
        rows += _rows(run)
    if len(steps) > 1:
        costs = {phase: Cost.sum(s.phases[phase] for s in steps if phase in s.phases) for phase in phases}
        times = [step.attainable for step in steps if step.attainable is not None]
        time = sum(times, Attainable()) if times else None
        rows.append(("total", StepCost("total", Cost.sum(costs.values()), costs, attainable=time)))
    text = fitted("step", [label for label, _ in rows], _choices([step for _, step in rows], phases, units), width)
    for run in shown:
        if run.degree:
            text += wrapped(growth(run, units), width)
    if len(shown) < len(found):
        left_out = len(steps) - sum(len(run.steps) for run in shown)
        text += wrapped(f"{left_out:,} steps that follow no rule are not shown.", width)
    return [*text, *(line for sentence in _cache(steps) for line in wrapped(sentence, width)), ""]


def _only(step: StepCost, phases: Sequence[str], point: StepPoint | None) -> StepCost:
    kept = {phase: cost for phase, cost in step.phases.items() if phase in phases}
    times = [] if point is None else [p.attainable for phase, p in point.by_phase.items() if phase in phases]
    time = None if point is None else sum(times, Attainable())
    return replace(step, cost=Cost.sum(kept.values()), phases=kept, attainable=time)


# Runs of steps


def runs(steps: Sequence[StepCost]) -> list[Run]:
    """The steps in order, those that follow a rule together."""
    found: list[Run] = []
    start = 0
    while start < len(steps):
        stretch = _consecutive(steps[start:])
        numbers = [_numbers(step) for step in stretch]
        for degree, fewest in enumerate(_FEWEST):
            length = _follows(numbers, degree)
            if length >= fewest:
                found.append(Run(tuple(stretch[:length]), degree))
                break
        else:
            length = 1
            found.append(Run((steps[start],)))
        start += length
    return found


def _consecutive(steps: Sequence[StepCost]) -> list[StepCost]:
    """The leading steps of one name, numbered one after the other."""
    first = _numbered(steps[0].label)
    if first is None:
        return [steps[0]]
    expected = ((first[0], first[1] + i) for i in range(len(steps)))
    return [
        step
        for step, _ in takewhile(lambda pair: _numbered(pair[0].label) == pair[1], zip(steps, expected, strict=True))
    ]


def _numbered(label: str) -> tuple[str, int] | None:
    match = _NUMBERED.fullmatch(label)
    return None if match is None else (match[1], int(match[2]))


def _numbers(step: StepCost) -> tuple[int, ...]:
    """All that a row shows, and the phases it is summed from."""
    by_phase = (n for phase in sorted(step.phases) for n in (step.phases[phase].matmul_flops, step.phases[phase].bytes))
    cost = step.cost
    return (cost.vector_flops, cost.read_bytes, cost.write_bytes, step.cache_bytes or 0, *by_phase)


def _follows(numbers: Sequence[tuple[int, ...]], degree: int) -> int:
    """How many of the leading ones have equal differences of this degree."""
    level = list(numbers)
    for _ in range(degree):
        level = [_minus(after, before) for before, after in pairwise(level)]
    return sum(1 for _ in takewhile(lambda n: n == level[0], level)) + degree if level else 0


def _minus(after: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(after, before, strict=False)) if len(after) == len(before) else after


def growth(run: Run, units: Units) -> str:
    """``decode [1-31]: each step +6,144 FLOP of matmul, ... over the one before.``"""
    exact = Units(exact=True, macs=units.macs)
    first, second, third = (_totals(step) for step in run.steps[:3])
    parts = []
    kinds: tuple[tuple[str, Kind], ...] = (
        ("of matmul", "matmul"), ("of vector work", "flops"), ("of traffic", "bytes"), ("of cache", "bytes")
    )  # fmt: skip
    for (name, kind), a, b, c in zip(kinds, first, second, third, strict=True):
        if b != a or c != b:
            more = f" (and {_signed(c - 2 * b + a, kind, exact)} on that each time)" if c - b != b - a else ""
            parts.append(f"{_signed(b - a, kind, exact)} {name}{more}")
    return f"{printable(run.label)}: each step {', '.join(parts)} over the one before."


def _totals(step: StepCost) -> tuple[int, int, int, int]:
    return step.cost.matmul_flops, step.cost.vector_flops, step.cost.bytes, step.cache_bytes or 0


def _signed(value: int, kind: Kind, units: Units) -> str:
    return f"{'' if value < 0 else '+'}{units.named(value, kind)}"


# The table


def _rows(run: Run) -> list[tuple[str, StepCost | None]]:
    """The rows of a run: one for equal steps; first and last of those that grow, and what is between left out."""
    first, last = run.steps[0], run.steps[-1]
    if run.degree:
        return [(printable(first.label), first), ("…", None), (printable(last.label), last)]
    each = f" x{len(run.steps)}, each" if len(run.steps) > 1 else ""
    return [(printable(run.label) + each, first)]


def _choices(rows: Sequence[StepCost | None], phases: Sequence[str], units: Units) -> list[list[Column]]:
    """Sets of columns, the fullest first."""
    steps = [step for step in rows if step is not None]
    lines = [Line(None, None, step.phases, time=step.attainable) for step in steps]
    columns = Columns(lines, phases, units)
    one, rate = [columns.matmul()], [columns.intensity()]
    by_phase = columns.matmul_by_phase() if len(columns.phases) > 1 else one
    vector = [columns.vector()] if columns.has_vector else []
    both, traffic = [columns.read(), columns.written()], [columns.traffic()]
    cache, grown = [], []
    if any(step.cache for step in steps):
        unit, cells = units.column([step.cache_bytes for step in steps], "bytes")
        cache = [Column(("cache", unit), tuple(cells))]
        unit, cells = units.column([step.cache_growth for step in steps], "bytes")
        grown = [Column(("cache", f"+{unit}"), tuple(cells))]
    time, bound = ([columns.time()], [columns.bound()]) if columns.has_times else ([], [])
    timed = bound + time
    choices = [
        by_phase + vector + both + rate + timed + cache + grown,
        by_phase + vector + traffic + rate + timed + cache + grown,
        one + vector + traffic + rate + timed + cache + grown,
        one + vector + traffic + rate + timed + cache,
        one + traffic + rate + timed + cache,
        one + traffic + timed + cache,
        one + traffic + timed,
        *([one + timed, timed, time] if timed else [one]),
    ]
    return [[_with_gaps(column, rows) for column in choice] for choice in choices]


def _with_gaps(column: Column, rows: Sequence[StepCost | None]) -> Column:
    cells = iter(column.cells)
    return Column(column.heading, tuple("" if row is None else next(cells) for row in rows))


def _cache(steps: Sequence[StepCost]) -> list[str]:
    """What the cache holds in the end, and what a token takes."""
    last = next((step.cache for step in reversed(steps) if step.cache), None)
    if last is None:
        return []
    tokens = "" if last.tokens is None else f" for {last.tokens:,} {'token' if last.tokens == 1 else 'tokens'}"
    sizes = sorted(set(last.layer_bytes))
    count = len(last.layer_bytes)
    each = f"{sizes[0]:,} B" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,} B"
    text = f"cache: {last.bytes:,} B{tokens}, in {count} {'layer' if count == 1 else 'layers'} of {each}"
    return [f"{text}{_per_token([step.cache for step in steps if step.cache])}."]


def _per_token(caches: Sequence[KVCache]) -> str:
    """What a token adds, by the last two steps: a window that is full, or a state, takes no more."""
    if len(caches) < 2:
        return ""
    before, after = caches[-2:]
    added = (after.tokens or 0) - (before.tokens or 0)
    if added > 0 and (after.bytes - before.bytes) % added == 0:
        return f"; a token adds {(after.bytes - before.bytes) // added:,} B"
    return "; it no longer grows" if after.bytes == before.bytes else ""
