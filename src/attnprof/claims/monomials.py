"""An expression taken apart into what decides its growth: monomials, and the regimes in which they are all there is.

A sum or a maximum grows as the largest of its monomials. A minimum, and a quotient by a sum, hold in *regimes*: there
certain monomials are at most others. A quotient that is rounded up is at most one more; one that is rounded down is
taken as the quotient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import sympy
from sympy import Add, Expr, Max, Min, Mod, Mul, Piecewise, Pow, Rational, Symbol, ceiling, floor, log
from sympy.core.relational import Ge, Gt, Le, Lt

from attnprof.core.errors import AttnprofError

#: More regimes than anything real has.
_MOST = 300
#: Functions of whole numbers that grow as the logarithm of their argument.
_LOGARITHMS = ("CeilLog2", "FloorLog2", "BitCount")  # of ones at most, of a number in binary


class UnsettledError(AttnprofError):
    """The growth of an expression cannot be told."""


@dataclass(frozen=True, slots=True)
class Monomial:
    """A product of powers, ``powers`` of symbols and ``logs`` of their logarithms, by name, without a coefficient."""

    powers: tuple[tuple[str, Fraction], ...] = ()
    logs: tuple[tuple[str, Fraction], ...] = ()

    def __mul__(self, other: Monomial) -> Monomial:
        return Monomial(_added(self.powers, other.powers), _added(self.logs, other.logs))

    def __pow__(self, exponent: Fraction) -> Monomial:
        powers, logs = (tuple((n, p * exponent) for n, p in part) for part in (self.powers, self.logs))
        return Monomial(powers, logs) if exponent else ONE

    def __truediv__(self, other: Monomial) -> Monomial:
        return self * other ** Fraction(-1)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in (*self.powers, *self.logs)}

    def expression(self, symbols: Mapping[str, Expr]) -> Expr:
        """The monomial in these symbols."""
        powers = [symbols[name] ** Rational(power) for name, power in self.powers]
        return Mul(*powers, *(log(symbols[name]) ** Rational(power) for name, power in self.logs))


ONE = Monomial()
#: Of each pair, the left monomial is at most the right one.
Below = tuple[tuple[Monomial, Monomial], ...]


@dataclass(frozen=True, slots=True)
class Regime:
    """Where each left monomial is at most the right one: what grows as the largest of the monomials there.

    ``exact`` is False where something was subtracted that may be as large: the monomials are an upper bound then.
    """

    below: Below = ()
    monomials: tuple[Monomial, ...] = ()
    exact: bool = True


def regimes(expression: Expr) -> list[Regime]:
    """All regimes of an expression that there are when every symbol is large.

    Raises :class:`UnsettledError` for a function whose growth is not known.
    """
    found = _regimes(sympy.expand(expression))
    if len(found) > _MOST:
        raise UnsettledError(f"the growth of an expression with more than {_MOST} cases cannot be told.")
    possible = [regime for regime in found if not any(_is_lower(large, small) for small, large in regime.below)]
    if not possible:
        raise UnsettledError(f"the growth of {expression} cannot be told: it says nothing of large sizes.")
    return possible


def _regimes(x: Expr) -> list[Regime]:
    if x.is_number:
        return [Regime(monomials=(ONE,) if x.is_positive else (), exact=not x.is_negative)]
    if isinstance(x, Symbol):
        return [Regime(monomials=(Monomial(((x.name, Fraction(1)),)),))]
    if isinstance(x, Add):
        return _sum(x)
    if isinstance(x, Mul):
        return _joined([_regimes(factor) for factor in x.args], _product)
    if isinstance(x, Pow) and x.exp.is_Rational:
        return _power(x.base, Fraction(x.exp.p, x.exp.q))
    if isinstance(x, Pow) and x.base == 2 and type(x.exp).__name__ in _LOGARITHMS:
        return _regimes(sympy.expand(x.exp.args[0]))  # the power of two above or below is at most a factor of 2 off
    if isinstance(x, Max):
        return _joined([_regimes(value) for value in x.args], _union)
    if isinstance(x, Min):
        return _minimum(x.args)
    if isinstance(x, ceiling):
        return _regimes(sympy.expand(x.args[0]) + 1)
    if isinstance(x, floor):
        return _regimes(sympy.expand(x.args[0]))
    if isinstance(x, Mod):
        return _regimes(x.args[1])
    if isinstance(x, log) or type(x).__name__ in _LOGARITHMS:
        return [_logarithm(regime, x) for regime in _regimes(sympy.expand(x.args[0]))]
    if isinstance(x, Piecewise):
        return _pieces(x)
    raise UnsettledError(f"the growth of {x} cannot be told.")


def _sum(x: Add) -> list[Regime]:
    """What is subtracted is left out; the sum is exact where something that is added outgrows it for sure."""
    added: list[list[Regime]] = []
    taken: list[list[Regime]] = []
    for term in x.args:
        coefficient, rest = term.as_coeff_Mul()
        (taken if coefficient.is_negative else added).append(_regimes(rest))
    found = _joined(added, _union) if added else [Regime(exact=False)]
    if not taken:
        return found
    lost = [monomial for some in taken for regime in some for monomial in regime.monomials]
    return [
        Regime(r.below, r.monomials, r.exact and all(any(_is_lower(m, o) for o in r.monomials) for m in lost))
        for r in found
    ]


def _is_lower(small: Monomial, large: Monomial) -> bool:
    """Whether small ÷ large tends to nothing, at whatever pace the symbols grow."""
    ratio = large / small
    return ratio != ONE and all(power >= 0 for _, power in (*ratio.powers, *ratio.logs))


def _power(base: Expr, exponent: Fraction) -> list[Regime]:
    found = _regimes(sympy.expand(base))
    if exponent > 0:
        return [Regime(r.below, tuple(m**exponent for m in r.monomials), r.exact) for r in found]
    split = []
    for regime in found:  # one over a sum is one over the largest
        for largest in regime.monomials:
            below = tuple((other, largest) for other in regime.monomials if other != largest)
            split.append(Regime((*regime.below, *below), (largest**exponent,), regime.exact))
    return split


def _minimum(values: Iterable[Expr]) -> list[Regime]:
    """A regime for each value that can be the least, and for each monomial of the others that can bound it."""
    known = [_regimes(sympy.expand(value)) for value in values]
    found = []
    for combination in _bounded_product(known):
        for k, least in enumerate(combination):
            others = [other.monomials for i, other in enumerate(combination) if i != k]
            given = tuple(pair for regime in combination for pair in regime.below)
            for bounds in _bounded_product(others):
                below = tuple((mine, bound) for bound in bounds for mine in least.monomials if mine != bound)
                found.append(Regime((*given, *below), least.monomials, all(r.exact for r in combination)))
    return found


def _logarithm(regime: Regime, x: Expr) -> Regime:
    found = []
    exact = regime.exact
    for monomial in regime.monomials:
        if monomial.logs:
            raise UnsettledError(f"the growth of {x} cannot be told: it is the logarithm of one.")
        exact &= all(power > 0 for _, power in monomial.powers)
        found += [Monomial(logs=((name, Fraction(1)),)) for name, power in monomial.powers if power > 0]
    return Regime(regime.below, tuple(dict.fromkeys(found)) or (ONE,), exact)


def _pieces(x: Piecewise) -> list[Regime]:
    """The pieces that are left when every symbol is large, each with what its condition says of symbols."""
    found: list[Regime] = []
    before: list[Below] = [()]  # what the failure of all earlier conditions says
    for value, condition in x.args:
        if condition in (sympy.true, sympy.false):
            holds: list[Below] | None = [()] if condition is sympy.true else None
            fails: list[Below] | None = None if holds else [()]
        else:
            holds, fails = _conditions(condition), _conditions(sympy.Not(condition))
        for given in before if holds is not None else ():
            for more in holds or ():
                found += [Regime((*given, *more, *r.below), r.monomials, r.exact) for r in _regimes(value)]
        if fails is None:
            break
        before = [(*given, *more) for given in before for more in fails]
        if len(before) > _MOST:
            raise UnsettledError(f"the growth of an expression with more than {_MOST} cases cannot be told.")
    return found


def _conditions(condition: Any) -> list[Below] | None:
    """The ways in which a condition can hold when all symbols are large, each by which monomial is at most which.

    None: it cannot. A condition that is no comparison of sizes says nothing.
    """
    if isinstance(condition, sympy.And):
        parts = [_conditions(part) for part in condition.args]
        possible = [part for part in parts if part is not None]
        if len(possible) < len(parts):
            return None
        return [tuple(pair for way in combination for pair in way) for combination in _bounded_product(possible)]
    if isinstance(condition, sympy.Or):
        found = [way for part in condition.args for way in _conditions(part) or ()]
        return found or None
    if not isinstance(condition, Le | Lt | Ge | Gt):
        is_one_size = isinstance(condition, sympy.Eq) and len(condition.free_symbols) == 1 and not condition.has(Mod)
        return None if is_one_size else [()]
    lower, upper = (_regimes(sympy.expand(side)) for side in (condition.lts, condition.gts))
    ways: list[Below] = []
    for mine, other in _bounded_product([lower, upper]):
        if mine.monomials and set(other.monomials) <= {ONE} and any(m != ONE for m in mine.monomials):
            continue  # something that grows is below a constant
        if set(mine.monomials) <= {ONE}:
            ways.append((*mine.below, *other.below))
            continue
        for bound in other.monomials:
            pairs = tuple((m, bound) for m in mine.monomials if m != bound)
            ways.append((*mine.below, *other.below, *pairs))
    return ways or None


def _product(some: Sequence[Regime]) -> tuple[Monomial, ...]:
    found = [ONE]
    for regime in some:
        found = list(dict.fromkeys(a * b for a in found for b in regime.monomials))
    return tuple(found)


def _union(some: Sequence[Regime]) -> tuple[Monomial, ...]:
    return tuple(dict.fromkeys(m for regime in some for m in regime.monomials))


def _joined(
    parts: Sequence[Sequence[Regime]], made: Callable[[Sequence[Regime]], tuple[Monomial, ...]]
) -> list[Regime]:
    """Every combination of regimes of the parts."""
    return [
        Regime(
            tuple(dict.fromkeys(pair for regime in some for pair in regime.below)),
            made(some),
            all(regime.exact for regime in some),
        )
        for some in _bounded_product(parts)
    ]


def _bounded_product(parts: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    count = 1
    for part in parts:
        count *= max(1, len(part))
        if count > _MOST:
            raise UnsettledError(f"the growth of an expression with more than {_MOST} cases cannot be told.")
    return list(product(*parts))


def _added(
    some: tuple[tuple[str, Fraction], ...], more: tuple[tuple[str, Fraction], ...]
) -> tuple[tuple[str, Fraction], ...]:
    found = dict(some)
    for name, power in more:
        found[name] = found.get(name, Fraction(0)) + power
    return tuple(sorted((name, power) for name, power in found.items() if power))
