"""What a model needs at sizes it was not counted at: from the recovered formulas, and how far that is to be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnprof.analysis.report import Report
from attnprof.core.device import DeviceSpec
from attnprof.recovery.domain import Domain
from attnprof.recovery.scaling import Phase, Quantity


@dataclass(frozen=True)
class Extrapolation:
    """Amounts at some sizes, from formulas, and the least time that the work takes on so many devices.

    ``amounts``: FLOPs and bytes by quantity; None where no formula was found. ``beyond``: symbols whose size is outside
    of those that the formulas were made for and checked on. ``counted``: whether the model was also counted at these
    very sizes, on tensors without memory, and came to the same; None where it was not. ``seconds``: op by op, as a
    roofline has it, where it was counted there; with ``is_bound`` of the sums instead, which is less.
    """

    sizes: Mapping[str, int]
    phase: Phase
    amounts: Mapping[Quantity, int | None]
    beyond: tuple[tuple[str, Domain], ...] = ()
    counted: bool | None = None
    device: DeviceSpec | None = None
    count: int = 1
    seconds: float | None = None
    is_bound: bool = False
    dtypes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def beyond(sizes: Mapping[str, int], domains: Mapping[str, Domain]) -> Iterator[tuple[str, Domain]]:
    """The symbols whose size is not between the first and the last that were asked for."""
    for name, domain in domains.items():
        if not domain.first <= sizes[name] <= domain.last:
            yield name, domain


def least_seconds(report: Report, device: DeviceSpec, phase: Phase, count: int) -> float:
    """The least time of the ops of a run, one after the other, each divided among so many devices."""
    roofline = report.roofline_on(device)
    point = roofline.total if phase == "all" else roofline.by_phase[phase]
    return point.attainable.seconds / count


def bound_seconds(
    amounts: Mapping[Quantity, int | None], split: Mapping[str, set[str]], device: DeviceSpec, count: int
) -> float | None:
    """What the sums alone take: all arithmetic at the highest peaks of the dtypes in use, or all traffic.

    Less than op by op, since no op waits for the memory while another computes. None without a formula of any.
    """
    times = []
    for quantity, engine in (("matmul", "matmul"), ("vector", "vector")):
        amount = amounts.get(quantity)  # type: ignore[call-overload]  # both are quantities
        peaks = [device.peak(dtype, engine) for dtype in split.get(engine, ())]  # type: ignore[arg-type]  # both are engines
        known = [peak for peak in peaks if peak]
        times.append(amount / max(known) if amount and known else 0.0)
    traffic = amounts.get("bytes")
    moved = traffic / device.bandwidth_bytes_per_s if traffic and device.bandwidth_bytes_per_s else 0.0
    longest = max(sum(times), moved)
    return longest / count if longest else None


def notes_of(report: Report, device: DeviceSpec) -> list[str]:
    """What is not in the times of a run on a device."""
    return list(report.roofline_on(device).notes)
