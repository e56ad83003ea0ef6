"""Labels of points that do not lie on each other, on other points or outside: the most important first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Where a label may stand beside its point, as directions, best first: right, left, above, below, then diagonals.
_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
#: How far from the rim of its point, in the unit of the boxes; beyond the first a line leads to the point.
_DISTANCES = (3.0, 12.0, 24.0, 40.0, 60.0)


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

    def touches(self, disc: Disc) -> bool:
        x = min(max(disc.x, self.left), self.right)
        y = min(max(disc.y, self.bottom), self.top)
        return math.hypot(disc.x - x, disc.y - y) < disc.radius


@dataclass(frozen=True, slots=True)
class Disc:
    """A point as it is drawn, in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label stands, and whether it is so far off that a line has to lead to its point."""

    box: Box
    leads: bool


def place(
    sizes: Sequence[tuple[float, float]],
    discs: Sequence[Disc],
    inside: Box,
    taken: Sequence[Box],
    crossed: Sequence[tuple[float, float]],
    scale: float,
) -> list[Place | None]:
    """A place for each label (``sizes``: width and height) beside the disc of its index, or None for no room.

    No label overlaps another, a disc (those without a label come last in ``discs``), a box in ``taken`` or the
    edge of ``inside``. Of what is left the nearest place is taken that covers fewest of the points in
    ``crossed``, which lie along lines. ``scale`` is pixels per unit of the distances.
    """
    found: list[Place | None] = []
    boxes = list(taken)
    for size, disc in zip(sizes, discs, strict=False):
        best: Place | None = None
        least = math.inf
        for rank, candidate in enumerate(_candidates(disc, size, scale)):
            box = candidate.box
            if not inside.holds(box) or any(box.overlaps(other) for other in boxes):
                continue
            if any(box.touches(other) for other in discs):
                continue
            cost = rank + 6 * sum(box.left < x < box.right and box.bottom < y < box.top for x, y in crossed)
            if cost < least:
                best, least = candidate, cost
        found.append(best)
        if best is not None:
            boxes.append(best.box)
    return found


def _candidates(disc: Disc, size: tuple[float, float], scale: float) -> Iterator[Place]:
    width, height = size
    for distance in _DISTANCES:
        for dx, dy in _DIRECTIONS:
            off = (disc.radius + distance * scale) / math.hypot(dx, dy)
            x, y = disc.x + dx * off, disc.y + dy * off
            left = x - width * (1 - dx) / 2
            bottom = y - height * (1 - dy) / 2
            yield Place(Box(left, bottom, left + width, bottom + height), distance > _DISTANCES[0])
