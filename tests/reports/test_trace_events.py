"""Chrome traces: valid by the format's rules, with the report's numbers, at times that are derived here."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import attnprof
from attnprof.core.cost import Cost
from attnprof.core.errors import AttnprofError
from attnprof.core.signature import OpSignature
from attnprof.core.trace import Repeat
from attnprof.reports import trace_events
from attnprof.reports.trace_events import dumps, save
from reports.devices import peak, round_device
from reports.trace_event_rules import check, events, nanoseconds, paths, slices
from reports.traces import Hand, mm, stack, tensor, unknown

#: mm(4, 8, 16) on the round device: 1.25 FLOP and 1 byte in a nanosecond, so its traffic takes longer.
FLOPS, BYTES = 2 * 4 * 8 * 16, 4 * (4 * 8 + 8 * 16 + 4 * 16)
VIEW = OpSignature("aten.view.default", (("self", tensor(4, 8, ident=0)),), (tensor(8, 4, ident=1),), view=True)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.up = nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(-1, (2, 8)).transpose(1, 2)
        x = x + nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(-2)
        return x + checkpoint(self.up, x, use_reentrant=False)


@pytest.fixture(scope="module")
def trained() -> attnprof.Report:
    """Two kinds of backward work that is recomputed, an optimizer, memory."""
    model = nn.Sequential(Block(), Block())
    return attnprof.run(model, (torch.randn(2, 8, 16),), optimizer="adamw")


def counted(found: list[dict[str, Any]]) -> Cost:
    """The FLOPs and bytes that the op calls of a trace add up to."""
    total = Cost()
    for event in slices(found, "op"):
        args = event["args"]
        total += args.get("times", 1) * Cost(
            args["matmul FLOPs"] + args.get("recomputed matmul FLOPs", 0),
            args["vector FLOPs"] + args.get("recomputed vector FLOPs", 0),
            read_bytes=args["read bytes"],
            write_bytes=args["written bytes"],
        )
    return total


def sums(cost: Cost) -> tuple[int, int, int, int]:
    return cost.matmul_flops, cost.vector_flops, cost.read_bytes, cost.write_bytes


@pytest.mark.parametrize("device", [None, "h100-sxm"])
def test_a_real_run_is_valid_and_adds_up(trained: attnprof.Report, device: str | None) -> None:
    found = events(dumps(trained, device and attnprof.device(device)))
    assert trained.phases["recompute"].matmul_flops > 0
    assert sums(counted(found)) == sums(trained.total)
    tracks = [e["args"]["name"] for e in found if e["name"] == "thread_name"]
    assert tracks == ["forward", "backward", "recompute", "optimizer"]


def test_the_slices_of_the_model_have_the_costs_of_the_phases(trained: attnprof.Report) -> None:
    found = slices(events(dumps(trained)), "module")
    total = {phase: [0, 0] for phase in trained.phases}
    for event in found:
        if event["args"]["module"] in ("", "(optimizer)"):
            total[event["args"]["phase"]][0] += event["args"]["FLOPs"]
            total[event["args"]["phase"]][1] += event["args"]["bytes"]
    phases = {phase: [cost.flops, cost.bytes] for phase, cost in trained.phases.items()}
    # what a fused attention backward recomputes is in its own slice, in the backward
    again = sum(op.recompute.flops * calls for op, calls in zip(trained.priced, signature_calls(trained), strict=True))
    assert again > 0
    phases["backward"][0] += again
    phases["recompute"][0] -= again
    assert total == phases


def signature_calls(report: attnprof.Report) -> list[int]:
    return [report.trace.event_signatures.count(i) for i in range(len(report.trace.signatures))]


def test_a_training_loop_counts_once_and_adds_up() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with attnprof.profile(model) as counting:
        for _ in range(9):
            model(torch.ones(4, 8)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            counting.step()
    report = counting.report()
    found = events(dumps(report, attnprof.device("h100-sxm")))
    assert sums(counted(found)) == sums(report.total)
    assert [(e["name"], e["args"]) for e in slices(found, "step")] == [
        ("counted step 1", {"steps": 9}),
        ("(after the last step)", {}),
    ]


def test_a_real_run_has_its_memory(trained: attnprof.Report) -> None:
    found = events(dumps(trained))
    live = [e["args"]["bytes"] for e in found if e["name"] == "live memory"]
    kinds = [sum(e["args"].values()) for e in found if e["name"] == "live memory by kind"]
    assert trained.memory is not None
    assert max(live) == trained.memory.peak.bytes
    assert kinds == live
    mark = next(e for e in found if e["name"] == "peak of live memory")
    assert mark["args"] == {
        "bytes": trained.memory.peak.bytes,
        "op": trained.memory.peak.op,
        "module": trained.memory.peak.module,
    }


def test_calls_follow_each_other_by_their_time() -> None:
    small = mm(2, 2, 2)
    report = Hand().add("a").ran("a", mm(4, 8, 16)).ran("a", VIEW).ran("a", small).report()
    found = events(dumps(report, round_device()))
    calls = [(e["name"], nanoseconds(e["ts"]), nanoseconds(e["dur"])) for e in slices(found, "op")]
    assert calls == [("aten.mm.default", 0, BYTES), ("aten.mm.default", BYTES, 4 * 3 * 2 * 2)]
    first = slices(found, "op")[0]["args"]
    assert first == {
        "module": "a",
        "phase": "forward",
        "inputs": "float32[4,8], float32[8,16]",
        "outputs": "float32[4,16]",
        "matmul FLOPs": FLOPS,
        "vector FLOPs": 0,
        "read bytes": 4 * (4 * 8 + 8 * 16),
        "written bytes": 4 * 4 * 16,
        "attainable ns": BYTES,
        "bound": "memory",
    }
    rates = [(nanoseconds(e["ts"]), e["args"]["FLOP/s"]) for e in found if e["name"] == "FLOP/s"]
    # 2 * 2 * 2 * 2 FLOPs in 48 ns; the quotients of small integers are compared as Python rounds them, times 10^9
    assert rates == [(0, FLOPS / BYTES * 1e9), (BYTES, 16 / 48 * 1e9), (BYTES + 48, 0)]


def test_modules_are_around_their_calls() -> None:
    report = stack(layers=2, extra=1).report()
    mm_ = "aten.mm.default"
    forward = [("forward", "Net", "h", f"h.{i}", name, mm_) for i in range(2) for name in ("up", "down")]
    found = paths(events(dumps(report, round_device())))
    assert [path for path in found if path[0] == "forward"] == [
        *forward,
        ("forward", "Net", "h", "h.1", mm_),
        ("forward", "Net", "head", mm_),
    ]
    backward = [
        ("backward", "Net", "h", f"h.{i}", name, mm_) for i in range(2) for name in ("up", "down") for _ in "12"
    ]
    assert [path for path in found if path[0] == "backward"] == [*backward, ("backward", "Net", "head", mm_)]


def test_what_is_in_no_module_is_in_none() -> None:
    report = Hand().ran(None, mm(4, 8, 16), "other").ran("(optimizer)", mm(4, 8, 16), "optimizer_init").report()
    assert paths(events(dumps(report))) == [
        ("other", "(outside)", "aten.mm.default"),
        ("optimizer", "(optimizer)", "aten.mm.default"),
    ]


def test_a_module_ends_where_its_step_and_its_phase_do() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=2).ran("a", mm(4, 8, 16), "backward").ran("a", mm(4, 8, 16))
    hand.trace.steps = [1]
    hand.trace.step_labels = {0: "prefill"}
    found = events(dumps(hand.report(), round_device()))
    spans = [(e["tid"], nanoseconds(e["ts"]), nanoseconds(e["dur"])) for e in slices(found, "module")]
    forward, backward = 2, 3
    starts = [(forward, 0), (forward, BYTES), (backward, 2 * BYTES), (forward, 3 * BYTES)]
    assert spans == [(track, start, BYTES) for track, start in starts for _ in ("Net", "a")]
    steps = [(e["name"], nanoseconds(e["ts"]), nanoseconds(e["dur"])) for e in slices(found, "step")]
    assert steps == [("prefill", 0, BYTES), ("(after the last step)", BYTES, 3 * BYTES)]


def test_repeated_steps_are_not_drawn_again() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=3)
    hand.trace.steps, hand.trace.repeats = [1, 2], [Repeat(1, 2, 1_000_000)]
    report = hand.report()
    found = events(dumps(report, round_device()))
    assert [e["args"].get("times", 1) for e in slices(found, "op")] == [1, 1_000_001, 1]
    assert [e["args"].get("steps", 1) for e in slices(found, "step")] == [1, 1_000_001, 1]
    assert sums(counted(found)) == sums(report.total)
    assert report.total.flops == 1_000_003 * FLOPS


def test_without_a_device_there_is_order_and_no_rate() -> None:
    report = Hand().add("a").ran("a", mm(4, 8, 16)).ran("a", VIEW).ran("a", mm(400, 8, 16)).report()
    text = dumps(report)
    found = events(text)
    assert [(e["ts"], e["dur"]) for e in slices(found, "op")] == [(0, 1), (1, 1)]  # µs
    assert not [e for e in found if e["name"] == "FLOP/s"]
    assert not [e for e in slices(found, "op") if {"attainable ns", "bound"} & e["args"].keys()]
    assert "No time" in json.loads(text)["otherData"]["clock"]


def test_a_call_too_short_to_draw_is_a_mark() -> None:
    fast = round_device(bandwidth_bytes_per_s=4_000 * 10**9, peaks=(peak("matmul", "float32", 10**15),))
    report = Hand().add("a").ran("a", mm(4, 8, 16)).ran("a", mm(400, 8, 16)).report()
    found = events(dumps(report, fast))
    large, small = slices(found, "op")  # both begin at 0, the longer first
    assert (small["ph"], small["s"]) == ("i", "t")
    assert small["args"]["attainable ns"] == BYTES / 4_000  # 0.224, exact: one division
    total = BYTES + 4 * (400 * 8 + 8 * 16 + 400 * 16)  # bytes, 4000 of them in a nanosecond
    assert nanoseconds(large["ts"]) + nanoseconds(large["dur"]) == round(total / 4_000)


def test_work_without_a_rate_takes_no_time_and_has_no_bound() -> None:
    report = Hand().add("a").ran("a", mm(4, 8, 16)).report()
    found = events(dumps(report, round_device(bandwidth_bytes_per_s=None, peaks=())))
    (call,) = slices(found, "op")
    assert call["ph"] == "i"
    assert "bound" not in call["args"]


def test_an_op_without_a_formula_says_so() -> None:
    report = Hand().add("a").ran("a", unknown(n=25)).report()
    (call,) = slices(events(dumps(report, round_device())), "op")
    assert nanoseconds(call["dur"]) == 2 * 25 * 4  # read and written, a byte in a nanosecond
    assert call["args"]["without a formula"].startswith(f"{2 * 25 * 4} bytes")


def test_more_calls_than_a_viewer_holds_are_left_out_and_said() -> None:
    report = Hand().add("a").ran("a", mm(4, 8, 16), times=5).ran("a", VIEW).ran("a", mm(4, 8, 16), times=2).report()
    text = dumps(report, round_device(), most=5)
    found = events(text)
    assert len(slices(found, "op")) == 5
    (mark,) = slices(found, "mark")
    assert (mark["name"], nanoseconds(mark["ts"])) == ("2 more op calls are not shown", 5 * BYTES)
    assert [v for k, v in json.loads(text)["otherData"].items() if "left out" in k] == [2]


def test_random_runs_are_valid() -> None:
    for seed in range(50):
        dice = random.Random(seed)
        hand = Hand()
        names = [""]
        for i in range(6):
            parent = dice.choice(names)
            names.append(f"{parent}.m{i}".lstrip("."))
            hand.add(names[-1])
        for _ in range(60):
            op = VIEW if dice.random() < 0.2 else mm(dice.randint(0, 9), dice.randint(1, 9), dice.randint(1, 9))
            where = dice.choice([*names, None])
            hand.ran(where, op, dice.choice(["forward", "backward", "recompute", "optimizer_init", "other"]))
        hand.trace.steps = sorted(dice.randint(0, 60) for _ in range(dice.randint(0, 4)))
        report = hand.report()
        slow = round_device(bandwidth_bytes_per_s=dice.randint(1, 7 * 10**9))
        for device in (None, slow):
            found = events(dumps(report, device))
            assert sums(counted(found)) == sums(report.total)
        assert len(paths(found)) + sum(e["ph"] == "i" for e in slices(found, "op")) == len(slices(found, "op"))


def test_hostile_names_are_shown_and_do_nothing() -> None:
    tensors = mm(4, 8, 16)
    odd = replace(tensors, outputs=(replace(tensors.out, dtype="float\ud80032"),))
    device = round_device("a\n\ud800")
    for name in ('a"b', "a\nb", "<script>", "a\u202eb", "a\ud800b", "a\\b", "a;b c"):
        report = Hand("Net\0").add(name).ran(name, odd).report()
        found = events(dumps(report, device))
        assert all(e["name"].isprintable() for e in found)
        assert [e["args"]["module"].isprintable() for e in slices(found, "op")] == [True]
        assert dumps(report, device).encode("utf-8")


def test_times_survive_a_reader_that_cuts() -> None:
    dice = random.Random(0)
    for value in [*range(5_000), *(dice.randrange(10**15) for _ in range(5_000))]:  # up to eleven days
        assert nanoseconds(trace_events._microseconds(value)) == value


def test_files_are_the_same_for_the_same_run(tmp_path: Path) -> None:
    report = stack().report()
    for name in ("a.json", "a.json.gz", "b.JSON.GZ"):
        save(report, tmp_path / name, round_device())
    packed = (tmp_path / "a.json.gz").read_bytes()
    assert packed == (tmp_path / "b.JSON.GZ").read_bytes()
    assert packed[4:8] == bytes(4)  # no time in the header
    assert packed[3] == 0  # and no name
    assert gzip.decompress(packed) == (tmp_path / "a.json").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.json.gz", "b.JSON.GZ"]


@pytest.mark.parametrize("name", ["trace.pftrace", "trace", "trace.gz", "trace.json.zip", ".json/t.txt"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AttnprofError, match=r"a Chrome trace is a \.json or \.json\.gz file") as told:
        save(stack().report(), tmp_path / name)
    assert name in str(told.value)
    assert not list(tmp_path.iterdir())


def test_the_report_takes_its_own_device_or_another(tmp_path: Path) -> None:
    report = attnprof.Report(Hand().add("a").ran("a", mm(4, 8, 16)).trace)
    path = tmp_path / "t.json"

    def process() -> str:
        return str(events(path.read_text())[0]["args"]["name"])

    report.to_trace(path)
    assert process() == "Net, in order, without time"
    report.devices = (round_device("one"), round_device("two"))
    report.to_trace(path)
    assert process() == "Net, attainable time on one"
    report.to_trace(path, device="h100-sxm")
    assert process() == "Net, attainable time on h100-sxm"
    with pytest.raises(AttnprofError, match="h100"):
        report.to_trace(path, device="h100-smx")


GOOD = [
    {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "t"}},
    {"name": "a", "ph": "X", "ts": 0, "dur": 2, "pid": 1, "tid": 1},
    {"name": "b", "ph": "X", "ts": 1, "dur": 1, "pid": 1, "tid": 1},
]


@pytest.mark.parametrize(
    "change",
    [{"dur": 1.002}, {"ts": -1}, {"dur": 0}, {"tid": 2}, {"ph": "B"}, {"ts": "1"}, {"ph": "C", "args": {"x": "1"}}],
    ids=str,
)
def test_the_rules_see_a_breach(change: dict[str, Any]) -> None:
    check(GOOD)
    with pytest.raises(AssertionError):
        check([*GOOD[:2], {**GOOD[2], **change}])
