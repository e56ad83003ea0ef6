"""The symbols of closed forms, and functions of whole numbers that scans and tiles need.

B batch, T query length, S key length, d width, H heads, Hkv key and value heads, dh head width, f feed-forward
width, w window, g global tokens, r random features, E experts, k experts or keys per token, C clusters, L layers,
V vocabulary, e bytes per element, M elements of on-chip memory. All are whole numbers above zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sympy import Expr, Function, Integer, Symbol


def symbol(name: str) -> Expr:
    """The symbol of this name: a whole number above zero."""
    return Symbol(name, integer=True, positive=True)


#: Bytes per element.
e = symbol("e")


class CeilLog2(Function):  # type: ignore[misc]  # sympy has no types
    """ceil(log2 n) of a whole number n >= 1, exactly: the rounds in which a reach of 1 doubles to n."""

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, n: Any) -> Any:
        return Integer((int(n) - 1).bit_length()) if n.is_Integer else None

    def _latex(self, printer: Any) -> str:
        return rf"\lceil \log_2 {printer.parenthesize(self.args[0], 50)} \rceil"


class FloorLog2(Function):  # type: ignore[misc]  # sympy has no types
    """floor(log2 n) of a whole number n >= 1, exactly."""

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, n: Any) -> Any:
        return Integer(int(n).bit_length() - 1) if n.is_Integer else None

    def _latex(self, printer: Any) -> str:
        return rf"\lfloor \log_2 {printer.parenthesize(self.args[0], 50)} \rfloor"


class BitCount(Function):  # type: ignore[misc]  # sympy has no types
    """The number of ones in n written in binary: 1 for a power of two."""

    is_integer = True
    is_positive = True

    @classmethod
    def eval(cls, n: Any) -> Any:
        return Integer(int(n).bit_count()) if n.is_Integer else None

    def _latex(self, printer: Any) -> str:
        return rf"\operatorname{{ones}}({printer.doprint(self.args[0])})"


def _tiles(T: int, Br: int, Bc: int) -> Iterator[tuple[int, int, bool]]:
    """Rows, columns, and whether some pair is masked, of the tiles that a causal mask does not hide whole."""
    for top in range(0, T, Br):
        end = min(top + Br, T)
        for left in range(0, end, Bc):
            right = min(left + Bc, T)
            yield end - top, right - left, right - 1 > top


class CausalTileRows(Function):  # type: ignore[misc]  # sympy has no types
    """The rows of the tiles that :class:`CausalTiles` has, added up."""

    is_integer = True
    is_positive = True

    @classmethod
    def eval(cls, T: Any, Br: Any, Bc: Any) -> Any:
        if not (T.is_Integer and Br.is_Integer and Bc.is_Integer):
            return None
        return Integer(sum(rows for rows, _, _ in _tiles(int(T), int(Br), int(Bc))))

    def _latex(self, printer: Any) -> str:
        T, Br, Bc = (printer.doprint(arg) for arg in self.args)
        return _over_rows_of_tiles(
            T, Br, lambda end: rf"\left({end} - (i - 1) {Br}\right) \left\lceil {end} / {Bc} \right\rceil"
        )


class CausalTileColumns(Function):  # type: ignore[misc]  # sympy has no types
    """The columns of the tiles that :class:`CausalTiles` has, added up."""

    is_integer = True
    is_positive = True

    @classmethod
    def eval(cls, T: Any, Br: Any, Bc: Any) -> Any:
        if not (T.is_Integer and Br.is_Integer and Bc.is_Integer):
            return None
        return Integer(sum(columns for _, columns, _ in _tiles(int(T), int(Br), int(Bc))))

    def _latex(self, printer: Any) -> str:
        T, Br, Bc = (printer.doprint(arg) for arg in self.args)
        return _over_rows_of_tiles(T, Br, lambda end: _columns(end, Bc, T))


class CutTiles(Function):  # type: ignore[misc]  # sympy has no types
    """Pairs in those tiles of :class:`CausalTiles` that a causal mask hides in part."""

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, T: Any, Br: Any, Bc: Any) -> Any:
        if not (T.is_Integer and Br.is_Integer and Bc.is_Integer):
            return None
        return Integer(sum(rows * columns for rows, columns, cut in _tiles(int(T), int(Br), int(Bc)) if cut))


class CausalTiles(Function):  # type: ignore[misc]  # sympy has no types
    """Pairs in the tiles of Br queries and Bc keys that a causal mask of T positions does not hide whole.

    The rows of tile i end at e_i = min((i + 1) Br, T); they meet keys up to the end of e_i's tile:
    sum over i of (e_i - i Br) min(Bc ceil(e_i / Bc), T).
    """

    is_integer = True
    is_positive = True

    @classmethod
    def eval(cls, T: Any, Br: Any, Bc: Any) -> Any:
        if not (T.is_Integer and Br.is_Integer and Bc.is_Integer):
            return None
        total, T, Br, Bc = 0, int(T), int(Br), int(Bc)
        for top in range(0, T, Br):
            end = min(top + Br, T)
            total += (end - top) * min(-(-end // Bc) * Bc, T)
        return Integer(total)

    def _latex(self, printer: Any) -> str:
        T, Br, Bc = (printer.doprint(arg) for arg in self.args)
        return _over_rows_of_tiles(T, Br, lambda end: rf"\left({end} - (i - 1) {Br}\right) {_columns(end, Bc, T)}")


def _over_rows_of_tiles(T: str, Br: str, each: Callable[[str], str]) -> str:
    """A sum over the rows of tiles, in LaTeX; ``each``: its term, from where the queries of row i end."""
    return rf"\sum_{{i=1}}^{{\lceil {T} / {Br} \rceil}} " + each(rf"\min(i {Br}, {T})")


def _columns(end: str, Bc: str, T: str) -> str:
    """In LaTeX, the keys in the tiles that queries up to ``end`` meet."""
    return rf"\min\left({Bc} \left\lceil {end} / {Bc} \right\rceil, {T}\right)"
