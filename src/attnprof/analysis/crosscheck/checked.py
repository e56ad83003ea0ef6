"""Another counter's numbers beside those of a report, every difference taken apart into causes that add up to it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from attnprof.analysis.crosscheck import nodes, same_ops
from attnprof.analysis.crosscheck.places import Entries, Places
from attnprof.analysis.report import Report
from attnprof.core.cost import Cost
from attnprof.core.crosscheck import KINDS, Cause, CheckedModule, Crosscheck, Kind, Part, Reading
from attnprof.core.trace import OPTIMIZER, OUTSIDE

_GAINED = "calls that others ran are booked to it there"
_LOST = "calls that it ran are booked elsewhere there"
_REST = "no cause is known"

#: (kind, reason, op, where it ran) -> [calls, FLOPs].
_Amounts = dict[tuple[Kind, str, str, str], list[int]]


def checked(report: Report, reading: Reading, formulas: Sequence[int | None] = ()) -> Crosscheck:
    """A reading held against the report of the same run.

    ``formulas`` are what the counter's own formulas give for each signature of the trace, where it sees the same
    ops. The causes of a module add up to the difference: what is left without a cause is one of its own,
    ``unexplained``.
    """
    if reading.problem:
        return Crosscheck(reading.tool, reading.title, phases=reading.phases, problem=reading.problem)
    places = Places(report.root)
    if reading.caveat and not reading.said:
        entries: Entries = Counter()
    elif reading.macs:
        entries = nodes.entries(report.trace, report.priced, reading, places)
    else:
        entries = same_ops.entries(report.trace, report.priced, formulas, reading, places)
    without = places.unlisted(reading.amounts) | {report.trace.modules[i].fqn for i in (OUTSIDE, OPTIMIZER)}
    entries = _with_rows(entries, places, without)
    amounts = _by_module(entries, places)
    ours = _ours(report, reading.phases)
    said, theirs = _said(reading, places)
    for name in without:
        theirs[name] = said[name] = sum(
            entry.theirs * calls
            for entry, calls in entries.items()
            if name in (entry.there or places.around[entry.module])
        )
    modules = {name: _module(name, ours[name], said[name], theirs[name], amounts[name]) for name in places.around}
    return Crosscheck(reading.tool, reading.title, modules, reading.phases, caveat=reading.caveat)


def _ours(report: Report, phases: tuple[str, ...]) -> dict[str, Cost]:
    """The cost of each module in the phases that are compared."""
    found = [report.by_module(phase) for phase in phases] or [report.by_module()]
    return {name: Cost.sum(costs[name] for costs in found) for name in found[0]}


def _said(reading: Reading, places: Places) -> tuple[Counter[str], Counter[str]]:
    """The counter's number of each module, in its own unit and in FLOPs."""
    said: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for name, ops in reading.amounts.items():
        module = places.find(name)
        if module is not None:
            said[module] += sum(ops.values())
            theirs[module] += sum(reading.flops(op, amount) for op, amount in ops.items())
    return said, theirs


def _with_rows(entries: Entries, places: Places, without: frozenset[str]) -> Entries:
    """The same, each booked also to modules that the counter has no row for: lists around those it is booked to.

    What it books to no module at all stays where attnprof has it, if that is no module either.
    """
    found: Entries = Counter()
    for entry, calls in entries.items():
        there = entry.there
        if there is not None and there <= {""}:
            there = there | (places.around[entry.module] & without)
        elif there is not None:
            more = set(there)
            for name in there:
                parent = places.parents.get(name)
                while parent is not None and parent.fqn in without:
                    more.add(parent.fqn)
                    parent = places.parents.get(parent.fqn)
            there = frozenset(more)
        found[replace(entry, there=there)] += calls
    return found


def _by_module(entries: Entries, places: Places) -> defaultdict[str, _Amounts]:
    """The causes of each module with all that is in it."""
    found: defaultdict[str, _Amounts] = defaultdict(dict)
    own: defaultdict[str, _Amounts] = defaultdict(dict)
    for entry, calls in entries.items():
        for kind, reason, flops in entry.causes:
            _add(own[entry.module], (kind, reason, entry.op, ""), calls, calls * flops)
    for module, amounts in own.items():
        for around in places.around[module]:
            for key, (calls, flops) in amounts.items():
                _add(found[around], key, calls, flops)
    for entry, calls in entries.items():
        ours = places.around[entry.module]
        if entry.there is None or not entry.theirs:
            continue
        for module in entry.there - ours:
            _add(found[module], ("attribution", _GAINED, entry.op, entry.module), calls, calls * entry.theirs)
        for module in ours - entry.there:
            _add(found[module], ("attribution", _LOST, entry.op, entry.module), calls, -calls * entry.theirs)
    return found


def _add(amounts: _Amounts, key: tuple[Kind, str, str, str], calls: int, flops: int) -> None:
    total = amounts.setdefault(key, [0, 0])
    total[0] += calls
    total[1] += flops


def _module(name: str, cost: Cost, said: int, theirs: int, amounts: _Amounts) -> CheckedModule:
    parts: dict[tuple[Kind, str], list[Part]] = defaultdict(list)
    for (kind, reason, op, place), (calls, flops) in amounts.items():
        parts[kind, reason].append(Part(op, calls, flops, place))
    rest = theirs - cost.flops - sum(flops for _, flops in amounts.values())
    if rest:
        parts["unexplained", _REST].append(Part("", 0, rest))
    causes = [
        Cause(kind, reason, tuple(sorted(found, key=lambda part: (-abs(part.flops), part.op, part.place))))
        for (kind, reason), found in parts.items()
    ]
    causes.sort(key=lambda cause: (KINDS.index(cause.kind), -abs(cause.flops), cause.reason))
    return CheckedModule(name, cost.matmul_flops, cost.vector_flops, said, theirs, tuple(causes))
