"""The least time a device needs for some work, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from attnprof.core.cost import Cost, Engine
from attnprof.core.device import Peak

#: What an op waits for: arithmetic, memory traffic, or being launched at all.
Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True, slots=True)
class Attainable:
    """The least time for some ops, one after the other, in seconds, by what bounds each of them.

    The time of a sum of ops is the sum of their times, never the time of their summed cost.
    """

    compute_s: float = 0.0
    memory_s: float = 0.0
    launch_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute_s + self.memory_s + self.launch_s

    @property
    def bound(self) -> Bound | None:
        """What most of the time is spent on; None where there is no work."""
        if not self.seconds:
            return None
        bounds: tuple[Bound, ...] = get_args(Bound)
        return max(bounds, key=self._of)

    def share(self, bound: Bound) -> float:
        """The part of the time, 0 to 1, of ops with this bound; 0 where there is no work."""
        return self._of(bound) / self.seconds if self.seconds else 0.0

    def _of(self, bound: Bound) -> float:
        return {"compute": self.compute_s, "memory": self.memory_s, "launch": self.launch_s}[bound]

    def __add__(self, other: Attainable) -> Attainable:
        return Attainable(
            self.compute_s + other.compute_s, self.memory_s + other.memory_s, self.launch_s + other.launch_s
        )

    def __mul__(self, times: int) -> Attainable:
        return Attainable(self.compute_s * times, self.memory_s * times, self.launch_s * times)

    __rmul__ = __mul__


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """A module (or the whole run, ``""``) on a device, in one phase or in all (None), with what is below it.

    ``attainable`` is the sum over its ops. ``footprint_bytes`` are its parameters, inputs and outputs, each
    once per call, and ``fused_s`` the time of the same FLOPs on those bytes alone: what perfect fusion could reach.
    Both are None where the inputs and outputs are not known, and for a module without what is below it.
    """

    module: str
    phase: str | None
    cost: Cost
    attainable: Attainable
    footprint_bytes: int | None = None
    fused_s: float | None = None

    @property
    def intensity(self) -> float:
        """FLOPs per byte of traffic."""
        return self.cost.intensity

    @property
    def headroom(self) -> float | None:
        """Traffic ÷ footprint: how many times fewer bytes perfect fusion would move; None where it is not known."""
        return self.cost.bytes / self.footprint_bytes if self.footprint_bytes else None

    @property
    def bound(self) -> Bound | None:
        return self.attainable.bound


@dataclass(frozen=True, slots=True)
class OperatorPoint:
    """All calls of one op on a device, in one phase or in all (None)."""

    op: str
    phase: str | None
    calls: int
    cost: Cost
    attainable: Attainable

    @property
    def intensity(self) -> float:
        """FLOPs per byte of traffic."""
        return self.cost.intensity

    @property
    def bound(self) -> Bound | None:
        return self.attainable.bound


@dataclass(frozen=True, slots=True)
class StepPoint:
    """One step on a device: as a whole, and by phase."""

    label: str
    total: RooflinePoint
    by_phase: Mapping[str, RooflinePoint] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ridge:
    """The arithmetic intensity from which on work of a dtype is bound by an engine's peak, not by memory."""

    engine: Engine
    dtype: str
    flops_per_s: int
    flops_per_byte: float


@dataclass(frozen=True, slots=True)
class MissingPeak:
    """FLOPs that take no time because the device has no known peak for them, ``share`` of all FLOPs (0 to 1).

    ``wider`` is the peak of the next wider dtype that has one: it is named, and never used.
    """

    engine: Engine
    dtype: str
    flops: int
    share: float
    wider: Peak | None = None
