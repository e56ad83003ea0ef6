"""Whether a basis fits counts: coefficients from as many points as it takes, held against all the others."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from attnprof.recovery.atoms import Monomial, at
from attnprof.recovery.exact import QUICK, System
from attnprof.recovery.outcome import Sizes

#: Monomial -> coefficient, none of them 0.
Combination = dict[Monomial, Fraction]


def fit(basis: Sequence[Monomial], points: Sequence[tuple[Sizes, int]], spare: int) -> Combination | None:
    """The combination of the basis that comes to every count; None if there is none, or nothing to tell it by.

    At least ``spare`` points must be left to check it on.
    """
    if len(points) < len(basis) + spare:
        return None
    system = System(len(basis))
    right: list[int] = []
    rest: list[tuple[Sizes, int]] = []
    for sizes, count in points:
        if not system.is_full and system.add([at(product, sizes) for product in basis]):
            right.append(count)
        else:
            rest.append((sizes, count))
    if not system.is_full:
        return None
    found = system.solve(right)
    if found is None:
        return None
    combination = {product: c for product, c in zip(basis, found, strict=True) if c}
    return combination if all(value(combination, sizes) == count for sizes, count in rest) else None


def might_fit(rows: Sequence[Sequence[int]], counts: Sequence[int]) -> bool:
    """Whether some combination of columns comes to the counts modulo a prime: if not, none does."""
    left = [[*row, count] for row, count in zip(rows, counts, strict=True)]
    for column in range(len(rows[0])):
        pivot = next((row for row in left if row[column] % QUICK), None)
        if pivot is None:
            continue
        left.remove(pivot)
        inverse = pow(pivot[column], -1, QUICK)
        for row in left:
            if factor := row[column] * inverse % QUICK:
                row[column:] = [(a - factor * b) % QUICK for a, b in zip(row[column:], pivot[column:], strict=True)]
    return all(row[-1] % QUICK == 0 for row in left)


def value(combination: Combination, sizes: Sizes) -> Fraction:
    """What a combination comes to."""
    return sum((c * at(product, sizes) for product, c in combination.items()), Fraction(0))
