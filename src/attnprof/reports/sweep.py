"""A sweep over shapes as text, Markdown, CSV and JSON: a row for each shape."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

from attnprof.analysis.sweep import Point, Quantity, Sweep
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.units import Kind, Number, Units, align, durations, intensity
from attnprof.reports.ours import MARKDOWN_MARK
from attnprof.reports.text import in_markdown, printable, width_of_terminal, wrapped

_CONVENTIONS = "FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone"
_AT_BEST = "at best: every op at the device's peak or bandwidth, whichever binds it, one after the other"
#: quantity -> (what a column is called, of which kind it is, its field where fields have names)
_TITLES: dict[Quantity, tuple[str, Kind, str]] = {
    "forward": ("forward", "matmul", "forward_matmul_flops"),
    "backward": ("backward", "matmul", "backward_matmul_flops"),
    "recompute": ("recompute", "matmul", "recompute_matmul_flops"),
    "optimizer": ("optimizer", "matmul", "optimizer_matmul_flops"),
    "other": ("other", "matmul", "other_matmul_flops"),
    "vector": ("vector", "flops", "vector_flops"),
    "bytes": ("traffic", "bytes", "traffic_bytes"),
    "saved": ("saved", "bytes", "saved_bytes"),
    "peak": ("peak", "bytes", "peak_bytes"),
}
_FIRM = "\N{NO-BREAK SPACE}"
#: header above, header below, cells
_Column = tuple[str, str, list[str]]


def to_text(sweep: Sweep, units: Units, width: int | None = None) -> str:
    """A row for each shape; columns that do not fit the terminal continue below."""
    room = width_of_terminal(width)
    around = [text.replace("· torch ", f"· torch{_FIRM}") for text in _around(sweep)]
    lines = [line.replace(_FIRM, " ") for text in around for line in wrapped(text, room)]
    if sweep.points:
        keys, columns = _keys(sweep), _columns(sweep, units)
        for some in _chunks(columns, room - sum(_width(column) + 2 for column in keys) + 2):
            lines += ["", *_lines([*keys, *some])]
    lines += [""] if sweep.points and _after(sweep) else []
    for sentence in _after(sweep):
        lines += wrapped(printable(sentence), room)
    return "\n".join(lines) + "\n"


def to_markdown(sweep: Sweep, units: Units) -> str:
    """One Markdown table."""
    columns = [*_keys(sweep), *_columns(sweep, units)]
    headers = [in_markdown(" ".join(part for part in (top, bottom) if part)) for top, bottom, _ in columns]
    rows = [[in_markdown(cell.strip()) for cell in row] for row in zip(*(cells for *_, cells in columns), strict=True)]
    align_right = ["right"] * len(columns)
    table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align_right) if rows else ""
    parts = [*(in_markdown(text) for text in _around(sweep)), table, *(in_markdown(text) for text in _after(sweep))]
    return "\n\n".join([MARKDOWN_MARK, *(part for part in parts if part)]) + "\n"


def to_csv(sweep: Sweep) -> str:
    """One line for each shape; plain integers, times in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = [f"attainable_s_{device}" for device in sweep.devices]
    fields = [field for *_, field in _TITLES.values()]
    writer.writerow(["batch", "seq", "parameters", *fields, "unpriced", *times])
    for point in sweep.points:
        sizes = ["" if size is None else size for size in (point.shape.batch, point.shape.seq)]
        numbers = [point.of_quantity(quantity) for quantity in _TITLES]
        writer.writerow([*sizes, point.parameters, *numbers, point.unpriced, *point.attainable_s])
    return text.getvalue()


def to_json(sweep: Sweep) -> str:
    """Everything as JSON; plain integers, times in seconds by device."""
    data = {
        "format": "attnprof sweep",
        "schema": 1,
        "settings": dict(sweep.settings),
        "complete": len(sweep.points) == sweep.wanted,
        "points": [_record(sweep, point) for point in sweep.points],
        "notes": list(sweep.notes),
    }
    return json.dumps(data, indent=1) + "\n"


#: The forms there are, by name, and the suffixes of their files.
FORMS: dict[str, Callable[[Sweep, Units], str]] = {
    "table": to_text,
    "markdown": to_markdown,
    "csv": lambda sweep, _: to_csv(sweep),
    "json": lambda sweep, _: to_json(sweep),
}
_SUFFIXES = {".txt": "table", ".md": "markdown", ".markdown": "markdown", ".csv": "csv", ".json": "json"}


