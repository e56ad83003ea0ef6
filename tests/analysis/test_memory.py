"""What a report says of memory, on runs of a few ops whose every byte is known."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import attnprof
from attnprof.analysis.memory import CacheSummary, MemorySummary, Place
from attnprof.analysis.report import Report
from attnprof.analysis.timeline import Point
from attnprof.core.errors import ConservationError
from attnprof.core.memory import KVCache, MemoryTrace, Saved
from reports.held import Held
from reports.traces import Hand, mm

W, X, Y, Z, G = 400, 64, 256, 32, 400


def hand() -> Hand:
    """Four op calls: forward in ``a``, forward in ``b``, backward in ``b``, an optimizer step."""
    found = Hand().add("a", params={0: 100}).add("b").add("b.c")
    found.ran("a", mm(4, 8, 16)).ran("b.c", mm(8, 4, 16)).ran("b.c", mm(8, 4, 16), "backward")
    return found.ran("(optimizer)", mm(1, 1, 1), "optimizer_init")


def held() -> Held:
    """A weight and an input; y kept for the backward, z not; a gradient at op call 2, as z goes."""
    memory = Held(parameter=W, trainable=W - 100, buffer=8, gradient=G)
    memory.given("w", W, "parameter").given("x", X, "input")
    memory.made("y", Y, "saved", 0).made("z", Z, "temporary", 1).freed("z", at=2).made("g", G, "gradient", 2)
    return memory.freed("y", at=3)


def summary(memory: MemoryTrace | None = None) -> MemorySummary:
    trace = hand().trace
    trace.memory = held().memory if memory is None else memory
    found = Report(trace).memory
    assert found is not None
    return found


def test_memory_that_was_not_tracked() -> None:
    assert hand().report().memory is None


def test_states() -> None:
    memory = held().memory
    memory.optimizer_bytes = {"exp_avg": 400, "exp_avg_sq": 400, "step": 4}
    found = summary(memory)
    assert (found.parameter_bytes, found.trainable_bytes, found.frozen_bytes) == (W, W - 100, 100)
    assert (found.buffer_bytes, found.gradient_bytes) == (8, G)
    assert found.optimizer_bytes == 400 + 400 + 4
    assert found.optimizer_states == {"exp_avg": 400, "exp_avg_sq": 400, "step": 4}


def test_the_peak() -> None:
    peak = summary().peak
    assert peak.bytes == W + X + Y + G  # z went before the gradient came
    assert peak.by_kind == {"parameter": W, "gradient": G, "input": X, "saved": Y}
    assert peak.place == Place(2, "aten.mm.default", "b.c", "backward")
    assert (peak.event, peak.op, peak.module, peak.phase) == (2, "aten.mm.default", "b.c", "backward")


def test_the_first_of_equal_peaks_counts() -> None:
    memory = Held().made("a", 8, "temporary", 0).freed("a", at=1).made("b", 8, "temporary", 1).memory
    assert summary(memory).peak.event == 0


def test_a_step_that_makes_state_is_an_optimizer_step() -> None:
    assert summary(Held().made("m", 8, "optimizer", 3).memory).peak.phase == "optimizer"


def test_a_peak_before_the_first_op() -> None:
    peak = summary(Held().given("w", 8, "parameter").freed("w", at=0).made("y", 4, "temporary", 0).memory).peak
    assert peak.bytes == 8
    assert (peak.place, peak.event, peak.op, peak.module, peak.phase) == (None, None, None, None, None)


def test_a_peak_by_what_was_given_later() -> None:
    """A new input of a later call: the op that is about to run has it."""
    peak = summary(Held().made("y", 4, "temporary", 0).given("x", 8, "input", at=1).memory).peak
    assert (peak.bytes, peak.event) == (4 + 8, 1)
    assert summary(Held().made("y", 4, "temporary", 0).given("x", 8, "input", at=4).memory).peak.event == 3  # the last


def test_no_storages() -> None:
    found = summary(MemoryTrace())
    assert found.peak.bytes == found.saved_bytes == found.held_bytes == 0
    assert found.peak.place is None
    assert found.cache is None
    assert list(found.timeline) == []
    assert found.blocks_at_peak == []
    assert found.at(3) == Point(3, {})


def test_blocks_at_the_peak() -> None:
    blocks = [(block.bytes, block.kind, block.made_by and block.made_by.event) for block in summary().blocks_at_peak]
    assert blocks == [(W, "parameter", None), (G, "gradient", 2), (Y, "saved", 0), (X, "input", None)]


def test_the_timeline() -> None:
    found = summary()
    assert list(found.timeline) == [
        Point(0, {"parameter": W, "input": X, "saved": Y}),
        Point(1, {"parameter": W, "input": X, "saved": Y, "temporary": Z}),
        Point(2, {"parameter": W, "gradient": G, "input": X, "saved": Y}),
        Point(3, {"parameter": W, "gradient": G, "input": X}),
    ]
    assert [point.bytes for point in found.timeline] == found.timeline.totals
    assert max(found.timeline.totals) == found.peak.bytes
    assert found.timeline[-1] == found.timeline[3]
    assert found.timeline[1:3] == [found.timeline[1], found.timeline[2]]
    assert found.timeline.of("gradient") == [0, 0, G, G]


def test_the_timeline_at_any_op_call() -> None:
    found = summary(Held().made("a", 4, "temporary", 1).made("b", 8, "saved", 3).memory)
    assert [found.at(event).bytes for event in range(5)] == [0, 4, 4, 4 + 8, 4 + 8]
    assert found.at(2) == Point(2, {"temporary": 4})


def test_what_comes_and_goes_within_one_op_call_counts() -> None:
    memory = Held().made("a", 8, "temporary", 0).freed("a", at=0).made("b", 4, "saved", 0).memory
    found = summary(memory)
    assert list(found.timeline) == [Point(0, {"temporary": 8})]
    assert found.peak.bytes == 8


def test_threads_that_take_turns() -> None:
    """Op calls 0 and 1 are one thread's, 2 and 3 another's, which began first."""
    held = Held().made("a", 8, "temporary", 2).made("b", 4, "temporary", 0).freed("a", at=3).made("c", 2, "saved", 1)
    found = summary(held.memory)
    assert not found.timeline.in_order
    assert found.peak.event == 0
    assert [point.bytes for point in found.timeline] == [8, 8 + 4, 4, 4 + 2]
    assert [found.at(event).bytes for event in range(4)] == [8 + 4, 4 + 2, 8, 4]
    assert found.blocks_at_peak[0].made_by == Place(2, "aten.mm.default", "b.c", "backward")


# What was saved


def saving(*saved: Saved) -> MemorySummary:
    memory = held().memory
    memory.saved = list(saved)
    return summary(memory)


def test_saved_by_module() -> None:
    a, b, c = (hand().index(fqn) for fqn in ("a", "b", "b.c"))
    found = saving(Saved(2, {a: 10, c: 5, b: 1}, input_bytes=3, weight_copy_bytes=2))
    assert found.saved_bytes == 16
    assert (found.saved_input_bytes, found.saved_weight_copy_bytes) == (3, 2)
    assert found.saved_by_module() == {"": 16, "(outside)": 0, "(optimizer)": 0, "a": 10, "b": 6, "b.c": 5}
    own = found.saved_by_module(inclusive=False)
    assert own == {"": 0, "(outside)": 0, "(optimizer)": 0, "a": 10, "b": 1, "b.c": 5}
    assert sum(own.values()) == found.saved_bytes


def test_the_call_that_saved_most_counts() -> None:
    a = hand().index("a")
    found = saving(Saved(1, {a: 10}, 9), Saved(2, {a: 30}, 1), Saved(3, {}, held={a: 7, 0: 1}), Saved(4, {a: 30}, 2))
    assert (found.saved_bytes, found.saved_input_bytes) == (30, 1)
    assert found.held_bytes == 7 + 1


# Caches


def caching(*caches: KVCache) -> CacheSummary | None:
    memory = held().memory
    memory.caches = list(caches)
    return summary(memory).cache


def test_a_cache_that_grows() -> None:
    layer = 2 * 3 * 4  # keys and values, 3 wide, 4 bytes
    found = caching(*(KVCache(at, (layer * tokens, layer * tokens), tokens) for at, tokens in enumerate((5, 6, 8))))
    assert found == CacheSummary((8 * layer, 8 * layer), 8, bytes_per_token=2 * layer)
    assert found is not None
    assert found.bytes == 2 * 8 * layer


def test_a_cache_that_starts_anew_grows_as_before() -> None:
    found = caching(KVCache(1, (80,), 8), KVCache(2, (90,), 9), KVCache(3, (30,), 3), KVCache(4, (40,), 4))
    assert found == CacheSummary((90,), 9, 10)


@pytest.mark.parametrize(
    ("caches", "per_token"),
    [
        ([KVCache(1, (80,), 8)], None),  # no growth was seen
        ([KVCache(1, (80,), 8), KVCache(2, (90,), 9), KVCache(3, (90,), 10)], None),  # a window: not the same each time
        ([KVCache(1, (80,), 8), KVCache(2, (81,), 10)], None),  # half a byte
        ([KVCache(1, (80,)), KVCache(2, (80,))], None),  # a state of fixed size
        ([KVCache(1, (80,), 4), KVCache(2, (80,), 5)], 0),  # allocated beforehand
    ],
)
def test_bytes_per_token(caches: list[KVCache], per_token: int | None) -> None:
    found = caching(*caches)
    assert found is not None
    assert found.bytes_per_token == per_token


# Conservation


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([0, 1, ~0, ~0], "200 bytes are live at the end of the log and 300 by its blocks"),
        ([0, ~0, ~1, 1], "at least -300 at any time"),
        ([0], "100 bytes are live at the end of the log and 400 by its blocks"),
    ],
)
def test_a_log_that_does_not_conserve_is_a_defect(log: list[int], words: str) -> None:
    memory = MemoryTrace([100, 300], [7, 7], [True, True], log, [0] * len(log))
    with pytest.raises(ConservationError, match=words):
        summary(memory)


def test_a_saved_report_says_the_same(tmp_path: Path) -> None:
    trace = hand().trace
    trace.memory = held().memory
    attnprof.Report(trace).save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json").memory
    assert again is not None
    assert again.peak == summary().peak
    assert list(again.timeline) == list(summary().timeline)


def test_a_million_entries_are_no_burden() -> None:
    count = 500_000
    trace = hand().ran("a", mm(4, 8, 16), times=count).trace
    log = [entry for block in range(count) for entry in (block, ~block)]
    at = [place for block in range(count) for place in (block, block + 1)]
    trace.memory = MemoryTrace([8] * count, [7] * count, [True] * count, log, at)
    report = Report(trace)
    start = time.process_time()
    found = report.memory
    assert found is not None
    assert found.peak.bytes == 8  # one at a time
    assert len(found.timeline) == count + 1
    assert found.at(count // 2).bytes == 8
    assert time.process_time() - start < 20  # two seconds or so; anything quadratic would take hours
