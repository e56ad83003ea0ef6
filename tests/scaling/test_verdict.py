"""A claim against a formula: what is missing, and the sizes that show it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import pytest
from sympy import Expr, Integer, Piecewise

from attnprof.claims.grammar import parse
from attnprof.claims.verdict import Verdict, judge
from scaling.names import SYMBOLS, H, N, T, d, read

Sizes = Mapping[str, int]


def verdict(text: str, measured: Expr, *sizes: Sizes, assumed: tuple[tuple[Expr, Expr], ...] = ()) -> Verdict:
    """The verdict on counts that are those of the formula."""
    points = [(at, int(measured.subs({SYMBOLS[n]: v for n, v in at.items()}))) for at in sizes]
    return judge(parse(text, SYMBOLS), measured, points, assumed)


SMALL, LARGE = {"N": 128, "d": 64}, {"N": 4096, "d": 768}
FROZEN = 12 * N * d**2 + 8 * N**2 * d


def test_a_bound_that_holds() -> None:
    found = verdict("O(N²d + Nd²)", FROZEN, SMALL, LARGE)
    assert (found.holds, found.missing, found.rates) == (True, 0, None)


def test_a_bound_that_fails_names_the_term_and_its_share() -> None:
    found = verdict("O(N*d^2)", FROZEN, SMALL, LARGE)
    assert (found.holds, found.missing, found.surplus) == (False, 8 * N**2 * d, 0)
    assert (found.rates, found.powers) == ({"N": 1, "d": 0}, (2, 1))
    part, rest = 8 * 4096**2 * 768, 12 * 4096 * 768**2
    assert found.share == Fraction(part, part + rest)
    assert [e.sizes for e in found.examples] == [SMALL, LARGE]
    assert found.examples[-1].measured == part + rest
    assert found.examples[-1].claimed == 4096 * 768**2


def test_from_below() -> None:
    assert verdict("Ω(N²d)", FROZEN, LARGE).holds
    found = verdict("Ω(N³)", FROZEN, LARGE)
    assert (found.holds, found.missing, found.surplus, found.powers) == (False, 0, N**3, (2, 3))


@pytest.mark.parametrize(("text", "holds"), [("Θ(N²d + Nd²)", True), ("Θ(Nd²)", False), ("Θ(N³ + d³)", False)])
def test_from_both_sides(text: str, holds: bool) -> None:
    assert verdict(text, FROZEN, LARGE).holds is holds


def test_a_formula_that_is_right_however_it_is_written() -> None:
    for text in ("12Nd² + 8N²d", "4Nd(3d + 2N)", "2*(6*N*d^2 + 4*N^2*d)"):
        assert verdict(text, FROZEN, SMALL, LARGE).holds


def test_a_formula_with_terms_that_are_missing_and_too_many() -> None:
    found = verdict("14Nd² + 2N", FROZEN, SMALL, LARGE)
    assert (found.holds, found.missing, found.surplus) == (False, 8 * N**2 * d, 2 * N * d**2 + 2 * N)
    assert found.times is None
    assert found.share == Fraction(8 * 4096**2 * 768, 12 * 4096 * 768**2 + 8 * 4096**2 * 768)


def test_multiply_adds_are_half() -> None:
    found = verdict("6Nd² + 4N²d", FROZEN, SMALL, LARGE)
    assert (found.holds, found.times) == (False, 2)


def test_a_formula_that_is_wrong_only_at_some_sizes_is_wrong_there() -> None:
    """ceil(T/8) is T/8 at multiples of 8 alone."""
    measured = read("8 ceil(T/8)")
    found = verdict("T", measured, {"T": 16}, {"T": 17}, {"T": 24})
    assert (found.holds, [e.sizes for e in found.examples]) == (False, [{"T": 17}])
    assert (found.examples[0].measured, found.examples[0].claimed) == (24, 17)
    assert verdict("T", measured, {"T": 16}, {"T": 24}).holds  # nothing here tells them apart


def test_pieces_are_compared_where_they_differ() -> None:
    measured = Piecewise((T**2, T <= 8), (16 * T - 64, True))
    assert verdict("T min(T, 8) + max(8T - 64, 0)", measured, {"T": 4}, {"T": 8}, {"T": 100}).holds
    found = verdict("T²", measured, {"T": 4}, {"T": 100})
    assert (found.holds, found.missing, found.surplus) == (False, 16 * T, T**2 + 64)
    assert verdict("O(T)", measured, {"T": 4}, {"T": 100}).holds


def test_what_is_known_of_sizes_decides() -> None:
    at = {"N": 64, "d": 32, "H": 4}
    assert not verdict("O(N²d)", N**2 * H, at).holds
    assert verdict("O(N²d)", N**2 * H, at, assumed=((H, d),)).holds


def test_logarithms_have_values() -> None:
    found = verdict("N log2 N", 2 * N**2, {"N": 8})
    assert found.examples[0].claimed == 24  # 8 · 3
    found = verdict("O(N log N)", N**2, {"N": 8})
    assert (found.missing, found.powers) == (N**2, (2, 1))
    assert verdict("floor(log2(N)) N", 3 * N, {"N": 8}, {"N": 15}).holds


def test_nothing_at_all() -> None:
    assert verdict("0", Integer(0), {"N": 8}).holds
    assert verdict("O(1)", Integer(0), {"N": 8}).holds
    found = verdict("N", Integer(0), {"N": 8})
    assert (found.holds, found.surplus, found.share) == (False, N, None)
