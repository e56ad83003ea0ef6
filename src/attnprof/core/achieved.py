"""A measured time against the least a device needs for the same work."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.roofline import RooflinePoint
from attnprof.core.units import duration, share


@dataclass(frozen=True, slots=True)
class Achieved:
    """How much of the roofline some work reached: times in seconds, all for the same calls.

    ``attainable_s`` is the sum over ops, ``launch_s`` the part of it that waits for launches and ``compute_s`` that
    which waits for arithmetic; ``fused_s`` is what perfect fusion could reach (None where it is not known), ``device``
    the id they hold for. Raises :class:`AttnprofError` for a measured time that is no positive number.
    """

    device: str
    measured_s: float
    attainable_s: float
    fused_s: float | None = None
    launch_s: float = 0.0
    compute_s: float = 0.0

    def __post_init__(self) -> None:
        if not isfinite(self.measured_s) or self.measured_s <= 0:
            raise AttnprofError(f"a measured time of {self.measured_s!r} s: it must be a positive number.")

    @classmethod
    def of(cls, point: RooflinePoint, device: DeviceSpec, measured_s: float) -> Achieved:
        """Of a point that stands for exactly the calls that were timed."""
        least = point.attainable
        return cls(device.id, measured_s, least.seconds, point.fused_s, least.launch_s, least.compute_s)

    @property
    def share(self) -> float:
        """Attainable ÷ measured time: 1 is the roofline itself; more is a :attr:`contradiction`."""
        return self.attainable_s / self.measured_s

    @property
    def percent(self) -> str:
        """:attr:`share` as per cent: ``38.2``."""
        return share(self.attainable_s, self.measured_s)

    @property
    def contradiction(self) -> str | None:
        """The sentence to print when the work took less time than it can; None otherwise.

        It is never a success: either the time or a figure it is held against is wrong, or fewer bytes moved
        than are counted.
        """
        if self.measured_s >= self.attainable_s:
            return None
        if self.measured_s < self.compute_s:
            why = (
                f"Arithmetic alone would take {duration(self.compute_s)}: the peaks are not those of this device, it "
                f"ran in another dtype (TF32), or the clock stopped too early."
            )
        elif self.measured_s >= self.attainable_s - self.launch_s:
            why = (
                f"Ops that wait to be launched are {duration(self.launch_s)} of it: a device with a queue of ops hides "
                f"launches behind longer ones."
            )
        elif self.fused_s is not None and self.measured_s < self.fused_s and not self.launch_s:
            why = (
                f"Even perfect fusion would take {duration(self.fused_s)}: unless everything stayed in a cache, the "
                f"peaks are not those of this device, the arithmetic ran in another dtype (TF32), or the clock stopped "
                f"too early."
            )
        else:
            why = (
                "Bytes are counted op by op, as if each went to memory: caches and fusion move fewer. Otherwise the "
                "peaks are not those of this device, the arithmetic ran in another dtype (TF32), or the clock stopped "
                "too early."
            )
        return (
            f"Contradiction: measured {duration(self.measured_s)}, attainable {duration(self.attainable_s)} on "
            f"{self.device} ({self.percent}% of the roofline). {why}"
        )
