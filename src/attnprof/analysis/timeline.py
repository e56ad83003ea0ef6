"""The live bytes of a run over time, by kind."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

from attnprof.core.memory import KINDS, MemoryTrace


@dataclass(frozen=True, slots=True)
class Point:
    """What was live while op call ``event`` ran, at its most; kinds with nothing live are left out."""

    event: int
    by_kind: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.by_kind.values())


class Timeline(Sequence[Point]):
    """One point for each op call at which storages came or went; between points nothing changes.

    What comes and goes between two op calls is told at the second. The last point can be after the last op.
    Points are in order of time; where threads took turns (not ``in_order``), the numbers of their op calls
    are not.
    """

    def __init__(self, memory: MemoryTrace) -> None:
        self.events: list[int] = []
        self.totals: list[int] = []
        self._columns: list[list[int]] = [[] for _ in KINDS]
        self._fill(memory)
        self._by_event = sorted(range(len(self)), key=self.events.__getitem__)
        self.in_order = all(before <= after for before, after in pairwise(self.events))

    def _fill(self, memory: MemoryTrace) -> None:
        sizes, kinds = memory.block_bytes, memory.block_kinds
        live, total = [0] * len(KINDS), 0
        most: tuple[int, list[int]] | None = None  # of the event at hand, after something came to life
        last = len(memory.log) - 1
        for i, (entry, at) in enumerate(zip(memory.log, memory.log_at, strict=True)):
            if entry >= 0:
                live[kinds[entry]] += sizes[entry]
                total += sizes[entry]
                if most is None or total > most[0]:
                    most = total, live.copy()
            else:
                live[kinds[~entry]] -= sizes[~entry]
                total -= sizes[~entry]
            if i == last or memory.log_at[i + 1] != at:
                self._add(at, *(most or (total, live)))
                most = None

    def _add(self, event: int, total: int, live: list[int]) -> None:
        self.events.append(event)
        self.totals.append(total)
        for column, size in zip(self._columns, live, strict=True):
            column.append(size)

    def at(self, event: int) -> Point:
        """What was live while op call ``event`` ran."""
        found = bisect_right(self._by_event, event, key=self.events.__getitem__) - 1
        return Point(event, self[self._by_event[found]].by_kind if found >= 0 else {})

    def of(self, kind: str) -> list[int]:
        """The live bytes of one kind at every point."""
        return self._columns[KINDS.index(kind)]

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        live = {kind: column[index] for kind, column in zip(KINDS, self._columns, strict=True)}
        return Point(self.events[index], {kind: size for kind, size in live.items() if size})
