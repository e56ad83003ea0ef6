"""Functions that look like a simpler one at most sizes: the formula has what is different, or there is none.

Each is held against what was found at thousands of sizes, those where it is different among them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sympy

from attnprof.analytic.symbols import CeilLog2, FloorLog2, symbol
from attnprof.recovery.domain import domain
from attnprof.recovery.outcome import Formula, NoFormula
from attnprof.recovery.recover import Recovery
from attnprof.recovery.space import UnmeasurableError
from recovery.models import recovered

T, d = symbol("T"), symbol("d")
LONG = {"T": range(128, 8193)}
TWO = {"T": range(16, 1025), "d": range(16, 513)}
THREE = {"B": range(1, 9), **TWO}


def unlike(count: Callable[..., int], found: Formula, sizes: Mapping[str, range]) -> list[dict[str, int]]:
    """Points at which a formula is wrong: of many at random, of small sizes, and of every end and power of two."""
    draw, wrong = random.Random(1), []
    for i in range(2000):
        point = {}
        for name, those in sizes.items():
            special = [size for size in (those[0], those[-1], 64, 128, 256, 512) if size in those]
            ways = (draw.choice(those), those[int(len(those) * draw.random() ** 3)], draw.choice(special))
            point[name] = ways[i % 3]
        if found.evaluate(**point) != count(**point):
            wrong.append(point)
    return wrong


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        pytest.param(lambda T: 4 * T * T + (T if T > 8000 else 0), LONG, id="a switch near the end"),  # noqa: N803
        pytest.param(lambda T: 4 * T * T + (T if 2000 < T <= 2300 else 0), LONG, id="one that is undone soon"),  # noqa: N803
        pytest.param(lambda T: 4 * T * T + T % 2 * T, LONG, id="odd and even"),  # noqa: N803
        pytest.param(lambda T: T if T == 128 else 4 * T * T, LONG, id="the first size alone"),  # noqa: N803
        pytest.param(lambda T: T if T <= 129 else 4 * T * T, LONG, id="the first two sizes"),  # noqa: N803
        pytest.param(lambda T: 100 * -(-T // 128), {"T": range(128, 8193, 64)}, id="blocks of two steps"),  # noqa: N803
        pytest.param(lambda T, d: 8 * T * d + (T * d if T > 24 else 0), TWO, id="a switch where d is at first"),  # noqa: N803
        pytest.param(
            lambda B, H, T: 4 * B * H * T * T + (5 * T if B * H == 1 else 0),  # noqa: N803
            {"B": range(1, 9), "H": range(1, 9), "T": range(16, 257)},
            id="two sizes of 1 at once",
        ),
        pytest.param(
            lambda B, d, T: 2 * B * T * d * d + (d * T if B == 1 and T > 900 and d > 400 else 0),  # noqa: N803
            {"B": range(1, 3), "d": range(16, 513), "T": range(16, 1025)},
            id="a size of 1 and large ones",
        ),
        pytest.param(lambda T, S: 2 * T * S + 7 * (S == 1), {"T": range(1, 65), "S": range(1, 65)}, id="both from 1"),  # noqa: N803
    ],
)
def test_what_is_different_somewhere_is_in_the_formula_or_there_is_none(
    count: Callable[..., int], sizes: dict[str, range]
) -> None:
    found, _ = recovered(count, **sizes)
    assert isinstance(found, NoFormula) or not unlike(count, found, sizes)  # type: ignore[arg-type]  # not DataDependent


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        pytest.param(lambda T: 4 * T * T + (T if T & (T - 1) == 0 else 0), {"T": range(100, 8001)}, id="powers of two"),  # noqa: N803
        pytest.param(lambda T: 4 * T * T + (T if T % 64 == 0 else 0), LONG, id="multiples of 64"),  # noqa: N803
        pytest.param(lambda T, d: T * d * d + (T if T % 128 == d % 64 == 0 else 0), TWO, id="multiples of both"),  # noqa: N803
        pytest.param(lambda T, d: T * d * d + (T if T > 900 and d > 400 else 0), TWO, id="both large"),  # noqa: N803
        pytest.param(lambda T, d: T * d * d + (T if T < 40 and d > 450 else 0), TWO, id="one small, one large"),  # noqa: N803
        pytest.param(lambda B, T, d: B * T * d + (T if B < 3 and T < 30 and d > 500 else 0), THREE, id="a corner"),  # noqa: N803
        pytest.param(lambda T, d: T * d * d + (T if d == T else 0), TWO, id="equal sizes"),  # noqa: N803
        pytest.param(lambda T, d: 8 * T * d * (9 if T * d > 100_000 else 8), TWO, id="a large product"),  # noqa: N803
    ],
)
def test_what_the_basis_has_not_is_refused(count: Callable[..., int], sizes: dict[str, range]) -> None:
    """Each is a polynomial nearly everywhere, and none of these has a formula of the basis."""
    found, _ = recovered(count, **sizes)
    assert isinstance(found, NoFormula)


def test_a_break_is_found_to_the_last_size_of_a_long_range() -> None:
    """Of ranges this long only some sizes are candidates, far from each other at the end."""
    found, _ = recovered(lambda T: 7 * T * T if T <= 765_432 else 100 * T, T=range(128, 1_000_001))  # noqa: N803
    assert isinstance(found, Formula)
    assert {(piece.condition, piece.expression) for piece in found.pieces} == {
        (sympy.Le(T, 765_432), 7 * T**2),
        (sympy.Gt(T, 765_432), 100 * T),
    }


def test_one_or_two_sizes_at_the_end_say_nothing_of_large_ones() -> None:
    """Two sizes lie on a line whatever they are, and what grows in the last piece is said of all large sizes."""
    found, _ = recovered(lambda T: 5 * T**3 if T >= 1023 else 4 * T * T, T=range(16, 1025))  # noqa: N803
    assert isinstance(found, NoFormula)


def test_the_simplest_of_formulas_that_are_the_same_at_all_sizes() -> None:
    """At multiples of 64, ceil(T / 127) and T say as much as ceil(T / 128) does, which alone is right beyond."""
    found, _ = recovered(lambda T: 100 * -(-T // 128), T=range(128, 8193, 64))  # noqa: N803
    assert isinstance(found, Formula)
    assert found.expression == 100 * sympy.ceiling(T / 128)


# Few sizes


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (lambda d: 4 * d * d, 4 * d**2),
        (lambda d: 12 * d**3 + 5 * d, 12 * d**3 + 5 * d),
        (lambda d: 6 * d * (d.bit_length() - 1), 6 * d * CeilLog2(d)),  # the same as the floor at powers of two
    ],
)
def test_four_sizes_are_enough_for_two_terms(count: Any, wanted: sympy.Expr) -> None:
    found, _ = recovered(count, d=[16, 32, 64, 128])
    assert isinstance(found, Formula)
    assert sympy.expand(found.expression - wanted).replace(FloorLog2, CeilLog2) == 0
    assert found.held_out >= 2


def test_lists_of_both_sizes_are_counted_whole() -> None:
    lists = {"T": [128, 256, 512, 1024, 2048], "d": [16, 32, 64, 128]}
    found, recovery = recovered(lambda T, d: 4 * T * T * d + 8 * T * d * d, **lists)  # noqa: N803
    assert isinstance(found, Formula)
    assert sympy.expand(found.expression - (4 * T**2 * d + 8 * T * d**2)) == 0
    assert len(recovery.space.counted) == 5 * 4
    refused, _ = recovered(lambda T, d: 4 * T * T * d + (T == 512 and d == 32), **lists)  # noqa: N803
    assert isinstance(refused, NoFormula)


def test_three_terms_at_four_sizes_are_refused_and_what_is_needed_is_said() -> None:
    found, _ = recovered(lambda d: 4 * d**3 + 3 * d * d + d, d=[16, 32, 64, 128])
    assert isinstance(found, NoFormula)
    assert "counted at 16, 32, 64, 128 alone: each term takes a size, and checking them two more" in found.reason


# Where a model fails


def test_odd_sizes_alone_are_learned() -> None:
    def count(k: int, T: int) -> int:  # noqa: N803
        if k % 2 == 0:
            raise UnmeasurableError(ValueError(f"k={k} is even"))
        return 2 * T * k

    found, recovery = recovered(count, k=range(1, 12), T=range(12, 257))
    assert isinstance(found, Formula)
    assert found.expression == 2 * T * symbol("k")
    assert list(map(str, recovery.space.rules)) == ["k odd"]


@pytest.mark.parametrize(
    ("works", "rule"),
    [
        (lambda T, d: T <= 300, "T at most 300"),  # noqa: N803
        (lambda T, d: T >= 77, "T at least 77"),  # noqa: N803
        (lambda T, d: T <= 300 and d % 4 == 0, "T at most 300"),  # noqa: N803
        (lambda T, d: T <= 720 and T % 16 == 0, "T at most 720"),  # noqa: N803
    ],
)
def test_the_last_size_that_works_is_found(works: Callable[[int, int], bool], rule: str) -> None:
    def count(T: int, d: int) -> int:  # noqa: N803
        if not works(T, d):
            raise UnmeasurableError(ValueError("too long, or too short"))
        return 2 * T * d

    recovery = Recovery(lambda at: {"count": count(**at)}, [domain(name, those) for name, those in TWO.items()])
    recovery.survey()
    found = recovery.outcome("count")
    assert isinstance(found, Formula)
    assert found.expression == 2 * T * d
    # the next multiple of 16 above 720 fails: up to 735 nothing else works
    assert any(str(one) == rule or str(one) == "T at most 735" for one in recovery.space.rules)
