"""The run on its devices for the page: times by phase, the roofline with the layers below it, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.analysis.fit import fit
from attnprof.analysis.report import Report
from attnprof.analysis.roofline import Roofline
from attnprof.core.units import Units
from attnprof.reports import serving
from attnprof.reports.html import numbers
from attnprof.reports.html.embedding import Json
from attnprof.reports.plot_panels import panels
from attnprof.reports.plot_values import Panel
from attnprof.reports.roofline import is_incomplete, sentence

#: Points of a roofline that are drawn, those that take longest; the others are counted.
_MARKS = 600
_WIDE = 100


def devices(report: Report, phases: Sequence[str], units: Units) -> list[Json]:
    """One record for each device of the report, in order."""
    drawn = panels(report, report.rooflines)
    return [
        _device(report, roofline, panel, phases, units) for roofline, panel in zip(report.rooflines, drawn, strict=True)
    ]


def _device(report: Report, roofline: Roofline, panel: Panel, phases: Sequence[str], units: Units) -> dict[str, Json]:
    spec, total = roofline.device, roofline.total
    memory = report.memory
    fits = None if memory is None or spec.capacity_bytes is None else fit(memory.peak.bytes, spec)
    return {
        "id": spec.id,
        "product": spec.product,
        "sentence": sentence(roofline, phases),
        "incomplete": is_incomplete(roofline),
        "time": numbers.time(total.attainable),
        "phases": {phase: numbers.time(roofline.by_phase[phase].attainable) for phase in phases},
        "fused": total.fused_s,
        "bandwidth": spec.bandwidth_bytes_per_s,
        "ridges": [[r.engine, r.dtype, r.flops_per_s, r.flops_per_byte] for r in roofline.ridges],
        "capacity": spec.capacity_bytes,
        "margin": None if fits is None else fits.margin,
        "fits": None if fits is None else fits.sentence(units),
        "serving": serving.lines(report, spec, units, _WIDE) if report.trace.step_labels else [],
        "panel": _panel(panel, total.attainable.seconds) if spec.bandwidth_bytes_per_s else None,
    }


def _panel(panel: Panel, seconds: float) -> dict[str, Json]:
    """Roofs in FLOP/s; points as name, FLOPs per byte, FLOP/s, part of the time, seconds, and what bounds them."""
    marks = sorted(panel.marks, key=lambda mark: -mark.share)
    return {
        "title": panel.title,
        "subtitle": panel.subtitle,
        "roofs": [[roof.label.replace("\n", " "), roof.flops_per_s] for roof in panel.roofs],
        "marks": [
            [mark.label, mark.intensity, mark.flops_per_s, mark.share, mark.share * seconds, mark.bound]
            for mark in marks[:_MARKS]
        ],
        "more": len(marks[_MARKS:]),
        "more_share": sum(mark.share for mark in marks[_MARKS:]),
        "left_out": panel.left_out,
    }
