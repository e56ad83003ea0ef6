"""A run as a Chrome trace: JSON that ui.perfetto.dev and chrome://tracing open.

One track per phase, the modules as slices around the op calls in them; a track of steps where some were marked;
counters of the live memory and of the FLOP/s.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from attnprof.analysis import module_paths
from attnprof.analysis.measured_clock import MeasuredClock
from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.spans import MOST, UNIT_NS, CallSpan, ModuleSpan, Spans, StepSpan, spans
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.memory import KINDS
from attnprof.core.tensor import TensorMeta
from attnprof.reports.files import check_writable, write_bytes
from attnprof.reports.text import printable

_Event = dict[str, Any]
#: Start and length in nanoseconds, how many slices are around, and the event.
_Placed = tuple[int, int, int, _Event]

#: The process and, in it, the track of the steps; those of the phases follow.
_PID, _STEPS = 1, 1
_TRACKS = {phase: number for number, phase in enumerate(PHASES, _STEPS + 1)}
#: The times that a trace can have.
TIMES = ("attainable", "measured")
#: Tensors that a call lists: fused optimizers take hundreds.
_TENSORS = 16


def check(path: str | os.PathLike[str]) -> Path:
    """The path, once it is clear that a trace can be written there; asked before a long run.

    Raises :class:`AttnprofError` for a suffix other than .json and .json.gz, and where nothing can be written.
    """
    target = Path(path)
    if not target.name.lower().endswith((".json", ".json.gz")):
        raise AttnprofError(f'a Chrome trace is a .json or .json.gz file, and "{target}" is neither.')
    return check_writable(target)


def check_time(by: str | None, devices: Sequence[DeviceSpec]) -> None:
    """Raises :class:`AttnprofError` for a time that is not known, and for attainable time without a device."""
    if by is not None and by not in TIMES:
        raise AttnprofError(f'a trace has time that is {" or ".join(TIMES)}, not "{by}".{closest(by, TIMES)}')
    if by == "attainable" and not devices:
        raise AttnprofError("attainable time is the least on a device: name one, such as h100-sxm.")


def save(
    report: Report, path: str | os.PathLike[str], device: DeviceSpec | None = None, time: str | None = None
) -> Path:
    """Write the trace of a run, by ``attainable`` time on a device or by ``measured`` time of its layers.

    Without a word of ``time``, it is measured where layers were timed, else attainable where there is a device, and
    else order alone. The same run gives the same bytes. Errors are those of :func:`check` and
    :func:`check_time`, and measured time where no layer was timed.
    """
    target = check(path)
    content = dumps(report, device, time=time).encode("utf-8")
    if target.suffix.lower() == ".gz":
        packed = io.BytesIO()
        with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
            file.write(content)
        content = packed.getvalue()
    return write_bytes(target, content)


def dumps(report: Report, device: DeviceSpec | None = None, most: int = MOST, time: str | None = None) -> str:
    """The trace as JSON, one event per line, of the first ``most`` op calls that do work."""
    check_time(time, () if device is None else (device,))
    measured = report.trace.layer_times is not None if time is None else time == "measured"
    found = spans(report.trace, report.priced, device, most, measured)
    other = json.dumps(_about(report, found, device), ensure_ascii=False, indent=1)
    lines = ",\n".join(_lines(report, found, device))
    return f'{{"displayTimeUnit": "ns",\n"otherData": {other},\n"traceEvents": [\n{lines}\n]}}\n'


def _lines(report: Report, found: Spans, device: DeviceSpec | None) -> Iterator[str]:
    """Names of the tracks, then everything in order of time, what is around before what is in it."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    yield from map(encode, _names(report, found, device))
    drawn = chain(_slices(report, found), _memory(report, found), _rates(found.calls))
    placed = [((start, -length, depth), encode(event)) for start, length, depth, event in drawn]
    placed.sort(key=lambda pair: pair[0])
    yield from (line for _, line in placed)


def _names(report: Report, found: Spans, device: DeviceSpec | None) -> Iterator[_Event]:
    model = report.trace.modules[0].class_name or "run"
    how = "in order, without time" if device is None else f"attainable time on {device.id}"
    if found.measured is not None:
        how = f"measured time on {report.trace.meta.get('timed_on') or found.measured.times.clock}"
    yield _named("process_name", 0, f"{model}, {how}")
    ran = {call.phase for call in found.calls}
    tracks = ([(_STEPS, "steps")] if found.steps else []) + [(_TRACKS[p], p) for p in PHASES if p in ran]
    for track, name in tracks:
        yield _named("thread_name", track, name)
        yield {"name": "thread_sort_index", "ph": "M", "pid": _PID, "tid": track, "args": {"sort_index": track}}


