"""What a roofline plot shows: the roofs of a device, and modules as points below them. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from attnprof.core.roofline import Bound


@dataclass(frozen=True, slots=True)
class Roof:
    """The peak of one engine and dtype, in FLOP/s, or of several that are equal."""

    label: str
    flops_per_s: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A module: its FLOPs per byte, the FLOP/s it can reach at best, and its part of the time, 0 to 1."""

    label: str
    intensity: float
    flops_per_s: float
    share: float
    bound: Bound


@dataclass(frozen=True, slots=True)
class Panel:
    """One device. ``subtitle`` says what the run takes on it; ``left_out`` what is not drawn, and why."""

    title: str
    subtitle: str
    bandwidth_bytes_per_s: float
    roofs: tuple[Roof, ...]
    marks: tuple[Mark, ...]
    left_out: str = ""
