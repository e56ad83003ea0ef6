"""A run as spans of time: every op call that does work, the modules around it, the steps.

With a device, a call takes its attainable time there and the calls follow each other: a timeline of what could be
reached. Where layers were timed, they take their measured time, and the calls of a layer share it. Without
either there is no time, only order: every call is as long as any other.
Spans begin and end at whole nanoseconds, the sum before them rounded once, so that a parent's always
holds its children's and no error adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from attnprof.analysis import module_paths, steps
from attnprof.analysis.measured_clock import MeasuredClock, phase_of
from attnprof.analysis.roofline_clock import Clock, OpTime, kinds
from attnprof.core.device import DeviceSpec
from attnprof.core.roofline import Bound
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

#: How long a call is where no device gives it a time.
UNIT_NS = 1_000
#: Calls that a timeline has at most: with the modules and counters around them, viewers hold not many more.
MOST = 100_000


@dataclass(frozen=True, slots=True)
class CallSpan:
    """Op call ``event`` of the trace, which did some work.

    ``attainable_ns`` (unrounded) and ``bound`` are None without a device, and so is the bound of a call for whose
    work the device states no rate. ``flops_per_s`` is the rate of the call by its attainable time, or that of its
    whole layer by measured time; None where there is no time. The call stands for ``times`` calls: its own,
    and those of steps like its own.
    """

    event: int
    signature: int
    module: int
    phase: str
    start: int
    stop: int
    bound: Bound | None
    attainable_ns: float | None
    flops_per_s: float | None
    times: int


@dataclass(frozen=True, slots=True)
class ModuleSpan:
    """The calls ``first`` to ``last`` - 1 of a timeline, all of one phase and of a module or of what is below it.

    ``depth`` modules are around it.
    """

    module: int
    phase: str
    depth: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class StepSpan:
    """One counted step, which stands for ``times`` steps."""

    label: str
    start: int
    stop: int
    times: int


@dataclass(frozen=True, slots=True)
class Spans:
    """A run on a timeline that begins at 0 ns.

    ``starts[e]`` is when op call ``e`` begins; the last entry is the end. ``free`` calls do no work and
    have no span; ``left_out`` calls came after as many as a timeline holds. ``measured`` is the clock of a timeline of
    measured time.
    """

    calls: Sequence[CallSpan]
    modules: Sequence[ModuleSpan]
    steps: Sequence[StepSpan]
    starts: Sequence[int]
    free: int
    left_out: int
    measured: MeasuredClock | None = None


def spans(
    trace: Trace, priced: Sequence[PricedOp], device: DeviceSpec | None, most: int = MOST, measured: bool = False
) -> Spans:
    """The timeline of a trace whose signature ``i`` has the price ``priced[i]``, of its first ``most`` calls.

    By attainable time on the device; where it is ``measured``, by the time of the layers, of which a call has a share
    like its attainable time or, without a device, its traffic. Steps that were not counted because one like
    them was are not drawn again. Raises :class:`AttnprofError` for a device with a rate that is not positive, and for
    measured time of a trace whose layers were not timed.
    """
    clock = None if device is None else Clock(device, kinds(priced))
    times = None if clock is None else [clock.op(op) for op in priced]
    lengths = [UNIT_NS] * len(priced) if times is None else [took.own + took.again for took in times]
    works = [op.does_work for op in priced]
    per_second = 10**9 if clock is None else clock.per_second
    layers = None
    if measured:
        layers = MeasuredClock(trace, priced, [op.moved for op in priced] if times is None else lengths)

    repeated = _repeated(trace)
    calls: list[CallSpan] = []
    starts, free, ticks, now = [0], 0, 0, 0
    for event, signature in enumerate(trace.event_signatures):
        if works[signature]:
            if len(calls) == most:
                break
            scope = trace.scopes[trace.event_scopes[event]]
            phase = phase_of(scope.phase)
            took = None if times is None else times[signature]
            attainable = None if took is None else lengths[signature] * 10**9 / per_second
            if layers is None:
                ticks += lengths[signature]
                now = _nanoseconds(ticks, per_second)
                rate = priced[signature].flops / attainable * 1e9 if attainable else None
            else:
                share = layers.next_call((scope.module, phase), signature)
                now, rate = now + share.ns, share.flops_per_s
            calls.append(
                CallSpan(
                    event,
                    signature,
                    scope.module,
                    phase,
                    starts[-1],
                    now,
                    _bound(took),
                    attainable,
                    rate,
                    repeated[event],
                )
            )
        else:
            free += 1
        starts.append(now)
    drawn = len(starts) - 1
    return Spans(
        calls,
        list(_modules(calls, trace)),
        list(_steps(trace, starts)),
        starts,
        free,
        sum(works[signature] for signature in trace.event_signatures[drawn:]),
        layers,
    )


def _modules(calls: Sequence[CallSpan], trace: Trace) -> Iterator[ModuleSpan]:
    """A span is open as long as the calls stay in its module, in the same phase and step."""
    chains = module_paths.chains(trace)
    ends = iter([*trace.steps, len(trace)])
    end = next(ends)
    opened: list[tuple[int, int]] = []  # module and first call
    phase, now = "", 0

    def closed(down_to: int, last: int) -> Iterator[ModuleSpan]:
        while len(opened) > down_to:
            module, first = opened.pop()
            if now > calls[first].start:  # nothing to see of one without length
                yield ModuleSpan(module, phase, len(opened), calls[first].start, now, first, last)

    for position, call in enumerate(calls):
        chain = chains[call.module]
        shared = 0
        if call.phase == phase and call.event < end:
            pairs = zip(opened, chain, strict=False)
            shared = next((i for i, (old, new) in enumerate(pairs) if old[0] != new), min(len(opened), len(chain)))
        yield from closed(shared, position)
        while call.event >= end:
            end = next(ends)
        opened += [(module, position) for module in chain[shared:]]
        phase, now = call.phase, call.stop
    yield from closed(0, len(calls))


def _steps(trace: Trace, starts: Sequence[int]) -> Iterator[StepSpan]:
    ends = steps.step_ends(trace)
    if not ends:
        return
    before, last = 0, len(starts) - 1
    for position, ((label, _), end) in enumerate(zip(steps.step_calls(trace), ends, strict=False)):
        if end > before >= last:
            return  # left out
        times = trace.times(end) if position < len(trace.steps) else 1  # what ran after the last step is none
        yield StepSpan(label, starts[min(before, last)], starts[min(end, last)], times)
        before = end


def _repeated(trace: Trace) -> list[int]:
    """How many times each op call ran: once, and in every step that is taken to be like its own."""
    changes = [1] + [0] * len(trace)
    for repeat in trace.repeats:
        changes[repeat.start] += repeat.times
        changes[repeat.stop] -= repeat.times
    return list(accumulate(changes))


def _bound(took: OpTime | None) -> Bound | None:
    return took.bound if took is not None and took.own + took.again else None


def _nanoseconds(ticks: int, per_second: int) -> int:
    """Ticks as whole nanoseconds, the nearest."""
    return (2 * ticks * 10**9 + per_second) // (2 * per_second)
