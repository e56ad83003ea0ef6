"""Ops that torch runs on ``meta`` tensors to learn a shape: they are no work of the run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace

from attnprof.capture.memory import on_kept_events
from attnprof.core.trace import Repeat, Trace


def without_shape_inference(trace: Trace) -> Trace:
    """Drop ops on ``meta`` tensors from a run that is not on ``meta`` itself: torch asking for a shape."""
    tensors = [(*signature.inputs, *signature.outs) for signature in trace.signatures]
    asked = {i for i, found in enumerate(tensors) if found and all(t.device == "meta" for t in found)}
    if not asked or all(i in asked or not tensors[i] for i in set(trace.event_signatures)):
        return trace
    kept = [event for event, signature in enumerate(trace.event_signatures) if signature not in asked]
    before, trace.event_signatures = trace.event_signatures, [trace.event_signatures[event] for event in kept]
    trace.event_scopes = [trace.event_scopes[event] for event in kept]
    trace.steps = [bisect_left(kept, step) for step in trace.steps]
    trace.repeats = [Repeat(bisect_left(kept, r.start), bisect_left(kept, r.stop), r.times) for r in trace.repeats]
    if trace.timing is not None:
        kinds = (replace(kind, pieces=tuple(_moved(kept, kind.pieces))) for kind in trace.timing.kinds)
        trace.timing = replace(trace.timing, kinds=tuple(kinds))
    if trace.memory is not None:
        trace.memory = on_kept_events(trace.memory, kept)
    dropped = sum(1 for event in before if event in asked)
    trace.notes.append(
        f"{dropped} ops ran on meta tensors and the model does not: torch asking for shapes, it seems; not counted."
    )
    return trace


def _moved(kept: Sequence[int], pieces: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in pieces:
        yield bisect_left(kept, start), bisect_left(kept, stop)
