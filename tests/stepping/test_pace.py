"""Achieved FLOP/s, utilisation and rates, from durations made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import attnprof
from attnprof.analysis.pace import Live, Pace, utilisation
from attnprof.capture.clocks import Times
from attnprof.core.cost import Cost
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.timing import SAMPLE, Durations, StepKind, Timing
from attnprof.core.units import Units
from attnprof.reports.pace import sentences

#: FLOPs of one step: 4 rows through a 6 x 8 layer, the backward computing the gradient of the weight alone.
FORWARD = BACKWARD = 2 * 4 * 6 * 8
MODEL = FORWARD + BACKWARD
SECOND = 10**9


def device(**peaks: int) -> DeviceSpec:
    """Peaks in FLOP/s by dtype, and one byte in the time of a FLOP at most."""
    made = tuple(Peak("matmul", dtype, rate, Provenance("quoted")) for dtype, rate in peaks.items())
    return DeviceSpec("mine", "Mine", "me", bandwidth_bytes_per_s=10**15, peaks=made)


def report_of(*durations_ns: int, **told: int) -> attnprof.Report:
    """A run of one layer whose reused steps took so long; ``told`` is what all of them processed."""
    layer = nn.Linear(6, 8, bias=False)
    with attnprof.profile(layer) as prof:
        for _ in range(2):
            layer(torch.ones(4, 6)).sum().backward()
            layer.zero_grad()
            prof.step()
    report = prof.report()
    assert report.trace.timing is not None
    (kind,) = report.trace.timing.kinds
    reused = StepKind(kind.inputs, kind.pieces, 1, len(durations_ns), Durations.of(durations_ns), **told)
    report.trace.timing = Timing((reused,))
    return report


def pace_of(report: attnprof.Report, *devices: DeviceSpec) -> Pace:
    report.devices = devices
    pace = report.pace
    assert pace is not None
    return pace


def test_achieved_flops_are_those_of_the_model_over_the_time() -> None:
    pace = pace_of(report_of(SECOND, 3 * SECOND))
    assert pace.flops_per_s == 2 * MODEL / 4
    assert pace.hardware_flops_per_s == 2 * MODEL / 4
    assert (pace.mfu, pace.hfu, pace.tokens_per_s) == (None, None, None)


def test_utilisation_is_achieved_over_peak() -> None:
    """At twice the model's FLOPs per second, steps of one second use half of the peak."""
    pace = pace_of(report_of(SECOND, SECOND, SECOND), device(float32=2 * MODEL))
    assert (pace.mfu, pace.hfu) == (0.5, 0.5)


def test_each_dtype_at_its_own_peak() -> None:
    """200 FLOPs at 100 per second and 300 at 600 take 2.5 seconds: half of five."""
    split = (("matmul", "bfloat16", 300), ("matmul", "float32", 200), ("vector", "float32", 10**9))
    cost = Cost(matmul_flops=500, vector_flops=10**9, split=split)
    assert utilisation(cost, 5.0, device(float32=100, bfloat16=600)) == 0.5
    assert utilisation(cost, 5.0, device(float32=100)) is None


def test_recomputation_is_the_hardwares_and_not_the_models() -> None:
    """Attention's backward builds its scores again: 2·T·S·dh of each head beside the model's 4 + 8 times T·S·dh."""
    heads, t, dh = 2, 4, 8
    q = torch.ones(1, heads, t, dh, requires_grad=True)

    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    net = Attention()
    with attnprof.profile(net, device=device(float32=10**6)) as prof:
        for _ in range(4):
            net(q).sum().backward()
            q.grad = None
            prof.step()
    pace = prof.report().pace
    assert pace is not None
    unit = heads * t * t * dh
    assert pace.kinds[0].work.model.matmul_flops == (4 + 8) * unit
    assert pace.kinds[0].work.cost.matmul_flops == (4 + 8 + 2) * unit
    assert pace.mfu is not None
    assert pace.hfu is not None
    assert pace.hfu / pace.mfu == pytest.approx(14 / 12)  # two quotients of the same time


def test_tokens_and_samples_per_second() -> None:
    pace = pace_of(report_of(SECOND, 3 * SECOND, tokens=600, samples=8))
    assert (pace.tokens_per_s, pace.samples_per_s) == (150, 2)


