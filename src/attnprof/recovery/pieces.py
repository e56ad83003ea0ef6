"""Breakpoints: where along one size a count stops to be one polynomial and becomes another, to the last size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

_DEGREE = 3
#: Points that are added before it is given up, and pieces that are looked for.
_ADDED, _PIECES = 40, 8
#: First sizes that may be a piece by themselves. Last ones may not: what is said of large sizes takes more.
_FIRST = 2


@dataclass(frozen=True, slots=True)
class Break:
    """Where one piece ends: its last size, and where it meets the next one, if it does.

    ``sizes``: how many it has, where these are the first of all sizes and too few for a polynomial; else None.
    """

    last: int
    meets: tuple[Fraction, ...] = ()
    sizes: int | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """Where pieces end, and the degree of their polynomials."""

    breaks: tuple[Break, ...]
    degree: int


def pieces(
    there: Sequence[int],
    known: Sequence[int],
    count: Callable[[int], int | None],
    between: Callable[[int, int], Sequence[int]] = lambda low, high: (),
) -> Pieces | None:
    """Polynomials of degree 3 or less that follow each other along ``there``; None if there are no such pieces.

    ``there`` are sizes that can be counted, ``known`` those that were; ``between`` has more that lie between two of
    them, so that a break is found to the last size. Each piece is told from at least one point more than its
    polynomial takes; the first one or two sizes may be a piece of their own, each of them counted.
    """
    counts = {size: found for size in known if (found := count(size)) is not None}
    there = sorted({*there, *counts})
    added = 0
    while added <= _ADDED:
        segments, gap = _with_first(sorted(counts.items()), there)
        if gap is None and len(segments) <= _PIECES:
            wrong = _narrow(there, counts, segments, count, between)
            if wrong is None:
                return _described(counts, there)
            added += 1
            continue
        if gap is None:
            return None
        fresh = _between(there, counts, *gap)
        if not fresh:
            return None
        for size in fresh:
            added += 1
            found = count(size)
            if found is None:
                there = [other for other in there if other != size]
            else:
                counts[size] = found
    return None


def _with_first(
    points: list[tuple[int, int]], there: Sequence[int]
) -> tuple[list[list[tuple[int, int]]], tuple[int, int] | None]:
    """Stretches as below; the one or two sizes that are the first of all there are may be one, whatever they count."""
    found, gap = _segments(points)
    first = points[: len(points) - sum(map(len, found))]
    if gap is not None and len(first) <= _FIRST and [size for size, _ in first] == [*there[: len(first)]]:
        return [first, *found], None
    return found, gap


def _segments(points: list[tuple[int, int]]) -> tuple[list[list[tuple[int, int]]], tuple[int, int] | None]:
    """The points, from the right, in stretches on one polynomial each; and the ends of one that is too short."""
    found: list[list[tuple[int, int]]] = []
    end = len(points)
    while end:
        for many in (5, 4, 3):
            start = end - many
            if start >= 0 and (through := _polynomial(points[start:end])) is not None:
                break
        else:
            return found, (points[max(end - 4, 0)][0], points[end - 1][0])
        while start and _at(through, points[start:end], points[start - 1][0]) == points[start - 1][1]:
            start -= 1
            through = _polynomial(points[start:end]) or through
        found.insert(0, points[start:end])
        end = start
    return found, None


def _polynomial(points: Sequence[tuple[int, int]]) -> list[Fraction] | None:
    """Newton's coefficients of a polynomial through all points, of a degree that leaves one to check on.

    Of two points or less, it is none that could be wrong: the constant, or the line.
    """
    table = [Fraction(y) for _, y in points]
    xs = [x for x, _ in points]
    coefficients: list[Fraction] = []
    for order in range(len(points)):
        if order:
            table = [(table[i + 1] - table[i]) / (xs[i + order] - xs[i]) for i in range(len(table) - 1)]
        coefficients.append(table[0])
    degree = max((i for i, c in enumerate(coefficients) if c), default=0)
    if len(points) > 2 and degree > min(_DEGREE, len(points) - 2):
        return None
    return coefficients[: degree + 1]


def _at(coefficients: Sequence[Fraction], points: Sequence[tuple[int, int]], x: int) -> Fraction:
    found = Fraction(0)
    for i in reversed(range(len(coefficients))):
        found = found * (x - points[i][0]) + coefficients[i]
    return found


def _narrow(
    there: list[int],
    counts: dict[int, int],
    segments: Sequence[list[tuple[int, int]]],
    count: Callable[[int], int | None],
    between: Callable[[int, int], Sequence[int]],
) -> int | None:
    """Count between neighbouring pieces until they touch; a size at which neither is right ends it and is returned.

    ``there`` gets the sizes that lie between two of it where they do.
    """
    for left, right in pairwise(segments):
        one, other = _polynomial(left), _polynomial(right)
        assert one is not None
        assert other is not None
        low, high = bisect_left(there, left[-1][0]), bisect_left(there, right[0][0])
        while high - low > 1 or (more := between(there[low], there[high])):
            if high - low == 1:
                there[high:high] = more
                high += len(more)
            middle = (low + high) // 2
            size = there[middle]
            found = counts.get(size)
            found = count(size) if found is None else found
            if found is None:
                return None  # the break is known as closely as the model allows
            counts[size] = found
            if found == _at(other, right, size):
                high = middle
            elif found == _at(one, left, size):
                low = middle
            else:
                return size
    return None


def _described(counts: dict[int, int], there: Sequence[int]) -> Pieces:
    breaks: list[Break] = []
    degree = 0
    parts, _ = _with_first(sorted(counts.items()), there)
    for left, right in pairwise(parts):
        one, other = _polynomial(left), _polynomial(right)
        assert one is not None
        assert other is not None
        last = left[-1][0]
        if len(left) <= _FIRST:
            breaks.append(Break(last, sizes=len(left)))
            continue
        apart = [_at(one, left, x) - _at(other, right, x) for x in (last, last + 1, last + 2)]
        meets = [Fraction(x) for x, gap in ((last, apart[0]), (last + 1, apart[1])) if not gap]
        slope = apart[1] - apart[0]
        if not meets and slope and apart[2] - apart[1] == slope and 0 < -apart[0] / slope < 1:
            meets = [last - apart[0] / slope]  # between two sizes
        breaks.append(Break(last, tuple(meets)))
    for part in parts:
        if len(part) > _FIRST:
            degree = max(degree, len(_polynomial(part) or []) - 1)
    return Pieces(tuple(breaks), degree)


def _between(there: Sequence[int], counts: dict[int, int], low: int, high: int) -> list[int]:
    """Sizes not yet counted in a gap: its middle and next to its ends."""
    inside = [size for size in there if low <= size <= high and size not in counts]
    if not inside:
        around = [size for size in there if size not in counts]
        around.sort(key=lambda size: min(abs(size - low), abs(size - high)))
        return around[:1]
    return sorted({inside[len(inside) // 2], inside[-1]})
