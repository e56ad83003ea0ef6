"""The curves of how a cost grows, drawn with logarithmic axes: a panel for each symbol, a line for each module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.analysis.scaling_answer import Answer
from attnprof.analysis.scaling_curves import Curve, Panel, panels
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units, rounded
from attnprof.reports import pictures
from attnprof.reports import scaling_words as words
from attnprof.reports.text import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

check = pictures.check
#: Told apart by readers with any colour vision, and by their marks.
_COLOURS = ("#0b5fa5", "#e58606", "#2f7d4f", "#b5446e", "#6a51a3", "#8c6d31", "#5d6d7e")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_INK, _SOFT = "#22262b", "#6a7178"
_WIDE, _HIGH, _LEGEND = 4.6, 3.9, 2.9
_LONGEST = 30


def save(answer: Answer, path: str | os.PathLike[str], units: Units) -> Path:
    """Draw the curves and write them to ``path`` (.png, .svg or .pdf).

    Raises :class:`AttnprofError` where there is no formula to draw, no such file can be written, or no matplotlib.
    """
    return pictures.save(lambda: figure(answer, units), path)


def figure(answer: Answer, units: Units, *, titled: bool = True) -> Figure:
    """The figure, with what was counted above it; raises :class:`AttnprofError` where there is nothing to draw."""
    from matplotlib.figure import Figure

    found = panels(answer.growth)
    if not found:
        raise AttnprofError(f"nothing can be drawn without a formula: {answer.growth.whole.reason}")
    if not any(count > 0 for panel in found for curve in panel.curves for count in curve.counts):
        raise AttnprofError(f"nothing can be drawn: {answer.label} are 0 at every size.")
    width, height = (_WIDE + _LEGEND) * len(found) + 0.4, _HIGH + (1.15 if titled else 0.5)
    made = Figure(figsize=(width, height), dpi=150, facecolor="white")
    if titled:
        _title(made, answer, width, height)
    for i, panel in enumerate(found):
        left = (0.85 + (_WIDE + _LEGEND) * i) / width
        axes = made.add_axes((left, 0.6 / height, (_WIDE - 0.6) / width, (_HIGH - 0.35) / height))
        _draw(axes, panel, answer, units)
    return made


def _title(made: Figure, answer: Answer, width: float, height: float) -> None:
    made.text(0.12 / width, 1 - 0.1 / height, shortened(words.subject(answer), int(width * 11)), va="top",
              fontsize=11, fontweight="bold", color=_INK, parse_math=False)  # fmt: skip
    whole = answer.growth.whole
    said = f"grows as O({whole.growth})" if whole.growth else ""
    made.text(0.12 / width, 1 - 0.36 / height, shortened(said, int(width * 12)), va="top",
              fontsize=9, color=_SOFT, parse_math=False)  # fmt: skip


def _draw(axes: Any, panel: Panel, answer: Answer, units: Units) -> None:
    kind = words.KINDS[answer.growth.scaling.quantity]
    whole, *modules = panel.curves
    _line(axes, whole, _INK, "-", 2.4)
    for i, curve in enumerate(modules):
        _line(axes, curve, _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)], 1.5)
    if panel.points:
        sizes, counts = zip(*panel.points, strict=True)
        axes.plot(sizes, counts, "o", color=_INK, markersize=4, label=f"counted ({len(sizes)})", zorder=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _ticks(axes, panel, units, kind)
    at = words.sizes_of(panel.at)
    axes.set_xlabel(f"{panel.symbol}{f'   ({at})' if at else ''}", fontsize=9, color=_INK, parse_math=False)
    axes.set_ylabel(answer.label, fontsize=9, color=_INK, parse_math=False)
    axes.grid(visible=True, which="major", color="#e6e9ec", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        fontsize=8,
        frameon=False,
        title="slope at the right end" + (f"\n({panel.others} smaller ones left out)" if panel.others else ""),
        title_fontsize=8,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _line(axes: Any, curve: Curve, colour: str, dashes: Any, width: float) -> None:
    """A curve without the sizes at which it is nothing: a logarithm has no place for them."""
    shown = [(size, count) for size, count in zip(curve.sizes, curve.counts, strict=True) if count > 0]
    if not shown:
        return
    slope = "" if curve.slope is None else f"  {curve.slope:.2f}"
    sizes, counts = zip(*shown, strict=True)
    axes.plot(sizes, counts, color=colour, linestyle=dashes, linewidth=width,
              label=f"{shortened(curve.label, _LONGEST, tail=_LONGEST // 2)}{slope}")  # fmt: skip


def _ticks(axes: Any, panel: Panel, units: Units, kind: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    counts = [count for curve in panel.curves for count in curve.counts if count > 0]
    if counts and max(counts) / min(counts) > 10**7:  # what is that small is a line at the bottom for nobody
        axes.set_ylim(bottom=max(counts) / 10**7)
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.text(_number(value), kind)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(_sizes(panel.curves[0].sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: str(round(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8, colors=_SOFT)


def _number(value: float) -> int | float:
    return round(value) if value >= 1 else float(rounded(value))


def _sizes(sizes: Sequence[int]) -> list[int]:
    """The first and the last size, and powers of two between that leave room for their labels."""
    first, last = sizes[0], sizes[-1]
    powers = [2**i for i in range(last.bit_length() + 1) if first * 1.5 < 2**i < last / 1.5]
    every = max(1, -(-len(powers) // 5))
    return [first, *powers[::-1][::every][::-1], last]