def test_more_than_the_peak_is_a_contradiction() -> None:
    report = report_of(*[SECOND] * 5)
    slow = device(float32=MODEL // 2)
    report.devices = (slow,)
    assert report.pace is not None
    found = sentences([report.pace], Units())
    assert [s.partition(":")[0] for s in found if "ontradiction" in s] == ["Contradiction", "Contradiction"]
    assert any("MFU 200.0% is more than all of the peak" in s for s in found)


def test_each_device_has_its_utilisation() -> None:
    """Of the datasheet's peak and of the measured one, side by side."""
    report = report_of(*[SECOND] * 5)
    report.devices = (device(float32=10 * MODEL), replace(device(float32=4 * MODEL), id="measured"))
    text = report.to_table(width=200)
    assert "mine: MFU 10.0%, HFU 10.0% of the dense peaks" in text
    assert "measured: MFU 25.0%, HFU 25.0% of the dense peaks" in text


def test_a_dtype_without_a_peak_is_said() -> None:
    report = report_of(*[SECOND] * 5)
    report.devices = (device(bfloat16=10**12),)
    assert report.pace is not None
    assert (report.pace.mfu, report.pace.hfu) == (None, None)
    assert any("no known matmul peak for float32" in s for s in sentences([report.pace], Units()))


@pytest.mark.parametrize(("durations", "wide"), [([SECOND] * 8, False), ([SECOND, 2 * SECOND] * 4, True)])
def test_a_wide_spread_is_said(durations: list[int], wide: bool) -> None:
    pace = report_of(*durations).pace
    assert pace is not None
    assert (
        any("spreads over 67% of the median" in s or "spreads over 50%" in s for s in sentences([pace], Units()))
        == wide
    )


def test_no_step_was_timed() -> None:
    layer = nn.Linear(6, 8)
    with attnprof.profile(layer) as prof:
        layer(torch.ones(4, 6))
        prof.step()
        assert prof.live() is None
    pace = prof.report().pace
    assert pace is not None
    assert (pace.flops_per_s, pace.main) == (None, None)
    assert sentences([pace], Units()) == [
        "steps: 1; 1 counted, 0 with the counts of one like them, none timed: a step is where one like it was counted "
        "before."
    ]


def test_live_is_the_pace_of_the_latest_steps() -> None:
    layer = nn.Linear(6, 8, bias=False)
    with attnprof.profile(layer, device=device(float32=10**9)) as prof:
        for _ in range(5):
            layer(torch.ones(4, 6)).sum().backward()
            layer.zero_grad()
            prof.step()
        live = prof.live()
    assert live is not None
    assert live.flops_per_s == MODEL / live.step_s
    assert live.mfu == MODEL / 10**9 / live.step_s
    assert str(live).startswith("MFU ")


def test_live_without_a_device_is_a_rate() -> None:
    from attnprof.analysis.pace import StepWork

    work = StepWork(Cost(matmul_flops=3 * 10**9), Cost(matmul_flops=2 * 10**9))
    live = Live.of(work, [SECOND, SECOND, 5 * SECOND], None)
    assert (live.step_s, live.flops_per_s, live.mfu) == (1.0, 2e9, None)
    assert str(live) == "2 GFLOP/s"


def test_of_many_durations_an_even_sample_is_kept() -> None:
    times = Times()
    for ns in range(10 * SAMPLE):
        times.add(ns)
    kept = times.durations()
    assert kept.count == 10 * SAMPLE
    assert kept.total_ns == sum(range(10 * SAMPLE))
    assert SAMPLE // 2 <= len(kept.sample_ns) <= SAMPLE
    strides = {after - before for before, after in zip(kept.sample_ns, kept.sample_ns[1:], strict=False)}
    assert len(strides) == 1


def test_a_saved_run_keeps_its_pace(tmp_path: Any) -> None:
    report = report_of(SECOND, 3 * SECOND, tokens=600)
    report.save(tmp_path / "run.json")
    loaded = attnprof.load(tmp_path / "run.json")
    assert loaded.trace.timing == report.trace.timing
    assert loaded.trace.repeats == report.trace.repeats
    assert loaded.total == report.total
    assert loaded.pace is not None
    assert loaded.pace.tokens_per_s == 150


def test_json_has_the_pace_on_each_device() -> None:
    report = report_of(SECOND, SECOND, SECOND, tokens=30)
    report.devices = (device(float32=4 * MODEL), device(bfloat16=1))
    one, other = json.loads(report.to_json())["paces"]
    assert (one["counted"], one["reused"], one["timed"]) == (1, 3, 3)
    assert (one["mfu"], one["tokens_per_s"], one["model_flops_per_s"]) == (0.25, 10, MODEL)
    assert other["mfu"] is None
    (kind,) = one["kinds"]
    assert (kind["median_s"], kind["model_matmul_flops"]) == (1, MODEL)
