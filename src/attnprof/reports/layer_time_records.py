"""Measured time for other programs: whole nanoseconds, medians by module, every step for the whole."""

from __future__ import annotations

from typing import Any

from attnprof.analysis.layer_times import PHASES, MeasuredLayers
from attnprof.core.timing import Durations


def record(measured: MeasuredLayers) -> dict[str, Any]:
    """The steps: bare, under the profiler, and what of the latter no layer did; each as a list of durations."""
    return {
        "clock": measured.clock,
        "timed_on": measured.timed_on,
        "bare_ns": _each(measured.step),
        "profiled_ns": _each(measured.profiled),
        "accumulation_ns": _each(measured.accumulation),
        "unattributed_ns": _each(measured.unattributed),
    }


def module_fields(measured: MeasuredLayers) -> dict[str, dict[str, Any]]:
    """By module, with what is below it: the median of its time, and of that in each phase."""
    whole = measured.by_module()
    by_phase = {phase: measured.by_module(phase) for phase in PHASES}
    return {
        fqn: {
            "measured_ns": times.median_ns,
            **{f"measured_{phase}_ns": found[fqn].median_ns for phase, found in by_phase.items()},
        }
        for fqn, times in whole.items()
    }


def _each(times: Durations) -> list[int]:
    return list(times.sample_ns)