def _named(what: str, track: int, name: str) -> _Event:
    return {"name": what, "ph": "M", "pid": _PID, "tid": track, "args": {"name": printable(name)}}


def _slices(report: Report, found: Spans) -> Iterator[_Placed]:
    """Steps, modules and op calls."""
    modules, chains = report.trace.modules, module_paths.chains(report.trace)
    labels = [printable(label) for label in module_paths.labels(report.trace)]
    ops = [printable(signature.op) for signature in report.trace.signatures]
    for step in found.steps:
        args: _Event = {"steps": step.times} if step.times > 1 else {}
        yield _slice(printable(step.label), "step", _STEPS, step, 0, args)
    costs = [(op.cost.flops + op.recompute.flops, op.cost.bytes + op.recompute.bytes) for op in report.priced]
    flops, moved = (list(accumulate((costs[call.signature][i] for call in found.calls), initial=0)) for i in (0, 1))
    for span in found.modules:
        record = modules[span.module]
        args = {
            "module": printable(record.fqn),
            "class": printable(record.class_name),
            "phase": span.phase,
            "FLOPs": flops[span.last] - flops[span.first],
            "bytes": moved[span.last] - moved[span.first],
        }
        yield _slice(labels[span.module], "module", _TRACKS[span.phase], span, span.depth, args)
    known: dict[tuple[int, int, str], _Event] = {}
    for call in found.calls:
        key = (call.signature, call.module, call.phase)
        if key not in known:
            known[key] = _op_args(report, call)
        args = known[key] if call.times == 1 else {**known[key], "times": call.times}
        yield _slice(ops[call.signature], "op", _TRACKS[call.phase], call, len(chains[call.module]), args)
    if found.left_out:
        text = f"{found.left_out} more op calls are not shown"
        yield _mark(text, found.starts[-1], {"op calls left out": found.left_out})


def _slice(
    name: str, category: str, track: int, span: StepSpan | ModuleSpan | CallSpan, depth: int, args: _Event
) -> _Placed:
    """A complete event; a mark where it is too short to have a length."""
    length = span.stop - span.start
    start = {"ts": _microseconds(span.start)}
    where = {"ph": "X", **start, "dur": _microseconds(length)} if length else {"ph": "i", **start, "s": "t"}
    event = {"name": name, "cat": category, **where, "pid": _PID, "tid": track, "args": args}
    return span.start, length, depth, event


def _mark(name: str, start: int, args: _Event) -> _Placed:
    where = {"ph": "i", "ts": _microseconds(start), "s": "p", "pid": _PID, "tid": 0}
    return start, 0, 0, {"name": name, "cat": "mark", **where, "args": args}


def _counter(name: str, start: int, args: _Event) -> _Placed:
    return start, 0, 0, {"name": name, "ph": "C", "ts": _microseconds(start), "pid": _PID, "args": args}


def _op_args(report: Report, call: CallSpan) -> _Event:
    priced = report.priced[call.signature]
    op, cost, again = priced.signature, priced.cost, priced.recompute
    args: _Event = {
        "module": printable(report.trace.modules[call.module].fqn),
        "phase": call.phase,
        "inputs": _tensors(op.inputs),
        "outputs": _tensors(op.outs),
        "matmul FLOPs": cost.matmul_flops,
        "vector FLOPs": cost.vector_flops,
        "read bytes": cost.read_bytes,
        "written bytes": cost.write_bytes,
    }
    if again:
        args["recomputed matmul FLOPs"] = again.matmul_flops
        args["recomputed vector FLOPs"] = again.vector_flops
    if priced.status == "unpriced":
        args["without a formula"] = f"{priced.unknown_bytes} bytes by the default rule, FLOPs not known"
    if call.attainable_ns is not None:
        args["attainable ns"] = call.attainable_ns
    if call.bound is not None:
        args["bound"] = call.bound
    return args


