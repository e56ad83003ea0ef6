"""What the run held in memory, for the page: sizes, live bytes over time with the peak, and what was alive there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from attnprof.analysis.memory import MemorySummary
from attnprof.analysis.report import Report
from attnprof.analysis.timeline import Timeline
from attnprof.core.memory import KINDS
from attnprof.core.trace import Trace
from attnprof.core.units import Units
from attnprof.reports.html.embedding import Json
from attnprof.reports.memory import operator, sizes, where
from attnprof.reports.memory_view import alike, made

#: A chart shows no more points than this: of more, those with the most live bytes of their part of the run.
_POINTS = 1500
#: Stretches of phases and ends of steps that are drawn.
_STRETCHES, _STEPS = 400, 60
#: Groups of blocks alive at the peak that are listed.
_GROUPS = 200


def memory(report: Report, units: Units) -> dict[str, Json] | None:
    """None where memory was not tracked."""
    found = report.memory
    if found is None:
        return None
    model, peak = report.root.class_name, found.peak
    return {
        "sizes": [[label.strip(), size, int(label.startswith(" "))] for label, size in sizes(found, units)],
        "peak": {"bytes": peak.bytes, "where": where(peak.place, model), "event": peak.event, "kinds": peak.by_kind},
        "timeline": _timeline(report.trace, found),
        "blocks": _blocks(found, model),
    }


# Over time


def _timeline(trace: Trace, memory: MemorySummary) -> Json:
    """Live bytes by kind at op calls, the phases below; a sentence where they cannot be drawn."""
    timeline = memory.timeline
    kinds = [kind for kind in KINDS if any(timeline.of(kind))]
    if not kinds or not len(trace):
        return "No storage came or went while an op ran."
    if not timeline.in_order:
        return "Several threads ran: their op calls have no order in which to draw the live bytes."
    shown = _thinned(timeline)
    places = [memory.place(timeline.events[i]) for i in shown]
    ops: dict[str, int] = {}
    texts = [
        "after the last op" if place is None else f"{place.module} {operator(place)}, {place.phase}".strip()
        for place in places
    ]
    return {
        "calls": len(trace),
        "points": len(timeline),
        "x": [timeline.events[i] for i in shown],
        "kinds": {kind: [timeline.of(kind)[i] for i in shown] for kind in kinds},
        "at": [ops.setdefault(text, len(ops)) for text in texts],
        "texts": list(ops),
        "peak": timeline.events[max(range(len(timeline)), key=timeline.totals.__getitem__)],
        "phases": _phases(trace),
        "steps": list(trace.steps) if len(trace.steps) <= _STEPS else [],
    }


def _thinned(timeline: Timeline) -> list[int]:
    """The points to draw: all, or the first with the most live bytes of each part of the run."""
    count = len(timeline)
    if count <= _POINTS:
        return list(range(count))
    starts = [part * count // _POINTS for part in range(_POINTS + 1)]
    highest = [max(range(start, stop), key=timeline.totals.__getitem__) for start, stop in pairwise(starts)]
    return sorted({0, *highest, count - 1})


def _phases(trace: Trace) -> list[Json]:
    """Stretches of one phase: where each begins and ends, in op calls. Of too many, each part of the run has one."""
    shown = [
        "optimizer" if trace.scopes[scope].phase == "optimizer_init" else trace.scopes[scope].phase
        for scope in trace.event_scopes
    ]
    found = _stretches(shown, 1)
    if len(found) > _STRETCHES:
        each = -(-len(shown) // _STRETCHES)
        parts = [shown[start : start + each] for start in range(0, len(shown), each)]
        found = _stretches([max(sorted(set(part)), key=part.count) for part in parts], each)
        found[-1][2] = len(shown)
    return [*found]


def _stretches(phases: Sequence[str], each: int) -> list[list[str | int]]:
    found: list[list[str | int]] = []
    at = 0
    for phase, run in groupby(phases):
        end = at + each * sum(1 for _ in run)
        found.append([phase, at, end])
        at = end
    return found


# At the peak


def _blocks(memory: MemorySummary, model: str) -> dict[str, Json]:
    """Blocks alive at the peak: those of one size, kind and op as one row."""
    groups = alike(memory)
    listed = groups[:_GROUPS]
    return {
        "label": [made(group, model) for group in listed],
        "kind": [group[0].kind for group in listed],
        "blocks": [len(group) for group in listed],
        "each": [group[0].bytes for group in listed],
        "bytes": [sum(block.bytes for block in group) for group in listed],
        "more": len(groups) - len(listed),
        "more_bytes": sum(block.bytes for group in groups[_GROUPS:] for block in group),
    }