def check_form(form: str) -> str:
    """The form; raises :class:`AttnprofError` for one that a sweep has not."""
    if form not in FORMS:
        raise AttnprofError(f'a sweep has no form "{form}": it has {", ".join(FORMS)}.{closest(form, FORMS)}')
    return form


def form_of(path: Path) -> str:
    """The form of a file, by its suffix; raises :class:`AttnprofError` for another."""
    if path.suffix.lower() not in _SUFFIXES:
        raise AttnprofError(f"{path}: a sweep is written as {', '.join(_SUFFIXES)}, and the suffix is none of these.")
    return _SUFFIXES[path.suffix.lower()]


def _around(sweep: Sweep) -> list[str]:
    parameters = sorted({point.parameters for point in sweep.points})
    settings = [value for name, value in sweep.settings.items() if name != "torch"]
    if len(parameters) == 1:
        settings.append(f"{Units().text(parameters[0], 'count')} parameters")
    if sweep.settings.get("torch"):
        settings.append(f"torch {sweep.settings['torch']}")
    return [printable(" · ".join(settings)), _CONVENTIONS, *([_AT_BEST] if sweep.devices else [])]


def _after(sweep: Sweep) -> list[str]:
    found = []
    if len(sweep.points) < sweep.wanted:
        found.append(f"Incomplete: {len(sweep.points)} of {sweep.wanted} shapes were counted.")
    unpriced = [point for point in sweep.points if point.unpriced]
    if unpriced:
        calls = max(point.unpriced for point in unpriced)
        what = "op call has" if calls == 1 else "op calls have"
        found.append(f"Up to {calls:,} {what} no formula: run one shape alone to see which.")
    return [*found, *sweep.notes]


def _keys(sweep: Sweep) -> list[_Column]:
    columns: list[_Column] = []
    for name in ("batch", "seq"):
        sizes = [getattr(point.shape, name) for point in sweep.points]
        if any(size is not None for size in sizes):
            columns.append(("", name, ["–" if size is None else str(size) for size in sizes]))
    return columns


def _columns(sweep: Sweep, units: Units) -> list[_Column]:
    columns: list[_Column] = []
    for quantity in sweep.shown:
        title, kind, _ = _TITLES[quantity]
        unit, cells = units.column([point.of_quantity(quantity) for point in sweep.points], kind)
        columns.append((title, unit, cells))
    if len({point.parameters for point in sweep.points}) > 1:
        unit, cells = units.column([point.parameters for point in sweep.points], "count")
        columns.append(("params", unit, cells))
    ratios = [None if point.intensity is None else intensity(point.intensity) for point in sweep.points]
    columns.append(("", "FLOP/B", align(ratios)))
    for at, device in enumerate(sweep.devices):
        times: list[Number | None] = [point.attainable_s[at] for point in sweep.points]
        unit, cells = durations(times)
        columns.append((printable(device), unit, cells))
    return columns


def _width(column: _Column) -> int:
    top, bottom, cells = column
    return max(len(top), len(bottom), *map(len, cells))


def _lines(columns: list[_Column]) -> list[str]:
    widths = [_width(column) for column in columns]
    table = [[top for top, *_ in columns], [bottom for _, bottom, _ in columns]]
    table += [list(row) for row in zip(*(cells for *_, cells in columns), strict=True)]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _chunks(columns: list[_Column], room: int) -> list[list[_Column]]:
    """The columns in as few groups as fit, two spaces before each."""
    chunks: list[list[_Column]] = [[]]
    used = 0
    for column in columns:
        if chunks[-1] and used + _width(column) + 2 > room:
            chunks.append([])
            used = 0
        chunks[-1].append(column)
        used += _width(column) + 2
    return chunks


def _record(sweep: Sweep, point: Point) -> dict[str, object]:
    numbers = {field: point.of_quantity(quantity) for quantity, (*_, field) in _TITLES.items()}
    times = dict(zip(sweep.devices, point.attainable_s, strict=True))
    return {
        "batch": point.shape.batch,
        "seq": point.shape.seq,
        "parameters": point.parameters,
        **numbers,
        "unpriced": point.unpriced,
        **({"attainable_s": times} if times else {}),
    }
