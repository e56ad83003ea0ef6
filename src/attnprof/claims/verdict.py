"""A claim held against the formula that was measured: true or false, the missing term, and sizes that show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sympy import Add, Expr, Integer, Piecewise, S, expand, simplify

from attnprof.claims.grammar import Claim
from attnprof.claims.growth import Rates, degree, escape
from attnprof.core.errors import AttnprofError

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Example:
    """What is measured and what is claimed at some sizes; for a claim of growth, the value of what stands in O( )."""

    sizes: Sizes
    measured: int
    claimed: Fraction


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds of a measured formula, and why not.

    ``missing`` are the terms that were measured and that the claim has too little of, or does not bound; ``surplus``
    those that it has too much of, or that outgrow what was measured. ``times``: measured ÷ claimed where that is
    the same at all sizes. ``rates`` is a direction of growth in which a bound fails (1 for a symbol that grows, 0 for
    one that stays), ``powers`` the powers of the growing number that are measured and claimed there. ``examples``
    are sizes, the largest last, that show it; ``share`` is what ``missing`` is there of the measured, 0 to 1.
    """

    claim: Claim
    holds: bool
    measured: Expr
    missing: Expr = S.Zero
    surplus: Expr = S.Zero
    times: Fraction | None = None
    rates: Rates | None = None
    powers: tuple[Fraction, Fraction] | None = None
    examples: tuple[Example, ...] = ()
    share: Fraction | None = None
    assumed: tuple[tuple[Expr, Expr], ...] = ()


def judge(
    claim: Claim,
    measured: Expr,
    points: Sequence[tuple[Sizes, int]],
    assumed: Iterable[tuple[Expr, Expr]] = (),
) -> Verdict:
    """Hold a claim against a measured formula; ``points`` are sizes with their counts, the largest last.

    Raises :class:`AttnprofError` where the growth of either cannot be told.
    """
    given = tuple(assumed)
    if claim.bound == "=":
        return _equal(claim, measured, points)
    above = escape(measured, claim.expression, given) if claim.bound in ("O", "Θ") else None
    below = escape(claim.expression, measured, given) if claim.bound in ("Ω", "Θ") else None
    failed = above or below
    if failed is None:
        return Verdict(claim, True, measured, assumed=given, examples=_examples(claim, points[-1:]))
    last = points[-1][0]
    larger, smaller = (measured, claim.expression) if above else (claim.expression, measured)
    guilty = [t for t in Add.make_args(expand(_at(larger, last))) if _escapes(t, smaller, given)]
    part = Add(*guilty)
    return Verdict(
        claim,
        False,
        measured,
        missing=part if above else S.Zero,
        surplus=S.Zero if above else part,
        rates=failed.rates,
        powers=(degree(measured, failed.rates), degree(claim.expression, failed.rates)),
        examples=_examples(claim, points),
        share=share_of(part, points[-1]) if above else None,
        assumed=given,
    )


def _equal(claim: Claim, measured: Expr, points: Sequence[tuple[Sizes, int]]) -> Verdict:
    """A claimed formula: the same one, or what is missing in it and where that is seen."""
    differing = [(sizes, count) for sizes, count in points if _value(claim.expression, sizes) != count]
    if not differing:
        return Verdict(claim, True, measured, examples=_examples(claim, points[-1:]))
    last = differing[-1][0]
    here = expand(_at(measured, last))
    there = expand(_at(claim.expression, last))
    times = simplify(here / there) if there != 0 else None
    coefficients = [dict(expression.as_coefficients_dict()) for expression in (here, there)]
    missing, surplus = S.Zero, S.Zero
    for term in {**coefficients[0], **coefficients[1]}:
        more = coefficients[0].get(term, 0) - coefficients[1].get(term, 0)
        if more > 0:
            missing += more * term
        else:
            surplus -= more * term
    return Verdict(
        claim,
        False,
        measured,
        missing=missing,
        surplus=surplus,
        times=None if times is None or not times.is_Rational or measured.has(Piecewise) else Fraction(str(times)),
        examples=_examples(claim, differing),
        share=share_of(missing, differing[-1]),
    )


def _escapes(term: Expr, bound: Expr, given: tuple[tuple[Expr, Expr], ...]) -> bool:
    coefficient, rest = term.as_coeff_Mul()
    return bool(coefficient > 0) and escape(rest, bound, given) is not None


def example(claim: Claim, sizes: Sizes, count: int) -> Example:
    """A count beside what is claimed of it; a root or a logarithm is rounded to a millionth."""
    return Example(sizes, count, _value(claim.expression, sizes))


def _examples(claim: Claim, points: Sequence[tuple[Sizes, int]]) -> tuple[Example, ...]:
    """The first and the last of the points."""
    some = [points[0], points[-1]] if len(points) > 1 else points
    return tuple(example(claim, sizes, count) for sizes, count in some)


def share_of(part: Expr, point: tuple[Sizes, int]) -> Fraction | None:
    """What some terms are of a count, 0 to 1; None where there are none, or nothing was counted."""
    sizes, count = point
    return _value(part, sizes) / count if count and part != 0 else None


def _at(expression: Expr, sizes: Sizes) -> Expr:
    """Of pieces, the one that holds at some sizes."""
    if isinstance(expression, Piecewise):
        for value, condition in expression.args:
            if condition.xreplace(_known(condition, sizes)) == True:  # noqa: E712 - sympy's true, and Python's
                return value
    return expression


def _value(expression: Expr, sizes: Sizes) -> Fraction:
    found = expression.xreplace(_known(expression, sizes))
    if not found.is_number:
        raise AttnprofError(f"{found} has no value at {', '.join(f'{n}={v}' for n, v in sizes.items())}.")
    found = simplify(found)
    return (
        Fraction(int(found.p), int(found.q)) if found.is_Rational else Fraction(round(found.evalf(30) * 10**6), 10**6)
    )


def _known(expression: Expr, sizes: Sizes) -> dict[Expr, Expr]:
    return {s: Integer(sizes[s.name]) for s in expression.free_symbols if s.name in sizes}
