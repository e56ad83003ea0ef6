"""How counts depend on one size, the others fixed: the functions of it that they are a sum of.

Polynomials come first; then inverse powers, logarithms, pieces between breakpoints, rounded quotients. What fits
has to fit at more points than it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from fractions import Fraction

from attnprof.recovery.atoms import ONE, Atom, Bound, Kind, Monomial, lesser, monomial, of, step, times
from attnprof.recovery.fitting import Combination, fit, might_fit, value
from attnprof.recovery.outcome import Sizes
from attnprof.recovery.pieces import Pieces, pieces
from attnprof.recovery.space import Point, Space

DEGREE = 4
#: Points of a line to begin with, and when no polynomial fits.
_FEW, _MORE = 6, 16
#: Divisors of rounded quotients that are tried, and those that are tried with every shift.
_DIVISORS, _SHIFTED = 1024, 16
#: Terms of which there may be no simpler sum, so that no other family is asked.
_SIMPLE = 3
#: Values that a rounded quotient has to have at the points: of fewer, it is a step that pieces tell better.
_VALUES = 4
_LOGARITHMS: tuple[Kind, ...] = ("ceil_log2", "floor_log2", "power_of_two", "ones")


class Line:
    """The points along one size, and the counts there."""

    def __init__(self, space: Space, name: str, anchor: Point) -> None:
        self.space, self.name, self.anchor = space, name, space.sizes(anchor)
        self.alone = len(space.names) == 1
        self._divided: list[Atom] = []  # rounded quotients that were found

    def pick(self, many: int = _FEW) -> list[int]:
        """Sizes that were counted: at least so many where there are as many, spread, even and odd."""
        for _ in range(8):
            known = self.known()
            there = self.space.line(self.name, self.anchor)
            if len(known) >= min(many, len(there)):
                break
            for size in _spread(there, many, known):
                self.count(size, None)
        return self.known()

    def known(self) -> list[int]:
        """The sizes that were counted, 1 left out."""
        space = self.space
        at = space.names.index(self.name)
        found = (point for point, _ in space.on_line(self.name, self.anchor))
        return sorted(point[at] for point in found if point[at] > 1)

    def count(self, size: int, key: Hashable) -> int | None:
        """The count at a size, which is run if it was not; None where the model fails."""
        counts = self.space.count(self.space.point(self._sizes(size)))
        return None if counts is None else counts.get(key, 0)

    def points(self, key: Hashable) -> list[tuple[dict[str, int], int]]:
        """What is known, as sizes and counts."""
        return [(self._sizes(size), self.count(size, key) or 0) for size in self.known()]

    def _sizes(self, size: int) -> dict[str, int]:
        return {**self.anchor, self.name: size}

    def basis(self, key: Hashable, plain: bool = False) -> list[Monomial] | None:
        """The functions of the size that the count is a sum of; None if nothing of the stated basis fits.

        ``plain``: polynomials alone are tried.
        """
        self.pick(_FEW)
        found = self._fit(_polynomials(self.name), key)
        if found is None and not plain:
            self.pick(_MORE)
            found = self._fit(_polynomials(self.name), key)
        if found is not None:
            return list(found) or [ONE]
        for family in (self._smooth, self._quotients_by, self._divided_by, self._by_pieces):
            if not plain and (found is None or len(found) > _SIMPLE):
                other = self._confirmed(family, key)
                found = other if found is None or (other is not None and len(other) < len(found)) else found
        return None if found is None else list(found) or [ONE]

    def _confirmed(self, family: Callable[[Hashable], Combination | None], key: Hashable) -> Combination | None:
        """What a family finds, if it is right at sizes that are counted to see that; else it is asked once more."""
        for _ in range(2):
            found = family(key)
            if found is None:
                return None
            there = [size for size in self.space.line(self.name, self.anchor) if size not in self.known()]
            draw = self.space.draw
            fresh = [there[int(len(there) ** draw.random()) - 1] for _ in range(2) if there]  # small ones, mostly
            fresh += draw.sample(there, min(2, len(there)))
            counts = [(size, self.count(size, key)) for size in fresh]
            if all(count is None or value(found, self._sizes(size)) == count for size, count in counts):
                return found
        return None

    def _smooth(self, key: Hashable) -> Combination | None:
        return self._fit(_inverses(self.name), key) or self._fit(_logarithmic(self.name), key)

    def _quotients_by(self, key: Hashable) -> Combination | None:
        sizes = [self._sizes(size) for size in self.known()]
        return self._fit(_under(self.name, self.space.names, sizes), key)

    def _fit(self, bases: Iterator[list[Monomial]], key: Hashable) -> Combination | None:
        points = self.points(key)
        spare = self._spare(len(points))
        for basis in bases:
            found = fit(basis, points, spare)
            if found is not None:
                return found or {ONE: Fraction(0)}
        return None

    def _spare(self, known: int) -> int:
        """Points to check on; along one of several sizes whose domain is small, other points will do that."""
        return 2 if self.alone or known >= 5 else max(min(2, known - 2), 0)

    def _by_pieces(self, key: Hashable) -> Combination | None:
        there = self.space.line(self.name, self.anchor)
        found = pieces(there, self.known(), lambda size: self.count(size, key))
        return None if found is None else self._fit(_broken(self.name, found, self._bounds), key)

    def _bounds(self, last: Fraction) -> Iterator[Bound]:
        """What a break after this size may be a break at: other sizes, if they are that, else the number."""
        anchor, others = self.anchor, [name for name in self.space.names if name != self.name]
        for offset in (0, -1, 1):
            for name in others:
                for factor in (Fraction(1), Fraction(2), Fraction(1, 2)):
                    bound = Bound(factor, (name,), offset)
                    if bound.at(anchor) == last:
                        yield bound
        yield Bound(Fraction(last))

    def _divided_by(self, key: Hashable) -> Combination | None:
        """With rounded quotients: every divisor is tried, and points are added until one alone is left."""
        for shape in (0, 1):
            for atom in self._divided:
                if (found := self._fit(iter([_quotients(self.name, atom, shape)]), key)) is not None:
                    return found
        for shape in (0, 1):
            left = self._only(shape, key)
            if left is not None:
                self._divided.append(left[0])
                return left[1]
        return None

    def _only(self, shape: int, key: Hashable) -> tuple[Atom, Combination] | None:
        points = self.points(key)
        counts = [count for _, count in points]
        fitting: list[tuple[Atom, Combination]] = []
        for atom in _rounded(self.name, self.space.names, self.anchor):
            column = [(sizes[self.name], int(atom.at(sizes))) for sizes, _ in points]
            if len({rounded for _, rounded in column}) < _VALUES:
                continue  # as good as a step
            rows = [[1, x, r] if shape == 0 else [1, x, x * x, r, r * r, x * r] for x, r in column]
            if might_fit(rows, counts) and (found := fit(_quotients(self.name, atom, shape), points, 2)) is not None:
                fitting.append((atom, found))
        there = self.space.line(self.name, self.anchor)
        while len(fitting) > 1:
            size = _dividing(fitting, there, self.anchor, self.name)
            if size is None:
                break
            there.remove(size)
            count = self.count(size, key)
            if count is not None:
                sizes = {**self.anchor, self.name: size}
                fitting = [(atom, found) for atom, found in fitting if value(found, sizes) == count]
        return fitting[0] if fitting else None


def _dividing(
    fitting: Sequence[tuple[Atom, Combination]], there: Sequence[int], anchor: Sizes, name: str
) -> int | None:
    """A size at which the first two differ, if there is one."""
    (_, first), (_, second) = fitting[:2]
    for size in there:
        sizes = {**anchor, name: size}
        if value(first, sizes) != value(second, sizes):
            return size
    return None


def _polynomials(name: str) -> Iterator[list[Monomial]]:
    for degree in range(DEGREE + 1):
        yield [of(name, power) for power in range(degree + 1)]


def _inverses(name: str) -> Iterator[list[Monomial]]:
    for lowest, highest in ((-1, 0), (-1, 1), (-1, 2), (-2, 1), (-2, 2)):
        yield [of(name, power) for power in range(lowest, highest + 1)]


def _logarithmic(name: str) -> Iterator[list[Monomial]]:
    for degree in (1, 2):
        plain = [of(name, power) for power in range(degree + 1)]
        for kind in _LOGARITHMS:
            atom = monomial({Atom(kind, name): 1})
            yield [*plain, *(times(power, atom) for power in plain)]
        for one, other in (("ceil_log2", "power_of_two"), ("floor_log2", "ones"), ("ceil_log2", "floor_log2")):
            atoms = [monomial({Atom(kind, name): 1}) for kind in (one, other)]  # type: ignore[arg-type]
            yield [*plain, *atoms, *(times(of(name, 1), atom) for atom in atoms)]
    binary = [Atom(kind, name) for kind in _LOGARITHMS] + [Atom("ceil", name, Bound(Fraction(2)))]
    yield [of(name, 0), of(name, 1), *(monomial({atom: 1}) for atom in binary)]


def _under(name: str, names: Sequence[str], points: Sequence[Sizes]) -> Iterator[list[Monomial]]:
    """Rounded quotients of other sizes by this one, those that are no better than a few steps left out."""
    plain = [of(name, power) for power in range(3)]
    for other in names:
        for kind in ("ceil", "floor"):
            atom = Atom(kind, other, Bound(names=(name,)))
            if other != name and len({atom.at(sizes) for sizes in points}) >= _VALUES:
                quotient = monomial({atom: 1})
                single = [*plain, *(times(power, quotient) for power in plain)]
                yield single
                yield [*single, *(times(power, times(quotient, quotient)) for power in plain)]
                low = monomial({lesser(name, Bound(names=(other,))): 1})
                lows = [ONE, low, times(low, low)]
                yield [*lows, *(times(power, quotient) for power in lows)]


def _rounded(name: str, names: Sequence[str], anchor: Sizes) -> Iterator[Atom]:
    """Quotients of the size, by other sizes first."""
    others = [Bound(Fraction(1), (other,)) for other in names if other != name]
    for bound in others:
        yield Atom("ceil", name, bound)
        yield Atom("floor", name, bound)
    for divisor in range(2, _DIVISORS + 1):
        bound = Bound(Fraction(divisor))
        if any(other.at(anchor) == divisor for other in others):
            continue
        yield Atom("ceil", name, bound)
        yield Atom("floor", name, bound)
        for shift in range(1, divisor - 1) if divisor <= _SHIFTED else ():
            yield Atom("floor", name, bound, shift)


def _quotients(name: str, atom: Atom, shape: int) -> list[Monomial]:
    x, rounded = of(name, 1), monomial({atom: 1})
    if shape == 0:
        return [ONE, x, rounded]
    return [ONE, x, of(name, 2), rounded, times(rounded, rounded), times(x, rounded)]


def _broken(name: str, found: Pieces, bounds: Callable[[Fraction], Iterator[Bound]]) -> Iterator[list[Monomial]]:
    """Bases of polynomials that change at the breaks: with min(T, w) where nothing jumps there, else with steps."""
    plain = [of(name, power) for power in range(max(found.degree, 1) + 1)]
    options: list[list[list[Monomial]]] = []
    for last, meets in found.breaks:
        ways: list[list[Monomial]] = []
        for at in meets:
            for bound in bounds(at):
                low = monomial({lesser(name, bound): 1})
                ways.append([times(low, power) for power in plain[:-1]])
        for bound in bounds(Fraction(last)):
            above = monomial({step(name, bound): 1})
            ways.append([times(above, power) for power in plain])
        options.append(ways)
    firsts = [ways[0] for ways in options]
    yield plain + [product for way in firsts for product in way]
    if len(options) == 1:
        for way in options[0][1:]:
            yield plain + way
    else:
        yield plain + [product for ways in options for product in ways[-1]]


def _spread(there: Sequence[int], many: int, known: Sequence[int]) -> list[int]:
    """Sizes to add to those that are known: the ends, and what lies between them in even ratios, odd ones too."""
    if not there:
        return []
    low, high = there[0], there[-1]
    taken = {*known}
    found: list[int] = []
    left = [size for size in there if size not in taken]
    wanted = max(many - len(taken), 1)
    targets = [low, high, *(low * (high / low) ** (i / (wanted + 1)) for i in range(1, wanted + 1))]
    for i, target in enumerate(targets):
        if len(found) == wanted or not left:
            break
        if target in taken:
            continue
        nearest = min(left, key=lambda size: (abs(size - target), size))
        if i % 2 and nearest + 1 in left and nearest != high:
            nearest += 1
        found.append(nearest)
        taken.add(nearest)
        left.remove(nearest)
    return found
