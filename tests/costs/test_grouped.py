"""Grouped products: only the rows, columns or contraction that the offsets hand to some group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnprof.core.cost import Cost
from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta, contiguous_stride
from attnprof.costs.pricing import price
from support import only_op, ops_of

NAME = "aten._grouped_mm"
BF16, OFFSET = 2, 4  # bytes


def cost(run: Callable[[], Any]) -> Cost:
    return price(only_op(run, NAME)).cost


def r(*shape: int, **kwargs: Any) -> Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16, **kwargs)


def ends(sizes: list[int]) -> Tensor:
    return torch.tensor(sizes).cumsum(0).to(torch.int32)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_routed_rows_times_the_experts_that_have_any(sizes: list[int], spare: int) -> None:
    k, n, experts, rows = 16, 8, len(sizes), sum(sizes)
    offsets = ends(sizes)
    found = cost(lambda: torch._grouped_mm(r(rows + spare, k), r(experts, k, n), offs=offsets))
    busy = sum(size > 0 for size in sizes)
    assert found.matmul_flops == sum(2 * size * k * n for size in sizes)  # as that many mm calls
    assert found.read_bytes == BF16 * (rows * k + busy * k * n) + OFFSET * experts
    assert found.write_bytes == BF16 * rows * n


def test_the_backward_cuts_the_contraction() -> None:
    sizes, k, n = [3, 0, 5], 16, 8
    rows, experts = sum(sizes), len(sizes)
    x, w, offsets = r(rows, k, requires_grad=True), r(experts, k, n, requires_grad=True), ends(sizes)
    grad = r(rows, n)
    ops = [op for op in ops_of(lambda: torch._grouped_mm(x, w, offs=offsets).backward(grad)) if op.packet == NAME]
    assert len(ops) == 3  # forward, dX = dY W^T, dW = X^T dY
    assert [price(op).cost.matmul_flops for op in ops] == [2 * rows * k * n] * 3
    weights = next(op for op in ops if len(op.tensor("mat2").shape) == 2)
    assert price(weights).cost.write_bytes == BF16 * experts * k * n  # idle experts get zeros


def test_columns_cut_and_a_plain_batch() -> None:
    sizes, m, k = [8, 16], 8, 16
    found = cost(lambda: torch._grouped_mm(r(2, m, k), r(k, sum(sizes)), offs=ends(sizes)))
    assert found.matmul_flops == 2 * m * k * sum(sizes)
    assert found.write_bytes == BF16 * m * sum(sizes)
    batch = cost(lambda: torch._grouped_mm(r(3, m, k), r(3, k, 8)))
    assert batch.matmul_flops == 3 * 2 * m * k * 8
    assert batch.bytes == BF16 * 3 * (m * k + k * 8 + m * 8)


def test_calls_with_other_offsets_are_other_calls() -> None:
    x, w = r(8, 16), r(2, 16, 8)
    ops = ops_of(lambda: [torch._grouped_mm(x, w, offs=ends(sizes)) for sizes in ([3, 1], [4, 4])])
    found = [price(op).cost.matmul_flops for op in ops if op.packet == NAME]
    assert found == [2 * 4 * 16 * 8, 2 * 8 * 16 * 8]


def test_unknown_offsets_count_every_row() -> None:
    op = only_op(lambda: torch._grouped_mm(r(9, 16), r(2, 16, 8), offs=ends([3, 1])), NAME)
    offsets = replace(op.tensor("offs"), values=None)
    blind = replace(op, args=tuple((name, offsets if name == "offs" else value) for name, value in op.args))
    assert price(blind).cost.matmul_flops == 2 * 9 * 16 * 8


@pytest.mark.parametrize(("dtype", "packed"), [("float8_e4m3fn", 1), ("float4_e2m1fn_x2", 2)])
def test_scaled_groups(dtype: str, packed: int) -> None:
    rows, k, n, sizes = 8, 16, 32, (3, 8)

    def tensor(shape: tuple[int, ...], dtype: str, values: tuple[int, ...] | None = None) -> TensorMeta:
        return TensorMeta(shape, contiguous_stride(shape), dtype, "cuda:0", values=values)

    op = OpSignature(
        "aten._scaled_grouped_mm.default",
        (
            ("self", tensor((rows, k), dtype)),
            ("mat2", tensor((2, k, n), dtype)),
            ("scale_a", tensor((rows,), "float32")),
            ("scale_b", tensor((2, n), "float32")),
            ("offs", tensor((2,), "int32", sizes)),
        ),
        (tensor((rows, n), "bfloat16"),),
    )
    found = price(op).cost
    assert found.matmul_flops == 2 * rows * k * packed * n
    assert found.vector_flops == 2 * rows * n  # one scale per row and per column
