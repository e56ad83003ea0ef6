"""What a file of weights holds, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from attnprof.analysis.stored_weights import Group, groups
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.stored import StoredWeights
from attnprof.core.units import Units
from attnprof.reports.text import in_markdown, printable, shortened, width_of_terminal, wrapped

#: What rows can be put in order by.
SORTS = ("params", "bytes")
_HEADINGS = ("tensors", "elements", "bytes", "dtype", "shape")
_SHOWN_METADATA = 5
#: The version of the JSON.
SCHEMA = 2


def check(sort: str | None, top: int | None, depth: int | None) -> None:
    """Raise for an order or a number of rows that there is not."""
    if sort is not None and sort not in SORTS:
        raise AttnprofError(f"weights alone are sorted by {' or '.join(SORTS)}, not by {sort!r}.")
    if top is not None and top < 1:
        raise AttnprofError(f"top {top} would show nothing: give 1 or more.")
    if depth is not None and depth < 1:
        raise AttnprofError(f"depth {depth} has no names: weights alone are shown from 1 part of their names on.")


def to_text(
    weights: StoredWeights,
    units: Units,
    *,
    depth: int | None = None,
    sort: str | None = None,
    top: int | None = None,
    width: int | None = None,
) -> str:
    """What there is of each dtype, then a row for each beginning of names; names are cut on narrow terminals."""
    columns = width_of_terminal(width)
    lines = wrapped(" · ".join(_title(weights, units)), columns)
    dtypes = list(weights.by_dtype().items())
    if len(dtypes) > 1:
        shown = [f"{dtype} {units.text(n, 'count')} ({units.text(b, 'bytes')})" for dtype, (_, n, b) in dtypes]
        lines += wrapped(f"dtypes: {' · '.join(shown)}", columns)
    rows, rest = _chosen(weights, depth, sort, top)
    lines += ["", *_table(rows, units, columns)]
    if rest:
        lines.append(f"and {rest:,} more")
    for note in _notes(weights):
        lines += wrapped(printable(note), columns)
    return "\n".join(lines) + "\n"


def to_markdown(
    weights: StoredWeights, units: Units, *, depth: int | None = None, sort: str | None = None, top: int | None = None
) -> str:
    """The same as a Markdown table."""
    rows, rest = _chosen(weights, depth, sort, top)
    lines = [in_markdown(" · ".join(_title(weights, units))), "", f"| name | {' | '.join(_HEADINGS)} |"]
    lines.append(f"|:-----|{'|'.join('-----:' if h != 'dtype' else ':-----' for h in _HEADINGS)}|")
    for row, cells in zip(rows, _cells(rows, units), strict=True):
        lines.append(f"| {' | '.join(in_markdown(cell.strip()) for cell in (_label(row), *cells))} |")
    lines += ["", f"and {rest:,} more"] if rest else []
    return "\n".join([*lines, *(f"\n{in_markdown(note)}" for note in _notes(weights))]) + "\n"


def to_csv(weights: StoredWeights) -> str:
    """One line for each tensor, with plain integers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "shape", "dtype", "elements", "bytes", "buffer", "file", "shares"])
    for t in weights.tensors:
        shape = "x".join(map(str, t.shape))
        shares = t.shares if t.shares >= 0 else ""
        writer.writerow([t.name, shape, t.dtype, t.numel, t.bytes, "yes" if t.is_buffer else "", t.file, shares])
    return text.getvalue()


def to_json(weights: StoredWeights) -> str:
    """Every tensor as JSON, with plain integers."""
    data = {
        "format": "attnprof weights",
        "schema": SCHEMA,
        "file": weights.where,
        "files": weights.files,
        "file_bytes": weights.file_bytes,
        "parameters": weights.parameters,
        "buffer_elements": weights.buffer_elements,
        "bytes": weights.bytes,
        "dtypes": {d: {"tensors": t, "elements": n, "bytes": b} for d, (t, n, b) in weights.by_dtype().items()},
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "elements": t.numel, "bytes": t.bytes}
            | ({"buffer": True} if t.is_buffer else {})
            | ({"file": t.file} if weights.files > 1 else {})
            | ({"shares": t.shares} if t.shares >= 0 else {})
            for t in weights.tensors
        ],
        "metadata": dict(weights.metadata),
        "notes": list(weights.notes),
    }
    return json.dumps(data, indent=1) + "\n"


