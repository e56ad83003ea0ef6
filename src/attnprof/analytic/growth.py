"""Big-O: the monomials of an expression that no other one dominates."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sympy import Add, Expr, Float, Integer, Max, Min, Mul, Piecewise, Pow, Symbol, ceiling, floor, log

from attnprof.analytic.symbols import (
    BitCount,
    CausalTileColumns,
    CausalTileRows,
    CausalTiles,
    CeilLog2,
    CutTiles,
    FloorLog2,
    symbol,
)

Monomial = dict[Any, Any]

#: What is never more than what: (smaller, larger).
_BOUNDS = [
    (symbol(small), symbol(large))
    for small, large in (
        ("Hkv", "H"),
        ("H", "d"),
        ("w", "T"),
        ("g", "T"),
        ("C", "T"),
        ("chunk", "T"),
        ("k", "T"),
        ("k", "E"),
    )
]


def leading(expression: Expr, symbols: Collection[str] | None = None) -> Expr:
    """The sum of the leading monomials, without coefficients; in ``symbols`` alone, the others taken as constants.

    An upper bound: what is subtracted is left out, a rounded quotient is at most the quotient and one more.
    """
    found: list[Monomial] = []
    for term in Add.make_args(_bounded(expression).expand()):
        coefficient, _ = term.as_coeff_Mul()
        if coefficient > 0:
            monomial = _monomial(term, symbols)
            if monomial not in found:
                found.append(monomial)
    kept = [a for a in found if not any(a is not b and _dominates(b, a) for b in found)]
    unique = [a for i, a in enumerate(kept) if a not in kept[:i]]
    return Add(*(Mul(*(Pow(base, power) for base, power in a.items())) for a in unique))


def _bounded(expression: Expr) -> Expr:
    """The expression with every function replaced by a polynomial (and logarithm) that grows like it."""
    if isinstance(expression, Pow) and expression.base == 2 and isinstance(expression.exp, CeilLog2 | FloorLog2):
        return _bounded(expression.exp.args[0])
    if isinstance(expression, Pow) and expression.exp.is_negative and isinstance(expression.base, ceiling):
        return _bounded(expression.base.args[0]) ** expression.exp  # rounding up makes a denominator larger
    if not expression.args:
        return expression
    args = [_bounded(arg) for arg in expression.args]
    if isinstance(expression, ceiling):
        return args[0] + 1
    if isinstance(expression, floor):
        return args[0]
    if isinstance(expression, Min):
        return min(args, key=lambda arg: (symbol("T") in arg.free_symbols, str(arg)))  # min(w, T - 1) is w
    if isinstance(expression, Max):
        return Add(*args)
    if isinstance(expression, CausalTiles):
        return args[0] ** 2
    if isinstance(expression, CausalTileRows | CausalTileColumns):  # of T / Bc tiles beside each other, or T / Br
        return args[0] ** 2 / args[2 if isinstance(expression, CausalTileRows) else 1]
    if isinstance(expression, CutTiles):
        return args[0] * (args[1] + args[2])
    if isinstance(expression, Piecewise):
        return Add(*(_bounded(case) for case, _ in expression.args))  # at most
    if isinstance(expression, CeilLog2 | FloorLog2 | BitCount):
        return log(args[0])
    return expression.func(*args)


def _monomial(term: Expr, symbols: Collection[str] | None) -> Monomial:
    """Exponents by base: a symbol or a logarithm."""
    found: Monomial = {}
    for base, power in term.as_powers_dict().items():
        if isinstance(base, Integer | Float) or base.is_number:
            continue
        if symbols is None or any(isinstance(s, Symbol) and s.name in symbols for s in base.free_symbols):
            found[base] = power
    return found


def _dominates(larger: Monomial, smaller: Monomial) -> bool:
    """Whether larger / smaller is at least 1 wherever the symbols are, within their known bounds."""
    ratio = {base: larger.get(base, 0) - smaller.get(base, 0) for base in {**larger, **smaller}}
    if not any(ratio.values()):
        return False
    for small, large in _BOUNDS:
        lent = min(-ratio.get(small, 0), ratio.get(large, 0))
        if lent > 0:
            ratio[small] += lent
            ratio[large] -= lent
    return all(power >= 0 for power in ratio.values())
