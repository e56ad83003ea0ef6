"""From a report to its ops, dearest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnprof.analysis.report import Report
from attnprof.analysis.roofline import Roofline
from attnprof.core.cost import Cost
from attnprof.core.roofline import Attainable


@dataclass(frozen=True, slots=True)
class Operator:
    """One op of a run: calls and costs by phase; ``known`` unless nobody priced it.

    ``calls`` is None where the phase holds only part of the work of calls in another: the QK^T that a fused
    attention backward recomputes. ``time`` is the least on a device, None without one.
    """

    name: str
    calls: int | None
    costs: dict[str, Cost]
    known: bool
    time: Attainable | None = None

    @property
    def total(self) -> Cost:
        return Cost.sum(self.costs.values())

    def size(self, sort: str) -> tuple[float, ...]:
        """What ``sort`` orders by, ties by FLOPs and bytes."""
        cost = self.total
        first = {
            "flops": cost.flops,
            "matmul": cost.matmul_flops,
            "vector": cost.vector_flops,
            "bytes": cost.bytes,
            "read": cost.read_bytes,
            "written": cost.write_bytes,
            "calls": self.calls or 0,
            "time": self.time.seconds if self.time else 0,
        }[sort]
        return first, cost.flops, cost.bytes, self.calls or 0


def operators(
    report: Report, phases: Sequence[str], sort: str, roofline: Roofline | None = None
) -> tuple[list[Operator], int]:
    """The ops with a cost, or without a formula, largest first; and the calls of the others, which are free."""
    unknown = set(report.unpriced)
    costs: dict[str, dict[str, Cost]] = {}
    calls: dict[str, int] = {}
    times: dict[str, Attainable] = {}
    for phase in phases:
        for name, point in roofline.by_operator(phase).items() if roofline is not None else ():
            times[name] = times.get(name, Attainable()) + point.attainable
        for name, cost in report.by_operator(phase).items():
            if cost:
                costs.setdefault(name, {})[phase] = cost
        for name, count in report.operator_calls(phase).items():
            calls[name] = calls.get(name, 0) + count
    found = [
        Operator(name, calls.get(name), costs.get(name, {}), name not in unknown, times.get(name) if roofline else None)
        for name in {**costs, **dict.fromkeys(n for n in unknown if n in calls)}
    ]
    free = sum(count for name, count in calls.items() if name not in costs and name not in unknown)
    return sorted(found, key=lambda op: op.size(sort), reverse=True), free
