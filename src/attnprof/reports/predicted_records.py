"""What theory says of each module for other programs: whole numbers, beside what was measured."""

from __future__ import annotations

from typing import Any

from attnprof.analysis.report import Report

_PHASES = ("forward", "backward", "recompute")


def module_fields(report: Report) -> dict[str, dict[str, Any]]:
    """By module: predicted matmul FLOPs and the residual (measured less predicted) in each phase, where compared."""
    fields: dict[str, dict[str, Any]] = {}
    for found in report.comparisons:
        if found.quantity == "matmul_flops" and found.phase in _PHASES:
            of_module = fields.setdefault(found.module, nothing())
            of_module[f"{found.phase}_predicted_matmul_flops"] = found.predicted
            of_module[f"{found.phase}_residual_matmul_flops"] = found.residual
    return fields


def nothing() -> dict[str, Any]:
    """The fields of a module that was not compared."""
    return {f"{phase}_{what}_matmul_flops": None for phase in _PHASES for what in ("predicted", "residual")}
