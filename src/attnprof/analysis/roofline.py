"""A run on a device: the least time of every op, summed over modules, phases, operators and steps.

Each op takes at least max(arithmetic at the peaks of its dtypes, traffic at the bandwidth, launch overhead). The
time of a module is the sum over its ops, never the roofline of its summed cost. Of a fused attention backward,
which rebuilds the scores, ``recompute`` is charged what the rebuilding adds to the time of the call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from attnprof.analysis import phases, steps, tree
from attnprof.analysis.roofline_clock import NONE, Clock, Sums, Ticks, kinds
from attnprof.analysis.roofline_fused import Amount, Fused, fuse
from attnprof.analysis.roofline_notes import sentences
from attnprof.analysis.tree import ModuleNode
from attnprof.core.cost import ZERO, Cost
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, ConservationError, closest
from attnprof.core.roofline import Attainable, MissingPeak, OperatorPoint, Ridge, RooflinePoint, StepPoint
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

#: The phases of a point. The creation of optimizer state is part of ``optimizer``.
PHASES = phases.PHASES
_Calls = Mapping[tuple[str, int], int]  # by phase and signature


class Roofline:
    """The attainable time of a run on one device.

    ``root`` is the module tree of ``trace``, whose signature ``i`` has the price ``priced[i]``. Times are lower
    bounds: :attr:`missing` and :attr:`notes` say what is not in them. Raises :class:`AttnprofError` for a
    device with a rate that is not positive.
    """

    def __init__(self, root: ModuleNode, priced: Sequence[PricedOp], trace: Trace, device: DeviceSpec) -> None:
        self.device = device
        self._priced = priced
        self._trace = trace
        self._clock = Clock(device, kinds(priced))
        self._times = [self._clock.op(op) for op in priced]
        self._nodes = list(root.walk())
        self._own = [self._sums(node.self_ops) for node in self._nodes]
        self._own_costs = [_shown_costs(node) for node in self._nodes]
        self._inclusive, self._costs = self._summed_up()
        self._check()

    # Totals

    @property
    def total(self) -> RooflinePoint:
        """Everything that ran."""
        return self._point(0, None)

    @cached_property
    def by_phase(self) -> dict[str, RooflinePoint]:
        """Everything that ran, by phase; the phases add up to :attr:`total`."""
        return {phase: self._point(0, phase) for phase in PHASES}

    # Modules

    @cached_property
    def points(self) -> list[RooflinePoint]:
        """Every module with what is below it, over all phases, in the order of the tree; the root comes first."""
        return [self._point(index, None) for index in range(len(self._nodes))]

    def point(self, fqn: str, phase: str | None = None, inclusive: bool = True) -> RooflinePoint:
        """The module of a dotted name or alias, in one phase or in all, with what is below it or without.

        Raises :class:`AttnprofError` when there is no such module or phase.
        """
        phases.check(phase)
        if fqn not in self._named:
            raise AttnprofError(f'no module "{fqn}" in this run.{closest(fqn, self._named)}')
        return self._point(self._named[fqn], phase, inclusive)

    def by_module(self, phase: str | None = None, inclusive: bool = True) -> dict[str, RooflinePoint]:
        """Every module by its dotted name, in one phase or in all, with what is below it or without."""
        phases.check(phase)
        return {node.fqn: self._point(index, phase, inclusive) for index, node in enumerate(self._nodes)}

    # Operators and steps

    def by_operator(self, phase: str | None = None) -> dict[str, OperatorPoint]:
        """Every op (``aten.mm.default``) by name, longest time first; they add up to the total or the phase."""
        phases.check(phase)
        calls: Counter[str] = Counter()
        costs: dict[str, Cost] = {}
        sums = Sums()
        for (where, signature), count in self._counted(self._trace.counts()).items():
            op, time = self._priced[signature], self._times[signature]
            name, again = op.signature.op, tree.again(where)
            for part, cost, ticks in ((where, op.cost, time.own), (again, op.recompute, time.again)):
                if phase in (None, part) and (part == where or cost):
                    costs[name] = costs.get(name, ZERO) + cost * count
                    sums.add(name, time.bound, ticks * count)
            if phase in (None, where) or (op.recompute and phase == again):
                calls[name] += count
        times = sums.ticks()
        order = sorted(times, key=lambda name: (-times[name].total, -costs[name].flops, name))
        return {
            name: OperatorPoint(name, phase, calls[name], costs[name], self._clock.attainable(times[name]))
            for name in order
        }

    @cached_property
    def steps(self) -> list[StepPoint]:
        """Each step of the run, up to each ``prof.step()``; empty when none was marked."""
        found = []
        costs = steps.steps(self._trace, self._priced)
        for step, (_, calls) in zip(costs, steps.step_calls(self._trace), strict=True):
            times = self._sums(self._counted(calls))
            by_phase = {phase: self._made("", phase, step.phases, times) for phase in PHASES if phase in step.phases}
            found.append(StepPoint(step.label, self._made("", None, step.phases, times), by_phase))
        return found

    def attainable_of(self, calls: Mapping[tuple[int, int], int]) -> Attainable:
        """The least time of some op calls, given by (signature, scope)."""
        return self._clock.attainable(sum(self._sums(self._counted(calls)).values(), NONE))

    # The device

    @cached_property
    def ridges(self) -> list[Ridge]:
        """The ridge points of the dtypes and engines that did work, those that did most of it first."""
        found = []
        for engine, dtype, _ in sorted(self.total.cost.split, key=lambda part: -part[2]):
            peak = self.device.find_peak(dtype, engine)
            ridge = self.device.ridge(dtype, engine)
            if peak is not None and ridge is not None:
                found.append(Ridge(engine, dtype, peak.flops_per_s, ridge))
        return found

    @property
    def ridge(self) -> Ridge | None:
        """The ridge point of the dtype that most matmul FLOPs are in; without any, of most vector FLOPs."""
        return next((ridge for ridge in self.ridges if ridge.engine == "matmul"), next(iter(self.ridges), None))

    @cached_property
    def missing(self) -> list[MissingPeak]:
        """The FLOPs that take no time here, because the device has no known peak for them; most first."""
        cost = self.total.cost
        return [
            MissingPeak(engine, dtype, flops, flops / cost.flops, self.device.wider_peak(dtype, engine))
            for engine, dtype, flops in sorted(cost.split, key=lambda part: -part[2])
            if self.device.peak(dtype, engine) is None
        ]

    @cached_property
    def notes(self) -> list[str]:
        """What is not in the times, one sentence each."""
        calls: Counter[int] = Counter()
        for (signature, _), count in self._trace.counts().items():
            if self._priced[signature].status == "unpriced":
                calls[signature] += count
        traffic = sum(self._priced[signature].unknown_bytes * count for signature, count in calls.items())
        return list(sentences(self.device, self.total.cost, self.missing, calls.total(), traffic))

    # Sums

    def _point(self, index: int, phase: str | None, inclusive: bool = True) -> RooflinePoint:
        times = self._inclusive[index] if inclusive else self._own[index]
        costs = self._costs[index] if inclusive else self._own_costs[index]
        point = self._made(self._nodes[index].fqn, phase, costs, times)
        if not inclusive:
            return point
        parts = self._fused[index]
        fused = sum(parts.values(), Fused()) if phase is None else parts.get(phase, Fused())
        seconds = None if fused.ticks is None else self._clock.seconds(fused.ticks)
        return replace(point, footprint_bytes=fused.bytes, fused_s=seconds)

    def _made(
        self, module: str, phase: str | None, costs: Mapping[str, Cost], times: Mapping[str, Ticks]
    ) -> RooflinePoint:
        if phase is None:
            cost, ticks = Cost.sum(costs.values()), sum(times.values(), NONE)
        else:
            cost, ticks = costs.get(phase, ZERO), times.get(phase, NONE)
        return RooflinePoint(module, phase, cost, self._clock.attainable(ticks))

    @cached_property
    def _named(self) -> dict[str, int]:
        """The positions of the modules by name; another name of one is none where a module has it."""
        names = {alias: index for index, node in enumerate(self._nodes) for alias in node.aliases}
        return names | {node.fqn: index for index, node in enumerate(self._nodes)}

    @cached_property
    def _fused(self) -> list[dict[str, Fused]]:
        """The footprint of every module with what is below it, by phase."""
        own = []
        for node, costs, times in zip(self._nodes, self._own_costs, self._own, strict=True):
            traffic = {phase: cost.bytes for phase, cost in costs.items()}
            for (where, signature), count in node.self_ops.items():
                unknown = self._priced[signature].unknown_bytes * count
                if unknown:
                    traffic[_shown(where)] = traffic.get(_shown(where), 0) + unknown
            own.append(
                {
                    phase: Amount(
                        traffic.get(phase, 0),
                        self._clock.arithmetic(costs.get(phase, ZERO)),
                        times.get(phase, NONE).total,
                    )
                    for phase in traffic.keys() | times.keys()
                }
            )
        return fuse(self._nodes, own, self._clock)

    def _sums(self, calls: _Calls) -> dict[str, Ticks]:
        """The time of op calls by phase."""
        sums = Sums()
        for (where, signature), count in calls.items():
            phase, (bound, own, again) = _shown(where), self._times[signature]
            sums.add(phase, bound, own * count)
            if again:
                sums.add(tree.again(phase), bound, again * count)
        return sums.ticks()

    def _counted(self, pairs: Mapping[tuple[int, int], int]) -> Counter[tuple[str, int]]:
        """Calls by phase and signature, from those by signature and scope."""
        found: Counter[tuple[str, int]] = Counter()
        for (signature, scope), count in pairs.items():
            found[_shown(self._trace.scopes[scope].phase), signature] += count
        return found

    def _summed_up(self) -> tuple[list[dict[str, Ticks]], list[dict[str, Cost]]]:
        """The times and costs of every module with what is below it."""
        times = [dict(own) for own in self._own]
        costs = [dict(own) for own in self._own_costs]
        position = {id(node): index for index, node in enumerate(self._nodes)}
        for index in reversed(range(len(self._nodes))):  # what is below a module comes after it
            for child in self._nodes[index].children:
                below = position[id(child)]
                for phase, ticks in times[below].items():
                    times[index][phase] = times[index].get(phase, NONE) + ticks
                for phase, cost in costs[below].items():
                    costs[index][phase] = costs[index].get(phase, ZERO) + cost
        return times, costs

    def _check(self) -> None:
        """Raise unless the times of the modules add up to those of the ops, counted without the tree."""
        calls: Counter[int] = Counter()
        for (signature, _), count in self._trace.counts().items():
            calls[signature] += count
        ops = sum((time.own + time.again) * calls[signature] for signature, time in enumerate(self._times))
        modules = sum(ticks.total for own in self._own for ticks in own.values())
        if modules != ops or sum(ticks.total for ticks in self._inclusive[0].values()) != ops:
            raise ConservationError(
                f"on {self.device.id} the times of the modules add up to {self._clock.seconds(modules)} s, those "
                f"of the ops to {self._clock.seconds(ops)} s: a defect in attnprof, please report it."
            )


def _shown_costs(node: ModuleNode) -> dict[str, Cost]:
    found: dict[str, Cost] = {}
    for phase, cost in node.self_costs.items():
        found[_shown(phase)] = found.get(_shown(phase), ZERO) + cost
    return found


def _shown(phase: str) -> str:
    return "optimizer" if phase == "optimizer_init" else phase