def _title(weights: StoredWeights, units: Units) -> list[str]:
    several = [f"{weights.files} files"] if weights.files > 1 else []
    return [
        printable(weights.where),
        *several,
        f"{len(weights.tensors):,} tensor{'' if len(weights.tensors) == 1 else 's'}",
        f"{units.text(weights.parameters, 'count')} parameters",
        *([f"{units.text(weights.buffer_elements, 'count')} in buffers"] if weights.buffer_elements else []),
        units.text(weights.bytes, "bytes"),
    ]


def _notes(weights: StoredWeights) -> list[str]:
    found = list(weights.notes)
    tied = len(weights.tensors) - len(weights.counted)
    if tied:
        found.append(
            f"{tied} {'tensor looks' if tied == 1 else 'tensors look'} into the storage of another: counted once."
        )
    if weights.metadata and dict(weights.metadata) != {"format": "pt"}:
        said = [f"{name}={value}"[:80] for name, value in list(weights.metadata.items())[:_SHOWN_METADATA]]
        more = len(weights.metadata) - len(said)
        found.append(f"metadata: {', '.join(said)}{f' and {more} more' if more else ''}")
    found.append("Parameters and dtypes alone: what the model computes is counted with --model file.py:build.")
    return found


def _chosen(weights: StoredWeights, depth: int | None, sort: str | None, top: int | None) -> tuple[list[Group], int]:
    rows = groups(weights, depth)
    if sort is None and top is not None:
        sort = "bytes"
    if sort is not None:
        key: Callable[[Group], int] = (lambda g: g.numel) if sort == "params" else (lambda g: g.bytes)
        rows = sorted(rows, key=key, reverse=True)
    return (rows, 0) if top is None else (rows[:top], max(0, len(rows) - top))


def _label(row: Group) -> str:
    return f"{row.name} x{row.alike}" if row.alike > 1 else row.name


def _cells(rows: Sequence[Group], units: Units) -> list[list[str]]:
    own = replace(units, macs=False)
    return [
        [
            f"{row.tensors:,}",
            own.text(row.numel, "count"),
            own.text(row.bytes, "bytes"),
            ", ".join(row.dtypes[:2]) + (", ..." if len(row.dtypes) > 2 else ""),
            "" if row.shape is None else f"[{','.join(map(str, row.shape))}]",
        ]
        for row in rows
    ]


def _table(rows: Sequence[Group], units: Units, columns: int) -> list[str]:
    cells = [list(_HEADINGS), *_cells(rows, units)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADINGS))]
    while len(widths) > 2 and sum(w + 2 for w in widths) > columns - 16:  # the last columns go first
        widths.pop()
    labels = ["name", *(printable(_label(row)) for row in rows)]
    room = min(max(map(len, labels)), max(12, columns - sum(w + 2 for w in widths)))
    lines = []
    for label, row in zip(labels, cells, strict=True):
        shown = [
            f"{c:<{w}}" if _HEADINGS[i] in ("dtype", "shape") else f"{c:>{w}}"
            for i, (c, w) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([f"{shortened(label, room, tail=min(len(label), room) // 2):<{room}}", *shown]).rstrip())
    return lines


#: The last two have every tensor, whatever is asked for.
FORMS = ("table", "markdown", "csv", "json")


def check_form(form: str) -> str:
    """The form; raises :class:`AttnprofError` for one that weights alone have not."""
    if form not in FORMS:
        known = ", ".join(FORMS)
        raise AttnprofError(f'weights alone have no form "{form}": they have {known}.{closest(form, FORMS)}')
    return form


def show(
    weights: StoredWeights,
    units: Units,
    form: str,
    *,
    depth: int | None = None,
    sort: str | None = None,
    top: int | None = None,
) -> str:
    """The weights in a form of :data:`FORMS`."""
    if form == "csv":
        return to_csv(weights)
    if form == "json":
        return to_json(weights)
    make = to_text if form == "table" else to_markdown
    return make(weights, units, depth=depth, sort=sort, top=top)
