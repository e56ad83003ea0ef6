"""From counts at points to formulas: along each size first, then one size after the other together.

A formula is made of products of what was found along the lines; each size that joins multiplies only what was left
of the ones before, so that few points tell the terms apart. Then it is held against every other point, and against
points that are drawn for that alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from attnprof.recovery.atoms import Monomial
from attnprof.recovery.checks import HELD_OUT, Checks
from attnprof.recovery.coefficients import BASIS, NoFitError, combined, wrong_at
from attnprof.recovery.domain import Domain
from attnprof.recovery.fitting import Combination, value
from attnprof.recovery.line import Line
from attnprof.recovery.outcome import Formula, NoFormula, Outcome, Sizes
from attnprof.recovery.products import Bases, closed, described, with_caps
from attnprof.recovery.space import Counts, Point, Space, TooManyRunsError
from attnprof.recovery.written import with_one, written

#: Powers that look alike along a line of few sizes, from one to another, and choices of them that are tried.
_ALIKE = ((0, 0), (-1, 0), (0, 1), (-1, 1), (0, 2))
_CHOICES = 16
#: Sizes of a line that tell less than this many functions apart.
_THIN = 5
#: How often what is found of one size alone is looked for again with the points it was wrong at.
_AGAIN = 2


@dataclass
class Recovery:
    """The formulas of one model over ``domains``; ``given`` are sizes that do not vary here.

    ``measure`` returns the counts at sizes by key, and raises :class:`UnmeasurableError` where the model fails.
    ``at_the_end``: formulas are checked where all sizes are at their largest, too.
    """

    measure: Callable[[Sizes], Counts]
    domains: Sequence[Domain]
    given: Sizes = field(default_factory=dict)
    at_the_end: bool = True

    def __post_init__(self) -> None:
        self.space = Space(self.measure, self.domains, self.given)
        self._lines: dict[tuple[Point, str], Line] = {}
        self._with_one: dict[str, Recovery] = {}
        self.checks = Checks(self.space, self.at_the_end)
        self._known: dict[tuple[int, ...], Outcome] = {}
        self._some = False
        self._used: dict[Hashable, list[Point]] = {}

    def outcome(self, key: Hashable, plain: bool = False) -> Outcome:
        """The formula of a key, or why there is none. Raises :class:`AttnprofError` if the model fails everywhere.

        ``plain``: polynomials alone are tried, which takes fewer points where there is no formula.
        """
        if not self.space.anchors:
            self.space.find_anchor()
        if self._counts(key) not in self._known:
            found = self._outcome(key, plain)
            if plain and not isinstance(found, Formula):
                return found
            self._known[self._counts(key)] = found
        return self._known[self._counts(key)]

    def _counts(self, key: Hashable) -> tuple[int, ...]:
        """All counts of a key that there are: what has the same ones has the same formula."""
        return tuple(counts.get(key, 0) for counts in self.space.counted.values())

    def _outcome(self, key: Hashable, plain: bool) -> Outcome:
        reason: Exception = NoFitError("there is nothing to count.")
        attempts = self._attempts(key, plain)
        while True:
            try:
                bases = next(attempts, None)
                if bases is None:
                    return NoFormula(str(reason))
                combination, used = self._combined(key, bases)
                formula = written(combination, used, self._checked(key, combination, used))
                return self._with_ones(key, formula)
            except NoFitError as error:
                reason = error
            except TooManyRunsError as error:
                return NoFormula(f"no formula was found within {error}.")

    def made_from(self, key: Hashable) -> list[Sizes]:
        """The points that the formula of a key was made from; all there are where there is none."""
        if isinstance(self._known.get(self._counts(key)), Formula):
            return [self.space.sizes(point) for point in self._used.get(key, ())]
        return [self.space.sizes(point) for point in self.space.counted]

    def limits(self) -> Iterator[str]:
        """Sentences on where the model fails: formulas are of sizes at which it works."""
        if self.space.failed:
            rules = " and ".join(map(str, self.space.rules))
            where = f"with {rules}" if rules else "at which the model works"
            failure = str(self.space.failure()).removeprefix("the model fails ")
            yield f"The formulas are for sizes {where}; elsewhere it fails, {failure}"

    def survey(self) -> None:
        """Count what any formula needs first: along each size, and points to check on."""
        if not self.space.anchors:
            self.space.find_anchor()
        for name in self.space.names:
            self._line(name, self.space.anchors[0]).pick()
        self.checks.draw()
        self.space.settle()

    # What a count may be made of

    def _attempts(self, key: Hashable, plain: bool) -> Iterator[Bases]:
        """Functions of each size, of which the count may be a sum of products, the likeliest first."""
        first = self.space.anchors[0]
        bases = {name: self._basis(key, name, first, plain) for name in self.space.names}
        yield bases
        if len(bases) < 2:
            yield from self._with_more_points(key, plain)
            return
        # What is least at one size of another may be the product of both that is: min(B T, V).
        every = {name: closed(name, basis) for name, basis in bases.items()}
        yield from with_caps(every, self.space.sizes(first))
        # At the anchor a term may have come to nothing: with all lower powers. Along a line of few sizes several
        # functions look alike: with each of them.
        ways = [
            [closed(name, basis, *least) for least in (_ALIKE if self._is_thin(name) else _ALIKE[:1])]
            for name, basis in bases.items()
        ]
        choices = sorted(itertools.product(*ways), key=lambda choice: sum(map(len, choice)))
        for choice in choices[:_CHOICES]:
            yield dict(zip(bases, choice, strict=True))
        # At the anchor one of several cases may be missing: with what is found along lines elsewhere.
        if plain or (len(self.space.anchors) < 2 and not self.space.find_anchor()):
            return
        yield {
            name: sorted({*found, *closed(name, self._basis(key, name, self.space.anchors[1]))}, key=repr)
            for name, found in bases.items()
        }

    def _with_more_points(self, key: Hashable, plain: bool) -> Iterator[Bases]:
        """Of one size the points that a formula was wrong at are on its line: with them it is another one."""
        for _ in range(_AGAIN):
            yield {name: self._basis(key, name, self.space.anchors[0], plain) for name in self.space.names}

    def _is_thin(self, name: str) -> bool:
        """Whether the line of a symbol has few sizes."""
        return len(self._line(name, self.space.anchors[0]).known()) < _THIN

    def _basis(self, key: Hashable, name: str, anchor: Point, plain: bool = False) -> Sequence[Monomial]:
        line = self._line(name, anchor)
        found = line.basis(key, plain)
        if found is None:
            raise NoFitError(
                f"no formula of the basis fits how it grows with {name} ({BASIS}), {described(line.known())}."
            )
        return found

    def _line(self, name: str, anchor: Point) -> Line:
        return self._lines.setdefault((anchor, name), Line(self.space, name, anchor))

    def _combined(self, key: Hashable, bases: Bases) -> tuple[Combination, int]:
        """The coefficients of products of the bases, and the number of points that they were made from."""
        found, self._used[key] = combined(self.space, key, bases, {name for name in bases if self._is_thin(name)})
        return found, len(self._used[key])

    # Checks

    def _checked(self, key: Hashable, combination: Combination, used: int) -> int:
        """Hold a formula against every point, some of them drawn for it; how many it was not made from."""
        space = self.space
        self.checks.draw()
        self.checks.in_cases(combination)
        points = list(space.within(space.names))
        for point, counts in points:
            if value(combination, space.sizes(point)) != counts.get(key, 0):
                raise wrong_at(space, point, counts.get(key, 0))
        if len(points) <= used and self.domains:
            raise NoFitError(
                f"a formula that fits takes {used} points, and no other is left to check it on: give more sizes."
            )
        return len(points) - used

    # Sizes of 1

    def _with_ones(self, key: Hashable, formula: Formula) -> Formula:
        """Sizes of 1 are a piece of their own where the formula is not right there."""
        for domain in self.domains:
            if domain.first == 1:
                formula = self._with_one_of(key, formula, domain.name)
        return formula

    def _with_one_of(self, key: Hashable, formula: Formula, name: str) -> Formula:
        if name not in self._with_one:
            rest = [other for other in self.domains if other.name != name]
            self._with_one[name] = Recovery(self.measure, rest, {**self.given, name: 1}, self.checks.at_the_end)
        there = self._with_one[name]
        some = there.some(key)
        if all(formula.value(sizes) == count for sizes, count in some):
            return Formula(formula.pieces, formula.runs, formula.held_out + len(some))
        found = there.outcome(key)
        if not isinstance(found, Formula):
            raise NoFitError(f"at {name} = 1, {found.reason}")
        return with_one(formula, name, found)

    def some(self, key: Hashable) -> list[tuple[Sizes, int]]:
        """Counts at some points, more sizes of 1 among them; none where the model fails."""
        space = self.space
        if not space.anchors and not space.find_anchor(must=False):
            return []
        if not self._some:
            self._some = True
            for point in (*self.checks.ends(), *self.checks.ones()):
                space.count(point)
            most = len(space.counted) + HELD_OUT
            for point in space.random(space.names):
                if len(space.counted) >= most:
                    break
                space.count(point)
        return [(space.sizes(point), counts.get(key, 0)) for point, counts in space.counted.items()]
