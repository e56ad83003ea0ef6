"""Linear systems solved modulo a prime are solved exactly."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from attnprof.recovery.exact import PRIME, System, fraction, modular
from attnprof.recovery.fitting import might_fit

fractions = st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**9)


@given(fractions)
def test_a_fraction_is_read_back(value: Fraction) -> None:
    assert fraction(modular(value)) == value


def test_what_is_too_large_is_never_read_back_as_itself() -> None:
    """So a wrong solution has to be held against the counts, as every one is."""
    value = Fraction(2**300, 3**200)
    assert fraction(modular(value)) != value


@given(st.data())
def test_unknowns_are_found_whatever_the_order_and_repetition_of_equations(data: st.DataObject) -> None:
    unknowns = data.draw(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=5))
    share = data.draw(st.integers(1, 10**6))
    system = System(len(unknowns))
    right = []
    while not system.is_full:
        row = data.draw(st.lists(st.integers(-50, 50), min_size=len(unknowns), max_size=len(unknowns)))
        identity = [int(i == system.taken) for i in range(len(unknowns))]
        for equation in (row, row, identity):
            if not system.is_full and system.add([share * a for a in equation]):
                right.append(sum(a * x for a, x in zip(equation, unknowns, strict=True)))
    assert system.solve(right) == [Fraction(x, share) for x in unknowns]


def test_an_equation_that_follows_from_others_is_not_taken() -> None:
    system = System(3)
    assert system.add([1, 2, 3])
    assert system.add([0, 1, 1])
    assert not system.is_new([2, 5, 7])  # twice the first and once the second
    assert not system.add([2, 5, 7])
    assert system.add([0, 0, PRIME + 1])
    assert system.is_full


def test_a_basis_that_cannot_fit_is_seen() -> None:
    rows = [[1, x] for x in range(1, 8)]
    assert might_fit(rows, [3 * x + 5 for x in range(1, 8)])
    assert not might_fit(rows, [x * x for x in range(1, 8)])
