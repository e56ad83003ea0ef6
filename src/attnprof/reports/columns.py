"""The columns of a table: what each shows, under which heading, and which go first when space is short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnprof.core.cost import ZERO, Cost
from attnprof.core.roofline import Attainable
from attnprof.core.units import Units, align, durations, intensity, share

SHORT = {"forward": "fwd", "backward": "bwd", "recompute": "recomp", "optimizer": "optim", "other": "other"}


@dataclass(frozen=True, slots=True)
class Line:
    """The numbers of one row: calls and parameters (None: not applicable), costs by phase, saved bytes.

    ``time`` is the least on a device, ``fused_s`` that of one kernel; None where there is no device or kernel.
    """

    calls: int | None
    params: int | None
    costs: Mapping[str, Cost]
    saved: int = 0
    predicted: str = ""
    time: Attainable | None = None
    fused_s: float | None = None

    @property
    def total(self) -> Cost:
        return Cost.sum(self.costs.values())


@dataclass(frozen=True, slots=True)
class Column:
    """A heading of two lines and one cell per row, all of one width."""

    heading: tuple[str, str]
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        return max(map(len, (*self.heading, *self.cells[:1])))


class Columns:
    """Every column that a set of rows can have."""

    def __init__(self, lines: Sequence[Line], phases: Sequence[str], units: Units) -> None:
        self.lines = lines
        self.units = units
        self.totals = [line.total for line in lines]
        # A phase without matmul FLOPs in any row has no matmul column.
        self.phases = [p for p in phases if any(line.costs.get(p, ZERO).matmul_flops for line in lines)]

    @property
    def has_vector(self) -> bool:
        return any(cost.vector_flops for cost in self.totals)

    def calls(self) -> Column:
        return self._counts("calls", [line.calls for line in self.lines])

    def params(self) -> Column:
        return self._counts("params", [line.params for line in self.lines])

    @property
    def has_saved(self) -> bool:
        return any(line.saved for line in self.lines)

    def saved(self) -> Column:
        """Bytes that autograd kept for the backward."""
        return self._bytes("saved", [line.saved for line in self.lines])

    def matmul_by_phase(self) -> list[Column]:
        """Matmul FLOPs, one column per phase that has any."""
        return [self._matmul([line.costs.get(p, ZERO) for line in self.lines], SHORT[p]) for p in self.phases]

    def matmul(self) -> Column:
        return self._matmul(self.totals)

    def vector(self) -> Column:
        unit, cells = self.units.column([cost.vector_flops for cost in self.totals])
        return Column(("vector", unit), tuple(cells))

    def read(self) -> Column:
        return self._bytes("read", [cost.read_bytes for cost in self.totals])

    def written(self) -> Column:
        return self._bytes("written", [cost.write_bytes for cost in self.totals])

    def traffic(self) -> Column:
        return self._bytes("bytes", [cost.bytes for cost in self.totals])

    def intensity(self) -> Column:
        cells = align([intensity(cost.intensity) if cost.bytes else None for cost in self.totals])
        return Column(("", "FLOP/B"), tuple(cells))

    def share(self, whole: int) -> Column:
        """FLOPs of both kinds as per cent of ``whole``."""
        cells = align([share(cost.flops, whole) for cost in self.totals])
        return Column(("% of", "FLOPs"), tuple(cells))

    @property
    def has_times(self) -> bool:
        return any(line.time is not None for line in self.lines)

    def time(self) -> Column:
        """The least time on a device."""
        unit, cells = durations([None if line.time is None else line.time.seconds for line in self.lines])
        return Column(("at best", unit), tuple(cells))

    def fused(self) -> list[Column]:
        """The least time if each module were one kernel; no column where none is known."""
        times = [line.fused_s for line in self.lines]
        if not any(times):
            return []
        unit, cells = durations(times)
        return [Column(("fused", unit), tuple(cells))]

    def bound(self) -> Column:
        """What most of that time is spent on, and how much of it where that is not nearly all."""
        found = [line.time.bound if line.time else None for line in self.lines]
        parts = [
            round(100 * line.time.share(bound)) if line.time and bound else 100
            for line, bound in zip(self.lines, found, strict=True)
        ]
        tails = ["" if part == 100 else f" {part}%" for part in parts]
        words, wide = max(len(bound or "–") for bound in found), max(map(len, tails))
        cells = [f"{bound or '–':<{words}}{tail:>{wide}}" for bound, tail in zip(found, tails, strict=True)]
        return Column(("", "bound".ljust(words + wide)), tuple(cells))

    def time_share(self, whole: float) -> Column:
        """The time as per cent of ``whole``."""
        times = [None if line.time is None else line.time.seconds for line in self.lines]
        return Column(("% of", "time"), tuple(align([None if t is None else share(t, whole) for t in times])))

    def predicted(self, ops: bool = True) -> list[Column]:
        """What theory says of each row, with or without the ops that differ; no column where it says nothing."""
        cells = [line.predicted if ops else line.predicted.partition(" in")[0] for line in self.lines]
        wide = max(map(len, cells))
        return [Column(("", "predicted".ljust(wide)), tuple(cell.ljust(wide) for cell in cells))] if any(cells) else []

    def _matmul(self, costs: Sequence[Cost], phase: str = "") -> Column:
        unit, cells = self.units.column([cost.matmul_flops for cost in costs], "matmul")
        return Column(("matmul", f"{phase} {unit}".strip()), tuple(cells))

    def _bytes(self, name: str, values: Sequence[int]) -> Column:
        unit, cells = self.units.column(values, "bytes")
        return Column((name, unit), tuple(cells))

    def _counts(self, name: str, values: Sequence[int | None]) -> Column:
        unit, cells = self.units.column(values, "count")
        return Column((name, unit), tuple(cells))


#: How columns give way on a narrow terminal, one step after the other: which go, and which stand in for them.
_GIVING_WAY = (
    (("read", "written"), "bytes"),
    (("predicted",), "predicted, no ops"),
    (("calls",), ""),
    (("FLOP/B",), ""),
    (("predicted, no ops",), ""),
    (("saved",), ""),
    (("params",), ""),
    (("matmul by phase",), "matmul"),
    (("share",), ""),
    (("bytes",), ""),
    (("vector",), ""),
)
#: The same where there is a device: what it takes and why stays longest.
_GIVING_WAY_TIMED = (
    (("read", "written"), "bytes"),
    (("predicted",), "predicted, no ops"),
    (("calls",), ""),
    (("share",), ""),
    (("saved",), ""),
    (("vector",), ""),
    (("fused",), ""),
    (("matmul by phase",), "matmul"),
    (("params",), ""),
    (("predicted, no ops",), ""),
    (("FLOP/B",), ""),
    (("bytes",), ""),
    (("time share",), ""),
    (("matmul",), ""),
    (("bound",), ""),
)


def layouts(columns: Columns, whole: Line, *, params: bool, sort: str | None = None) -> list[list[Column]]:
    """Sets of columns, the fullest first; what the rows are sorted by is in all but the last.

    Shares are of ``whole``.
    """
    timed = columns.has_times
    every = {
        "calls": [columns.calls()],
        "params": [columns.params()] if params else [],
        "saved": [columns.saved()] if columns.has_saved else [],
        "matmul by phase": columns.matmul_by_phase(),
        "matmul": [columns.matmul()],
        "vector": [columns.vector()] if columns.has_vector else [],
        "read": [columns.read()],
        "written": [columns.written()],
        "bytes": [columns.traffic()],
        "FLOP/B": [columns.intensity()],
        "share": [columns.share(whole.total.flops)],
        "bound": [columns.bound()] if timed else [],
        "time": [columns.time()] if timed else [],
        "fused": columns.fused() if timed else [],
        "time share": [columns.time_share(whole.time.seconds)] if whole.time else [],
        "predicted": columns.predicted(),
        "predicted, no ops": columns.predicted(ops=False),
    }
    giving_way = _GIVING_WAY_TIMED if timed else _GIVING_WAY
    shown = set(every) - {instead for _, instead in giving_way}
    sets = [shown]
    for gone, instead in giving_way:
        if sort not in gone:
            shown = shown - set(gone) | {instead}
            sets.append(shown)
    sets.append({"time" if timed else "matmul"})
    return [[column for name in every if name in names for column in every[name]] for names in sets]
