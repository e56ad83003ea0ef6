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

from attnprof.core import memory_json, timing_json
from attnprof.core.errors import TraceFormatError
from attnprof.core.plain import as_count, as_counts, as_dict, as_flag, as_int, as_list, as_text, as_texts
from attnprof.core.signature import Argument, Declared, OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.trace import PHASES, Call, ModuleRecord, ParameterRecord, Repeat, Scope, Trace

FORMAT = "attnprof trace"
#: 2 added the names of steps and the memory; 3 the homes of classes and the kinds of calls; 4 repeats and time.
SCHEMA = 4
#: More op calls than any machine could keep in a trace: a number above it is damage, not data.
MOST_EVENTS = 10**8


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
    if type(schema) is not int or schema < 1:
        raise TraceFormatError(f"{source} states schema {schema!r}; it must be a number from 1 to {SCHEMA}.")
    if schema > SCHEMA:
        raise TraceFormatError(
            f"{source} has schema {schema}, made by a newer attnprof; this one reads up to {SCHEMA}. Update attnprof."
        )
    try:
        trace = _from_dict(data)
        _validate(trace)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        detail = f"{type(error).__name__}: {str(error)[:200]}"
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
        "step_labels": list(map(list, trace.step_labels.items())),
        "memory": None if trace.memory is None else memory_json.to_dict(trace.memory),
        "repeats": [[repeat.start, repeat.stop, repeat.times] for repeat in trace.repeats],
        "timing": None if trace.timing is None else timing_json.timing_to_dict(trace.timing),
        "layer_times": None if trace.layer_times is None else timing_json.layers_to_dict(trace.layer_times),
    }


def _from_dict(data: dict[str, Any]) -> Trace:
    runs = [tuple(map(as_count, run)) for run in map(as_list, as_list(data["events"]))]
    if sum(calls for _, _, calls in runs) > MOST_EVENTS:
        raise ValueError(f"more than {MOST_EVENTS} events")
    trace = Trace(
        signatures=[_decode_signature(as_dict(item)) for item in as_list(data["signatures"])],
        scopes=[Scope(as_count(module), as_text(phase)) for module, phase in map(as_list, as_list(data["scopes"]))],
        event_signatures=[signature for signature, _, calls in runs for _ in range(calls)],
        event_scopes=[scope for _, scope, calls in runs for _ in range(calls)],
        modules=[_decode_module(as_dict(item), data["schema"]) for item in as_list(data["modules"])],
        steps=as_counts(data["steps"]),
        meta=_decode_scalars(data["meta"]),
        notes=list(as_texts(data["notes"])),
    )
    if data["schema"] > 1:
        labels = [(as_count(step), as_text(label)) for step, label in map(as_list, as_list(data["step_labels"]))]
        trace.step_labels = dict(labels)
        if len(trace.step_labels) != len(labels):
            raise ValueError("a step has two names")
        if data["memory"] is not None:
            memory = as_dict(data["memory"])
            trace.memory = memory_json.from_dict(memory, events=len(trace), modules=len(trace.modules))
    if data["schema"] > 3:
        trace.repeats = [Repeat(*map(as_count, as_list(item))) for item in as_list(data["repeats"])]
        if data["timing"] is not None:
            trace.timing = timing_json.timing_from_dict(as_dict(data["timing"]), events=len(trace))
        if data["layer_times"] is not None:
            times = as_dict(data["layer_times"])
            trace.layer_times = timing_json.layers_from_dict(times, modules=len(trace.modules))
    return trace


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
        if values and not (min(values) >= 0 and max(values) < size):
            raise ValueError(f"an event names a {kind} that is not there")
    for repeat in trace.repeats:
        if not repeat.start <= repeat.stop <= len(trace):
            raise ValueError(f"op calls {repeat.start} to {repeat.stop} of {len(trace)} are repeated")
    if max(trace.steps, default=0) > len(trace):
        raise ValueError(f"a step ends after op call {max(trace.steps)} of {len(trace)}")
    if max(trace.step_labels, default=-1) >= len(trace.steps):
        raise ValueError("a step has a name and is not there")


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
        "home": record.home,
        "call_kinds": [
            [list(c.tensors), list(c.gradients), c.backward, c.recomputed, c.returned, count]
            for c, count in record.call_kinds.items()
        ],
        "call_bytes": record.call_bytes,
    }


