"""The one module that turns numbers into text: prefixes, units, significant figures, aligned columns.

FLOPs and counts take decimal prefixes (1 G = 10^9). Bytes take decimal ones (1 GB = 10^9 bytes) or
binary ones (1 GiB = 2^30 bytes), and the text always names which. Three significant figures, digits left
of the point never dropped; whole numbers below 10^4 are shown as they are; ``exact`` shows every digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Literal

from attnprof.core.errors import AttnprofError, closest

Kind = Literal["matmul", "flops", "bytes", "count"]
Number = int | float | Fraction

_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi")
_WORDS = ("exact", "macs", "binary", "decimal")
#: Whole numbers below this are shown digit for digit.
_PLAIN = 10_000
#: Units of time with how many of each a second has.
_TIMES = (("s", 1), ("ms", 10**3), ("µs", 10**6), ("ns", 10**9))
#: One prefix serves a whole column when every value in it lies between these, in the prefix's unit.
_SHARED = (Fraction(1, 10), 10_000)


@dataclass(frozen=True, slots=True)
class Units:
    """How a report shows its numbers; the numbers themselves are FLOPs and bytes always.

    ``exact``: every digit. ``macs``: contractions in multiply-adds, half their FLOPs. ``binary``: KiB,
    MiB, GiB in place of kB, MB, GB.
    """

    exact: bool = False
    macs: bool = False
    binary: bool = False

    @classmethod
    def parse(cls, text: str) -> Units:
        """``"macs"``, ``"exact,binary"``: any of exact, macs, binary, decimal, with commas between."""
        words = [word.strip().lower() for word in text.split(",")]
        for word in words:
            if word not in _WORDS:
                raise AttnprofError(f'no units "{word}": use {", ".join(_WORDS)}.{closest(word, _WORDS)}')
        if "binary" in words and "decimal" in words:
            raise AttnprofError("units are either binary (MiB) or decimal (MB), not both.")
        return cls("exact" in words, "macs" in words, "binary" in words)

    def name(self, kind: Kind) -> str:
        """The unit of a kind of number, without a prefix; a count has none."""
        if kind == "bytes":
            return "B"
        if kind == "matmul" and self.macs:
            return "MAC"
        return "" if kind == "count" else "FLOP"

    def text(self, value: Number, kind: Kind = "flops") -> str:
        """One number on its own: ``437 G``, ``13.6 GB``, ``7.09 M``; FLOPs and counts name no unit."""
        value = self._scaled(value, kind)
        unit = "B" if kind == "bytes" else ""
        if self.exact or not math.isfinite(value):
            return f"{exactly(value)} {unit}".rstrip()
        number, prefix = split(value, self.binary and kind == "bytes")
        return f"{number} {prefix}{unit}".rstrip()

    def named(self, value: Number, kind: Kind = "flops") -> str:
        """One number with its unit: ``19.3 GFLOP``, ``9.65 GMAC``, ``13.6 GB``."""
        text = self.text(value, kind)
        if kind == "bytes" or not self.name(kind):
            return text
        return f"{text}{'' if text[-1].isalpha() and math.isfinite(value) else ' '}{self.name(kind)}"

    def column(self, values: Sequence[Number | None], kind: Kind = "flops") -> tuple[str, list[str]]:
        """A column of numbers as (unit for the header, cells of one width).

        When one prefix fits all of them the header carries it and the cells are bare numbers, aligned
        at the point. Otherwise each cell has its own prefix and the header names the unit alone. None is
        shown as an en dash.
        """
        scaled = [None if v is None else self._scaled(v, kind) for v in values]
        unit = self.name(kind)
        if self.exact:
            return unit, align([None if v is None else exactly(v) for v in scaled])
        binary = self.binary and kind == "bytes"
        shared = _shared_prefix([v for v in scaled if v is not None], binary)
        if shared is not None:
            names, step = (_BINARY, 1024) if binary else (_DECIMAL, 1000)
            cells = [None if v is None else rounded(v, step**shared) for v in scaled]
            return f"{names[shared]}{unit}", align(cells)
        suffix = "B" if kind == "bytes" else ""
        pairs = [None if v is None else split(v, binary) for v in scaled]
        width = max((len(pair[1]) for pair in pairs if pair), default=0)
        cells = [None if pair is None else f"{pair[0]} {pair[1]:>{width}}{suffix}" for pair in pairs]
        return ("" if suffix else unit), _right(cells)

    def _scaled(self, value: Number, kind: Kind) -> Number:
        return _half(value) if kind == "matmul" and self.macs else value


def factor(prefix: str) -> int | None:
    """What a prefix multiplies by: 10^9 for ``G``, 2^30 for ``Gi``, 1 for none; None for what is no prefix."""
    for names, step in ((_DECIMAL, 1000), (_BINARY, 1024)):
        if prefix in names:
            return int(step ** names.index(prefix))
    return None


def split(value: Number, binary: bool = False) -> tuple[str, str]:
    """A number and its prefix: ``("1.31", "T")``; whole numbers below 10^4 keep every digit."""
    names, step = (_BINARY, 1024) if binary else (_DECIMAL, 1000)
    number, power = rounded(value), 0
    if not math.isfinite(value) or abs(Fraction(number)) < _PLAIN:
        return number, ""
    while power < len(names) - 1 and abs(Fraction(number)) >= step:  # 999.5 k rounds to 1000 k, so it is 1.00 M
        power += 1
        number = rounded(value, step**power)
    return number, names[power]


def rounded(value: Number, divisor: int = 1) -> str:
    """``value / divisor`` to three significant figures; digits left of the point are never dropped."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or (isinstance(value, int) and divisor == 1):
        return str(int(value))
    quotient = Fraction(value) / divisor
    decimals = 2
    while decimals and abs(quotient) >= 10 ** (3 - decimals):
        decimals -= 1
    while abs(quotient) * 10**decimals < 100:
        decimals += 1
    figures = round(quotient * 10**decimals)  # half to even
    if decimals and abs(figures) == 1000:  # 9.996 carried to 10.00: one figure too many
        decimals, figures = decimals - 1, figures // 10
    digits = str(abs(figures)).rjust(decimals + 1, "0")
    text = f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
    return f"-{text}" if figures < 0 else text


