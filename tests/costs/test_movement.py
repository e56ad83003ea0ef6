"""Copies, pads, creations, fills and views: bytes without arithmetic, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as fn

from attnprof.costs.pricing import price
from support import cost_of, only_op, ops_of, traffic_of

F32, F16, I64 = 4, 2, 8  # bytes
R, C = 4, 6
N = R * C
x = torch.randn(R, C)


def moves(run: Callable[[], Any], name: str) -> tuple[int, int]:
    cost = cost_of(run, name)
    assert cost.flops == 0
    return cost.read_bytes, cost.write_bytes


def test_copies_read_and_write_everything() -> None:
    assert moves(x.clone, "aten.clone") == (N * F32, N * F32)
    assert moves(lambda: x.to(torch.float16), "aten._to_copy") == (N * F32, N * F16)
    assert moves(lambda: torch.cat([x, x[:2]]), "aten.cat") == ((N + 2 * C) * F32, (N + 2 * C) * F32)
    assert moves(lambda: x.repeat(3, 1), "aten.repeat") == (N * F32, 3 * N * F32)
    assert moves(lambda: x.flip(0), "aten.flip") == (N * F32, N * F32)


def test_an_expanded_tensor_is_stored_once() -> None:
    assert moves(lambda: x[:1].expand(R, C).clone(), "aten.clone") == (C * F32, N * F32)


def test_copy_does_not_look_at_what_it_replaces() -> None:
    target = torch.empty(R, C)
    assert moves(lambda: target.copy_(x), "aten.copy_") == (N * F32, N * F32)
    assert moves(lambda: target.copy_(x[0]), "aten.copy_") == (C * F32, N * F32)


def test_fills_and_draws_only_write() -> None:
    target = torch.empty(R, C)
    for fill in ("zero_", "uniform_", "normal_", "exponential_", "random_", "bernoulli_"):
        assert moves(getattr(target, fill), f"aten.{fill}") == (0, N * F32), fill
    assert moves(lambda: target.fill_(3.0), "aten.fill_") == (0, N * F32)
    assert moves(lambda: target.fill_(x[0, 0]), "aten.fill_") == (F32, N * F32)
    assert moves(lambda: target.bernoulli_(x.sigmoid()), "aten.bernoulli_") == (N * F32, N * F32)
    assert moves(lambda: torch.bernoulli(x.sigmoid()), "aten.bernoulli") == (N * F32, N * F32)


def test_creations_look_at_shapes_only() -> None:
    assert moves(lambda: torch.zeros(R, C), "aten.zeros") == (0, N * F32)
    assert moves(lambda: torch.arange(R), "aten.arange") == (0, R * I64)
    assert moves(lambda: torch.ones_like(x), "aten.ones_like") == (0, N * F32)
    assert moves(lambda: torch.randn_like(x), "aten.randn_like") == (0, N * F32)
    assert moves(lambda: x.new_zeros(3), "aten.new_zeros") == (0, 3 * F32)
    assert moves(lambda: torch.full((R, C), 2.0), "aten.full") == (0, N * F32)


FREE: list[tuple[Callable[[], Any], str]] = [
    (lambda: torch.empty(R, C), "aten.empty"),
    (lambda: torch.empty_like(x), "aten.empty_like"),
    (lambda: x.new_empty(3), "aten.new_empty"),
    (lambda: torch.ops.aten._unsafe_view(x, [N]), "aten._unsafe_view"),
    (lambda: x.unsafe_split(2), "aten.unsafe_split"),
    (lambda: x.clone().unsqueeze_(0), "aten.unsqueeze_"),
    (lambda: x.clone().transpose_(0, 1), "aten.transpose_"),
    (lambda: x.view(N), "aten.view"),
    (lambda: x.t(), "aten.t"),
    (lambda: x[1:], "aten.slice"),
    (lambda: x.expand(2, R, C), "aten.expand"),
    (lambda: x.detach(), "aten.detach"),
]


@pytest.mark.parametrize(("run", "name"), FREE, ids=[name for _, name in FREE])
def test_free(run: Callable[[], Any], name: str) -> None:
    assert price(only_op(run, name)).status == "free"


def test_item_reads_one_element() -> None:
    assert moves(lambda: torch.tensor([3.0]).item(), "aten._local_scalar_dense") == (F32, 0)


def test_triangles_are_read_alone() -> None:
    lower = 1 + 2 + 3 + 4  # of 4 x 6, up to the diagonal
    assert moves(lambda: x.tril(), "aten.tril") == (lower * F32, N * F32)
    assert moves(lambda: x.triu(1), "aten.triu") == ((N - lower) * F32, N * F32)
    assert moves(lambda: x.clone().tril_(), "aten.tril_") == (0, (N - lower) * F32)


def test_pads_write_more_and_crops_read_less() -> None:
    assert moves(lambda: fn.pad(x, (1, 2)), "aten.constant_pad_nd") == (N * F32, R * (C + 3) * F32)
    crop = lambda: fn.pad(x, (-1, 2, 0, -2))  # noqa: E731
    assert moves(crop, "aten.constant_pad_nd") == ((R - 2) * (C - 1) * F32, (R - 2) * (C + 1) * F32)


def test_gradients_of_slices_are_written_whole() -> None:
    leaf = x.clone().requires_grad_()
    run = lambda: (leaf[1:3] * 2).sum().backward()  # noqa: E731
    assert moves(run, "aten.slice_backward") == (2 * C * F32, N * F32)
    run = lambda: (leaf[1] * 2).sum().backward()  # noqa: E731
    assert moves(run, "aten.select_backward") == (C * F32, N * F32)


def test_gradient_of_a_window_adds_where_windows_overlap() -> None:
    leaf = torch.randn(7, requires_grad=True)
    run = lambda: (leaf.unfold(0, 3, 2) * 2).sum().backward()  # noqa: E731
    cost = cost_of(run, "aten.unfold_backward")
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (3 * 3, 3 * 3 * F32, 7 * F32)


def test_edge_pads() -> None:
    leaf = torch.randn(1, 1, 5, requires_grad=True)
    assert traffic_of(lambda: fn.pad(leaf, (2, 1), "reflect"), "aten.reflection_pad1d") == (5 * F32, 8 * F32)
    run = lambda: (fn.pad(leaf, (2, 1), "reflect") * 2).sum().backward()  # noqa: E731
    cost = cost_of(run, "aten.reflection_pad1d_backward")
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (8, 8 * F32, 5 * F32)


def test_an_optimizer_step_announces_itself_for_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    step = torch.optim.SGD([parameter], lr=0.1).step
    assert {price(op).status for op in ops_of(step) if op.op.startswith("profiler.")} == {"free"}
