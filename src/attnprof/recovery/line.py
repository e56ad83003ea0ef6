"""How counts depend on one size, the others fixed: the functions of it that they are a sum of.

Polynomials come first; then inverse powers, logarithms, pieces between breakpoints, rounded quotients. What fits
has to fit at more points than it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from fractions import Fraction

from attnprof.recovery.atoms import ONE, Atom, Bound, Monomial
from attnprof.recovery.families import (
    DEGREE,
    VALUES,
    broken,
    inverses,
    logarithmic,
    polynomials,
    quotients,
    rounded,
    sparse,
    under,
)
from attnprof.recovery.fitting import Combination, fit, might_fit, value
from attnprof.recovery.outcome import Sizes
from attnprof.recovery.pieces import pieces
from attnprof.recovery.space import Point, Space

#: Points of a line to begin with, and when no polynomial fits.
_FEW, _MORE = 6, 16
#: Terms of which there may be no simpler sum, so that no other family is asked.
_SIMPLE = 3


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
        found = self._fit(polynomials(self.name), key)
        if found is None and not plain:
            self.pick(_MORE)
            found = self._fit(polynomials(self.name), key)
        if found is None and len(self.known()) < DEGREE + 3:
            found = self._fit(sparse(self.name), key)
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
        return self._fit(inverses(self.name), key) or self._fit(logarithmic(self.name), key)

    def _quotients_by(self, key: Hashable) -> Combination | None:
        sizes = [self._sizes(size) for size in self.known()]
        return self._fit(under(self.name, self.space.names, sizes), key)

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
        found = pieces(there, self.known(), lambda size: self.count(size, key), self._between)
        return None if found is None else self._fit(broken(self.name, found, self._bounds), key)

    def _between(self, low: int, high: int) -> list[int]:
        """Sizes between two, evenly spread where there are many."""
        return self.space.between(self.name, self.anchor, low, high)

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
                if (found := self._fit(iter([quotients(self.name, atom, shape)]), key)) is not None:
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
        for atom in rounded(self.name, self.space.names, self.anchor):
            column = [(sizes[self.name], int(atom.at(sizes))) for sizes, _ in points]
            if len({rounded for _, rounded in column}) < VALUES:
                continue  # as good as a step
            rows = [[1, x, r] if shape == 0 else [1, x, x * x, r, r * r, x * r] for x, r in column]
            if might_fit(rows, counts) and (found := fit(quotients(self.name, atom, shape), points, 2)) is not None:
                fitting.append((atom, found))
        there = self.space.line(self.name, self.anchor)
        while len(fitting) > 1:
            size = _dividing([found for _, found in fitting], there, self.anchor, self.name)
            if size is None:
                return min(fitting, key=_simple_first)  # at the sizes there are they are all the same
            there.remove(size)
            count = self.count(size, key)
            if count is not None:
                sizes = {**self.anchor, self.name: size}
                fitting = [(atom, found) for atom, found in fitting if value(found, sizes) == count]
        return fitting[0] if fitting else None


def _dividing(fitting: Sequence[Combination], there: Sequence[int], anchor: Sizes, name: str) -> int | None:
    """A size at which they are not all the same, if there is one."""
    for size in there:
        sizes = {**anchor, name: size}
        first = value(fitting[0], sizes)
        if any(value(other, sizes) != first for other in fitting[1:]):
            return size
    return None


def _simple_first(fitting: tuple[Atom, Combination]) -> tuple[bool, bool, int, int, str]:
    """With other sizes, ceil as along those; else few terms, and coefficients that are short to write."""
    atom, found = fitting
    by_size = bool(atom.bound.names)
    terms = 0 if by_size else len(found)
    return not by_size, by_size and atom.kind != "ceil", terms, sum(len(str(c)) for c in found.values()), repr(atom)


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
