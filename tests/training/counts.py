"""What a run cost, cut the ways the tests of training plans state it, and the products they are made of."""

from __future__ import annotations

from collections.abc import Iterator

from attnprof import Report
from attnprof.core.cost import ZERO, Cost

#: {module: {phase: FLOPs}}
Counts = dict[str, dict[str, int]]


def product(m: int, k: int, n: int) -> int:
    """[m, k] x [k, n]."""
    return 2 * m * k * n


def phases(**counts: int) -> dict[str, int]:
    """FLOPs by phase, zeros left out, as the counts of a report are."""
    return {phase: n for phase, n in counts.items() if n}


def own_costs(report: Report) -> Iterator[tuple[str, str, Cost]]:
    """(module, phase, self cost)."""
    for phase in report.phases:
        for module, cost in report.by_module(phase, inclusive=False).items():
            yield module, phase, cost


def matmul(report: Report) -> Counts:
    """The self matmul FLOPs of every module by phase; zeros left out."""
    found: Counts = {}
    for module, phase, cost in own_costs(report):
        if cost.matmul_flops:
            found.setdefault(module, {})[phase] = cost.matmul_flops
    return found


def by_dtype(report: Report, phase: str, engine: str = "matmul") -> dict[str, int]:
    """The FLOPs of a phase by the dtype they run in."""
    return {dtype: flops for where, dtype, flops in report.phases[phase].split if where == engine}


def steps(report: Report) -> list[dict[tuple[str, str], Cost]]:
    """Per step, as ``prof.step()`` ended them: {(module, phase): self cost}, phases as the events have them.

    The part of a fused backward that is forward work again is added to ``recompute``.
    """
    trace = report.trace
    found: list[dict[tuple[str, str], Cost]] = []
    start = 0
    for end in trace.steps:
        costs: dict[tuple[str, str], Cost] = {}
        for event in range(start, end):
            scope, price = trace.scopes[trace.event_scopes[event]], report.priced[trace.event_signatures[event]]
            module = trace.modules[scope.module].fqn
            for phase, cost in ((scope.phase, price.cost), ("recompute", price.recompute)):
                if cost:
                    costs[module, phase] = costs.get((module, phase), ZERO) + cost
        found.append(costs)
        start = end
    return found


def matmul_steps(report: Report) -> list[Counts]:
    """:func:`matmul` of each step."""
    found: list[Counts] = []
    for costs in steps(report):
        counts: Counts = {}
        for (module, phase), cost in costs.items():
            if cost.matmul_flops:
                counts.setdefault(module, {})[phase] = cost.matmul_flops
        found.append(counts)
    return found


def phase_vector(costs: dict[tuple[str, str], Cost], phase: str) -> int:
    """The vector FLOPs of a phase of one step."""
    return sum(cost.vector_flops for (_, where), cost in costs.items() if where == phase)


def operators(report: Report, name: str, phase: str | None = None) -> dict[str, int]:
    """Calls of an op (its packet, ``aten.mm``) by module."""
    found: dict[str, int] = {}
    for signature, scope in report.trace.events():
        if signature.packet == name and phase in (None, scope.phase):
            module = report.trace.modules[scope.module].fqn
            found[module] = found.get(module, 0) + 1
    return found
