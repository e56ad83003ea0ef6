"""Symbols for the tests of claims."""

from __future__ import annotations

from sympy import Expr

from attnprof.analytic.symbols import symbol
from attnprof.claims.grammar import parse

SYMBOLS: dict[str, Expr] = {name: symbol(name) for name in ("N", "d", "T", "H", "w", "s", "L", "dh")}
N, d, T, H, w, s, L, dh = SYMBOLS.values()


def read(text: str) -> Expr:
    """The expression of a text."""
    return parse(text, SYMBOLS).expression
