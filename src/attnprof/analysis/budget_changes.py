"""What changed between two snapshots: the totals, the modules, and the op that is responsible in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from attnprof.analysis.report import Report
from attnprof.core.cost import ZERO
from attnprof.core.module_names import fold
from attnprof.core.snapshot import MEMORY, NUMBERS, Line, Snapshot

_NOTHING = Line()


@dataclass(frozen=True, slots=True)
class Change:
    """One number before and after."""

    name: str
    before: int
    after: int

    @property
    def delta(self) -> int:
        return self.after - self.before

    def within(self, tolerance: Fraction) -> bool:
        """Whether the two differ by no more than a share of the number before."""
        return abs(self.delta) <= tolerance * self.before


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """Modules that changed alike in a phase: ``h.[0-11].mlp`` are ``count`` of them, and the lines are of one.

    ``op`` is the dearest op that one line has and the other has not (or has so often), ``was`` what the line
    before has in its place; either is empty where there is none.
    """

    module: str
    phase: str
    before: Line
    after: Line
    count: int = 1
    op: str = ""
    was: str = ""

    def total(self, quantity: str) -> Change:
        """FLOPs, bytes or one of their parts, of all the modules."""
        return Change(quantity, getattr(self.before, quantity) * self.count, getattr(self.after, quantity) * self.count)


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs by more than a tolerance; empty for two runs that cost the same."""

    totals: tuple[Change, ...]  # every number of the whole run, also those that are the same
    modules: tuple[ModuleChange, ...]
    memory: tuple[Change, ...]
    unpriced: tuple[Change, ...]
    environment: tuple[tuple[str, str, str], ...]  # name, before, after

    def __bool__(self) -> bool:
        """Whether any count differs; the environment alone is no difference."""
        return bool(self.modules or self.memory or self.unpriced)

    def total(self, quantity: str) -> Change:
        """The change of ``flops``, ``bytes`` or another number of the whole run."""
        known = {change.name: change for change in self.totals}
        names = {"flops": NUMBERS[:2], "bytes": NUMBERS[2:]}.get(quantity, (quantity,))
        return Change(quantity, sum(known[n].before for n in names), sum(known[n].after for n in names))


def compare(before: Snapshot, after: Snapshot, tolerance: Fraction = Fraction(0)) -> Changes:
    """What changed. A tolerance is for each number by itself, as a share of what it was.

    Memory is compared where both snapshots have it.
    """
    memory = [Change(n, before.memory[n], after.memory[n]) for n in MEMORY if n in before.memory and n in after.memory]
    unpriced = [Change(op, before.unpriced.get(op, 0), after.unpriced.get(op, 0)) for op in _keys(before, after)]
    numbers = (before.totals(), after.totals())
    return Changes(
        tuple(Change(name, numbers[0][name], numbers[1][name]) for name in numbers[0] if name in numbers[1]),
        tuple(_modules(before, after, tolerance)),
        tuple(change for change in memory if not change.within(tolerance)),
        tuple(change for change in unpriced if change.delta),
        tuple(_environment(before, after)),
    )


def operators(before: Report, after: Report) -> list[tuple[str, Change, Change]]:
    """The ops whose cost changed, with their FLOPs and bytes, the largest change first."""
    costs = (before.by_operator(), after.by_operator())
    found = []
    for op in dict.fromkeys([*costs[0], *costs[1]]):
        was, now = (of.get(op, ZERO) for of in costs)
        if (was.flops, was.bytes) != (now.flops, now.bytes):
            found.append((op, Change("flops", was.flops, now.flops), Change("bytes", was.bytes, now.bytes)))
    return sorted(found, key=lambda row: (-abs(row[1].delta), -abs(row[2].delta), row[0]))


def _keys(before: Snapshot, after: Snapshot) -> list[str]:
    return sorted({*before.unpriced, *after.unpriced})


def _modules(before: Snapshot, after: Snapshot, tolerance: Fraction) -> list[ModuleChange]:
    alike: dict[tuple[str, Line, Line], list[str]] = {}
    for key in dict.fromkeys([*before.lines, *after.lines]):
        lines = before.lines.get(key, _NOTHING), after.lines.get(key, _NOTHING)
        if not all(Change("", *pair).within(tolerance) for pair in zip(*(x.numbers for x in lines), strict=True)):
            alike.setdefault((key[0], *lines), []).append(key[1])
    found = []
    for (phase, was, now), modules in alike.items():
        op, instead = _responsible(was, now)
        found += [ModuleChange(text, phase, was, now, count, op, instead) for text, count in fold(modules).items()]
    return sorted(found, key=lambda change: (-abs(change.total("flops").delta), -abs(change.total("bytes").delta)))


def _responsible(before: Line, after: Line) -> tuple[str, str]:
    """The op that explains a change, and what stood in its place."""
    new = [op for op in after.ops if op not in before.ops]
    gone = [op for op in before.ops if op not in after.ops]
    if not new:
        return "", gone[0] if gone else ""
    names = [op.partition(" ")[0] for op in gone]
    for op in new:
        name = op.partition(" ")[0]
        if name in names:
            return op, gone[names.index(name)]
    return new[0], gone[0] if gone else ""


def _environment(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, str, str]]:
    for name, was in before.environment.items():
        now = after.environment.get(name, was)
        if now != was:
            yield name, str(was), str(now)
