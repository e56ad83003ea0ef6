"""Costs and times as short lists, for the tables of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attnprof.core.cost import ZERO, Cost
from attnprof.core.roofline import Attainable
from attnprof.reports.html.embedding import Json

#: No time at all.
NO_TIME = Attainable()


def cost(value: Cost) -> list[int]:
    """Matmul FLOPs, vector FLOPs, useful matmul FLOPs, bytes read, bytes written."""
    return [
        value.matmul_flops,
        value.vector_flops,
        value.useful_matmul_flops,
        value.read_bytes,
        value.write_bytes,
    ]


def costs(rows: Iterable[Mapping[str, Cost]], phases: Sequence[str]) -> dict[str, Json]:
    """By phase, a column for each number of :func:`cost`, a value per row."""
    found = list(rows)
    return {phase: _columns([cost(row.get(phase, ZERO)) for row in found], 5) for phase in phases}


def time(value: Attainable) -> list[float]:
    """Seconds bound by compute, by memory and by launches."""
    return [value.compute_s, value.memory_s, value.launch_s]


def times(rows: Iterable[Attainable]) -> Json:
    """A column for each number of :func:`time`, a value per row."""
    return _columns([time(row) for row in rows], 3)


def _columns(rows: Sequence[Sequence[Json]], count: int) -> Json:
    return [[row[i] for row in rows] for i in range(count)]