def _tensors(tensors: Sequence[TensorMeta]) -> str:
    """``float32[4,8], float32[8,16]``: dtypes and shapes, of very many the first."""
    rest = len(tensors) - _TENSORS
    return printable(", ".join(map(str, tensors[:_TENSORS]))) + (f" and {rest} more" if rest > 0 else "")


def _memory(report: Report, found: Spans) -> Iterator[_Placed]:
    """Counters of what is live, whenever that changes, and a mark at the peak."""
    if report.memory is None:
        return
    timeline = report.memory.timeline
    kinds = [kind for kind in KINDS if any(timeline.of(kind))]
    columns = [timeline.of(kind) for kind in kinds]
    end = len(found.starts) - 1
    for index in sorted(range(len(timeline)), key=timeline.events.__getitem__):
        if timeline.events[index] > end:
            break
        start = found.starts[timeline.events[index]]
        yield _counter("live memory", start, {"bytes": timeline.totals[index]})
        by_kind = {kind: column[index] for kind, column in zip(kinds, columns, strict=True)}
        yield _counter("live memory by kind", start, by_kind)
    peak = report.memory.peak
    if peak.event is not None and peak.event <= end:
        args = {"bytes": peak.bytes, "op": printable(peak.op or ""), "module": printable(peak.module or "")}
        yield _mark("peak of live memory", found.starts[peak.event], args)


def _rates(calls: Sequence[CallSpan]) -> Iterator[_Placed]:
    """A counter of FLOP/s, whenever it changes, and 0 after the last."""
    rate, end = 0.0, 0
    for call in calls:
        if call.stop == call.start or call.flops_per_s is None:
            continue
        if call.flops_per_s != rate:
            yield _counter("FLOP/s", call.start, {"FLOP/s": call.flops_per_s})
        rate, end = call.flops_per_s, call.stop
    if rate:
        yield _counter("FLOP/s", end, {"FLOP/s": 0})


def _about(report: Report, found: Spans, device: DeviceSpec | None) -> _Event:
    """What a reader has to know of the trace as a whole."""
    notes = [*report.notes]
    if found.measured is not None:
        clock = _measured(found.measured, device)
    elif device is None:
        clock = f"No time: every op call is {UNIT_NS} ns long, in the order they ran. A device gives them times."
    else:
        clock = (
            f"Attainable time on {device.id}, one op call after the other: the greater of arithmetic at its peaks "
            "and traffic at its bandwidth. Nothing here was measured."
        )
    if device is not None:
        notes += report.roofline_on(device).notes
    about: _Event = {
        "made by": "attnprof",
        "clock": printable(clock),
        "FLOPs": "2 per multiply-add; masks are not deducted",
        "bytes": "traffic, as if each op ran alone: every distinct input read once, every output written once",
        "op calls shown": len(found.calls),
        "op calls without work (views, allocations), not shown": found.free,
    }
    if found.measured is not None:
        times = found.measured.times
        about |= {
            "step under the profiler, ns": times.profiled.median_ns,
            "gradient accumulation, ns, not shown": times.accumulation.median_ns,
            "between ops, ns, not shown": times.unattributed.median_ns,
            "modules whose op calls do no work, ns, not shown": found.measured.without_work_ns,
        }
    if found.left_out:
        about["op calls left out, after as many as a viewer holds"] = found.left_out
    if report.trace.repeats:
        about["repeated"] = "Steps like a counted one are not drawn again: `times` says how many a call stands for."
    return {**about, "notes": [printable(note) for note in notes]}


def _measured(clock: MeasuredClock, device: DeviceSpec | None) -> str:
    """What is measured of a timeline, and what is not."""
    steps = clock.times.profiled.count
    of = "1 profiled step" if steps == 1 else f"{steps} profiled steps"
    share = "traffic" if device is None else f"attainable time on {device.id}"
    return (
        f"Measured time of modules: what a module ran itself in a phase takes the median of {of}. Op calls were not "
        f"timed one by one: those of a module in a phase share its time in proportion to their {share}, one after the "
        "other. FLOP/s are those of a module in a phase as a whole."
    )


def _microseconds(nanoseconds: int) -> int | float:
    """The unit of the format. Perfetto multiplies by 1000 and cuts what is behind the point, so this is never below."""
    whole, rest = divmod(nanoseconds, 1000)
    if not rest:
        return whole
    value = nanoseconds / 1000
    return value if int(value * 1000) == nanoseconds else math.nextafter(value, math.inf)
