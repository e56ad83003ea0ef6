"""Reductions, softmax and scans: chains of S elements take S - 1 operations, and none when they are empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import cost_of, traffic_of

M, S = 4, 7
F32 = 4  # bytes
x = torch.rand(M, S)
z = torch.randn(M, S, dtype=torch.complex64)


def flops(run: Callable[[], Any], name: str) -> int:
    return cost_of(run, name).vector_flops


@given(st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_sum_and_softmax_of_any_shape(m: int, s: int) -> None:
    t = torch.rand(m, s)
    assert flops(lambda: t.sum(1), "aten.sum") == m * max(0, s - 1)
    assert flops(lambda: t.softmax(1), "aten._softmax") == (m * (5 * s - 2) if s else 0)


@pytest.mark.parametrize("reduce", ["amax", "amin", "argmax", "prod", "all", "any"])
def test_a_chain_has_one_join_less_than_elements(reduce: str) -> None:
    assert flops(lambda: getattr(torch, reduce)(x, 1), f"aten.{reduce}") == M * (S - 1)


def test_reducing_everything() -> None:
    assert flops(lambda: x.sum(), "aten.sum") == M * S - 1
    assert flops(lambda: x.max(), "aten.max") == M * S - 1
    assert flops(lambda: x.max(1), "aten.max.dim") == M * (S - 1)
    assert flops(lambda: torch.aminmax(x), "aten.aminmax") == 2 * (M * S - 1)
    assert flops(lambda: x.mean(), "aten.mean") == M * S  # M S - 1 additions and a division
    assert flops(lambda: torch.trace(x), "aten.trace") == M - 1
    assert traffic_of(lambda: torch.trace(x), "aten.trace") == (F32 * M, F32)


def test_max_of_two_tensors_is_pointwise() -> None:
    assert flops(lambda: torch.maximum(x, x + 1), "aten.maximum") == M * S


def test_moments_centre_once() -> None:
    # mean S, centred S, squared S, their mean S
    assert flops(lambda: x.var(1), "aten.var") == M * 4 * S
    assert flops(lambda: x.std(1), "aten.std") == M * (4 * S + 1)
    assert flops(lambda: torch.var_mean(x, 1), "aten.var_mean") == M * 4 * S
    assert flops(lambda: torch.std_mean(x, 1), "aten.std_mean") == M * (4 * S + 1)


def test_vector_norms() -> None:
    norm = torch.linalg.vector_norm
    name = "aten.linalg_vector_norm"
    assert flops(lambda: norm(x, 2, 1), name) == M * (S + S - 1 + 1)  # squares, sum, root
    assert flops(lambda: norm(x, 1, 1), name) == M * (S + S - 1)
    assert flops(lambda: norm(x, float("inf"), 1), name) == M * (S + S - 1)
    assert flops(lambda: norm(x, 0, 1), name) == M * (S + S - 1)  # tests, counted
    assert flops(lambda: norm(x, 3, 1), name) == M * (S + S + S - 1 + 1)  # |x|, powers, sum, root
    assert flops(lambda: norm(z, 2, 1), name) == M * (3 * S + S - 1 + 1)


def test_complex_sums_have_two_parts() -> None:
    assert flops(lambda: z.sum(1), "aten.sum") == 2 * M * (S - 1)
    assert flops(lambda: z.prod(1), "aten.prod") == 6 * M * (S - 1)


def test_counting_and_comparing() -> None:
    assert flops(lambda: torch.count_nonzero(x), "aten.count_nonzero") == M * S + (M * S - 1)
    assert flops(lambda: torch.equal(x, x.clone()), "aten.equal") == M * S + (M * S - 1)
    assert flops(lambda: torch.histc(x, 10, 0, 1), "aten.histc") == M * S
    assert flops(lambda: torch.histc(x, 10), "aten.histc") == M * S + 2 * (M * S - 1)  # the range first
    assert flops(lambda: torch.bincount(torch.tensor([1, 2, 2])), "aten.bincount") == 3


def test_softmax_and_its_backward() -> None:
    # max S - 1, sub S, exp S, sum S - 1, then div S, or log 1 and sub S
    assert flops(lambda: x.softmax(1), "aten._softmax") == M * (5 * S - 2)
    assert flops(lambda: x.log_softmax(1), "aten._log_softmax") == M * (5 * S - 1)
    assert flops(lambda: torch.logsumexp(x, 1), "aten.logsumexp") == M * 4 * S  # ..., log 1, + max 1

    def backward(function: Any) -> Any:
        return lambda: function(x.clone().requires_grad_(), 1).sum().backward()

    assert flops(backward(torch.softmax), "aten._softmax_backward_data") == M * (4 * S - 1)
    assert flops(backward(torch.log_softmax), "aten._log_softmax_backward_data") == M * (4 * S - 1)


def test_softmax_along_any_dimension_and_of_a_number() -> None:
    t = torch.rand(2, 3, 5)
    assert flops(lambda: t.softmax(1), "aten._softmax") == 2 * 5 * (5 * 3 - 2)
    assert flops(lambda: torch.tensor(1.0).softmax(0), "aten._softmax") == 5 - 2


def test_scans_join_all_but_the_first() -> None:
    assert flops(lambda: x.cumsum(1), "aten.cumsum") == M * (S - 1)
    assert flops(lambda: x.cumprod(0), "aten.cumprod") == (M - 1) * S
    assert flops(lambda: x.cummax(1), "aten.cummax") == M * (S - 1)
    assert flops(lambda: x.logcumsumexp(1), "aten.logcumsumexp") == 7 * M * (S - 1)
    assert flops(lambda: torch.rand(0, 3).cumsum(0), "aten.cumsum") == 0


def test_sorting_is_a_model_in_comparisons() -> None:
    assert flops(lambda: x.sort(1), "aten.sort") == M * S * 3  # ceil(log2 7)
    assert flops(lambda: torch.rand(8).sort(), "aten.sort") == 8 * 3
    assert flops(lambda: torch.rand(9).sort(), "aten.sort") == 9 * 4
    assert flops(lambda: x.topk(3, 1), "aten.topk") == M * S * 2  # ceil(log2 4)
    assert flops(lambda: x.topk(1, 1), "aten.topk") == M * S
    assert flops(lambda: x.kthvalue(2, 1), "aten.kthvalue") == M * S * 2  # ceil(log2 3)
    boundaries = torch.linspace(0, 1, 7)
    assert flops(lambda: torch.bucketize(x, boundaries), "aten.bucketize") == M * S * 3  # ceil(log2 8)


def test_renorm_scales_every_slice() -> None:
    # norm 2 S, comparison, maxnorm / (norm + eps), S products
    assert flops(lambda: x.renorm(2, 0, 1.0), "aten.renorm") == M * (2 * S + 3 + S)


def test_histograms_count_search_and_normalise() -> None:
    samples, edges = torch.rand(20), torch.linspace(0, 1, 5)
    name = "aten.histogram"
    assert flops(lambda: torch.histogram(samples, 4, range=(0.0, 1.0)), name) == 20
    assert flops(lambda: torch.histogram(samples, 4), name) == 20 + 2 * (20 - 1)  # the range first
    assert flops(lambda: torch.histogram(samples, edges), name) == 20 + 20 * 3  # ceil(log2 5) comparisons
    density = 20 + (4 - 1) + 4 + 4  # the total; times the width, divided
    assert flops(lambda: torch.histogram(samples, 4, range=(0.0, 1.0), density=True), name) == density
