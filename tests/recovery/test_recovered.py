"""Functions of sizes are recovered exactly, or refused: random ones of the basis, and what is none of it."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import Any

import pytest
import sympy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from attnprof.analytic.symbols import CeilLog2, FloorLog2, symbol
from attnprof.core.errors import AttnprofError
from attnprof.recovery.domain import domain
from attnprof.recovery.outcome import Formula, NoFormula
from attnprof.recovery.space import UnmeasurableError
from recovery.models import recovered

T, d, w, B, H = (symbol(name) for name in "TdwBH")
coefficients = st.integers(1, 10**6)


def expression(outcome: Any) -> sympy.Expr:
    assert isinstance(outcome, Formula), outcome
    assert outcome.held_out >= 2
    return outcome.expression


def same(one: sympy.Expr, other: sympy.Expr) -> bool:
    return bool(sympy.simplify(sympy.expand(one - other)) == 0)


# Random functions of the basis


@settings(max_examples=25, deadline=None)
@given(st.lists(st.fractions(min_value=-100, max_value=100, max_denominator=12), min_size=1, max_size=5))
def test_polynomials_with_rational_coefficients(given_coefficients: list[Fraction]) -> None:
    given_coefficients = list(given_coefficients)
    step = lcm(*(c.denominator for c in given_coefficients))
    # whole at multiples of the denominators; the constant is whole by itself
    given_coefficients[0] = Fraction(round(given_coefficients[0]))
    wanted = sum(
        (sympy.Rational(c.numerator, c.denominator) * T**i for i, c in enumerate(given_coefficients)), sympy.Integer(0)
    )

    def count(T: int) -> int:  # noqa: N803 - the symbol
        value = sum((c * T**i for i, c in enumerate(given_coefficients)), Fraction(0))
        assert value.denominator == 1
        return int(value)

    found, _ = recovered(count, T=range(step, 400 * step, step))
    assert expression(found) == wanted


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.tuples(*[st.integers(0, 2)] * 3), st.integers(-(10**6), 10**6), min_size=1, max_size=6))
def test_sparse_polynomials_of_three_sizes(terms: dict[tuple[int, int, int], int]) -> None:
    def count(B: int, T: int, d: int) -> int:  # noqa: N803
        return sum(c * B**i * T**j * d**k for (i, j, k), c in terms.items())

    found, recovery = recovered(count, B=range(2, 9), T=range(16, 4097), d=range(16, 1025))
    wanted = sum((c * B**i * T**j * d**k for (i, j, k), c in terms.items()), sympy.Integer(0))
    assert same(expression(found), wanted)
    # a dense cube has 27 terms; lines of 6 points, the products that are left, and the points to check on are enough
    assert len(recovery.space.counted) <= 3 * 6 + 2 * 27 + 4


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(coefficients, coefficients, st.integers(8, 200), st.sampled_from(["min", "ceil", "floor", "log", "floor log"]))
def test_one_more_function_of_the_basis(a: int, b: int, m: int, kind: str) -> None:
    atoms = {
        "min": (lambda T: min(T, m), sympy.Min(T, m)),  # noqa: N803
        "ceil": (lambda T: -(-T // m), sympy.ceiling(T / m)),  # noqa: N803
        "floor": (lambda T: T // m, sympy.floor(T / m)),  # noqa: N803
        "log": (lambda T: (T - 1).bit_length(), CeilLog2(T)),  # noqa: N803
        "floor log": (lambda T: T.bit_length() - 1, FloorLog2(T)),  # noqa: N803
    }
    atom, written = atoms[kind]
    found, _ = recovered(lambda T: a * T * atom(T) + b * T, T=range(2, 2049))  # noqa: N803
    formula = expression(found)
    for size in (2, 3, m - 1 or 1, m, m + 1, 2 * m, 2 * m + 1, 999, 1024, 1025, 2048):
        if size > 1:
            assert formula.xreplace({T: sympy.Integer(size)}) == a * size * atom(size) + b * size, (kind, size)
    if kind in ("log", "floor log"):
        assert same(formula, a * T * written + b * T)


# Functions of several sizes at once


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (lambda T, w: 4 * T * min(T, w) + T, 4 * T * sympy.Min(T, w) + T),  # noqa: N803
        (lambda T, w: 4 * T * min(T, 2 * w + 1), 4 * T * sympy.Min(T, 2 * w + 1)),  # noqa: N803
        (lambda T, w: 3 * w * w * -(-T // w) + T, 3 * w**2 * sympy.ceiling(T / w) + T),  # noqa: N803
        (lambda T, w: 7 * w * (T // w) ** 2, 7 * w * sympy.floor(T / w) ** 2),  # noqa: N803
    ],
)
def test_functions_of_two_sizes(count: Any, wanted: sympy.Expr) -> None:
    found, _ = recovered(count, T=range(8, 513), w=range(2, 129))
    assert same(expression(found), wanted)


@pytest.mark.parametrize("most", [120, 121])  # a whole number of tokens each, and not
def test_a_product_of_sizes_has_a_largest_value(most: int) -> None:
    """Rows that an embedding reads: as many as there are tokens, at most its vocabulary."""
    found, _ = recovered(lambda B, T: 5 * B * T * T + 16 * min(B * T, most), B=range(2, 9), T=range(8, 257))  # noqa: N803
    assert same(expression(found), 5 * B * T**2 + 16 * sympy.Min(B * T, most))


def test_what_is_right_along_lines_and_wrong_elsewhere_is_not_believed() -> None:
    """Along T, with B at its anchor, min(B T, 120) is a min(T, 30): every size of B has to be looked at."""

    def count(B: int, T: int, L: int, H: int) -> int:  # noqa: N803
        layer = 2048 * B * H * H * T + 64 * B * H * T * T + 9216 * B * H * T + 77 * H * H + 9 * T * H + B * T * T
        return L * layer + 3840 * B * H * T + 64 * H * min(B * T, 120) + 5 * T

    found, _ = recovered(count, B=range(1, 5), T=range(8, 65), L=range(1, 7), H=range(1, 9))
    assert isinstance(found, Formula)
    for b in range(1, 5):
        for t in range(8, 65, 3):
            assert found.evaluate(B=b, T=t, L=5, H=3) == count(b, t, 5, 3)


def test_pieces_with_a_break_that_another_size_moves() -> None:
    found, _ = recovered(lambda T, w: 5 * T * T if w >= T else 3 * T * w + T, T=range(8, 1025), w=range(4, 257))  # noqa: N803
    assert isinstance(found, Formula)
    assert {(piece.condition, piece.expression) for piece in found.pieces} == {
        (sympy.Le(T, w), 5 * T**2),
        (sympy.Gt(T, w), 3 * T * w + T),
    }


def test_a_switch_is_found_to_the_last_size() -> None:
    found, _ = recovered(lambda T: 7 * T * T if T <= 513 else 100 * T, T=range(16, 8193))  # noqa: N803
    assert isinstance(found, Formula)
    assert {(piece.condition, piece.expression) for piece in found.pieces} == {
        (sympy.Le(T, 513), 7 * T**2),
        (sympy.Gt(T, 513), 100 * T),
    }
    assert [found.evaluate(T=size) for size in (513, 514)] == [7 * 513**2, 100 * 514]


def test_a_size_of_1_is_a_piece_of_its_own() -> None:
    def count(B: int, H: int, T: int) -> int:  # noqa: N803
        return 4 * B * T * T * H + (9 * T if B == 1 else 0) + (B * T if H == 1 else 0)

    found, _ = recovered(count, B=range(1, 9), H=range(1, 9), T=range(16, 257))
    assert isinstance(found, Formula)
    for b in (1, 2, 5):
        for h in (1, 2, 7):
            assert found.evaluate(B=b, H=h, T=33) == count(b, h, 33)


def test_pieces_exclude_each_other() -> None:
    def count(B: int, H: int, T: int) -> int:  # noqa: N803
        return B * H * T + (T if B == 1 else 0) + (2 * T if H == 1 else 0)

    found, _ = recovered(count, B=range(1, 5), H=range(1, 5), T=range(16, 257))
    assert isinstance(found, Formula)
    for b in (1, 2):
        for h in (1, 2):
            sizes = {B: sympy.Integer(b), H: sympy.Integer(h), T: sympy.Integer(16)}
            assert [piece.condition.xreplace(sizes) for piece in found.pieces].count(sympy.true) == 1


# Sizes that break a model


def dividing(whole: int, part: int) -> None:
    if whole % part:
        raise UnmeasurableError(ValueError(f"{whole} is no multiple of {part}"))


def test_heads_divide_a_width() -> None:
    def count(d: int, H: int) -> int:  # noqa: N803
        dividing(d, H)
        return 8 * d * (d // H) + 3 * d * H

    found, recovery = recovered(count, d=range(16, 1025), H=range(1, 17))
    assert same(expression(found), 8 * d**2 / H + 3 * d * H)
    assert list(map(str, recovery.space.rules)) == ["d a multiple of H"]
    (limit,) = recovery.limits()
    assert limit.startswith("The formulas are for sizes with d a multiple of H; elsewhere it fails, at ")


def test_groups_of_heads() -> None:
    def count(d: int, H: int, G: int) -> int:  # noqa: N803
        dividing(d, H)
        dividing(H, G)
        return 4 * d * d + 4 * d * d * G // H

    found, _ = recovered(count, d=range(16, 257), H=range(1, 9), G=range(1, 9))
    assert same(expression(found), 4 * d**2 + 4 * d**2 * symbol("G") / H)


def test_multiples_of_a_number_are_learned() -> None:
    def count(T: int) -> int:  # noqa: N803
        dividing(T, 48)
        return 5 * T * T

    found, recovery = recovered(count, T=range(1, 4097))
    assert expression(found) == 5 * T**2
    assert all(point[0] % 48 == 0 for point in recovery.space.counted)
    assert list(map(str, recovery.space.rules)) == ["T a multiple of 48"]


def test_a_rule_that_only_seems_so_is_not_believed() -> None:
    """At most is not divides: sizes that break the second rule alone are tried."""

    def count(E: int, k: int, T: int) -> int:  # noqa: N803
        if k > E:
            raise UnmeasurableError(ValueError("k is more than E"))
        return 2 * T * E + 6 * T * k

    found, recovery = recovered(count, E=range(1, 9), k=range(1, 9), T=range(16, 129))
    assert same(expression(found), 2 * T * symbol("E") + 6 * T * symbol("k"))
    assert list(map(str, recovery.space.rules)) == ["k at most E"]


def test_a_model_that_always_fails_says_where_and_why() -> None:
    def count(T: int) -> int:  # noqa: N803
        raise UnmeasurableError(ValueError("no such table\nand more"))

    with pytest.raises(AttnprofError, match=r"^the model fails at T=\d+: ValueError: no such table\.$"):
        recovered(count, T=range(16, 257))


# What is no function of the basis


@pytest.mark.parametrize(
    "count",
    [
        lambda T: T * 2654435761 % 97,  # noqa: N803
        lambda T: pow(3, T, 1009) + T,  # noqa: N803
        lambda T: T**5,  # noqa: N803
    ],
)
def test_other_functions_are_refused(count: Any) -> None:
    found, recovery = recovered(count, T=range(16, 1025))
    assert isinstance(found, NoFormula)
    assert f"counted at {len(recovery.space.counted)} sizes" in found.reason


def test_one_wrong_count_among_many_refuses_the_formula() -> None:
    """The largest point is 1 off a polynomial that all others lie on."""
    found, _ = recovered(lambda T, d: 4 * T * T * d + (T == 512 and d == 256), T=range(16, 513), d=range(16, 257))  # noqa: N803
    assert isinstance(found, NoFormula)
    assert "no formula of the basis" in found.reason


def test_as_many_points_as_terms_are_no_formula() -> None:
    """Three points lie on a parabola, whatever they are: a fourth and fifth have to."""
    found, _ = recovered(lambda T: 3 * T * T + 5, T=[16, 32, 48])  # noqa: N803
    assert isinstance(found, NoFormula)
    assert "counted at 16, 32, 48 alone" in found.reason


def test_a_list_is_counted_whole_and_nothing_else() -> None:
    sizes = [16, 24, 48, 100, 333, 1000]
    found, recovery = recovered(lambda T: 3 * T * T + 5, T=sizes)  # noqa: N803
    assert expression(found) == 3 * T**2 + 5
    assert sorted(point[0] for point in recovery.space.counted) == sizes
    assert (found.runs, found.held_out) == (2, len(sizes) - 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([128], "T has one size, 128: how a count grows with T takes several; fix what does not vary."),
        ([], "T has no size: how a count grows with T takes several; fix what does not vary."),
        (128, "T varies over a list of sizes or a range, as in T=[128, 256, 512], not 128."),
        ("128..256", "T varies over a list of sizes or a range, as in T=[128, 256, 512], not '128..256'."),
        ([0, 2], "T must be a whole number above zero, not 0."),
        ([1.5, 2], "T must be a whole number above zero, not 1.5."),
        (range(-3, 5), "T must be a whole number above zero, not -3."),
    ],
)
def test_sizes_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(AttnprofError) as error:
        domain("T", given)
    assert str(error.value) == message
