"""FlashAttention's traffic on devices as a table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tabulate import tabulate

from attnprof.analysis.attention_io import AttentionIO
from attnprof.core.units import Units, align, rounded
from attnprof.reports.columns import Column
from attnprof.reports.fitted import fitted
from attnprof.reports.text import printable, width_of_terminal, wrapped

_CONVENTIONS = (
    "explicit: scores and probabilities written and read, 4·T² + 4·T·dh elements a head · tiled: FlashAttention's "
    "Algorithm 1, 2·T·dh + ⌈T / Bc⌉·(3·T·dh + 4·T) with Bc = ⌈M / 4·dh⌉, M of one unit's on-chip memory · gain: "
    "explicit over tiled · / matmuls: time of the traffic over time of the matmuls"
)


def to_text(found: Sequence[AttentionIO], units: Units, width: int | None = None) -> str:
    """A row for each device and length, and what to make of them below."""
    width = width_of_terminal(width)
    lines = [line for text in (_subject(found[0]), _CONVENTIONS) for line in wrapped(printable(text), width)]
    columns = _columns(found, units)
    choices = [[columns[name] for name in names] for names in _CHOICES]
    lines += ["", *fitted("device", [printable(one.device.id) for one in found], choices, width)]
    return "\n".join([*lines, *(line for text in sentences(found) for line in wrapped(printable(text), width))])


def to_markdown(found: Sequence[AttentionIO], units: Units) -> str:
    """The same as a Markdown table."""
    columns = list(_columns(found, units).values())
    body = [[printable(one.device.id), *(c.cells[i].strip() for c in columns)] for i, one in enumerate(found)]
    headings = ["device", *(" ".join(filter(None, (part.strip() for part in c.heading))) for c in columns)]
    align = ["left", *("right" for _ in columns)]
    table = tabulate(body, headings, tablefmt="pipe", disable_numparse=True, colalign=align)
    below = "\n".join(f"- {printable(text)}" for text in sentences(found))
    return "\n\n".join([_subject(found[0]), _CONVENTIONS, table, *([below] if below else [])]) + "\n"


def to_csv(found: Sequence[AttentionIO]) -> str:
    """One line for each device and length; plain numbers, empty where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_record(found[0])), lineterminator="\n")
    writer.writeheader()
    for one in found:
        writer.writerow(_record(one))
    return text.getvalue()


def to_json(found: Sequence[AttentionIO]) -> str:
    """Everything as JSON."""
    data = {"format": "attnprof attention io", "schema": 1, "rows": [_record(one) for one in found]}
    return json.dumps(data, indent=1) + "\n"


#: The formats there are, by name.
FORMATS: dict[str, Callable[[Sequence[AttentionIO], Units], str]] = {
    "table": lambda found, units: to_text(found, units) + "\n",
    "markdown": to_markdown,
    "csv": lambda found, _: to_csv(found),
    "json": lambda found, _: to_json(found),
}


def sentences(found: Sequence[AttentionIO]) -> Iterator[str]:
    """What a row does not say: where the formula is not for so few tokens, and where it gains nothing."""
    for one in found:
        at = f"{one.device.id}, T={one.tokens:,}"
        if one.gain is None:
            yield f"{at}: no tiled figure, as the formula is for dh ≤ M ≤ T·dh, so from T={one.valid_from:,} on."
        elif one.gain <= 1:
            yield f"{at}: this order of loops moves no less than written-out scores do; the gain falls with dh² / M."


def _subject(one: AttentionIO) -> str:
    heads = f"{one.heads:,} {'head' if one.heads == 1 else 'heads'}"
    return f"attention, forward · {heads} of width {one.head_dim:,} · {one.dtype}"


#: Sets of columns, the fullest first.
_CHOICES = (
    ("T", "on chip", "Bc", "explicit", "tiled", "once", "gain", "explicit ratio", "tiled ratio"),
    ("T", "on chip", "explicit", "tiled", "gain", "explicit ratio", "tiled ratio"),
    ("T", "explicit", "tiled", "gain", "explicit ratio", "tiled ratio"),
    ("T", "explicit", "tiled", "gain"),
    ("T", "gain"),
)


def _columns(found: Sequence[AttentionIO], units: Units) -> dict[str, Column]:
    def amounts(title: str, values: Sequence[int | None]) -> Column:
        unit, cells = units.column(values, "bytes")
        return Column((title, unit), tuple(cells))

    def ratios(above: str, heading: str, values: Sequence[Any]) -> Column:
        return Column((above, heading), tuple(align([None if v is None else rounded(v) for v in values])))

    # One unit for both, so that they can be compared by eye.
    unit, cells = units.column([n for one in found for n in (one.explicit_bytes, one.tiled_bytes)], "bytes")
    return {
        "T": Column(("", "T"), tuple(align([f"{one.tokens:,}" for one in found]))),
        "on chip": Column(("on chip", "M"), tuple(align([f"{one.on_chip_elements:,}" for one in found]))),
        "Bc": Column(("keys", "Bc"), tuple(align([f"{one.key_block:,}" for one in found]))),
        "explicit": Column(("explicit", unit), tuple(cells[::2])),
        "tiled": Column(("tiled", unit), tuple(cells[1::2])),
        "once": amounts("QKVO once", [one.compulsory_bytes for one in found]),
        "gain": ratios("", "gain", [one.gain for one in found]),
        "explicit ratio": ratios("explicit", "/ matmuls", [one.explicit_ratio for one in found]),
        "tiled ratio": ratios("tiled", "/ matmuls", [one.tiled_ratio for one in found]),
    }


def _record(one: AttentionIO) -> dict[str, Any]:
    def number(value: Any) -> float | None:
        return None if value is None else float(value)

    return {
        "device": one.device.id,
        "dtype": one.dtype,
        "T": one.tokens,
        "dh": one.head_dim,
        "heads": one.heads,
        "M": one.on_chip_elements,
        "matmul_flops": one.flops,
        "explicit_bytes": one.explicit_bytes,
        "tiled_bytes": one.tiled_bytes,
        "compulsory_bytes": one.compulsory_bytes,
        "gain": number(one.gain),
        "ridge_flops_per_byte": number(one.ridge),
        "explicit_traffic_over_matmuls": number(one.explicit_ratio),
        "tiled_traffic_over_matmuls": number(one.tiled_ratio),
    }
