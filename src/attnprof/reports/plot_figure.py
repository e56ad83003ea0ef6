"""Draws the panels of a roofline plot. Reads and writes no global state of matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from attnprof.core.roofline import Bound
from attnprof.core.units import Units, rounded, split
from attnprof.reports.plot_labels import Box, Disc, Point, place
from attnprof.reports.plot_values import Mark, Panel
from attnprof.reports.text import shortened

#: Told apart by readers with any colour vision, and in grey by their lightness.
COLOURS: dict[Bound, str] = {"compute": "#0b5fa5", "memory": "#e58606", "launch": "#7d8491"}
_INK, _SOFT, _ROOF = "#22262b", "#6a7178", "#3c444c"
#: Up to so many devices there are so many panels side by side: one column is read on a page.
_ACROSS = ((3, 1), (6, 2), (9, 3))
#: Inches of a figure with one panel across, of further ones, and the height of a panel alone and among others.
_ALONE, _WIDE, _HIGH, _LOW = 7.8, 6.6, 4.6, 3.6
#: Inches around the axes: to the left of the first, to the right of each (for the names of roofs), above, below.
_LEFT, _RIGHT, _ABOVE, _BELOW = 1.05, 1.3, 0.5, 0.85
#: Inches of the title, and below a panel that has others below it.
_TITLE, _BETWEEN = 0.34, 0.35
#: The disc of a module that takes all the time, and the least disc, in points squared.
_LARGEST, _SMALLEST = 1400.0, 9.0
#: The most labels of a panel, the least part of the time that has one, and their most characters.
_LABELS, _LABELLED, _LONGEST = 10, 0.01, 36
#: Labels keep clear of so many of the largest points.
_AVOIDED = 300
_ROOF_SIZE, _LABEL_SIZE = 7.5, 8.0


def draw(title: str, panels: Sequence[Panel]) -> Figure:
    """The figure: one panel per device, on axes of equal range."""
    across = next(side for most, side in _ACROSS if len(panels) <= most)
    down = -(-len(panels) // across)
    width, height = _ALONE + _WIDE * (across - 1), (_HIGH if down == 1 else _LOW) * down + _TITLE
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    inner = (width - _LEFT - _RIGHT * across - 0.3 * (across - 1)) / across
    tall = (height - _TITLE - _BELOW - _ABOVE * down - _BETWEEN * (down - 1)) / down
    grid = figure.subplots(
        down,
        across,
        squeeze=False,
        sharex=True,
        sharey=True,
        gridspec_kw={
            "left": _LEFT / width,
            "right": 1 - _RIGHT / width,
            "top": 1 - (_TITLE + _ABOVE) / height,
            "bottom": _BELOW / height,
            "wspace": (_RIGHT + 0.3) / inner,
            "hspace": (_ABOVE + _BETWEEN) / tall,
        },
    )
    figure.text(0.14 / width, 1 - 0.12 / height, shortened(title, int(width * 11)), va="top",
                fontsize=11, fontweight="bold", color=_INK, parse_math=False)  # fmt: skip
    limits = _limits(panels)
    for position, axes in enumerate(grid.flat):
        if position >= len(panels):
            axes.set_visible(False)
            continue
        _frame(axes, panels[position], limits)
        if position % across == 0:
            axes.set_ylabel("FLOP/s at best", fontsize=9, color=_INK)
        axes.tick_params(labelbottom=True)
        if position + across >= len(panels):
            axes.set_xlabel("arithmetic intensity (FLOP per byte of traffic)", fontsize=9, color=_INK)
    bounds = [bound for bound in COLOURS if any(m.bound == bound for panel in panels for m in panel.marks)]
    _legend(figure, bounds)
    for panel, axes in zip(panels, grid.flat, strict=False):
        _inside(axes, panel)
    return figure


def _limits(panels: Sequence[Panel]) -> tuple[float, float, float, float]:
    """Ranges of both axes that hold every mark and ridge, with room beside them."""
    marks = [mark for panel in panels for mark in panel.marks]
    ridges = [roof.flops_per_s / panel.bandwidth_bytes_per_s for panel in panels for roof in panel.roofs]
    peaks = [roof.flops_per_s for panel in panels for roof in panel.roofs]
    across = [*(mark.intensity for mark in marks), *ridges, 1.0]
    up = [*(mark.flops_per_s for mark in marks), *peaks]
    left, right = min(across) / 3, max(max(ridges, default=1.0) * 6, max(across) * 3)
    bottom, top = min(up, default=1.0) / 6, max(up, default=1.0) * 3.5
    return left, right, min(bottom, top / 1e4), top


def _frame(axes: Any, panel: Panel, limits: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = limits
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, numticks=12))
        axis.set_minor_locator(LogLocator(base=10, subs=()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    axes.grid(True, which="major", color="#e9ebee", linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b9bec4")
    axes.tick_params(length=0, labelsize=8, colors=_SOFT, labelleft=axes.get_subplotspec().is_first_col())
    below = " · ".join(filter(None, (panel.subtitle, panel.left_out)))
    bold = {"fontsize": 9.5, "fontweight": "bold", "color": _INK}
    for text, points, style in ((panel.title, 18, bold), (below, 5, {"fontsize": 8, "color": _SOFT})):
        there = axes.transAxes + _points(axes, 0, points)
        axes.text(0, 1, shortened(text, 90), transform=there, va="bottom", parse_math=False, **style)


def _inside(axes: Any, panel: Panel) -> None:
    """Roofs, points and labels, those that must be read first."""
    taken, lines, guides = _roofs(axes, panel)
    marks = sorted(panel.marks, key=lambda mark: (-mark.share, mark.label, mark.intensity))
    sizes = [max(_SMALLEST, _LARGEST * mark.share) for mark in marks]
    axes.scatter(
        [mark.intensity for mark in marks], [mark.flops_per_s for mark in marks], s=sizes,
        c=[COLOURS[mark.bound] for mark in marks], alpha=0.78, linewidths=0.8, edgecolors="white", zorder=3,
        clip_on=False,
    )  # fmt: skip
    _labels(axes, marks, sizes, taken, lines, guides)


def _roofs(axes: Any, panel: Panel) -> tuple[list[Box], list[Point], list[Point]]:
    """Draw them; the boxes of their labels, and points along their lines and those of the ridges, in pixels."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    bandwidth = panel.bandwidth_bytes_per_s
    highest = max((roof.flops_per_s for roof in panel.roofs), default=top)
    corner, start = min(highest / bandwidth, right), max(left, bottom / bandwidth)
    lines = [((start, start * bandwidth), (corner, corner * bandwidth))]
    guides = []
    for roof in panel.roofs:
        ridge = roof.flops_per_s / bandwidth
        lines.append(((ridge, roof.flops_per_s), (right, roof.flops_per_s)))
        guides.append(((ridge, bottom), (ridge, roof.flops_per_s)))
        axes.plot([ridge, ridge], [bottom, roof.flops_per_s], color=_ROOF, linewidth=0.7, linestyle=(0, (2, 3)),
                  zorder=1)  # fmt: skip
        axes.plot([ridge], [roof.flops_per_s], marker="D", markersize=3.2, color=_ROOF, zorder=2)
    for (x0, y0), (x1, y1) in lines:
        axes.plot([x0, x1], [y0, y1], color=_ROOF, linewidth=1.3, solid_capstyle="round", zorder=2)
    along = [[point for line in group for point in _along(axes, *line)] for group in (lines, guides)]
    return _roof_texts(axes, panel), along[0], along[1]


