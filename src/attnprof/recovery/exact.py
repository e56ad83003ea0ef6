"""Linear systems with rational solutions, exactly: solved modulo one large prime, and read back as fractions.

The prime is so large that every fraction whose numerator and denominator have less than 260 bits is read back
as it is. What is read back is held against the counts themselves, so that no wrong solution is ever believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

#: Mersenne primes: the second is quick, and enough to tell whether an equation is new.
PRIME, QUICK = 2**521 - 1, 2**61 - 1
_BOUND = isqrt(PRIME // 2)


def modular(value: Fraction | int, prime: int = PRIME) -> int:
    """The number modulo a prime."""
    if isinstance(value, int):
        return value % prime
    return value.numerator * pow(value.denominator, -1, prime) % prime


class System:
    """Equations in so many unknowns, kept in reduced form: ``add`` says whether one said something new.

    The right side is solved for afterwards, for as many right sides as there are: each reduced row keeps how it is
    made of the equations that were taken.
    """

    def __init__(self, unknowns: int, prime: int = PRIME) -> None:
        self.unknowns, self.prime = unknowns, prime
        self.taken = 0
        self._rows: list[tuple[int, list[int], list[int]]] = []  # pivot, row, how it is made

    @property
    def is_full(self) -> bool:
        """Whether the equations determine all unknowns."""
        return self.taken == self.unknowns

    def is_new(self, equation: Sequence[Fraction | int]) -> bool:
        """Whether an equation is independent of those taken."""
        return any(self._reduced(equation)[0])

    def _reduced(self, equation: Sequence[Fraction | int]) -> tuple[list[int], list[int]]:
        """What of an equation is not said by those taken, and how it is made of them."""
        row = [modular(value, self.prime) for value in equation]
        made = [0] * self.taken + [1]
        for pivot, other, how in self._rows:
            if factor := row[pivot]:
                row = [(a - factor * b) % self.prime for a, b in zip(row, other, strict=True)]
                made = [(a - factor * b) % self.prime for a, b in zip(made, _padded(how, len(made)), strict=True)]
        return row, made

    def add(self, equation: Sequence[Fraction | int]) -> bool:
        """Take an equation if it is independent of those before."""
        row, made = self._reduced(equation)
        pivot = next((i for i, value in enumerate(row) if value), -1)
        if pivot < 0:
            return False
        inverse = pow(row[pivot], -1, self.prime)
        row = [value * inverse % self.prime for value in row]
        made = [value * inverse % self.prime for value in made]
        for at, (place, other, how) in enumerate(self._rows):
            if factor := other[pivot]:
                reduced = [(a - factor * b) % self.prime for a, b in zip(other, row, strict=True)]
                how = [(a - factor * b) % self.prime for a, b in zip(_padded(how, len(made)), made, strict=True)]
                self._rows[at] = place, reduced, how
        self._rows.append((pivot, row, made))
        self.taken += 1
        return True

    def solve(self, right: Sequence[int]) -> list[Fraction] | None:
        """The unknowns, from the right sides of the equations that were taken; None if they are no small fractions.

        Those that the equations leave open are 0.
        """
        found = [Fraction(0)] * self.unknowns
        for pivot, _, how in self._rows:
            value = fraction(sum(a * b for a, b in zip(how, right, strict=False)) % PRIME)
            if value is None:
                return None
            found[pivot] = value
        return found


def _padded(row: list[int], length: int) -> list[int]:
    return row + [0] * (length - len(row))


def fraction(value: int) -> Fraction | None:
    """The fraction with small numerator and denominator that is ``value`` modulo the prime, if there is one."""
    low, high = (PRIME, 0), (value % PRIME, 1)
    while high[0] > _BOUND:
        quotient = low[0] // high[0]
        low, high = high, (low[0] - quotient * high[0], low[1] - quotient * high[1])
    numerator, denominator = high
    if denominator == 0 or abs(denominator) > _BOUND:
        return None
    return Fraction(numerator, denominator)
