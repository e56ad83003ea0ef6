"""Fourier transforms against the radix-2 recursion, which counts itself."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fft

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of


def cost(run: Callable[[], Any], name: str) -> Cost:
    found = price(only_op(run, name)).cost
    assert found.matmul_flops == 0
    return found


def radix_2(n: int) -> int:
    """Real operations of the recursion: two halves, then n / 2 butterflies of a product (6) and two sums (2 each)."""
    return 0 if n == 1 else 2 * radix_2(n // 2) + n // 2 * (6 + 2 + 2)


powers = st.integers(0, 5).map(lambda e: 2**e)


def complex_(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64)


@given(st.integers(1, 3), powers, powers)
@settings(max_examples=20, deadline=None)
def test_complex_transforms_run_a_pass_per_dimension(batch: int, m: int, n: int) -> None:
    x = complex_(batch, m, n)
    one = cost(lambda: fft.fft(x), "aten._fft_c2c")
    assert one.vector_flops == batch * m * radix_2(n)
    two = cost(lambda: fft.fft2(x), "aten._fft_c2c")
    assert two.vector_flops == batch * (m * radix_2(n) + n * radix_2(m))
    assert (two.read_bytes, two.write_bytes) == (8 * x.numel(), 8 * x.numel())


@given(st.integers(1, 3), powers, powers.filter(lambda n: n > 1))
@settings(max_examples=20, deadline=None)
def test_real_transforms_take_half_and_keep_half(batch: int, m: int, n: int) -> None:
    x = torch.randn(batch, m, n)
    kept = n // 2 + 1
    one = cost(lambda: fft.rfft(x), "aten._fft_r2c")
    assert one.vector_flops == batch * m * radix_2(n) // 2
    two = cost(lambda: fft.rfft2(x), "aten._fft_r2c")
    assert two.vector_flops == batch * (m * radix_2(n) // 2 + kept * radix_2(m))
    assert (two.read_bytes, two.write_bytes) == (4 * batch * m * n, 8 * batch * m * kept)
    back = cost(lambda: fft.irfft2(complex_(batch, m, kept), s=(m, n), norm="forward"), "aten._fft_c2r")
    assert back.vector_flops == two.vector_flops


def test_a_two_sided_result_repeats_conjugates_for_nothing() -> None:
    x = torch.randn(3, 8)
    one, two = (cost(lambda run=run: run(x), "aten._fft_r2c") for run in (fft.rfft, fft.fft))
    assert one.vector_flops == two.vector_flops == 3 * radix_2(8) // 2
    assert two.write_bytes == 8 * 3 * 8


@pytest.mark.parametrize("norm", ["ortho", "forward"])
def test_normalising_multiplies_every_real_number_once(norm: str) -> None:
    x, batch, n = complex_(3, 8), 3, 8
    assert cost(lambda: fft.fft(x, norm=norm), "aten._fft_c2c").vector_flops == batch * (radix_2(n) + 2 * n)
    real = cost(lambda: fft.rfft(torch.randn(batch, n), norm=norm), "aten._fft_r2c")
    assert real.vector_flops == batch * (radix_2(n) // 2 + 2 * (n // 2 + 1))
    back = cost(lambda: fft.irfft(complex_(batch, 5)), "aten._fft_c2r")  # "backward" normalises the inverse
    assert back.vector_flops == batch * (radix_2(n) // 2 + n)


@pytest.mark.parametrize("n", [3, 6, 7, 12])
def test_other_lengths_are_the_same_expression_rounded(n: int) -> None:
    found = cost(lambda: fft.fft(complex_(4, n)), "aten._fft_c2c").vector_flops
    each, remainder = divmod(found, 4)
    assert remainder == 0
    assert abs(each - 5 * n * log2(n)) <= 0.5  # rounding to the nearest integer moves it by at most that


def test_the_backward_of_a_real_transform_is_a_complex_one() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    ops = ops_of(lambda: fft.rfft(x).abs().sum().backward())
    found = {op.packet: price(op).cost.vector_flops for op in ops if "_fft_" in op.op}
    assert found == {"aten._fft_r2c": 3 * radix_2(8) // 2, "aten._fft_c2c": 3 * radix_2(8)}
