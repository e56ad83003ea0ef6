"""What formulas are made of: sizes, and the functions of them that counts are known to have.

The basis, all in one place: powers of a size (also of its inverse, as in d/H); min(T, w) and steps [T > w], with a
number or other sizes for w; ceil and floor of a quotient; floor and ceil of log2 and the power of two above.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from sympy import Expr, Integer, Min, Mul, Pow, ceiling, floor

from attnprof.analytic.symbols import BitCount, CeilLog2, FloorLog2, symbol
from attnprof.recovery.outcome import Sizes, rational

Kind = Literal["size", "min", "capped", "above", "ceil", "floor", "ceil_log2", "floor_log2", "power_of_two", "ones"]


@dataclass(frozen=True, slots=True)
class Bound:
    """``factor`` times the sizes in ``names`` plus ``offset``: what a size is held against, such as 64, w or 2w + 1."""

    factor: Fraction = Fraction(1)
    names: tuple[str, ...] = ()
    offset: int = 0

    def at(self, sizes: Sizes) -> Fraction | int:
        """Its value."""
        found: Fraction | int = self.factor.numerator if self.factor.denominator == 1 else self.factor
        for name in self.names:
            found *= sizes[name]
        return found + self.offset

    @property
    def expression(self) -> Expr:
        return rational(self.factor) * Mul(*(symbol(name) for name in self.names)) + self.offset


@dataclass(frozen=True, slots=True)
class Atom:
    """One function of sizes: of ``name``, and of ``bound`` where it has one.

    ``above`` is 1 for sizes above the bound and else 0; ``capped`` is the size times the bound, at most ``shift``;
    ``ceil`` and ``floor`` are of (size + shift) / bound.
    """

    kind: Kind
    name: str
    bound: Bound = Bound()
    shift: int = 0

    def at(self, sizes: Sizes) -> Fraction | int:
        """Its value."""
        size = sizes[self.name]
        if self.kind == "size":
            return size
        if self.kind == "min":
            return min(size, self.bound.at(sizes))
        if self.kind == "capped":
            return min(size * self.bound.at(sizes), self.shift)
        if self.kind == "above":
            return int(self.is_above(sizes))
        if self.kind in ("ceil", "floor"):
            over, under = size + self.shift, self.bound.at(sizes)
            return -(-over // under) if self.kind == "ceil" else over // under
        if self.kind == "floor_log2":
            return size.bit_length() - 1
        if self.kind == "ones":
            return size.bit_count()
        rounds = (size - 1).bit_length()
        return rounds if self.kind == "ceil_log2" else 2**rounds

    def is_above(self, sizes: Sizes) -> bool:
        """Whether the size is above the bound."""
        if self.kind == "capped":
            return sizes[self.name] * self.bound.at(sizes) > self.shift
        return sizes[self.name] > self.bound.at(sizes)

    @property
    def names(self) -> set[str]:
        """The sizes it is a function of."""
        return {self.name, *self.bound.names}

    @property
    def expression(self) -> Expr:
        """The same in sympy; of a step that is its condition's indicator, which formulas write as pieces instead."""
        x = symbol(self.name)
        if self.kind == "size":
            return x
        if self.kind == "min":
            return Min(x, self.bound.expression)
        if self.kind == "capped":
            return Min(x * self.bound.expression, self.shift)
        if self.kind == "ceil":
            return ceiling((x + self.shift) / self.bound.expression)
        if self.kind == "floor":
            return floor((x + self.shift) / self.bound.expression)
        if self.kind == "floor_log2":
            return FloorLog2(x)
        if self.kind == "ceil_log2":
            return CeilLog2(x)
        if self.kind == "power_of_two":
            return Integer(2) ** CeilLog2(x)
        if self.kind == "ones":
            return BitCount(x)
        raise AssertionError("a step has no expression of its own")


def lesser(name: str, bound: Bound) -> Atom:
    """The smaller of a size and a bound; of two sizes, the same in either order."""
    if bound == Bound(names=bound.names) and len(bound.names) == 1 and bound.names[0] < name:
        return Atom("min", bound.names[0], Bound(names=(name,)))
    return Atom("min", name, bound)


def capped(one: str, other: str, most: int) -> Atom:
    """The product of two sizes, at most a number."""
    first, second = sorted((one, other))
    return Atom("capped", first, Bound(names=(second,)), most)


def step(name: str, bound: Bound) -> Atom:
    """A step above a bound; of two sizes, the one in alphabetical order, which may be 1 less this one."""
    if bound.factor == 1 and len(bound.names) == 1 and bound.names[0] < name:
        return Atom("above", bound.names[0], Bound(names=(name,), offset=-bound.offset - 1))
    return Atom("above", name, bound)


#: A product of atoms: (atom, power), each atom once, in a fixed order.
Monomial: TypeAlias = tuple[tuple[Atom, int], ...]
ONE: Monomial = ()


def monomial(powers: Mapping[Atom, int] | Iterable[tuple[Atom, int]]) -> Monomial:
    """The product of these atoms, those to the power 0 left out; a step is its own square."""
    found = {atom: 1 if atom.kind == "above" and power else power for atom, power in dict(powers).items()}
    return tuple(sorted(((a, p) for a, p in found.items() if p), key=lambda item: repr(item[0])))


def times(a: Monomial, b: Monomial) -> Monomial:
    """The product of two monomials."""
    found = dict(a)
    for atom, power in b:
        found[atom] = found.get(atom, 0) + power
    return monomial(found)


def joined(a: Monomial, b: Monomial) -> Monomial:
    """The product of what was found of two sizes: functions of both that are in either are in it once."""
    found = dict(a)
    for atom, power in b:
        both = atom in found and len(atom.names) > 1
        found[atom] = max(found[atom], power) if both else found.get(atom, 0) + power
    return monomial(found)


def at(product: Monomial, sizes: Sizes) -> Fraction | int:
    """The value of a monomial."""
    found: Fraction | int = 1
    for atom, power in product:
        value = atom.at(sizes)
        found = found * value**power if power > 0 else Fraction(found) / value**-power
    return found


def of(name: str, power: int) -> Monomial:
    """A power of a size."""
    return monomial({Atom("size", name): power})


def expression(product: Monomial) -> Expr:
    """The same in sympy; steps are taken to be 1."""
    return Mul(*(Pow(atom.expression, power) for atom, power in product if atom.kind != "above"))
