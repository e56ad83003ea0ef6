"""Measured time as JSON and back, checked."""

from __future__ import annotations

from typing import Any

from attnprof.core.plain import as_count, as_counts, as_dict, as_list, as_text, as_texts
from attnprof.core.timing import SAMPLE, Durations, LayerTime, LayerTimes, StepKind, Timing


def timing_to_dict(timing: Timing) -> dict[str, Any]:
    return {
        "clock": timing.clock,
        "recount_every": timing.recount_every,
        "kinds": [
            {
                "inputs": list(kind.inputs),
                "pieces": list(map(list, kind.pieces)),
                "counted": kind.counted,
                "reused": kind.reused,
                "times": _encode(kind.times),
                "tokens": kind.tokens,
                "samples": kind.samples,
            }
            for kind in timing.kinds
        ],
    }


def timing_from_dict(data: dict[str, Any], *, events: int) -> Timing:
    """The timing of a trace with so many op calls; raises an error that says what is wrong."""
    return Timing(
        kinds=tuple(_kind(as_dict(item), events) for item in as_list(data["kinds"])),
        clock=as_text(data["clock"]),
        recount_every=_optional(data["recount_every"]),
    )


def layers_to_dict(times: LayerTimes) -> dict[str, Any]:
    return {
        "clock": times.clock,
        "step": _encode(times.step),
        "profiled": _encode(times.profiled),
        "layers": [[one.module, one.phase, _encode(one.self_time)] for one in times.layers],
        "accumulation": _encode(times.accumulation),
        "unattributed": _encode(times.unattributed),
    }


def layers_from_dict(data: dict[str, Any], *, modules: int) -> LayerTimes:
    """The layers' times of a trace with so many modules; raises an error that says what is wrong."""
    layers = [
        LayerTime(as_count(module), as_text(phase), _decode(times))
        for module, phase, times in map(as_list, as_list(data["layers"]))
    ]
    if max((one.module for one in layers), default=0) >= modules:
        raise ValueError("a module has a time and is not there")
    found = LayerTimes(
        step=_decode(data["step"]),
        profiled=_decode(data["profiled"]),
        layers=tuple(layers),
        accumulation=_decode(data["accumulation"]),
        unattributed=_decode(data["unattributed"]),
        clock=as_text(data["clock"]),
    )
    parts = [found.profiled, found.accumulation, found.unattributed, *(one.self_time for one in layers)]
    if len({(one.count, len(one.sample_ns)) for one in parts}) > 1:
        raise ValueError("the times of layers are not of as many steps as were profiled")
    return found


def _kind(item: dict[str, Any], events: int) -> StepKind:
    pieces = tuple((as_count(start), as_count(stop)) for start, stop in map(as_list, as_list(item["pieces"])))
    if any(not start <= stop <= events for start, stop in pieces):
        raise ValueError(f"a step has op calls that are not among the {events}")
    return StepKind(
        inputs=as_texts(item["inputs"]),
        pieces=pieces,
        counted=as_count(item["counted"]),
        reused=as_count(item["reused"]),
        times=_decode(item["times"]),
        tokens=_optional(item["tokens"]),
        samples=_optional(item["samples"]),
    )


def _optional(value: Any) -> int | None:
    return None if value is None else as_count(value)


def _encode(times: Durations) -> list[Any]:
    return [times.count, times.total_ns, list(times.sample_ns)]


def _decode(value: Any) -> Durations:
    count, total, sample = as_list(value)
    times = Durations(as_count(count), as_count(total), tuple(as_counts(sample)))
    if len(times.sample_ns) > min(times.count, SAMPLE) or sum(times.sample_ns) > times.total_ns:
        raise ValueError(f"{len(times.sample_ns)} durations of {times.count}, or more than all of them")
    return times
