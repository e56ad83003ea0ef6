"""From counts at points to formulas: along each size first, then one size after the other together.

A formula is made of products of what was found along the lines; each size that joins multiplies only what was left
of the ones before, so that few points tell the terms apart. Then it is held against every other point, and against
points that are drawn for that alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

from attnprof.recovery.atoms import ONE, Atom, Monomial, at, joined
from attnprof.recovery.domain import Domain
from attnprof.recovery.exact import QUICK, System
from attnprof.recovery.fitting import Combination, value
from attnprof.recovery.line import Line
from attnprof.recovery.outcome import Formula, NoFormula, Outcome, Sizes
from attnprof.recovery.products import Bases, apart, closed, described, simple_first, with_caps
from attnprof.recovery.space import Counts, Point, Space, TooManyRunsError
from attnprof.recovery.written import with_one, written

#: Points drawn to check formulas on; sizes of a list that are all counted where nothing else varies.
HELD_OUT = 4
#: Powers that look alike along a line of few sizes, from one to another, and choices of them that are tried.
_ALIKE = ((0, 0), (-1, 0), (0, 1), (-1, 1), (0, 2))
_CHOICES = 16
#: Sizes of a line that tell less than this many functions apart.
_THIN = 5
_ALL_LISTED = 64
BASIS = "polynomials up to degree 4, inverse powers, min, ceil and floor of quotients, log2, pieces between breakpoints"
#: Terms that may wait for another size to be told apart.
_UNTOLD = 120
#: The largest denominator of a coefficient: wrong terms that are fitted to points have enormous ones.
_DENOMINATOR = 10_000
#: Points in a row that tell nothing new after which no other is looked for.
_IDLE = 400


class NoFitError(Exception):
    """Nothing of the basis fits; the message says where that showed."""


class TooFewError(NoFitError):
    """The points that can be counted do not determine the coefficients."""


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
        self._drawn: list[Point] = []
        self._known: dict[tuple[int, ...], Outcome] = {}
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
        self._draw()

    # What a count may be made of

    def _attempts(self, key: Hashable, plain: bool) -> Iterator[Bases]:
        """Functions of each size, of which the count may be a sum of products, the likeliest first."""
        first = self.space.anchors[0]
        bases = {name: self._basis(key, name, first, plain) for name in self.space.names}
        yield bases
        if len(bases) < 2:
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

    # Coefficients

    def _combined(self, key: Hashable, bases: Bases) -> tuple[Combination, int]:
        """The coefficients of products of the bases, and the number of points that they were made from."""
        joint = {name: max((len(a.names) for p in bases[name] for a, _ in p), default=0) for name in bases}
        order = sorted(bases, key=lambda name: (self._is_thin(name), -joint[name]))
        products: Sequence[Monomial] = [ONE]
        included: list[str] = []
        solved: tuple[Combination, int] | None = None
        for name in order:
            own = {*bases[name], *(apart(product, included) for product in bases[name])}
            included.append(name)
            if own == {ONE}:
                continue
            is_told = len(products) == 1 or len(own) == 1  # nothing to choose from: all terms are there
            products = sorted({joined(a, b) for a in products for b in own}, key=simple_first)
            solved = None
            if is_told:
                continue
            try:
                solved = self._solved(key, products, included)
                products = list(solved[0]) or [ONE]
            except TooFewError:
                if name == order[-1] or len(products) > _UNTOLD:
                    raise  # else the sizes that join next may tell them apart
        return solved or self._solved(key, products, included)

    def _solved(self, key: Hashable, basis: Sequence[Monomial], included: Sequence[str]) -> tuple[Combination, int]:
        """The coefficients, from points in which the included sizes vary; held against all such points there are."""
        space = self.space
        system, rank = System(len(basis)), System(len(basis), QUICK)
        right: list[int] = []
        used = self._used[key] = []
        rest: list[tuple[Point, int]] = []

        def take(point: Point, row: list[Fraction | int], count: int) -> None:
            system.add(row)
            right.append(count)
            used.append(point)

        for point, counts in space.within(included):
            row = [at(product, space.sizes(point)) for product in basis]
            if not rank.is_full and rank.add(row):
                take(point, row, counts.get(key, 0))
            else:
                rest.append((point, counts.get(key, 0)))
        idle = 0
        for point in () if rank.is_full else space.random(included):
            if rank.is_full or idle > _IDLE:
                break
            row = [at(product, space.sizes(point)) for product in basis]
            idle += 1
            if rank.is_new(row) and (fresh := space.count(point)) is not None:
                rank.add(row)
                take(point, row, fresh.get(key, 0))
                idle = 0
        if not rank.is_full and not any(atom.kind in ("min", "capped") for product in basis for atom, _ in product):
            raise TooFewError(
                f"the sizes of {', '.join(included)} that can be counted are too few to tell {len(basis)} terms apart."
            )  # with min(a, b) some terms are sums of others: (a - min) (b - min) = 0
        coefficients = system.solve(right)
        found = {product: c for product, c in zip(basis, coefficients or (), strict=False) if c}
        if any(c.denominator > _DENOMINATOR for c in found.values()):
            coefficients = None  # what counts whole things has none like that
        if coefficients is None:
            raise NoFitError(f"no formula of the basis fits ({BASIS}).")
        for point, count in rest:
            if value(found, space.sizes(point)) != count:
                raise self._wrong_at(point, count)
        return found, len(right)

    def _wrong_at(self, point: Point, count: int) -> NoFitError:
        where = ", ".join(f"{name}={size}" for name, size in zip(self.space.names, point, strict=True))
        return NoFitError(f"no formula of the basis ({BASIS}) comes to {count} at {where} and to the other counts.")

    # Checks

    def _checked(self, key: Hashable, combination: Combination, used: int) -> int:
        """Hold a formula against every point, some of them drawn for it; how many it was not made from."""
        space = self.space
        self._draw()
        self._draw_in_cases(combination)
        points = list(space.within(space.names))
        for point, counts in points:
            if value(combination, space.sizes(point)) != counts.get(key, 0):
                raise self._wrong_at(point, counts.get(key, 0))
        if len(points) <= used:
            raise NoFitError(
                f"a formula that fits takes {used} points, and no other is left to check it on: give more sizes."
            )
        return len(points) - used

    def _draw_in_cases(self, combination: Combination) -> None:
        """Count points on both sides of where a formula of several sizes changes, as far as there are any."""
        space = self.space
        if len(self.domains) < 2:
            return
        changes = {a for product in combination for a, _ in product if a.kind in ("min", "above", "capped")}
        for atom in sorted(changes, key=repr):
            for above in (False, True):
                there = [p for p, _ in space.within(space.names) if atom.is_above(space.sizes(p)) == above]
                wanted = max(2 * HELD_OUT, len(combination)) - sum(space.is_off_lines(point) for point in there)
                for _ in range(2 * wanted):
                    point = space.unlike(partial(_is_on_side, atom, above))
                    if wanted <= 0 or point is None:
                        break
                    wanted -= space.count(point) is not None

    def _draw(self) -> None:
        """Count points to check formulas on: the largest, and some at random; all sizes of a list that stands alone."""
        space = self.space
        if self._drawn:
            return
        if len(self.domains) == 1 and self.domains[0].listed and len(self.domains[0]) <= _ALL_LISTED:
            for size in self.domains[0].sizes:
                space.count((size,))
        last = tuple(domain.last for domain in self.domains)
        if self.at_the_end and space.count(last) is not None:
            self._drawn.append(last)
        while len(self._drawn) < HELD_OUT and (point := space.unlike()) is not None:
            if space.count(point) is not None:
                self._drawn.append(point)
        self._drawn = self._drawn or [last]

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
            self._with_one[name] = Recovery(self.measure, rest, {**self.given, name: 1})
        there = self._with_one[name]
        some = there.some(key)
        if all(formula.value(sizes) == count for sizes, count in some):
            return Formula(formula.pieces, formula.runs, formula.held_out + len(some))
        found = there.outcome(key)
        if not isinstance(found, Formula):
            raise NoFitError(f"at {name} = 1, {found.reason}")
        return with_one(formula, name, found)

    def some(self, key: Hashable) -> list[tuple[Sizes, int]]:
        """Counts at some points; none where the model fails."""
        space = self.space
        if not space.anchors and not space.find_anchor(must=False):
            return []
        for point in space.random(space.names):
            if len(space.counted) >= HELD_OUT:
                break
            space.count(point)
        return [(space.sizes(point), counts.get(key, 0)) for point, counts in space.counted.items()]


def _is_on_side(atom: Atom, above: bool, sizes: Sizes) -> bool:
    """Whether a size is above a bound, or is not."""
    return atom.is_above(sizes) == above
