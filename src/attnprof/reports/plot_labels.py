"""Labels of points that do not lie on each other, on other points or outside: the most important first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Where a label may stand around its point, in degrees from the right, best first.
_ANGLES = (0, 45, 315, 90, 270, 22, 338, 68, 292, 112, 248, 135, 225, 158, 202, 180)
#: How far from the rim of its point, in points; beyond the first a line leads to the point.
_DISTANCES = (3.0, 14.0, 26.0, 40.0, 56.0, 76.0, 100.0, 130.0)
#: What it costs to cover a bit of a guide, to lead along a bit of a line, and to lead over another point, in
#: places that are tried before.
_COVERS, _FOLLOWS, _PASSES = 2, 8, 30
#: What a label costs that has no place, and so the most that a place may cost.
_MISSING = 600.0
_ROUNDS = 12
#: A leader near more bits of a line than these does not cross the line, but runs along it.
_CROSSING = 6


Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )

    def has(self, x: float, y: float) -> bool:
        return self.left < x < self.right and self.bottom < y < self.top

    def crossed_by(self, start: Point, end: Point) -> bool:
        """Whether a straight line from one point to another goes through here."""
        enter, leave = 0.0, 1.0
        for near, far, low, high in (
            (start[0], end[0], self.left, self.right),
            (start[1], end[1], self.bottom, self.top),
        ):
            if near == far:
                if not low < near < high:
                    return False
                continue
            first, last = sorted(((low - near) / (far - near), (high - near) / (far - near)))
            enter, leave = max(enter, first), min(leave, last)
        return enter < leave

    def nearest(self, x: float, y: float) -> Point:
        """The point of the rectangle that is nearest."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    def touches(self, disc: Disc) -> bool:
        x, y = self.nearest(disc.x, disc.y)
        return math.hypot(disc.x - x, disc.y - y) < disc.radius


@dataclass(frozen=True, slots=True)
class Disc:
    """A point as it is drawn, in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label stands, and the line from its point, which it needs when it is not beside it."""

    box: Box
    leader: tuple[Point, Point] | None = None


def place(
    sizes: Sequence[tuple[float, float]],
    discs: Sequence[Disc],
    inside: Box,
    taken: Sequence[Box],
    lines: Sequence[Point],
    guides: Sequence[Point],
    scale: float,
) -> list[Place | None]:
    """A place for each label (``sizes``: width and height) beside the disc of its index, or None for no room.

    The first labels matter most. No label or leader overlaps another, and no label a disc (those without a label
    come last in ``discs``), a box in ``taken``, a point of ``lines`` or the edge of ``inside``. Of what is left the
    nearest places are taken that cover fewest points of ``guides``, and whose leaders follow no line and cross
    fewest discs. ``scale`` is pixels per point.
    """
    scene = _Scene(discs, inside, taken, lines, guides, scale)
    order = list(range(len(sizes)))
    best: list[Place | None] = [None] * len(sizes)
    least = math.inf
    for _ in range(_ROUNDS):
        found, costs = scene.fill(sizes, order)
        total = sum(cost / (1 + rank) for rank, cost in enumerate(costs))
        if total < least:
            best, least = found, total
        order.sort(key=lambda index: -costs[index])  # those that came off worst choose first in the next round
    return best


@dataclass(frozen=True, slots=True)
class _Scene:
    """What labels have to keep clear of."""

    discs: Sequence[Disc]
    inside: Box
    taken: Sequence[Box]
    lines: Sequence[Point]
    guides: Sequence[Point]
    scale: float

    def fill(
        self, sizes: Sequence[tuple[float, float]], order: Sequence[int]
    ) -> tuple[list[Place | None], list[float]]:
        """The labels placed one after the other, each as well as is still possible, and what each place costs."""
        found: list[Place | None] = [None] * len(sizes)
        costs = [_MISSING] * len(sizes)
        boxes = list(self.taken)
        leaders: list[tuple[Point, Point]] = []
        for index in order:
            for rank, place in enumerate(_candidates(self.discs[index], sizes[index], self.scale)):
                if rank >= costs[index]:
                    break
                if self._is_free(place, boxes, leaders) and (cost := rank + self._cost(place, index)) < costs[index]:
                    found[index], costs[index] = place, cost
            if (chosen := found[index]) is not None:
                boxes.append(chosen.box)
                leaders += [chosen.leader] if chosen.leader else []
        return found, costs

    def _is_free(self, place: Place, boxes: Sequence[Box], leaders: Sequence[tuple[Point, Point]]) -> bool:
        box, leader = place.box, place.leader
        return (
            self.inside.holds(box)
            and not any(box.overlaps(other) for other in boxes)
            and not any(box.touches(disc) for disc in self.discs)
            and not any(box.crossed_by(*other) for other in leaders)
            and not (leader and any(other.crossed_by(*leader) for other in boxes))
            and not any(box.has(*point) for point in self.lines)
        )

    def _cost(self, place: Place, index: int) -> float:
        cost: float = _COVERS * sum(place.box.has(*point) for point in self.guides)
        if place.leader:
            near = sum(_is_near(point, place.leader, self.scale) for point in (*self.lines, *self.guides))
            cost += _FOLLOWS * near if near <= _CROSSING else _MISSING
            others = (disc for other, disc in enumerate(self.discs) if other != index)
            cost += _PASSES * sum(_square(disc).crossed_by(*place.leader) for disc in others)
        return cost


def _candidates(disc: Disc, size: tuple[float, float], scale: float) -> Iterator[Place]:
    width, height = size
    for distance in _DISTANCES:
        for angle in _ANGLES:
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            off = disc.radius + distance * scale
            x, y = disc.x + dx * off, disc.y + dy * off
            left = x - width * (1 - dx) / 2
            bottom = y - height * (1 - dy) / 2
            box = Box(left, bottom, left + width, bottom + height)
            yield Place(box, _leader(disc, box) if distance > _DISTANCES[0] else None)


def _leader(disc: Disc, box: Box) -> tuple[Point, Point]:
    """From the rim of a point to the nearest edge of its label."""
    x, y = box.nearest(disc.x, disc.y)
    length = math.hypot(x - disc.x, y - disc.y) or 1.0
    part = disc.radius / length
    return (disc.x + (x - disc.x) * part, disc.y + (y - disc.y) * part), (x, y)


def _is_near(point: Point, line: tuple[Point, Point], scale: float) -> bool:
    """Whether a point is so near a straight line that the two could be taken for one."""
    (x0, y0), (x1, y1) = line
    long = math.hypot(x1 - x0, y1 - y0) or 1.0
    along = ((point[0] - x0) * (x1 - x0) + (point[1] - y0) * (y1 - y0)) / long
    aside = ((point[0] - x0) * (y1 - y0) - (point[1] - y0) * (x1 - x0)) / long
    return 0 <= along <= long and abs(aside) < 1.5 * scale


def _square(disc: Disc) -> Box:
    """The square inside a disc."""
    half = disc.radius * math.sqrt(0.5)
    return Box(disc.x - half, disc.y - half, disc.x + half, disc.y + half)
