"""Where one mechanism becomes cheaper than another: found, whatever the shape of the counts, with few measures."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from attnprof.analysis.study import Measures, Study, crossing, crossings


def measures(value: int) -> Measures:
    return Measures(forward=value, backward=0, recompute=0, vector=0, bytes=0, saved=0, parameters=0)


@pytest.mark.parametrize("seed", range(20))
def test_between_a_line_and_a_parabola(seed: int) -> None:
    """a N against N²: the line is dearer below N = a, equal there, and cheaper after it."""
    a = random.Random(seed).randint(2, 5000)
    assert crossing(lambda n: n * n - a * n, 1, 10_000) == a + 1
    assert crossing(lambda n: a * n - n * n, 1, 10_000) == a + 1


def test_few_measures_are_enough_for_polynomials() -> None:
    seen: set[int] = set()

    def difference(n: int) -> int:
        seen.add(n)
        return 3 * n * n - 1000 * n - 77

    found = crossing(difference, 1, 2**20)
    assert difference(found - 1) <= 0 < difference(found)
    assert len(seen) <= 2 + 3  # both ends; the middle, and two neighbours where the parabola says


@pytest.mark.parametrize(
    "difference",
    [
        lambda n: -(-n // 64) * 64 - 1000,  # rounded up to whole blocks
        lambda n: n**3 - 10**7,
        lambda n: n * n.bit_length() - 3000,
        lambda n: 1 if n > 700 else 0,
        lambda n: 1 if n > 700 else -1,
    ],
)
def test_any_other_shape(difference: Callable[[int], int]) -> None:
    found = crossing(difference, 1, 4096)
    assert difference(found - 1) <= 0 < difference(found)


def test_the_others_cross_the_first() -> None:
    def measure(name: str, length: int) -> Measures:
        return measures({"square": length**2, "line": 300 * length, "low": 1, "same": length**2}[name])

    found = list(crossings(measure, ["square", "line", "low", "same"], [100, 200, 400, 800]))
    assert [(c.quantity, c.cheaper, c.dearer, c.length) for c in found] == [("forward", "line", "square", 301)]
    found = list(crossings(measure, ["line", "square"], [100, 800]))
    assert [(c.cheaper, c.dearer, c.length) for c in found] == [("line", "square", 301)]


def test_equal_at_a_given_length_is_neither_cheaper_nor_lost() -> None:
    """They meet at 200, which is one of the lengths: the line is cheaper from 201 on."""

    def measure(name: str, length: int) -> Measures:
        return measures(length**2 if name == "square" else 200 * length)

    for names in (["square", "line"], ["line", "square"]):
        (found,) = crossings(measure, names, [100, 200, 400])
        assert (found.cheaper, found.dearer, found.length) == ("line", "square", 201)


def test_vector_flops_are_shown_where_there_is_nothing_else_to_judge_by() -> None:
    matmul = Measures(5, 0, 0, 7, 3, 2, 1)
    scan = Measures(0, 0, 0, 7, 3, 2, 1)

    def shown(*all_of_them: Measures) -> tuple[str, ...]:
        names = tuple(map(str, range(len(all_of_them))))
        return Study({}, names, (8,), {(n, 8): m for n, m in zip(names, all_of_them, strict=True)}, ()).shown()

    assert shown(matmul) == ("forward", "bytes", "saved", "parameters")
    assert shown(matmul, scan) == ("forward", "vector", "bytes", "saved", "parameters")