def _roof_texts(axes: Any, panel: Panel) -> list[Box]:
    """Each peak beside the end of its line, each ridge at the foot of its own, the bandwidth along the slope.

    Returns the boxes of those among the points.
    """
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    bandwidth = panel.bandwidth_bytes_per_s
    style: dict[str, Any] = {"fontsize": _ROOF_SIZE, "color": _ROOF, "parse_math": False, "zorder": 4}
    boxes: list[Box] = []
    lowest = math.inf
    for roof in sorted(panel.roofs, key=lambda roof: -roof.flops_per_s):
        y = float(axes.transData.transform((right, roof.flops_per_s))[1])
        drawn = axes.text(1, 0, f"{Units().named(roof.flops_per_s)}/s\n{roof.label}", ha="left", va="center",
                          transform=axes.transAxes + _points(axes, 5, 0), linespacing=1.15, **style)  # fmt: skip
        half = (_box(drawn).top - _box(drawn).bottom) / 2
        y = min(y, lowest - half)  # a peak just below another: its name goes further down
        drawn.set_y(axes.transAxes.inverted().transform((0, y))[1])
        lowest = y - half - 3
    for roof in sorted(panel.roofs, key=lambda roof: -roof.flops_per_s):
        ridge = roof.flops_per_s / bandwidth
        drawn = axes.text(ridge, bottom, f"ridge {rounded(ridge)}", rotation=90, ha="right", va="bottom",
                          transform=axes.transData + _points(axes, -1.5, 4), **style)  # fmt: skip
        if any(_box(drawn).overlaps(box) for box in boxes):
            drawn.remove()
        else:
            boxes.append(_box(drawn))
    start = max(left, bottom / bandwidth)
    lower, upper = (axes.transData.transform((x, x * bandwidth)) for x in (start, start * 10))
    angle = math.degrees(math.atan2(upper[1] - lower[1], upper[0] - lower[0]))
    drawn = axes.text(
        start, start * bandwidth, f"{Units().text(bandwidth, 'bytes')}/s", rotation=angle, rotation_mode="anchor",
        ha="left", va="bottom", transform=axes.transData + _points(axes, 8, 10), **style,
    )  # fmt: skip
    return [*boxes, _box(drawn)]


