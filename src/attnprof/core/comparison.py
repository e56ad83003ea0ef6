"""Measured against predicted: values that travel from analysis to reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TermValue:
    """One named term of a closed form, as a number and, where it has one, as a formula in symbols."""

    name: str
    value: int
    expression: str = ""


@dataclass(frozen=True, slots=True)
class OpShare:
    """Calls of one op in one module, and what they amount to in the quantity compared."""

    op: str
    module: str
    calls: int
    amount: int


#: Quantities of work -> the kind of it.
_KINDS = {"matmul_flops": "matmul", "vector_flops": "vector", "read_bytes": "traffic", "write_bytes": "traffic"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of one module, as it was measured and as theory has it, with all that is inside the module.

    ``formula`` names the closed form; it is empty for a module without one, which is predicted to be the sum of
    the modules in it. ``phase`` is empty for what belongs to none (parameters). ``ops`` explain the residual: those
    that no formula accounts for, dearest first. ``uncovered`` is the part of the residual that modules without a
    formula ran themselves, which is no contradiction: theory says nothing of it.
    """

    module: str
    formula: str
    phase: str
    quantity: str
    measured: int
    predicted: int
    terms: tuple[TermValue, ...] = ()
    ops: tuple[OpShare, ...] = ()
    uncovered: int = 0

    @property
    def residual(self) -> int:
        """Measured less predicted."""
        return self.measured - self.predicted

    @property
    def kind(self) -> str:
        """``matmul``, ``vector`` or ``traffic``; empty for what is kept and not done: parameters, saved bytes."""
        return _KINDS.get(self.quantity, "")

    @property
    def deviation(self) -> int:
        """The residual where theory has a formula, and the run differs from it."""
        return self.residual - self.uncovered
