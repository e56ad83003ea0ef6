"""What a run held in memory: in a line for every table, and in a table of its own."""

from __future__ import annotations

from collections.abc import Iterator

from attnprof.analysis.memory import CacheSummary, MemorySummary, Place
from attnprof.core.units import Units
from attnprof.reports.columns import Column
from attnprof.reports.fitted import fitted
from attnprof.reports.names import called
from attnprof.reports.text import printable

NOT_TRACKED = "memory was not tracked"


def line(memory: MemorySummary, model: str, units: Units) -> str:
    """``memory: parameters 248 MB · saved 1.94 GB · peak 2.61 GB (at h.11.mlp.down aten.mm, backward)``."""

    def text(size: int) -> str:
        return units.text(size, "bytes")

    frozen = f" ({text(memory.frozen_bytes)} frozen)" if memory.frozen_bytes else ""
    parts = [f"parameters {text(memory.parameter_bytes)}{frozen}"] if memory.parameter_bytes else []
    for name, size in (
        ("buffers", memory.buffer_bytes),
        ("gradients", memory.gradient_bytes),
        ("optimizer", memory.optimizer_bytes),
        ("saved", memory.saved_bytes),
        ("cache", memory.cache.bytes if memory.cache else 0),
    ):
        if size:
            parts.append(f"{name} {text(size)}")
    return f"memory: {' · '.join([*parts, f'peak {text(memory.peak.bytes)} ({where(memory.peak.place, model)})'])}"


def where(place: Place | None, model: str) -> str:
    """``at h.11.mlp.down aten.mm, backward``; what was there before any op is said to be so."""
    return "before the first op" if place is None else f"at {at(place, model)}, {place.phase}"


def at(place: Place, model: str) -> str:
    """The module and the op: ``h.11.mlp.down aten.mm``."""
    module = "" if place.module in ("(outside)", "(optimizer)") else called(place.module, model)
    return printable(f"{module} {operator(place)}".strip())


def operator(place: Place) -> str:
    """The op without its overload."""
    return ".".join(place.op.split(".")[:2])


def states(memory: MemorySummary, units: Units, width: int) -> list[str]:
    """Every size with a name, one below the other; parts are indented below their whole."""
    rows = sizes(memory, units)
    unit, cells = units.column([size for _, size in rows], "bytes")
    return fitted("memory", [label for label, _ in rows], [[Column(("", unit), tuple(cells))]], width)


def sizes(memory: MemorySummary, units: Units) -> list[tuple[str, int]]:
    """Every size in bytes with a name, parts indented below their whole; what is 0 only where that says something."""
    return [(label, size) for label, size, shown in _states(memory, units) if size or shown]


def _states(memory: MemorySummary, units: Units) -> Iterator[tuple[str, int, bool]]:
    """Label, bytes, and whether they are shown when 0."""
    yield "parameters", memory.parameter_bytes, True
    yield "  frozen", memory.frozen_bytes, False
    yield "buffers", memory.buffer_bytes, False
    yield "gradients", memory.gradient_bytes, False
    yield "optimizer", memory.optimizer_bytes, False
    for name, size in memory.optimizer_states.items():
        yield f"  {printable(name)}", size, False
    yield "saved for the backward", memory.saved_bytes, True
    yield "  inputs", memory.saved_input_bytes, False
    yield "  copies of weights", memory.saved_weight_copy_bytes, False
    yield "held by the model", memory.held_bytes, False
    if memory.cache:
        yield f"key-value cache ({_cache(memory.cache, units)})", memory.cache.bytes, True
    yield "peak", memory.peak.bytes, True


def _cache(cache: CacheSummary, units: Units) -> str:
    layers = len(cache.layer_bytes)
    parts = [f"{layers} {'layer' if layers == 1 else 'layers'}"]
    if cache.tokens is not None:
        parts.append(f"{cache.tokens:,} {'token' if cache.tokens == 1 else 'tokens'}")
    if cache.bytes_per_token is not None:
        parts.append(f"{units.text(cache.bytes_per_token, 'bytes')} a token")
    return ", ".join(parts)
