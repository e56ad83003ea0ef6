"""What recovery finds: a formula, that there is none in the basis, or that the counts depend on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from sympy import Expr, Integer, Piecewise, Rational, true
from sympy.logic.boolalg import Boolean

from attnprof.core.errors import AttnprofError

Sizes: TypeAlias = Mapping[str, int]
Role = Literal["fit", "held out"]


@dataclass(frozen=True, slots=True)
class Point:
    """One point that was counted: the sizes, the count, and whether the formula was made from it or checked on it.

    ``role`` is ``"held out"`` of points the formula was not made from. Where there is no formula all are "fit".
    """

    sizes: Sizes
    count: int
    role: Role = "fit"


@dataclass(frozen=True, slots=True)
class Piece:
    """An expression and where it holds: ``condition`` is a relation between symbols, ``true`` for everywhere."""

    expression: Expr
    condition: Boolean = true


@dataclass(frozen=True)
class Formula:
    """An exact formula: pieces whose conditions exclude each other and cover all sizes that it is stated for.

    ``runs``: how many points it was made from; ``held_out``: how many more it was checked on, each with ``==``.
    """

    pieces: tuple[Piece, ...]
    runs: int = 0
    held_out: int = 0

    @property
    def expression(self) -> Expr:
        """One sympy expression, a ``Piecewise`` where there are several pieces."""
        if len(self.pieces) == 1 and self.pieces[0].condition is true:
            return self.pieces[0].expression
        return Piecewise(*((piece.expression, piece.condition) for piece in self.pieces))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of the symbols in it, in alphabetical order."""
        return tuple(sorted(symbol.name for symbol in self.expression.free_symbols))

    def piece_at(self, sizes: Sizes) -> Piece:
        """The piece that holds at these sizes; raises where none does, or a size is missing."""
        for piece in self.pieces:
            if _put(piece.condition, sizes) == true:
                return piece
        raise AttnprofError(f"the formula says nothing of {_described(sizes)}.")

    def value(self, sizes: Sizes) -> Expr:
        """What the formula comes to at these sizes, be it whole or not."""
        return _put(self.piece_at(sizes).expression, sizes)

    def evaluate(self, **sizes: int) -> int:
        """The count at these sizes, exactly."""
        found = self.value(sizes)
        if not found.is_Rational:
            missing = ", ".join(sorted(symbol.name for symbol in found.free_symbols))
            raise AttnprofError(f"the formula needs a value of {missing}.")
        if not found.is_Integer:
            raise AttnprofError(f"the formula does not come to a whole number at {_described(sizes)}: it is {found}.")
        return int(found)


@dataclass(frozen=True)
class NoFormula:
    """No formula of the basis fits: ``reason`` is a sentence; the points are the answer."""

    reason: str


@dataclass(frozen=True)
class DataDependent:
    """Counts that differ between runs of the same sizes: ``spread`` has (sizes, least, most) of what was seen."""

    reason: str
    spread: tuple[tuple[Sizes, int, int], ...] = field(default_factory=tuple)


Outcome: TypeAlias = Formula | NoFormula | DataDependent


def rational(value: Fraction) -> Rational:
    """The same number as sympy has it."""
    return Rational(value.numerator, value.denominator)


def _put(what: Expr, sizes: Sizes) -> Expr:
    """An expression or a condition with values for symbols."""
    known = {s: Integer(sizes[s.name]) for s in what.free_symbols if s.name in sizes}
    return what.xreplace(known)


def _described(sizes: Sizes) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "no sizes"
