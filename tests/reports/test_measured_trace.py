"""Chrome traces by measured time: layers take what was measured of them, their op calls share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attnprof
from attnprof.core.errors import AttnprofError
from attnprof.core.timing import Durations, LayerTime, LayerTimes
from attnprof.reports.trace_events import dumps
from reports.devices import round_device
from reports.test_trace_events import BYTES, FLOPS, VIEW
from reports.trace_event_rules import events, nanoseconds, slices
from reports.traces import Hand, mm


def times(*layers: tuple[int, str, tuple[int, ...]], between: int = 7) -> LayerTimes:
    """Layers as (module, phase, time in each profiled step); the rest of a step is between ops."""
    each = [Durations.of(own) for _, _, own in layers]
    steps = each[0].count
    rest, none = Durations.of([between] * steps), Durations.of([0] * steps)
    total = Durations.added([*each, rest])
    found = tuple(LayerTime(module, phase, own) for (module, phase, _), own in zip(layers, each, strict=True))
    return LayerTimes(total, total, found, none, rest)


def placed(found: list[dict[str, Any]], category: str) -> list[tuple[str, int, int]]:
    return [(e["name"], nanoseconds(e["ts"]), nanoseconds(e.get("dur", 0))) for e in slices(found, category)]


def timed() -> Hand:
    """``a`` runs a product, a view and a product of twice the rows; ``b`` a product; ``c`` a view alone."""
    hand = Hand().add("a").add("b").add("c")
    hand.ran("a", mm(4, 8, 16)).ran("a", VIEW).ran("a", mm(400, 8, 16)).ran("b", mm(4, 8, 16)).ran("c", VIEW)
    a, b, c = map(hand.index, "abc")
    # medians 1000, 50 and 3
    hand.trace.layer_times = times(
        (a, "forward", (900, 1000, 4000)), (b, "forward", (50, 60, 40)), (c, "forward", (3, 3, 9))
    )
    return hand


def test_a_layer_takes_its_median_and_its_calls_share_it() -> None:
    found = events(dumps(timed().report()))
    small, large = BYTES, 4 * (400 * 8 + 8 * 16 + 400 * 16)
    first = 1000 * small // (small + large)
    assert placed(found, "op") == [
        ("aten.mm.default", 0, first),
        ("aten.mm.default", first, 1000 - first),
        ("aten.mm.default", 1000, 50),
    ]
    assert placed(found, "module") == [("Net", 0, 1050), ("a", 0, 1000), ("b", 1000, 50)]


def test_with_a_device_calls_share_by_attainable_time() -> None:
    compute_bound = round_device(bandwidth_bytes_per_s=None)  # FLOPs alone take time, of 400 rows 100 times as much
    found = events(dumps(timed().report(), compute_bound, time="measured"))
    assert [length for _, _, length in placed(found, "op")] == [1000 * 1 // 101, 1000 - 1000 * 1 // 101, 50]
    assert slices(found, "op")[0]["args"]["attainable ns"] > 0


def test_a_rate_is_that_of_the_whole_layer() -> None:
    found = events(dumps(timed().report()))
    rates = [(nanoseconds(e["ts"]), e["args"]["FLOP/s"]) for e in found if e["name"] == "FLOP/s"]
    # quotients of integers, compared as Python rounds them, times 10^9
    assert rates == [(0, 101 * FLOPS / 1000 * 1e9), (1000, FLOPS / 50 * 1e9), (1050, 0)]


def test_what_no_slice_shows_is_said() -> None:
    about = json.loads(dumps(timed().report()))["otherData"]
    assert "the median of 3 profiled steps" in about["clock"]
    assert "not timed one by one" in about["clock"]
    assert about["between ops, ns, not shown"] == 7
    assert about["gradient accumulation, ns, not shown"] == 0
    assert about["modules whose op calls do no work, ns, not shown"] == 3
    assert about["step under the profiler, ns"] == sorted([900 + 50 + 3 + 7, 1000 + 60 + 3 + 7, 4000 + 40 + 9 + 7])[1]


def test_a_layer_without_a_time_is_marks() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16)).ran("a", mm(4, 8, 16), "optimizer_init")
    hand.trace.layer_times = times((hand.index("a"), "optimizer", (10,)))
    found = events(dumps(hand.report()))
    assert [(e["ph"], nanoseconds(e["ts"])) for e in slices(found, "op")] == [("X", 0), ("i", 0)]
    assert placed(found, "op")[0][2] == 10


def test_calls_without_attainable_time_share_equally() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=3)
    hand.trace.layer_times = times((hand.index("a"), "forward", (10,)))
    nothing_known = round_device(bandwidth_bytes_per_s=None, peaks=())
    found = events(dumps(hand.report(), nothing_known))
    assert [length for _, _, length in placed(found, "op")] == [10 * 1 // 3, 10 * 2 // 3 - 10 // 3, 10 - 10 * 2 // 3]


def test_the_time_is_chosen_and_the_file_says_which(tmp_path: Path) -> None:
    report = attnprof.Report(timed().trace)
    report.trace.meta["timed_on"] = "cpu"
    path = tmp_path / "t.json"

    def process(**options: Any) -> str:
        report.to_trace(path, **options)
        return str(events(path.read_text())[0]["args"]["name"])

    assert process() == process(time="measured") == process(device="h100-sxm") == "Net, measured time on cpu"
    assert process(device="h100-sxm", time="attainable") == "Net, attainable time on h100-sxm"
    with pytest.raises(AttnprofError, match="attainable time is the least on a device: name one"):
        process(time="attainable")
    with pytest.raises(AttnprofError, match=r'not "measurd"\. Did you mean measured\?'):
        process(time="measurd")
    report.trace.layer_times = None
    with pytest.raises(AttnprofError, match="the layers of this run were not timed"):
        process(time="measured")
    assert process() == "Net, in order, without time"


def test_a_real_run_takes_what_its_layers_took(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    report = attnprof.run(model, (torch.ones(4, 8),), optimizer="adamw", time=2)
    report.to_trace(tmp_path / "t.json")
    found = events((tmp_path / "t.json").read_text())
    assert report.layer_times is not None
    own = report.layer_times.by_module("forward", inclusive=False)
    drawn = {e["args"]["module"]: nanoseconds(e["dur"]) for e in slices(found, "module") if e["tid"] == 2}
    assert {name: drawn[name] for name in "012"} == {name: own[name].median_ns for name in "012"}
