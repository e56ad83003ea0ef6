"""What a run takes on devices at best, in words: a line below the totals, and a table of several devices."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.analysis.fit import fit
from attnprof.analysis.report import Report
from attnprof.analysis.roofline import Roofline
from attnprof.core.errors import AttnprofError
from attnprof.core.roofline import RooflinePoint
from attnprof.core.units import Units, duration, durations, intensity, rounded
from attnprof.reports.columns import SHORT, Column, Columns, Line
from attnprof.reports.fitted import fitted
from attnprof.reports.text import printable
from attnprof.reports.view import View

#: What the header says of the peaks.
CONVENTION = "peaks: dense"
#: FLOPs without a peak below this part of all leave a time as good as whole.
_NEGLIGIBLE = 0.001


def require(report: Report, view: View) -> None:
    """Raise :class:`AttnprofError` for a view that shows times of a report that has no device."""
    if view.sort == "time" and view.by != "time" and not report.devices:
        raise AttnprofError("sorting by time needs a device, such as h100-sxm.")


def notes(report: Report) -> list[str]:
    """What a reader must know of the times: which figures were given, and what is not in them."""
    found = []
    for roofline in report.rooflines:
        device = roofline.device
        given = [f"{device.id}: {device.notes[2:].partition('. ')[0]}"] if device.notes.startswith("* ") else []
        for note in (*given, *roofline.notes):
            found.append(note if len(report.devices) == 1 or device.id in note else f"{device.id}: {note}")
    return found


def point_of(roofline: Roofline, phases: Sequence[str]) -> RooflinePoint:
    """The whole run, or the one phase that is shown."""
    return roofline.by_phase[phases[0]] if len(phases) == 1 else roofline.total


def sentence(roofline: Roofline, phases: Sequence[str]) -> str:
    """``h100-sxm: at best 9.83 ms, 71% memory-bound · ridge 295 FLOP/B (bfloat16), here 34.0 · ...``."""
    point = point_of(roofline, phases)
    time = point.attainable
    if time.bound is None:
        if is_incomplete(roofline) and point.cost:
            return f"{roofline.device.id}: no peak or bandwidth that this needs is known"
        return f"{roofline.device.id}: nothing here takes time"
    more, part = ("more than ", "of which ") if is_incomplete(roofline) else ("", "")
    bound = f"{part}{100 * time.share(time.bound):.0f}% {time.bound}-bound"
    parts = [f"{roofline.device.id}: at best {more}{duration(time.seconds)}, {bound}"]
    if roofline.ridge is not None:
        here = f", here {intensity(point.intensity)}" if point.cost.bytes else ""
        parts.append(f"ridge {rounded(roofline.ridge.flops_per_byte)} FLOP/B ({roofline.ridge.dtype}){here}")
    if point.fused_s is not None:
        parts.append(f"fused bound {more}{duration(point.fused_s)}")
    return " · ".join(parts)


def is_incomplete(roofline: Roofline) -> bool:
    """Whether traffic, or more FLOPs than a few, takes no time here, because no rate is known for it."""
    if roofline.device.bandwidth_bytes_per_s is None:
        return True
    return sum(missing.share for missing in roofline.missing) >= _NEGLIGIBLE


def what_if(report: Report, phases: Sequence[str], units: Units, width: int) -> list[str]:
    """One row per device where there are several: the least time, what bounds it, the phases, the memory."""
    rooflines = report.rooflines
    if len(rooflines) < 2:
        return []
    points = [point_of(roofline, phases) for roofline in rooflines]
    lines = [Line(None, None, {}, time=point.attainable) for point in points]
    best = _least([p.attainable.seconds for p in points], [is_incomplete(r) for r in rooflines])
    by_phase = []
    for phase in phases if len(phases) > 1 else ():
        times = [roofline.by_phase[phase].attainable.seconds for roofline in rooflines]
        if any(times):
            by_phase.append(_times(SHORT[phase], times))
    fused = [_times("fused", [p.fused_s for p in points])] if any(p.fused_s is not None for p in points) else []
    bound = [Columns(lines, phases, units).bound()]
    memory = _memory(report, units)
    choices = [
        [best, *bound, *by_phase, *fused, *memory],
        [best, *bound, *fused, *memory],
        [best, *bound, *memory],
        [best, *memory],
        [best],
    ]
    return [*fitted("device", [printable(r.device.id) for r in rooflines], choices, width), ""]


def _least(seconds: Sequence[float], incomplete: Sequence[bool]) -> Column:
    """The times, those that something is missing from marked as lower bounds."""
    column = _times("at best", seconds)
    if not any(incomplete):
        return column
    cells = [f">{cell.strip()}" if more else cell.rstrip() for cell, more in zip(column.cells, incomplete, strict=True)]
    wide = max(map(len, cells))
    return Column(column.heading, tuple(cell.rjust(wide) for cell in cells))


def _times(name: str, seconds: Sequence[float | None]) -> Column:
    unit, cells = durations(seconds)
    return Column((name, unit), tuple(cells))


def _memory(report: Report, units: Units) -> list[Column]:
    """What the peak of the run leaves of the memory of each device, or lacks."""
    if report.memory is None:
        return []
    found = [fit(report.memory.peak.bytes, d) if d.capacity_bytes is not None else None for d in report.devices]
    texts = []
    for f in found:
        verdict = "" if f is None else "to spare" if f.fits else "short   "
        texts.append("–" if f is None else f"{units.text(abs(f.margin), 'bytes')} {verdict}")
    return [Column(("", "memory"), tuple(texts))]
