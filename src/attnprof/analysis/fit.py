"""Will it fit: the peak of a run held against the memory of a device.

Both numbers are what they are, without an allowance. The peak is the live bytes of tensor storages. What
else takes memory on a real device is not in it: the driver's context of the process (hundreds of MB), what
the caching allocator rounds up and cannot reuse (fragmentation), and the workspaces of kernels. So "does not
fit" holds for the ops that ran, and "fits" by a small margin has to be tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units, rounded, share

#: From this multiple of the capacity on, "twice its memory" says more than the bytes that are missing.
_TIMES = 2


@dataclass(frozen=True, slots=True)
class Fit:
    """A need of memory held against a device: ``margin`` is what is left, negative when it does not fit."""

    device: DeviceSpec
    needed: int
    capacity: int

    @property
    def margin(self) -> int:
        return self.capacity - self.needed

    @property
    def fits(self) -> bool:
        return self.margin >= 0

    def sentence(self, units: Units | None = None) -> str:
        """``h100-sxm: fits, 61.2 of 85.9 GB (24.7 GB, 28.8% to spare)``."""
        units = units or Units()
        need, there = units.text(self.needed, "bytes"), units.text(self.capacity, "bytes")
        if not self.fits:
            excess = f"{self._times()} its" if self._far else f"{self._missing(units)} more than its"
            return f"{self.device.id}: does not fit: needs {need}, {excess} {there}"
        number, _, unit = need.rpartition(" ")
        need = number if there.endswith(f" {unit}") else need
        return f"{self.device.id}: fits, {need} of {there} ({self._spare(units)})"

    def verdict(self, units: Units | None = None) -> str:
        """``fits: 24.7 GB, 28.8% to spare`` or ``does not fit: 1.20 GB too much``, for a row of a table."""
        units = units or Units()
        if self.fits:
            return f"fits: {self._spare(units)}"
        excess = f"{self._times()} the memory" if self._far else f"{self._missing(units)} too much"
        return f"does not fit: {excess}"

    @property
    def _far(self) -> bool:
        return self.needed >= _TIMES * self.capacity

    def _times(self) -> str:
        return f"{rounded(self.needed, self.capacity)}x"

    def _missing(self, units: Units) -> str:
        return units.text(-self.margin, "bytes")

    def _spare(self, units: Units) -> str:
        return f"{units.text(self.margin, 'bytes')}, {share(self.margin, self.capacity)}% to spare"


def fit(peak_bytes: int, device: DeviceSpec) -> Fit:
    """Whether a peak of so many live bytes fits the device."""
    if isinstance(peak_bytes, bool) or not isinstance(peak_bytes, int) or peak_bytes < 0:
        raise AttnprofError(f"peak_bytes is a number of bytes, not {peak_bytes!r}.")
    if device.capacity_bytes is None:
        raise AttnprofError(
            f"the memory of {device.id} is not known: describe yours in a file with "
            f'{{"id": "mine", "based_on": "{device.id}", "figures": {{"memory_gib": 64}}}} and name the file.'
        )
    return Fit(device, peak_bytes, device.capacity_bytes)


def alternatives(peaks: Sequence[tuple[str, int]], device: DeviceSpec, units: Units | None = None) -> list[str]:
    """Aligned lines, one per way to run: what it is called, its peak, and whether that fits."""
    units = units or Units()
    needs = [units.text(peak, "bytes") for _, peak in peaks]
    verdicts = [fit(peak, device).verdict(units) for _, peak in peaks]
    longest, widest = (max(map(len, column), default=0) for column in ([label for label, _ in peaks], needs))
    return [
        f"{label:<{longest}}  {need:>{widest}}  {verdict}"
        for (label, _), need, verdict in zip(peaks, needs, verdicts, strict=True)
    ]
