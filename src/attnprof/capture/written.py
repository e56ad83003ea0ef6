"""The trace of a capture: what its threads saw, put together, with what its reader must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from attnprof.capture import calls
from attnprof.capture.shape_inference import without_shape_inference
from attnprof.core.trace import Trace

if TYPE_CHECKING:
    from attnprof.capture.recorder import Recorder


def trace_of(recorder: Recorder) -> Trace:
    """What was seen so far."""
    modes, modules, stepping, memory = recorder.modes, recorder.modules, recorder.stepping, recorder.memory
    if not recorder.is_open:  # else a thread may be between the two
        for mode in modes:
            mode.drop_half_an_event()
    every = [(mode.calls, mode.attribution.ran, 1) for mode in modes]
    if stepping is not None:
        stepping.settle()
        every += [(piece.calls, modes[0].attribution.ran, 1 + piece.times) for piece in stepping.ways.pieces]
    calls.write(every, modules.records)
    trace = Trace(
        signatures=list(recorder.signatures.known),
        scopes=list(recorder.scopes.known),
        event_signatures=[event for mode in modes for event in mode.events],
        event_scopes=[scope for mode in modes for scope in mode.scopes],
        modules=modules.records,
        steps=list(recorder.steps),
        step_labels=dict(recorder.step_labels),
        meta={"torch": torch.__version__, "grad": recorder.grad},
        notes=_notes(recorder),
        memory=None if memory is None else memory.trace(mode.events for mode in modes),
        repeats=[] if stepping is None else stepping.ways.repeats(),
        timing=None if stepping is None else stepping.timing(),
    )
    return trace if modules.on_meta else without_shape_inference(trace)


def _notes(recorder: Recorder) -> list[str]:
    stepping = recorder.stepping
    notes = [] if stepping is None else stepping.notes()
    if stepping is not None and stepping.recount_every is None and stepping.ways.repeats():
        ops = sorted({signature.op for signature in recorder.signatures.known if _sizes_depend_on_values(signature.op)})
        if ops:
            notes.append(
                f"How much {', '.join(ops)} gives depends on the values in a tensor: steps that were not counted are "
                "taken to be as those that were. profile(recount_every=N) counts every Nth of them again."
            )
    if not recorder.numbers_trusted:
        notes.append(
            "This torch numbers autograd nodes in a way attnprof does not know: every backward op is "
            "booked to (outside); totals are right."
        )
    if recorder.visited:
        notes.append(
            "Modules ran in threads that did not enter the profile: what those threads did outside of modules, "
            "backward and optimizer steps included, was not counted. Enter the same profile in each thread."
        )
    if recorder.memory is not None and recorder.memory.ledger.hidden:
        notes.append("Some tensors have a layout that hides their storage (mkldnn): bytes of memory are lower bounds.")
    return notes


def _sizes_depend_on_values(op: str) -> bool:
    """Whether torch says so of an op, named as ``aten.nonzero.default``."""
    namespace, name, overload = [*op.split("."), "", ""][:3]
    packet = getattr(getattr(torch.ops, namespace, None), name, None)
    return torch.Tag.dynamic_output_shape in getattr(getattr(packet, overload, None), "tags", ())
