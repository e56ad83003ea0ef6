"""The roofline for other programs: seconds and bytes, nothing rounded."""

from __future__ import annotations

from typing import Any

from attnprof.analysis.roofline import Roofline
from attnprof.core.roofline import Attainable, RooflinePoint

_BOUNDS = ("compute", "memory", "launch")


def record(roofline: Roofline) -> dict[str, Any]:
    """A run on one device: totals, phases, ops and steps, and what is not in the times."""
    device = roofline.device
    return {
        "device": device.id,
        "bandwidth_bytes_per_s": device.bandwidth_bytes_per_s,
        "ridges": [
            {
                "engine": ridge.engine,
                "dtype": ridge.dtype,
                "peak_flops_per_s": ridge.flops_per_s,
                "ridge_flops_per_byte": ridge.flops_per_byte,
            }
            for ridge in roofline.ridges
        ],
        "missing": [
            {"engine": missing.engine, "dtype": missing.dtype, "flops": missing.flops} for missing in roofline.missing
        ],
        "notes": roofline.notes,
        "total": _point(roofline.total),
        "phases": {phase: _point(point) for phase, point in roofline.by_phase.items()},
        "operators": {name: _time(point.attainable) for name, point in roofline.by_operator().items()},
        "steps": [{"label": step.label, **_point(step.total)} for step in roofline.steps],
    }


def module_fields(roofline: Roofline) -> dict[str, dict[str, Any]]:
    """By module: flat fields that name the device, of the module with what is below it."""
    return {
        point.module: {f"{roofline.device.id}_{name}": value for name, value in _point(point).items()}
        for point in roofline.points
    }


def _point(point: RooflinePoint) -> dict[str, Any]:
    return {**_time(point.attainable), "footprint_bytes": point.footprint_bytes, "fused_s": point.fused_s}


def _time(time: Attainable) -> dict[str, Any]:
    parts = {f"{bound}_s": getattr(time, f"{bound}_s") for bound in _BOUNDS}
    return {"attainable_s": time.seconds, "bound": time.bound, **parts}
