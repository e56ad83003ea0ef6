"""Steps, pace and measured times for the page."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.analysis.report import Report
from attnprof.core.cost import ZERO
from attnprof.core.units import Units
from attnprof.reports import layer_times, pace
from attnprof.reports import steps as step_table
from attnprof.reports.html import numbers
from attnprof.reports.html.embedding import Json
from attnprof.reports.view import View


def steps(report: Report, phases: Sequence[str], units: Units) -> dict[str, Json] | None:
    """Every step: columns of equal length, and how runs of steps grow; None for a run that marked none."""
    found = report.steps
    if not found:
        return None
    costs = [{phase: step.phases.get(phase, ZERO) for phase in phases} for step in found]
    return {
        "label": [step.label for step in found],
        "costs": numbers.costs(costs, phases),
        "devices": [
            {
                "all": numbers.times(point.total.attainable for point in roofline.steps),
                **{
                    phase: numbers.times(
                        p.by_phase[phase].attainable if phase in p.by_phase else numbers.NO_TIME for p in roofline.steps
                    )
                    for phase in phases
                },
            }
            for roofline in report.rooflines
        ],
        "cache": [step.cache_bytes for step in found] if any(step.cache for step in found) else None,
        "grown": [step.cache_growth for step in found],
        "tokens": [step.tokens for step in found],
        "growth": [step_table.growth(run, units) for run in step_table.runs(found) if run.degree],
    }


def pace_sentences(report: Report, units: Units) -> list[str]:
    """How fast the steps were that ran bare, on each device; nothing where none was timed."""
    paces = [one for spec in report.devices or (None,) if (one := report.pace_on(spec)) is not None]
    return pace.sentences(paces, units)


def measured(report: Report, units: Units) -> dict[str, Json] | None:
    """What is said of the measured times of layers, and those that are of no layer, in nanoseconds."""
    found = report.layer_times
    if found is None:
        return None
    return {
        "sentences": layer_times.sentences(report, View(units=units)),
        "clock": found.clock,
        "timed_on": found.timed_on,
        "step": found.profiled.median_ns,
        "bare": found.step.median_ns,
        "rest": [
            [layer_times.ACCUMULATION, found.accumulation.median_ns],
            [layer_times.BETWEEN, found.unattributed.median_ns],
            [layer_times.STEP, found.profiled.median_ns],
        ],
        "of_device": report.roofline is not None and found.is_of(report.roofline.device),
    }
