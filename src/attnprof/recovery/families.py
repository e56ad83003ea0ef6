"""Families of functions of one size that a count along it may be a sum of, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations

from attnprof.recovery.atoms import ONE, Atom, Bound, Kind, Monomial, lesser, monomial, of, step, times
from attnprof.recovery.outcome import Sizes
from attnprof.recovery.pieces import Pieces

DEGREE = 4
#: Divisors of rounded quotients that are tried, and those that are tried with every shift.
_DIVISORS, _SHIFTED = 1024, 16
#: Values that a rounded quotient has to have at the points: of fewer, it is a step that pieces tell better.
VALUES = 4
_LOGARITHMS: tuple[Kind, ...] = ("ceil_log2", "floor_log2", "power_of_two", "ones")


def polynomials(name: str) -> Iterator[list[Monomial]]:
    for degree in range(DEGREE + 1):
        yield [of(name, power) for power in range(degree + 1)]


def sparse(name: str) -> Iterator[list[Monomial]]:
    """One, two or three powers, or a logarithm with them: what few sizes are enough for."""
    powers = [of(name, power) for power in range(DEGREE + 1)]
    for many in (1, 2, 3):
        yield from map(list, combinations(powers, many))
    for kind in _LOGARITHMS[:2]:
        atom = monomial({Atom(kind, name): 1})
        for many in (0, 1, 2):
            for plain in combinations(powers[:3], many):
                for power in powers[:3]:
                    yield [*plain, times(power, atom)]


def inverses(name: str) -> Iterator[list[Monomial]]:
    for lowest, highest in ((-1, 0), (-1, 1), (-1, 2), (-2, 1), (-2, 2)):
        yield [of(name, power) for power in range(lowest, highest + 1)]


def logarithmic(name: str) -> Iterator[list[Monomial]]:
    for degree in (1, 2):
        plain = [of(name, power) for power in range(degree + 1)]
        for kind in _LOGARITHMS:
            atom = monomial({Atom(kind, name): 1})
            yield [*plain, *(times(power, atom) for power in plain)]
        for one, other in (("ceil_log2", "power_of_two"), ("floor_log2", "ones"), ("ceil_log2", "floor_log2")):
            atoms = [monomial({Atom(kind, name): 1}) for kind in (one, other)]  # type: ignore[arg-type]
            yield [*plain, *atoms, *(times(of(name, 1), atom) for atom in atoms)]
    binary = [Atom(kind, name) for kind in _LOGARITHMS] + [Atom("ceil", name, Bound(Fraction(2)))]
    yield [of(name, 0), of(name, 1), *(monomial({atom: 1}) for atom in binary)]


def under(name: str, names: Sequence[str], points: Sequence[Sizes]) -> Iterator[list[Monomial]]:
    """Rounded quotients of other sizes by this one, those that are no better than a few steps left out."""
    plain = [of(name, power) for power in range(3)]
    for other in names:
        for kind in ("ceil", "floor"):
            atom = Atom(kind, other, Bound(names=(name,)))
            if other != name and len({atom.at(sizes) for sizes in points}) >= VALUES:
                quotient = monomial({atom: 1})
                single = [*plain, *(times(power, quotient) for power in plain)]
                yield single
                yield [*single, *(times(power, times(quotient, quotient)) for power in plain)]
                low = monomial({lesser(name, Bound(names=(other,))): 1})
                lows = [ONE, low, times(low, low)]
                yield [*lows, *(times(power, quotient) for power in lows)]


def rounded(name: str, names: Sequence[str], anchor: Sizes) -> Iterator[Atom]:
    """Quotients of the size, by other sizes first."""
    others = [Bound(Fraction(1), (other,)) for other in names if other != name]
    for bound in others:
        yield Atom("ceil", name, bound)
        yield Atom("floor", name, bound)
    for divisor in range(2, _DIVISORS + 1):
        bound = Bound(Fraction(divisor))
        if any(other.at(anchor) == divisor for other in others):
            continue
        yield Atom("ceil", name, bound)
        yield Atom("floor", name, bound)
        for shift in range(1, divisor - 1) if divisor <= _SHIFTED else ():
            yield Atom("floor", name, bound, shift)


def quotients(name: str, atom: Atom, shape: int) -> list[Monomial]:
    x, rounded = of(name, 1), monomial({atom: 1})
    if shape == 0:
        return [ONE, x, rounded]
    products = [ONE, x, of(name, 2), rounded, times(x, rounded)]
    if atom.bound == Bound(Fraction(2)):
        return products  # odd or even: the square of the quotient is made of these
    return [*products, times(rounded, rounded)]


def broken(name: str, found: Pieces, bounds: Callable[[Fraction], Iterator[Bound]]) -> Iterator[list[Monomial]]:
    """Bases of polynomials that change at the breaks: with min(T, w) where nothing jumps there, else with steps."""
    plain = [of(name, power) for power in range(max(found.degree, 1) + 1)]
    options: list[list[list[Monomial]]] = []
    for one in found.breaks:
        ways: list[list[Monomial]] = []
        for at in one.meets:
            for bound in bounds(at):
                low = monomial({lesser(name, bound): 1})
                ways.append([times(low, power) for power in plain[:-1]])
        for bound in bounds(Fraction(one.last)):
            above = monomial({step(name, bound): 1})
            ways.append([times(above, power) for power in plain[: one.sizes]])
        options.append(ways)
    firsts = [ways[0] for ways in options]
    yield plain + [product for way in firsts for product in way]
    if len(options) == 1:
        for way in options[0][1:]:
            yield plain + way
    else:
        yield plain + [product for ways in options for product in ways[-1]]
