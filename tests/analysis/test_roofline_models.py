"""The roofline of real models, and of products and attention whose times are known in closed form.

N tokens of one head of width d in float16, on an A100: 312 TFLOP/s on its matrix units, 2 TB/s. Its ridge is
156 FLOP/B.
"""
# ruff: noqa: N803, N806 (the symbols are those of the formulas)

from __future__ import annotations

import math
import runpy
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attnprof
from analysis.devices import GIGA, peak, toy, whole_ns
from attnprof.analysis.report import Report
from attnprof.core.device import DeviceSpec
from attnprof.hardware.catalog import device
from attnprof.hardware.overrides import override

EXAMPLES = Path(__file__).parents[2] / "examples"
PEAK, BANDWIDTH = 312 * 10**12, 2 * 10**12


@pytest.fixture(scope="module")
def a100() -> DeviceSpec:
    return override(device("a100-80gb-sxm"), bandwidth=str(BANDWIDTH))


class Explicit(nn.Module):
    """softmax(QKᵀ)V as separate ops."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT, -1) @ v


def attention(N: int, d: int) -> Report:
    with attnprof.fake_tensors():
        x = [torch.empty(N, d, dtype=torch.float16) for _ in range(3)]
    return attnprof.run(Explicit(), x, fake=True)


@pytest.mark.parametrize(("N", "d", "ratio"), [(8192, 64, 4.9), (8192, 128, 2.5), (512, 64, 5.5)])
def test_explicit_attention_waits_for_memory_at_every_length(a100: DeviceSpec, N: int, d: int, ratio: float) -> None:
    """The scores are written, read, written and read: 4 N^2 elements, and 4 N d of Q, K, V and O; 4 N^2 d FLOPs."""
    total = attention(N, d).roofline_on(a100).total
    moved, flops = 2 * (4 * N * N + 4 * N * d), 4 * N * N * d
    assert (total.cost.bytes, total.cost.matmul_flops) == (moved, flops)
    assert (total.attainable.compute_s, total.attainable.memory_s) == (0, moved / BANDWIDTH)
    times = Fraction(moved, BANDWIDTH) / Fraction(flops, PEAK)
    assert times == Fraction(312 * (N + d), N * d)
    assert round(float(times), 1) == ratio


def test_tiled_attention_would_be_bound_by_compute(a100: DeviceSpec) -> None:
    """Its footprint is Q, K, V and O alone: 4 N d elements, where the FLOPs take longer."""
    N, d = 8192, 64
    total = attention(N, d).roofline_on(a100).total
    assert total.footprint_bytes == 2 * 4 * N * d
    vector = N * (5 * N - 2)  # the softmax, which PyTorch computes in float32
    assert total.cost.vector_flops == vector
    rate = a100.peak("float32", "vector")
    assert rate is not None
    assert total.fused_s == float(Fraction(4 * N * N * d, PEAK) + Fraction(vector, rate))


@pytest.mark.parametrize(
    ("name", "bandwidth", "dtype", "ridge"),
    [("a100-80gb-sxm", "2TB/s", "float16", 156.0), ("h100-sxm", "3.35TB/s", "bfloat16", 989.4 / 3.35)],
)
def test_ridge_points(name: str, bandwidth: str, dtype: str, ridge: float) -> None:
    x = torch.ones(4, 4, dtype=getattr(torch, dtype))
    found = (
        attnprof.run(nn.Linear(4, 4).to(x.dtype), (x,)).roofline_on(override(device(name), bandwidth=bandwidth)).ridge
    )
    assert found is not None
    assert (found.engine, found.dtype) == ("matmul", dtype)
    assert found.flops_per_byte == pytest.approx(ridge, rel=2**-52)  # the quotient of the figures in TFLOP/s, rounded


def test_from_how_many_rows_on_a_product_is_bound_by_compute(a100: DeviceSpec) -> None:
    """m d / (2 m + d) FLOP/B for [m, d] x [d, d] in float16; 156 of them from m = 156 d / (d - 2 * 156) on."""
    d = 4096
    least = math.floor(Fraction(156 * d, d - 2 * 156)) + 1
    assert least == 169
    for m, bound in ((least - 1, "memory"), (least, "compute")):
        with attnprof.fake_tensors():
            layer = nn.Linear(d, d, bias=False, dtype=torch.float16)
            x = torch.empty(m, d, dtype=torch.float16)
        assert attnprof.run(layer, (x,), fake=True).roofline_on(a100).total.bound == bound


@pytest.mark.parametrize("overhead", [None, 2_000])
def test_the_example_adds_up(overhead: int | None) -> None:
    """Forward, backward with a fused attention that rebuilds its scores, and the optimizer: in whole nanoseconds."""
    build = runpy.run_path(str(EXAMPLES / "tiny_gpt.py"))["build"]
    target = build()
    report = attnprof.run(target[0], target[1], backward=True, optimizer="adamw", fake=True)
    integers = [peak("vector", dtype) for dtype in ("int64", "bool")]
    roofline = report.roofline_on(toy(*integers, launch_overhead_ns=overhead))
    assert roofline.missing == []
    assert roofline.notes == []
    total = whole_ns(roofline.total.attainable)
    assert sum(total) == round(roofline.total.attainable.seconds * GIGA)
    assert (total[2] > 0) == (overhead is not None)
    own = roofline.by_module(inclusive=False)
    for found in (own, roofline.by_phase, roofline.by_operator()):
        parts = [whole_ns(point.attainable) for point in found.values()]  # type: ignore[attr-defined]
        assert tuple(map(sum, zip(*parts, strict=True))) == total
    assert roofline.total.attainable.seconds >= max(report.total.flops, report.total.bytes) / GIGA
