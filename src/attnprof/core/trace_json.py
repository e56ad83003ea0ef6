"""A trace as JSON and back: versioned, validated, without torch.

A file is data, possibly somebody else's: every field is checked, a newer schema is refused, and what is
wrong is said in one sentence.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import groupby
from typing import Any

from attnprof.core.errors import TraceFormatError
from attnprof.core.signature import Argument, Declared, OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.trace import PHASES, ModuleRecord, ParameterRecord, Scope, Trace

FORMAT = "attnprof trace"
SCHEMA = 1


def dumps(trace: Trace) -> str:
    """The trace as JSON text."""
    return json.dumps(to_dict(trace), separators=(",", ":"), allow_nan=False)


def loads(text: str, source: str = "the trace") -> Trace:
    """The trace in ``text``; raises :class:`TraceFormatError`, naming ``source``, when there is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceFormatError(f"{source} is not a trace: it is not JSON, or it is cut off ({error}).") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise TraceFormatError(f'{source} is JSON but not a trace: it has no "format": "{FORMAT}".')
    schema = data.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise TraceFormatError(f"{source} states schema {schema!r}; it must be a number from 1 to {SCHEMA}.")
    if schema > SCHEMA:
        raise TraceFormatError(
            f"{source} has schema {schema}, made by a newer attnprof; this one reads up to {SCHEMA}. Update attnprof."
        )
    try:
        trace = _from_dict(data)
        _validate(trace)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise TraceFormatError(f"{source} is damaged: a field is missing or has the wrong form ({detail}).") from None
    return trace


def to_dict(trace: Trace) -> dict[str, Any]:
    """The trace as plain lists and dicts. Events are runs ``[signature, scope, calls]`` in order."""
    pairs = zip(trace.event_signatures, trace.event_scopes, strict=True)
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "meta": {name: _encode(value) for name, value in trace.meta.items()},
        "notes": trace.notes,
        "modules": [_encode_module(record) for record in trace.modules],
        "signatures": [_encode_signature(signature) for signature in trace.signatures],
        "scopes": [[scope.module, scope.phase] for scope in trace.scopes],
        "events": [[*pair, sum(1 for _ in run)] for pair, run in groupby(pairs)],
        "steps": trace.steps,
    }


def _from_dict(data: dict[str, Any]) -> Trace:
    signatures, scopes = [], []
    for signature, scope, calls in data["events"]:
        signatures += [int(signature)] * int(calls)
        scopes += [int(scope)] * int(calls)
    return Trace(
        signatures=[_decode_signature(item) for item in data["signatures"]],
        scopes=[Scope(int(module), str(phase)) for module, phase in data["scopes"]],
        event_signatures=signatures,
        event_scopes=scopes,
        modules=[_decode_module(item) for item in data["modules"]],
        steps=[int(step) for step in data["steps"]],
        meta={str(name): _decode(value) for name, value in data["meta"].items()},  # type: ignore[misc]
        notes=[str(note) for note in data["notes"]],
    )


def _validate(trace: Trace) -> None:
    if len(trace.modules) < 3:
        raise ValueError("fewer than 3 modules")
    for index, record in enumerate(trace.modules):
        expected = record.parent is None if index == 0 else record.parent is not None and 0 <= record.parent < index
        if not expected:
            raise ValueError(f"module {index} has parent {record.parent}")
    for scope in trace.scopes:
        if not 0 <= scope.module < len(trace.modules) or scope.phase not in PHASES:
            raise ValueError(f"scope {scope}")
    for kind, values, size in (
        ("signature", trace.event_signatures, len(trace.signatures)),
        ("scope", trace.event_scopes, len(trace.scopes)),
    ):
        if values and not (0 <= min(values) and max(values) < size):
            raise ValueError(f"an event names a {kind} that is not there")


def _encode_module(record: ModuleRecord) -> dict[str, Any]:
    return {
        "fqn": record.fqn,
        "class": record.class_name,
        "parent": record.parent,
        "aliases": list(record.aliases),
        "parameters": [[p.name, list(p.shape), p.dtype, p.trainable, p.ident] for p in record.parameters],
        "hyperparameters": {name: _encode(value) for name, value in record.hyperparameters.items()},
        "training": record.training,
        "calls": [[list(shapes), count] for shapes, count in record.calls.items()],
        "recomputed_calls": record.recomputed_calls,
    }


def _decode_module(item: dict[str, Any]) -> ModuleRecord:
    return ModuleRecord(
        fqn=str(item["fqn"]),
        class_name=str(item["class"]),
        parent=None if item["parent"] is None else int(item["parent"]),
        aliases=tuple(map(str, item["aliases"])),
        parameters=tuple(
            ParameterRecord(str(name), tuple(map(int, shape)), str(dtype), bool(trainable), int(ident))
            for name, shape, dtype, trainable, ident in item["parameters"]
        ),
        hyperparameters={str(name): _decode(value) for name, value in item["hyperparameters"].items()},  # type: ignore[misc]
        training=item["training"],
        calls={tuple(map(str, shapes)): int(count) for shapes, count in item["calls"]},
        recomputed_calls=int(item["recomputed_calls"]),
    )


def _encode_signature(signature: OpSignature) -> dict[str, Any]:
    item: dict[str, Any] = {"op": signature.op}
    if signature.args:
        item["args"] = [[name, _encode(value)] for name, value in signature.args]
    if signature.outputs:
        item["outputs"] = _encode(signature.outputs)["list"]
    for name in ("mutated", "overwritten"):
        if getattr(signature, name):
            item[name] = list(getattr(signature, name))
    if signature.view:
        item["view"] = True
    if signature.declared is not None:
        item["declared"] = asdict(signature.declared)
    return item


def _decode_signature(item: dict[str, Any]) -> OpSignature:
    declared = item.get("declared")
    return OpSignature(
        op=str(item["op"]),
        args=tuple((str(name), _decode(value)) for name, value in item.get("args", ())),
        outputs=tuple(_decode(value) for value in item.get("outputs", ())),
        mutated=tuple(map(str, item.get("mutated", ()))),
        overwritten=tuple(map(str, item.get("overwritten", ()))),
        view=bool(item.get("view", False)),
        declared=None if declared is None else Declared(**declared),
    )


def _encode(value: Any) -> Any:
    """Ints, bools, strings and None as they are; the rest as one-key objects that say what they are."""
    if isinstance(value, TensorMeta):
        tensor = {"shape": list(value.shape), "stride": list(value.stride), "dtype": value.dtype}
        extra = {"device": value.device, "ident": value.ident, "layout": value.layout, "nnz": value.nnz}
        extra["values"] = None if value.values is None else list(value.values)
        defaults = {"device": "cpu", "layout": "strided", "nnz": None, "values": None}
        return {"tensor": tensor | {k: v for k, v in extra.items() if k not in defaults or v != defaults[k]}}
    if isinstance(value, list | tuple):
        return {"list": [_encode(v) for v in value]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _decode(value: Any) -> Argument:
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise TypeError("a bare list")
        return value  # type: ignore[no-any-return]
    if "list" in value:
        return tuple(_decode(v) for v in value["list"])
    if "float" in value:
        return float(value["float"])
    t = value["tensor"]
    values = t.get("values")
    return TensorMeta(
        shape=tuple(map(int, t["shape"])),
        stride=tuple(map(int, t["stride"])),
        dtype=str(t["dtype"]),
        device=str(t.get("device", "cpu")),
        ident=int(t["ident"]),
        layout=str(t.get("layout", "strided")),
        nnz=None if t.get("nnz") is None else int(t["nnz"]),
        values=None if values is None else tuple(map(int, values)),
    )
