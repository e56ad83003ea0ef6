"""Measured time by module and phase: inclusive and self, as medians over steps, and what they do not explain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from attnprof.analysis import phases
from attnprof.analysis.tree import ModuleNode
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, ConservationError, closest
from attnprof.core.timing import Durations, LayerTimes
from attnprof.core.trace import Trace

#: The phases that a layer has a time in.
PHASES = phases.PHASES
#: A spread above this part of the median is said: half of the steps lie further apart.
WIDE = 0.1


class MeasuredLayers:
    """Where the time of a step went: the steps under torch's profiler, layer by layer, beside the bare ones.

    Each :class:`Durations` has one duration per step, in the order of the steps: those of layers, of
    :attr:`accumulation` and :attr:`unattributed` add up to :attr:`profiled`, step by step. Raises
    :class:`ConservationError` where they do not.
    """

    def __init__(self, times: LayerTimes, trace: Trace, root: ModuleNode) -> None:
        self.step = times.step
        self.profiled = times.profiled
        self.accumulation = times.accumulation
        self.unattributed = times.unattributed
        self.clock = times.clock
        #: ``cpu``, or the GPU as its driver names it; empty where it is not known.
        self.timed_on = str(trace.meta.get("timed_on", ""))
        self._nodes = list(root.walk())
        places = {id(node.record): node.fqn for node in self._nodes}
        names = [places[id(record)] for record in trace.modules]
        self._own: dict[str, dict[str, Durations]] = {node.fqn: {} for node in self._nodes}
        for layer in times.layers:
            own = self._own[names[layer.module]]
            own[layer.phase] = (
                Durations.added([layer.self_time, own[layer.phase]]) if layer.phase in own else layer.self_time
            )
        self._check()

    @property
    def steps(self) -> int:
        """How many steps ran under the profiler."""
        return self.profiled.count

    @property
    def attributed(self) -> float:
        """The part of the work in the profiled steps, 0 to 1, that a layer or the optimizer is known to have done.

        What is not is gradient accumulation, and ops that ran in no module; Python between ops is no work.
        """
        work = self.profiled.total_ns - self.unattributed.total_ns
        layers = sum(self.of(node.fqn, inclusive=False).total_ns for node in self._nodes if node.fqn != "(outside)")
        return layers / work if work else 0.0

    @property
    def overhead(self) -> float | None:
        """How much longer a step takes under the profiler, as a part of the bare one: 0.05 for 5%."""
        bare, profiled = self.step.median_ns, self.profiled.median_ns
        return None if not bare or profiled is None else profiled / bare - 1

    def is_of(self, device: DeviceSpec) -> bool:
        """Whether the time is one of this device, so that it has a share of its roofline.

        A device of a file of one's own, which does not say what it is, is taken for the one that ran.
        """
        if device.target == "cpu":
            return self.clock == "cpu"
        if self.clock == "cpu":
            return not (device.vendor or device.reported_as)
        return not device.reported_as or self.timed_on in device.reported_as

    @property
    def phases(self) -> list[str]:
        """The phases that any layer spent time in."""
        return [phase for phase in PHASES if any(phase in own for own in self._own.values())]

    def of(self, fqn: str, phase: str | None = None, inclusive: bool = True) -> Durations:
        """The time of the module of a dotted name or alias, in one phase or in all, with what is below it or without.

        Raises :class:`AttnprofError` when there is no such module or phase.
        """
        phases.check(phase)
        name = self._names.get(fqn)
        if name is None:
            raise AttnprofError(f'no module "{fqn}" in this run.{closest(fqn, self._names)}')
        table = self._inclusive if inclusive else self._own
        times = table[name].values() if phase is None else [table[name].get(phase, self.none)]
        return Durations.added([self.none, *times])

    def by_module(self, phase: str | None = None, inclusive: bool = True) -> dict[str, Durations]:
        """Every module by its dotted name, in one phase or in all, with what is below it or without."""
        return {node.fqn: self.of(node.fqn, phase, inclusive) for node in self._nodes}

    @cached_property
    def none(self) -> Durations:
        """No time, in each of the steps."""
        return Durations(self.profiled.count, 0, (0,) * len(self.profiled.sample_ns))

    @cached_property
    def _names(self) -> dict[str, str]:
        aliases = {alias: node.fqn for node in self._nodes for alias in node.aliases}
        return aliases | {node.fqn: node.fqn for node in self._nodes}

    @cached_property
    def _inclusive(self) -> Mapping[str, Mapping[str, Durations]]:
        found: dict[str, dict[str, Durations]] = {}
        for node in reversed(self._nodes):  # children before parents
            parts = [self._own[node.fqn], *(found[child.fqn] for child in node.children)]
            phases = {phase: None for part in parts for phase in part}
            found[node.fqn] = {
                phase: Durations.added([part[phase] for part in parts if phase in part]) for phase in phases
            }
        return found

    def _check(self) -> None:
        found = Durations.added([self.none, self.accumulation, self.unattributed, self.of("")])
        if found != self.profiled:
            raise ConservationError(
                f"the times of the layers add up to {found.total_ns:,} ns, the steps to {self.profiled.total_ns:,} ns: "
                "a defect in attnprof, please report it."
            )


def measured(trace: Trace, root: ModuleNode) -> MeasuredLayers | None:
    """The measured time of a trace's layers; None where no layer was timed."""
    return None if trace.layer_times is None else MeasuredLayers(trace.layer_times, trace, root)
