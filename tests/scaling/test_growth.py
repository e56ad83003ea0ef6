"""Whether one expression bounds another as all symbols grow: hand-made pairs, and numbers along every direction."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import And, Expr, Integer, Mod, Piecewise, Symbol

from attnprof.analytic.symbols import BitCount, CeilLog2, FloorLog2
from attnprof.claims.growth import degree, escape, leading
from attnprof.claims.monomials import Monomial, UnsettledError, regimes
from scaling.names import SYMBOLS, H, N, T, d, read, w


@pytest.mark.parametrize(
    ("f", "g"),
    [
        ("12Nd² + 8N²d", "N²d + Nd²"),
        ("12Nd² + 8N²d", "(N + d)^3"),
        ("Nd", "N² + d²"),  # neither alone: their geometric mean
        ("N²d²", "N³d + Nd³"),
        ("sqrt(N) d", "N + d²"),
        ("5", "N"),
        ("0", "N"),
        ("N", "N log N"),
        ("N log N", "N^1.1"),
        ("N log2 N", "N log N"),
        ("N² ", "N² log d"),
        ("N log(N²d)", "N log N + N log d"),
        ("N²", "N² - N"),
        ("N² - N", "N²"),
        ("T min(T, w)", "T w"),
        ("T min(T, w)", "T²"),
        ("max(T, w)", "T + w"),
        ("T + w", "max(T, w)"),
        ("w ceil(T/w)", "T + w"),
        ("T + w", "w ceil(T/w)"),
        ("N/(N + d)", "1"),
        ("N²/(N + d)", "N"),
        ("N d/(N + d)", "min(N, d)"),
        ("T/ceil(T/w)", "w"),
    ],
)
def test_bounded(f: str, g: str) -> None:
    assert escape(read(f), read(g)) is None


@pytest.mark.parametrize(
    ("f", "g", "rates"),
    [
        ("12Nd² + 8N²d", "Nd²", {"N": 1, "d": 0}),
        ("Nd", "N + d", {"N": 1, "d": 1}),
        ("N log N", "N", {"N": 1}),
        ("N² log N", "N² log d", {"N": 1, "d": 0}),
        ("N", "5", {"N": 1}),
        ("T w", "T min(T, w)", {"T": 0, "w": 1}),
        ("T²", "T²/ceil(T/w)", {"T": 1, "w": 0}),
        ("N²H", "N²d", {"H": 1, "N": 0, "d": 0}),
        ("N", "0", {"N": 1}),
    ],
)
def test_outgrown(f: str, g: str, rates: dict[str, int]) -> None:
    found = escape(read(f), read(g))
    assert found is not None
    assert dict(found.rates) == rates


def test_a_direction_that_only_a_programme_finds() -> None:
    """N²d³ beside N⁴d + d⁵/√N: with N = x and d = x^r it takes 2 + 3r > 4 + r and 2 + 3r > 5r - 1/2, so 1 < r < 5/4."""
    found = escape(N**2 * d**3, N**4 * d + d**5 / N ** Fraction(1, 2))
    assert found is not None
    ratio = found.rates["d"] / found.rates["N"]
    assert 1 < ratio < Fraction(5, 4)


def test_what_is_known_of_sizes() -> None:
    assert escape(N**2 * H, N**2 * d, [(H, d)]) is None
    assert escape(T * w, T**2, [(w, T)]) is None
    assert escape(T**2, T * w, [(w, T)]) is not None


def test_pieces() -> None:
    window = Piecewise((T**2, w >= T), (2 * T * w, True))
    assert escape(window, T * w) is None  # in the first piece T is at most w
    assert escape(window, T**2) is None
    assert escape(T * w, window) is not None  # w alone: only the first piece is left
    assert escape(Piecewise((T**3, T <= 8), (T**2, True)), T**2) is None  # T is large in the end
    assert escape(Piecewise((T**3, And(T > 8, w > 3)), (T**2, True)), T**2) is not None
    assert escape(Piecewise((T, T < 8), (T**2, T >= 8)), T) is not None
    assert escape(Piecewise((T**2, Mod(T, 2) > 0), (T, True)), T) is not None  # every other size


def test_functions_of_scans() -> None:
    assert escape(T * CeilLog2(T), T * FloorLog2(T)) is None
    assert escape(T * CeilLog2(T), T) is not None
    assert escape(BitCount(T), read("log T")) is None
    assert escape(Integer(2) ** CeilLog2(T), T) is None


@pytest.mark.parametrize(("f", "g"), [("T", "T² - T w"), ("T - w", "1"), ("T", "log log T")])
def test_what_cannot_be_told(f: str, g: str) -> None:
    with pytest.raises(UnsettledError):
        escape(read(f), read(g))


def test_a_formula_for_small_sizes_alone() -> None:
    with pytest.raises(UnsettledError, match="it says nothing of large sizes"):
        escape(Piecewise((T, T <= 8)), T)


def test_a_function_that_nothing_is_known_of() -> None:
    from sympy import gamma

    with pytest.raises(UnsettledError, match="the growth of gamma"):
        escape(gamma(T), T)


@pytest.mark.parametrize(
    ("f", "class_of"),
    [
        ("3072T² + 14155776T", "T²"),
        ("12Nd² + 8N²d + 5N", "Nd² + N²d"),
        ("4Nd + N² + d²", "N² + d²"),
        ("7", "1"),
        ("T log2 T + 3T", "T log T"),
        ("T min(T, w)", "T w"),
        ("T min(T, 8)", "T"),  # no large T is at most 8
        ("max(T, 8) w", "T w"),
    ],
)
def test_the_class(f: str, class_of: str) -> None:
    assert leading(read(f)) == read(class_of)


def test_degrees_along_a_direction() -> None:
    f = read("12Nd² + 8N²d")
    assert degree(f, {"N": Fraction(1)}) == 2
    assert degree(f, {"d": Fraction(1)}) == 2
    assert degree(f, {"N": Fraction(1), "d": Fraction(1, 2)}) == Fraction(5, 2)
    assert degree(read("T min(T, w)"), {"T": Fraction(1)}) == 1  # w stays


_POWERS = st.tuples(*[st.integers(0, 4)] * 3)
_SUMS = st.lists(_POWERS, min_size=1, max_size=4)


def _sum(powers: list[tuple[int, ...]]) -> Expr:
    return sum((N**a * d**b * T**c for a, b, c in powers), Integer(0))


@given(_SUMS, _SUMS)
def test_against_numbers(f: list[tuple[int, ...]], g: list[tuple[int, ...]]) -> None:
    """Of sums of products the logarithm of f/g stays bounded along each direction, or grows along the one that is told.

    Along the sizes x^rate the logarithm of a monomial is log x times its power there, so f ÷ g is bounded on a
    direction when the largest of f's powers is at most the largest of g's.
    """

    def power(some: list[tuple[int, ...]], rates: tuple[Fraction, ...]) -> Fraction:
        return max(sum(p * r for p, r in zip(one, rates, strict=True)) for one in some)

    found = escape(_sum(f), _sum(g))
    if found is not None:
        rates = tuple(Fraction(found.rates.get(name, 0)) for name in "NdT")
        assert power(f, rates) > power(g, rates)
    else:
        steps = [Fraction(n, 4) for n in range(5)]
        assert all(power(f, (a, b, c)) <= power(g, (a, b, c)) for a in steps for b in steps for c in steps)


def test_monomials_multiply() -> None:
    a = Monomial((("N", Fraction(2)),), (("N", Fraction(1)),))
    assert (a / a) == Monomial()
    assert (a**2).expression({"N": N}) == read("N⁴ (log N)²")
    assert [r.monomials for r in regimes(Symbol("x", positive=True) * 0 + 5)] == [(Monomial(),)]
    assert math.isclose(float(a.expression({"N": N}).subs(N, 4)), 16 * math.log(4))
    assert SYMBOLS["N"] == N
