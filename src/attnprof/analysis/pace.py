"""How fast a run's steps were: achieved FLOP/s, model and hardware FLOPs utilisation, tokens and samples per second.

Of the steps that ran bare and were timed. Utilisation is the time that the matmul FLOPs take at the device's dense
peaks, each dtype at its own, as a part of the time that they took: with one dtype, achieved FLOP/s over the peak.
Model FLOPs (MFU) are those of forward and backward, hardware FLOPs (HFU) all, recomputation included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from attnprof.analysis import tree
from attnprof.core.achieved import Achieved
from attnprof.core.cost import ZERO, Cost
from attnprof.core.device import DeviceSpec
from attnprof.core.roofline import Attainable
from attnprof.core.timing import Durations, StepKind, Timing
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

_MODEL = ("forward", "backward")
#: Half of the steps differ by more than this part of the median: the machine was doing something else.
WIDE = 0.1


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step does: its cost, and the part of it that is the model's own, forward and backward."""

    cost: Cost
    model: Cost

    @classmethod
    def of(cls, calls: Mapping[tuple[int, int], int], trace: Trace, price: Callable[[int], PricedOp]) -> StepWork:
        """Of op calls by (signature, scope), where ``price`` gives that of a signature."""
        phases: dict[str, Cost] = {}
        by_phase: Counter[tuple[str, int]] = Counter()
        for (signature, scope), count in calls.items():
            by_phase[trace.scopes[scope].phase, signature] += count
        for (phase, signature), count in by_phase.items():
            op = price(signature)
            for where, cost in ((phase, op.cost), (tree.again(phase), op.recompute)):
                phases[where] = phases.get(where, ZERO) + cost * count
        return cls(Cost.sum(phases.values()), Cost.sum(phases.get(phase, ZERO) for phase in _MODEL))


def calls_of(pieces: Iterable[tuple[int, int]], trace: Trace) -> Counter[tuple[int, int]]:
    """The op calls in some ranges of a trace, by (signature, scope)."""
    found: Counter[tuple[int, int]] = Counter()
    for start, stop in pieces:
        found.update(trace.between(start, stop))
    return found


def utilisation(cost: Cost, seconds: float, device: DeviceSpec) -> float | None:
    """The part, 0 to 1, of a time that the matmul FLOPs in ``cost`` take at the dense peaks of their dtypes.

    None where there are none, or a dtype has no known peak: no other stands in for it.
    """
    ideal = 0.0
    for engine, dtype, flops in cost.split:
        if engine == "matmul":
            peak = device.peak(dtype)
            if peak is None:
                return None
            ideal += flops / peak
    return ideal / seconds if ideal and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Live:
    """The pace of the moment: seconds per step, matmul FLOP/s of the model, and utilisation where it is known."""

    step_s: float
    flops_per_s: float
    mfu: float | None
    hfu: float | None

    @classmethod
    def of(cls, work: StepWork, latest_ns: Sequence[int], device: DeviceSpec | None) -> Live:
        seconds = median(latest_ns) / 1e9
        return cls(
            step_s=seconds,
            flops_per_s=work.model.matmul_flops / seconds if seconds else 0.0,
            mfu=None if device is None else utilisation(work.model, seconds, device),
            hfu=None if device is None else utilisation(work.cost, seconds, device),
        )

    def __str__(self) -> str:
        return f"MFU {self.mfu:.1%}" if self.mfu is not None else f"{self.flops_per_s / 1e9:.3g} GFLOP/s"


@dataclass(frozen=True, slots=True)
class KindPace:
    """Steps of one kind: what one does, and how long it takes (the median), in seconds.

    ``achieved`` holds that against what the device could; None without a device.
    """

    kind: StepKind
    work: StepWork
    achieved: Achieved | None = None

    @property
    def step_s(self) -> float | None:
        """None when none was timed."""
        nanoseconds = self.kind.times.median_ns
        return None if nanoseconds is None else nanoseconds / 1e9


