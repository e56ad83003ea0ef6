"""Points that formulas are checked on: counted for that alone, where a wrong formula would show most likely.

Corners, since what begins above or below some sizes has begun in one of them; powers of two, multiples of 64 and odd
sizes, since kernels tell these apart; sizes in the widest gaps between those counted; and some at random.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

from attnprof.recovery.atoms import Atom
from attnprof.recovery.domain import Domain
from attnprof.recovery.fitting import Combination
from attnprof.recovery.outcome import Sizes
from attnprof.recovery.space import Point, Space

#: Points drawn at random; sizes of one list, and points of several, that are all counted.
HELD_OUT, _ALL_LISTED, _ALL_TOGETHER = 4, 64, 32
#: Sizes next to the one that is wanted that are tried, and points of them.
_NEAR, _POINTS = 8, 500


@dataclass
class Checks:
    """Draws points of a space to hold formulas against.

    ``at_the_end``: sizes may be at their largest all at once.
    """

    space: Space
    at_the_end: bool = True
    drawn: list[Point] = field(default_factory=list)

    @property
    def domains(self) -> Sequence[Domain]:
        return self.space.domains

    def draw(self) -> None:
        """Count the points, once; all there are of short lists."""
        if self.drawn:
            return
        space = self.space
        if self._is_listed():
            for point in itertools.product(*(domain.sizes for domain in self.domains)):
                space.count(point)
        wanted = itertools.chain(self._corners(), self._between())
        for point in wanted:
            if space.count(point) is not None:
                self.drawn.append(point)
        most = len(self.drawn) + HELD_OUT
        while len(self.drawn) < most and (unlike := space.unlike()) is not None:
            if space.count(unlike) is not None:
                self.drawn.append(unlike)
        self.drawn = self.drawn or [tuple(domain.last for domain in self.domains)]

    def _is_listed(self) -> bool:
        """Whether sizes are listed, and so few that all are counted."""
        most = _ALL_LISTED if len(self.domains) == 1 else _ALL_TOGETHER
        return all(domain.listed for domain in self.domains) and prod(map(len, self.domains)) <= most

    def in_cases(self, combination: Combination) -> None:
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

    def ends(self) -> Iterator[Point]:
        """Where all sizes are among their smallest, and where all are among their largest."""
        yield from self._corner([0] * len(self.domains))
        if self.at_the_end:
            yield from self._corner([1] * len(self.domains))

    def ones(self) -> Iterator[Point]:
        """Points with a size of 1, for each symbol that may be 1, and with all of them, the others as in the anchor."""
        anchor = self.space.anchors[0]
        may = [i for i, domain in enumerate(self.domains) if domain.first == 1]
        for those in (*([i] for i in may), *([may] if len(may) > 1 else [])):
            yield tuple(1 if i in those else size for i, size in enumerate(anchor))

    def _corners(self) -> Iterator[Point]:
        """Points with each size among its smallest or its largest."""
        many = len(self.domains)
        signs = sorted({tuple((i & mask).bit_count() % 2 for mask in _masks(many)) for i in range(8)}, key=sum)
        for sign in reversed(signs):
            if not self.at_the_end and sum(sign) > 1:
                continue
            yield from self._corner(sign)

    def _corner(self, sign: Sequence[int]) -> Iterator[Point]:
        ends = [
            [size for size in (domain.sizes[-_NEAR:][::-1] if up else domain.sizes[: _NEAR + 1]) if size > 1]
            for up, domain in zip(sign, self.domains, strict=True)
        ]
        yield from self._first_that_may(ends)

    def _between(self) -> Iterator[Point]:
        """Points of sizes in the widest gaps, of every kind: powers of two, multiples of 64, odd ones, any."""
        kinds = (*_KINDS, _is_any) if len(self.domains) > 1 else (*_KINDS, *[_is_any] * HELD_OUT)
        for kind in kinds:
            choices = [self._in_gap(i, kind) or self._in_gap(i, _is_any) for i in range(len(self.domains))]
            if any(kind(size) for choice in choices for size in choice):
                yield from self._first_that_may(choices)

    def _in_gap(self, at: int, kind: Callable[[int], bool]) -> list[int]:
        """Sizes of a kind in the widest gap between sizes of a symbol that were counted, or else near it."""
        sizes = [size for size in self.space.looked_at(at) if size > 1 and self.space.may_be(at, size)]
        known = sorted({point[at] for point in self.space.counted if point[at] > 1})
        pairs = [*itertools.pairwise(known)] or [(size, size) for size in known or sizes[:1]]
        if not pairs:
            return []
        low, high = max(pairs, key=lambda pair: pair[1] / pair[0] if pair[1] > pair[0] + 1 else 0)
        middle = (low * high) ** 0.5
        fresh = [size for size in sizes if kind(size) and size not in known]
        return sorted(fresh or [size for size in sizes if kind(size)], key=lambda size: abs(size - middle))[:_NEAR]

    def _first_that_may(self, choices: Sequence[Sequence[int]]) -> Iterator[Point]:
        """The first of all choices that was not counted and that the model is not known to fail at."""
        space = self.space
        most = max(2, round(_POINTS ** (1 / max(len(choices), 1))))
        few = [range(min(len(choice), most)) for choice in choices]
        for ranks in sorted(itertools.product(*few), key=sum):
            point = tuple(choice[rank] for choice, rank in zip(choices, ranks, strict=True))
            if point in space.counted:
                return
            if point not in space.failed and space.allows(point):
                yield point
                return


def _masks(many: int) -> list[int]:
    """So many columns of an array of eight rows in which any two (of four columns, any three) have all combinations."""
    columns = (1, 2, 4, 7, 3, 5, 6)
    return [columns[i % len(columns)] for i in range(many)]


def _is_any(size: int) -> bool:
    return True


def _is_power_of_two(size: int) -> bool:
    return size & (size - 1) == 0


def _is_multiple(size: int) -> bool:
    """Of 64, and no power of two."""
    return size % 64 == 0 and not _is_power_of_two(size)


def _is_odd(size: int) -> bool:
    return size % 2 == 1


_KINDS: tuple[Callable[[int], bool], ...] = (_is_power_of_two, _is_multiple, _is_odd)


def _is_on_side(atom: Atom, above: bool, sizes: Sizes) -> bool:
    """Whether a size is above a bound, or is not."""
    return atom.is_above(sizes) == above
