"""A count that is a maximum, such as a peak: each of its candidates has a formula, and it is the largest of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import product

from sympy import Add, And, Expr, Max, false

from attnprof.recovery.outcome import Formula, NoFormula, Outcome, Piece
from attnprof.recovery.recover import Recovery
from attnprof.recovery.space import Counts

#: How often candidates are added, and of how many a maximum may be.
_ROUNDS, _CANDIDATES = 6, 8


def maximum(recovery: Recovery, key: Hashable, candidates: Sequence[Hashable]) -> Outcome:
    """The formula of a key that is the largest of ``candidates`` at each point; not all of them need to have one.

    The candidates that are largest somewhere are recovered, and their maximum is held against every count.
    """
    recovery.survey()
    formulas: dict[Hashable, Formula] = {}
    refused: set[Hashable] = set()
    for _ in range(_ROUNDS):
        points = [counts for _, counts in recovery.space.within(recovery.space.names)]
        winners = _covering(points, key, [one for one in candidates if one not in refused])
        if winners is None or len(winners) > _CANDIDATES:
            break
        fresh = [one for one in winners if one not in formulas]
        for one in fresh:
            found = recovery.outcome(one, plain=True)
            if isinstance(found, Formula):
                formulas[one] = found
            else:
                refused.add(one)
        if not fresh:
            whole = _largest([formulas[one] for one in winners])
            return _checked(recovery, key, whole)
    return NoFormula("no formula of the basis fits what is largest at each point.")


def _covering(points: Iterable[Counts], key: Hashable, candidates: Sequence[Hashable]) -> list[Hashable] | None:
    """As few candidates as it takes for one of them to be the maximum at every point; None if there are none."""
    left = [{one for one in candidates if counts.get(one) == counts[key]} for counts in points]
    found: list[Hashable] = []
    while left:
        votes: dict[Hashable, int] = {}
        for those in left:
            for one in those:
                votes[one] = votes.get(one, 0) + 1
        if not votes:
            return None
        best = max(votes, key=lambda one: (votes[one], -candidates.index(one)))
        found.append(best)
        left = [those for those in left if best not in those]
    return found


def _largest(formulas: Sequence[Formula]) -> Formula:
    """The maximum, piece by piece; what never is more than another is left out."""
    pieces = []
    for parts in product(*(formula.pieces for formula in formulas)):
        condition = And(*(part.condition for part in parts))
        if condition is not false:
            pieces.append(Piece(Max(*_needed([part.expression for part in parts])), condition))
    return Formula(
        tuple(pieces), max(formula.runs for formula in formulas), min(formula.held_out for formula in formulas)
    )


def _needed(expressions: Sequence[Expr]) -> list[Expr]:
    found: list[Expr] = []
    for one in expressions:
        if not any(_is_never_more(one, other) for other in found):
            found = [other for other in found if not _is_never_more(other, one)]
            found.append(one)
    return found


def _is_never_more(one: Expr, other: Expr) -> bool:
    """Whether the difference has no negative term: sizes are above zero."""
    terms = Add.make_args((other - one).expand())
    return all(term.as_coeff_Mul()[0] >= 0 for term in terms)


def _checked(recovery: Recovery, key: Hashable, formula: Formula) -> Outcome:
    for point, counts in recovery.space.within(recovery.space.names):
        if formula.evaluate(**recovery.space.sizes(point)) != counts[key]:
            return NoFormula("no formula of the basis fits what is largest at each point.")
    return formula