class Pace:
    """The timed steps of a run, all together and by kind, on a device or none.

    ``attainable`` gives the least time that op calls take on the device.
    """

    def __init__(
        self,
        timing: Timing,
        trace: Trace,
        priced: Sequence[PricedOp],
        device: DeviceSpec | None = None,
        attainable: Callable[[Mapping[tuple[int, int], int]], Attainable] | None = None,
    ) -> None:
        self.timing = timing
        self.device = device
        self.kinds: list[KindPace] = []
        for kind in timing.kinds:
            calls = calls_of(kind.pieces, trace)
            least = None if attainable is None else attainable(calls)
            middle = kind.times.median_ns
            achieved = None
            if device is not None and middle and least is not None and least.seconds:
                parts = {"launch_s": least.launch_s, "compute_s": least.compute_s}
                achieved = Achieved(device.id, middle / 1e9, least.seconds, **parts)
            self.kinds.append(KindPace(kind, StepWork.of(calls, trace, priced.__getitem__), achieved))

    @property
    def counted(self) -> int:
        """Steps that were counted."""
        return sum(kind.counted for kind in self.timing.kinds)

    @property
    def reused(self) -> int:
        """Steps that ran bare, with the counts of those like them."""
        return sum(kind.reused for kind in self.timing.kinds)

    @property
    def timed(self) -> int:
        """Steps that were timed: those that ran bare from end to end."""
        return sum(kind.times.count for kind in self.timing.kinds)

    @property
    def seconds(self) -> float:
        """The time of all timed steps."""
        return sum(kind.times.total_ns for kind in self.timing.kinds) / 1e9

    @property
    def main(self) -> KindPace | None:
        """The kind that most of the time went to; None when no step was timed."""
        timed = [pace for pace in self.kinds if pace.kind.times.count]
        return max(timed, key=lambda pace: pace.kind.times.total_ns, default=None)

    @property
    def flops_per_s(self) -> float | None:
        """Achieved matmul FLOP/s of the model; None when no step was timed."""
        return self._per_second(self._done("model").matmul_flops)

    @property
    def hardware_flops_per_s(self) -> float | None:
        """Achieved matmul FLOP/s of everything that ran."""
        return self._per_second(self._done("cost").matmul_flops)

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation, 0 to 1; None without a device, a timed step or a known peak."""
        return None if self.device is None else utilisation(self._done("model"), self.seconds, self.device)

    @property
    def hfu(self) -> float | None:
        """Hardware FLOPs utilisation."""
        return None if self.device is None else utilisation(self._done("cost"), self.seconds, self.device)

    @property
    def tokens_per_s(self) -> float | None:
        """Of the steps that ``prof.step(tokens=...)`` told how many."""
        return self._rate([(kind.tokens, kind.times) for kind in self.timing.kinds])

    @property
    def samples_per_s(self) -> float | None:
        """Of the steps that ``prof.step(samples=...)`` told how many."""
        return self._rate([(kind.samples, kind.times) for kind in self.timing.kinds])

    @property
    def missing(self) -> list[str]:
        """Dtypes of matmul FLOPs that the device has no known peak for: there is no utilisation then."""
        if self.device is None:
            return []
        return sorted(
            {d for engine, d, _ in self._done("cost").split if engine == "matmul" and self.device.peak(d) is None}
        )

    def _done(self, part: str) -> Cost:
        """What all timed steps did."""
        return Cost.sum(getattr(pace.work, part) * pace.kind.times.count for pace in self.kinds)

    def _per_second(self, number: int) -> float | None:
        return number / self.seconds if self.seconds else None

    @staticmethod
    def _rate(told: Sequence[tuple[int | None, Durations]]) -> float | None:
        seconds = sum(times.total_ns for number, times in told if number) / 1e9
        return sum(number for number, _ in told if number) / seconds if seconds else None
