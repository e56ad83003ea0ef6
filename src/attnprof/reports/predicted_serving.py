"""Predicted serving as a table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tabulate import tabulate

from attnprof.analysis.serving_rows import Ceiling, Serving, ServingRow
from attnprof.core.units import Number, Units, align, durations, exactly, intensity, rounded, share
from attnprof.reports.columns import Column
from attnprof.reports.fitted import fitted
from attnprof.reports.text import printable, width_of_terminal, wrapped

_CONVENTIONS = (
    "FLOPs: matmuls, 2 per multiply-add, masks not deducted · bytes: every weight once, keys and values once; what "
    "goes between layers can stay on chip · at best: one part after the other · in memory: weights and KV cache"
)


def to_text(served: Serving, units: Units, width: int | None = None) -> str:
    """A table for each device, with what it allows below it; at most ``width`` columns (default: the terminal's)."""
    width = width_of_terminal(width)
    lines = [line for text in (_subject(served, units), _CONVENTIONS) for line in wrapped(printable(text), width)]
    for ceiling, rows in _by_device(served):
        lines += ["", *(wrapped(printable(_device(ceiling, served, units)), width) if ceiling else [])]
        columns = _columns(rows, units, ceiling is not None)
        choices = [[columns[name] for name in names if name in columns] for names in _CHOICES]
        lines += fitted("batch", [f"{row.batch:,}" for row in rows], choices, width)
        lines += [line for text in sentences(served, ceiling, units) for line in wrapped(printable(text), width)]
    below = _below(served, units)
    return "\n".join(
        [*lines, *([""] if below else []), *(line for t in below for line in wrapped(printable(t), width))]
    )


def to_markdown(served: Serving, units: Units) -> str:
    """The same with Markdown tables."""
    found = [_subject(served, units), _CONVENTIONS]
    for ceiling, rows in _by_device(served):
        if ceiling:
            found.append(f"**{printable(_device(ceiling, served, units))}**")
        columns = _columns(rows, units, ceiling is not None)
        shown = [columns[name] for name in _CHOICES[0] if name in columns]
        body = [[f"{row.batch:,}", *(c.cells[i].strip() for c in shown)] for i, row in enumerate(rows)]
        headings = ["batch", *(" ".join(filter(None, (part.strip() for part in c.heading))) for c in shown)]
        found.append(
            tabulate(body, headings, tablefmt="pipe", disable_numparse=True, colalign=["right"] * len(headings))
        )
        found.append("\n".join(f"- {printable(text)}" for text in sentences(served, ceiling, units)))
    below = "\n".join(f"- {printable(text)}" for text in _below(served, units))
    return "\n\n".join([*found, *([below] if below else [])]) + "\n"


def to_csv(served: Serving) -> str:
    """One line for each device and batch; plain numbers, empty where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_record(served, served.rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in served.rows:
        writer.writerow(_record(served, row))
    return text.getvalue()


def to_json(served: Serving) -> str:
    """Everything as JSON; counts are integers, limits exact fractions beside their values."""
    data = {
        "format": "attnprof serving",
        "schema": 1,
        "model": served.model.model_type,
        "parameters": served.model.parameters,
        "dtype": served.dtype,
        "phase": served.phase,
        "new_tokens": served.new_tokens,
        "keys": served.keys,
        "weight_bytes": served.weight_bytes,
        "kv_bytes_per_token": served.kv_bytes_per_token,
        "kv_bytes_per_sequence": served.kv_bytes_per_sequence,
        "intensity_limit": {"flops_per_byte": float(served.intensity_limit), "exactly": str(served.intensity_limit)},
        "attention_flops_per_byte": float(served.attention_intensity),
        "devices": [
            {
                "device": ceiling.device.id,
                "peak_flops_per_s": ceiling.peak_flops_per_s,
                "bandwidth_bytes_per_s": ceiling.bandwidth_bytes_per_s,
                "ridge_flops_per_byte": float(ceiling.ridge),
                "memory_bytes": ceiling.device.capacity_bytes,
                "compute_bound_from_batch": ceiling.turns_at,
                "matmuls_compute_bound_from_batch": ceiling.matmuls_turn_at,
                "square_matmul_compute_bound_from_rows": ceiling.square_rows,
                "most_sequences": ceiling.most_sequences,
            }
            for ceiling in served.ceilings
        ],
        "rows": [
            {
                **_record(served, row),
                "parts": [
                    {
                        "part": p.name,
                        "matmul_flops": p.flops,
                        "weight_bytes": p.weight_bytes,
                        "cache_bytes": p.cache_bytes,
                    }
                    for p in row.parts
                ],
            }
            for row in served.rows
        ],
        "notes": list(served.notes),
    }
    return json.dumps(data, indent=1) + "\n"


#: The formats there are, by name.
FORMATS: dict[str, Callable[[Serving, Units], str]] = {
    "table": lambda served, units: to_text(served, units) + "\n",
    "markdown": to_markdown,
    "csv": lambda served, _: to_csv(served),
    "json": lambda served, _: to_json(served),
}


def sentences(served: Serving, ceiling: Ceiling | None, units: Units) -> Iterator[str]:
    """Whether and when a step is bound by the arithmetic of a device, and how many sequences it holds."""
    yield _verdict(served, ceiling)
    if ceiling is None:
        return
    if served.phase == "decode":
        yield _parts(served, ceiling)
    if ceiling.most_sequences is not None:
        keys = f"{served.keys:,} {'token' if served.keys == 1 else 'tokens'}"
        most, weights = ceiling.most_sequences, units.text(served.weight_bytes, "bytes")
        if most:
            several = "1 sequence fits" if most == 1 else f"{most:,} sequences fit"
            yield f"{several} beside {weights} of weights, with {keys} each."
        else:
            yield f"No sequence fits beside {weights} of weights, with {keys} each."


def _verdict(served: Serving, ceiling: Ceiling | None) -> str:
    phase, limit = served.phase.capitalize(), intensity(float(served.intensity_limit))
    grows = f"as the batch grows, its intensity tends to {limit} FLOP/B"
    if ceiling is None:
        return f"{phase}: {grows}."
    ridge = intensity(float(ceiling.ridge))
    if ceiling.turns_at is None:
        return (
            f"{phase} is compute-bound at no batch: {grows}, which is not above the ridge of {ridge}, since every "
            "sequence reads a cache of its own."
        )
    return f"{phase} is compute-bound from batch {ceiling.turns_at:,} on: {grows}, the ridge is at {ridge}."


def _parts(served: Serving, ceiling: Ceiling) -> str:
    """What the matmuls with weights and attention would be on their own."""
    if ceiling.matmuls_turn_at is None:
        matmuls = "The matmuls with weights are compute-bound at no batch"
    else:
        matmuls = f"The matmuls with weights alone are compute-bound from batch {ceiling.matmuls_turn_at:,} on"
    d = f"{served.model.d:,}"
    rows = "no number of rows is enough" if ceiling.square_rows is None else f"it takes {ceiling.square_rows:,} rows"
    attention = f"{intensity(float(served.attention_intensity))} FLOP/B over its cache at any batch"
    return f"{matmuls} (with inputs and outputs moved for a {d} x {d} matrix, {rows}); attention has {attention}."


def _subject(served: Serving, units: Units) -> str:
    model, keys = served.model, f"{served.keys:,}"
    new = "1 new token" if served.new_tokens == 1 else f"{served.new_tokens:,} new tokens"
    return (
        f"{model.model_type} · {Units().text(model.parameters, 'count')} parameters · {served.dtype} · {served.phase}: "
        f"{new} of each sequence, {keys} in its cache · KV cache {exactly(served.kv_bytes_per_token)} B a token, "
        f"{units.text(served.kv_bytes_per_sequence, 'bytes')} a sequence"
    )


def _device(ceiling: Ceiling, served: Serving, units: Units) -> str:
    memory = ceiling.device.capacity_bytes
    parts = [
        ceiling.device.id,
        f"{Units().named(ceiling.peak_flops_per_s)}/s in {served.dtype}",
        f"{units.text(ceiling.bandwidth_bytes_per_s, 'bytes')}/s",
        f"ridge {intensity(float(ceiling.ridge))} FLOP/B",
        *([] if memory is None else [units.text(memory, "bytes")]),
    ]
    return " · ".join(parts)


def _below(served: Serving, units: Units) -> list[str]:
    """What is said once, whatever the device."""
    found = []
    row = served.rows[0]
    if row.step.useful_flops != row.flops:
        useful = units.named(row.step.useful_flops, "matmul")
        found.append(
            f"Without masked pairs, batch {row.batch:,}: {useful} ({share(row.step.useful_flops, row.flops)}%)."
        )
    return [*found, *served.notes]


def _by_device(served: Serving) -> Iterator[tuple[Ceiling | None, list[ServingRow]]]:
    for ceiling in served.ceilings or (None,):
        yield ceiling, [row for row in served.rows if row.ceiling is ceiling]


#: Sets of columns, the fullest first.
_CHOICES = (
    ("matmul", "weights", "cache", "activations", "FLOP/B", "bound", "at best", "each", "all", "memory", "fits"),
    ("matmul", "weights", "cache", "FLOP/B", "bound", "at best", "each", "all", "memory", "fits"),
    ("matmul", "bytes", "FLOP/B", "bound", "at best", "each", "all", "memory", "fits"),
    ("matmul", "bytes", "FLOP/B", "bound", "at best", "all", "memory", "fits"),
    ("matmul", "bytes", "FLOP/B", "bound", "at best", "all", "fits"),
    ("bytes", "FLOP/B", "bound", "all", "fits"),
    ("FLOP/B", "bound", "all"),
    ("FLOP/B", "bound"),
)


def _columns(rows: Sequence[ServingRow], units: Units, on_device: bool) -> dict[str, Column]:
    def amounts(title: str, values: Sequence[Number | None], kind: Any) -> Column:
        unit, cells = units.column(values, kind)
        return Column((title, unit), tuple(cells))

    found = {
        "matmul": amounts("matmul", [row.flops for row in rows], "matmul"),
        "weights": amounts("weights", [row.step.weight_bytes for row in rows], "bytes"),
        "cache": amounts("cache", [row.step.cache_bytes for row in rows], "bytes"),
        "bytes": amounts("bytes", [row.bytes for row in rows], "bytes"),
        "activations": amounts("(layers)", [row.step.activation_bytes for row in rows], "bytes"),
        "FLOP/B": Column(("", "FLOP/B"), tuple(align([intensity(float(row.intensity)) for row in rows]))),
        "memory": amounts("in memory", [row.resident_bytes for row in rows], "bytes"),
    }
    if on_device:
        unit, cells = durations([row.attainable.seconds if row.attainable else None for row in rows])
        rates = {"each": [row.tokens_per_s_per_sequence for row in rows], "all": [row.tokens_per_s for row in rows]}
        found |= {
            "bound": _words("", "bound", [row.bound or "–" for row in rows]),
            "at best": Column(("at best", unit), tuple(cells)),
            "fits": _words("", "fits", [{True: "yes", False: "no", None: "–"}[row.fits] for row in rows]),
        }
        for name, values in rates.items():
            column = align([None if v is None else rounded(v) for v in values])
            found[name] = Column(("tokens/s", name if name == "each" else "in all"), tuple(column))
    return found


def _words(above: str, heading: str, words: Sequence[str]) -> Column:
    wide = max(map(len, words))
    return Column((above, heading), tuple(word.rjust(wide) for word in words))


def _record(served: Serving, row: ServingRow) -> dict[str, Any]:
    """A row as plain numbers."""
    step, ceiling = row.step, row.ceiling
    return {
        "device": None if ceiling is None else ceiling.device.id,
        "phase": served.phase,
        "batch": row.batch,
        "new_tokens": row.new_tokens,
        "keys": served.keys,
        "matmul_flops": step.flops,
        "useful_matmul_flops": step.useful_flops,
        "weight_bytes": step.weight_bytes,
        "cache_read_bytes": step.cache_read_bytes,
        "cache_write_bytes": step.cache_write_bytes,
        "bytes": step.bytes,
        "activation_bytes": step.activation_bytes,
        "flops_per_byte": float(row.intensity),
        "ridge_flops_per_byte": None if ceiling is None else float(ceiling.ridge),
        "bound": row.bound,
        "attainable_s": None if row.attainable is None else row.attainable.seconds,
        "overlapped_s": row.overlapped_s,
        "tokens_per_s": row.tokens_per_s,
        "tokens_per_s_per_sequence": row.tokens_per_s_per_sequence,
        "kv_cache_bytes": row.kv_cache_bytes,
        "resident_bytes": row.resident_bytes,
        "fits": row.fits,
    }
