"""Measured against predicted for the page: every comparison, with its terms and the ops that explain a residual."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from attnprof.analysis.report import Report
from attnprof.core.comparison import Comparison
from attnprof.core.units import Units
from attnprof.reports.comparison import sentences
from attnprof.reports.html.embedding import Json
from attnprof.reports.names import called

T = TypeVar("T", bound=Hashable)


def theory(report: Report, units: Units) -> dict[str, Json] | None:
    """Columns of equal length, a value per comparison; None where no class has a formula.

    Formulas, phases, quantities, terms and ops are positions in lists of their own: equal layers share them.
    """
    said = sentences(report, units)
    if not said:
        return None
    rows = [c for c in report.comparisons if c.formula or c.measured or c.predicted]
    formulas, terms, ops = Once[str](), Once[tuple[object, ...]](), Once[tuple[object, ...]]()
    model = report.root.class_name
    return {
        "sentences": said,
        "modules": len(report.theory.modules),
        "predicted_modules": len(report.theory.predicted),
        "reasons": [[called(name, model), reason] for name, reason in report.theory.reasons.items()],
        "module": [called(c.module, model) for c in rows],
        "root": [int(not c.module) for c in rows],
        "formula": [formulas.at(c.formula) for c in rows],
        "phase": [c.phase for c in rows],
        "quantity": [c.quantity for c in rows],
        "measured": [c.measured for c in rows],
        "predicted": [c.predicted for c in rows],
        "residual": [c.residual for c in rows],
        "uncovered": [c.uncovered for c in rows],
        "terms": [terms.at(_terms(c)) for c in rows],
        "ops": [ops.at(_ops(c)) for c in rows],
        "formulas": formulas.values,
        "term_lists": _listed(terms.values),
        "op_lists": _listed(ops.values),
    }


class Once(Generic[T]):
    """Values, each kept once, known by their position."""

    def __init__(self) -> None:
        self._positions: dict[T, int] = {}

    def at(self, value: T) -> int:
        return self._positions.setdefault(value, len(self._positions))

    @property
    def values(self) -> list[T]:
        return list(self._positions)


def _terms(comparison: Comparison) -> tuple[object, ...]:
    return tuple((term.name, term.value, term.expression) for term in comparison.terms)


def _ops(comparison: Comparison) -> tuple[object, ...]:
    return tuple((op.op, op.module, op.calls, op.amount) for op in comparison.ops)


def _listed(values: Sequence[tuple[object, ...]]) -> Json:
    return [list(value) for value in values]  # type: ignore[arg-type]
