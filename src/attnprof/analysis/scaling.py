"""How a cost grows, as people ask it: the class, what overtakes what and where, and which module it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import sympy
from sympy import Expr, S

from attnprof.analytic.symbols import symbol as symbol_of
from attnprof.analytic.text import plain
from attnprof.claims.growth import degree, leading
from attnprof.claims.monomials import UnsettledError
from attnprof.core.errors import AttnprofError
from attnprof.core.latex_symbols import between_factors, symbol_in_latex
from attnprof.recovery.outcome import DataDependent, Formula, Outcome
from attnprof.recovery.scaling import Scaling

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """A formula as text and as LaTeX, and where it holds: ``T ≤ 64``, empty for everywhere."""

    formula: str
    latex: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of the whole model or of a module: pieces of a formula, or ``reason``, why there is none.

    ``growth`` is what stands in O( ), empty where it cannot be told. ``value`` is the count at the largest sizes and
    ``share`` that part of the whole. ``count``: how many modules of this kind have this very formula, each.
    """

    path: str
    pieces: tuple[Piece, ...] = ()
    reason: str = ""
    growth: str = ""
    value: int | None = None
    share: Fraction | None = None
    count: int = 1
    held_out: int = 0
    runs: int = 0
    spread: tuple[tuple[Sizes, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Responsible:
    """A module whose own ops, without those of modules in it, have some terms; "" is the model outside of modules.

    ``count``: in how many modules of this path the same ones are. ``share``: what all of them have of the terms, at
    the largest sizes.
    """

    path: str
    count: int
    terms: str
    share: Fraction


@dataclass(frozen=True, slots=True)
class Overtaking:
    """The terms that grow fastest in a symbol, from which size on they are more than all others, and whose they are.

    ``start`` is None where they always are. ``inside``: whether it is among the sizes that were asked for; None where
    it depends on other symbols. ``is_all``: whether there are no other terms. ``told``: whether the size is known;
    where it is not, the terms are some of those that grow as ``power``, and may not be all.
    """

    symbol: str
    power: str
    terms: str
    latex: str
    start: str | None
    inside: bool | None = None
    modules: tuple[Responsible, ...] = ()
    is_all: bool = False
    told: bool = True


@dataclass(frozen=True)
class Growth:
    """All there is to say of a :class:`Scaling` without asking anything of it."""

    scaling: Scaling
    whole: Found
    overtaking: tuple[Overtaking, ...] = ()
    modules: tuple[Found, ...] = ()
    largest: Sizes = field(default_factory=dict)


def growth(scaling: Scaling, at: Sizes | None = None) -> Growth:
    """The answers; shares are those at the sizes ``at``, or at the largest of every symbol."""
    largest = {name: domain.last for name, domain in scaling.domains.items()} | dict(at or {})
    value = value_at(scaling.outcome, largest)
    whole = found("", scaling.outcome, largest, value)
    if not isinstance(scaling.outcome, Formula):
        return Growth(scaling, whole, modules=folded(scaling, largest, value), largest=largest)
    return Growth(
        scaling,
        whole,
        _overtakings(scaling, largest),
        folded(scaling, largest, value),
        largest,
    )


def found(path: str, outcome: Outcome, largest: Sizes, whole: int | None, count: int = 1) -> Found:
    """One outcome as it is shown."""
    if not isinstance(outcome, Formula):
        spread = outcome.spread if isinstance(outcome, DataDependent) else ()
        return Found(path, reason=outcome.reason, count=count, spread=spread)
    value = value_at(outcome, largest)
    share = Fraction(value, whole) if value is not None and whole else None
    pieces = tuple(
        Piece(plain(piece.expression), in_latex(piece.expression), _condition(piece.condition))
        for piece in outcome.pieces
    )
    return Found(
        path,
        pieces,
        growth=class_of(outcome.expression),
        value=value,
        share=share,
        count=count,
        held_out=outcome.held_out,
        runs=outcome.runs,
    )


def folded(scaling: Scaling, largest: Sizes, whole: int | None) -> tuple[Found, ...]:
    """The modules, those that differ by a number in their path alone and have one formula as one: ``h.*.attn``."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, outcome in scaling.modules.items():
        text = str(outcome.expression) if isinstance(outcome, Formula) else outcome.reason
        groups.setdefault((starred(path), text), []).append(path)
    rows = []
    for (pattern, _), paths in groups.items():
        name = pattern if len(paths) > 1 else paths[0]
        rows.append(found(name, scaling.modules[paths[0]], largest, whole, len(paths)))
    return tuple(rows)


def value_at(outcome: Outcome, sizes: Sizes) -> int | None:
    """The count at some sizes, or None where the formula says nothing of them."""
    try:
        return outcome.evaluate(**sizes) if isinstance(outcome, Formula) else None
    except AttnprofError:
        return None


def class_of(expression: Expr) -> str:
    """What stands in O( ): ``T²·d + T·d²``; empty where the growth cannot be told."""
    if expression == 0:
        return ""
    try:
        return plain(leading(expression))
    except UnsettledError:
        return ""


def in_latex(expression: Expr) -> str:
    """Symbols of several letters upright, as one."""
    names = {s: symbol_in_latex(s.name) for s in expression.free_symbols}
    return str(sympy.latex(expression, symbol_names=names, mul_symbol=between_factors(s.name for s in names)))


def own_parts(scaling: Scaling, at: Sizes) -> dict[str, Expr]:
    """What the ops of each module itself come to, without those of modules in it; "" is the model.

    Only of modules that have a formula, as those in them do; of pieces the one that holds ``at`` some sizes.
    """
    known = {path: _piece(o, at) for path, o in scaling.modules.items() if isinstance(o, Formula)}
    if isinstance(scaling.outcome, Formula):
        known[""] = _piece(scaling.outcome, at)
    children: dict[str, list[str]] = {}
    for path in scaling.modules:
        parent = path.rpartition(".")[0]
        while parent and parent not in scaling.modules:
            parent = parent.rpartition(".")[0]
        children.setdefault(parent, []).append(path)
    parts = {}
    for path, expression in known.items():
        below = children.get(path, [])
        if all(child in known for child in below):
            parts[path] = sympy.expand(expression - sum((known[child] for child in below), S.Zero))
    return parts


def responsible(parts: Mapping[str, Expr], terms: Expr, largest: Sizes) -> tuple[Responsible, ...]:
    """The modules that have some of these terms in their own part, those with most of it first."""
    total = _number(terms, largest)
    bases = {term.as_coeff_Mul()[1] for term in sympy.Add.make_args(terms)}
    groups: dict[tuple[str, Expr], list[str]] = {}
    for path, own in parts.items():
        mine = [term for term in sympy.Add.make_args(own) if term.as_coeff_Mul()[1] in bases]
        if mine:
            groups.setdefault((starred(path), sympy.Add(*mine)), []).append(path)
    rows = []
    for (pattern, mine), paths in groups.items():
        value = _number(mine, largest)
        if value and total:
            name = pattern if len(paths) > 1 else paths[0]
            rows.append(Responsible(name, len(paths), plain(mine), value * len(paths) / total))
    return tuple(sorted(rows, key=lambda row: (-row.share, row.path)))


def _overtakings(scaling: Scaling, largest: Sizes) -> tuple[Overtaking, ...]:
    parts = own_parts(scaling, largest)
    return tuple(_overtaking(scaling, name, parts, largest) for name in scaling.symbols if _varies(scaling, name))


def _overtaking(scaling: Scaling, name: str, parts: Mapping[str, Expr], largest: Sizes) -> Overtaking:
    terms = scaling.dominant(name)
    start, inside, told = None, None, True
    try:
        crossing = scaling.crossover(name)
    except NotImplementedError:  # sympy solves no equation of such functions
        crossing, told = None, False
    told = told and not scaling.expression.has(sympy.Max, sympy.Min, sympy.Piecewise)  # small sizes have other terms
    if crossing is not None and crossing.is_number and crossing <= 1:
        crossing = None  # no size is smaller
    if crossing is not None:
        crossing = sympy.ceiling(crossing) if crossing.is_number else sympy.simplify(crossing)
        start = plain(crossing)
        inside = bool(crossing <= scaling.domains[name].last) if crossing.is_number else None
    try:
        power = plain(symbol_of(name) ** sympy.Rational(str(degree(scaling.expression, {name: Fraction(1)}))))
    except UnsettledError:
        power = ""
    modules = responsible(parts, terms, largest)
    is_all = bool(sympy.expand(scaling.expression - terms) == 0)
    return Overtaking(name, power, plain(terms), in_latex(terms), start, inside, modules, is_all, told)


def _piece(formula: Formula, at: Sizes) -> Expr:
    try:
        return formula.piece_at(at).expression
    except AttnprofError:
        return formula.expression


def _varies(scaling: Scaling, name: str) -> bool:
    return symbol_of(name) in scaling.expression.free_symbols


def _number(expression: Expr, sizes: Sizes) -> Fraction | None:
    value = expression.xreplace({s: sympy.Integer(sizes[s.name]) for s in expression.free_symbols})
    return Fraction(str(value)) if value.is_Rational else None


def starred(path: str) -> str:
    """A path with its numbers left open: ``h.0.attn`` is ``h.*.attn``."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def _condition(condition: object) -> str:
    """``T ≤ 64``; nothing where a formula holds everywhere."""
    if condition == True:  # noqa: E712 - sympy's true, and Python's
        return ""
    text = re.sub(r"\s*(>=|<=|!=|==|=|≠|≤|≥|>|<)\s*", r" \1 ", plain(condition))
    return text.replace(">=", "≥").replace("<=", "≤").replace(" & ", " and ").replace(" | ", " or ")
