"""Which terms grow fastest, and from where on they are most."""

from __future__ import annotations

import pytest
import sympy

from attnprof.analytic.symbols import CeilLog2, symbol
from attnprof.recovery.growth import crossover, dominant

T, B, d, w = (symbol(name) for name in "TBdw")
C = sympy.ceiling(T / 64)


@pytest.mark.parametrize(
    ("expression", "most"),
    [
        (4 * B * T**2 * d + 24 * B * T * d**2, 4 * B * T**2 * d),
        (T * sympy.Min(T, w) + 5 * T, T * w + 5 * T),  # for T above w both are linear
        (T * C + 100 * T, T * C),
        (T * CeilLog2(T) + 100 * T, T * CeilLog2(T)),
        (2 ** CeilLog2(T) + CeilLog2(T) ** 3, 2 ** CeilLog2(T)),
        (sympy.Max(T + 10**6, 3 * T**2, 5 * T**2 - T), 5 * T**2),
        (sympy.Piecewise((T**3, T <= 8), (7 * T, True)), 7 * T),
        (sympy.Integer(5), sympy.Integer(5)),
    ],
)
def test_dominant_terms(expression: sympy.Expr, most: sympy.Expr) -> None:
    assert sympy.expand(dominant(expression, "T") - most) == 0


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (4 * B * T**2 * d + 24 * B * T * d**2, 6 * d),
        (3 * T**2 + 12 * T, 4),
        (T**2 + 3, sympy.sqrt(3)),
        (7 * T**2, None),
        (T**2 - 5 * T, None),  # the rest is never more than what grows
        (T * CeilLog2(T) + 10 * T, 2**10 + 1),  # ceil(log2 T) is more than 10 from there
        (T * C + 10 * T, 10 * 64 + 1),
    ],
)
def test_from_where_they_are_most(expression: sympy.Expr, value: object) -> None:
    assert crossover(expression, "T") == value
