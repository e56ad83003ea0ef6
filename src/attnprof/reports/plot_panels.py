"""From a report on devices to the panels of a roofline plot: the lowest rows of the table as points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.roofline import Roofline
from attnprof.core.units import duration, rounded, share
from attnprof.reports.names import folded
from attnprof.reports.plot_values import Mark, Panel, Roof
from attnprof.reports.roofline import is_incomplete
from attnprof.reports.rows import OWN, Branch, branches
from attnprof.reports.text import printable

#: How many orders of magnitude an axis may reach below the ridges; what is beyond would squeeze the rest.
_ORDERS = 5


def title(report: Report) -> str:
    """``TinyGPT · forward + backward``."""
    ran = [phase for phase in PHASES if report.phases[phase]]
    return printable(" · ".join((report.root.class_name or "everything", " + ".join(ran) or "nothing ran")))


def panels(report: Report, rooflines: Sequence[Roofline]) -> list[Panel]:
    """One panel per device."""
    return [_panel(report, roofline) for roofline in rooflines]


def _panel(report: Report, roofline: Roofline) -> Panel:
    time = roofline.total.attainable
    bandwidth = float(roofline.device.bandwidth_bytes_per_s or 0)  # large integers are not numbers to NumPy
    roofs = _roofs(roofline)
    marks, without, far = [], 0.0, 0.0
    least = min((roof.flops_per_s / bandwidth for roof in roofs if bandwidth), default=1.0) / 10**_ORDERS
    for label, branch in _lowest(branches(report, roofline=roofline)):
        part, cost = branch.time, branch.total
        if part is None or part.bound is None:
            continue
        fraction = part.seconds / time.seconds
        if not cost.flops or not cost.bytes:
            without += fraction
        elif cost.intensity < least:
            far += fraction
        else:
            marks.append(Mark(label, cost.intensity, cost.flops / part.seconds, fraction, part.bound))
    marks = _together(marks)
    least_time = f"at best {'more than ' if is_incomplete(roofline) else ''}{duration(time.seconds)}"
    bound = f", {100 * time.share(time.bound):.0f}% {time.bound}-bound" if time.bound else ""
    return Panel(
        printable(roofline.device.id),
        f"{least_time}{bound}",
        bandwidth,
        tuple(roofs),
        tuple(marks),
        _left_out(without, far),
    )


def _together(marks: Sequence[Mark]) -> list[Mark]:
    """Marks in one place as one, which takes the time of all: ``mlp.up + 1 more``."""
    places: dict[tuple[str, str, str], list[Mark]] = {}
    for mark in marks:
        places.setdefault((rounded(mark.intensity), rounded(mark.flops_per_s), mark.bound), []).append(mark)
    return [
        replace(
            same[0],
            label=f"{same[0].label} + {len(same) - 1} more" if len(same) > 1 else same[0].label,
            share=sum(mark.share for mark in same),
        )
        for same in places.values()
    ]


def _roofs(roofline: Roofline) -> list[Roof]:
    """The peaks that did work, equal ones as one: on many devices the vector units do matmuls of float32."""
    names: dict[int, dict[str, set[str]]] = {}
    for ridge in roofline.ridges:
        names.setdefault(ridge.flops_per_s, {}).setdefault(ridge.dtype, set()).add(ridge.engine)
    return [
        Roof(",\n".join(_kind(dtype, engines) for dtype, engines in sorted(found.items())), float(peak))
        for peak, found in names.items()
    ]


def _kind(dtype: str, engines: set[str]) -> str:
    """``bfloat16 matmul``, or ``float32`` where both engines have one peak."""
    return dtype if len(engines) > 1 else f"{dtype} {min(engines)}"


def _lowest(root: Branch) -> Iterator[tuple[str, Branch]]:
    """The rows that have none below them, which make up the whole, with the names of their modules."""
    if root.children:
        for child in root.children:
            yield from _lowest(child)
        return
    names = ", ".join(folded(fqn for fqn in root.fqns if fqn)) or root.name
    special = root.fqns and root.fqns[0].startswith("(")
    label = root.name if special else f"{names} {root.name}" if root.name == OWN and any(root.fqns) else names
    yield printable(label), root


def _left_out(without: float, far: float) -> str:
    """What part of the time has no point, and why."""
    reasons = [(without, "moves bytes without FLOPs"), (far, "has too little intensity to be shown")]
    return "; ".join(f"{share(part, 1)}% of the time {why}" for part, why in reasons if part >= 0.0005)
