"""A calibration as text: each figure, its spread, and its part of the datasheet's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attnprof.core.calibration import Calibration, Measurement
from attnprof.core.device import DeviceSpec
from attnprof.core.units import Units, align, durations
from attnprof.reports.text import printable, shortened, wrapped

_Listed = Callable[[Measurement], int | None]

ABOUT = (
    "best is the fastest repeat at the fastest size, and what the device file holds; the spread is that of the "
    "repeats, interquartile range ÷ median. Vector peaks are those of PyTorch's own pointwise kernels on data in "
    "cache: a fused kernel may do more. Bandwidth counts the bytes a kernel asks for."
)


def lines(found: Calibration, datasheet: DeviceSpec | None, units: Units, width: int) -> list[str]:
    """The tables of a calibration, within a width in columns."""
    told = found.conditions
    threads = f"{told.threads} {'thread' if told.threads == 1 else 'threads'}"
    where = [told.processor, threads] if told.device == "cpu" else [told.device]
    shown = wrapped(printable(" · ".join([told.host, *where, f"torch {told.torch}", told.date])), width)

    def peak(one: Measurement) -> int | None:
        return datasheet.peak(one.name, "matmul" if one.kind == "matmul" else "vector") if datasheet else None

    def bandwidth(one: Measurement) -> int | None:
        return datasheet.bandwidth_bytes_per_s if datasheet else None

    computed = [*found.best("matmul").values(), *found.best("vector").values()]
    moved, launched = list(found.best("bandwidth").values()), list(found.best("launch").values())
    named = datasheet.id if datasheet else ""
    for measured, listed, cells in (
        (computed, peak, lambda rates: _per_second(*units.column([round(rate) for rate in rates]))),
        (moved, bandwidth, lambda rates: _per_second(*units.column([round(rate) for rate in rates], "bytes"))),
        (launched, None, lambda rates: durations([1 / rate for rate in rates])),
    ):
        if measured:
            shown += ["", *_table(measured, listed, cells, named, width)]
    shown += ["", *wrapped(ABOUT, width)]
    for refusal in found.refusals:
        shown += wrapped(printable(f"{refusal.kind} {refusal.name} was not measured: {refusal.why}."), width)
    for doubt in found.doubts:
        shown += wrapped(doubt, width)
    return [line.rstrip() for line in shown]


def _per_second(unit: str, cells: list[str]) -> tuple[str, list[str]]:
    return f"{unit}/s", cells


def _table(
    measured: Sequence[Measurement],
    listed: _Listed | None,
    cells: Callable[[list[float]], tuple[str, list[str]]],
    datasheet: str,
    width: int,
) -> list[str]:
    """One line per kernel; on a narrow terminal the last columns give way."""
    unit, texts = cells([rate for one in measured for rate in (one.best, one.median)])
    columns = [
        _column("best", unit, texts[::2]),
        _column("median", unit, texts[1::2]),
        _column("spread", "%", align([f"{one.spread * 100:.1f}" for one in measured])),
    ]
    if datasheet and listed:
        parts = [(one.best, listed(one)) for one in measured]
        shares = align([f"{best / known * 100:.1f}" if known else None for best, known in parts])
        columns.append(_column("% of", datasheet, shares))
    labels = [f"{one.kind} {one.name}" for one in measured]
    longest = max(map(len, labels))
    used, kept = longest, list[list[str]]()
    for column in columns:
        used += len(column[0]) + 2
        if used > width and kept:
            break
        kept.append(column)
    rest = width - min(used, width) - 2
    lines = []
    for i, label in enumerate(("", "", *labels)):
        line = "  ".join([f"{label:<{longest}}", *(column[i] for column in kept)])
        if rest >= 20:
            line += "  " + shortened(("at", "", *(one.at for one in measured))[i], rest)
        lines.append(line)
    return lines


def _column(title: str, unit: str, cells: Sequence[str]) -> list[str]:
    """Title, unit and cells, all of one width."""
    texts = [title, unit, *cells]
    longest = max(map(len, texts))
    return [text.rjust(longest) for text in texts]
