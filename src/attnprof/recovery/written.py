"""Formulas as they are written: a sum of products, in pieces where it has steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as every

from sympy import Add, And, Eq, Expr, Gt, Integer, Le, Min, ceiling, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.symbols import symbol
from attnprof.recovery.atoms import Atom, expression
from attnprof.recovery.fitting import Combination
from attnprof.recovery.outcome import Formula, Piece, rational


def written(combination: Combination, runs: int, held_out: int) -> Formula:
    """The formula of a combination, made from so many points and checked on so many more."""
    steps = sorted({a for product in combination for a, _ in product if a.kind == "above"}, key=_order)
    pieces = [
        Piece(_sum(combination, above).xreplace(_minima(steps, above)).expand(), And(*conditions))
        for above, conditions in _cases(steps)
    ]
    return Formula(tuple(pieces), runs, held_out)


def _order(step: Atom) -> tuple[object, ...]:
    return step.name, step.bound.names, step.bound.factor, step.bound.offset


def _cases(steps: Sequence[Atom]) -> Iterator[tuple[set[Atom], list[Boolean]]]:
    """The steps that are 1 in each case, and its conditions; the last case is that of large sizes."""
    for flags in every((False, True), repeat=len(steps)):
        above = {step for step, flag in zip(steps, flags, strict=True) if flag}
        if any(_follows(one, other) and one in above and other not in above for one in steps for other in steps):
            continue  # above the larger bound, and not above the smaller
        conditions: list[Boolean] = []
        for step in steps:
            others = [other for other in steps if other != step and (other in above) == (step in above)]
            if any(_follows(other, step) if step in above else _follows(step, other) for other in others):
                continue  # said by another
            side = Gt if step in above else Le
            conditions.append(side(symbol(step.name), step.bound.expression))
        yield above, conditions


def _follows(one: Atom, other: Atom) -> bool:
    """Whether a size that is above the bound of the first always is above that of the second."""
    if one == other or (one.name, one.bound.names) != (other.name, other.bound.names):
        return False
    a, b = one.bound, other.bound
    if not a.names:
        return a.factor + a.offset > b.factor + b.offset
    return a.factor >= b.factor and a.offset >= b.offset


def _minima(steps: Sequence[Atom], above: set[Atom]) -> dict[Expr, Expr]:
    """What min(T, w) is where it is known whether T is above w; and ceil(T / w), which is 1 where it is not."""
    found: dict[Expr, Expr] = {}
    for step in steps:
        x, bound = symbol(step.name), step.bound.expression - step.bound.offset
        if step in above and step.bound.offset >= 0:
            found[Min(x, bound)] = bound
        elif step not in above and step.bound.offset <= 0:
            found[Min(x, bound)] = x
            found[ceiling(x / bound)] = Integer(1)
    return found


def _sum(combination: Combination, above: set[Atom]) -> Expr:
    terms = [
        rational(c) * expression(product)
        for product, c in combination.items()
        if all(atom in above for atom, _ in product if atom.kind == "above")
    ]
    return Add(*terms)


def with_one(formula: Formula, name: str, there: Formula) -> Formula:
    """A formula with another one for a size of 1."""
    one, more = Eq(symbol(name), Integer(1)), Gt(symbol(name), Integer(1))
    pieces = [Piece(piece.expression, _both(one, piece.condition)) for piece in there.pieces]
    rest = [piece for piece in formula.pieces if one not in And.make_args(piece.condition)]
    pieces += [Piece(piece.expression, _both(more, piece.condition)) for piece in rest]
    return Formula(tuple(pieces), formula.runs + there.runs, formula.held_out + there.held_out)


def _both(one: Boolean, other: Boolean) -> Boolean:
    """Both conditions, without what another one says already: above 3 is above 1."""
    others = And.make_args(other)
    if any(isinstance(part, Gt) and part.lhs == one.lhs and part.rhs.is_Integer for part in others):
        return other if isinstance(one, Gt) else And(one, *others)
    return one if other is true else And(one, other)
