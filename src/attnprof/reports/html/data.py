"""Everything that the page shows, as plain data."""

from __future__ import annotations

from attnprof.analysis.report import PHASES, Report
from attnprof.core.units import Units
from attnprof.reports import roofline, table, training
from attnprof.reports.html import crosschecks, devices, layers, memory, numbers, ops, steps, theory
from attnprof.reports.html.embedding import Json


def data(report: Report, units: Units) -> dict[str, Json]:
    """The page's data: counts are whole numbers, times seconds; sentences are those of the terminal.

    ``costs`` are lists of matmul FLOPs, vector FLOPs, useful matmul FLOPs, bytes read and bytes written.
    """
    phases = [phase for phase in PHASES if report.phases[phase]]
    backward = report.training
    return {
        "title": report.root.class_name or "everything",
        "subject": table.subject(report)[1:],
        "conventions": table.conventions(report),
        "meta": [[name, _text(value)] for name, value in report.meta.items()],
        "units": {"exact": units.exact, "binary": units.binary, "macs": units.macs},
        "unpriced_sentence": table.unpriced(report),
        "notes": [*report.notes, *roofline.notes(report)],
        "phases": list(phases),
        "costs": {phase: numbers.cost(report.phases[phase]) for phase in phases},
        "total": numbers.cost(report.total),
        "model_flops": report.model_flops,
        "hardware_flops": report.hardware_flops,
        "training": None if backward is None else training.sentence(backward, report.root.class_name, units),
        "coverage": {
            "sentence": table.coverage(report),
            "counts": dict(report.counts),
            "calls": report.coverage,
            "traffic": report.traffic_coverage,
        },
        "layers": layers.trees(report, phases, units),
        "ops": ops.operators(report, phases),
        "unpriced": ops.unpriced(report),
        "memory": memory.memory(report, units),
        "devices": devices.devices(report, phases, units),
        "theory": theory.theory(report, units),
        "crosschecks": crosschecks.crosschecks(report, units),
        "steps": steps.steps(report, phases, units),
        "pace": steps.pace_sentences(report, units),
        "measured": steps.measured(report, units),
    }


def _text(value: object) -> str:
    """A fact about the run as text: lists with commas between."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
