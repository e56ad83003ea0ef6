"""Measured time: of whole steps, and of the layers in one. Whole nanoseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: The most durations that are kept of a long run; of more, an even sample is.
SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, each time: how often, all together, and an even sample in the order they came."""

    count: int = 0
    total_ns: int = 0
    sample_ns: tuple[int, ...] = ()

    @classmethod
    def of(cls, each_ns: list[int] | tuple[int, ...]) -> Durations:
        """Of every single duration."""
        stride = -(-len(each_ns) // SAMPLE) or 1
        return cls(len(each_ns), sum(each_ns), tuple(each_ns[::stride]))

    @classmethod
    def added(cls, several: Sequence[Durations]) -> Durations:
        """Durations of the same steps, added up step by step."""
        return cls(
            several[0].count,
            sum(one.total_ns for one in several),
            tuple(map(sum, zip(*(one.sample_ns for one in several), strict=True))),
        )

    def quantile_ns(self, part: float) -> int | None:
        """The duration that ``part`` (0 to 1) of the sample do not exceed; None of nothing."""
        ordered = sorted(self.sample_ns)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else None

    @property
    def median_ns(self) -> int | None:
        return self.quantile_ns(0.5)

    @property
    def spread(self) -> float | None:
        """Half of them lie within this part of the median (interquartile range / median); None below 4."""
        low, middle, high = (self.quantile_ns(part) for part in (0.25, 0.5, 0.75))
        if len(self.sample_ns) < 4 or low is None or high is None or not middle:
            return None
        return (high - low) / middle


@dataclass(frozen=True, slots=True)
class StepKind:
    """Steps that called the model alike: counted when they were new, then run bare, and timed.

    ``inputs`` are the model's calls in the step, as text; ``pieces`` the ranges ``(start, stop)`` of op calls
    that one such step consists of. ``counted`` and ``reused`` say how many steps there were of each. ``times``
    are those of the reused ones; ``tokens`` and ``samples`` what they processed, where the program said so.
    """

    inputs: tuple[str, ...]
    pieces: tuple[tuple[int, int], ...]
    counted: int
    reused: int
    times: Durations = field(default_factory=Durations)
    tokens: int | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """The steps of a run by kind, and the clock they were timed with (``perf_counter`` or ``cuda events``)."""

    kinds: tuple[StepKind, ...]
    clock: str = "perf_counter"
    recount_every: int | None = None


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The ops of one module (an index) in one phase: their own time in each profiled step."""

    module: int
    phase: str
    self_time: Durations


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Where the time of a step goes: bare steps timed as a whole, then steps under torch's profiler, op by op.

    ``step`` are the bare steps, ``profiled`` the same under the profiler. ``layers`` add up, with
    ``accumulation`` (adding gradients to those of parameters, which name no module) and ``unattributed``
    (Python between ops), to ``profiled``: step by step, as their samples are of the same steps. Ops that no
    module ran are a layer of their own, as in the trace. ``clock`` is ``cpu`` or ``cuda``: the time
    of the ops on the host, or of their kernels.
    """

    step: Durations
    profiled: Durations
    layers: tuple[LayerTime, ...]
    accumulation: Durations
    unattributed: Durations
    clock: str = "cpu"
