"""Whether one expression bounds another as all symbols grow, each at a pace of its own.

f is O(g) when there are a constant C and sizes from which on f ≤ C·g, however the symbols grow beside each other: N
alone, d alone, both. In logarithms of the symbols everything is linear: a direction of growth gives each symbol a
*rate* (the power of one growing number that it is), and whether a monomial can outgrow all of others is a linear
programme over the rates, solved in fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product

from sympy import Add, Expr, Matrix, Rational, Symbol
from sympy.solvers.simplex import linprog

from attnprof.claims.monomials import ONE, Monomial, Regime, UnsettledError, regimes

Rates = Mapping[str, Fraction]
Below = Sequence[tuple[Monomial, Monomial]]
#: A symbol is more than any power of its logarithm: this one stands for all that can be written.
_STEEP = 10**6
_UNSETTLED = "the growth of {} cannot be told: what it subtracts may be as large as the rest."


@dataclass(frozen=True, slots=True)
class Escape:
    """A monomial that outgrows every multiple of a bound when the symbols grow at these rates."""

    monomial: Monomial
    rates: Rates


def escape(larger: Expr, bound: Expr, assumed: Iterable[tuple[Expr, Expr]] = ()) -> Escape | None:
    """How ``larger`` outgrows every multiple of ``bound``, or None where it is O(bound).

    ``assumed``: pairs of products, the first of which is at most the second. Raises :class:`UnsettledError` where
    the growth of either cannot be told.
    """
    given = [(_single(small), _single(large)) for small, large in assumed]
    for mine, other in product(regimes(larger), regimes(bound)):
        if not other.exact:
            raise UnsettledError(_UNSETTLED.format(bound))
        constraints = [*given, *mine.below, *other.below]
        for monomial in mine.monomials:
            rates = outgrows(monomial, other.monomials, constraints)
            if rates is not None:
                if not mine.exact:
                    raise UnsettledError(_UNSETTLED.format(larger))
                return Escape(monomial, rates)
    return None


def leading(expression: Expr, assumed: Iterable[tuple[Expr, Expr]] = ()) -> Expr:
    """What stands in O( ): the sum of the monomials, without coefficients, that the others together do not bound."""
    given = [(_single(small), _single(large)) for small, large in assumed]
    where: dict[Monomial, list[Below]] = {}
    for regime in regimes(expression):
        for monomial in regime.monomials:
            where.setdefault(monomial, []).append(regime.below)
    found = list(where)
    for monomial in sorted(found, key=lambda m: (sum(power for _, power in m.powers), len(m.powers), str(m))):
        others = [m for m in found if m != monomial]
        if others and all(outgrows(monomial, others, [*given, *below]) is None for below in where[monomial]):
            found = others
    symbols = {symbol.name: symbol for symbol in expression.free_symbols if isinstance(symbol, Symbol)}
    return Add(*(m.expression(symbols) for m in found))


def degree(expression: Expr, rates: Rates) -> Fraction:
    """The power of the growing number that an expression grows as along a direction, logarithms left out."""
    return max(
        (
            _at(monomial, rates)
            for regime in regimes(expression)
            if all(_at(small, rates) <= _at(large, rates) for small, large in regime.below)
            for monomial in regime.monomials
        ),
        default=Fraction(0),
    )


def outgrows(monomial: Monomial, others: Sequence[Monomial], below: Below = ()) -> Rates | None:
    """Rates at which a monomial outgrows all of the others, with as few symbols as will do, or None."""
    ratios = [monomial / other for other in others]
    if any(all(power <= 0 for _, power in (*r.powers, *r.logs)) for r in ratios):
        return None
    limits = [small / large for small, large in below]
    names = sorted({name for m in (monomial, *ratios, *limits) for name in m.names})
    has_logs = any(m.logs for m in (*ratios, *limits))
    for count in range(1, len(names) + 1):
        for growing in combinations(names, count):
            rates = {name: Fraction(name in growing) for name in names}
            if all(_sign(r, rates) > 0 for r in ratios) and all(_sign(r, rates) <= 0 for r in limits):
                return rates
    if not ratios:
        return dict.fromkeys(names, Fraction(1))
    supports = [s for n in range(1, len(names) + 1) for s in combinations(names, n)] if has_logs else [tuple(names)]
    for growing in supports:
        found = _solved(ratios, limits, growing)
        if found is not None:
            return {name: found.get(name, Fraction(0)) for name in names}
    return None


def _solved(ratios: Sequence[Monomial], limits: Sequence[Monomial], growing: Sequence[str]) -> Rates | None:
    """Rates of the growing symbols, 0 to 1, at which the ratios all grow, the slowest as fast as can be; or None.

    The unknowns are the rates, what a logarithm is beside them, and how fast the slowest ratio grows.
    """
    if not growing:
        return None
    width = len(growing) + 2
    rows, limit = [], []

    def row(monomial: Monomial, sign: int, least: int) -> list[Rational]:
        powers, logs = dict(monomial.powers), dict(monomial.logs)
        weight = sum((logs.get(name, Fraction(0)) for name in growing), Fraction(0))
        values = [*(powers.get(name, Fraction(0)) for name in growing), weight]
        return [*(Rational(sign * value) for value in values), Rational(least)]

    for ratio in ratios:
        rows.append(row(ratio, -1, 1))
        limit.append(0)
    for most in limits:
        rows.append(row(most, 1, 0))
        limit.append(0)
    for k in range(len(growing)):
        unit = [Rational(0)] * width
        unit[k] = Rational(1)
        rows.append(unit)
        limit.append(1)
        steep = [Rational(0)] * width
        steep[k], steep[-2] = Rational(-1), Rational(_STEEP)
        rows.append(steep)
        limit.append(0)
    objective = Matrix([[0] * (width - 1) + [-1]])
    best, point = linprog(objective, Matrix(rows), Matrix(limit))
    if not best < 0:
        return None
    return {name: Fraction(str(value)) for name, value in zip(growing, point, strict=False)}


def _single(expression: Expr) -> Monomial:
    found: list[Regime] = regimes(expression)
    if len(found) != 1 or len(found[0].monomials) != 1 or found[0].below:
        raise UnsettledError(f"{expression} is no product of symbols.")
    return found[0].monomials[0]


def _at(monomial: Monomial, rates: Rates) -> Fraction:
    return sum((power * rates.get(name, Fraction(0)) for name, power in monomial.powers), Fraction(0))


def _sign(ratio: Monomial, rates: Rates) -> Fraction:
    """Above zero where a ratio grows, below where it shrinks: by its powers, else by its logarithms."""
    if ratio == ONE:
        return Fraction(0)
    return _at(ratio, rates) or sum((p for name, p in ratio.logs if rates.get(name, 0)), Fraction(0))
