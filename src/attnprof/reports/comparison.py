"""Measured against predicted, in words: a cell for each row of the table, and a sentence for the whole run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attnprof.analysis.report import Report
from attnprof.core.comparison import Comparison, OpShare
from attnprof.core.units import Kind, Units
from attnprof.reports.names import listed
from attnprof.reports.text import shortened

_AGREES, _UNCOVERED = "= theory", "not predicted"
_BESIDE = ("vector", "traffic")
#: The quantities of work beside matmul FLOPs: their kind of number, and their name in a cell.
_OTHERS: dict[str, tuple[Kind, str]] = {
    "vector_flops": ("flops", "vector"),
    "read_bytes": ("bytes", "read"),
    "write_bytes": ("bytes", "written"),
}
#: Of an op's name, at most so many characters.
_LONGEST = 24


class Cells:
    """The cells of the column "predicted". A report in which no class has a formula has none."""

    def __init__(self, report: Report, phases: Collection[str], units: Units) -> None:
        self.units = units
        self.found: dict[str, list[Comparison]] = {}
        self.there = _any_formula(report)
        self.others: dict[str, list[Comparison]] = {}
        for comparison in report.comparisons if self.there else ():
            if comparison.kind and comparison.phase in phases:
                those = self.found if comparison.kind == "matmul" else self.others
                those.setdefault(comparison.module, []).append(comparison)

    def cell(self, fqns: Iterable[str]) -> str:
        """Of a row that stands for these modules: that theory agrees, or by how much it does not, and in what ops.

        It is about matmul FLOPs, or else, where these agree, about vector FLOPs or bytes that do not.
        What modules without a formula run themselves contradicts nothing: it says ``not predicted: `` and how much.
        Empty for modules of which theory says nothing.
        """
        names = set(fqns)
        found = [comparison for fqn in names for comparison in self.found.get(fqn, ())]
        residual = sum(comparison.residual for comparison in found)
        if not residual:
            known = any(comparison.formula or comparison.predicted for comparison in found)
            return self._other(names) or (_AGREES if known else "")
        ops = [op for comparison in found for op in comparison.ops]
        inside = any(op.module not in names for op in ops)  # a row below says more
        text = difference(residual, () if inside else ops, self.units) + (" inside" if inside else "")
        if any(comparison.deviation for comparison in found):
            return text
        return f"{_UNCOVERED}: {text.removeprefix('+')}"

    def _other(self, names: Collection[str]) -> str:
        """``vector +1.20 k in add x2``, of the first quantity beside matmul FLOPs that has a residual."""
        for quantity, (kind, name) in _OTHERS.items():
            found = [c for fqn in names for c in self.others.get(fqn, ()) if c.quantity == quantity]
            residual = sum(c.residual for c in found)
            if residual:
                ops = [op for c in found for op in c.ops]
                return f"{name} {difference(residual, ops, self.units, kind=kind)}"
        return ""


def difference(
    residual: int, ops: Sequence[OpShare], units: Units, *, named: bool = False, kind: Kind = "matmul"
) -> str:
    """``+2.10 G in bmm x12``, or with the unit named: ``+2.10 GFLOP in bmm x12``."""
    calls: dict[str, int] = {}
    for op in ops:
        name = shortened(op.op.rpartition(".")[0].removeprefix("aten.") or op.op, _LONGEST, tail=_LONGEST // 2)
        calls[name] = calls.get(name, 0) + op.calls
    size = units.named(abs(residual), kind) if named else units.text(abs(residual), kind)
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
    more = [f"{c.quantity.replace('_', ' ')} {c.residual:+,}" for c in theory.comparisons if not c.phase and c.residual]
    more += [_in_phase(c, units) for c in theory.comparisons if not c.module and c.kind in _BESIDE and c.residual]
    return [f"{found}, residual {', '.join((rest, *more))}", *_not_predicted(report)]


def _in_phase(comparison: Comparison, units: Units) -> str:
    """``backward vector FLOPs +1.20 kFLOP in add x2``."""
    kind, _ = _OTHERS[comparison.quantity]
    what = f"{comparison.phase} {comparison.quantity.replace('_', ' ').replace('flops', 'FLOPs')}"
    return f"{what} {difference(comparison.residual, comparison.ops, units, named=True, kind=kind)}"


def _not_predicted(report: Report) -> list[str]:
    """One sentence for each reason."""
    modules: dict[str, list[str]] = {}
    for module, reason in report.theory.reasons.items():
        modules.setdefault(reason, []).append(module or report.root.class_name)
    return [f"Not predicted in full: {listed(names)}: {reason}." for reason, names in modules.items()]


def _any_formula(report: Report) -> bool:
    return any(c.formula for c in report.comparisons) or bool(report.theory.reasons)
