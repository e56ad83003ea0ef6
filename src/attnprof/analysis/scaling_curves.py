"""Curves of how a cost grows: along each symbol, of the whole and of each module's own ops, and how steep they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sympy import Integer

from attnprof.analysis.scaling import Growth, starred
from attnprof.core.errors import AttnprofError
from attnprof.recovery.domain import Domain
from attnprof.recovery.outcome import Formula, Outcome

Sizes = Mapping[str, int]
#: Sizes along a curve, and the most curves of modules beside that of the whole.
_ALONG, _CURVES = 33, 7


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts along sizes. ``slope``: by which power they grow at the largest sizes; None where they are zero there."""

    label: str
    sizes: tuple[int, ...]
    counts: tuple[float, ...]
    slope: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves along one symbol, the others as ``at`` says: the whole first, then modules, most at the end first.

    ``points`` are counted ones, as (size, count). ``others``: how many more modules there are.
    """

    symbol: str
    at: Sizes
    curves: tuple[Curve, ...]
    points: tuple[tuple[int, int], ...] = ()
    others: int = 0


def panels(growth: Growth) -> tuple[Panel, ...]:
    """A panel for each symbol that the formula depends on; none without a formula."""
    scaling = growth.scaling
    if not isinstance(scaling.outcome, Formula):
        return ()
    used = {s.name for s in scaling.expression.free_symbols}
    names = [name for name in scaling.symbols if name in used] or list(scaling.symbols[:1])
    return tuple(_panel(growth, name) for name in names)


def _panel(growth: Growth, name: str) -> Panel:
    scaling = growth.scaling
    at = {other: size for other, size in growth.largest.items() if other != name}
    sizes = _along(scaling.domains[name])
    outcomes: dict[str, Outcome] = {"": scaling.outcome, **scaling.modules}
    values = {path: [_value(outcome, {**at, name: size}) for size in sizes] for path, outcome in outcomes.items()}
    own = _own(values)
    grouped: dict[str, list[float]] = {}
    for path, counts in own.items():
        label = starred(path)
        before = grouped.get(label, [0.0] * len(sizes))
        grouped[label] = [a + b for a, b in zip(before, counts, strict=True)]
    curves = [_curve(label or "(model itself)", sizes, counts) for label, counts in grouped.items() if any(counts)]
    curves.sort(key=lambda curve: -curve.counts[-1])
    whole = _curve("all", sizes, [float(value or 0) for value in values[""]])
    alone = len(curves) == 1 and curves[0].label == "(model itself)"
    points = tuple(
        (point.sizes[name], point.count)
        for point in scaling.points
        if all(point.sizes[other] == size for other, size in at.items())
    )
    shown = [] if alone else curves[:_CURVES]
    return Panel(name, at, (whole, *shown), points, 0 if alone else len(curves) - len(shown))


def _own(values: Mapping[str, Sequence[Fraction | None]]) -> dict[str, list[float]]:
    """What each module's own ops come to: less what the modules right below it do."""
    children: dict[str, list[str]] = {}
    for path in values:
        parent = path.rpartition(".")[0]
        while parent and parent not in values:
            parent = parent.rpartition(".")[0]
        if path:
            children.setdefault(parent, []).append(path)
    own = {}
    for path, counts in values.items():
        below = [values[child] for child in children.get(path, ())]
        own[path] = [float((count or 0) - sum(b[i] or 0 for b in below)) for i, count in enumerate(counts)]
    return own


def _value(outcome: Outcome, sizes: Sizes) -> Fraction | None:
    """The formula at sizes, also where it comes to no whole number: sizes on a curve need not be possible ones."""
    if not isinstance(outcome, Formula):
        return None
    try:
        expression = outcome.piece_at(sizes).expression
    except AttnprofError:
        return None
    value = expression.xreplace({s: Integer(sizes[s.name]) for s in expression.free_symbols})
    return Fraction(str(value)) if value.is_Rational else None


def _along(domain: Domain) -> tuple[int, ...]:
    """Sizes from the first to the last, at equal ratios."""
    if domain.listed and len(domain) <= _ALONG:
        return tuple(domain.sizes)
    step = (domain.last / domain.first) ** (1 / (_ALONG - 1))
    return tuple(sorted({domain.first, domain.last, *(round(domain.first * step**i) for i in range(1, _ALONG - 1))}))


def _curve(label: str, sizes: tuple[int, ...], counts: Sequence[float]) -> Curve:
    before = max((i for i in range(len(sizes) - 1) if sizes[i] * 1.1 <= sizes[-1]), default=0)
    slope = None
    if counts[before] > 0 and counts[-1] > 0 and sizes[-1] > sizes[before]:
        slope = math.log(counts[-1] / counts[before]) / math.log(sizes[-1] / sizes[before])
    return Curve(label, sizes, tuple(counts), slope)
