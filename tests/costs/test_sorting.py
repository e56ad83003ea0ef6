"""Sorting, selecting and searching: the model of each in comparisons, and its bytes."""

from __future__ import annotations

import torch

from support import cost_of

F32, I64 = 4, 8  # bytes
M, S = 3, 6
LOG_S = 3  # the least b with 2^b >= 6


def x() -> torch.Tensor:
    return torch.rand(M, S)


def test_a_sort_writes_values_and_indices() -> None:
    cost = cost_of(lambda: x().sort(1), "aten.sort")
    assert cost.vector_flops == M * S * LOG_S
    assert (cost.read_bytes, cost.write_bytes) == (F32 * M * S, (F32 + I64) * M * S)
    assert cost_of(lambda: x().sort(0), "aten.sort").vector_flops == M * S * 2  # three rows
    assert cost_of(lambda: torch.rand(1).sort(), "aten.sort").vector_flops == 0


def test_the_best_few_write_what_they_keep() -> None:
    cost = cost_of(lambda: x().topk(3, 1), "aten.topk")
    assert cost.vector_flops == M * S * 2  # the least b with 2^b >= 3 + 1
    assert (cost.read_bytes, cost.write_bytes) == (F32 * M * S, (F32 + I64) * M * 3)


def test_the_middle_is_the_third_of_six() -> None:
    assert cost_of(lambda: x().median(1), "aten.median").vector_flops == M * S * 2
    assert cost_of(lambda: x().nanmedian(1), "aten.nanmedian").vector_flops == M * S * (2 + 1)  # and a test for NaN
    assert cost_of(lambda: x().kthvalue(1, 1), "aten.kthvalue").vector_flops == M * S


def test_the_mode_sorts_and_compares_neighbours() -> None:
    assert cost_of(lambda: x().mode(1), "aten.mode").vector_flops == M * S * LOG_S + M * (S - 1)


def test_unique_sorts_everything() -> None:
    n = M * S
    run = lambda: torch.unique(torch.arange(n).view(M, S) // 2, return_inverse=True)  # noqa: E731
    cost = cost_of(run, "aten._unique2")
    assert cost.vector_flops == n * 5 + n - 1  # 2^5 >= 18
    assert cost.read_bytes == I64 * n
    run = lambda: torch.unique_consecutive(torch.arange(n) // 2)  # noqa: E731
    assert cost_of(run, "aten.unique_consecutive").vector_flops == n - 1


def test_a_search_halves_the_boundaries() -> None:
    boundaries = torch.arange(7.0)
    cost = cost_of(lambda: torch.bucketize(x(), boundaries), "aten.bucketize")
    assert cost.vector_flops == M * S * 3  # 2^3 >= 7 + 1
    # the 54 probes meet each of the seven boundaries
    assert (cost.read_bytes, cost.write_bytes) == (F32 * (M * S + 7), I64 * M * S)
    value = torch.rand(1)
    cost = cost_of(lambda: torch.searchsorted(boundaries, value), "aten.searchsorted")
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (3, F32 * (1 + 3), I64)  # three probes


def test_counting_adds_one_per_element() -> None:
    assert cost_of(lambda: torch.histc(torch.rand(20), 4, 0, 1), "aten.histc").vector_flops == 20
    # without a range, the least and the largest element are looked for
    assert cost_of(lambda: torch.histc(torch.rand(20), 4), "aten.histc").vector_flops == 20 + 2 * (20 - 1)
    assert cost_of(lambda: torch.bincount(torch.randint(5, (20,))), "aten.bincount").vector_flops == 20
