"""A trace whose layers took times given by hand: two Linears and a tanh between them, in four steps."""

from __future__ import annotations

from attnprof import Report
from attnprof.core.timing import Durations, LayerTime, LayerTimes
from attnprof.core.trace import OUTSIDE, ROOT
from reports.traces import Hand, mm

#: In milliseconds, by module and phase: one time for each of four steps.
LAYERS = {
    (ROOT, "forward"): (1, 1, 1, 1),
    (3, "forward"): (10, 12, 14, 16),
    (3, "backward"): (20, 20, 20, 60),
    (5, "forward"): (4, 4, 4, 4),
    (5, "backward"): (8, 8, 8, 8),
    (OUTSIDE, "other"): (2, 2, 2, 2),
}
ACCUMULATION, BETWEEN = (3, 3, 3, 3), (5, 6, 7, 8)
BARE = (40, 42, 44, 46)
MS = 10**6


def durations(each: tuple[int, ...]) -> Durations:
    return Durations.of([ms * MS for ms in each])


def whole() -> tuple[int, ...]:
    """The profiled steps: the sum of their parts."""
    return tuple(map(sum, zip(*LAYERS.values(), ACCUMULATION, BETWEEN, strict=True)))


def times(profiled: tuple[int, ...] | None = None, bare: tuple[int, ...] = BARE, clock: str = "cpu") -> LayerTimes:
    layers = tuple(LayerTime(module, phase, durations(each)) for (module, phase), each in LAYERS.items())
    return LayerTimes(
        durations(bare), durations(profiled or whole()), layers, durations(ACCUMULATION), durations(BETWEEN), clock
    )


def report(found: LayerTimes | None) -> Report:
    """``a`` runs 2·4·8·8 FLOPs forward and twice that backward, ``b`` nothing, ``c`` half of ``a``."""
    hand = Hand("Net").add("a").add("b", "Tanh").add("c")
    for fqn, width in (("a", 8), ("c", 4)):
        hand.ran(fqn, mm(4, 8, width)).ran(fqn, mm(4, 8, width), "backward", 2)
    hand.trace.layer_times = found
    hand.trace.meta["timed_on"] = found.clock if found else ""
    return Report(hand.trace)
