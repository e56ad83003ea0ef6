"""The ops of a run for the page: by name, and by the shapes that each was called with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attnprof.analysis import tree
from attnprof.analysis.report import Report
from attnprof.core.cost import ZERO, Cost
from attnprof.core.roofline import Attainable
from attnprof.core.signature import OpSignature
from attnprof.reports.html import numbers
from attnprof.reports.html.embedding import Json

#: Of one op, so many shapes are listed, the most frequent; the others are counted.
_SHAPES = 200


def operators(report: Report, phases: Sequence[str]) -> dict[str, Json]:
    """Every op, dearest first, free and unpriced ones among them: columns of equal length.

    ``shapes`` has for each op its calls by shapes: text, calls in all and by phase, costs by phase.
    """
    calls = {phase: report.operator_calls(phase) for phase in phases}
    costs = {phase: report.by_operator(phase) for phase in phases}
    whole, everywhere = report.by_operator(), report.operator_calls()
    names = [*whole, *(name for name in everywhere if name not in whole)]
    unpriced = report.unpriced
    shapes = _Shapes(report, phases)
    return {
        "label": list(names),
        "status": ["unpriced" if n in unpriced else "priced" if whole.get(n, ZERO) else "free" for n in names],
        "calls": {"all": [everywhere[n] for n in names]}
        | {phase: [calls[phase].get(n, 0) for n in names] for phase in phases},
        "costs": numbers.costs(({p: costs[p].get(n, ZERO) for p in phases} for n in names), phases),
        "devices": [_times(report, position, phases, names) for position in range(len(report.devices))],
        "shapes": [shapes.of(n) for n in names],
    }


def unpriced(report: Report) -> list[Json]:
    """The ops without a formula: name, calls, bytes by the default rule, shapes, and the name to price it under."""
    return [
        [op.op, op.calls, op.bytes, list(op.shapes), op.op.rpartition(".")[0].replace(".", "::", 1)]
        for op in report.unpriced_ops
    ]


def _times(report: Report, device: int, phases: Sequence[str], names: Sequence[str]) -> dict[str, Json]:
    """The least times on a device, by phase."""
    roofline = report.rooflines[device]
    found: dict[str, Json] = {}
    for phase in (None, *(phases if len(phases) > 1 else ())):
        points = roofline.by_operator(phase)
        found[phase or "all"] = numbers.times(points[n].attainable if n in points else Attainable() for n in names)
    return found


class _Shapes:
    """The signatures of a run by op, with their calls by phase."""

    def __init__(self, report: Report, phases: Sequence[str]) -> None:
        self.report = report
        self.phases = phases
        self.calls: dict[int, Counter[str]] = {}
        self.by_op: dict[str, list[int]] = {}
        trace = report.trace
        for (signature, scope), count in trace.counts().items():
            phase = trace.scopes[scope].phase
            if signature not in self.calls:
                self.by_op.setdefault(trace.signatures[signature].op, []).append(signature)
            shown = "optimizer" if phase == "optimizer_init" else phase
            self.calls.setdefault(signature, Counter())[shown] += count

    def of(self, op: str) -> dict[str, Json]:
        """The shapes that an op was called with, the most frequent first; ``more`` are those that are not listed."""
        alike: dict[str, list[int]] = {}
        for signature in self.by_op.get(op, ()):
            alike.setdefault(text(self.report.trace.signatures[signature]), []).append(signature)
        order = sorted(alike, key=lambda shown: -sum(self.calls[i].total() for i in alike[shown]))
        listed = order[:_SHAPES]
        calls = [sum((self.calls[i] for i in alike[shown]), Counter[str]()) for shown in listed]
        return {
            "label": list(listed),
            "calls": {"all": [each.total() for each in calls]} | {p: [each[p] for each in calls] for p in self.phases},
            "costs": numbers.costs((self._costs(alike[shown]) for shown in listed), self.phases),
            "more": len(order) - len(listed),
        }

    def _costs(self, signatures: Sequence[int]) -> dict[str, Cost]:
        found: dict[str, Cost] = {}
        for i in signatures:
            priced = self.report.priced[i]
            for phase, count in self.calls[i].items():
                for where, cost in ((phase, priced.cost), (tree.again(phase), priced.recompute)):
                    found[where] = found.get(where, ZERO) + cost * count
        return found


def text(signature: OpSignature) -> str:
    """``float32[4,8], float32[8,16] → float32[4,16]``."""
    given = ", ".join(map(str, signature.inputs)) or "no tensor"
    return f"{given} → {', '.join(map(str, signature.outs)) or 'no tensor'}"
