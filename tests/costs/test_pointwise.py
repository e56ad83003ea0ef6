"""Pointwise arithmetic: one definition per op, whatever the overload, the broadcast and the dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from support import cost_of, traffic_of

N = 3 * 5
F32, C64 = 4, 8  # bytes
x, y = torch.rand(3, 5) + 0.5, torch.rand(3, 5) + 0.5
z, w = torch.randn(3, 5, dtype=torch.complex64), torch.randn(3, 5, dtype=torch.complex64)
i = torch.randint(1, 9, (3, 5))


def flops(run: Callable[[], Any], name: str) -> int:
    cost = cost_of(run, name)
    assert cost.matmul_flops == 0
    return cost.vector_flops


def test_a_coefficient_of_one_is_not_multiplied_by() -> None:
    assert flops(lambda: torch.add(x, y), "aten.add") == N
    assert flops(lambda: torch.add(x, y, alpha=3), "aten.add") == N + N
    assert flops(lambda: torch.sub(x, y, alpha=-1), "aten.sub") == N + N
    assert flops(lambda: torch.rsub(x, y, alpha=2), "aten.rsub") == N + N
    assert flops(lambda: torch.addcmul(x, y, y), "aten.addcmul") == 2 * N
    assert flops(lambda: torch.addcmul(x, y, y, value=0.3), "aten.addcmul") == 3 * N
    assert flops(lambda: torch.addcdiv(x, y, y, value=-1), "aten.addcdiv") == 3 * N


def test_a_scaled_number_is_one_number() -> None:
    assert flops(lambda: torch.add(x, 2.0, alpha=3), "aten.add") == N
    assert flops(lambda: torch.rsub(x, 1), "aten.rsub") == N


def test_broadcast_operands_count_once_per_result() -> None:
    row, column = torch.rand(5), torch.rand(3, 1)
    cost = cost_of(lambda: row * column, "aten.mul")
    assert cost.vector_flops == N
    assert (cost.read_bytes, cost.write_bytes) == (F32 * (5 + 3), F32 * N)


def test_the_same_tensor_is_read_once() -> None:
    assert traffic_of(lambda: x * x, "aten.mul") == (F32 * N, F32 * N)


@pytest.mark.parametrize("twin", [torch.Tensor.add_, torch.Tensor.mul_, torch.Tensor.div_, torch.Tensor.pow_])
def test_in_place_reads_and_writes_self(twin: Any) -> None:
    name = f"aten.{twin.__name__}"
    cost = cost_of(lambda: twin(x.clone(), y), name)
    assert cost.vector_flops == N
    assert (cost.read_bytes, cost.write_bytes) == (F32 * 2 * N, F32 * N)


def test_out_is_only_written() -> None:
    out = torch.empty(3, 5)
    cost = cost_of(lambda: torch.mul(x, y, out=out), "aten.mul.out")
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (N, F32 * 2 * N, F32 * N)


ONE = (torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.sin, torch.tanh, torch.erf, torch.lgamma, torch.floor)


@pytest.mark.parametrize("function", ONE, ids=lambda f: f.__name__)
def test_a_library_function_is_one_operation(function: Any) -> None:
    assert flops(lambda: function(x), f"aten.{function.__name__}") == N


def test_comparisons_are_of_their_operands_dtype() -> None:
    cost = cost_of(lambda: x > y, "aten.gt")
    assert cost.split == (("vector", "float32", N),)
    assert (cost.read_bytes, cost.write_bytes) == (F32 * 2 * N, 1 * N)


def test_integers_and_bools_count_in_their_own_dtype() -> None:
    assert cost_of(lambda: i + 1, "aten.add").split == (("vector", "int64", N),)
    assert cost_of(lambda: (x > y) & (x < y), "aten.bitwise_and").split == (("vector", "bool", N),)
    assert flops(lambda: i << 2, "aten.__lshift__") == N


def test_definitions_of_several_operations() -> None:
    assert flops(lambda: torch.lerp(x, y, 0.3), "aten.lerp") == 3 * N  # b - a, times w, plus a
    assert flops(lambda: torch.lerp(x, y, y), "aten.lerp.Tensor") == 3 * N
    assert flops(lambda: torch.hypot(x, y), "aten.hypot") == (2 + 1 + 1) * N  # squares, sum, root
    assert flops(lambda: torch.floor_divide(x, y), "aten.floor_divide") == 2 * N  # quotient, floor
    assert flops(lambda: torch.div(x, y, rounding_mode="trunc"), "aten.div") == 2 * N
    assert flops(lambda: torch.div(x, y), "aten.div") == N
    assert flops(lambda: torch.logaddexp(x, y), "aten.logaddexp") == 7 * N  # max, sub, abs, neg, exp, log1p, add
    assert flops(lambda: torch.xlogy(x, y), "aten.xlogy") == 3 * N  # test of x, log, product
    assert flops(lambda: torch.round(x, decimals=2), "aten.round") == 3 * N  # scale, round, scale back
    assert flops(lambda: torch.round(x), "aten.round") == N
    assert flops(lambda: torch.sigmoid(x), "aten.sigmoid") == 4 * N  # neg, exp, add, div
    assert flops(lambda: torch.logit(x, eps=1e-3), "aten.logit") == (2 + 3) * N  # clamp; sub, div, log
    assert flops(lambda: torch.mvlgamma(x + 2, 3), "aten.mvlgamma") == (3 + 2 + 3) * N  # lgamma, shifts, sums


def test_clamp_compares_with_each_bound_given() -> None:
    assert flops(lambda: x.clamp(0, 1), "aten.clamp") == 2 * N
    assert flops(lambda: x.clamp(min=0), "aten.clamp") == N
    assert flops(lambda: x.clamp(x - 1, x + 1), "aten.clamp.Tensor") == 2 * N
    assert flops(lambda: x.clamp_min(0), "aten.clamp_min") == N


def test_complex_arithmetic_by_its_parts() -> None:
    assert flops(lambda: z + w, "aten.add") == 2 * N
    assert flops(lambda: z + x, "aten.add") == N  # only the real part
    assert flops(lambda: z * w, "aten.mul") == 6 * N
    assert flops(lambda: z * x, "aten.mul") == 2 * N
    assert flops(lambda: z * 2.0, "aten.mul") == 2 * N
    assert flops(lambda: z * 2j, "aten.mul") == 6 * N
    assert flops(lambda: z / w, "aten.div") == 11 * N  # z conj(w) 6, |w|^2 3, two divisions
    assert flops(lambda: z / 2, "aten.div") == 2 * N
    assert flops(lambda: x / z, "aten.div") == 8 * N  # |z|^2 3, two products, a sign, two divisions
    assert flops(lambda: torch.exp(z), "aten.exp") == 5 * N  # e^a, cos b, sin b, two products
    assert flops(lambda: torch.add(z, w, alpha=2), "aten.add") == (2 + 2) * N


def test_complex_to_real_and_back() -> None:
    cost = cost_of(lambda: torch.abs(z), "aten.abs")
    assert cost.vector_flops == 4 * N  # two squares, sum, root
    assert (cost.read_bytes, cost.write_bytes) == (C64 * N, F32 * N)
    assert flops(lambda: torch.polar(x, y), "aten.polar") == 4 * N  # cos, sin, two products
    assert flops(lambda: torch.complex(x, y), "aten.complex") == 0


def test_selection_moves_and_does_not_compute() -> None:
    cost = cost_of(lambda: torch.where(x > 0, x, y), "aten.where")
    assert cost.vector_flops == 0
    assert (cost.read_bytes, cost.write_bytes) == (1 * N + F32 * 2 * N, F32 * N)
    mask = x > 0
    assert traffic_of(lambda: x.masked_fill(mask, -math.inf), "aten.masked_fill") == (F32 * N + N, F32 * N)


def test_sparse_arithmetic_is_that_of_the_stored_entries() -> None:
    sparse = torch.eye(6).to_sparse()
    assert flops(lambda: sparse * 3.0, "aten.mul") == 6


def test_nothing_costs_nothing() -> None:
    assert flops(lambda: torch.empty(0, 5) + 1, "aten.add") == 0
    assert flops(lambda: torch.tensor(1.0) + 1, "aten.add") == 1
