"""The module tree for the page: a row for each line of the terminal's table, with all its numbers.

Two trees where layers repeat: one with equal layers folded, as on a terminal, and one with every module.
"""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.roofline import Roofline
from attnprof.core.roofline import Attainable, RooflinePoint
from attnprof.core.timing import Durations
from attnprof.core.units import Units
from attnprof.reports import comparison
from attnprof.reports.html import numbers
from attnprof.reports.html.embedding import Json
from attnprof.reports.names import folded
from attnprof.reports.rows import OWN, Branch, branches
from attnprof.reports.table import parameters

#: The name of all phases together, among the columns that differ by phase.
ALL = "all"


def trees(report: Report, phases: Sequence[str], units: Units) -> dict[str, Json]:
    """``folded`` and ``every``; the second is None where nothing is folded. ``phases`` are those that ran."""
    folded_root = branches(report, roofline=report.roofline)
    every_root = branches(report, roofline=report.roofline, fold=False)
    several = len(_listed(every_root)) != len(_listed(folded_root))
    found = _Tree(report, phases, units)
    return {"folded": found.columns(folded_root), "every": found.columns(every_root) if several else None}


def _listed(root: Branch) -> list[tuple[Branch, int]]:
    """Every row with the position of the one above it (-1 for the root), parents before children, in order."""
    found: list[tuple[Branch, int]] = []
    stack = [(root, -1)]
    while stack:
        branch, parent = stack.pop()
        found.append((branch, parent))
        stack.extend((child, len(found) - 1) for child in reversed(branch.children))
    return found


class _Tree:
    """What the columns of a tree are made from."""

    def __init__(self, report: Report, phases: Sequence[str], units: Units) -> None:
        self.report = report
        self.phases = phases
        self.classes = {node.fqn: node.class_name for node in report.root.walk()}
        self.choices = {ALL: PHASES} | ({phase: (phase,) for phase in phases} if len(phases) > 1 else {})
        self.theory = {name: comparison.Cells(report, those, units) for name, those in self.choices.items()}

    def columns(self, root: Branch) -> dict[str, Json]:
        """Columns of equal length, a value per row."""
        listed = _listed(root)
        rows = [branch for branch, _ in listed]
        return {
            "label": [row.label for row in rows],
            "parent": [parent for _, parent in listed],
            "name": [_name(row) for row in rows],
            "class": [self._class(row) for row in rows],
            "modules": [len(row.fqns) for row in rows],
            "own": [int(_is_own(row)) for row in rows],
            "calls": [row.calls for row in rows],
            "params": [parameters(row) for row in rows],
            "saved": [row.saved for row in rows],
            "costs": numbers.costs((row.costs for row in rows), self.phases),
            "devices": [self._on(roofline, rows) for roofline in self.report.rooflines],
            "measured": self._measured(rows),
            "predicted": self._predicted(rows),
        }

    def _class(self, row: Branch) -> str:
        """The class of the modules; none for ops."""
        return "" if _is_own(row) else self.classes.get(row.fqns[0], "") if row.fqns else ""

    def _on(self, roofline: Roofline, rows: Sequence[Branch]) -> dict[str, Json]:
        """Times by phase, and over all phases the time of one kernel and the bytes that it moves."""
        found: dict[str, Json] = {}
        for name in self.choices:
            phase = None if name == ALL else name
            of = {inclusive: roofline.by_module(phase, inclusive) for inclusive in (True, False)}
            points = [[of[not _is_own(row)][fqn] for fqn in row.fqns] for row in rows]
            found[name] = numbers.times(sum((p.attainable for p in those), Attainable()) for those in points)
            if phase is None:
                found["fused"] = [_sum([p.fused_s for p in those]) for those in points]
                found["footprint"] = [_footprint(those) for those in points]
        return found

    def _measured(self, rows: Sequence[Branch]) -> dict[str, Json] | None:
        """Medians in nanoseconds, by phase."""
        layers = self.report.layer_times
        if layers is None:
            return None
        found: dict[str, Json] = {}
        for name in self.choices:
            phase = None if name == ALL else name
            of = {inclusive: layers.by_module(phase, inclusive) for inclusive in (True, False)}
            found[name] = [
                Durations.added([layers.none, *(of[not _is_own(row)][fqn] for fqn in row.fqns)]).median_ns
                for row in rows
            ]
        return found

    def _predicted(self, rows: Sequence[Branch]) -> dict[str, Json]:
        """What theory says of each row, as positions in a list of texts."""
        texts: dict[str, int] = {"": 0}
        found: dict[str, Json] = {}
        for name, cells in self.theory.items():
            each = ["" if _is_own(row) else cells.cell(row.fqns) for row in rows]
            found[name] = [texts.setdefault(text, len(texts)) for text in each]
        return {"texts": list(texts), **found}


def _is_own(row: Branch) -> bool:
    return row.own or row.name == OWN


def _name(row: Branch) -> str:
    """The dotted names in full, those that differ in a number folded."""
    names = ", ".join(folded(fqn for fqn in row.fqns if fqn))
    return f"{names} {OWN}".strip() if _is_own(row) else names


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def _footprint(points: Sequence[RooflinePoint]) -> int | None:
    sizes = [point.footprint_bytes for point in points]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None
