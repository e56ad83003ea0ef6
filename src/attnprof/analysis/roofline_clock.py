"""The least time of one op on a device, exactly: whole ticks of a clock that divides every rate of the device.

    time = max(sum over engines and dtypes of FLOPs / peak, traffic / bandwidth, launch overhead)

Ticks are integers, so times add up to the same sum in any order; they become seconds once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, lcm
from typing import NamedTuple

from attnprof.core.cost import Cost, Engine
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.roofline import Attainable, Bound
from attnprof.core.work import PricedOp


@dataclass(frozen=True, slots=True)
class Ticks:
    """Time in ticks of one clock, by what bounds the ops."""

    compute: int = 0
    memory: int = 0
    launch: int = 0

    @property
    def total(self) -> int:
        return self.compute + self.memory + self.launch

    def __add__(self, other: Ticks) -> Ticks:
        return Ticks(self.compute + other.compute, self.memory + other.memory, self.launch + other.launch)


NONE = Ticks()


class OpTime(NamedTuple):
    """The ticks of one op call: of its own work, and what its recomputed part adds to that. A call has one bound."""

    bound: Bound
    own: int
    again: int = 0


class Clock:
    """Times of ops on one device.

    FLOPs without a known peak take no time, and neither does traffic without a known bandwidth: what is left
    out is for the caller to say. Raises :class:`AttnprofError` for a rate that is not positive.
    """

    def __init__(self, device: DeviceSpec, kinds: Iterable[tuple[Engine, str]]) -> None:
        self.peaks: dict[tuple[Engine, str], Fraction | None] = {
            (engine, dtype): _rate(device, f"{engine} peak for {dtype}", device.peak(dtype, engine))
            for engine, dtype in kinds
        }
        self.bandwidth = _rate(device, "bandwidth", device.bandwidth_bytes_per_s)
        overhead = device.launch_overhead_ns
        if overhead is not None and not overhead >= 0:
            raise AttnprofError(f"{device.id} has a launch overhead of {overhead!r} ns; it must be 0 or more.")
        rates = [rate for rate in (*self.peaks.values(), self.bandwidth) if rate is not None]
        self.per_second = lcm(10**9, *(rate.numerator for rate in rates))
        self._arithmetic = {kind: self._ticks(rate) for kind, rate in self.peaks.items()}
        self._byte = self._ticks(self.bandwidth)
        self._launch = round(overhead or 0) * (self.per_second // 10**9)

    def op(self, op: PricedOp) -> OpTime:
        """The time of one call.

        A call without work (a view, an empty tensor) is not launched; of an op that nobody priced the traffic is
        taken, by the default rule.
        """
        own = self.arithmetic(op.cost)
        traffic = op.moved * self._byte
        launch = self._launch if op.does_work else 0
        without = max(own, traffic, launch)
        if not op.recompute:
            return OpTime(bound(own, traffic, launch), without)
        whole = own + self.arithmetic(op.recompute)
        return OpTime(bound(whole, traffic, launch), without, max(whole, traffic, launch) - without)

    def arithmetic(self, cost: Cost) -> int:
        """The ticks of the arithmetic alone, engine after engine."""
        return sum(flops * self._arithmetic[engine, dtype] for engine, dtype, flops in cost.split)

    def traffic(self, count: int) -> int:
        """The ticks of moving so many bytes."""
        return count * self._byte

    def launches(self, calls: int) -> int:
        """The ticks of launching so many kernels."""
        return calls * self._launch

    def seconds(self, ticks: int) -> float:
        """Ticks as seconds, rounded once."""
        return ticks / self.per_second

    def attainable(self, ticks: Ticks) -> Attainable:
        return Attainable(self.seconds(ticks.compute), self.seconds(ticks.memory), self.seconds(ticks.launch))

    def _ticks(self, rate: Fraction | None) -> int:
        """Of one FLOP or byte."""
        return 0 if rate is None else self.per_second // rate.numerator * rate.denominator


class Sums:
    """Ticks of op calls, added up under some keys."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[Bound, int]] = {}

    def add(self, key: str, bound: Bound, ticks: int) -> None:
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = {"compute": 0, "memory": 0, "launch": 0}
        sums[bound] += ticks

    def ticks(self) -> dict[str, Ticks]:
        return {key: Ticks(**sums) for key, sums in self._sums.items()}


def bound(compute: int, memory: int, launch: int) -> Bound:
    """What the longest of three times stands for: at the ridge, where two are equal, it is the memory."""
    if launch > max(compute, memory):
        return "launch"
    return "compute" if compute > memory else "memory"


def kinds(priced: Sequence[PricedOp]) -> set[tuple[Engine, str]]:
    """The engines and dtypes that some ops work with."""
    return {(engine, dtype) for op in priced for engine, dtype, _ in (*op.cost.split, *op.recompute.split)}


def _rate(device: DeviceSpec, what: str, rate: float | None) -> Fraction | None:
    if rate is None:
        return None
    if not isfinite(rate) or rate <= 0:
        raise AttnprofError(f"{device.id} has a {what} of {rate!r}; it must be a positive number, or left out.")
    return Fraction(rate)
