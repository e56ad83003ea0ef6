"""Pools, windows and resampling: taps counted, positions no window sees not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as fn

from support import cost_of, traffic_of

F32, I64 = 4, 8  # bytes
B, C, H = 2, 3, 9
PLANES = B * C


def x() -> torch.Tensor:
    return torch.randn(B, C, H, H, requires_grad=True)


def flops(run: Callable[[], Any], name: str) -> int:
    return cost_of(run, name).vector_flops


def test_max_pool_compares_and_keeps_indices() -> None:
    results, name = PLANES * 3 * 3, "aten.max_pool2d_with_indices"
    cost = cost_of(lambda: fn.max_pool2d(x(), 3), name)
    assert cost.vector_flops == results * (3 * 3 - 1)
    assert (cost.read_bytes, cost.write_bytes) == (PLANES * H * H * F32, results * (F32 + I64))
    run = lambda: (fn.max_pool2d(x(), 3) * 2).sum().backward()  # noqa: E731
    back = cost_of(run, name + "_backward")
    assert back.vector_flops == results
    assert (back.read_bytes, back.write_bytes) == (results * (F32 + I64), PLANES * H * H * F32)


def test_windows_further_apart_than_wide_skip_positions() -> None:
    # 0, 2, 4, 6, 8 along each dimension
    assert traffic_of(lambda: fn.avg_pool2d(x(), 1, 2), "aten.avg_pool2d")[0] == PLANES * 5 * 5 * F32
    # a dilated window of 2 at 0 and 5: positions 0, 3, 5, 8
    run = lambda: fn.max_pool2d(x(), 2, 5, dilation=3)  # noqa: E731
    assert traffic_of(run, "aten.max_pool2d_with_indices")[0] == PLANES * 4 * 4 * F32


def test_avg_pool_adds_and_divides() -> None:
    results = PLANES * 5 * 5
    assert flops(lambda: fn.avg_pool2d(x(), 3, 2, padding=1), "aten.avg_pool2d") == results * 3 * 3
    run = lambda: fn.avg_pool2d(x(), 3, 2, padding=1).sum().backward()  # noqa: E731
    assert flops(run, "aten.avg_pool2d_backward") == results * (1 + 3 * 3)


def test_adaptive_pools_have_windows_of_their_own() -> None:
    # 9 into 4: [0, 3) [2, 5) [4, 7) [6, 9); 9 into 2: [0, 5) [4, 9)
    taps = PLANES * (3 + 3 + 3 + 3) * (5 + 5)
    assert flops(lambda: fn.adaptive_avg_pool2d(x(), (4, 2)), "aten._adaptive_avg_pool2d") == taps
    run = lambda: fn.adaptive_max_pool2d(x(), (4, 2))  # noqa: E731
    assert flops(run, "aten.adaptive_max_pool2d") == taps - PLANES * 4 * 2
    run = lambda: fn.adaptive_avg_pool2d(x(), (4, 2)).sum().backward()  # noqa: E731
    assert flops(run, "aten._adaptive_avg_pool2d_backward") == PLANES * 4 * 2 + taps


def test_unfold_and_fold() -> None:
    columns = PLANES * 3 * 3 * 4 * 4
    cost = cost_of(lambda: fn.unfold(x(), 3, stride=2), "aten.im2col")
    assert (cost.vector_flops, cost.write_bytes) == (0, columns * F32)
    assert flops(lambda: (fn.unfold(x(), 3, stride=2) * 2).sum().backward(), "aten.col2im") == columns


def test_interpolation_is_a_weighted_sum_per_dimension() -> None:
    out = PLANES * 12 * 12
    up = lambda mode: lambda: fn.interpolate(x(), (12, 12), mode=mode)  # noqa: E731
    assert flops(up("nearest"), "aten.upsample_nearest2d") == 0
    assert flops(up("bilinear"), "aten.upsample_bilinear2d") == out * (3 + 3 + 3)  # two rows, then between them
    assert flops(up("bicubic"), "aten.upsample_bicubic2d") == out * (4 * 7 + 7)
    line = torch.randn(1, 2, 5)
    assert flops(lambda: fn.interpolate(line, 8, mode="linear"), "aten.upsample_linear1d") == 2 * 8 * 3
    back = lambda mode: lambda: fn.interpolate(x(), (12, 12), mode=mode).sum().backward()  # noqa: E731
    assert flops(back("nearest"), "aten.upsample_nearest2d_backward") == out
    # times the rows' weights 2, times the columns' 4, added at 4
    assert flops(back("bilinear"), "aten.upsample_bilinear2d_backward") == out * (2 + 4 + 4)


def test_shrinking_looks_at_what_it_needs() -> None:
    run = lambda: fn.interpolate(x(), (3, 3), mode="nearest")  # noqa: E731
    assert traffic_of(run, "aten.upsample_nearest2d")[0] == PLANES * 3 * 3 * F32
    # centres 1, 4, 7 fall on positions; the right neighbour has weight 0 but is read
    run = lambda: fn.interpolate(x(), (3, 3), mode="bilinear")  # noqa: E731
    assert traffic_of(run, "aten.upsample_bilinear2d")[0] == PLANES * 6 * 6 * F32


def test_antialiasing_widens_the_filter_when_shrinking() -> None:
    line = torch.randn(1, 1, 6, 6)
    run = lambda: fn.interpolate(line, (3, 3), mode="bilinear", antialias=True)  # noqa: E731
    # scale 2, support 2 around 1, 3, 5: positions [0, 3), [1, 5), [3, 6): 3 + 4 + 3 taps
    across, down = 6 * (3 + 4 + 3), 3 * (3 + 4 + 3)
    assert flops(run, "aten._upsample_bilinear2d_aa") == (2 * across - 6 * 3) + (2 * down - 3 * 3)


def test_grid_sample_positions_are_per_sample() -> None:
    grid = torch.rand(B, 4, 4, 2) * 2 - 1
    samples, out = B * 16, PLANES * 16
    # ((c + 1) n - 1) / 2 is 4 per coordinate; d and 1 - d; 4 corner weights; then 4 products and 3 sums
    run = lambda: fn.grid_sample(x(), grid, align_corners=False)  # noqa: E731
    assert flops(run, "aten.grid_sampler_2d") == samples * (2 * 4 + 2 * 2 + 4) + out * 7
