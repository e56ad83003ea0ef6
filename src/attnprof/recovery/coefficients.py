"""Coefficients of products of functions of several sizes: one size joins after the other.

Each size that joins multiplies only what was left of the ones before, so that few points tell the terms apart.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from fractions import Fraction

from attnprof.recovery.atoms import ONE, Monomial, at, joined
from attnprof.recovery.exact import QUICK, System
from attnprof.recovery.fitting import Combination, value
from attnprof.recovery.products import Bases, apart, simple_first
from attnprof.recovery.space import Point, Space

BASIS = "polynomials up to degree 4, inverse powers, min, ceil and floor of quotients, log2, pieces between breakpoints"
#: Terms that may wait for another size to be told apart.
_UNTOLD = 120
#: The largest denominator of a coefficient: wrong terms that are fitted to points have enormous ones.
_DENOMINATOR = 10_000
#: Points in a row that tell nothing new after which no other is looked for.
_IDLE = 400


class NoFitError(Exception):
    """Nothing of the basis fits; the message says where that showed."""


class TooFewError(NoFitError):
    """The points that can be counted do not determine the coefficients."""


def combined(space: Space, key: Hashable, bases: Bases, thin: Container[str]) -> tuple[Combination, list[Point]]:
    """The coefficients of products of the bases, and the points that they were made from.

    ``thin`` are the symbols whose lines have few sizes: they join last.
    """
    joint = {name: max((len(a.names) for p in bases[name] for a, _ in p), default=0) for name in bases}
    order = sorted(bases, key=lambda name: (name in thin, -joint[name]))
    products: Sequence[Monomial] = [ONE]
    included: list[str] = []
    solved: tuple[Combination, list[Point]] | None = None
    for name in order:
        own = {*bases[name], *(apart(product, included) for product in bases[name])}
        included.append(name)
        if own == {ONE}:
            continue
        is_told = len(products) == 1 or len(own) == 1  # nothing to choose from: all terms are there
        products = sorted({joined(a, b) for a in products for b in own}, key=simple_first)
        solved = None
        if is_told:
            continue
        try:
            solved = _solved(space, key, products, included)
            products = list(solved[0]) or [ONE]
        except TooFewError:
            if name == order[-1] or len(products) > _UNTOLD:
                raise  # else the sizes that join next may tell them apart
    return solved or _solved(space, key, products, included)


def _solved(
    space: Space, key: Hashable, basis: Sequence[Monomial], included: Sequence[str]
) -> tuple[Combination, list[Point]]:
    """The coefficients, from points in which the included sizes vary; held against all such points there are."""
    system, rank = System(len(basis)), System(len(basis), QUICK)
    right: list[int] = []
    used: list[Point] = []
    rest: list[tuple[Point, int]] = []

    def take(point: Point, row: list[Fraction | int], count: int) -> None:
        system.add(row)
        right.append(count)
        used.append(point)

    for point, counts in space.within(included):
        row = [at(product, space.sizes(point)) for product in basis]
        if not rank.is_full and rank.add(row):
            take(point, row, counts.get(key, 0))
        else:
            rest.append((point, counts.get(key, 0)))
    idle = 0
    for point in () if rank.is_full else space.random(included):
        if rank.is_full or idle > _IDLE:
            break
        row = [at(product, space.sizes(point)) for product in basis]
        idle += 1
        if rank.is_new(row) and (fresh := space.count(point)) is not None:
            rank.add(row)
            take(point, row, fresh.get(key, 0))
            idle = 0
    if not rank.is_full and not any(atom.kind in ("min", "capped") for product in basis for atom, _ in product):
        raise TooFewError(
            f"the sizes of {', '.join(included)} that can be counted are too few to tell {len(basis)} terms apart."
        )  # with min(a, b) some terms are sums of others: (a - min) (b - min) = 0
    coefficients = system.solve(right)
    found = {product: c for product, c in zip(basis, coefficients or (), strict=False) if c}
    if any(c.denominator > _DENOMINATOR for c in found.values()):
        coefficients = None  # what counts whole things has none like that
    if coefficients is None:
        raise NoFitError(f"no formula of the basis fits ({BASIS}).")
    for point, count in rest:
        if value(found, space.sizes(point)) != count:
            raise wrong_at(space, point, count)
    return found, used


def wrong_at(space: Space, point: Point, count: int) -> NoFitError:
    where = ", ".join(f"{name}={size}" for name, size in zip(space.names, point, strict=True))
    return NoFitError(f"no formula of the basis ({BASIS}) comes to {count} at {where} and to the other counts.")
