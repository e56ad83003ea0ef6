"""Pairwise distances and bilinear layers, by hand and against the ops they could be written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of

F32 = 4  # bytes


def cost(run: Callable[[], Any], name: str) -> Cost:
    return price(only_op(run, name)).cost


class Number:
    """A scalar that counts the operations done on it."""

    count = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def _new(self, value: float) -> Number:
        Number.count += 1
        return Number(value)

    def __sub__(self, other: Number) -> Number:
        return self._new(self.value - other.value)

    def __add__(self, other: Number) -> Number:
        return self._new(self.value + other.value)

    def __abs__(self) -> Number:
        return self._new(abs(self.value))

    def __pow__(self, p: float) -> Number:
        return self._new(self.value**p)

    def nonzero(self) -> Number:
        return self._new(float(self.value != 0))

    def greater(self, other: Number) -> Number:
        return self._new(max(self.value, other.value))


def distance(x: list[Number], y: list[Number], p: float) -> Number:
    differences = [a - b for a, b in zip(x, y, strict=True)]
    if p == 2:
        terms = [d**2 for d in differences]
    elif p == 0:
        terms = [d.nonzero() for d in differences]
    elif p in (1, inf):
        terms = [abs(d) for d in differences]
    else:
        terms = [abs(d) ** p for d in differences]
    total = terms[0]
    for term in terms[1:]:
        total = total.greater(term) if p == inf else total + term
    return total if p in (0, 1, inf) else total ** (1 / p)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, inf])
def test_cdist_and_pdist_count_the_definition(p: float) -> None:
    n, r, m = 3, 4, 5
    x, y = torch.randn(n, m), torch.randn(r, m)
    Number.count = 0
    by_hand = [[distance([*map(Number, a)], [*map(Number, b)], p).value for b in y.tolist()] for a in x.tolist()]
    counted = Number.count
    assert torch.allclose(torch.cdist(x, y, p=p), torch.tensor(by_hand), atol=1e-5)  # the definition is torch's
    found = cost(lambda: torch.cdist(x, y, p=p), "aten._cdist_forward")
    assert (found.matmul_flops, found.vector_flops) == (0, counted)
    per_pair = counted // (n * r)
    assert cost(lambda: torch.pdist(x, p=p), "aten._pdist_forward").vector_flops == per_pair * (n * (n - 1) // 2)


def test_cdist_of_large_sets_is_a_product() -> None:
    n, r, m = 30, 28, 4
    found = cost(lambda: torch.cdist(torch.randn(n, m), torch.randn(r, m)), "aten._euclidean_dist")
    assert found.matmul_flops == 2 * n * r * (m + 2)  # two more columns carry the squared norms
    assert found.vector_flops == (n + r) * (2 * m - 1) + n * m + 2 * n * r
    assert found.bytes == F32 * (n * m + r * m + n * r)


def test_gradients_of_distances() -> None:
    n, r, m = 3, 4, 5
    x = torch.randn(n, m, requires_grad=True)
    op = only_op(lambda: torch.cdist(x, torch.randn(r, m)).sum().backward(), "aten._cdist_backward")
    found = price(op).cost
    # each pair: g / d once, subtract and multiply per feature; each of n m sums has r parts
    assert found.vector_flops == n * r * (1 + 2 * m) + n * m * (r - 1)
    (_, given), *rest = op.args
    assert all(price(replace(op, args=((name, given), *rest))).cost == found for name in ("grad", "grad_output"))
    pairs = n * (n - 1) // 2
    found = cost(lambda: torch.pdist(x).sum().backward(), "aten._pdist_backward")
    assert found.vector_flops == pairs * (1 + 2 * m) + pairs * m + n * m * (n - 2)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_bilinear_forward_and_backward(b: int, i: int, j: int, o: int) -> None:
    layer = nn.Bilinear(i, j, o, bias=False)
    x1, x2 = torch.randn(b, i, requires_grad=True), torch.randn(b, j, requires_grad=True)
    ops = ops_of(lambda: layer(x1, x2).sum().backward())
    forward, to_x1, to_weight, to_x2 = (price(op).cost for op in ops if op.packet == "aten._trilinear")
    whole = b * o * i * j
    assert (forward.matmul_flops, forward.vector_flops) == (2 * whole + 2 * b * o * j, 0)
    # dx1: dY W elementwise, slice by slice of o; times x2 summed over j; the o slices added up
    assert (to_x1.matmul_flops, to_x1.vector_flops) == (2 * whole, whole + (o - 1) * b * i)
    # dW: x1 dY elementwise, then times x2 summed over b
    assert (to_weight.matmul_flops, to_weight.vector_flops) == (2 * whole, b * o * i)
    # dx2: x1 W summed over i, times dY elementwise, the o slices added up
    assert (to_x2.matmul_flops, to_x2.vector_flops) == (2 * whole, b * o * j + (o - 1) * b * j)
    assert forward.read_bytes == F32 * (b * i + b * j + o * i * j)
