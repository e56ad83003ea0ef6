"""Cross-checks for other programs: whole numbers, by module, each difference by cause."""

from __future__ import annotations

from typing import Any

from attnprof.core.crosscheck import KINDS, Cause, CheckedModule, Crosscheck


def record(check: Crosscheck) -> dict[str, Any]:
    """One counter beside attnprof: every module with what is in it, and why the numbers differ."""
    return {
        "tool": check.tool,
        "title": check.title,
        "phases": list(check.phases),
        "problem": check.problem,
        "caveat": check.caveat,
        "unexplained_flops": check.unexplained,
        "modules": [_module(module) for module in check.modules.values()],
    }


def module_fields(check: Crosscheck) -> dict[str, dict[str, Any]]:
    """By module: flat fields that name the counter. Empty where it could not count."""
    return {
        name: {
            f"{check.tool}_said": module.said,
            f"{check.tool}_flops": module.theirs,
            f"{check.tool}_difference_flops": module.difference,
            **{f"{check.tool}_{kind}_flops": module.of_kind(kind) for kind in KINDS},
        }
        for name, module in check.modules.items()
    }


def _module(module: CheckedModule) -> dict[str, Any]:
    return {
        "module": module.module,
        "attnprof_matmul_flops": module.matmul,
        "attnprof_vector_flops": module.vector,
        "said": module.said,
        "flops": module.theirs,
        "difference_flops": module.difference,
        "causes": [_cause(cause) for cause in module.causes],
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "kind": cause.kind,
        "reason": cause.reason,
        "flops": cause.flops,
        "ops": [
            {"op": part.op, "calls": part.calls, "flops": part.flops, **({"module": part.place} if part.place else {})}
            for part in cause.parts
        ],
    }
