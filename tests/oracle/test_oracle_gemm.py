"""Matrix products in every layout, real and complex."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_gemm as ref
from oracle.agreement import agree
from oracle.layouts import few, more, tensors

aten = torch.ops.aten
SIZE = st.integers(1, 4)


def _operand(draw: Any, shape: list[int], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return draw(tensors(shape, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex128])
@few
@given(b=SIZE, m=SIZE, k=SIZE, n=SIZE, data=st.data())
def test_products(dtype: torch.dtype, b: int, m: int, k: int, n: int, data: st.DataObject) -> None:
    def draw(*shape: int) -> torch.Tensor:
        return _operand(data.draw, list(shape), dtype)

    agree(aten.mm.default, draw(m, k), draw(k, n), by=ref.mm)
    agree(aten.bmm.default, draw(b, m, k), draw(b, k, n), by=ref.bmm)
    agree(aten.mv.default, draw(m, k), draw(k), by=ref.mv)
    agree(aten.dot.default, draw(k), draw(k), by=ref.dot)


@few
@given(m=SIZE, k=SIZE)
def test_a_matrix_times_its_transpose_is_two_tensors(m: int, k: int) -> None:
    a = torch.randn(m, k, dtype=torch.float64)
    agree(aten.mm.default, a, torch.randn(m, k, dtype=torch.float64).t(), by=ref.mm)


@pytest.mark.parametrize("alpha", [1, 0.5])
@pytest.mark.parametrize("beta", [1, 2, 0])
@few
@given(b=SIZE, m=SIZE, k=SIZE, n=SIZE, data=st.data())
def test_products_with_a_bias(alpha: float, beta: float, b: int, m: int, k: int, n: int, data: st.DataObject) -> None:
    def draw(*shape: int) -> torch.Tensor:
        return _operand(data.draw, list(shape))

    scales = {"beta": beta, "alpha": alpha}
    bias = data.draw(st.sampled_from([(n,), (m, n), (1, n), (m, 1)]))
    agree(aten.addmm.default, draw(*bias), draw(m, k), draw(k, n), **scales, by=ref.addmm)
    agree(
        aten.baddbmm.default,
        draw(b, *bias[-2:]) if len(bias) > 1 else draw(*bias),
        draw(b, m, k),
        draw(b, k, n),
        **scales,
        by=ref.baddbmm,
    )
    agree(aten.addbmm.default, draw(*bias), draw(b, m, k), draw(b, k, n), **scales, by=ref.addbmm)
    agree(aten.addmv.default, draw(m), draw(m, k), draw(k), **scales, by=ref.addmv)
    agree(aten.addr.default, draw(*bias), draw(m), draw(n), **scales, by=ref.addr)


@few
@given(m=SIZE, k=SIZE, n=SIZE)
def test_complex_bias(m: int, k: int, n: int) -> None:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.complex128)

    agree(aten.addmm.default, draw(n), draw(m, k), draw(k, n), by=ref.addmm)


@few
@given(m=SIZE, k=SIZE, n=SIZE)
def test_int8(m: int, k: int, n: int) -> None:
    a, b = (torch.randint(-5, 5, shape, dtype=torch.int8) for shape in ([m, k], [k, n]))
    agree(aten._int_mm.default, a, b, by=ref.int_mm)


@more
@given(k=st.sampled_from([8, 16]), n=st.sampled_from([8, 16]), rows=st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_grouped_products_skip_experts_without_rows(k: int, n: int, rows: list[int]) -> None:
    a = torch.randn(sum(rows), k).bfloat16()
    b = torch.randn(len(rows), k, n).bfloat16()
    offs = torch.tensor(rows).cumsum(0).int()
    agree(aten._grouped_mm.default, a, b, offs, by=ref.grouped_mm)
