"""The report: a priced trace with the questions people ask of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from attnprof.analysis import layer_times, phases, steps, training, tree
from attnprof.analysis.layer_times import MeasuredLayers
from attnprof.analysis.memory import MemorySummary
from attnprof.analysis.pace import Pace
from attnprof.analysis.steps import StepCost
from attnprof.analysis.training import Training
from attnprof.analysis.tree import ModuleNode
from attnprof.core.cost import ZERO, Cost
from attnprof.core.errors import UnpricedError
from attnprof.core.signature import OpSignature
from attnprof.core.trace import Scalar, Trace
from attnprof.core.work import PricedOp
from attnprof.costs.pricing import price

if TYPE_CHECKING:
    from attnprof.analysis.comparison import Compared
    from attnprof.analysis.roofline import Roofline
    from attnprof.core.comparison import Comparison
    from attnprof.core.crosscheck import Crosscheck
    from attnprof.core.device import DeviceSpec

PHASES = phases.PHASES


@dataclass(frozen=True, slots=True)
class Unpriced:
    """One op without a formula: how often it ran, on what, and the traffic the default rule gives it."""

    op: str
    calls: int
    shapes: tuple[str, ...]
    bytes: int


class Report:
    """What a run cost: totals, phases, modules, operators, and what nobody could price.

    FLOPs count 2 per multiply-add and masks are not deducted; bytes are per-op traffic. Every number is an
    exact integer. The tree's conservation law is checked when the report is made.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.priced: list[PricedOp] = [price(signature) for signature in trace.signatures]
        self.root: ModuleNode = tree.build(trace, self.priced)
        self.root.check(self._phases)
        #: The devices that the run is held against, the one of the tables first.
        self.devices: tuple[DeviceSpec, ...] = ()
        #: What other counters said of the run, where they were asked.
        self.crosschecks: tuple[Crosscheck, ...] = ()

    # Totals

    @property
    def total(self) -> Cost:
        """Everything that ran."""
        return Cost.sum(self._phases.values())

    @cached_property
    def _phases(self) -> dict[str, Cost]:
        found: dict[str, Cost] = {}
        calls: Counter[tuple[str, int]] = Counter()
        for (signature, scope), count in self.trace.counts().items():
            calls[self.trace.scopes[scope].phase, signature] += count
        for (phase, signature), count in calls.items():
            op = self.priced[signature]
            found[phase] = found.get(phase, ZERO) + op.cost * count
            if op.recompute:
                found[tree.again(phase)] = found.get(tree.again(phase), ZERO) + op.recompute * count
        return found

    @property
    def phases(self) -> dict[str, Cost]:
        """Cost by phase; the phases add up to :attr:`total`."""
        found = dict.fromkeys(PHASES, ZERO)
        for phase, cost in self._phases.items():
            found[phases.shown(phase)] += cost
        return found

    @property
    def ran(self) -> set[str]:
        """The phases in which any op ran, be it free or unpriced; torch's own marks for its profiler are none."""
        marks = {i for i, op in enumerate(self.trace.signatures) if op.op.startswith("profiler.")}
        return {self.trace.scopes[scope].phase for signature, scope in self.trace.counts() if signature not in marks}

    @property
    def model_flops(self) -> int:
        """Matmul FLOPs of forward and backward: what the model needs, whatever kernel ran."""
        return self.phases["forward"].matmul_flops + self.phases["backward"].matmul_flops

    @property
    def hardware_flops(self) -> int:
        """Matmul FLOPs of everything, recomputation included: what the hardware did."""
        return self.total.matmul_flops

    # Breakdowns

    def by_module(self, phase: str | None = None, inclusive: bool = True) -> dict[str, Cost]:
        """Cost by dotted module name, ``""`` being the root; with what is below (inclusive) or without.

        In one phase or in all. Raises :class:`AttnprofError` when there is no such phase.
        """
        wanted = (None,) if phase is None else phases.parts(phase)
        own = {node.fqn: Cost.sum(node.own(p) for p in wanted) for node in self.root.walk()}
        if not inclusive:
            return own

        def fill(node: ModuleNode) -> Cost:
            cost = own[node.fqn] + Cost.sum(fill(child) for child in node.children)
            own[node.fqn] = cost
            return cost

        fill(self.root)
        return own

    def by_operator(self, phase: str | None = None) -> dict[str, Cost]:
        """Cost by op, overload included (``aten.mm.default``), dearest first; in one phase or in all.

        Raises :class:`AttnprofError` when there is no such phase.
        """
        wanted = None if phase is None else phases.parts(phase)
        found: dict[str, Cost] = {}
        for node in self.root.walk():
            for (where, signature), calls in node.self_ops.items():
                op = self.priced[signature]
                for name, cost in ((where, op.cost), (tree.again(where), op.recompute)):
                    if (wanted is None or name in wanted) and (cost or name == where):
                        key = op.signature.op
                        found[key] = found.get(key, ZERO) + cost * calls
        return dict(sorted(found.items(), key=lambda item: (-item[1].flops, -item[1].bytes, item[0])))

    def operator_calls(self, phase: str | None = None) -> dict[str, int]:
        """How often each op ran, in one phase or in all."""
        wanted = None if phase is None else phases.parts(phase)
        found: Counter[str] = Counter()
        for (signature, scope), calls in self.trace.counts().items():
            if wanted is None or self.trace.scopes[scope].phase in wanted:
                found[self.trace.signatures[signature].op] += calls
        return dict(found)

    # Steps, memory and training

    @cached_property
    def steps(self) -> list[StepCost]:
        """What each step cost, up to each ``prof.step()``; they add up to :attr:`total`. Empty when none was marked."""
        return steps.steps(self.trace, self.priced)

    @cached_property
    def memory(self) -> MemorySummary | None:
        """What the run held in memory; None when memory was not tracked."""
        return None if self.trace.memory is None else MemorySummary(self.trace, self.trace.memory)

    @cached_property
    def training(self) -> Training | None:
        """How the backward compares with the forward, and why; None when no contraction ran in a backward."""
        return training.explain(self.trace, self.priced, self.root)

    # Devices

    def roofline_on(self, device: DeviceSpec) -> Roofline:
        """The least time that this run takes on a device, and what bounds it; computed once per device."""
        from attnprof.analysis.roofline import Roofline

        if device not in self._rooflines:
            self._rooflines[device] = Roofline(self.root, self.priced, self.trace, device)
        return self._rooflines[device]

    @property
    def rooflines(self) -> list[Roofline]:
        """The run on each of its :attr:`devices`."""
        return [self.roofline_on(device) for device in self.devices]

    @property
    def roofline(self) -> Roofline | None:
        """The run on its first device; None where it has none."""
        return self.roofline_on(self.devices[0]) if self.devices else None

    @cached_property
    def _rooflines(self) -> dict[DeviceSpec, Roofline]:
        return {}

    @property
    def pace(self) -> Pace | None:
        """How fast the steps were that ran bare, on the first of the devices; None when none was marked."""
        return self.pace_on(self.devices[0] if self.devices else None)

    def pace_on(self, device: DeviceSpec | None) -> Pace | None:
        """The same held against another device, or none."""
        if self.trace.timing is None:
            return None
        least = None if device is None else self.roofline_on(device).attainable_of
        return Pace(self.trace.timing, self.trace, self.priced, device, least)

    @cached_property
    def layer_times(self) -> MeasuredLayers | None:
        """How long the layers of a step took; None when they were not timed."""
        return layer_times.measured(self.trace, self.root)

    # Theory

    @cached_property
    def theory(self) -> Compared:
        """Measured against predicted: the comparisons, and which modules have no prediction and why."""
        from attnprof.analysis.comparison import compare  # it needs sympy, which takes a moment to load

        return compare(self.root, self.priced, self.memory)

    @property
    def comparisons(self) -> list[Comparison]:
        """Measured against predicted: matmul FLOPs by module and phase, and the vector FLOPs of forwards.

        Of the model as a whole also vector FLOPs and traffic by phase, parameters and saved bytes, where its formula
        has them. A module without a formula of its own is predicted to be the sum of those in it.
        """
        return list(self.theory.comparisons)

    # Honesty

    @cached_property
    def _calls(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for (signature, _), calls in self.trace.counts().items():
            found[signature] += calls
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Op calls by verdict: priced, free, unpriced."""
        found = {"priced": 0, "free": 0, "unpriced": 0}
        for signature, calls in self._calls.items():
            found[self.priced[signature].status] += calls
        return found

    @property
    def coverage(self) -> float:
        """The share of op calls that is priced or free, 0 to 1 (1 for a run without ops)."""
        counts = self.counts
        total = sum(counts.values())
        return 1 - counts["unpriced"] / total if total else 1.0

    @property
    def traffic_coverage(self) -> float:
        """The share of traffic that is priced, unpriced ops taken at the default byte rule, 0 to 1."""
        unknown = sum(self.priced[i].unknown_bytes * n for i, n in self._calls.items())
        known = self.total.bytes
        return known / (known + unknown) if known + unknown else 1.0

    @property
    def unpriced(self) -> dict[str, int]:
        """Ops without a formula, with their call counts."""
        return {op.op: op.calls for op in self.unpriced_ops}

    @cached_property
    def unpriced_ops(self) -> list[Unpriced]:
        """Ops without a formula, with shapes and traffic, heaviest first."""
        found: dict[str, list[tuple[OpSignature, int, int]]] = {}
        for i, calls in self._calls.items():
            op = self.priced[i]
            if op.status == "unpriced":
                found.setdefault(op.signature.op, []).append((op.signature, calls, op.unknown_bytes * calls))
        ops = [
            Unpriced(
                name,
                sum(calls for _, calls, _ in rows),
                tuple(f"({', '.join(map(str, s.inputs))})" for s, _, _ in rows),
                sum(traffic for _, _, traffic in rows),
            )
            for name, rows in found.items()
        ]
        return sorted(ops, key=lambda op: (-op.bytes, op.op))

    def require_priced(self) -> None:
        """Raise :class:`UnpricedError` when any op has no formula."""
        if self.unpriced_ops:
            names = ", ".join(
                f"{op.op} ({op.calls} {'call' if op.calls == 1 else 'calls'})" for op in self.unpriced_ops
            )
            several = len(self.unpriced_ops) > 1
            raise UnpricedError(
                f"{len(self.unpriced_ops)} {'ops have' if several else 'op has'} no formula: {names}. Price it with "
                f"attnprof.cost({self.unpriced_ops[0].op.rpartition('.')[0].replace('.', '::', 1)!r})."
            )

    @property
    def meta(self) -> dict[str, Scalar]:
        """How the run was made: torch version, model class, inputs, dtypes, fake or real."""
        return self.trace.meta

    @property
    def notes(self) -> list[str]:
        """What a reader must know to read the numbers right."""
        return self.trace.notes