def _decode_module(item: dict[str, Any], schema: int) -> ModuleRecord:
    record = ModuleRecord(
        fqn=as_text(item["fqn"]),
        class_name=as_text(item["class"]),
        parent=None if item["parent"] is None else as_count(item["parent"]),
        aliases=as_texts(item["aliases"]),
        parameters=tuple(
            ParameterRecord(as_text(name), tuple(as_counts(shape)), as_text(dtype), as_flag(trainable), as_count(ident))
            for name, shape, dtype, trainable, ident in map(as_list, as_list(item["parameters"]))
        ),
        hyperparameters=_decode_scalars(item["hyperparameters"]),
        training=None if item["training"] is None else as_flag(item["training"]),
        calls={as_texts(shapes): as_count(count) for shapes, count in map(as_list, as_list(item["calls"]))},
        recomputed_calls=as_count(item["recomputed_calls"]),
    )
    if schema > 2:
        record.home = as_text(item["home"])
        record.call_kinds = dict(_decode_call(as_list(call)) for call in as_list(item["call_kinds"]))
    if schema > 3:
        sizes = as_dict(item["call_bytes"])
        record.call_bytes = {_as_moved(name): None if n is None else as_count(n) for name, n in sizes.items()}
    return record


def _as_moved(name: object) -> str:
    if name not in (*PHASES, "cache"):
        raise ValueError(f"bytes of calls in {name!r}")
    return as_text(name)


def _decode_call(item: list[Any]) -> tuple[Call, int]:
    tensors, gradients, backward, recomputed, returned, count = item
    call = Call(
        as_texts(tensors),
        tuple(as_flag(needed) for needed in as_list(gradients)),
        as_flag(backward),
        as_flag(recomputed),
        as_flag(returned),
    )
    if len(call.gradients) != len(call.tensors):
        raise ValueError(f"{len(call.gradients)} gradients for {len(call.tensors)} tensors")
    return call, as_count(count)


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
    op = as_text(item["op"])
    if op.count(".") < 1:
        raise ValueError(f"{op!r} is not an op")
    return OpSignature(
        op=op,
        args=tuple((as_text(name), _decode(value)) for name, value in map(as_list, as_list(item.get("args", [])))),
        outputs=tuple(_decode(value) for value in as_list(item.get("outputs", []))),
        mutated=as_texts(item.get("mutated", [])),
        overwritten=as_texts(item.get("overwritten", [])),
        view=as_flag(item.get("view", False)),
        declared=None if declared is None else _decode_declared(dict(as_dict(declared))),
    )


def _decode_declared(item: dict[str, Any]) -> Declared:
    source = as_text(item.pop("source"))
    optional = ("useful_matmul_flops", "read_bytes", "write_bytes")
    numbers = {name: None if n is None and name in optional else as_count(n) for name, n in item.items()}
    return Declared(source, **numbers)  # type: ignore[arg-type]


def _decode_scalars(item: Any) -> dict[str, Any]:
    found = {name: _decode(value) for name, value in as_dict(item).items()}
    if any(isinstance(value, TensorMeta) for value in found.values()):
        raise TypeError("a tensor where a plain value belongs")
    return found


def _encode(value: Any) -> Any:
    """Ints, bools, strings and None as they are; the rest as one-key objects that say what they are."""
    if isinstance(value, TensorMeta):
        tensor = {"shape": list(value.shape), "stride": list(value.stride), "dtype": value.dtype}
        extra = {"device": value.device, "ident": value.ident, "layout": value.layout, "nnz": value.nnz}
        extra["index_bytes"] = value.index_bytes
        extra["values"] = None if value.values is None else list(value.values)
        defaults = {"device": "cpu", "layout": "strided", "nnz": None, "index_bytes": 0, "values": None}
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
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} kinds")
    if "list" in value:
        return tuple(_decode(v) for v in as_list(value["list"]))
    if "float" in value:
        return float(as_text(value["float"]))
    return _decode_tensor(as_dict(value["tensor"]))


def _decode_tensor(item: dict[str, Any]) -> TensorMeta:
    shape, stride, values = tuple(as_counts(item["shape"])), tuple(as_counts(item["stride"])), item.get("values")
    if stride and len(stride) != len(shape):
        raise ValueError(f"{len(stride)} strides for {len(shape)} dimensions")
    return TensorMeta(
        shape=shape,
        stride=stride,
        dtype=as_text(item["dtype"]),
        device=as_text(item.get("device", "cpu")),
        ident=as_int(item["ident"]),
        layout=as_text(item.get("layout", "strided")),
        nnz=None if item.get("nnz") is None else as_count(item["nnz"]),
        index_bytes=as_count(item.get("index_bytes", 0)),
        values=None if values is None else tuple(as_int(v) for v in as_list(values)),
    )
