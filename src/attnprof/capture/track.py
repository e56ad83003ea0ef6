"""The way that the last bare step went, for the next one to follow: told by two numbers at each event of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from attnprof.capture.ways import END, Piece, Stretch, Way

#: In the place of a number of nodes: this call goes on with the segment of the one before.
_WITHIN = -1
number_of_nodes = torch._C._autograd._get_sequence_nr


class Track:
    """A way whose segments were all counted, and how far a step has followed it."""

    __slots__ = ("_at", "_events", "_first_node", "_stretches", "pieces", "way")

    def __init__(self, way: Way, pieces: Sequence[Piece], stretches: Sequence[Stretch]) -> None:
        self.way, self.pieces, self._stretches = way, pieces, stretches
        self._events: list[tuple[int, int | None]] = []  # its number, and how many nodes the segment before made
        before: int | None = None
        for segment, _, nodes in stretches:
            self._events += [(segment[0], before), *((number, _WITHIN) for number in segment[1:])]
            before = nodes
        self._events.append((END, before))
        self._at = self._first_node = 0

    @classmethod
    def of(cls, way: Way, lead: Piece | None) -> Track | None:
        """None where something of it was not counted; ``lead`` is what comes before its first event."""
        ways = way.to_here()
        pieces = [lead, *(one.piece for one in ways)]
        counted = [piece for piece in pieces if piece is not None]
        whole = len(counted) == len(pieces) and all(one.stretch[0] for one in ways)
        return cls(way, counted, [one.stretch for one in ways]) if whole else None

    def restart(self) -> None:
        """A step begins."""
        self._at = 0

    def goes_on(self, number: int) -> bool:
        """An event of a step, by number, or its end: whether it is what comes next here, after as many nodes."""
        expected, nodes = self._events[self._at]
        if number != expected:
            return False
        if nodes != _WITHIN:
            now = number_of_nodes()
            if nodes is not None and nodes != now - self._first_node:
                return False
            self._first_node = now
        self._at += 1
        return True

    def so_far(self) -> tuple[list[Stretch], list[int], int]:
        """What a step has gone: whole stretches, the segment that it is in, and the number of that one's first node."""
        numbers = [number for number, _ in self._events[: self._at]]
        ended: list[Stretch] = []
        for stretch in self._stretches:
            if len(numbers) <= len(stretch[0]):
                break
            ended.append(stretch)
            del numbers[: len(stretch[0])]
        return ended, numbers, self._first_node if numbers else number_of_nodes()
