"""Flame graphs: the weights add up to the report's totals, and the files follow their formats."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attnprof
from attnprof.analysis.flame import WEIGHTS, Stack, stacks
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import Repeat
from attnprof.reports.flame import collapsed, save, speedscope
from reports import speedscope_rules
from reports.devices import round_device
from reports.traces import Hand, mm, stack, unknown

#: What flamegraph.pl takes a line for: everything up to the last space, then the count.
LINE = re.compile(r"(.*)\s+(\d+)")
FLOPS, BYTES = 2 * 4 * 8 * 16, 4 * (4 * 8 + 8 * 16 + 4 * 16)


def read(text: str) -> list[tuple[tuple[str, ...], int]]:
    """Collapsed stacks as flamegraph.pl reads them."""
    lines = [LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    return [(tuple(line[1].split(";")), int(line[2])) for line in lines if line is not None]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.h:
            x = torch.tanh(layer(x))
        q = x.unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(q, q, q)


@pytest.fixture(scope="module")
def trained() -> attnprof.Report:
    return attnprof.run(Net(), (torch.randn(2, 8, 16),), optimizer="adamw")


def test_the_weights_of_a_real_run_add_up(trained: attnprof.Report, tmp_path: Path) -> None:
    assert trained.memory is not None
    totals = {"flops": trained.total.flops, "bytes": trained.total.bytes, "saved": trained.memory.saved_bytes}
    for weight, total in totals.items():
        trained.to_flame(tmp_path / "a.txt", weight)
        trained.to_flame(tmp_path / "a.speedscope.json", weight)
        lines = read((tmp_path / "a.txt").read_text())
        found = speedscope_rules.profile((tmp_path / "a.speedscope.json").read_text())
        assert sum(amount for _, amount in lines) == total > 0
        assert found["stacks"] == lines
        assert found["unit"] == ("none" if weight == "flops" else "bytes")


def test_the_phases_of_a_real_run_add_up(trained: attnprof.Report) -> None:
    found = dict.fromkeys(trained.phases, 0)
    for one in stacks(trained, "flops"):
        found[one.frames[0]] += one.weight
    assert found == {phase: cost.flops for phase, cost in trained.phases.items()}
    assert found["recompute"] > 0


def test_the_saved_memory_is_by_module(trained: attnprof.Report) -> None:
    assert trained.memory is not None
    saved = trained.memory.saved_by_module(inclusive=False)
    found = {one.frames: one.weight for one in stacks(trained, "saved")}
    assert found[("forward", "Net")] == saved[""]
    assert found[("forward", "Net", "h", "h.0")] == saved["h.0"] == 2 * 8 * 16 * 4  # its input; the others' is tanh's


def test_stacks_are_phase_modules_op() -> None:
    found = stacks(stack(layers=2, extra=1).report())
    mm_ = "aten.mm.default"
    assert found == [
        *(Stack(("forward", "Net", "h", "h.0", name, mm_), FLOPS) for name in ("up", "down")),
        Stack(("forward", "Net", "h", "h.1", mm_), FLOPS),
        *(Stack(("forward", "Net", "h", "h.1", name, mm_), FLOPS) for name in ("up", "down")),
        Stack(("forward", "Net", "head", mm_), 2 * 4 * 8 * 100),
        *(
            Stack(("backward", "Net", "h", f"h.{i}", name, mm_), 2 * 2 * 8 * 4 * 16)
            for i in range(2)
            for name in ("up", "down")
        ),
        Stack(("backward", "Net", "head", mm_), 2 * 4 * 100 * 8),
    ]


def test_names_and_what_is_in_no_module() -> None:
    hand = Hand("Sequential").add("0").add("0.1").ran("0", mm(4, 8, 16)).ran("0.1", mm(4, 8, 16))
    hand.ran(None, mm(4, 8, 16), "other").ran("(optimizer)", mm(4, 8, 16), "optimizer_init")
    assert [one.frames[:-1] for one in stacks(hand.report())] == [
        ("forward", "Sequential", "Sequential.0"),
        ("forward", "Sequential", "Sequential.0", "Sequential.0.1"),
        ("optimizer", "(optimizer)"),
        ("other", "(outside)"),
    ]


def test_steps_like_the_counted_ones_weigh_too() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=3)
    hand.trace.repeats = [Repeat(0, 2, 10)]
    report = hand.report()
    assert [one.weight for one in stacks(report, "flops")] == [23 * FLOPS] == [report.total.flops]


def test_time_is_that_of_the_device() -> None:
    report = Hand().add("a").add("b").ran("a", mm(4, 8, 16), times=2).ran("b", unknown(n=25)).report()
    found = stacks(report, "time", round_device())  # a byte in a nanosecond, and traffic bounds both
    assert [one.weight for one in found] == [2 * BYTES, 2 * 25 * 4]
    assert sum(one.weight for one in found) / 10**9 == report.roofline_on(round_device()).total.attainable.seconds


def test_times_of_parts_of_a_nanosecond_add_up() -> None:
    hand = Hand()
    for i in range(7):
        hand.add(f"m{i}").ran(f"m{i}", mm(4, 8, 16))
    found = stacks(hand.report(), "time", round_device(bandwidth_bytes_per_s=1_500_000_000, peaks=()))
    assert sum(one.weight for one in found) == round(7 * BYTES / 1.5)  # 4181.33
    assert {one.weight for one in found} == {BYTES * 2 // 3, BYTES * 2 // 3 + 1}


def test_what_weighs_nothing_is_left_out() -> None:
    report = Hand().add("a").ran("a", mm(4, 8, 16)).ran("a", unknown()).report()
    assert [one.frames[-1] for one in stacks(report)] == ["aten.mm.default"]


@pytest.mark.parametrize("name", ["a;b", "a b", "a\nb", "a 5", "a\rb\tc", "<b>", '"', "a\u202eb", "a\ud800", "#a", " "])
def test_hostile_names_keep_a_line_a_stack(name: str) -> None:
    report = Hand().add(name).ran(name, mm(4, 8, 16)).add("b").ran("b", mm(4, 8, 16)).report()
    text = collapsed(stacks(report))
    assert text.encode("utf-8")
    assert text.count("\n") == 2
    found = read(text)
    assert [(len(frames), weight) for frames, weight in found] == [(4, FLOPS), (4, FLOPS)]
    assert all(len(line.split()) == 2 for line in text.splitlines())
    assert found[0][0][2].isprintable()
    frames = speedscope_rules.profile(speedscope(stacks(report), "flops", name))["stacks"][0][0]
    assert all(frame.isprintable() for frame in frames)


def test_the_escapes_are_those_of_python() -> None:
    assert collapsed([Stack(("a;b", "c d", "e\n"), 3)]) == "a\\x3bb;c\\x20d;e\\n 3\n"


def test_equal_names_are_one_frame() -> None:
    content = json.loads(speedscope(stacks(stack(layers=3).report()), "flops", "t"))
    names = [frame["name"] for frame in content["shared"]["frames"]]
    assert len(names) == len(set(names))
    assert names.count("up") == 1


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        ("flop", r'weight "flop" is not one of flops, bytes, saved, time\. Did you mean flops\?'),
        ("time", "time is the least on a device: name one"),
        ("saved", "memory was not tracked in this run"),
    ],
)
def test_weights_that_cannot_be_are_refused(tmp_path: Path, weight: str, told: str) -> None:
    with pytest.raises(AttnprofError, match=told):
        save(stack().report(), tmp_path / "a.txt", weight)
    assert not list(tmp_path.iterdir())


def test_a_run_of_no_weight_is_refused(tmp_path: Path) -> None:
    device = round_device(bandwidth_bytes_per_s=None, peaks=())
    report = Hand().add("a").ran("a", unknown()).report()
    for weight in WEIGHTS:
        if weight != "saved":
            with pytest.raises(AttnprofError, match=f"no flame graph of this run by {weight}: nothing in it"):
                save(report, tmp_path / "a.txt", weight, device)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.svg", "a", "a.json.gz", ".txt/a.html"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AttnprofError, match=r"a flame graph is a \.txt, .* none of them\.$"):
        save(stack().report(), tmp_path / name)


def test_the_report_takes_its_own_device_or_another(tmp_path: Path) -> None:
    report = attnprof.Report(Hand().add("a").ran("a", mm(4, 8, 16)).trace)
    report.devices = (round_device("one"),)
    report.to_flame(tmp_path / "a.json", "time")
    found = speedscope_rules.profile((tmp_path / "a.json").read_text())
    assert (found["name"], found["unit"]) == ("Net: attainable time on one", "nanoseconds")
    assert found["endValue"] == BYTES
    report.to_flame(tmp_path / "a.json", "time", device=round_device("two", bandwidth_bytes_per_s=10**8, peaks=()))
    assert speedscope_rules.profile((tmp_path / "a.json").read_text())["endValue"] == 10 * BYTES


@pytest.mark.parametrize("how", ["index", "weights", "unit", "end", "frame"])
def test_the_rules_see_a_breach(how: str) -> None:
    content: dict[str, Any] = json.loads(speedscope(stacks(stack().report()), "flops", "t"))
    speedscope_rules.check(content)
    broken = copy.deepcopy(content)
    profile, frames = broken["profiles"][0], broken["shared"]["frames"]
    {
        "index": lambda: profile["samples"][0].append(len(frames)),
        "weights": lambda: profile["weights"].pop(),
        "unit": lambda: profile.update(unit="FLOPs"),
        "end": lambda: profile.update(endValue=profile["endValue"] - 1),
        "frame": lambda: frames.append({"name": "never"}),
    }[how]()
    with pytest.raises(AssertionError):
        speedscope_rules.check(broken)
