"""Measured against predicted, in words: a cell for each row of the table, and a sentence for the whole run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attnprof.analysis.report import Report
from attnprof.core.comparison import Comparison, OpShare
from attnprof.core.units import Units
from attnprof.reports.names import listed
from attnprof.reports.text import shortened

_AGREES, _UNCOVERED = "= theory", "not predicted"
#: Of an op's name, at most so many characters.
_LONGEST = 24


class Cells:
    """The cells of the column "predicted". A report in which no class has a formula has none."""

    def __init__(self, report: Report, phases: Collection[str], units: Units) -> None:
        self.units = units
        self.found: dict[str, list[Comparison]] = {}
        self.there = _any_formula(report)
        for comparison in report.comparisons if self.there else ():
            if comparison.quantity == "matmul_flops" and comparison.phase in phases:
                self.found.setdefault(comparison.module, []).append(comparison)

    def cell(self, fqns: Iterable[str]) -> str:
        """Of a row that stands for these modules: that theory agrees, or by how much it does not, and in what ops.

        What modules without a formula run themselves contradicts nothing: it says ``not predicted: `` and how much.
        Empty for modules of which theory says nothing.
        """
        names = set(fqns)
        found = [comparison for fqn in names for comparison in self.found.get(fqn, ())]
        residual = sum(comparison.residual for comparison in found)
        if not residual:
            known = any(comparison.formula or comparison.predicted for comparison in found)
            return _AGREES if known else ""
        ops = [op for comparison in found for op in comparison.ops]
        inside = any(op.module not in names for op in ops)  # a row below says more
        text = difference(residual, () if inside else ops, self.units) + (" inside" if inside else "")
        if any(comparison.deviation for comparison in found):
            return text
        return f"{_UNCOVERED}: {text.removeprefix('+')}"


def difference(residual: int, ops: Sequence[OpShare], units: Units, *, named: bool = False) -> str:
    """``+2.10 G in bmm x12``, or with the unit named: ``+2.10 GFLOP in bmm x12``."""
    calls: dict[str, int] = {}
    for op in ops:
        name = shortened(op.op.rpartition(".")[0].removeprefix("aten.") or op.op, _LONGEST, tail=_LONGEST // 2)
        calls[name] = calls.get(name, 0) + op.calls
    size = units.named(abs(residual), "matmul") if named else units.text(abs(residual), "matmul")
    text = f"{'+' if residual > 0 else '-'}{size}"
    if not calls:
        return text
    first = next(iter(calls))
    more = f" and {len(calls) - 1} more" if len(calls) > 1 else ""
    return f"{text} in {first} x{calls[first]:,}{more}"


def sentences(report: Report, units: Units) -> list[str]:
    """``theory: 24 of 26 modules predicted, residual 0``, and what could not be predicted, with the reason."""
    if not _any_formula(report):
        return []
    theory = report.theory
    matmul = [c for c in theory.comparisons if c.module == "" and c.quantity == "matmul_flops"]
    found = f"theory: {len(theory.predicted):,} of {len(theory.modules):,} modules predicted"
    if not matmul:
        return [found, *_not_predicted(report)]
    deviates = any(c.deviation for c in matmul)
    residual, ops = sum(c.residual for c in matmul), [op for c in matmul for op in c.ops]
    where = f", of {listed(list(dict.fromkeys(op.module or report.root.class_name for op in ops)))}" if ops else ""
    rest = f"{difference(residual, ops, units, named=True)}{where}" if residual else "0"
    if residual and not deviates:
        rest = f"0; {_UNCOVERED}, for want of a formula: {rest.removeprefix('+')}"
    states = "".join(
        f", {c.quantity.replace('_', ' ')} {'+' if c.residual > 0 else ''}{c.residual:,}"
        for c in theory.comparisons
        if not c.phase and c.residual
    )
    return [f"{found}, residual {rest}{states}", *_not_predicted(report)]


def _not_predicted(report: Report) -> list[str]:
    """One sentence for each reason."""
    modules: dict[str, list[str]] = {}
    for module, reason in report.theory.reasons.items():
        modules.setdefault(reason, []).append(module or report.root.class_name)
    return [f"Not predicted in full: {listed(names)}: {reason}." for reason, names in modules.items()]


def _any_formula(report: Report) -> bool:
    return any(c.formula for c in report.comparisons) or bool(report.theory.reasons)