def exactly(value: Number) -> str:
    """Every digit, in groups of three; ``inf`` for an infinite number."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return f"{value.numerator:,}"
        with localcontext() as context:
            context.prec += len(str(value.numerator))  # as many digits behind the point, however many before it
            return f"{Decimal(value.numerator) / Decimal(value.denominator):,f}"
    if not math.isfinite(value):
        return str(value)
    return f"{int(value):,}" if value == int(value) else f"{Decimal(repr(value)):,f}"


def share(part: Number, whole: Number) -> str:
    """A part as per cent of the whole, one decimal: ``38.2``; ``<0.1`` for what is small but there."""
    if not part or not whole:
        return "0"
    percent = Fraction(part) * 100 / Fraction(whole)
    if abs(percent) < Fraction(1, 20):
        return "<0.1"
    text = f"{float(percent):.1f}"
    return "100" if percent == 100 else ">99.9" if text == "100.0" and percent < 100 else text


def intensity(value: float) -> str:
    """FLOPs per byte to three significant figures; ``inf`` for work that moves nothing."""
    return rounded(value)


def duration(seconds: Number) -> str:
    """A time to three significant figures: ``9.83 ms``, ``412 µs``, ``61.0 s``."""
    number, unit = _timed(seconds)
    return f"{number} {unit}"


def durations(seconds: Sequence[Number | None]) -> tuple[str, list[str]]:
    """A column of times as (unit for the header, cells of one width), as :meth:`Units.column` has it for numbers.

    The unit is empty where none suits them all: each cell has its own then. None is shown as an en dash.
    """
    sizes = [abs(Fraction(s)) for s in seconds if s and math.isfinite(s)]
    least, most = _SHARED
    for unit, per in _TIMES:
        if not sizes or (max(sizes) * per >= 1 and min(sizes) * per >= least and max(sizes) * per < most):
            return unit, align([None if s is None else _in_unit(s, per) for s in seconds])
    pairs = [None if s is None else _timed(s) for s in seconds]
    return "", _right([None if pair is None else f"{pair[0]} {pair[1]:>2}" for pair in pairs])


def _timed(seconds: Number) -> tuple[str, str]:
    """A time as a number and the largest unit of which it is at least one."""
    if not seconds or not math.isfinite(seconds):
        return str(seconds or 0), "s"
    found = [(_in_unit(seconds, per), unit) for unit, per in _TIMES]
    return next((pair for pair in found if abs(Fraction(pair[0])) >= 1), found[-1])


def _in_unit(seconds: Number, per: int) -> str:
    return rounded(Fraction(seconds) * per) if seconds and math.isfinite(seconds) else str(seconds or 0)


def align(cells: Sequence[str | None]) -> list[str]:
    """Numbers as cells of one width, aligned at the decimal point; None becomes an en dash."""
    tails = [len(c) - c.index(".") if c and "." in c else 0 for c in cells]
    widest = max(tails, default=0)
    return _right([None if c is None else c + " " * (widest - tail) for c, tail in zip(cells, tails, strict=True)])


def _right(cells: Sequence[str | None]) -> list[str]:
    width = max((len(c) for c in cells if c is not None), default=1)
    return [("–" if c is None else c).rjust(width) for c in cells]


def _half(value: Number) -> Number:
    if isinstance(value, int):
        return value // 2 if value % 2 == 0 else Fraction(value, 2)
    return value / 2


def _shared_prefix(values: Sequence[Number], binary: bool) -> int | None:
    """The power of 1000 (or 1024) that suits every value, the largest first; None when none does."""
    sizes = [abs(Fraction(v)) for v in values if v and math.isfinite(v)]
    if not sizes:
        return 0
    if max(sizes) < _PLAIN and all(s.denominator == 1 for s in sizes):
        return 0
    least, most = _SHARED
    step, powers = (1024, len(_BINARY)) if binary else (1000, len(_DECIMAL))
    for power in reversed(range(powers)):
        if max(sizes) >= step**power and min(sizes) >= least * step**power and max(sizes) < most * step**power:
            return power
    return None
