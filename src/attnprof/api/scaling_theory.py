"""Theory of a model that is made of known modules, beside what was recovered of it: :func:`of_modules`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from attnprof.analysis.scaling_theory import PHASES, Theory
from attnprof.analytic.text import plain
from attnprof.api.running import fake_tensors, run
from attnprof.recovery.outcome import Formula, Point
from attnprof.recovery.scaling import Scaling

if TYPE_CHECKING:
    from attnprof.api.report import Report

#: Points besides those that a formula was made from, and the op calls of the longest run that is worth it.
_MORE, _MOST_CALLS = 4, 20_000


def of_modules(scaling: Scaling, build: Callable[..., Any]) -> Theory | None:
    """What the formulas of known modules, such as torch's own, come to where the formula was made and checked.

    Its coefficients are told from the points that it was made from: where theory has the same numbers there, theory's
    formula is the same one. None where theory does not account for all contractions of the model.
    """
    if not isinstance(scaling.outcome, Formula) or scaling.quantity != "matmul":
        return None
    name, formula = "", plain(scaling.expression)
    for point in _points(scaling):
        found = _predicted(scaling, build, point)
        if found is None:
            return None
        name, predicted = found
        if predicted != point.count:
            at = ", ".join(f"{symbol}={size}" for symbol, size in point.sizes.items())
            return Theory(name, f"{predicted:,} at {at}", False, False, f"{point.count - predicted:,}")
    return Theory(name, formula, True, True) if name else None


def _points(scaling: Scaling) -> Iterator[Point]:
    """Those that the formula was made from, and some that it was checked on: the first, the last and between."""
    made = [point for point in scaling.points if point.role == "fit"]
    other = [point for point in scaling.points if point.role != "fit"]
    yield from made
    yield from other[:: max(1, (len(other) - 1) // (_MORE - 1))] if other else ()


def _predicted(scaling: Scaling, build: Callable[..., Any], point: Point) -> tuple[str, int] | None:
    """The class of the model and theory's count at a point; None where theory does not have all of it."""
    report = _run(scaling, build, point)
    if report is None or len(report.trace) > _MOST_CALLS:
        return None
    compared = report.theory
    if compared.reasons or not set(compared.modules) <= set(compared.predicted):
        return None
    phases = PHASES[scaling.phase]
    rows = [c for c in compared.comparisons if (c.module, c.quantity) == ("", "matmul_flops") and c.phase in phases]
    if not rows or any(row.uncovered for row in rows):
        return None
    return report.root.record.class_name, sum(row.predicted for row in rows)


def _run(scaling: Scaling, build: Callable[..., Any], point: Point) -> Report | None:
    import torch

    from attnprof.api.counted_points import parts

    try:
        with torch.random.fork_rng(devices=[]), fake_tensors():
            model, args, kwargs = parts(build(**point.sizes, **scaling.fixed))
        return run(model, args, kwargs, backward=scaling.phase != "forward", fake=True, memory=False)
    except Exception:  # a model that needs values cannot be run without
        return None
