"""The measured time of layers, laid on their op calls: a layer's own time is measured, its calls share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from attnprof.core.errors import AttnprofError
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

#: A module (an index) and a phase.
Layer = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a call of a layer takes, and the FLOP/s that the whole layer reaches."""

    ns: int
    flops_per_s: float


class MeasuredClock:
    """Times of op calls, in order, whose sum over a layer is the median of its own time in the profiled steps.

    A layer is a module in a phase, without what is below it. Its calls that do work share its time in proportion to
    ``shares``, one of each signature; equally where those are all 0. Raises :class:`AttnprofError` for a
    trace whose layers were not timed.
    """

    def __init__(self, trace: Trace, priced: Sequence[PricedOp], shares: Sequence[int]) -> None:
        if trace.layer_times is None:
            raise AttnprofError("the layers of this run were not timed, so there is no measured time: run with --time.")
        self.times = trace.layer_times
        self._shares = shares
        own: Counter[Layer] = Counter()
        for timed in self.times.layers:
            own[timed.module, timed.phase] += timed.self_time.median_ns or 0
        self._own: Mapping[Layer, int] = own
        self._weights: Counter[Layer] = Counter()
        self._calls: Counter[Layer] = Counter()
        flops: Counter[Layer] = Counter()
        for (signature, scope), calls in trace.between(0, len(trace)).items():
            op = priced[signature]
            if not op.does_work:
                continue
            layer = layer_of(trace, scope)
            self._weights[layer] += calls * shares[signature]
            self._calls[layer] += calls
            flops[layer] += calls * op.flops
        self._rates = {layer: flops[layer] / own[layer] * 1e9 if own[layer] else 0.0 for layer in self._calls}
        self._given: dict[Layer, tuple[int, int]] = {}

    def next_call(self, layer: Layer, signature: int) -> Measured:
        """The time of the next call of a layer that does work: the step between two rounded sums."""
        equal = not self._weights[layer]
        share, whole = (1, self._calls[layer]) if equal else (self._shares[signature], self._weights[layer])
        weight, given = self._given.get(layer, (0, 0))
        weight += share
        now = self._own[layer] * weight // whole
        self._given[layer] = (weight, now)
        return Measured(now - given, self._rates[layer])

    @cached_property
    def without_work_ns(self) -> int:
        """The measured time of layers none of whose op calls does any work: no call can show it."""
        return sum(ns for layer, ns in self._own.items() if layer not in self._calls)


def layer_of(trace: Trace, scope: int) -> Layer:
    """Where the calls of a scope are timed."""
    found = trace.scopes[scope]
    return found.module, phase_of(found.phase)


def phase_of(phase: str) -> str:
    """The phase that a report shows it as."""
    return "optimizer" if phase == "optimizer_init" else phase