def _labels(
    axes: Any,
    marks: Sequence[Mark],
    sizes: Sequence[float],
    taken: Sequence[Box],
    lines: Sequence[Point],
    guides: Sequence[Point],
) -> None:
    pixels = axes.figure.dpi / 72
    discs = []
    for mark, size in zip(marks[:_AVOIDED], sizes[:_AVOIDED], strict=True):
        x, y = axes.transData.transform((mark.intensity, mark.flops_per_s))
        discs.append(Disc(float(x), float(y), math.sqrt(size / math.pi) * pixels))
    chosen = [mark for mark in marks[:_LABELS] if mark.share >= _LABELLED]
    texts = [
        axes.text(0, 0, shortened(mark.label, _LONGEST, tail=_LONGEST - 1), fontsize=_LABEL_SIZE, color=_INK,
                  ha="left", va="bottom", transform=None, parse_math=False, zorder=5)
        for mark in chosen
    ]  # fmt: skip
    extents = [_box(text) for text in texts]
    around = axes.get_window_extent()
    found = place(
        [(box.right - box.left, box.top - box.bottom) for box in extents],
        discs,
        Box(around.x0, around.y0, around.x1, around.y1),
        taken,
        lines,
        guides,
        pixels,
    )
    back = axes.transAxes.inverted()
    for text, there in zip(texts, found, strict=True):
        if there is None:
            text.remove()
            continue
        text.set(transform=axes.transAxes)
        text.set_position(back.transform((there.box.left, there.box.bottom)))
        if there.leader:
            ends = back.transform(there.leader)
            axes.plot(ends[:, 0], ends[:, 1], transform=axes.transAxes, color=_SOFT, linewidth=0.6, zorder=2.5)


def _legend(figure: Figure, bounds: Sequence[Bound]) -> None:
    """What colours and sizes say, in one line below the panels."""
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6.5, color=COLOURS[bound], alpha=0.78,
               label=f"{bound}-bound")
        for bound in bounds
    ]  # fmt: skip
    handles.append(Line2D([], [], linestyle="", marker="", label="area: part of the time"))
    figure.legend(
        handles=handles, loc="lower left", ncols=len(handles), frameon=False, fontsize=8, labelcolor=_SOFT,
        handletextpad=0.2, columnspacing=1.4, bbox_to_anchor=(0.005, 0.0), borderaxespad=0.6,
    )  # fmt: skip


def _along(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    (x0, y0), (x1, y1) = axes.transData.transform([start, end])
    steps = max(2, int(math.hypot(x1 - x0, y1 - y0) / 4))
    return [(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1)]


def _points(axes: Any, x: float, y: float) -> Any:
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(x / 72, y / 72, axes.figure.dpi_scale_trans)


def _box(text: Any) -> Box:
    found = text.get_window_extent()
    return Box(found.x0, found.y0, found.x1, found.y1)


def _plain(value: float) -> str:
    """A power of ten as people write it: 0.01, 100, 10,000."""
    return f"{value:g}" if value < 1 else f"{value:,.0f}"


def _rate(value: float) -> str:
    number, prefix = split(int(value)) if value >= 1 else (f"{value:g}", "")
    return f"{float(number):g} {prefix}FLOP/s"
