"""What a calibration measured on a machine: rates and overheads, each with its repeats, and under which conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from attnprof.core.timing import Durations

#: GEMM in a dtype, pointwise work in a dtype, traffic of a STREAM kernel, time of a tiny op.
Measured = Literal["matmul", "vector", "bandwidth", "launch"]
#: Half of the repeats may lie this far apart, as a part of their median, on an idle machine.
WIDE_SPREAD = 0.15
#: A process alone on its cores gets at least this part of the processor time it asks for.
LEAST_PROCESSOR_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where, when and with what something was measured.

    ``device`` is what PyTorch computed on (``cpu``, or a GPU as its driver names it), ``threads`` what
    ``torch.get_num_threads()`` said, ``datasheet`` the id of the known device that this one is, if it is one.
    """

    date: str
    host: str
    processor: str
    cores: int
    device: str
    threads: int
    torch: str
    datasheet: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One kernel at one size: ``calls`` calls were timed together, again and again.

    ``work`` is that of one call: FLOPs, bytes, or 1 for the launch of one op. ``at`` says the size in words.
    """

    kind: Measured
    name: str
    work: int
    at: str
    calls: int
    times: Durations

    def rate(self, ns: int) -> float:
        """Work per second of a repeat that took so long."""
        return self.work * self.calls * 1e9 / ns

    @property
    def best(self) -> float:
        """Work per second of the fastest repeat."""
        return self.rate(min(self.times.sample_ns))

    @property
    def median(self) -> float:
        return self._quantile(0.5)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Half of the repeats lie between these rates, the lower first."""
        return self._quantile(0.75), self._quantile(0.25)

    @property
    def spread(self) -> float:
        """Interquartile range ÷ median of the repeats' times; of fewer than 4 repeats their whole range."""
        if self.times.spread is not None:
            return self.times.spread
        return (max(self.times.sample_ns) - min(self.times.sample_ns)) / (self.times.median_ns or 1)

    def _quantile(self, part: float) -> float:
        ns = self.times.quantile_ns(part)
        assert ns
        return self.rate(ns)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What could not be measured, and why."""

    kind: Measured
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that was measured, at every size, with what the system and the driver say of the device.

    ``processor_share`` is the part of the processor time asked for that the process got while it computed on
    the CPU; None where that says nothing.
    """

    conditions: Conditions
    measurements: tuple[Measurement, ...]
    refusals: tuple[Refusal, ...] = ()
    processor_share: float | None = None
    memory_bytes: int | None = None
    cache_bytes: int | None = None
    units: int | None = None
    on_chip_bytes_per_unit: int | None = None

    def best(self, kind: Measured) -> dict[str, Measurement]:
        """The fastest size of each kernel of a kind, in the order they ran."""
        found: dict[str, Measurement] = {}
        for one in self.measurements:
            if one.kind == kind and (one.name not in found or one.best > found[one.name].best):
                found[one.name] = one
        return found

    @property
    def doubts(self) -> list[str]:
        """Signs that the machine was busy: one sentence each."""
        kinds: Sequence[Measured] = ("matmul", "vector", "bandwidth", "launch")
        chosen = [one for kind in kinds for one in self.best(kind).values()]
        wide = [one for one in chosen if one.spread > WIDE_SPREAD]
        said = []
        if wide:
            worst = max(wide, key=lambda one: one.spread)
            others = f", and of {len(wide) - 1} more above {WIDE_SPREAD:.0%}" if len(wide) > 1 else ""
            much = f"{worst.spread:.0%}" if worst.spread < 2 else f"{worst.spread:.0f}x the median"
            said.append(
                f"The spread of {worst.kind} {worst.name} is {much}{others}: something else is running; calibrate "
                "again on an idle machine."
            )
        if self.processor_share is not None and self.processor_share < LEAST_PROCESSOR_SHARE:
            said.append(
                f"The process got {self.processor_share:.0%} of the processor time it asked for: something else is "
                "running, or the system limits it; the figures may be too low."
            )
        return said
